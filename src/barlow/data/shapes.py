"""`shapes`: the default set, labelled and generated here. Four objects of one kind on a plain ground; the kind is the
label.

All arithmetic is on integers, from raw 64-bit draws. So every machine and every NumPy draws the same bytes, and a test
checks their SHA-256.

Training encodes whatever two views of an image share, so two crops should share the kind of the objects and little
else. The four objects of an image therefore differ in place, size, turn, proportions, thickness and contrast, and two
crops show different ones of the four, or parts of the same. Raw pixels fail on the same variation. There is no colour,
and the ground has no structure: any two crops would share these, and they would be encoded instead. With a single
object on each image, its brightness, turn and thickness were easier to encode than its kind (docs/experiments.md).
`experiments/shapes_fairness.py` measures all this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt64

SEEDS = {"train": 210303230, "test": 210504906}
"""Two different numbers; these are the arXiv identifiers of papers."""

COUNTS = {"train": 5_000, "test": 2_000}
"""Number of images. With 10,000 training images, nearest neighbours on raw pixels are right ten percentage points more
often, and the baseline leaves less to gain."""

TEMPLATE = 128
"""Side of the bitmaps from which the objects are drawn."""

SAMPLES = 3
"""Samples per pixel along each axis: an object covers 0 to SAMPLES² ninths of a pixel."""

UNIT = 4096
"""The fixed-point number that stands for 1, and for the side of an image."""

VARIANTS = 3
"""Variants of each object, from thin to thick or from flat to deep."""

CHUNK = 500
"""How many images are drawn at a time. It changes the memory that is used, not the images."""

Plane = Int[np.ndarray, "h w"]
Bitmap = Bool[np.ndarray, "h w"]


# --- The objects: masks over integer coordinates -127..127, y downwards, none the mirror image of another -------------


def disc(x: Plane, y: Plane, variant: int) -> Bitmap:
    return x * x + y * y <= (96 + 4 * variant) ** 2


def ring(x: Plane, y: Plane, variant: int) -> Bitmap:
    return (x * x + y * y <= 108**2) & (x * x + y * y >= (72 - 8 * variant) ** 2)


def square(x: Plane, y: Plane, variant: int) -> Bitmap:
    half = 84 + 4 * variant
    return (abs(x) <= half) & (abs(y) <= half)


def triangle(x: Plane, y: Plane, variant: int) -> Bitmap:
    return (y <= 86) & (abs(x) * 180 <= (y + 100) * (100 + 6 * variant))


def cross(x: Plane, y: Plane, variant: int) -> Bitmap:
    half = 22 + 6 * variant
    return (np.maximum(abs(x), abs(y)) <= 108) & (np.minimum(abs(x), abs(y)) <= half)


def star(x: Plane, y: Plane, variant: int) -> Bitmap:
    inner = (41, 46, 51)[variant]  # 46 / 116 is near 0.382, the pentagram's ratio
    # cos and sin of 18°, 54° and their like, times 1000
    outside = [(0, -1000), (951, -309), (588, 809), (-588, 809), (-951, -309)]
    inside = [(588, -809), (951, 309), (0, 1000), (-951, 309), (-588, -809)]
    corners = [
        (px * radius // 1000, py * radius // 1000)
        for pair in zip(outside, inside, strict=True)
        for (px, py), radius in zip(pair, (116, inner), strict=True)
    ]
    return _polygon(x, y, corners)


def crescent(x: Plane, y: Plane, variant: int) -> Bitmap:
    shifted = x - (62 - 8 * variant)
    return ((x + 10) ** 2 + y * y <= 104**2) & (shifted * shifted + y * y > 84**2)


def bars(x: Plane, y: Plane, variant: int) -> Bitmap:
    return (abs(y) <= 104) & (abs(x) <= 88) & (abs(x) >= 48 - 8 * variant)


def stripes(x: Plane, y: Plane, variant: int) -> Bitmap:
    half = 15 + 3 * variant
    return (abs(x) <= 100) & ((abs(y) <= half) | (abs(abs(y) - 76) <= half))


def dots(x: Plane, y: Plane, variant: int) -> Bitmap:
    return (abs(x) - 62) ** 2 + (abs(y) - 62) ** 2 <= (34 + 6 * variant) ** 2


def _polygon(x: Plane, y: Plane, corners: list[tuple[int, int]]) -> Bitmap:
    """The even-odd rule in integers: a sample is inside if an odd number of edges is to its right."""
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        straddles = (ay > y) != (by > y)
        left_of_edge = (x - ax) * (by - ay) < (bx - ax) * (y - ay)
        inside ^= straddles & (left_of_edge if by > ay else ~left_of_edge)
    return inside


OBJECTS: tuple[Callable[[Plane, Plane, int], Bitmap], ...] = (
    disc, ring, square, triangle, cross, star, crescent, bars, stripes, dots
)  # fmt: skip
CLASSES = [mask.__name__ for mask in OBJECTS]


def templates() -> UInt8[np.ndarray, "classes variants h w"]:
    """A bitmap of every variant of every object. Its border is zeros, which stand for everything outside of it."""
    along = 2 * np.arange(TEMPLATE) + 1 - TEMPLATE
    y, x = np.meshgrid(along, along, indexing="ij")
    return np.array([[mask(x, y, variant) for variant in range(VARIANTS)] for mask in OBJECTS], np.uint8)


# --- How much the drawing varies --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """The range of each draw, both ends included. Lengths are in 4096ths of the image's side."""

    objects: tuple[int, int]  # on an image
    alike: bool  # all objects of an image are of one class, or each of another
    radius: tuple[int, int]  # half of an object's side
    aspect: tuple[int, int]  # an object's width over its height, in 4096ths
    offset: int  # of an object's centre from its quadrant's, along each axis
    turn: int  # tangent of half the angle, in 64ths, to either side
    ground: tuple[int, int]  # grey level
    contrast: tuple[int, int]  # grey levels by which an object is lighter than the ground
    noise: int  # grey levels, triangular, to either side


