"""The stage's world: the stories with the real server, the real services and real time."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import httpx2
import msgspec

import perdure as df
from examples.claims.connections import BANK_BOOK, BANK_SWITCH, home
from examples.claims.demo.server import Server
from examples.claims.demo.traffic import Staff, until_answered
from examples.claims.ledger import Ledger
from examples.claims.model import Claim, Ending, Outcome, Stage
from examples.claims.people import Claimant, People
from examples.claims.scenarios import TODAY, DidNotComeTrue, Fault, Looks

LONG = 180.0  # seconds after which a story that does not go on did not come true
A_LOOK = 0.1
ENDINGS: tuple[Ending, ...] = ("paid", "rejected", "denied", "settled otherwise")
SEVEN_MONTHS = timedelta(days=210)


@dataclass
class StageWorld:
    """Plays stories beside the other claims, several at a time. Only one of them breaks something at a time."""

    server: Server
    client: df.Client
    staff: Staff
    people: People
    urls: Mapping[str, str]
    http: httpx2.AsyncClient
    patience: timedelta = timedelta(seconds=20)
    _broken: asyncio.Lock = field(default_factory=asyncio.Lock)
    _numbers: Any = field(default_factory=lambda: count(time.time_ns() % 10**9))

    async def photo(self, looks: Looks, claim_id: str) -> str:
        if "photos" not in self.urls:
            return f"{looks}-{next(self._numbers)}"
        from examples.claims.demo import pictures

        return await pictures.stored(looks, self._numbers, claim_id, self._assess)

    async def claimant(self, claimant: Claimant) -> str:
        return self.people.add(claimant)

    async def change_account(self, person: str, claim_id: str, account: str) -> None:
        self.people.add(replace(self.people.find(person), account=account), person)
        await self.send(f"{claim_id}.payment", "NewAccount")

    async def file(self, claim: Claim) -> None:
        start = partial(self.client.start_new, "claims_orchestrator", claim.claim_id, claim)
        await until_answered(partial(start, on_existing="return_existing"))

    async def reaches(self, claim_id: str, stage: str) -> None:
        await self._until(f"it does not reach {stage!r}", partial(self._has_reached, claim_id, (stage,)))

    async def task(self, claim_id: str, event: str, role: str = "") -> dict[str, Any]:
        facts: dict[str, Any] = (await self._task(claim_id, event, role)).facts
        return facts

    async def answer(self, claim_id: str, event: str, person: df.Person, answer: object) -> None:
        task = await self._task(claim_id, event, person.roles[0], person.name)
        send = partial(self.staff[person].complete_task, task.id, person, answer)
        await until_answered(partial(send, operation_id=f"story-{task.id}-{person.name}-{task.since}"))

    async def send(self, instance_id: str, event: str, body: object = None) -> None:
        raising = partial(self.client.raise_event, instance_id, event, body)
        await until_answered(partial(raising, event_id=f"story-{instance_id}-{event}"))

    async def wait(self, time: timedelta) -> None:
        await asyncio.sleep(time.total_seconds())

    async def fault(self, fault: Fault, on: bool) -> None:
        switch = home() / BANK_SWITCH
        if on:
            await self._broken.acquire()
            switch.touch()
        else:
            switch.unlink(missing_ok=True)
            self._broken.release()

    async def crash(self) -> None:
        self.server.kill()

    async def attempts(self, claim_id: str, at_least: int) -> None:
        async def tried() -> bool:
            status = await until_answered(partial(self.client.get_status, f"{claim_id}.payment"))
            if status is None or status.waiting is None:
                return False
            has_given_way = (
                status.custom_status is not None
            )  # after the attempts in a row it waits at the gate
            return has_given_way or any(retry.attempt > at_least for retry in status.waiting.retries)

        await self._until(f"the payment is not tried {at_least} times", tried)

    async def outcome(self, claim_id: str) -> Outcome:
        await self._until("it does not end", partial(self._has_reached, claim_id, ENDINGS))
        status = await until_answered(partial(self.client.get_status, claim_id))
        assert status is not None
        last = _trail(status)[-1]
        if last.stage == "rejected":
            return Outcome("rejected", claim_id, last.note)
        await self._until("it does not end", partial(self._is_finished, claim_id))
        status = await until_answered(partial(self.client.get_status, claim_id))
        assert status is not None
        return msgspec.convert(status.output, Outcome)

    async def paid(self, claim_id: str) -> list[int]:
        if "bank" not in self.urls:
            book = Ledger(home() / BANK_BOOK)
            try:
                return [one.amount for one in book.standing().values() if one.claim_id == claim_id]
            finally:
                book.close()
        query = {"claim": claim_id, "state": "paid"}
        found: list[int] = []

        async def answered() -> bool:
            answer = await self.http.get(f"{self.urls['bank']}/payments", params=query)
            if answer.is_success:
                found[:] = [payment["amount"] for payment in answer.json()["payments"]]
            return answer.is_success

        await self._until("the bank does not answer", answered)
        return found

    async def letters(self, claim_id: str) -> list[str]:
        if "post" not in self.urls:
            sent = (home() / "outbox" / "customer").glob(f"{claim_id}-*.txt")
            return [letter.read_text().partition("\n")[0] for letter in sent]
        found = await self.http.get(f"{self.urls['post']}/messages", params={"claim": claim_id})
        return [letter["subject"] for letter in found.json()["messages"]]

    # ----------------------------------------------------------------------------------------------- inside

    async def _until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + LONG
        while not await holds():
            if time.monotonic() > deadline:
                raise DidNotComeTrue(f"{what} within {LONG:g} s")
            await asyncio.sleep(A_LOOK)

    async def _has_reached(self, claim_id: str, stages: tuple[str, ...]) -> bool:
        status = await until_answered(partial(self.client.get_status, claim_id))
        return status is not None and any(stage.stage in stages for stage in _trail(status))

    async def _is_finished(self, claim_id: str) -> bool:
        status = await until_answered(partial(self.client.get_status, claim_id))
        return status is not None and status.is_finished

    async def _task(self, claim_id: str, event: str, role: str, besides: str = "") -> Any:
        """An open task of the claim, which that person has not decided."""
        found: list[Any] = []

        async def is_open() -> bool:
            query = partial(self.client.list_tasks, event=event, role=role, top=1_000)
            tasks = (await until_answered(query)).tasks
            mine = [task for task in tasks if task.instance_id.partition(".")[0] == claim_id]
            found[:] = [task for task in mine if besides not in task.given_by]
            return bool(found)

        await self._until(f"no task for {role or 'anyone'}", is_open)
        return found[0]

    async def _assess(self, claim_id: str, digest: str) -> dict[str, Any]:
        body = {"claim_id": claim_id, "happened": TODAY.isoformat(), "photos": [digest]}
        answer = await self.http.post(f"{self.urls['photos']}/assessments", json=body, timeout=LONG)
        found: dict[str, Any] = answer.raise_for_status().json()["photos"][0]
        return found


def _trail(status: df.OrchestrationStatus) -> list[Stage]:
    return msgspec.convert(status.custom_status or [], list[Stage])


async def payments_at(url: str) -> dict[str, int]:
    """How often the bank at an address has paid each claim."""
    from examples.claims.remote import BankService

    bank = BankService(url)
    try:
        found: dict[str, int] = {}
        for payment in (await bank.payments()).values():
            found[payment.claim_id] = found.get(payment.claim_id, 0) + 1
        return found
    finally:
        await bank.close()
