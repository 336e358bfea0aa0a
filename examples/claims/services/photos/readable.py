"""Can a person see anything on a photo: is it sharp, is there light?"""

import numpy as np
from skimage.measure import blur_effect

from examples.claims.services.photos.pictures import Pixels

SHARP_ENOUGH = 0.45
LIGHT_ENOUGH = 0.12


def sharpness(grey: Pixels) -> float:
    """0 to 1: how much of the picture's detail a blur would take away. What is blurred already loses little."""
    return round(1.0 - float(blur_effect(grey)), 3)


def brightness(grey: Pixels) -> float:
    """0 to 1: how light the lighter parts are. A black car by day has a light background."""
    return round(float(np.percentile(grey, 90)) / 255, 3)
