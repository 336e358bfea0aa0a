"""A stored photo, small enough to be looked at in milliseconds."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 320  # px of the longer side: enough for a person to see damage, and all that the assessment looks at

Pixels = NDArray[np.uint8]


def small(path: Path) -> Image.Image:
    """The clean copy of a photo, at most 320 px wide and high."""
    with Image.open(path, formats=("JPEG",)) as image:
        image.draft("RGB", (SIDE, SIDE))
        return small_of(image.convert("RGB"))


def small_of(picture: Image.Image) -> Image.Image:
    """A copy of a picture, at most 320 px wide and high."""
    copy = picture.copy()
    copy.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return copy


def pixels_of(picture: Image.Image) -> Pixels:
    return np.asarray(picture.convert("RGB"))


def grey_of(picture: Image.Image) -> Pixels:
    """How light each pixel is: a plane, whereas `pixels_of` has three."""
    return np.asarray(picture.convert("L"))
