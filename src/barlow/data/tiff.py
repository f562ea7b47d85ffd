"""The first directory of a TIFF, read without decoding: its tags, and where its strips or tiles lie."""

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, ORIENTATION = 256, 257, 258, 259, 262, 273, 274
SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, PREDICTOR = 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SAMPLE_FORMAT, JPEG_TABLES = 322, 323, 324, 325, 339, 347
FILL_ORDER, EXTRA_SAMPLES, NODATA = 266, 338, 42113  # the last is GDAL's

_FORMATS = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 16: "Q", 17: "q"}
"""Types of values that are integers, as `struct` calls them; of a text, its bytes."""

_TEXT = 2

MOST_VALUES = 1 << 20
"""Of one tag: a file of a few bytes may claim any number."""


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
    """The first directory of a TIFF or BigTIFF; None if the bytes are neither, or the directory is broken."""
    return read_directory(io.BytesIO(data))


def read_directory(file: BinaryIO) -> Directory | None:
    """The same of a file, of which little else is read. Its place changes."""
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None:
        return None
    try:
        (version,) = struct.unpack_from(order + "H", start, 2)
        if version == 42:
            (at,) = struct.unpack_from(order + "I", start, 4)
            return _entries(file, order, at, count="H", head="HHI", field=4, offset="I")
        if version == 43:
            (at,) = struct.unpack_from(order + "Q", start, 8)
            return _entries(file, order, at, count="Q", head="HHQ", field=8, offset="Q")
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
    block = file.read(min(entries, 4096) * step)
    values, places = {}, {}
    for entry in range(min(entries, 4096)):
        tag, kind, many = struct.unpack_from(order + head, block, entry * step)
        if kind not in _FORMATS or many > MOST_VALUES or (kind == _TEXT and tag != NODATA):
            continue
        place = (entry + 1) * step - field
        packed = f"{many}{_FORMATS[kind]}"
        if struct.calcsize(order + packed) <= field:
            values[tag], places[tag] = struct.unpack_from(order + packed, block, place), at + place
        else:
            (there,) = struct.unpack_from(order + offset, block, place)
            values[tag], places[tag] = read(there, packed), there
    file.seek(at + entries * step)
    following = file.read(struct.calcsize(order + offset))
    return Directory(order, values, places, any(following))
