"""The bank over HTTP: payments, reversals, the list for reconciliation, and its counters."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from examples.claims.services.bank.ledger import Entry, KeyTaken, Ledger, Order
from examples.claims.services.pages import STATIC, page
from examples.claims.services.switches import Mode, Switch, problem

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
LARGEST_PAGE, ON_A_PAGE = 1_000, 100

REFUSALS = {"closed": "the account is closed", "unknown": "there is no such account"}
"""What the bank says of an account whose text contains the word."""
LOST = "lost"  # the first payment to such an account moves the money, and its answer does not arrive


class PaymentRequest(msgspec.Struct, frozen=True):
    claim_id: Text
    amount: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
    account: Text


class ReversalRequest(msgspec.Struct, frozen=True):
    key: Text


class PageRequest(msgspec.Struct, frozen=True):
    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_PAGE)] = LARGEST_PAGE
    state: str | None = None
    claim: str | None = None


def make(home: Path) -> Starlette:
    """The bank with its book and its switch in a folder."""
    bank = Bank(Ledger(home / "bank.db"), Switch("bank", home))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        bank.ledger.close()

    return Starlette(routes=bank.routes(), lifespan=lifespan)


@dataclass(frozen=True)
class Bank:
    ledger: Ledger
    switch: Switch

    def routes(self) -> list[BaseRoute]:
        over = self.switch.over
        return [
            Route("/payments", over(self.pay), methods=["POST"]),
            Route("/payments", over(self.list_payments)),
            Route("/reversals", over(self.reverse), methods=["POST"]),
            Route("/counters", self.count),
            Route("/", self.show),
            STATIC,
            *self.switch.routes(),
        ]

    async def pay(self, request: Request) -> Response:
        """Pay once for a key, or answer with what became of it."""
        key = request.headers.get("idempotency-key", "")
        if not 1 <= len(key) <= 200:
            return problem(400, "send a header Idempotency-Key of 1 to 200 characters")
        try:
            asked = msgspec.json.decode(await request.body(), type=PaymentRequest)
        except msgspec.DecodeError as error:
            return problem(400, f"not a payment: {error}")
        order = Order(key, asked.claim_id, asked.amount, asked.account)
        mode = self.switch.read().mode
        try:
            entry, is_new = await asyncio.to_thread(self.ledger.enter, order, _refusal(order, mode))
        except KeyTaken as error:
            return problem(409, str(error))
        if entry.state == "refused":
            return JSONResponse({"refusal": entry.refusal, "key": entry.key}, 422)
        if mode == "lose" or (is_new and LOST in order.account):
            return problem(504, "the bank did not answer in time")
        return JSONResponse(_shown(entry), 201 if is_new else 200)

    async def reverse(self, request: Request) -> Response:
        """Take a payment back."""
        try:
            asked = msgspec.json.decode(await request.body(), type=ReversalRequest)
        except msgspec.DecodeError as error:
            return problem(400, f"not a reversal: {error}")
        entry = await asyncio.to_thread(self.ledger.reverse, asked.key)
        if entry is None:
            return problem(404, f"no payment has the key {asked.key!r}")
        return JSONResponse(_shown(entry))

    async def list_payments(self, request: Request) -> Response:
        """A page of the book."""
        try:
            asked = msgspec.convert(dict(request.query_params), PageRequest, strict=False)
        except msgspec.ValidationError as error:
            return problem(400, f"not a page of payments: {error}")
        entries = await asyncio.to_thread(
            self.ledger.entries, asked.after, asked.limit, asked.state, asked.claim
        )
        is_last = len(entries) < asked.limit
        return JSONResponse(
            {
                "payments": [asdict(entry) | {"payment_id": entry.payment_id} for entry in entries],
                "next": None if is_last else entries[-1].number,
            }
        )

    async def count(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self.ledger.counters))

    async def show(self, request: Request) -> Response:
        """The page for people: the counters, and the newest rows of the book."""
        return page(
            "bank.html",
            counters=await asyncio.to_thread(self.ledger.counters),
            entries=await asyncio.to_thread(self.ledger.newest, ON_A_PAGE),
            mode=self.switch.read().mode,
        )


def _refusal(order: Order, mode: Mode) -> str:
    """Why the bank refuses an order, or ""."""
    if mode == "refuse":
        return "the bank refuses every payment at the moment"
    return next((why for word, why in REFUSALS.items() if word in order.account), "")


def _shown(entry: Entry) -> dict[str, Any]:
    return {
        "payment_id": entry.payment_id,
        "claim_id": entry.claim_id,
        "amount": entry.amount,
        "key": entry.key,
        "state": entry.state,
    }
