"""What the process reaches outside of perdure: bank, post and photo desk, and the insurer's own ledger and people.

Each service has an address in the environment. Without it a file of this process takes its place (`standins`), so
that tests and a first look need no service.
"""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from examples.claims.ledger import Ledger
from examples.claims.links import Links
from examples.claims.model import BankAnswer, Claim, Letter, Payment, PaymentOrder, Photo
from examples.claims.people import Claimant, People, key_in

LEDGER, PEOPLE, PEOPLE_KEY = "claims-ledger.db", "claims-people.db", "claims-people.key"
LINKS_KEY = "claims-links.key"
BANK_BOOK, BANK_SWITCH = "claims-bank.db", "bank.switch"

FRAUD_URL = os.environ.get("CLAIMS_FRAUD_URL", "")
BANK_URL = os.environ.get("CLAIMS_BANK_URL", "")
POST_URL = os.environ.get("CLAIMS_POST_URL", "")
PHOTOS_URL = os.environ.get("CLAIMS_PHOTOS_URL", "")


class BankAway(Exception):
    """The bank does not answer: whether it has paid is not known."""


class Undeliverable(Exception):
    """The post can never deliver this letter: there is no such address."""


class Bank(Protocol):
    async def pay(self, order: PaymentOrder, payee: Claimant) -> BankAnswer:
        """Pay, or return the earlier payment of the order's key. Raises BankAway."""

    async def reverse(self, payment: Payment) -> None:
        """Take a payment back; repeating it has no effect. Raises BankAway."""

    async def payments(self) -> dict[str, Payment]:
        """The payments that were not reversed, by key. Raises BankAway."""

    async def close(self) -> None: ...


class Post(Protocol):
    async def send(self, letter: Letter, to: Claimant, decide: str = "") -> None:
        """Deliver a letter, once for its key. Raises Undeliverable if it never can.

        `decide` is a colleague's own link to a task.
        """

    async def close(self) -> None: ...


class PhotoDesk(Protocol):
    async def look_at(self, claim: Claim) -> tuple[Photo, ...]:
        """What the claim's photos show."""

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Office:
    """The connections of one process."""

    bank: Bank
    post: Post
    photos: PhotoDesk
    ledger: Ledger
    people: People


def home() -> Path:
    """The folder for the insurer's own files, and for those of the stand-ins."""
    return Path(os.environ.get("CLAIMS_HOME", "."))


def photo_folder() -> Path:
    """Where the photos lie, beside the histories; the photo assessment reads the same folder."""
    return Path(os.environ.get("CLAIMS_PHOTOS") or home() / "photos")


def people() -> People:
    """The insurer's claimants."""
    return People(home() / PEOPLE, key_in(home() / PEOPLE_KEY))


def links(office_url: str = "") -> Links:
    """The links to the pages of claims."""
    return Links(office_url or os.environ.get("CLAIMS_OFFICE_URL", ""), key_in(home() / LINKS_KEY))


async def office() -> AsyncIterator[Office]:
    """Connect, and close the connections at the end."""
    from examples.claims import remote, standins  # they build on this module

    place = home()
    opened = Office(
        bank=remote.BankService(BANK_URL) if BANK_URL else standins.BankFile(place),
        post=remote.PostService(POST_URL, links()) if POST_URL else standins.Outbox(place / "outbox"),
        photos=remote.PhotoService(PHOTOS_URL) if PHOTOS_URL else standins.PhotoAlbum(),
        ledger=Ledger(place / LEDGER),
        people=people(),
    )
    try:
        yield opened
    finally:
        for service in (opened.bank, opened.post, opened.photos):
            await service.close()
        opened.ledger.close()
        opened.people.close()


def hosts() -> list[str]:
    """The services that `call_http` may reach, although they are on a private network."""
    return [urlsplit(url).netloc for url in (FRAUD_URL,) if url]
