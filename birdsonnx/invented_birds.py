"""Birds that nobody has seen: six invented species, drawn with Pillow in any number of poses.

They differ in what field guides go by: size, bill, tail, crest, legs and pattern, and not in colour alone. A
bird is drawn in units of its body's half length, facing right, x to the right and y down, round its middle.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageOps

Color = tuple[int, int, int]
Points = npt.NDArray[np.float64]

SIZE = 224
"""Pixels of a picture, both ways."""
FINER = 2
"""Times as large as it is drawn: Pillow's polygons have steps."""
BLACK, WHITE = (20, 20, 25), (245, 245, 240)


@dataclass(frozen=True)
class Species:
    """How a bird looks; lengths in half body lengths."""

    back: Color
    breast: Color
    bill_color: Color
    pixels: int
    """Half the body's length in a picture, on average."""
    depth: float
    """Half the body's height."""
    tilt: float
    """Of the body, degrees: 0 lies flat, -60 sits upright."""
    head: float
    """Its radius."""
    neck: tuple[float, float]
    """From the body's middle to that of the head."""
    bill: tuple[float, float]
    """Length and half its height."""
    tail: tuple[float, float, float]
    """Length, half its width at the end, and degrees upwards."""
    legs: float = 0.0
    crest: float = 0.0
    fork: float = 0.0
    """How deep the tail is cut in."""
    mask: Color | None = None
    """Round the eye."""
    bib: Color | None = None
    """Below the bill."""
    bars: Color | None = None
    """Across the breast."""
    spots: Color | None = None
    """On the breast."""
    wing_bars: Color | None = None
    faces_us: bool = False
    """With two eyes in discs, and ears."""


SPECIES = {
    "AMBER FINCH": Species(
        (190, 125, 35), (245, 195, 70), (230, 200, 150), 60, 0.62, -20, 0.45, (0.8, -0.62), (0.38, 0.24),
        (0.9, 0.22, -10), 0.35, fork=0.3, wing_bars=WHITE,
    ),
    "BLUE WREN": Species(
        (45, 80, 185), (140, 175, 245), (30, 30, 40), 50, 0.82, -8, 0.52, (0.72, -0.6), (0.5, 0.06),
        (1.0, 0.16, 68), 0.5, mask=BLACK,
    ),
    "CRIMSON TIT": Species(
        (160, 25, 45), (240, 225, 215), (40, 40, 40), 56, 0.68, -25, 0.48, (0.78, -0.65), (0.22, 0.1),
        (0.9, 0.14, -5), 0.35, crest=0.75, bib=BLACK,
    ),
    "DUSKY OWL": Species(
        (95, 80, 62), (190, 170, 140), (200, 170, 60), 52, 0.66, -75, 0.66, (0.12, -1.0), (0.0, 0.0),
        (0.4, 0.25, -8), 0.15, bars=(80, 65, 50), faces_us=True,
    ),
    "EMERALD JAY": Species(
        (20, 125, 65), (120, 220, 140), (25, 25, 25), 58, 0.5, -15, 0.38, (0.95, -0.5), (0.5, 0.13),
        (1.7, 0.2, -12), 0.4, crest=0.45, spots=(15, 70, 40), mask=BLACK,
    ),
    "SNOW HERON": Species(
        (215, 218, 225), (250, 250, 250), (235, 150, 40), 50, 0.5, -25, 0.26, (1.15, -1.65), (0.9, 0.1),
        (0.5, 0.2, -15), 1.5, mask=(60, 60, 70),
    ),
}  # fmt: skip


