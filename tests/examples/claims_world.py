"""A world for the stories of the claims office: a virtual clock, and the stand-ins instead of services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

import perdure as df
from examples.claims.connections import BANK_BOOK, BANK_SWITCH, PEOPLE, PEOPLE_KEY
from examples.claims.ledger import Ledger
from examples.claims.model import Claim, Outcome
from examples.claims.paying import move_money
from examples.claims.people import Claimant, People, key_in
from examples.claims.process import claims_orchestrator
from examples.claims.scenarios import Fault, Looks
from examples.claims.telling import send
from perdure.testing import DurableEnvironment


class VirtualWorld:
    """Plays stories in milliseconds. Each wait is for the engine to be idle, then for a second of its clock."""

    patience = timedelta(hours=72)

    def __init__(self, env: DurableEnvironment, home: Path) -> None:
        self.env = env
        self._home = home
        self._photos = count()
        self._people = People(home / PEOPLE, key_in(home / PEOPLE_KEY))

    async def photo(self, looks: Looks, claim_id: str) -> str:
        return f"{looks}-{next(self._photos)}"

    async def claimant(self, claimant: Claimant) -> str:
        return self._people.add(claimant)

    async def change_account(self, person: str, claim_id: str, account: str) -> None:
        self._people.add(replace(self._people.find(person), account=account), person)
        await self.send(f"{claim_id}.payment", "NewAccount")

    async def file(self, claim: Claim) -> None:
        await self.env.client.start_new(
            claims_orchestrator, claim.claim_id, claim, on_existing="return_existing"
        )

    async def reaches(self, claim_id: str, stage: str) -> None:
        await self.until(lambda: self._has_reached(claim_id, stage))

    async def task(self, claim_id: str, event: str, role: str = "") -> dict[str, Any]:
        return (await self._task(claim_id, event, role)).facts

    async def answer(self, claim_id: str, event: str, person: df.Person, answer: object) -> None:
        task = await self._task(claim_id, event, person.roles[0])
        await self.env.client.complete_task(task.id, person, answer)
        await self.env.settled()

    async def send(self, instance_id: str, event: str, body: object = None) -> None:
        await self.env.settled()
        await self.env.client.raise_event(instance_id, event, body)

    async def wait(self, time: timedelta) -> None:
        await self.env.advance(time)

    async def fault(self, fault: Fault, on: bool) -> None:
        switch = self._home / BANK_SWITCH
        switch.touch() if on else switch.unlink(missing_ok=True)

    async def crash(self) -> None:
        await self.env.restart()

    async def attempts(self, claim_id: str, at_least: int) -> None:
        async def tried() -> bool:
            return sum(call.input["claim_id"] == claim_id for call in self.env.calls(move_money)) >= at_least

        await self.until(tried)

    async def outcome(self, claim_id: str) -> Outcome:
        status = await self.env.client.wait_for_completion(claim_id)
        return msgspec.convert(status.output, Outcome)

    async def paid(self, claim_id: str) -> list[int]:
        book = Ledger(self._home / BANK_BOOK)
        try:
            return [payment.amount for payment in book.standing().values() if payment.claim_id == claim_id]
        finally:
            book.close()

    async def letters(self, claim_id: str) -> list[str]:
        sent = [call.input for call in self.env.calls(send) if call.attempt == 1]
        return [
            letter["subject"] for letter in sent if letter["claim_id"] == claim_id and not letter.get("role")
        ]

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(200):
            await self.env.settled()
            if await holds():
                return
            await self.env.advance(seconds=1)
        raise TimeoutError("it did not happen within 200 virtual seconds")

    def close(self) -> None:
        self._people.close()

    async def _task(self, claim_id: str, event: str, role: str) -> Any:
        found: list[Any] = []

        async def is_open() -> bool:
            tasks = (await self.env.client.list_tasks(event=event, role=role)).tasks
            found[:] = [task for task in tasks if task.instance_id.partition(".")[0] == claim_id]
            return bool(found)

        await self.until(is_open)
        return found[0]

    async def _has_reached(self, claim_id: str, stage: str) -> bool:
        status = await self.env.client.get_status(claim_id)
        return any(one["stage"] == stage for one in (status.custom_status or ()))
