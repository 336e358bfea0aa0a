"""The photos of all claims, to find those that were seen before, in one SQLite file and in memory.

A photo is compared with those of other claims that were registered before it, so of two claims with the same photo
the first one is clean. Looking and registering happen under one lock, and a row is never changed: the answer to a
question that is asked again is the row.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from examples.claims.services.photos import resemblance
from examples.claims.services.photos.resemblance import Hashes, Print, Thumb, Window

Chosen = NDArray[np.bool_]
How = Literal["same", "re-encoded", "mirrored", "cropped"]

SCHEMA = """
create table if not exists photos (
    number integer primary key,
    claim_id text not null,
    digest text not null,
    whole blob not null,
    windows blob not null,
    thumb blob not null,
    finding blob not null,
    unique (claim_id, digest)
) strict
"""
ROUGH_LOOKS, CLOSE_LOOKS = 16, 4  # at earlier photos, for one that may be a crop


@dataclass(frozen=True)
class Sighting:
    """An earlier photo that shows the same."""

    claim_id: str
    digest: str
    how: How
    distance: int


@dataclass(frozen=True)
class _Crop:
    """A pair of hashes that are alike, of which one is of a window: a photo may be a crop of another."""

    distance: int
    earlier: int
    window: Window
    is_mirrored: bool
    is_earlier_the_crop: bool


class Register:
    """The photos in one file. Its methods block; several threads can call them."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma secure_delete = on")
        self._connection.execute(SCHEMA)
        self._load()

    def _load(self) -> None:
        """Read all hashes into memory: comparing them takes milliseconds there."""
        self._photos: list[tuple[int, str, str]] = []  # row, claim and digest of each
        self._same: dict[str, list[int]] = {}  # the photos of a digest
        self._claims = _Rows(1)  # a number for the claim of each
        self._numbers: dict[str, int] = {}  # of the claims
        self._hashes = _Rows(1)
        self._windows = _Rows(len(resemblance.WINDOWS))
        for number, claim_id, digest, whole, windows in self._connection.execute(
            "select number, claim_id, digest, whole, windows from photos order by number"
        ):
            hashes = (np.frombuffer(blob, np.uint64) for blob in (whole, windows))
            self._remember((number, claim_id, digest), *hashes)

    def known(self, claim_id: str, digest: str) -> bytes | None:
        """The finding about a photo that was registered earlier."""
        with self._lock:
            return self._known(claim_id, digest)

    def enter(
        self, claim_id: str, digest: str, seen: Print, finding: Callable[[Sighting | None], bytes]
    ) -> bytes:
        """Look for the photo among those of other claims, and register it with the finding; returns the finding.

        Of two that look at the same photo of the same claim at once, the second gets the first one's finding.
        """
        with self._lock:
            if known := self._known(claim_id, digest):
                return known
            found = finding(self._sighting(claim_id, digest, seen))
            whole = np.array([seen.whole])
            inserted = self._connection.execute(
                "insert into photos (claim_id, digest, whole, windows, thumb, finding) values (?, ?, ?, ?, ?, ?)",
                (claim_id, digest, whole.tobytes(), seen.windows.tobytes(), _as_bytes(seen.thumb), found),
            )
            assert inserted.lastrowid is not None
            self._remember((inserted.lastrowid, claim_id, digest), whole, seen.windows)
        return found

    def erase(self, claim_id: str) -> list[str]:
        """Forget the photos of a claim; returns the digests that no other claim has."""
        with self._lock:
            digests = [digest for _, owner, digest in self._photos if owner == claim_id]
            self._connection.execute("delete from photos where claim_id = ?", (claim_id,))
            self._load()
            return [digest for digest in digests if digest not in self._same]

    def sighting(self, claim_id: str, digest: str, seen: Print) -> Sighting | None:
        """An earlier photo of another claim that shows the same. The quick questions come first."""
        with self._lock:
            return self._sighting(claim_id, digest, seen)

    def close(self) -> None:
        self._connection.close()

    def _known(self, claim_id: str, digest: str) -> bytes | None:
        found = self._connection.execute(
            "select finding from photos where claim_id = ? and digest = ?", (claim_id, digest)
        ).fetchone()
        return found[0] if found else None

    def _sighting(self, claim_id: str, digest: str, seen: Print) -> Sighting | None:
        for number in self._same.get(digest, ()):
            if self._photos[number][1] != claim_id:
                return self._seen(number, "same", 0)
        others = self._claims.all[:, 0] != self._numbers.get(claim_id, len(self._numbers))
        return (
            self._whole(others, seen.whole, seen.thumb, "re-encoded")
            or self._whole(others, seen.mirrored, seen.thumb[:, ::-1], "mirrored")
            or self._cropped(others, seen)
        )

    def _remember(self, photo: tuple[int, str, str], whole: Hashes, windows: Hashes) -> None:
        _, claim_id, digest = photo
        self._same.setdefault(digest, []).append(len(self._photos))
        self._photos.append(photo)
        number = self._numbers.setdefault(claim_id, len(self._numbers))
        self._claims.add(np.array([number], np.uint64))
        self._hashes.add(whole)
        self._windows.add(windows)

    def _whole(self, others: Chosen, whole: np.uint64, thumb: Thumb, how: How) -> Sighting | None:
        away = resemblance.distances(self._hashes.all[:, 0], whole)
        for number in np.flatnonzero(others & (away <= resemblance.ALIKE)):
            if resemblance.correlation(self._thumb(int(number)), thumb) >= resemblance.SURE:
                return self._seen(int(number), how, int(away[number]))
        return None

    def _cropped(self, others: Chosen, seen: Print) -> Sighting | None:
        """The nearest hashes are compared roughly, and the best of these closely: a close look takes milliseconds."""
        nearest = sorted(self._crops(others, seen), key=lambda crop: crop.distance)[:ROUGH_LOOKS]
        rough = [(resemblance.rough_fit(*self._pair(crop, seen), crop.window), crop) for crop in nearest]
        likely = [(fit, crop) for fit, crop in rough if fit >= resemblance.LIKELY]
        likely.sort(key=lambda each: -each[0])
        for _, crop in likely[:CLOSE_LOOKS]:
            if resemblance.close_fit(*self._pair(crop, seen), crop.window) >= resemblance.SURE_CROPPED:
                return self._seen(crop.earlier, "cropped", crop.distance)
        return None

    def _pair(self, crop: _Crop, seen: Print) -> tuple[Thumb, Thumb]:
        """The whole and what may be a crop of it."""
        earlier, now = self._thumb(crop.earlier), seen.thumb[:, ::-1] if crop.is_mirrored else seen.thumb
        return (now, earlier) if crop.is_earlier_the_crop else (earlier, now)

    def _crops(self, others: Chosen, seen: Print) -> Iterator[_Crop]:
        """Alike hashes: of this photo and an earlier one's window, and of an earlier photo and this one's window."""
        looks = ((False, seen.whole, seen.windows), (True, seen.mirrored, seen.mirrored_windows))
        for is_mirrored, whole, windows in looks:
            theirs = resemblance.nearest(self._windows.all, whole)
            ours = resemblance.nearest(self._hashes.all, windows)
            for is_earlier_the_crop, (which, away) in ((False, theirs), (True, ours)):
                for number in np.flatnonzero((away <= resemblance.ALIKE_CROPPED) & others):
                    yield _Crop(
                        distance=int(away[number]),
                        earlier=int(number),
                        window=resemblance.WINDOWS[which[number]],
                        is_mirrored=is_mirrored,
                        is_earlier_the_crop=is_earlier_the_crop,
                    )

    def _seen(self, number: int, how: How, distance: int) -> Sighting:
        _, claim_id, digest = self._photos[number]
        return Sighting(claim_id, digest, how, distance)

    def _thumb(self, number: int) -> Thumb:
        row = self._connection.execute(
            "select thumb from photos where number = ?", self._photos[number][:1]
        ).fetchone()
        width, height = resemblance.THUMB
        return np.frombuffer(row[0], np.uint8).reshape(height, width).astype(np.float32)


class _Rows:
    """An array that grows: a row a photo."""

    def __init__(self, columns: int) -> None:
        self._room = np.empty((256, columns), np.uint64)
        self._used = 0

    @property
    def all(self) -> NDArray[np.uint64]:
        return self._room[: self._used]

    def add(self, row: Hashes) -> None:
        if self._used == len(self._room):
            self._room = np.concatenate([self._room, np.empty_like(self._room)])
        self._room[self._used] = row
        self._used += 1


def _as_bytes(thumb: Thumb) -> bytes:
    return thumb.round().astype(np.uint8).tobytes()
