"""Pillow decodes PNG, WebP, BMP, GIF, TIFF, and the JPEGs that libjpeg-turbo leaves to it."""

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import (  # with its plugin, a format is made known to Image.open
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from barlow.data import arrays, tiff
from barlow.data.decoded import Array, Header, OtherBands, UnreadableImage, check_size, upright
from barlow.data.stored import BACKGROUND, Stored, ValueRange, looks_like_alpha, pixels_of, widened, with_channels

_PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    TiffImagePlugin.TiffImageFile,
)
FORMATS = tuple(plugin.format for plugin in _PLUGINS)
"""The formats that are opened, by Pillow's names. "JPEG" includes MPO: a JPEG with further ones behind it."""

# Formats that are refused by their name, so that the list of skipped files says more than "not an image". Each is
# recognised by the bytes at an offset.
_REFUSED = (
    (0, b"8BPS", "PSD"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"SIMPLE", "FITS"),
    (0, b"icns", "ICNS"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"\x00\x00\x02\x00", "CUR or TGA"),
    (0, b"P1", "PPM"),
    (0, b"P2", "PPM"),
    (0, b"P3", "PPM"),
    (0, b"P4", "PPM"),
    (0, b"P5", "PPM"),
    (0, b"P6", "PPM"),
    (0, b"Pf", "PFM"),
    (0, b"PF", "PFM"),
    (0, b"\x01\xda", "SGI"),
    (0, b"gimp xcf", "XCF"),
    (0, b"<svg", "SVG"),
)

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


def read_header(file: BinaryIO, max_pixels: int) -> Header:
    """What the file says about its image."""
    start = file.read(8)
    file.seek(0)
    if arrays.is_array(start):
        return arrays.read_header(file, max_pixels)
    layout = tiff.read_layout(file)
    if layout is not None and not layout.is_pillows():
        check_size(*layout.upright_size[::-1], max_pixels)
        return layout.header()
    file.seek(0)
    with _open(file, max_pixels) as image:
        return _header(image)


def decode_any(
    data: bytes, channels: int, max_pixels: int, value_range: ValueRange | None = None
) -> tuple[Array, Header]:
    """The pixels and the header of an image of any of the formats, by the convention of `decoding.py`."""
    found = _as_stored(data, max_pixels)
    if found is not None:
        stored, header, orientation = found
        return upright(pixels_of(stored, channels, value_range), orientation), header
    # The header gets a file of its own, because counting the frames leaves the file elsewhere than at the first one.
    header = read_header(io.BytesIO(data), max_pixels)
    with _open(io.BytesIO(data), max_pixels) as image:
        image.load()
        check_size(image.width, image.height, max_pixels)
        stored_here = _deep(image)
        if stored_here is not None:
            pixels = pixels_of(stored_here, channels, value_range)
        else:
            pixels = _to_uint8(image, channels)
            pixels = pixels if value_range is None else widened(pixels)
        return upright(pixels, _orientation_left(image)), header


def stored_values(data: bytes, max_pixels: int) -> Stored | None:
    """The numbers of an image as its file stores them; None where they are 8 bits of grey, colour and alpha."""
    found = _as_stored(data, max_pixels)
    if found is not None:
        return found[0]
    with _open(io.BytesIO(data), max_pixels) as image:
        if image.mode[0] not in "IF":
            return None
        image.load()
        return _deep(image)


def _as_stored(data: bytes, max_pixels: int) -> tuple[Stored, Header, int] | None:
    """What is read without Pillow: the numbers, the header, the EXIF orientation."""
    if arrays.is_array(data[:8]):
        return (*arrays.read(data, max_pixels), 1)
    return tiff.read(data, max_pixels)


def _deep(image: Image.Image) -> Stored | None:
    """The numbers of a layout of Pillow's with more than 8 bits."""
    if image.mode.startswith("I;16"):
        return Stored(np.asarray(image).astype(np.uint16)[:, :, None], 65_535)
    if image.mode in ("I", "F"):
        return Stored(np.asarray(image)[:, :, None], None)
    return None


def _header(image: Image.Image) -> Header:
    grey = image.mode in ("1", "L", "LA") or image.mode[0] in "IF"
    sides = (image.height, image.width) if _orientation_left(image) < 5 else (image.width, image.height)
    alpha = _has_alpha(image)
    more = _has_more_frames(image)
    return Header(str(image.format), *sides, grey, more, 1 if grey else 3, image.mode[0] in "IF", alpha)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info


@contextmanager
def _open(file: BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    start = file.read(64)
    file.seek(0)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        check_size(*_webp_size(start), max_pixels)  # before Image.open, which allocates the canvas of a WebP at once
    with _quiet:
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            for offset, magic, name in _REFUSED:
                if start[offset : offset + len(magic)] == magic:
                    raise UnreadableImage(f"{name} is not one of the formats read ({', '.join(FORMATS)})") from None
            raise UnreadableImage(f"not an image, or a damaged header (formats read: {', '.join(FORMATS)})") from None
        with image:
            check_size(image.width, image.height, max_pixels)
            yield image


def _has_more_frames(image: Image.Image) -> bool:
    # Counting the frames reads them all. So a file with damage behind its first frame is refused like any other.
    return bool(getattr(image, "is_animated", False)) and image.n_frames > 1  # type: ignore[attr-defined]


def _orientation_left(image: Image.Image) -> int:
    """The EXIF orientation that is still to be undone: none for TIFF, which Pillow turns upright itself."""
    if image.format == "TIFF":
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken EXIF block loses the orientation, not the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


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


def _to_uint8(image: Image.Image, channels: int) -> Array:
    """Applies the convention of `decoding.py`, according to Pillow's name for the layout of the pixels."""
    mode = image.mode
    if channels not in (1, 3):
        if {"RGBA": 4, "LA": 2}.get(mode) == channels:  # alpha was asked for, as a band like the others
            return np.array(image)
        raise OtherBands(1 if mode in ("1", "L", "LA") else 3, channels)
    if image.format == "TIFF" and mode == "RGBA" and not looks_like_alpha(np.asarray(image.getchannel("A"))):
        raise OtherBands(4, channels)  # of JPEG's compression, which only Pillow undoes
    if mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        flat = Image.new("RGB", image.size, (BACKGROUND,) * 3)
        flat.paste(image, mask=image.getchannel("A"))
        image = flat
    elif mode == "LAB":
        converted = ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        assert converted is not None  # only in-place conversion returns nothing
        image = converted
    elif mode not in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"):
        raise UnreadableImage(f"pixel layout {mode} is not one that is converted")
    goal = "RGB" if channels == 3 else "L"
    if image.mode in ("P", "CMYK", "HSV") and goal == "L":
        image = image.convert("RGB")
    pixels = np.array(image.convert(goal))
    return with_channels(pixels if pixels.ndim == 3 else pixels[:, :, None], channels)
