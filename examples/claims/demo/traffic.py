"""The users of the process: customers who file claims, and a desk of adjusters that decides most of them.

They repeat each request until they get an answer, because the server can be killed at any moment. A repeat is safe:
a claim is filed under its own id, and each decision has its own id.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TypeVar

import httpx2
import msgspec

import perdure as df
from examples.claims.model import Claim, Decision

CUSTOMERS = ADJUSTERS = 16  # concurrent requests of each
FOR_YOU = 100_000  # the desk leaves claims of this many dollars to the viewer
APPROVED = 0.85  # the share of the others that the desk approves
AGAIN = (429, 503)  # busy, or stopping: repeat

T = TypeVar("T")


async def until_answered(send: Callable[[], Awaitable[T]]) -> T:
    """Repeat a request while there is no server to answer it."""
    while True:
        try:
            return await send()
        except (httpx2.TransportError, df.EngineStopped, df.OutcomeUnknown, df.Overloaded):
            await asyncio.sleep(0.1)


async def file_claims(url: str, claims: Iterable[Claim], filed: Callable[[], None]) -> list[float]:
    """POST each claim, and return how long each took to be accepted, in seconds."""
    took: list[float] = []
    waiting_line = iter(claims)

    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:

        async def post(body: bytes) -> None:
            answer = await http.post("/api/claims", content=body)
            if answer.status_code in AGAIN:
                raise df.EngineStopped(answer.text)
            answer.raise_for_status()

        async def customer() -> None:
            for claim in waiting_line:
                body = msgspec.json.encode(claim)
                began = time.perf_counter()
                await until_answered(partial(post, body))
                took.append(time.perf_counter() - began)
                filed()

        async with asyncio.TaskGroup() as group:
            for _ in range(CUSTOMERS):
                group.create_task(customer())
    return took


class Desk:
    """Adjusters who look up the claims that wait for a decision, and decide."""

    def __init__(self, client: df.Client, claims: Mapping[str, Claim]) -> None:
        self._client = client
        self._claims = claims

    async def work(self) -> tuple[int, int]:
        """Decide the waiting claims; returns the number of decisions, and of claims left to the viewer."""
        waiting = [s.instance_id async for s in statuses(self._client, waiting_for="ApproverDecision")]
        verdicts = [(claim_id, self.verdict(claim_id)) for claim_id in waiting]
        decided = [(claim_id, verdict) for claim_id, verdict in verdicts if verdict is not None]
        for batch in (decided[i : i + ADJUSTERS] for i in range(0, len(decided), ADJUSTERS)):
            async with asyncio.TaskGroup() as group:
                for claim_id, verdict in batch:
                    group.create_task(self._answer(claim_id, verdict))
        return len(decided), sum(self._is_for_you(claim_id) for claim_id in waiting)

    def verdict(self, claim_id: str) -> Decision | None:
        """The decision, or None for a large claim (the viewer decides) and for a claim that must expire."""
        if self._is_for_you(claim_id) or self._claims[claim_id].decide_within < timedelta(minutes=1):
            return None
        return Decision(random.Random(claim_id).random() < APPROVED, by="the desk")

    def _is_for_you(self, claim_id: str) -> bool:
        claim = self._claims.get(claim_id)
        return claim is None or claim.total >= FOR_YOU

    async def _answer(self, claim_id: str, verdict: Decision) -> None:
        send = partial(self._client.raise_event, claim_id, "ApproverDecision", verdict)
        with suppress(df.InstanceFinished):  # the viewer was faster
            await until_answered(partial(send, event_id=f"desk-{claim_id}"))


async def statuses(
    client: df.Client, *, waiting_for: str | None = None
) -> AsyncIterator[df.OrchestrationStatus]:
    """All claims, page by page, newest first."""
    query = partial(client.query, prefix="claim-", waiting_for=waiting_for, top=1_000)
    continuation: str | None = None
    while True:
        page = await until_answered(partial(query, continuation=continuation))
        for status in page.instances:
            yield status
        continuation = page.continuation
        if continuation is None:
            return
