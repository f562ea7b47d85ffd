"""The first directory of a TIFF, read without decoding: its tags, and where its strips or tiles lie."""

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

from barlow.data.decoded import UnreadableImage
from barlow.limits import TIFF_PARTS, TIFF_TAGS, TIFF_TIMES, TIFF_VALUES

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, ORIENTATION = 256, 257, 258, 259, 262, 273, 274
SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, PREDICTOR = 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SAMPLE_FORMAT, JPEG_TABLES = 322, 323, 324, 325, 339, 347
FILL_ORDER, EXTRA_SAMPLES, NODATA = 266, 338, 42113  # the last is GDAL's

_FORMATS = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 16: "Q", 17: "q"}
"""Types of values that are integers, as `struct` calls them; of a text, its bytes."""

_TEXT = 2

_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Of a value of each type."""

_USED = frozenset(
    {WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES}
    | {PLANAR, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SAMPLE_FORMAT, JPEG_TABLES}
    | {FILL_ORDER, EXTRA_SAMPLES, NODATA}
)
"""Tags whose values are read."""

_SLACK = 1 << 20
"""Bytes that tags or strips may have over `TIFF_TIMES` a file's length, so that no odd small file is refused."""


@dataclass(frozen=True)
class Directory:
    """The integers of a directory by tag, and where in the file the value of each tag begins."""

    order: str
    """Of the bytes, as `struct` calls it: "<" or ">"."""
    values: dict[int, tuple[int, ...]]
    places: dict[int, int]
    several: bool
    """Whether another image follows."""

    def get(self, tag: int, otherwise: int) -> int:
        """The first value of a tag."""
        found = self.values.get(tag)
        return found[0] if found else otherwise

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Offset and length of each strip or tile, as they are stored."""
        tiled = TILE_OFFSETS in self.values
        offsets, lengths = (TILE_OFFSETS, TILE_BYTES) if tiled else (STRIP_OFFSETS, STRIP_BYTES)
        return list(zip(self.values.get(offsets, ()), self.values.get(lengths, ()), strict=False))

    @property
    def part_shape(self) -> tuple[int, int]:
        """Rows and columns of a strip or tile; the last strips and tiles of an image may be cut off at its edge."""
        if TILE_OFFSETS in self.values:
            return self.get(TILE_HEIGHT, 0), self.get(TILE_WIDTH, 0)
        height = self.get(HEIGHT, 0)
        return min(self.get(ROWS_PER_STRIP, height), height), self.get(WIDTH, 0)

    @property
    def part_bytes(self) -> int:
        """Of a whole strip or tile, when it is not compressed."""
        rows, columns = self.part_shape
        samples = 1 if self.get(PLANAR, 1) == 2 else self.get(SAMPLES, 1)
        return rows * ((columns * samples * self.get(BITS, 1) + 7) // 8)


def directory(data: bytes) -> Directory | None:
    """The first directory of a TIFF or BigTIFF; None if the bytes are neither, or the directory is broken.

    Raises:
        UnreadableImage: it has more tags, strips or tiles than are read, or they overlap many times.
    """
    return read_directory(io.BytesIO(data))


def read_directory(file: BinaryIO) -> Directory | None:
    """The same of a file, of which little else is read. Its place changes."""
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None:
        return None
    try:
        (version,) = struct.unpack_from(order + "H", start, 2)
        if version in (42, 42 << 8):
            (at,) = struct.unpack_from(order + "I", start, 4)
            found = _entries(file, order, at, count="H", head="HHI", field=4, offset="I")
            return found if version == 42 else None  # the other, whose bytes are in the wrong order, is Pillow's
        if version == 43:
            (at,) = struct.unpack_from(order + "Q", start, 8)
            return _entries(file, order, at, count="Q", head="HHQ", field=8, offset="Q")
    except UnreadableImage:
        raise
    except (struct.error, OSError, OverflowError, ValueError):
        pass
    return None


def _entries(file: BinaryIO, order: str, at: int, *, count: str, head: str, field: int, offset: str) -> Directory:
    def read(at: int, form: str) -> tuple[int, ...]:
        file.seek(at)
        return struct.unpack(order + form, file.read(struct.calcsize(order + form)))

    (entries,) = read(at, count)
    at += struct.calcsize(order + count)
    step = struct.calcsize(order + head) + field
    block = file.read(min(entries, TIFF_TAGS + 1) * step)
    following = file.read(struct.calcsize(order + offset))
    size = file.seek(0, io.SEEK_END)
    heads = list(struct.iter_unpack(order + head + f"{field}x", block[: len(block) // step * step]))
    if len(heads) > TIFF_TAGS:
        raise UnreadableImage(f"a TIFF with {entries:,} tags: at most {TIFF_TAGS:,} are read")
    _check_heads(heads, field, size)  # even of a directory that is cut off, as Pillow may read what there is of it
    if len(heads) < entries:
        raise ValueError("the directory is cut off")
    values, places, left = {}, {}, TIFF_VALUES
    for entry, (tag, kind, many) in enumerate(heads):
        if tag not in _USED or kind not in _FORMATS or many > left or (kind == _TEXT and tag != NODATA):
            continue
        left -= many
        place = (entry + 1) * step - field
        packed = f"{many}{_FORMATS[kind]}"
        if struct.calcsize(order + packed) <= field:
            values[tag], places[tag] = struct.unpack_from(order + packed, block, place), at + place
        else:
            (there,) = struct.unpack_from(order + offset, block, place)
            values[tag], places[tag] = read(there, packed), there
    found = Directory(order, values, places, any(following))
    _check_parts(found.parts, size)
    return found


def _check_heads(heads: list[tuple[int, int, int]], field: int, size: int) -> None:
    """Refuses a directory that lists too much. Whoever reads all of its tags takes their sum of memory.

    Args:
        heads: tag, type and number of values of each entry.
        field: how many bytes of values an entry itself holds.
        size: of the file.
    """
    for tag, _, many in heads:
        if tag in (STRIP_OFFSETS, TILE_OFFSETS) and many > TIFF_PARTS:
            raise UnreadableImage(
                f"a TIFF of {many:,} strips or tiles: at most {TIFF_PARTS:,} are read; save it with larger ones"
            )
    lengths = (many * _BYTES.get(kind, 0) for _, kind, many in heads)
    claimed = sum(min(length, size) for length in lengths if length > field)  # nobody can read more than there is
    if claimed > TIFF_TIMES * size + _SLACK:
        raise UnreadableImage(
            f"a TIFF whose tags claim {claimed:,} bytes of its {size:,}: they overlap; save it by another program"
        )


def _check_parts(parts: list[tuple[int, int]], size: int) -> None:
    """Refuses strips or tiles that overlap so often that reading them takes many times the file."""
    claimed = sum(max(0, min(length, size - at, size)) for at, length in parts)
    if claimed > TIFF_TIMES * size + _SLACK:
        raise UnreadableImage(
            f"a TIFF whose strips or tiles claim {claimed:,} bytes of its {size:,}: they overlap; "
            "save it by another program"
        )
