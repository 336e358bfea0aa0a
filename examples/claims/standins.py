"""The bank, the post and the photo desk as files of this process, for tests and for a first look without services.

They take the place of the services while no address is set: see `connections`.
"""

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from examples.claims.connections import BANK_BOOK, BANK_SWITCH, BankAway, Undeliverable
from examples.claims.ledger import Ledger, payment_id_of
from examples.claims.model import BankAnswer, Claim, Letter, Payment, PaymentOrder, Photo
from examples.claims.people import Claimant

CLOSED = "closed"  # an account with this text in it is refused
LOST = "lost"  # the first answer about a payment to an account with this gets lost
NOWHERE = "nowhere"  # so is mail to an address with this
ON, AWAY, LOSE = "on", "away", "lose"  # what the switch says
PHOTOS = {  # by the beginning of the photo's name
    "old": Photo("", problem="taken before the accident"),
    "seen": Photo("", seen_in="claim-of-before", damage=0.1, confidence=0.9),
    "whole": Photo("", confidence=0.9),
}
ANY_OTHER = Photo("", damage=0.1, confidence=0.9)


class BankFile:
    """A bank in a file. While the file `bank.switch` exists, it does not answer; if the file says `lose`, it pays."""

    def __init__(self, folder: Path) -> None:
        self._switch = folder / BANK_SWITCH
        self._book = Ledger(folder / BANK_BOOK)
        self._answered: set[str] = set()

    async def pay(self, order: PaymentOrder, payee: Claimant) -> BankAnswer:
        mode = self._mode()
        if mode == AWAY:
            raise self._away()
        if CLOSED in payee.account:
            return BankAnswer(refusal="the account is closed")
        payment = Payment(payment_id_of(order.key), order.claim_id, order.amount, order.key)
        paid = await asyncio.to_thread(self._book.enter, payment)
        if mode == LOSE or (LOST in payee.account and self._is_first(order.key)):
            raise BankAway("the bank has paid, and its answer is lost")
        return BankAnswer(paid)

    async def reverse(self, payment: Payment) -> None:
        if self._mode() == AWAY:
            raise self._away()
        await asyncio.to_thread(self._book.reverse, payment.key)

    async def payments(self) -> dict[str, Payment]:
        if self._mode() == AWAY:
            raise self._away()
        return await asyncio.to_thread(self._book.standing)

    async def close(self) -> None:
        self._book.close()

    def _is_first(self, key: str) -> bool:
        is_first = key not in self._answered
        self._answered.add(key)
        return is_first

    def _mode(self) -> str:
        with suppress(FileNotFoundError):
            return self._switch.read_text().strip() or AWAY
        return ON

    def _away(self) -> BankAway:
        return BankAway(f"the bank does not answer (remove {self._switch} to bring it back)")


class Outbox:
    """A folder for each addressee, one file a message. A message has a name, so a repeat makes no second message."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # other users of this machine cannot read it

    async def send(self, letter: Letter, to: Claimant, decide: str = "") -> None:
        if NOWHERE in to.mail:
            raise Undeliverable("there is no such mailbox")
        await asyncio.to_thread(self._write, letter, decide)

    async def close(self) -> None:
        pass

    def _write(self, letter: Letter, decide: str) -> None:
        place = self._folder / (letter.colleague or "customer") / f"{letter.key.replace('/', '-')}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(f".{os.getpid()}.draft")
        with draft.open("w", encoding="utf-8") as file:
            file.write("\n".join((letter.subject, "", letter.text, *filter(None, (decide,)), "")))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place)  # when the method returns, the message is complete and durable


class PhotoAlbum:
    """A photo desk that tells from a photo's name what it shows."""

    async def look_at(self, claim: Claim) -> tuple[Photo, ...]:
        return tuple(
            replace(PHOTOS.get(digest.partition("-")[0], ANY_OTHER), digest=digest) for digest in claim.photos
        )

    async def close(self) -> None:
        pass
