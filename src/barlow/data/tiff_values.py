"""TIFF as measurements come in it: any number of bands, more than 8 bits, signs and fractions.

Pillow reads what TIFF shares with photos, and loses the rest: it drops bands, takes signed numbers for unsigned ones,
and has no layout for ten bands. So the files that Pillow would not give whole are read here, and all others left to it.

Read are strips and tiles, bands side by side or apart, TIFF and BigTIFF, integers of 8 to 64 bits (packed ones of 10,
12 and 14 too) and floats of 16 to 64 bits, without compression or with Deflate, LZW, PackBits, LZMA or Zstandard, and
with either predictor. Of several images the first is read.

Source: TIFF 6.0 (Adobe, 1992); its Technical Note 3 for the predictor of floats; GDAL's tag for missing numbers.
"""

import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from barlow.data import tiff
from barlow.data.decoded import Header, UnreadableImage, check_memory, check_size
from barlow.data.stored import MOST_BANDS, Stored, looks_like_alpha
from barlow.limits import TIFF_OPENED, TIFF_OPENED_BYTES

_RAW, _DEFLATE = 1, (8, 32946)
_BY_LIBTIFF = {5: "LZW", 32773: "PackBits", 34925: "LZMA", 50000: "Zstandard"}
_OTHERS = {2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "JPEG", 7: "JPEG", 34712: "JPEG 2000", 34887: "LERC", 50001: "WebP"}

_COLOURS = {0: 1, 1: 1, 2: 3}
"""Bands of the interpretations that numbers have here: white is zero, black is zero, RGB. Palettes, CMYK and the like
have their colours in 8 bits, and are Pillow's."""

