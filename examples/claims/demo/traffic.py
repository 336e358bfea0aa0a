"""The users of the process: customers who file claims, and a desk of adjusters that decides most of them.

They repeat each request until they get an answer, because the server can be killed at any moment. A repeat is safe:
a claim is filed under its own id, and each decision has an operation id.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import NamedTuple, TypeVar

import httpx2
import msgspec

import perdure as df
from examples.claims.model import Claim, Ruling, Verdict

CUSTOMERS = ADJUSTERS = 16  # concurrent requests of each
FOR_YOU = 100_000  # the desk leaves claims of this many dollars to the viewer
APPROVED = 0.85  # the share of the others that the desk approves
REASONS: dict[Verdict, str] = {
    "approve": "The damage fits the report.",
    "deny": "The photos show another car.",
}
AGAIN = (429, 503)  # busy, or stopping: repeat

T = TypeVar("T")


async def until_answered(send: Callable[[], Awaitable[T]]) -> T:
    """Repeat a request while there is no server to answer it."""
    while True:
        try:
            return await send()
        except (httpx2.TransportError, df.EngineStopped, df.OutcomeUnknown, df.Overloaded):
            await asyncio.sleep(0.1)


async def file_claims(
    url: str, claims: Iterable[Claim], filed: Callable[[], None], rate: float = 0.0
) -> list[float]:
    """POST each claim, and return how long each took to be accepted, in seconds.

    `rate` is the number of claims a second; 0 files as fast as the server accepts them.
    """
    took: list[float] = []
    waiting_line = enumerate(claims)
    opened = time.perf_counter()

    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:

        async def post(body: bytes) -> None:
            answer = await http.post("/api/claims", content=body)
            if answer.status_code in AGAIN:
                raise df.EngineStopped(answer.text)
            answer.raise_for_status()

        async def customer() -> None:
            for number, claim in waiting_line:
                if rate:
                    await asyncio.sleep(max(0.0, opened + number / rate - time.perf_counter()))
                body = msgspec.json.encode(claim)
                began = time.perf_counter()
                await until_answered(partial(post, body))
                took.append(time.perf_counter() - began)
                filed()

        async with asyncio.TaskGroup() as group:
            for _ in range(CUSTOMERS):
                group.create_task(customer())
    return took


Staff = Mapping[df.Person, df.Client]
"""A client for each person; over HTTP each has a key of their own."""


class Waiting(NamedTuple):
    """A decision that is waited for: the claim, who may decide it now, and who has."""

    task: str
    claim: str
    roles: tuple[str, ...]
    given_by: tuple[str, ...]


class Desk:
    """Adjusters and supervisors who look up the claims that wait for them, and decide."""

    def __init__(self, staff: Staff, claims: Mapping[str, Claim], left: Collection[str] = ()) -> None:
        """The desk does not touch the claims that are `left` to the viewer."""
        self._staff = staff
        self._claims = claims
        self._left = frozenset(left)

    async def work(self) -> tuple[int, int]:
        """Decide the waiting claims; returns the number of decisions, and of claims left to the viewer."""
        answered, left = 0, set[str]()
        for person in self._staff:
            found = [task async for task in tasks(self._staff[person], person)]
            left |= {task.task for task in found if self._is_left(task)}
            mine = [task for task in found if self._is_for(task, person)]
            answered += len(mine)
            for batch in (mine[i : i + ADJUSTERS] for i in range(0, len(mine), ADJUSTERS)):
                async with asyncio.TaskGroup() as group:
                    for task in batch:
                        group.create_task(self._answer(task, person))
        return answered, len(left)

    def _is_for(self, task: Waiting, person: df.Person) -> bool:
        """The desk gives the first decision of a large claim and leaves the second to the viewer."""
        if person.name in task.given_by or not set(task.roles) & set(person.roles):
            return False
        claim = self._claims.get(task.claim)
        if claim is None or self._is_left(task):
            return False
        return claim.decide_within >= timedelta(minutes=1) or "supervisor" in task.roles

    def _is_left(self, task: Waiting) -> bool:
        return task.claim in self._left or (self._is_for_you(task) and bool(task.given_by))

    def _is_for_you(self, task: Waiting) -> bool:
        claim = self._claims.get(task.claim)
        return claim is None or claim.total >= FOR_YOU

    async def _answer(self, task: Waiting, person: df.Person) -> None:
        verdict: Verdict = "approve" if self._is_for_you(task) or _likes(task.claim) else "deny"
        ruling = Ruling(verdict=verdict, reason=REASONS[verdict])
        send = partial(self._staff[person].complete_task, task.task, person, ruling)
        with suppress(df.TaskClosed, df.TaskHeld, df.TaskRefused):  # the viewer was faster
            await until_answered(partial(send, operation_id=f"desk-{task.task}-{person.name}"))


def _likes(claim_id: str) -> bool:
    return random.Random(claim_id).random() < APPROVED


async def tasks(client: df.Client, person: df.Person) -> AsyncIterator[Waiting]:
    """The decisions that a person may take, page by page."""
    query = partial(client.list_tasks, event="Decision", role=person.roles[0], top=1_000)
    continuation: str | None = None
    while True:
        page = await until_answered(partial(query, continuation=continuation))
        for task in page.tasks:
            yield Waiting(task.id, task.instance_id.partition(".")[0], task.roles, task.given_by)
        continuation = page.continuation
        if continuation is None:
            return


async def statuses(client: df.Client) -> AsyncIterator[df.OrchestrationStatus]:
    """All claims, page by page, newest first."""
    query = partial(client.query, name="claims_orchestrator", top=1_000)
    continuation: str | None = None
    while True:
        page = await until_answered(partial(query, continuation=continuation))
        for status in page.instances:
            yield status
        continuation = page.continuation
        if continuation is None:
            return
