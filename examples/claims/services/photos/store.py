"""Photos in a folder, each under its SHA-256: the application's history has digests, never pictures.

An upload is written to a draft, checked, and renamed when it is complete, so a photo is stored whole or not at all.
Two processes can share the folder: an insurer would use an object store.

    digest = await PhotoStore(folder).add(request.stream(), length)

The original is evidence. It is kept as it came and shown to no one: its metadata say where the customer lives, and
its bytes can be those of another kind of file. People see the clean copy, which is encoded again from the pixels.
"""

import asyncio
import hashlib
import os
import secrets
import threading
import time
from collections.abc import AsyncIterable, Iterable
from enum import StrEnum
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from examples.claims.services.photos import anatomy

MOST_PHOTOS = 10
MOST_BYTES = 15 * 2**20
MOST_PIXELS = 64_000_000  # a picture of 100 megapixels can be a file of 100 kB
DECODERS = 2  # at a time: a picture of 64 megapixels takes 200 MB
CLEAN_SIDE = 1280
AN_HOUR = 3600.0

TYPES = ("JPEG", "PNG")


class Refusal(StrEnum):
    """Why a photo is not taken or not used, in the words that claimants read."""

    NOT_A_PHOTO = "not a photo (we take JPEG and PNG)"
    TOO_LARGE = "too large (15 MB at most)"
    TOO_MANY_PIXELS = "too large (64 megapixels at most)"
    CUT_OFF = "the upload was cut off"
    TOO_MANY = "one claim can have 10 photos"
    TOO_BLURRED = "too blurred"
    TOO_DARK = "too dark"
    TOO_OLD = "taken before the accident"
    SEEN_BEFORE = "we already have this photo"


STATUSES = {Refusal.TOO_LARGE: 413, Refusal.TOO_MANY_PIXELS: 413, Refusal.NOT_A_PHOTO: 415}
"""The HTTP status that fits a refused upload; 400 for the others."""


class PhotoRefused(Exception):
    """An upload that is not stored."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal
        self.status = STATUSES.get(refusal, 400)


class PhotoStore:
    """The photos below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._drafts = folder / "drafts"
        self._drafts.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._decoders = threading.BoundedSemaphore(DECODERS)

    async def add(self, chunks: AsyncIterable[bytes], length: int | None = None) -> str:
        """Store an upload and return its digest. The same photo again has no effect.

        `length` is how many bytes the sender has announced. Raises PhotoRefused.
        """
        draft = self._drafts / secrets.token_hex(16)
        try:
            digest = await self._receive(chunks, length, draft)
            if digest not in self:
                await asyncio.to_thread(self._keep, draft, digest)
            return digest
        finally:
            draft.unlink(missing_ok=True)

    def __contains__(self, digest: str) -> bool:
        return self.original(digest).exists()

    def original(self, digest: str) -> Path:
        """The photo as it was sent. Raises ValueError if `digest` is not a SHA-256 in hexadecimal."""
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise ValueError(f"{digest!r} is not a SHA-256")
        return self._folder / digest[:2] / digest

    def clean(self, digest: str) -> Path:
        """The photo for people to see: a JPEG of at most 1,280 px, upright, without metadata."""
        return self.original(digest).with_suffix(".jpg")

    def heat_map(self, digest: str) -> Path:
        """Where the damage probably is, a PNG to lie on top of the photo. The assessment writes it."""
        return self.original(digest).with_suffix(".heat.png")

    def remove(self, digest: str) -> None:
        """Delete a photo with all that was made from it."""
        for path in (self.original(digest), self.clean(digest), self.heat_map(digest)):
            path.unlink(missing_ok=True)

    def sweep(self) -> int:
        """Delete the drafts of uploads that a killed process has left; returns how many."""
        before = time.time() - AN_HOUR
        left = [draft for draft in self._drafts.iterdir() if draft.stat().st_mtime < before]
        for draft in left:
            draft.unlink(missing_ok=True)
        return len(left)

    async def _receive(self, chunks: AsyncIterable[bytes], length: int | None, draft: Path) -> str:
        """Write the bytes as they come; returns their digest."""
        if (length or 0) > MOST_BYTES:
            raise PhotoRefused(Refusal.TOO_LARGE)
        digest, size = hashlib.sha256(), 0
        with draft.open("xb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > MOST_BYTES:
                    raise PhotoRefused(Refusal.TOO_LARGE)
                digest.update(chunk)
                await asyncio.to_thread(file.write, chunk)
            if length is not None and size != length:
                raise PhotoRefused(Refusal.CUT_OFF)
        return digest.hexdigest()

    def _keep(self, draft: Path, digest: str) -> None:
        """Check a draft and make a photo of it: the clean copy first, so that an original is never without one."""
        with self._decoders:
            picture = opened(draft)
        place = self.original(digest)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        copy = draft.with_suffix(".jpg")
        try:
            picture.save(copy, "JPEG", quality=88)
            for made, name in ((copy, self.clean(digest)), (draft, place)):
                _sync(made)
                made.replace(name)
            _sync(place.parent)
        finally:
            copy.unlink(missing_ok=True)


def check_number(photos: Iterable[str]) -> None:
    """Raises PhotoRefused if these are more photos than one claim can have."""
    if len(set(photos)) > MOST_PHOTOS:
        raise PhotoRefused(Refusal.TOO_MANY)


def opened(path: Path) -> Image.Image:
    """The picture in a file: whole, upright, RGB, at most 1,280 px, without metadata. Raises PhotoRefused."""
    if anatomy.holds_another_file(path.read_bytes()):
        raise PhotoRefused(Refusal.NOT_A_PHOTO)
    try:
        with Image.open(path, formats=TYPES) as image:
            if image.width * image.height > MOST_PIXELS:
                raise PhotoRefused(Refusal.TOO_MANY_PIXELS)
            image.draft(
                "RGB", (CLEAN_SIDE, CLEAN_SIDE)
            )  # a JPEG is decoded at a half or a quarter of its size
            image.load()
            image.thumbnail((CLEAN_SIDE, CLEAN_SIDE))
            picture = _upright(image).convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoRefused(Refusal.TOO_MANY_PIXELS) from error
    except UnidentifiedImageError as error:
        raise PhotoRefused(Refusal.NOT_A_PHOTO) from error
    except OSError as error:  # Pillow says so of a file that ends too early
        raise PhotoRefused(Refusal.CUT_OFF) from error
    except (
        ValueError,
        SyntaxError,
        EOFError,
    ) as error:  # and of one that is no picture after its first bytes
        raise PhotoRefused(Refusal.NOT_A_PHOTO) from error
    picture.info.clear()
    return picture


def _upright(image: Image.Image) -> Image.Image:
    """The picture as the camera was held; as it is, if its metadata are rubbish."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a parser of bytes that a stranger has written: there is no list of what it raises
        return image


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
