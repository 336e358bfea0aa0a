"""Where the damage on a photo probably is, and how large.

A photo is divided into blocks of 8 by 8 pixels. For each, the features say how far its colour is from the car's
paint, how strong its edges are and whether they run in all directions, as scratches do and the edges of doors do
not, and what surrounds it. A classifier of gradient-boosted trees says how probably such a block is damaged. It
learns at the start of the service from drawings, whose damage is known.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2lab
from skimage.feature import structure_tensor, structure_tensor_eigenvalues
from skimage.filters import gaussian
from skimage.measure import label
from sklearn.ensemble import HistGradientBoostingClassifier

from examples.claims.services.photos.drawing import Box, draw
from examples.claims.services.photos.pictures import Pixels, pixels_of, small_of

Grid = NDArray[np.float32]

BLOCK = 8  # pixels
FEWEST_BLOCKS = 6  # across and down
VISIBLE = 0.65  # the probability of a photo's worst place, from which on the photo shows damage
DAMAGED = 0.40  # the probability from which on a block belongs to the damage
FIRST_SEED, DRAWINGS = 1_000_000, 80  # what the classifier learns from
EACH_UNDAMAGED = 6
EPSILON = 1e-6


@dataclass(frozen=True)
class Damage:
    """The damage on one photo: its share of the picture, 0 if there is none, and how sure that is."""

    share: float
    confidence: float
    box: Box | None
    where: str = ""


def find(picture: Pixels) -> tuple[Damage, Grid]:
    """The damage on a photo, and the probability of each block."""
    heat = heat_of(picture)
    worst = float(heat.max())
    if worst < VISIBLE:
        return Damage(0.0, round(1 - worst, 2), None), heat
    regions = label(heat > DAMAGED)
    rows, columns = np.nonzero(regions == regions[np.unravel_index(heat.argmax(), heat.shape)])
    height, width = heat.shape
    box = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
    share = len(rows) / heat.size
    left, top, right, bottom = (round(float(side), 3) for side in box)
    return Damage(round(share, 3), round(worst, 2), (left, top, right, bottom), _place(box)), heat


def heat_of(picture: Pixels) -> Grid:
    """How probably each block is damaged. On a strip of a few blocks nothing is."""
    rows, columns = (side // BLOCK for side in picture.shape[:2])
    if min(rows, columns) < FEWEST_BLOCKS:
        return np.zeros((max(1, rows), max(1, columns)), np.float32)
    features = features_of(picture)
    height, width, number = features.shape
    probable = classifier().predict_proba(features.reshape(-1, number))[:, 1]
    smooth: Grid = gaussian(probable.reshape(height, width), 1).astype(np.float32)
    return smooth


def picture_of(heat: Grid, size: tuple[int, int]) -> Image.Image:
    """The heat map to lie on top of a photo: transparent where nothing is found, then yellow, then red."""
    strength = np.clip((heat - 0.15) / 0.75, 0, 1)
    layers = (np.full_like(strength, 255), 220 * (1 - strength), np.zeros_like(strength), 190 * strength**0.7)
    grid = np.stack(layers, axis=-1).astype(np.uint8)
    return Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)


@cache
def classifier() -> HistGradientBoostingClassifier:
    """Trained on drawings that no customer of the demo sends. A second or two at the first call."""
    blocks, damaged = [], []
    for seed in range(FIRST_SEED, FIRST_SEED + DRAWINGS):
        drawing = draw(seed, is_damaged=seed % EACH_UNDAMAGED != 0, fine=1)
        features = features_of(pixels_of(small_of(drawing.picture)))
        blocks.append(features.reshape(-1, features.shape[-1]))
        damaged.append(_marked(drawing.damage, features.shape[:2]).ravel())
    made = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=15, random_state=0)
    made.fit(np.concatenate(blocks), np.concatenate(damaged))
    return made


def features_of(picture: Pixels) -> NDArray[np.float32]:
    """The features of each block, in the last dimension."""
    lab = rgb2lab(picture).astype(np.float32)
    light = lab[..., 0]
    lightness, red, blue = (_per_block(lab[..., channel]) for channel in range(3))
    unrest = np.sqrt(np.maximum(_per_block(light * light) - lightness**2, 0))
    dark, bright = _per_block(light < 22), _per_block(light > 85)

    strongest, weakest = structure_tensor_eigenvalues(structure_tensor(light / 100, sigma=2, order="rc"))
    edges, crossing = _per_block(strongest + weakest), _per_block(np.maximum(weakest, 0))

    paint = _paint(lightness, red, blue, unrest)
    off_light, off_colour = np.abs(lightness - paint[0]), np.hypot(red - paint[1], blue - paint[2])
    own = [off_light, off_colour, np.log(edges + EPSILON), np.log(crossing + EPSILON),
           crossing / (edges + EPSILON), unrest, dark, bright]  # fmt: skip
    wider = [off_colour, off_colour < 14, dark, np.log(crossing + EPSILON), unrest, off_light]
    around = [gaussian(value.astype(np.float32), reach) for reach in (1.5, 3.5) for value in wider]
    below = np.zeros_like(dark)
    below[:-4] = dark[4:]  # a wheel is dark below its rim
    height = np.broadcast_to(np.linspace(0, 1, len(dark), dtype=np.float32)[:, None], dark.shape)
    return np.stack([*own, *around, gaussian(below, 1), height], axis=-1)


def _per_block(values: NDArray[Any]) -> Grid:
    """The mean of each block."""
    height, width = (side // BLOCK for side in values.shape)
    cut = values[: height * BLOCK, : width * BLOCK].astype(np.float32)
    means: Grid = cut.reshape(height, BLOCK, width, BLOCK).mean(axis=(1, 3))
    return means


def _paint(lightness: Grid, red: Grid, blue: Grid, unrest: Grid) -> tuple[float, float, float]:
    """The colour of the car: the most frequent one among the smooth blocks around the middle."""
    rows, columns = (np.linspace(-1, 1, side) for side in lightness.shape)
    central = np.exp(-((rows[:, None] / 0.6) ** 2) - (columns[None, :] / 0.7) ** 2)
    weights = central * (unrest <= np.percentile(unrest, 60))
    bins = np.stack([lightness // 12, red // 10, blue // 10], axis=-1).reshape(-1, 3).astype(int)
    _, which = np.unique(bins, axis=0, return_inverse=True)
    is_paint = which.ravel() == np.bincount(which.ravel(), weights.ravel()).argmax()
    chosen = weights.ravel() * is_paint + EPSILON * is_paint
    light, more_red, more_blue = (
        float(np.average(channel.ravel(), weights=chosen)) for channel in (lightness, red, blue)
    )
    return light, more_red, more_blue


def _marked(box: Box | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The blocks of a box."""
    marks = np.zeros(shape, bool)
    if box is not None:
        height, width = shape
        left, top, right, bottom = box
        marks[
            int(top * height) : int(np.ceil(bottom * height)), int(left * width) : int(np.ceil(right * width))
        ] = True
    return marks


def _place(box: Box) -> str:
    """A box in words: `left, centre`."""
    across, down = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    sideways = "left" if across < 0.38 else "right" if across > 0.62 else "middle"
    upright = "top" if down < 0.33 else "bottom" if down > 0.67 else "centre"
    return f"{sideways}, {upright}"
