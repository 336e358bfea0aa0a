"""Whether two photos show the same, although one was encoded again, mirrored or cropped.

A perceptual hash has 64 bits, one for each of the coarsest waves of the picture. The same picture differs in a few
bits, two pictures by chance in about 32. Mirroring and cropping change the hash, so a photo has several: of itself,
of its mirror image, and of windows into it. A crop of an earlier photo has nearly the hash of one of its windows,
and the other way round. Comparing hashes is quick and finds candidates; then the pixels of both decide.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from skimage.feature import match_template
from skimage.filters import gaussian

Hashes = NDArray[np.uint64]
Thumb = NDArray[np.float32]
Window = tuple[float, float, float, float]  # left, top, right, bottom, as shares

BITS, WAVES, SAMPLES = 64, 8, 32
ROWS = 512  # compared at once
THUMB = (128, 96)
GREY = (160, 120)

SIDES = (1.0, 0.85, 0.7, 0.55)  # of a window, as a share of the photo's
STEP = 0.12  # a hash bears about this much of a shift

ALIKE, ALIKE_CROPPED = 10, 14  # bits that may differ, to be a candidate
SURE, SURE_CROPPED = 0.90, 0.91  # correlation of the pixels, to be the same
ROUGHLY, LIKELY = 4, 0.5  # part of the size for a rough fit, and the correlation there to look closely
LOOKS = ((2, 0.08, 0.6), (1, 0.03, 0.75), (1, 0.015, 1.0))
"""How a crop is fitted: at which part of the size, in which steps, and from which correlation on it goes on."""
COARSE = 8.0  # pixels: larger shapes than these do not count, because many photos have a car in the middle


def _windows() -> tuple[Window, ...]:
    spans = [
        (start, start + side)
        for side in SIDES
        for start in np.linspace(0.0, 1.0 - side, int(np.ceil((1.0 - side) / STEP)) + 1)
    ]
    boxes = ((left, top, right, bottom) for (left, right), (top, bottom) in product(spans, spans))
    return tuple(box for box in boxes if box != (0.0, 0.0, 1.0, 1.0))


WINDOWS = _windows()


@dataclass(frozen=True)
class Print:
    """What is kept of a photo to recognise it: hashes of it and of its windows, and a grey thumbnail."""

    whole: np.uint64
    mirrored: np.uint64
    windows: Hashes
    mirrored_windows: Hashes
    thumb: Thumb

    @classmethod
    def of(cls, picture: Image.Image) -> "Print":
        grey = picture.convert("L")
        windows, mirrored_windows = _hashes_of_windows(grey)
        return cls(
            whole=_number(imagehash.phash(grey)),
            mirrored=_number(imagehash.phash(ImageOps.mirror(grey))),
            windows=windows,
            mirrored_windows=mirrored_windows,
            thumb=np.asarray(grey.resize(THUMB, Image.Resampling.BOX), np.float32),
        )


def distances(hashes: Hashes, to: np.uint64 | Hashes) -> NDArray[np.uint8]:
    """In how many bits hashes differ; the two are broadcast."""
    bits: NDArray[np.uint8] = np.bitwise_count(hashes ^ to)
    return bits


def nearest(hashes: Hashes, to: np.uint64 | Hashes) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """For each row, which of its hashes differs least from `to`, and in how many bits.

    With one hash a row and a row of hashes as `to`: which of these. Part by part, so that each part stays in the
    processor's cache.
    """
    which, bits = np.zeros(len(hashes), np.intp), np.zeros(len(hashes), np.uint8)
    for start in range(0, len(hashes), ROWS):
        away = distances(hashes[start : start + ROWS], to)
        least = away.argmin(axis=1)
        which[start : start + ROWS] = least
        bits[start : start + ROWS] = np.take_along_axis(away, least[:, None], axis=1)[:, 0]
    return which, bits


def correlation(one: Thumb, other: Thumb) -> float:
    """How alike the pixels of two thumbnails are: 1 for the same picture, whatever its light, about 0 by chance."""
    a, b = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale else 0.0


def rough_fit(whole: Thumb, crop: Thumb, window: Window) -> float:
    """About how alike a crop and the best fitting part of the whole are, if that is as large as the window."""
    return _best_fit(_fine(_reduced(whole, ROUGHLY), ROUGHLY), crop, _sides(window), ROUGHLY)


def close_fit(whole: Thumb, crop: Thumb, window: Window) -> float:
    """How alike a crop and the best fitting part of the whole are. The part is about as large as the window."""
    sides, found = _sides(window), 0.0
    for reduction, step, enough in LOOKS:
        fine = _fine(_reduced(whole, reduction), reduction)
        sizes = [
            (sides[0] + wider, sides[1] + higher) for wider, higher in product((-step, 0.0, step), repeat=2)
        ]
        found, sides = max((_best_fit(fine, crop, size, reduction), size) for size in sizes)
        if found < enough:
            break
    return found


def _sides(window: Window) -> tuple[float, float]:
    return window[2] - window[0], window[3] - window[1]


def _best_fit(fine: Thumb, crop: Thumb, sides: tuple[float, float], reduction: int) -> float:
    height, width = fine.shape
    shape = (round(height * min(1.0, sides[1])), round(width * min(1.0, sides[0])))
    return float(match_template(fine, _fine(_resized(crop, shape), reduction)).max())


def _fine(thumb: Thumb, reduction: int) -> Thumb:
    fine: Thumb = thumb - gaussian(thumb, COARSE / reduction)
    return fine


def _reduced(thumb: Thumb, reduction: int) -> Thumb:
    return _resized(thumb, (thumb.shape[0] // reduction, thumb.shape[1] // reduction))


def _resized(thumb: Thumb, shape: tuple[int, ...]) -> Thumb:
    picture = Image.fromarray(thumb).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.float32)


def _number(found: Any) -> np.uint64:
    return np.uint64(int(str(found), 16))


def _hashes_of_windows(grey: Image.Image) -> tuple[Hashes, Hashes]:
    """The hashes of all windows and of their mirror images, as `imagehash.phash` would make them, at once."""
    reduced = grey.resize(GREY, Image.Resampling.BOX)
    sizes = np.array([*GREY, *GREY])
    samples = np.stack([
        np.asarray(reduced.resize((SAMPLES, SAMPLES), Image.Resampling.BILINEAR, tuple(np.array(window) * sizes)))
        for window in WINDOWS
    ])  # fmt: skip
    waves = _cosines() @ samples.astype(np.float32) @ _cosines().T
    flipped = waves * np.where(
        np.arange(WAVES) % 2, -1.0, 1.0
    )  # mirrored, the odd waves across change their sign
    return _packed(waves), _packed(flipped)


@cache
def _cosines() -> NDArray[np.float32]:
    """The coarsest rows of a discrete cosine transform."""
    wave, sample = np.mgrid[0:WAVES, 0:SAMPLES]
    cosines: NDArray[np.float32] = np.cos(np.pi * wave * (2 * sample + 1) / (2 * SAMPLES)).astype(np.float32)
    return cosines


def _packed(waves: NDArray[Any]) -> Hashes:
    flat = waves.reshape(-1, BITS)
    bits = flat > np.median(flat, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)