def picture(species: Species, generator: np.random.Generator) -> Image.Image:
    """One bird, 224 x 224 RGB: random pose, size and light, before a blurred random background."""
    # Muted, as foliage out of focus: a network of random weights sees colours most of all.
    coarse = generator.integers(90, 170, (4, 4, 1)) + generator.integers(-10, 11, (4, 4, 3))
    image = Image.fromarray(coarse.astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    bird = Image.new("RGBA", (SIZE * FINER, SIZE * FINER))
    unit = species.pixels * float(generator.uniform(0.85, 1.15)) * FINER
    middle = generator.uniform(0.44, 0.56, 2) * SIZE * FINER
    _Drawing(ImageDraw.Draw(bird), middle, unit).draw(species)
    bird = bird.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    if generator.random() < 0.5:
        bird = ImageOps.mirror(bird)
    bird = bird.rotate(float(generator.uniform(-12, 12)), Image.Resampling.BICUBIC)
    image.paste(bird, mask=bird)
    light = generator.uniform(0.93, 1.07)
    image = image.point(lambda value: min(255, round(value * light)))
    return image.filter(ImageFilter.GaussianBlur(float(generator.uniform(0.2, 0.8))))


class _Drawing:
    """A bird on its canvas.

    Args:
        middle: of the body, in pixels.
        unit: half the body's length, in pixels.
    """

    def __init__(self, canvas: ImageDraw.ImageDraw, middle: Points, unit: float) -> None:
        self._canvas = canvas
        self._middle = middle
        self._unit = unit

    def draw(self, bird: Species) -> None:
        """From what is behind to what is before."""
        self._tail(bird)
        self._legs(bird)
        head = np.array(bird.neck)
        along = _turned(bird.tilt)
        shoulder = along @ (0.55, 0.0)
        self._line(shoulder, head, 0.9 * bird.head, bird.back)
        self._shape(_oval(1.0, bird.depth) @ along.T, bird.back)
        self._breast(bird, along)
        wing = _oval(0.62, 0.42 * bird.depth) @ _turned(8).T + _at(-0.25, -0.12 * bird.depth)
        self._shape(wing @ along.T, _darker(bird.back))
        if bird.wing_bars is not None:
            for place in (-0.25, 0.0):
                bar = np.array([(place, -0.32), (place + 0.1, -0.32), (place, 0.3), (place - 0.1, 0.3)])
                self._shape((bar * (1, bird.depth)) @ along.T, bird.wing_bars)
        self._head(bird, head)

    def _tail(self, bird: Species) -> None:
        length, width, up = bird.tail
        end = -length - 0.7
        feathers = np.array([(-0.5, -0.14), (end, -width), (end + bird.fork, 0), (end, width), (-0.5, 0.14)])
        self._shape(feathers @ _turned(bird.tilt + up).T, _darker(bird.back, 0.55))

    def _legs(self, bird: Species) -> None:
        for x in (-0.12, 0.14):
            foot = np.array([x, 0.8 * bird.depth + bird.legs])
            self._line(np.array([x, 0.3]), foot, 0.08, bird.bill_color)
            self._line(foot, foot + _at(0.22, 0), 0.08, bird.bill_color)

    def _breast(self, bird: Species, along: Points) -> None:
        front = _oval(0.78, 0.62 * bird.depth) + _at(0.12, 0.34 * bird.depth)
        self._shape(front @ along.T, bird.breast)
        for place in np.linspace(-0.45, 0.65, 6):
            half = 0.5 * bird.depth * np.sqrt(1 - ((place - 0.12) / 0.78) ** 2)
            middle = 0.34 * bird.depth
            if bird.bars is not None:
                ends = np.array([(place, middle - half), (place, middle + half)]) @ along.T
                self._line(ends[0], ends[1], 0.08, bird.bars)
            if bird.spots is not None:
                for across in (-0.5, 0.1, 0.7):
                    spot = _oval(0.06, 0.06) + _at(place + 0.05 * across, middle + across * half)
                    self._shape(spot @ along.T, bird.spots)

    def _head(self, bird: Species, head: Points) -> None:
        size = bird.head
        if bird.crest:
            peak = (-0.6 * size, -size - bird.crest)
            self._shape(
                np.array([(-0.95 * size, -0.2 * size), peak, (0.5 * size, -0.8 * size)]) + head, bird.back
            )
        self._shape(_oval(size, size) + head, bird.back)
        if bird.faces_us:
            self._face(bird, head)
            return
        length, half = bird.bill
        if bird.bib is not None:
            self._shape(_oval(0.5 * size, 0.45 * size) + head + _at(0.5 * size, 0.65 * size), bird.bib)
        tip = (0.9 * size + length, 0.12 * size)
        bill = np.array([(0.85 * size, -half), tip, (0.85 * size, half + 0.1 * size)])
        self._shape(bill + head, bird.bill_color)
        eye = head + _at(0.35 * size, -0.15 * size)
        if bird.mask is not None:
            self._shape(_oval(0.62 * size, 0.26 * size) + eye, bird.mask)
        self._eye(eye, 0.11)

    def _face(self, bird: Species, head: Points) -> None:
        size = bird.head
        for side in (-1, 1):
            ear = np.array([(0.25, -0.85), (0.8, -1.5), (0.85, -0.4)]) * (side * size, size)
            self._shape(ear + head, bird.back)
            eye = head + _at(side * 0.42 * size, -0.1 * size)
            self._shape(_oval(0.44 * size, 0.5 * size) + eye, bird.breast)
            self._shape(_oval(0.26 * size, 0.26 * size) + eye, (240, 190, 40))
            self._eye(eye, 0.15 * size)
        bill = np.array([(-0.12, 0.1), (0.12, 0.1), (0, 0.5)]) * size
        self._shape(bill + head, bird.bill_color)

    def _eye(self, middle: Points, size: float) -> None:
        self._shape(_oval(size, size) + middle, WHITE)
        self._shape(_oval(0.75 * size, 0.75 * size) + middle, BLACK)

    def _shape(self, outline: Points, color: Color) -> None:
        self._canvas.polygon(self._pixels(outline), fill=color)

    def _line(self, start: Points, end: Points, width: float, color: Color) -> None:
        self._canvas.line(self._pixels([start, end]), fill=color, width=max(1, round(width * self._unit)))

    def _pixels(self, points: Points | Sequence[Points]) -> list[tuple[float, float]]:
        return [(x, y) for x, y in (np.asarray(points) * self._unit + self._middle).tolist()]


def _at(x: float, y: float) -> Points:
    return np.array([x, y])


def _oval(wide: float, high: float) -> Points:
    """The outline of an ellipse round 0, `[points, 2]`, by its half axes."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([wide * np.cos(angle), high * np.sin(angle)], axis=1)


def _turned(degrees: float) -> Points:
    """The matrix that turns points; y points down, so that negative degrees lift what is on the right."""
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _darker(color: Color, share: float = 0.75) -> Color:
    red, green, blue = (round(share * value) for value in color)
    return red, green, blue
