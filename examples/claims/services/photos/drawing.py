"""Photo-like pictures of damaged cars, drawn from a seed, so that we know where the damage is.

The demo's customers send them, and the figures in README.md are measured on them. A drawing has what makes
photographs hard: another view, light and background each time, reflections on the paint, noise, and wheels, lights
and bricks, whose edges look like damage.
"""

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of width and height
Colour = tuple[int, int, int]

WIDTH, HEIGHT = 640, 480
FINE = 2  # drawn at this many times the size: smooth edges after reduction
TAKEN_AT, CAMERA = 0x9003, 0x0110  # tags of EXIF

PAINTS: tuple[Colour, ...] = (
    (38, 82, 150), (150, 28, 34), (206, 208, 210), (34, 36, 40), (120, 126, 132), (20, 92, 74), (196, 150, 40),
)  # fmt: skip
SIDE: tuple[Point, ...] = (
    (0.02, 0.70), (0.03, 0.52), (0.12, 0.46), (0.28, 0.42), (0.38, 0.24), (0.70, 0.22), (0.84, 0.40), (0.97, 0.44),
    (0.98, 0.70),
)  # fmt: skip
WINDOWS: tuple[tuple[Point, ...], ...] = (
    ((0.33, 0.41), (0.40, 0.27), (0.54, 0.26), (0.54, 0.41)),
    ((0.57, 0.41), (0.57, 0.26), (0.68, 0.26), (0.78, 0.41)),
)
WHEELS: tuple[Point, ...] = ((0.21, 0.69), (0.79, 0.69))
PANELS: tuple[tuple[Point, ...], ...] = (
    ((0.55, 0.43), (0.55, 0.66)),
    ((0.31, 0.43), (0.33, 0.66)),
    ((0.78, 0.43), (0.72, 0.56)),
)


@dataclass(frozen=True)
class Drawing:
    """A picture, and where its damage is; None if there is none."""

    picture: Image.Image
    damage: Box | None

    def jpeg(self, taken: datetime | None = None, quality: int = 85) -> bytes:
        """The file a camera would write. `taken` goes into its metadata."""
        return jpeg_of(self.picture, taken, quality)


def draw(seed: int, is_damaged: bool = True, fine: int = FINE) -> Drawing:
    """The drawing of a seed, the same in every run. `fine` 1 is quicker, and has rough edges."""
    rng = default_rng(seed)
    size = (WIDTH * fine, HEIGHT * fine)
    canvas = _Canvas(_background(rng, size), _View.of(rng, size))
    _car(canvas, rng)
    damage = _damage(canvas, rng) if is_damaged else None
    return Drawing(_photographed(canvas.picture, rng), damage)


def jpeg_of(picture: Image.Image, taken: datetime | None = None, quality: int = 85) -> bytes:
    """A picture as JPEG, with the time when it was taken in its metadata."""
    exif = Image.Exif()
    if taken is not None:
        exif[CAMERA] = "Telephone"
        exif.get_ifd(0x8769)[TAKEN_AT] = taken.strftime("%Y:%m:%d %H:%M:%S")
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, exif=exif)
    return file.getvalue()


# -------------------------------------------------------------------------------------------- what is where


@dataclass(frozen=True)
class _View:
    """Where the unit square of the car lies in the picture: it is moved, enlarged, turned, mirrored."""

    scale: float
    angle: float
    middle: Point
    focus: Point
    is_mirrored: bool

    @classmethod
    def of(cls, rng: Generator, size: tuple[int, int]) -> "_View":
        return cls(
            scale=size[0] * rng.uniform(0.85, 1.9),
            angle=rng.uniform(-0.09, 0.09),
            middle=(size[0] * rng.uniform(0.4, 0.6), size[1] * rng.uniform(0.42, 0.62)),
            focus=(rng.uniform(0.3, 0.7), rng.uniform(0.42, 0.56)),
            is_mirrored=bool(rng.random() < 0.5),
        )

    def place(self, point: Point) -> Point:
        x, y = (point[0] - self.focus[0]) * self.scale, (point[1] - self.focus[1]) * self.scale * 0.75
        if self.is_mirrored:
            x = -x
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return self.middle[0] + x * cos - y * sin, self.middle[1] + x * sin + y * cos


@dataclass
class _Canvas:
    picture: Image.Image
    view: _View
    paint: Colour = (0, 0, 0)

    @property
    def pen(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.picture)

    @cached_property
    def body(self) -> Image.Image:
        """A mask of the car's body."""
        mask = Image.new("L", self.picture.size)
        ImageDraw.Draw(mask).polygon([self.view.place(point) for point in SIDE], fill=255)
        return mask

    def polygon(self, points: Iterable[Point], colour: Colour) -> None:
        """Fill a polygon of the car."""
        self.pen.polygon([self.view.place(point) for point in points], fill=colour)

    def circle(self, middle: Point, radius: float, colour: Colour) -> None:
        x, y = self.view.place(middle)
        r = radius * self.view.scale
        self.pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def line(self, points: Iterable[Point], colour: Colour, width: float) -> None:
        placed = [self.view.place(point) for point in points]
        self.pen.line(placed, fill=colour, width=max(1, round(width * self.view.scale)))


