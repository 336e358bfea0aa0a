"""How good the photo assessment is, on drawings that it has not learnt from.

    python -m examples.claims.services.photos.figures [--photos 200]
    python -m examples.claims.services.photos.figures --load 10000

The first prints the tables of README.md. The second assesses photos of as many claims, one by one, and prints
the processor time that a photo takes, while the register grows.
"""

import argparse
import asyncio
import io
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image, ImageFilter, ImageOps

from examples.claims.services.photos import damage, readable
from examples.claims.services.photos.assessment import Assessor
from examples.claims.services.photos.damage import Damage
from examples.claims.services.photos.drawing import Box, Drawing, draw
from examples.claims.services.photos.pictures import grey_of, pixels_of, small_of
from examples.claims.services.photos.register import Register, Sighting
from examples.claims.services.photos.resemblance import Print
from examples.claims.services.photos.store import PhotoStore

FIRST_SEED, SEED = 5_000_000, 7
EACH_UNDAMAGED = 3

Change = Callable[[Image.Image, Generator], Image.Image]


@dataclass(frozen=True)
class DamageFigures:
    """How often damage is seen, and where, on photos with and without it."""

    seen: float
    imagined: float
    hit: float  # the hottest place lies in the box
    overlap: float  # of the boxes: intersection over union, on average
    half: float  # boxes that overlap by a half or more


def damage_figures(drawings: Sequence[Drawing]) -> DamageFigures:
    """Compare what is found with what was drawn."""
    damaged = [(each.damage, *_found(each)) for each in drawings if each.damage]
    sound = [_found(each)[0] for each in drawings if not each.damage]
    overlaps = [_overlap(drawn, found.box) for drawn, found, _ in damaged]
    return DamageFigures(
        seen=_mean(found.share > 0 for _, found, _ in damaged),
        imagined=_mean(found.share > 0 for found in sound),
        hit=_mean(_contains(drawn, hottest) for drawn, _, hottest in damaged),
        overlap=_mean(overlaps),
        half=_mean(overlap >= 0.5 for overlap in overlaps),
    )


def blurred(picture: Image.Image, rng: Generator, radius: float) -> Image.Image:
    """Out of focus, and then the camera's noise, which is sharp."""
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), np.float32)
    return Image.fromarray(np.clip(soft + rng.normal(0, 3, soft.shape), 0, 255).astype(np.uint8))


def darkened(picture: Image.Image, rng: Generator) -> Image.Image:
    return Image.eval(picture, lambda value: value * 0.1)


def encoded_again(picture: Image.Image, rng: Generator) -> Image.Image:
    """Smaller and with a lower quality, as messengers do."""
    scale = rng.uniform(0.5, 0.9)
    file = io.BytesIO()
    small = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    small.save(file, "JPEG", quality=int(rng.integers(40, 75)))
    return Image.open(file).convert("RGB")


def mirrored(picture: Image.Image, rng: Generator) -> Image.Image:
    return encoded_again(ImageOps.mirror(picture), rng)


def brightened(picture: Image.Image, rng: Generator) -> Image.Image:
    return encoded_again(Image.eval(picture, lambda value: min(255, value * 1.2 + 10)), rng)


def cropped(picture: Image.Image, rng: Generator) -> Image.Image:
    """Between 60 and 95 percent of each side, at any place."""
    width, height = (rng.uniform(0.6, 0.95) * side for side in picture.size)
    left, top = rng.uniform(0, picture.width - width), rng.uniform(0, picture.height - height)
    part = picture.crop((round(left), round(top), round(left + width), round(top + height)))
    return encoded_again(part, rng)


def cropped_and_mirrored(picture: Image.Image, rng: Generator) -> Image.Image:
    return ImageOps.mirror(cropped(picture, rng))


CHANGES: dict[str, Change] = {
    "encoded again, smaller": encoded_again,
    "brighter": brightened,
    "mirrored": mirrored,
    "cropped": cropped,
    "cropped and mirrored": cropped_and_mirrored,
}


def resemblance_figures(pictures: Sequence[Image.Image], others: Sequence[Image.Image]) -> dict[str, float]:
    """How many changed photos lead to the claim that had them first, and how many new photos to any claim."""
    rng = default_rng(SEED)
    with tempfile.TemporaryDirectory() as folder, closing(Register(Path(folder) / "photos.db")) as register:
        for number, picture in enumerate(pictures):
            register.enter(f"C-{number}", f"{number}", Print.of(small_of(picture)), _any)
        found = {
            name: _mean(
                _claim_of(register.sighting("new", "new", Print.of(small_of(change(picture, rng)))))
                == f"C-{number}"
                for number, picture in enumerate(pictures)
            )
            for name, change in CHANGES.items()
        }
        found["a new photo"] = _mean(
            register.sighting("new", "new", Print.of(small_of(other))) is not None for other in others
        )
    return found


