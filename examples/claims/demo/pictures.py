"""The photos of the stories: drawings, stored as an upload would be.

No assessment is always right: it overlooks one damage in twenty. A story is about what follows from a photo, so its
customer takes another one until the assessment sees what the story says.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from PIL import ImageOps

from examples.claims.connections import photo_folder
from examples.claims.model import Claim
from examples.claims.rules import VISIBLE
from examples.claims.scenarios import TODAY, Looks
from examples.claims.services.photos.drawing import Drawing, draw, jpeg_of
from examples.claims.services.photos.store import PhotoStore

NOON = datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC)
SEVEN_MONTHS = timedelta(days=210)
TRIES = 30
Finding = dict[str, Any]
Assess = Callable[[str, str], Awaitable[Finding]]

SEEN: dict[Looks, Callable[[Finding], bool]] = {
    "clean": lambda found: not found["problem"] and found["damage"]["share"] >= VISIBLE,
    "whole": lambda found: not found["problem"] and found["damage"]["share"] < VISIBLE,
    "old": lambda found: "before the accident" in found["problem"],
    "seen": lambda found: found["seen_before"] is not None,
}


async def stored(looks: Looks, seeds: Iterator[int], claim_id: str, assess: Assess) -> str:
    """Draw photos until one looks so to the assessment, and store it; returns its digest."""
    store = PhotoStore(photo_folder())
    for seed in islice(seeds, TRIES):
        drawing = await asyncio.to_thread(draw, seed, looks != "whole", 1)
        if looks == "seen":
            await assess(f"VI-{seed % 10**7:07d}", await store.add(_bytes(drawing.jpeg(NOON))))
        digest = await store.add(_bytes(_photo(drawing, looks)))
        if SEEN[looks](await assess(claim_id, digest)):
            return digest
    raise LookupError(f"none of {TRIES} photos looks {looks} to the assessment")


async def one_each(claims: Sequence[Claim], drawn: Callable[[], None]) -> list[Claim]:
    """The claims, each with a photo of its own that was taken on the day of the accident."""
    store = PhotoStore(photo_folder())
    found = []
    for seed, claim in enumerate(claims):
        day = datetime.combine(claim.happened, NOON.timetz())
        drawing = await asyncio.to_thread(draw, seed, True, 1)
        photo = drawing.jpeg(day)
        found.append(replace(claim, photos=(await store.add(_bytes(photo)),)))
        drawn()
    return found


def _photo(drawing: Drawing, looks: Looks) -> bytes:
    if looks == "seen":
        return jpeg_of(ImageOps.mirror(drawing.picture), NOON, quality=75)
    return drawing.jpeg(NOON - SEVEN_MONTHS if looks == "old" else NOON)


async def _bytes(content: bytes) -> AsyncIterator[bytes]:
    yield content
