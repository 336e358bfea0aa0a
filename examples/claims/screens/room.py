"""What the pages share."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

import perdure as df
from examples.claims.links import Links
from examples.claims.people import People
from examples.claims.services.photos.store import PhotoStore


@dataclass(frozen=True)
class Addresses:
    """Where a browser finds the other processes, "" for what does not run."""

    server: str = ""
    office: str = ""
    fraud: str = ""
    photos: str = ""
    bank: str = ""
    post: str = ""


@dataclass
class Room:
    """The state of the office. `staff_key` opens the staff's pages; `stage` is the demo's, None in production."""

    client: df.Client
    people: People
    links: Links
    photos: PhotoStore
    staff_key: str
    addresses: Addresses = field(default_factory=Addresses)
    stage: Any = None


def room_of(request: Request) -> Room:
    """The office that a request came to."""
    room: Room = request.app.state.room
    return room