SINGLE = Layout(
    objects=(4, 4),
    alike=True,
    radius=(500, 900),
    aspect=(3600, 4600),
    offset=500,
    turn=26,
    ground=(75, 180),
    contrast=(80, 110),
    noise=6,
)
MULTIPLE = Layout(
    objects=(2, 3),
    alike=False,
    radius=(720, 920),
    aspect=(3600, 4600),
    offset=120,
    turn=14,
    ground=(75, 180),
    contrast=(66, 110),
    noise=32,
)
QUADRANT = UNIT // 4
"""How far a quadrant's centre is from that of the image, along each axis. Each object has a quadrant of its own."""

OBJECT_DRAWS = 8
IMAGE_DRAWS = 4 + len(CLASSES) + 4 + 4 * OBJECT_DRAWS
"""Number of 64-bit draws for each image, besides a byte of noise for each pixel. All are drawn, whether they are used
or not, so that no image depends on another."""


# --- Drawing ----------------------------------------------------------------------------------------------------------


def _integer(draws: UInt64[np.ndarray, "n"], low: int, high: int) -> Int[np.ndarray, "n"]:
    """Integers from low to high, both included, by multiplying the upper 32 bits. At these ranges, the bias is below
    2⁻²⁰."""
    return low + ((draws >> np.uint64(32)).astype(np.int64) * (high - low + 1) >> 32)