def sharpness_figures(pictures: Sequence[Image.Image]) -> dict[str, float]:
    """The share of photos that are refused as blurred or dark."""
    rng = default_rng(SEED)
    looks: dict[str, Callable[[Image.Image], Image.Image]] = {
        "as drawn": lambda picture: picture,
        "blurred by 2 px of 640": lambda picture: blurred(picture, rng, 2),
        "blurred by 4 px of 640": lambda picture: blurred(picture, rng, 4),
        "blurred by 6 px of 640": lambda picture: blurred(picture, rng, 6),
        "at a tenth of the light": lambda picture: darkened(picture, rng),
    }
    return {
        name: _mean(_is_unreadable(look(picture)) for picture in pictures) for name, look in looks.items()
    }


def milliseconds_a_photo(pictures: Sequence[Image.Image]) -> float:
    """Processor time for all that the assessment does with a picture, without disk and register."""
    began = time.process_time()
    for picture in pictures:
        small = small_of(picture)
        damage.find(pixels_of(small))
        _is_unreadable(small)
        Print.of(small)
    return 1000 * (time.process_time() - began) / len(pictures)


async def load(photos: int, each: int = 1_000) -> None:
    """Assess photos as the service does, with disk and register; prints a line for each thousand."""
    with tempfile.TemporaryDirectory() as folder:
        store = PhotoStore(Path(folder) / "photos")
        with closing(Register(Path(folder) / "photos.db")) as register:
            assessor, storing, looking, seen = Assessor(store, register), 0.0, 0.0, 0
            for number in range(1, photos + 1):
                photo = draw(FIRST_SEED + number, fine=1).jpeg()
                began = time.process_time()
                digest = await store.add(_chunks(photo), len(photo))
                stored = time.process_time()
                seen += assessor.look_at(f"C-{number}", digest).seen_before is not None
                storing, looking = storing + stored - began, looking + time.process_time() - stored
                if number % each == 0:
                    print(
                        f"{number} photos: {1000 * storing / each:.1f} ms to store one, "
                        f"{1000 * looking / each:.1f} ms to assess one, {seen} of {each} seem known"
                    )
                    storing, looking, seen = 0.0, 0.0, 0


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _found(drawing: Drawing) -> tuple[Damage, tuple[float, float]]:
    found, heat = damage.find(pixels_of(small_of(drawing.picture)))
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return found, (float((column + 0.5) / heat.shape[1]), float((row + 0.5) / heat.shape[0]))


def _is_unreadable(picture: Image.Image) -> bool:
    grey = grey_of(small_of(picture))
    is_dark = readable.brightness(grey) < readable.LIGHT_ENOUGH
    return is_dark or readable.sharpness(grey) < readable.SHARP_ENOUGH


def _overlap(one: Box, other: Box | None) -> float:
    if other is None:
        return 0.0
    wide, high = (min(one[side + 2], other[side + 2]) - max(one[side], other[side]) for side in (0, 1))
    common = max(0.0, wide) * max(0.0, high)
    return common / (_area(one) + _area(other) - common)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _contains(box: Box, point: tuple[float, float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _claim_of(sighting: Sighting | None) -> str:
    return sighting.claim_id if sighting else ""


def _any(sighting: Sighting | None) -> bytes:
    return b"{}"


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Figures of the photo assessment.")
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--load", type=int, help="assess so many photos, and print how long that takes")
    given = parser.parse_args()
    damage.classifier()
    if given.load:
        asyncio.run(load(given.load))
        return
    number = given.photos
    drawings = [draw(FIRST_SEED + seed, seed % EACH_UNDAMAGED != 0) for seed in range(number)]
    pictures = [drawing.picture for drawing in drawings]
    others = [draw(FIRST_SEED + number + seed).picture for seed in range(number)]
    found = damage_figures(drawings)

    print(f"| damage, {number} drawings, a third of them without | |\n|---|---|")
    print(f"| damage is seen where there is some | {found.seen:.0%} |")
    print(f"| damage is seen where there is none | {found.imagined:.0%} |")
    print(f"| the hottest place lies in the damage | {found.hit:.0%} |")
    print(f"| overlap of the boxes, on average | {found.overlap:.2f} |")
    print(f"| boxes that overlap by a half or more | {found.half:.0%} |\n")
    print(f"| seen before, among {number} photos of as many claims | found |\n|---|---|")
    for name, share in resemblance_figures(pictures, others).items():
        print(f"| {name} | {share:.1%} |")
    print("\n| unreadable | refused |\n|---|---|")
    for name, share in sharpness_figures(pictures).items():
        print(f"| {name} | {share:.0%} |")
    print(f"\n{milliseconds_a_photo(pictures):.0f} ms of processor time a photo")


if __name__ == "__main__":
    main()
