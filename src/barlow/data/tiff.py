"""TIFF as measurements come in it: any number of bands, more than 8 bits, signs and fractions.

Pillow reads what TIFF shares with photos, and loses the rest: it drops bands, takes signed numbers for unsigned ones,
and has no layout for ten bands. So `read` takes the files that Pillow would not give whole, and leaves it all others.

Read are strips and tiles, bands side by side or apart, TIFF and BigTIFF, integers of 8 to 64 bits (packed ones of 10,
12 and 14 too) and floats of 16 to 64 bits, without compression or with Deflate, LZW, PackBits, LZMA or Zstandard, and
with either predictor. Of several images the first is read.

Source: TIFF 6.0 (Adobe, 1992); its Technical Note 3 for the predictor of floats; GDAL's tag for missing numbers.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from barlow.data.decoded import Header, UnreadableImage, check_bytes, check_size
from barlow.data.stored import Stored, looks_like_alpha

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIPS = 256, 257, 258, 259, 262, 266, 273
_ORIENTATION, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR, _PREDICTOR = 274, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _SAMPLE_FORMAT, _NODATA = 322, 323, 324, 325, 338, 339, 42113
_KNOWN = frozenset(
    (*range(256, 260), 262, 266, 273, 274, *range(277, 280), 284, 317, *range(322, 326), 338, 339, 42113)
)
"""All of these."""

_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 16: "Q"}
"""The types of entries that are read, by their number: bytes, text, and unsigned integers of 16, 32 and 64 bits."""

_RAW, _DEFLATE = 1, (8, 32946)
_BY_LIBTIFF = {5: "LZW", 32773: "PackBits", 34925: "LZMA", 50000: "Zstandard"}
_OTHERS = {2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "JPEG", 7: "JPEG", 34712: "JPEG 2000", 34887: "LERC", 50001: "WebP"}

_COLOURS = {0: 1, 1: 1, 2: 3}
"""Bands of the interpretations that numbers have here: white is zero, black is zero, RGB. Palettes, CMYK and the like
have their colours in 8 bits, and are Pillow's."""

MOST_BANDS = 1_024


