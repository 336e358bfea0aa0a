"""Fraud scoring over HTTP, for callers with the key."""

import asyncio
import os
import secrets
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.claims.services.fraud.circumstances import Circumstances
from examples.claims.services.fraud.model import FraudModel
from examples.claims.services.fraud.training import cases
from examples.claims.services.switches import Switch, problem

KEY = "CLAIMS_FRAUD_KEY"


def make(home: Path) -> Starlette:
    """The service, with a model that it trains now, and its switch in a folder."""
    if not os.environ.get(KEY):
        raise SystemExit(f"set {KEY}: fraud scoring answers only requests with this key")
    given = os.environ.get("CLAIMS_CSV")
    model = FraudModel(cases(Path(given) if given else None))
    switch = Switch("fraud", home)
    desk = FraudDesk(model, os.environ[KEY])
    return Starlette(routes=[Route("/score", switch.over(desk.score), methods=["POST"]), *switch.routes()])


class FraudDesk:
    """Answers with scores."""

    def __init__(self, model: FraudModel, key: str) -> None:
        self._model = model
        self._expected = f"Bearer {key}".encode()

    async def score(self, request: Request) -> Response:
        """Score the circumstances of one claim."""
        given = request.headers.get("authorization", "").encode()
        if not secrets.compare_digest(given, self._expected):
            return problem(401, "send Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"})
        try:
            claim = msgspec.json.decode(await request.body(), type=Circumstances)
        except msgspec.DecodeError as error:
            return problem(422, f"not the circumstances of a claim: {error}")
        score = await asyncio.to_thread(self._model.score, claim)
        return JSONResponse(msgspec.to_builtins(score))
