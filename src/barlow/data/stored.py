"""Numbers as a file stores them, of any depth and any number of bands, and how they become pixels of 8 or 16 bits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barlow.data.decoded import Array, OtherBands, row_blocks
from barlow.levels import white

ValueRange = tuple[float, float]
"""The number that becomes black and the one that becomes white. What lies outside is clipped."""

BACKGROUND = 128
"""The grey, of 255, that transparent pixels are composited over; `decoding.py` says why."""

ALPHA_SHARE = 0.5
"""Where at least this share of a band's pixels is either at 0 or at the band's largest value, the band can be a mask.
Masks are so nearly everywhere. A measured band, such as near infrared that was tagged as alpha, is so hardly anywhere.
"""

MOST_BANDS = 1_024
"""More than hyperspectral instruments have; a header that promises more is damaged, or is no image's."""


@dataclass(frozen=True)
class Stored:
    """An image as its file stores it.

    Args:
        values: (h, w, bands), any integers or floats.
        full: the largest number that the file's bits allow, for unsigned integers of up to 16 bits; None otherwise.
        alpha: whether the last band says how opaque a pixel is. It is not among `bands`.
        opaque: the number of alpha that is opaque; None where it has to be found.
        premultiplied: whether the other bands were multiplied by it already.
        nodata: a number that stands for "not measured". It becomes black, and does not count where a range is looked
            for.
    """

    values: NDArray[Any]
    full: int | None
    alpha: bool = False
    opaque: int | None = None
    premultiplied: bool = False
    nodata: float | None = None

    @property
    def bands(self) -> int:
        """How many there are, without alpha."""
        return self.values.shape[2] - self.alpha

    @property
    def deep(self) -> bool:
        """Whether 8 bits do not hold these numbers."""
        return self.values.dtype != np.uint8

    def measured(self) -> NDArray[Any]:
        """(h, w, bands): the numbers without alpha."""
        return self.values[:, :, : self.bands]


def pixels_of(stored: Stored, channels: int, value_range: ValueRange | None) -> Array:
    """The pixels that are trained on.

    With a range, they have 16 bits, and its ends become 0 and 65,535. Numbers of 8 bits are an exception: whoever made
    an 8-bit file chose its black and its white, so that 255 becomes 65,535 whatever the range is.

    Without a range, they have 8 bits: integers of up to 16 bits are scaled by their depth, and all others stretched,
    from the smallest finite number of the image to the largest.

    Args:
        stored: an image.
        channels: 1 or 3 for grey or colour, which are made of each other; any other number of bands has to be there.
        value_range: the set's.

    Raises:
        OtherBands: the image has another number of bands.
    """
    if channels not in (1, 3) and stored.values.shape[2] == channels:
        stored = Stored(stored.values, stored.full, nodata=stored.nodata)  # what is tagged as alpha counts as a band
    if stored.bands != channels and not {stored.bands, channels} <= {1, 3}:
        raise OtherBands(stored.bands, channels)
    alone = stored.bands == 1 and not stored.alpha
    pixels = _scaled(stored, value_range, channels if alone else stored.bands)
    if stored.alpha:
        pixels = _composited(pixels, stored)
    return with_channels(pixels, channels)


def checked_range(given: Sequence[float]) -> ValueRange:
    """A range of values as two floats.

    Raises:
        ValueError: it is not two finite numbers, the smaller one first.
    """
    ends = tuple(float(end) for end in given)
    if len(ends) != 2 or not (np.isfinite(ends).all() and ends[0] < ends[1]):
        raise ValueError(f"value_range {list(given)}: give [low, high], two finite numbers, the smaller one first")
    return ends[0], ends[1]


def widened(pixels: Array) -> Array:
    """8-bit pixels in 16 bits: 255 becomes 65,535."""
    return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * np.uint16(257)


def with_channels(pixels: Array, channels: int) -> Array:
    """Grey as three equal channels, and colour as its ITU-R 601 luma; (h, w, c)."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    # In 16-bit fixed point: for 8-bit pixels the same bytes as Pillow's convert("L").
    kind: type[np.unsignedinteger[Any]] = np.uint32 if pixels.dtype.itemsize == 1 else np.uint64
    weights = np.array([19_595, 38_470, 7_471], kind)
    grey = np.empty((*pixels.shape[:2], 1), pixels.dtype)
    for rows in _blocks(pixels):
        grey[rows, :, 0] = ((pixels[rows].astype(kind) @ weights) + 32_768) >> 16
    return grey


def looks_like_alpha(band: NDArray[Any]) -> bool:
    """Whether a band that is tagged as alpha can be one (`ALPHA_SHARE`)."""
    return bool(((band == 0) | (band == band.max())).mean() >= ALPHA_SHARE)


def _scaled(stored: Stored, value_range: ValueRange | None, bands: int) -> Array:
    """The numbers as pixels, some rows at a time; a single band can be written into several at once."""
    values = stored.measured()
    if not stored.deep:
        pixels = np.ascontiguousarray(values) if value_range is None else widened(values)
        return with_channels(pixels, bands) if bands != values.shape[2] else pixels
    out = np.empty((*values.shape[:2], bands), np.uint8 if value_range is None else np.uint16)
    if value_range is None and stored.full is not None:
        for rows in _blocks(values):
            out[rows] = (values[rows].astype(np.uint32) * 255 + stored.full // 2) // stored.full
        return out
    low, high = value_range or _ends(values)
    largest = white(out)
    for rows in _blocks(values):
        part = values[rows]
        if high == low:
            out[rows] = 0
            continue
        # Of halves, because high - low itself may be larger than the largest float.
        scaled = (part.astype(np.float64) / 2 - low / 2) / (high / 2 - low / 2) * largest
        black = np.isnan(scaled) if stored.nodata is None else np.isnan(scaled) | (part == stored.nodata)
        scaled[black] = 0
        out[rows] = np.rint(scaled.clip(0, largest))
    return out


def _ends(values: NDArray[Any]) -> ValueRange:
    """The smallest and the largest finite number; 0 and 0 if there is none."""
    parts = (values[rows] for rows in _blocks(values))
    finite = (part[np.isfinite(part)] if part.dtype.kind == "f" else part for part in parts)
    ends = [(float(part.min()), float(part.max())) for part in finite if part.size]
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else (0.0, 0.0)


def _composited(pixels: Array, stored: Stored) -> Array:
    """The colours over the background, by the alpha channel; in place."""
    alpha = stored.values[:, :, -1:]
    opaque: float | None = stored.opaque
    if opaque is None:
        # Data of 12 bits in 16 has an alpha of 12 bits: the largest number of as many bits as occur is opaque.
        opaque = 2 ** int(alpha.max()).bit_length() - 1 if alpha.dtype.kind in "iu" else float(alpha.max())
    largest = white(pixels)
    for rows in _blocks(pixels):
        share = alpha[rows].astype(np.float64) / max(opaque, 1e-300)
        colours = pixels[rows] if stored.premultiplied else pixels[rows] * share
        pixels[rows] = np.rint(colours + (1 - share) * (BACKGROUND / 255 * largest)).clip(0, largest)
    return pixels


def _blocks(values: NDArray[Any]) -> Iterator[slice]:
    """Rows that are converted together, so that an image never exists as a whole in 64 bits."""
    height, width, bands = values.shape
    return (slice(top, bottom) for top, bottom in row_blocks(height, width * bands))