_BITS = {"u": (8, 10, 12, 14, 16, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}


@dataclass(frozen=True)
class Layout:
    """How a file that is read here lays out its numbers."""

    found: tiff.Directory

    @property
    def bands(self) -> int:
        """With alpha."""
        return self.found.get(tiff.SAMPLES, 1)

    @property
    def bits(self) -> int:
        return self.found.get(tiff.BITS, 1)

    @property
    def kind(self) -> str:
        """Of the numbers, as NumPy writes it: unsigned, signed or float; an empty text for others, such as complex."""
        return {1: "u", 2: "i", 3: "f", 4: "u"}.get(self.found.get(tiff.SAMPLE_FORMAT, 1), "")

    @property
    def compression(self) -> int:
        return self.found.get(tiff.COMPRESSION, _RAW)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width, as they are stored."""
        return self.found.get(tiff.HEIGHT, 0), self.found.get(tiff.WIDTH, 0)

    @property
    def orientation(self) -> int:
        value = self.found.get(tiff.ORIENTATION, 1)
        return value if 1 <= value <= 8 else 1

    @property
    def tagged_alpha(self) -> int:
        """1 or 2 where the last band is said to be alpha, premultiplied or not; 0 otherwise."""
        extra = self.found.values.get(tiff.EXTRA_SAMPLES) or (0,)
        return extra[-1] if self.bands in (2, 4) and extra[-1] in (1, 2) else 0

    def is_pillows(self) -> bool:
        """Whether Pillow reads the file whole: 8 bits or fewer, and no band beside grey or colour and alpha.

        What is deflated is read here even so. Inflating it here compares its checksum on the way; libtiff stops when it
        has all the pixels that it wants, and the checksum of these would take another tenth of the time.
        """
        colours = _COLOURS.get(self.found.get(tiff.PHOTOMETRIC, 1), 0)
        if not colours or self.bands < colours:
            return True
        if self.bits < 8 or (self.bits == 8 and self.kind == "u"):
            extra = self.bands - colours
            compressed = self.compression not in (_RAW, *_DEFLATE, *_BY_LIBTIFF)
            if self.bits == 8 and self.compression in _DEFLATE and extra == 0:
                return self.found.get(tiff.FILL_ORDER, 1) != 1 or self.found.get(tiff.PREDICTOR, 1) not in (1, 2)
            return extra == 0 or (extra == 1 and bool(self.tagged_alpha) and compressed)
        return False

    def checked_header(self, size: int, max_pixels: int, channels: int, *, wide: bool) -> Header:
        """What the file says about its image, which has to be one that is read.

        Args:
            size: of the file in bytes.
            max_pixels: the limit of pixels, from which that of bytes follows.
            channels: that the image is read with; 0 where its numbers alone are wanted.
            wide: whether its pixels have 16 bits.

        Raises:
            UnreadableImage: it is of a kind that is not read, or too large; found out before memory is taken.
        """
        height, width = self.sides
        check_size(width, height, max_pixels)
        self._check_kind()
        numbers = self.bands * ((self.bits + 7) // 8)
        out = channels * (1 + (self.orientation > 1)) * (2 if wide else 1)
        needed = size + (numbers + out) * height * width
        if self.compression != _RAW:
            needed += math.prod(self.found.part_shape) * numbers
        check_memory(f"a TIFF of {width}×{height} pixels ({self._named()})", needed, max_pixels)
        most = TIFF_OPENED + height * width * numbers // TIFF_OPENED_BYTES
        if self.compression in _BY_LIBTIFF and (parts := len(self.found.parts)) > most:
            raise UnreadableImage(
                f"a TIFF of {parts:,} strips or tiles, each with a few bytes: at most {most:,} are read of its size; "
                "save it with larger ones"
            )
        bands = self.bands - bool(self.tagged_alpha)
        sides = (width, height) if self.orientation >= 5 else (height, width)
        alpha = bool(self.tagged_alpha)
        return Header("TIFF", *sides, bands == 1, self.found.several, bands, self.is_deep(), alpha)

    def is_deep(self) -> bool:
        """Whether 8 bits do not hold the numbers."""
        return self.bits > 8 or self.kind != "u"

    def _named(self) -> str:
        return f"{self.bands} band{'s' if self.bands > 1 else ''} of {self.bits} bits"

    def _check_kind(self) -> None:
        what = f"a TIFF with {self._named()}"
        depths, formats = (self.found.values.get(tag, (1,)) for tag in (tiff.BITS, tiff.SAMPLE_FORMAT))
        if len(set(depths)) > 1 or len(set(formats)) > 1:
            raise UnreadableImage(f"a TIFF whose bands differ in depth ({', '.join(map(str, depths[:5]))} bits)")
        if not 1 <= self.bands <= MOST_BANDS:
            raise UnreadableImage(f"a TIFF with {self.bands} bands: at most {MOST_BANDS} are read")
        if self.bits not in _BITS.get(self.kind, ()):
            named = {"u": "unsigned", "i": "signed", "f": "float"}.get(self.kind, "complex")
            raise UnreadableImage(f"{what} ({named}), which is not read")
        if self.compression not in (_RAW, *_DEFLATE, *_BY_LIBTIFF):
            named = _OTHERS.get(self.compression, f"method {self.compression}")
            raise UnreadableImage(f"{what}, compressed by {named}: save it without compression, or with Deflate or LZW")
        if self.found.get(tiff.FILL_ORDER, 1) != 1 or self.found.get(tiff.PREDICTOR, 1) not in (1, 2, 3):
            raise UnreadableImage(f"{what}, in an order of bits or by a predictor that is not read: save it without")

    def read(self, data: bytes, max_pixels: int, channels: int, *, wide: bool) -> tuple[Stored, Header, int] | None:
        """The numbers, the header and the orientation; None for colours of 8 bits with alpha, which are Pillow's.

        Raises:
            UnreadableImage: as from `checked_header`, or the file is damaged.
        """
        header = self.checked_header(len(data), max_pixels, channels, wide=wide)
        values = _values(data, self)
        alpha = bool(self.tagged_alpha) and looks_like_alpha(values[:, :, -1])
        if alpha and not self.is_deep():
            return None
        full = 2**self.bits - 1 if self.kind == "u" and self.bits <= 16 else None
        if self.found.get(tiff.PHOTOMETRIC, 1) == 0 and self.kind == "u":  # white is zero
            np.subtract(2**self.bits - 1, values[:, :, 0], out=values[:, :, 0])
        if header.alpha and not alpha:
            header = Header("TIFF", header.height, header.width, False, header.multiframe, self.bands, header.deep)
        stored = Stored(values, full, alpha, premultiplied=self.tagged_alpha == 1, nodata=self._nodata(values))
        return stored, header, self.orientation

    def _nodata(self, values: NDArray[Any]) -> float | None:
        text = bytes(self.found.values.get(tiff.NODATA, ()))
        try:
            # As the type of the numbers has it: the text -3.4e38 stands for the float32 that is nearest.
            return float(values.dtype.type(float(text.split(b"\0")[0]))) if text else None
        except (ValueError, OverflowError):
            return None


def layout_of(found: tiff.Directory | None) -> Layout | None:
    """How a TIFF lays out its numbers; None for one that Pillow reads whole, and for what is no TIFF."""
    layout = None if found is None else Layout(found)
    return None if layout is None or layout.is_pillows() else layout


@dataclass(frozen=True)
class _Segment:
    """A strip or a tile: where its bytes lie, its shape with padding, and its place in the image."""

    at: int
    count: int
    shape: tuple[int, int, int]
    top: int
    left: int
    band: int


def _values(data: bytes, layout: Layout) -> NDArray[Any]:
    """(h, w, bands), in the machine's order of bytes."""
    height, width = layout.sides
    stored = np.dtype(f"{layout.kind}{(layout.bits + 7) // 8}")
    out = np.full((height, width, layout.bands), 0, stored)
    part = "tile" if tiff.TILE_OFFSETS in layout.found.values else "strip"
    for number, segment in enumerate(_segments(layout, len(data))):
        if segment.count == 0:  # GDAL leaves out what was never written
            continue
        rows, columns, _ = segment.shape
        high, wide = min(rows, height - segment.top), min(columns, width - segment.left)
        most = segment.count if layout.compression != _RAW else layout.found.part_bytes
        body = data[segment.at : segment.at + min(segment.count, most)]
        block = _numbers(body, layout, segment.shape, high, stored, f"{part} {number}")
        bands = slice(segment.band, segment.band + segment.shape[2])
        out[segment.top : segment.top + high, segment.left : segment.left + wide, bands] = block[:high, :wide]
    return out


def _segments(layout: Layout, size: int) -> Iterator[_Segment]:
    (height, width), bands, parts = layout.sides, layout.bands, layout.found.parts
    tiled = tiff.TILE_OFFSETS in layout.found.values
    apart = layout.found.get(tiff.PLANAR, 1) == 2 and bands > 1
    rows, columns = layout.found.part_shape
    if not (0 < rows <= height + 4_096 and 0 < columns <= width + 4_096):
        raise UnreadableImage(f"damaged TIFF: strips or tiles of {columns}×{rows} pixels")
    depth = 1 if apart else bands
    expected = -(-height // rows) * -(-width // columns) * (bands if apart else 1)
    if not parts and layout.compression == _RAW and tiff.STRIP_OFFSETS in layout.found.values:
        # Early writers leave out how long strips are, which follows from their rows.
        parts = [(at, layout.found.part_bytes) for at in layout.found.values[tiff.STRIP_OFFSETS]]
    if len(parts) < expected:
        raise UnreadableImage(f"damaged TIFF: {len(parts)} strips or tiles of {expected}")
    places = [(top, left) for top in range(0, height, rows) for left in range(0, width, columns)]
    for number in range(expected):
        (top, left), (at, count) = places[number % len(places)], parts[number]
        if count and not 0 <= at < size:
            raise UnreadableImage("damaged TIFF: its end is missing")
        shape = (rows if tiled else min(rows, height - top), columns, depth)
        yield _Segment(at, count, shape, top, left, number // len(places))


def _numbers(
    body: bytes, layout: Layout, shape: tuple[int, int, int], needed: int, stored: np.dtype[Any], name: str
) -> NDArray[Any]:
    """The numbers of a strip or a tile, of which the first rows are needed; `name` is what messages call it."""
    rows, columns, depth = shape
    bits, predictor = layout.bits, layout.found.get(tiff.PREDICTOR, 1)
    line = -(-columns * depth * bits // 8)
    plain = _decompressed(body, layout, line, rows, name)
    if len(plain) < line * needed:
        raise UnreadableImage(f"damaged TIFF: {name} has {len(plain):,} bytes, where {line * needed:,} belong")
    rows = min(rows, len(plain) // line)
    lines = np.frombuffer(plain, np.uint8, rows * line).reshape(rows, line)
    if bits % 8:
        each = np.unpackbits(lines, axis=1)[:, : columns * depth * bits].reshape(rows, columns, depth, bits)
        weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)
        return each.astype(np.uint16) @ weights
    if predictor == 3:
        # Each line has first the most significant byte of all its numbers, then the next; and differences of bytes.
        summed = _summed(lines.reshape(rows, -1, depth)).reshape(rows, bits // 8, -1)
        floats = np.ascontiguousarray(summed.transpose(0, 2, 1)).view(f">f{bits // 8}")
        return floats.reshape(rows, columns, depth).astype(stored)
    block = (
        lines.view(stored.newbyteorder(cast(Literal["<", ">"], layout.found.order)))
        .reshape(rows, columns, depth)
        .astype(stored)
    )
    if predictor == 1:
        return block
    # Differences are of the numbers as integers, even where they are floats.
    whole = np.dtype(f"u{stored.itemsize}")
    return _summed(block.view(whole)).view(stored)


SUMMED_BYTES = 2**18
"""Of the rows that are summed up together: they stay near the processor."""


def _summed(differences: NDArray[Any]) -> NDArray[Any]:
    """The numbers of which these are the differences from the number to the left: (rows, columns, depth), unsigned.

    Sums of two neighbours become sums of four, of eight and so on. These are more sums than one after the other would
    take, but whole rows at a time, which is two to three times as fast as `np.cumsum`.
    """
    rows, columns, depth = differences.shape
    sums = differences.reshape(rows, columns * depth).copy()
    step = max(1, SUMMED_BYTES // max(sums[:1].nbytes, 1))
    for top in range(0, rows, step):
        part, covered = sums[top : top + step], depth
        while covered < part.shape[1]:
            part[:, covered:] += part[:, :-covered]
            covered *= 2
    return sums.reshape(differences.shape)


def _decompressed(body: bytes, layout: Layout, line: int, rows: int, name: str) -> bytes:
    compression = layout.compression
    if compression == _RAW:
        return body[: line * rows]
    if compression in _DEFLATE:
        return _inflated(body, line, layout.found.part_bytes, name)
    return _by_libtiff(body, compression, line, rows)


def _inflated(body: bytes, line: int, whole: int, name: str) -> bytes:
    """A strip or tile, and its checksum compared. Without an end it has whole lines, and none too many.

    Args:
        body: as it is stored.
        line: bytes of a line.
        whole: bytes of a whole strip or tile. The last strip of an image may have as many, or fewer.
        name: what messages call it.
    """
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(body, 2 * whole + 1)
        if not stream.eof:
            stream.decompress(stream.unconsumed_tail, 1)  # to the end of the stream, where the checksum is
    except zlib.error as error:
        raise UnreadableImage(f"damaged TIFF: {name}: {str(error).rpartition(': ')[2]}") from None
    if not stream.eof and (len(plain) > whole or len(plain) % line):
        raise UnreadableImage(f"damaged TIFF: {name} has too many pixels, or too few")
    return plain


def _by_libtiff(body: bytes, compression: int, line: int, rows: int) -> bytes:
    """Undoes a compression that Pillow's libtiff knows: the strip is handed to it as the grey image of its bytes."""
    said = {tiff.WIDTH: line, tiff.HEIGHT: rows, tiff.BITS: 8, tiff.COMPRESSION: compression, tiff.PHOTOMETRIC: 1}
    said |= {tiff.STRIP_OFFSETS: 8, tiff.SAMPLES: 1, tiff.ROWS_PER_STRIP: rows, tiff.STRIP_BYTES: len(body)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in said.items())
    padding = b"\0" * (len(body) % 2)
    start = 8 + len(body) + len(padding)
    whole = struct.pack("<2sHI", b"II", 42, start) + body + padding
    whole += struct.pack("<H", len(said)) + directory + b"\0" * 4
    try:
        with Image.open(io.BytesIO(whole), formats=("TIFF",)) as image:
            return image.tobytes()
    except Exception as error:
        named = _BY_LIBTIFF[compression]
        raise UnreadableImage(f"damaged TIFF, or one whose {named} this Pillow does not undo: {error}") from None
