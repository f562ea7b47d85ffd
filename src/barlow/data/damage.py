"""Damage that a file gives away by a checksum, or by the warnings of a decoder that Pillow does not pass on.

Pillow decodes until it has all the pixels that it wants. It reads no checksum of the pixels of a PNG, and what comes
out of a damaged strip of a TIFF is as good to it as anything. A download into a file that had its full length from the
start, say, leaves zeros at the end, and they pass.

============================  =========================================================================================
PNG                           the CRC of each chunk that matters for the pixels, and the end chunk
TIFF, deflate                 the Adler-32 of each strip or tile
TIFF, JPEG                    the warnings of libjpeg for each strip or tile
JPEG                          libjpeg's warnings: `jpeg.py`
GIF, TIFF with LZW            only what their decoders notice: no checksum
BMP, TIFF without compression  nothing: any bytes are pixels
WebP                          nothing but a missing end: no checksum
============================  =========================================================================================
"""

import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from barlow.data import jpeg, tiff
from barlow.data.decoded import UnreadableImage

Pixels = Callable[[], NDArray[np.uint8] | None]

_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
"""Chunks on which the pixels of a PNG's first frame depend."""

_DEFLATE = frozenset({8, 32946})
_JPEG = 7


def check_png(data: bytes) -> None:
    """Refuses a PNG with a chunk whose bytes are not those that were written, or without its end.

    Raises:
        UnreadableImage: with the name of the chunk and where it is.
    """
    view, at = memoryview(data), 8
    while True:
        if at + 12 > len(data):
            raise UnreadableImage("damaged PNG: it has no end (IEND), so a part is missing")
        (length,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            raise UnreadableImage(f"damaged PNG: a chunk at byte {at:,} goes on beyond the end of the file")
        if kind in _PNG_CHUNKS and zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise UnreadableImage(f"damaged PNG: the checksum of {kind.decode()} at byte {at:,} is wrong")
        if kind == b"IEND":
            return
        at = end


def png_chunk(file: BinaryIO, kind: bytes) -> bytes | None:
    """The content of the first chunk of a kind in a PNG, wherever it is; None if there is none."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[:4], "big")
        if head[4:] == kind:
            return file.read(length)
        file.seek(length + 4, io.SEEK_CUR)
    return None


def check_tiff(data: bytes, found: tiff.Directory, pixels: Pixels) -> None:
    """Refuses a TIFF with a strip or tile that is not what was written, where its compression can tell.

    Args:
        data: the file.
        found: its first directory.
        pixels: gives the image, (height, width, samples) as it is stored, if it has eight bits a sample in one plane,
            or else None. The checksum of pixels that are there takes a tenth of the time of inflating them again.

    Raises:
        UnreadableImage: with the number of the strip or tile.
    """
    compression = found.get(tiff.COMPRESSION, 1)
    if compression in _DEFLATE:
        _check_deflate(data, found, pixels)
    elif compression == _JPEG:
        _check_jpeg(data, found)


def _check_deflate(data: bytes, found: tiff.Directory, pixels: Pixels) -> None:
    image = pixels()
    sums = iter(()) if image is None else _checksums(found, image)
    for number, (offset, length) in enumerate(found.parts):
        stored = data[offset : offset + length]
        if stored[-4:] == struct.pack(">I", next(sums, -1) & 0xFFFFFFFF):
            continue
        # There is padding behind the stream, or a tile goes beyond the edge of the image, or it is damaged.
        try:
            whole = _inflates(stored, found)
        except zlib.error as error:
            reason = str(error).rpartition(": ")[2]  # zlib says first that it was decompressing
            raise UnreadableImage(f"damaged TIFF: {_part(found)} {number}: {reason}") from None
        if not whole:
            raise UnreadableImage(f"damaged TIFF: {_part(found)} {number} has too many pixels, or too few")


def _inflates(stored: bytes, found: tiff.Directory) -> bool:
    """Whether a strip or tile ends as its stream says, or, if the end is missing, as whole rows of pixels do."""
    stream, most, count = zlib.decompressobj(), 2 * found.part_bytes + 1, 0
    while not stream.eof and count < most and (out := stream.decompress(stored, min(most - count, 1 << 20))):
        count, stored = count + len(out), stream.unconsumed_tail
    if not stream.eof and count < most:
        stream.decompress(stored, 1)  # what is left is the end, where the checksum is
    row = max(found.part_bytes // max(found.part_shape[0], 1), 1)
    return stream.eof or (count <= found.part_bytes and count % row == 0)


def _checksums(found: tiff.Directory, pixels: NDArray[np.uint8]) -> Iterator[int]:
    """Of each strip, as it was before it was compressed."""
    if tiff.TILE_OFFSETS in found.values or (predictor := found.get(tiff.PREDICTOR, 1)) not in (1, 2):
        return
    rows = max(found.part_shape[0], 1)
    for top in range(0, len(pixels), rows):
        strip = pixels[top : top + rows]
        if predictor == 2:  # each sample was stored as its difference from the one to its left
            differences = strip.copy()
            differences[:, 1:] -= strip[:, :-1]
            strip = differences
        yield zlib.adler32(np.ascontiguousarray(strip).data)


def _check_jpeg(data: bytes, found: tiff.Directory) -> None:
    tables = bytes(found.values.get(tiff.JPEG_TABLES, ()))
    for number, (offset, length) in enumerate(found.parts):
        stored = data[offset : offset + length]
        whole = (tables[:-2] + stored[2:] if tables else stored) + b"\xff\xd9"  # an end marker is often left out
        try:
            jpeg.check_within(whole, math.prod(found.part_shape))
        except ValueError as error:
            if str(error).startswith(jpeg.DAMAGED):
                reason = str(error).removeprefix("Corrupt JPEG data: ")
                raise UnreadableImage(f"damaged TIFF: {_part(found)} {number}: {reason}") from None


def _part(found: tiff.Directory) -> str:
    return "tile" if tiff.TILE_OFFSETS in found.values else "strip"