@dataclass(frozen=True)
class Layout:
    """What a file's first directory says, in the words of TIFF 6.0.

    Args:
        order: of the bytes, as struct and NumPy write it.
        tags: the numbers of each entry that is known here.
        several: whether another image follows.
    """

    order: Literal["<", ">"]
    tags: dict[int, tuple[Any, ...]]
    several: bool

    def one(self, tag: int, otherwise: int) -> int:
        values = self.tags.get(tag)
        return int(values[0]) if values else otherwise

    @property
    def bands(self) -> int:
        """With alpha."""
        return self.one(_SAMPLES, 1)

    @property
    def bits(self) -> int:
        return self.one(_BITS, 1)

    @property
    def kind(self) -> str:
        """Of the numbers, as NumPy writes it: unsigned, signed or float; an empty text for others, such as complex."""
        return {1: "u", 2: "i", 3: "f", 4: "u"}.get(self.one(_SAMPLE_FORMAT, 1), "")

    @property
    def colours(self) -> int:
        """Bands that the interpretation has; 0 where it is Pillow's."""
        return _COLOURS.get(self.one(_PHOTOMETRIC, 1), 0)

    @property
    def tagged_alpha(self) -> int:
        """1 or 2 where the last band is said to be alpha, premultiplied or not; 0 otherwise."""
        extra = self.tags.get(_EXTRA) or (0,)
        return int(extra[-1]) if self.bands in (2, 4) and extra[-1] in (1, 2) else 0

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width, once the orientation is undone."""
        height, width = self.one(_HEIGHT, 0), self.one(_WIDTH, 0)
        return (width, height) if self.orientation >= 5 else (height, width)

    @property
    def orientation(self) -> int:
        value = self.one(_ORIENTATION, 1)
        return value if 1 <= value <= 8 else 1

    def is_pillows(self) -> bool:
        """Whether Pillow reads the file whole: 8 bits or fewer, and no band beside grey or colour and alpha."""
        if not self.colours or self.bands < self.colours:
            return True
        if self.bits < 8 or (self.bits == 8 and self.kind == "u"):
            extra = self.bands - self.colours
            compressed = self.one(_COMPRESSION, 1) not in (_RAW, *_DEFLATE, *_BY_LIBTIFF)
            return extra == 0 or (extra == 1 and bool(self.tagged_alpha) and compressed)
        return False

    def header(self) -> Header:
        bands = self.bands - bool(self.tagged_alpha)
        deep = self.bits > 8 or self.kind != "u"
        return Header("TIFF", *self.upright_size, bands == 1, self.several, bands, deep, bool(self.tagged_alpha))


def read_layout(file: BinaryIO) -> Layout | None:
    """The first directory; None if this is no TIFF, or one whose directory cannot be read: Pillow then says why."""
    start = file.read(16)
    orders: dict[bytes, Literal["<", ">"]] = {b"II": "<", b"MM": ">"}
    order = orders.get(start[:2])
    if order is None or len(start) < 8:
        return None
    (version,) = struct.unpack_from(f"{order}H", start, 2)
    if version not in (42, 43):
        return None
    big = version == 43
    try:
        (at,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", start, 8 if big else 4)
        return _directory(file, order, big, at)
    except (struct.error, ValueError, OverflowError, OSError):
        return None


def _directory(file: BinaryIO, order: Literal["<", ">"], big: bool, at: int) -> Layout:
    size = file.seek(0, os.SEEK_END)
    file.seek(at)
    (count,) = struct.unpack(f"{order}Q" if big else f"{order}H", file.read(8 if big else 2))
    length = 20 if big else 12
    if count > 10_000:
        raise ValueError
    entries = file.read(count * length)
    following = struct.unpack(f"{order}Q" if big else f"{order}I", file.read(8 if big else 4))[0]
    tags: dict[int, tuple[Any, ...]] = {}
    for entry in range(count):
        tag, kind, number = struct.unpack_from(f"{order}HHQ" if big else f"{order}HHI", entries, entry * length)
        if tag not in _KNOWN or kind not in _TYPES:
            continue
        form = f"{order}{number}{_TYPES[kind]}"
        needed = struct.calcsize(form)
        if needed > size:
            raise ValueError
        field = entry * length + (12 if big else 8)
        if needed <= (8 if big else 4):
            tags[tag] = struct.unpack_from(form, entries, field)
        else:
            file.seek(struct.unpack_from(f"{order}Q" if big else f"{order}I", entries, field)[0])
            tags[tag] = struct.unpack(form, file.read(needed))
    return Layout(order, tags, following != 0)


def read(data: bytes, max_pixels: int) -> tuple[Stored, Header, int] | None:
    """The numbers, the header and the orientation; None for a file that Pillow reads whole.

    Raises:
        UnreadableImage: it is not read, or damaged; the reason says what it is.
    """
    layout = read_layout(io.BytesIO(data))
    if layout is None or layout.is_pillows():
        return None
    _check(layout, max_pixels)
    values = _values(data, layout)
    tagged = layout.tagged_alpha
    alpha = bool(tagged) and looks_like_alpha(values[:, :, -1])
    if alpha and values.dtype == np.uint8:
        return None
    full = 2**layout.bits - 1 if layout.kind == "u" and layout.bits <= 16 else None
    if layout.one(_PHOTOMETRIC, 1) == 0 and layout.kind == "u":  # white is zero
        values[:, :, 0] = (2**layout.bits - 1) - values[:, :, 0]
    header = layout.header()
    if tagged and not alpha:
        height, width = layout.upright_size
        header = Header("TIFF", height, width, False, layout.several, layout.bands, header.deep, False)
    return Stored(values, full, alpha, tagged == 1, _nodata(layout, values)), header, layout.orientation


def _check(layout: Layout, max_pixels: int) -> None:
    """Refuses what is not read, and what is too large, before memory is taken."""
    height, width = layout.one(_HEIGHT, 0), layout.one(_WIDTH, 0)
    check_size(width, height, max_pixels)
    bits, kind, bands = layout.bits, layout.kind, layout.bands
    all_bits = layout.tags.get(_BITS, (1,))
    what = f"a TIFF with {bands} band{'s' if bands > 1 else ''} of {bits} bits"
    if len(set(all_bits)) > 1 or len(set(layout.tags.get(_SAMPLE_FORMAT, (1,)))) > 1:
        raise UnreadableImage(f"a TIFF whose bands differ in depth ({', '.join(map(str, all_bits[:5]))} bits)")
    if not 1 <= bands <= MOST_BANDS:
        raise UnreadableImage(f"a TIFF with {bands} bands: at most {MOST_BANDS} are read")
    allowed = {"u": (8, 10, 12, 14, 16, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}.get(kind, ())
    if bits not in allowed:
        named = {"u": "unsigned", "i": "signed", "f": "float"}.get(kind, "complex")
        raise UnreadableImage(f"{what} ({named}), which is not read")
    compression = layout.one(_COMPRESSION, 1)
    if compression not in (_RAW, *_DEFLATE, *_BY_LIBTIFF):
        named = _OTHERS.get(compression, f"method {compression}")
        raise UnreadableImage(f"{what}, compressed by {named}: save it without compression, or with Deflate or LZW")
    if layout.one(_FILL_ORDER, 1) != 1 or layout.one(_PREDICTOR, 1) not in (1, 2, 3):
        raise UnreadableImage(f"{what}, in an order of bits or by a predictor that is not read: save it without")
    check_bytes(height, width, bands, max(1, (bits + 7) // 8), max_pixels)


def _nodata(layout: Layout, values: NDArray[Any]) -> float | None:
    text = layout.tags.get(_NODATA)
    try:
        # As the type of the numbers has it: the text -3.4e38 stands for the float32 that is nearest.
        return float(values.dtype.type(float(text[0].split(b"\0")[0]))) if text else None
    except (ValueError, OverflowError):
        return None


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
    height, width, bits = layout.one(_HEIGHT, 0), layout.one(_WIDTH, 0), layout.bits
    stored = np.dtype(f"{layout.kind}{(bits + 7) // 8}")
    out = np.full((height, width, layout.bands), 0, stored)
    for segment in _segments(layout, len(data)):
        if segment.count == 0:  # GDAL leaves out what was never written
            continue
        rows, columns, _ = segment.shape
        high, wide = min(rows, height - segment.top), min(columns, width - segment.left)
        block = _numbers(data[segment.at : segment.at + segment.count], layout, segment.shape, high, stored)
        bands = slice(segment.band, segment.band + segment.shape[2])
        out[segment.top : segment.top + high, segment.left : segment.left + wide, bands] = block[:high, :wide]
    return out


def _segments(layout: Layout, size: int) -> Iterator[_Segment]:
    height, width, bands = layout.one(_HEIGHT, 0), layout.one(_WIDTH, 0), layout.bands
    tiled = _TILES in layout.tags
    apart = layout.one(_PLANAR, 1) == 2 and bands > 1
    if tiled:
        rows, columns = layout.one(_TILE_HEIGHT, 0), layout.one(_TILE_WIDTH, 0)
        if not (0 < rows <= 2 * height + 4_096 and 0 < columns <= 2 * width + 4_096):
            raise UnreadableImage(f"damaged TIFF: tiles of {columns}×{rows} pixels")
    else:
        rows, columns = min(max(1, layout.one(_ROWS_PER_STRIP, height)), height), width
    places = [(top, left) for top in range(0, height, rows) for left in range(0, width, columns)]
    depth = 1 if apart else bands
    offsets = layout.tags.get(_TILES if tiled else _STRIPS, ())
    counts = layout.tags.get(_TILE_BYTES if tiled else _STRIP_BYTES, ())
    if not counts and layout.one(_COMPRESSION, 1) == _RAW:
        counts = (-(-columns * depth * layout.bits // 8) * rows,) * len(offsets)
    expected = len(places) * (bands if apart else 1)
    if len(offsets) < expected or len(counts) < expected:
        raise UnreadableImage(f"damaged TIFF: {len(offsets)} strips or tiles of {expected}")
    for number in range(expected):
        (top, left), at = places[number % len(places)], int(offsets[number])
        rows_here = rows if tiled else min(rows, height - top)
        if at + 1 > size:
            raise UnreadableImage("damaged TIFF: its end is missing")
        yield _Segment(at, int(counts[number]), (rows_here, columns, depth), top, left, number // len(places))


def _numbers(
    body: bytes, layout: Layout, shape: tuple[int, int, int], needed: int, stored: np.dtype[Any]
) -> NDArray[Any]:
    """The numbers of a strip or a tile, of which the first rows are needed."""
    rows, columns, depth = shape
    bits, predictor = layout.bits, layout.one(_PREDICTOR, 1)
    line = -(-columns * depth * bits // 8)
    plain = _decompressed(body, layout.one(_COMPRESSION, 1), line, rows)
    if len(plain) < line * needed:
        raise UnreadableImage(f"damaged TIFF: a strip or tile of {len(plain):,} bytes, where {line * needed:,} belong")
    rows = min(rows, len(plain) // line)
    lines = np.frombuffer(plain, np.uint8, rows * line).reshape(rows, line)
    if bits % 8:
        each = np.unpackbits(lines, axis=1)[:, : columns * depth * bits].reshape(rows, columns, depth, bits)
        weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)
        return each.astype(np.uint16) @ weights
    if predictor == 3:
        # Each line has first the most significant byte of all its numbers, then the next; and differences of bytes.
        summed = np.cumsum(lines.reshape(rows, -1, depth), axis=1, dtype=np.uint8).reshape(rows, bits // 8, -1)
        floats = np.ascontiguousarray(summed.transpose(0, 2, 1)).view(f">f{bits // 8}")
        return floats.reshape(rows, columns, depth).astype(stored)
    block = lines.view(stored.newbyteorder(layout.order)).reshape(rows, columns, depth).astype(stored)
    if predictor == 1:
        return block
    # Differences are of the numbers as integers, even where they are floats.
    whole = np.dtype(f"u{stored.itemsize}")
    return np.cumsum(block.view(whole), axis=1, dtype=whole).view(stored)


def _decompressed(body: bytes, compression: int, line: int, rows: int) -> bytes:
    most = line * rows
    if compression == _RAW:
        return body[:most]
    if compression in _DEFLATE:
        try:
            stream = zlib.decompressobj()
            plain = stream.decompress(body, most)
            stream.decompress(stream.unconsumed_tail, 1)  # to the end of the stream, where its checksum is compared
        except zlib.error as error:
            raise UnreadableImage(f"damaged TIFF: {error}") from None
        return plain
    return _by_libtiff(body, compression, line, rows)


def _by_libtiff(body: bytes, compression: int, line: int, rows: int) -> bytes:
    """Undoes a compression that Pillow's libtiff knows: the strip is handed to it as the grey image of its bytes."""
    said = {_WIDTH: line, _HEIGHT: rows, _BITS: 8, _COMPRESSION: compression, _PHOTOMETRIC: 1, _STRIPS: 8}
    said |= {_SAMPLES: 1, _ROWS_PER_STRIP: rows, _STRIP_BYTES: len(body)}
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
