"""Can a person see anything on a photo: is it sharp, is there light?"""

import numpy as np
from skimage.filters import gaussian

from examples.claims.services.photos.pictures import Pixels

SHARP_ENOUGH = 0.5
LIGHT_ENOUGH = 0.12

BLOCK = 16  # pixels
SMOOTHING = 1.0  # pixels: takes away the camera's noise, which is sharp on every photo
SHARPEST = 2.5  # pixels: how wide an edge is after this smoothing, if it had no width before
FEWEST_LEVELS = 12  # of 255: what differs by less is not an edge


def sharpness(grey: Pixels) -> float:
    """0 to 1: how narrow the strongest edges are. 0 if there is none."""
    if min(grey.shape) < BLOCK:
        return 0.0
    smooth = gaussian(grey, SMOOTHING, preserve_range=True)
    steepness = np.hypot(*np.gradient(smooth))
    height, width = (side // BLOCK * BLOCK for side in grey.shape)
    blocks, slopes = (
        values[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
        for values in (smooth, steepness)
    )
    contrast = blocks.max(axis=(1, 3)) - blocks.min(axis=(1, 3))
    if contrast.max() < FEWEST_LEVELS:
        return 0.0
    strongest = contrast >= np.percentile(contrast, 85)
    widths = contrast[strongest] / slopes.max(axis=(1, 3))[strongest]
    return round(min(1.0, SHARPEST / float(np.median(widths))), 3)


def brightness(grey: Pixels) -> float:
    """0 to 1: how light the lighter parts are. A black car by day has a light background."""
    return round(float(np.percentile(grey, 90)) / 255, 3)
