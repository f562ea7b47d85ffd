"""Pillow opens a file, if it is of one of the formats that are read, and says nothing on the screen about it."""

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import (  # with its plugin, a format is made known to Image.open
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from barlow.data import foreign
from barlow.data.decoded import UnreadableImage, check_size
from barlow.limits import GIF_BLOCK_BYTES, GIF_BLOCKS, PNG_CHUNKS

_PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    TiffImagePlugin.TiffImageFile,
)
FORMATS = tuple(plugin.format for plugin in _PLUGINS)
"""The formats that Pillow opens, by its names. "JPEG" includes MPO: a JPEG with further ones behind it."""

PNG = b"\x89PNG\r\n\x1a\n"
_CHUNK_BYTES = 12
"""Of a chunk without content: its length, kind and checksum."""

_EXTENSION, _IMAGE, _END = b"!,;"
"""What parts of a GIF begin with."""

_READ = (*FORMATS, "NPY", "NPZ")

# Without a handler, Python prints Pillow's remarks on odd files to the user's terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class _Quiet:
    """Silences Pillow's warnings as long as any thread decodes. What they are about is refused or handled here anyway.

    `warnings.catch_warnings` alone is not safe when threads overlap: one may restore the filters that another has set.
    So the first thread to enter sets the filters, and the last one to leave restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.__exit__(None, None, None)


_quiet = _Quiet()


@contextmanager
def opened(file: BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    """The image of a file, whose pixels are not decoded yet."""
    start = file.read(foreign.START)
    file.seek(0)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        check_size(*_webp_size(start), max_pixels)  # before Image.open, which allocates the canvas of a WebP at once
    if start.startswith(PNG):
        _check_chunks(file)
    if start.startswith((b"GIF87a", b"GIF89a")):
        _check_blocks(file)
    with _quiet:
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise UnreadableImage(foreign.called(start, _READ)) from None
        with image:
            _forget_xmp(image)
            check_size(image.width, image.height, max_pixels)
            yield image


def _check_chunks(file: BinaryIO) -> None:
    """Refuses a PNG of very many chunks, each of which takes Pillow, and the checks here, some microseconds."""
    size = file.seek(0, io.SEEK_END)
    if size > PNG_CHUNKS * _CHUNK_BYTES:  # a shorter file has no room for them
        at, count = len(PNG), 0
        while at < size:
            file.seek(at)
            at, count = at + int.from_bytes(file.read(4), "big") + _CHUNK_BYTES, count + 1
            if count > PNG_CHUNKS:
                raise UnreadableImage(f"a PNG of more than {PNG_CHUNKS:,} chunks: save it again, with larger ones")
    file.seek(0)


def _check_blocks(file: BinaryIO) -> None:
    """Refuses a GIF of very many blocks, each of which takes Pillow a microsecond or more.

    Pillow goes from block to block up to the second image, to learn whether there is one. So this does, too.
    """
    size = file.seek(0, io.SEEK_END)
    if size > 2 * GIF_BLOCKS:  # a block takes two bytes or more
        file.seek(0)
        data = file.read() + bytes([_END] * 16)  # so that one that is cut short ends, wherever that is
        most = GIF_BLOCKS + size // GIF_BLOCK_BYTES
        at, images, count = 13 + _palette_bytes(data[10]), 0, 0
        while at < size and images < 2 and (kind := data[at]) != _END:
            at, count = at + 1, count + 1
            if kind == _EXTENSION:
                at += 1
            elif kind == _IMAGE:
                images += 1
                at += 10 + _palette_bytes(data[at + 8])
            if kind in (_EXTENSION, _IMAGE):  # Pillow passes over a byte that begins nothing
                while at < size and count <= most and (length := data[at]):
                    at, count = at + length + 1, count + 1
                at += 1
            if count > most:
                raise UnreadableImage(f"a GIF of more than {most:,} blocks: save it again, with larger ones")
    file.seek(0)


def _palette_bytes(flags: int) -> int:
    """Of the colours that a screen or an image of a GIF brings, by the last byte of its description."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _forget_xmp(image: Image.Image) -> None:
    """Where EXIF has no orientation, Pillow takes that of XMP. It is not applied to JPEGs here, nor by browsers."""
    for name in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(name, None)


def _webp_size(start: bytes) -> tuple[int, int]:
    """Width and height from the first chunk of a WebP file (RFC 9649)."""
    kind, body = start[12:16], start[20:]
    if len(start) < 30:
        raise UnreadableImage("damaged WebP: the file ends in its header")
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    bits = int.from_bytes(body[1:5], "little") if kind == b"VP8L" else int.from_bytes(body[6:10], "little")
    if kind == b"VP8L":
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return bits & 0x3FFF, bits >> 16 & 0x3FFF