def _coverage(
    bitmaps: UInt8[np.ndarray, "templates texels"],
    template: Int[np.ndarray, "n"],
    draws: UInt64[np.ndarray, "n k"],
    place: Int[np.ndarray, "n 2"],
    layout: Layout,
    size: int,
) -> UInt8[np.ndarray, "n s s"]:
    """How much of each pixel an object covers, 0 to SAMPLES² ninths. The template is turned, stretched and moved."""
    radius = _integer(draws[:, 0], *layout.radius)
    aspect = _integer(draws[:, 1], *layout.aspect)
    tangent = _integer(draws[:, 2], -layout.turn, layout.turn)
    centre_x = place[:, 0] + _integer(draws[:, 3], -layout.offset, layout.offset)
    centre_y = place[:, 1] + _integer(draws[:, 4], -layout.offset, layout.offset)
    # cos = (1 − t²) / (1 + t²) and sin = 2t / (1 + t²) with t = tangent / 64, because a library's sine may vary
    cos = UNIT * (64**2 - tangent**2) // (64**2 + tangent**2)
    sin = UNIT * (2 * 64 * tangent) // (64**2 + tangent**2)
    # texels per unit of length, in 65536ths; each axis takes half of the aspect ratio, to first order
    per_unit = (TEMPLATE // 2 * 65536) // radius
    wide, high = per_unit * (3 * UNIT - aspect) // (2 * UNIT), per_unit * (UNIT + aspect) // (2 * UNIT)
    samples = (2 * np.arange(size * SAMPLES) + 1) * UNIT // (2 * size * SAMPLES)
    dx, dy = samples - centre_x[:, None], samples - centre_y[:, None]

    def texel(from_x: np.ndarray, from_y: np.ndarray) -> np.ndarray:
        along = (from_x.astype(np.int32)[:, None, :] + from_y.astype(np.int32)[:, :, None]) >> 16
        along += TEMPLATE // 2
        return np.clip(along, 0, TEMPLATE - 1, out=along)

    u = texel(dx * (cos * wide // UNIT)[:, None], dy * (sin * wide // UNIT)[:, None])
    v = texel(-dx * (sin * high // UNIT)[:, None], dy * (cos * high // UNIT)[:, None])
    v *= TEMPLATE
    v += u
    v += (template * TEMPLATE**2).astype(np.int32)[:, None, None]
    hits = np.take(bitmaps.reshape(-1), v)
    return hits.reshape(len(hits), size, SAMPLES, size, SAMPLES).sum((2, 4), dtype=np.uint8)


def draw(
    draws: UInt64[np.ndarray, "n k"],
    noise: UInt8[np.ndarray, "n s s"],
    bitmaps: UInt8[np.ndarray, "templates texels"],
    first: int,
    layout: Layout,
) -> tuple[UInt8[np.ndarray, "n s s"], UInt8[np.ndarray, "n classes"], UInt8[np.ndarray, "n s s"]]:
    """Draws images `first`, `first + 1`, … and returns them, which classes are on each, and how much of each pixel is
    covered."""
    n, size = len(draws), noise.shape[1]
    number = _integer(draws[:, 0], *layout.objects)
    ground = _integer(draws[:, 1], *layout.ground)
    rest = draws[:, 4:]
    order, rest = np.argsort(rest[:, : len(CLASSES)], axis=1, kind="stable"), rest[:, len(CLASSES) :]
    quadrant, rest = np.argsort(rest[:, :4], axis=1, kind="stable"), rest[:, 4:]
    if layout.alike:  # classes in equal numbers
        order[:] = ((first + np.arange(n)) % len(CLASSES))[:, None]

    image = np.broadcast_to(ground[:, None, None] * UNIT, noise.shape).astype(np.int32)
    present = np.zeros((n, len(CLASSES)), np.uint8)
    covered = np.zeros(noise.shape, np.uint8)
    for k in range(layout.objects[1]):
        of_object = rest[:, k * OBJECT_DRAWS : (k + 1) * OBJECT_DRAWS]
        here = k < number
        variant = _integer(of_object[:, 5], 0, VARIANTS - 1)
        contrast = _integer(of_object[:, 6], *layout.contrast)
        place = UNIT // 2 + QUADRANT * (2 * np.stack([quadrant[:, k] % 2, quadrant[:, k] // 2], axis=1) - 1)
        coverage = _coverage(bitmaps, order[:, k] * VARIANTS + variant, of_object, place, layout, size)
        coverage *= here[:, None, None].astype(np.uint8)
        level = ((ground + contrast) * UNIT).astype(np.int32)[:, None, None]
        image += (level - image) // SAMPLES**2 * coverage
        np.maximum(covered, coverage, out=covered)
        present[np.arange(n), order[:, k]] |= here.astype(np.uint8)
    triangular = (noise & 15).astype(np.int32) + (noise >> 4) - 15
    image += triangular * (layout.noise * UNIT // 15)
    grey = np.clip((image + UNIT // 2) >> 12, 0, 255).astype(np.uint8)
    return grey, present, covered


class ShapesSource:
    """The set as a source of images. All of them are drawn when the first is asked for (a second for 5,000 images).

    Args:
        split: "train" or "test". They have different seeds and different numbers of images.
        multi_object: whether an image has two or three different objects, and labels (N, classes) of zeros and ones.
        size: the side of the images in pixels. With another side, the same objects are drawn with other noise.
        count: how many images, if not `COUNTS`. The first ones are the same, however many there are.
    """

    def __init__(
        self,
        split: Literal["train", "test"] = "train",
        multi_object: bool = False,
        size: int = 32,
        count: int | None = None,
    ) -> None:
        if split not in SEEDS:
            raise ValueError(f"shapes has no split {split!r}; choose one of: {', '.join(SEEDS)}")
        if size < 8 or size > 512:
            raise ValueError(
                f"shapes are drawn 8 to 512 pixels wide; size={size} is outside, choose 32 for the default set"
            )
        if count is not None and count < 1:
            raise ValueError(f"count={count} images cannot be drawn; give at least 1, or None for {COUNTS[split]}")
        self.name = "shapes_multi" if multi_object else "shapes"
        self.split = split
        self.multi_object = multi_object
        self.size = size
        self.count = COUNTS[split] if count is None else count
        self.classes: list[str] | None = list(CLASSES)

    def __len__(self) -> int:
        return self.count

    def __getstate__(self) -> dict[str, object]:
        """A worker process draws the images itself; they are not sent to it."""
        return {key: value for key, value in self.__dict__.items() if key != "_drawn"}

    @cached_property
    def _drawn(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        layout = MULTIPLE if self.multi_object else SINGLE
        entropy = (SEEDS[self.split], int(self.multi_object))
        raw = np.random.PCG64(np.random.SeedSequence((*entropy, 0)))
        raw_noise = np.random.PCG64(np.random.SeedSequence((*entropy, 1)))
        bitmaps = templates().reshape(len(CLASSES) * VARIANTS, -1)
        words = -(-(self.size**2) // 8)
        chunks = []
        for first in range(0, self.count, CHUNK):
            n = min(CHUNK, self.count - first)
            draws = raw.random_raw(n * IMAGE_DRAWS).reshape(n, IMAGE_DRAWS)
            noise = raw_noise.random_raw(n * words).astype("<u8").view(np.uint8).reshape(n, -1)[:, : self.size**2]
            chunks.append(draw(draws, noise.reshape(n, self.size, self.size), bitmaps, first, layout))
        images, present, covered = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        return images, present, covered

    @property
    def pixels(self) -> UInt8[np.ndarray, "n s s"]:
        """All images, grey."""
        return self._drawn[0]

    @property
    def coverage(self) -> UInt8[np.ndarray, "n s s"]:
        """How much of each pixel is covered by objects, 0 to SAMPLES²."""
        return self._drawn[2]

    @property
    def labels(self) -> np.ndarray | None:
        """Class numbers, (N,) int64; with several objects, (N, classes) uint8, which say what is on each image."""
        if self.multi_object:
            return self._drawn[1]
        return np.arange(self.count) % len(CLASSES)

    def read(self, index: int, min_side: int = 0) -> UInt8[np.ndarray, "s s 3"]:
        """One image, with its grey in three channels. All images have one size, so `min_side` changes nothing."""
        if not 0 <= index < self.count:
            raise IndexError(f"{self.locate(index)} is outside the {self.count} images of {self.split}")
        return np.repeat(self.pixels[index, :, :, None], 3, axis=2)

    def locate(self, index: int) -> str:
        return f"{self.name}[{index}]"