# ------------------------------------------------------------------------------------------------ the scene


def _background(rng: Generator, size: tuple[int, int]) -> Image.Image:
    """Sky or wall above, ground below, with the textures of both."""
    width, height = size
    horizon = int(height * rng.uniform(0.35, 0.68))
    picture = Image.new("RGB", size, _any_colour(rng, 110, 220))
    pen = ImageDraw.Draw(picture)
    if rng.random() < 0.35:
        _bricks(pen, rng, width, horizon)
    else:
        for _ in range(rng.integers(3, 9)):
            left, top = rng.uniform(-0.1, 1.0) * width, rng.uniform(0.0, 0.9) * horizon
            right = left + rng.uniform(0.05, 0.4) * width
            pen.rectangle((left, top, right, horizon), fill=_any_colour(rng, 60, 210))
    pen.rectangle((0, horizon, width, height), fill=_any_colour(rng, 70, 140))
    for _ in range(rng.integers(0, 4)):
        left = rng.uniform(0, 1) * width
        points = [(left, height), (left + width * 0.2, height), (width * rng.uniform(0, 1), horizon)]
        pen.polygon(points, fill=_any_colour(rng, 60, 150))
    return picture


def _bricks(pen: ImageDraw.ImageDraw, rng: Generator, width: int, horizon: int) -> None:
    colour, high = _any_colour(rng, 90, 180), int(rng.integers(24, 48))
    for row, top in enumerate(range(0, horizon, high)):
        for left in range(-(row % 2) * high, width, 2 * high):
            shade = int(rng.integers(-14, 14))
            fill = tuple(value + shade for value in colour)
            pen.rectangle((left, top, left + 2 * high - 3, min(top + high - 3, horizon)), fill=fill)


def _car(canvas: _Canvas, rng: Generator) -> None:
    paint = canvas.paint = PAINTS[rng.integers(len(PAINTS))]
    canvas.line(((0.02, 0.79), (0.98, 0.79)), (30, 30, 32), 0.05)  # its shadow
    canvas.polygon(SIDE, paint)
    _shine(canvas, rng)
    glass = _any_colour(rng, 40, 110)
    for window in WINDOWS:
        canvas.polygon(window, glass)
    for panel in PANELS:
        canvas.line(panel, _shaded(paint, 0.55), 0.004)
    for left in (0.50, 0.72):
        canvas.line(((left, 0.46), (left + 0.03, 0.46)), _shaded(paint, 1.5), 0.008)
    canvas.polygon(((0.03, 0.53), (0.10, 0.50), (0.10, 0.55), (0.04, 0.57)), (236, 232, 200))
    canvas.polygon(((0.94, 0.47), (0.975, 0.47), (0.975, 0.55), (0.95, 0.55)), (170, 24, 24))
    canvas.polygon(((0.02, 0.64), (0.13, 0.64), (0.12, 0.70), (0.02, 0.70)), _shaded(paint, 0.6))
    canvas.polygon(((0.88, 0.64), (0.98, 0.64), (0.98, 0.70), (0.89, 0.70)), _shaded(paint, 0.6))
    for wheel in WHEELS:
        _wheel(canvas, rng, wheel)


def _shine(canvas: _Canvas, rng: Generator) -> None:
    """Paint is lighter above than below, and mirrors the surroundings as smooth bands."""
    width, height = canvas.picture.size
    rows = np.linspace(rng.uniform(1.15, 1.4), rng.uniform(0.55, 0.8), height)[:, None]
    bands = 1 + 0.12 * np.sin(np.linspace(0, rng.uniform(2, 7), height) + rng.uniform(0, 6))[:, None]
    light = np.clip(128 * rows * bands * np.ones((1, width)), 0, 255).astype(np.uint8)
    painted = ImageChops.multiply(canvas.picture, Image.merge("RGB", [Image.fromarray(light)] * 3))
    canvas.picture.paste(ImageChops.add(painted, painted), mask=canvas.body)


def _wheel(canvas: _Canvas, rng: Generator, middle: Point) -> None:
    canvas.circle(middle, 0.092, (12, 12, 14))
    canvas.circle(middle, 0.080, (34, 34, 36))
    canvas.circle(middle, 0.056, (176, 178, 182))
    spokes, turn = int(rng.integers(5, 11)), rng.uniform(0, 6)
    for spoke in range(spokes):
        angle = turn + spoke * math.tau / spokes
        end = (middle[0] + 0.05 * math.cos(angle), middle[1] + 0.05 * math.sin(angle) / 0.75)
        canvas.line((middle, end), (70, 72, 76), 0.012)
    canvas.circle(middle, 0.012, (50, 50, 54))


# ----------------------------------------------------------------------------------------------- the damage


