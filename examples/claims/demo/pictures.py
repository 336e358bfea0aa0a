"""The photos of the stories: drawings, stored as an upload would be."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

from PIL import ImageOps

from examples.claims.connections import photo_folder
from examples.claims.scenarios import TODAY, Looks
from examples.claims.services.photos.drawing import draw, jpeg_of
from examples.claims.services.photos.store import PhotoStore

NOON = datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC)
SEVEN_MONTHS = timedelta(days=210)
Assess = Callable[[str, str], Awaitable[None]]


async def stored(looks: Looks, seed: int, assess: Assess) -> str:
    """Draw a photo that looks so, and store it; returns its digest. `assess` makes an earlier claim known."""
    drawing = await asyncio.to_thread(draw, seed, looks != "whole", 1)
    store = PhotoStore(photo_folder())
    if looks == "old":
        return await store.add(_bytes(drawing.jpeg(NOON - SEVEN_MONTHS)))
    digest = await store.add(_bytes(drawing.jpeg(NOON)))
    if looks != "seen":
        return digest
    await assess(f"VI-{seed % 10**7:07d}", digest)
    return await store.add(_bytes(jpeg_of(ImageOps.mirror(drawing.picture), NOON, 75)))


async def _bytes(content: bytes) -> AsyncIterator[bytes]:
    yield content