def _damage(canvas: _Canvas, rng: Generator) -> Box:
    """Dent, torn paint and scratches around one place of the body that the picture shows; returns their box."""
    middle = _place_of_damage(canvas, rng)
    reach = rng.uniform(0.05, 0.12)
    before = canvas.picture.copy()
    _dent(canvas, rng, middle, reach)
    for _ in range(rng.integers(1, 4)):
        _torn_paint(canvas, rng, _near(rng, middle, reach * 0.5), reach * rng.uniform(0.15, 0.4))
    for _ in range(rng.integers(6, 16)):
        _scratch(canvas, rng, _near(rng, middle, reach * 0.6), reach)
    canvas.picture = Image.composite(canvas.picture, before, canvas.body)  # what is not car is not damaged
    changed = (
        ImageChops.difference(canvas.picture, before).convert("L").point(lambda value: 255 * (value > 24))
    )
    left, top, right, bottom = changed.getbbox() or (0, 0, 1, 1)
    width, height = canvas.picture.size
    return left / width, top / height, right / width, bottom / height


def _place_of_damage(canvas: _Canvas, rng: Generator) -> Point:
    width, height = canvas.picture.size
    while True:
        point = (rng.uniform(0.06, 0.94), rng.uniform(0.45, 0.64))
        x, y = canvas.view.place(point)
        is_on_wheel = any(math.dist(point, wheel) < 0.13 for wheel in WHEELS)
        if 0.12 * width < x < 0.88 * width and 0.12 * height < y < 0.88 * height and not is_on_wheel:
            return point


def _dent(canvas: _Canvas, rng: Generator, middle: Point, reach: float) -> None:
    """Metal that is bent back: dark where it turns from the light, bright where it turns to it."""
    width, height = canvas.picture.size
    x, y = canvas.view.place(middle)
    radius = reach * canvas.view.scale * 0.8
    down, across = np.mgrid[0:height:4, 0:width:4]
    turned, tall = rng.uniform(0, math.pi), rng.uniform(0.5, 0.9)
    u = ((across - x) * math.cos(turned) + (down - y) * math.sin(turned)) / radius
    v = ((down - y) * math.cos(turned) - (across - x) * math.sin(turned)) / (radius * tall)
    slope = -u * np.exp(-(u**2 + v**2) * 1.4) * rng.uniform(1.0, 1.8)
    for sign, change in ((1, ImageChops.add), (-1, ImageChops.subtract)):
        strength = np.clip(sign * slope * 150, 0, 120).astype(np.uint8)
        layer = Image.fromarray(strength).resize(canvas.picture.size, Image.Resampling.BILINEAR)
        canvas.picture = change(canvas.picture, Image.merge("RGB", [layer] * 3))


def _torn_paint(canvas: _Canvas, rng: Generator, middle: Point, reach: float) -> None:
    """A ragged patch of primer or bare metal."""
    corners = int(rng.integers(7, 15))
    points = [
        (
            middle[0] + reach * rng.uniform(0.3, 1.0) * math.cos(corner * math.tau / corners),
            middle[1] + reach * rng.uniform(0.3, 1.0) * math.sin(corner * math.tau / corners),
        )
        for corner in range(corners)
    ]
    canvas.polygon(
        points, _any_colour(rng, 40, 90) if sum(canvas.paint) > 300 else _any_colour(rng, 130, 200)
    )


def _scratch(canvas: _Canvas, rng: Generator, start: Point, reach: float) -> None:
    """A jagged line, light where the paint is gone and dark where the metal is open."""
    angle, points = rng.uniform(0, math.tau), [start]
    for _ in range(rng.integers(3, 8)):
        angle += rng.uniform(-0.9, 0.9)
        step = reach * rng.uniform(0.1, 0.35)
        points.append((points[-1][0] + step * math.cos(angle), points[-1][1] + step * math.sin(angle)))
    colour = (232, 232, 228) if rng.random() < 0.6 else (24, 22, 22)
    canvas.line(points, colour, rng.uniform(0.002, 0.007))


def _near(rng: Generator, middle: Point, reach: float) -> Point:
    return middle[0] + rng.normal(0, reach / 2), middle[1] + rng.normal(0, reach / 2)


# ----------------------------------------------------------------------------------------------- the camera


def _photographed(picture: Image.Image, rng: Generator) -> Image.Image:
    """As a telephone sees it: not quite sharp, with its exposure, its tint and its noise."""
    small = picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    small = small.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.6)))
    values = np.asarray(small, np.float32) * rng.uniform(0.8, 1.15) * rng.uniform(0.94, 1.06, 3)
    values += rng.normal(0, rng.uniform(2, 5), values.shape[:2])[..., None]
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _any_colour(rng: Generator, low: int, high: int) -> Colour:
    grey = rng.integers(low, high)
    red, green, blue = np.clip(grey + rng.integers(-25, 25, 3), 0, 255)
    return int(red), int(green), int(blue)


def _shaded(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, int(value * factor)) for value in colour)
    return red, green, blue
