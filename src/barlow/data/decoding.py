"""The one decoder: bytes in, (h, w, c) uint8 out, or `UnreadableImage` with a reason.

The format is found from the content, never from the name, and only JPEG (with MPO), PNG, WebP, BMP, GIF and TIFF are
opened: most vulnerabilities of image libraries sit in the other formats, and EPS starts another program.

Convention: how pixels become 8-bit RGB or grey, the same in training, evaluation and wherever features are computed.

=========================  ===========================================================================================
first frame                of animations, multi-page TIFFs and MPO files; the header reports that there were more
orientation                EXIF orientation is applied; a broken EXIF block is ignored, the pixels are not lost for it
grey (1, L)                repeated to three channels; from colour to one channel: ITU-R 601 luma
CMYK, YCCK, YCbCr, HSV     Pillow's device formulas (no colour management); embedded ICC profiles are not applied
Lab                        through LittleCMS to sRGB
palette                    its colours
alpha, transparent colour  composited over mid-grey (128): over white a white logo on transparency would vanish, over
                           black a dark drawing would; grey erases neither, and is near the mean subtracted later
16-bit integer             scaled by bit depth, round(v · 255 / 65535); colour images by their high byte (so reads
                           Pillow). Twelve-bit data in sixteen bits stays dark, but no value is lost to clipping
32-bit integer, float,     the smallest finite value of the image becomes 0, the largest 255 (their units are unknown);
signed 16-bit              not-a-number and −∞ become 0, +∞ becomes 255; a constant image becomes 0
more bands than that       one unnamed band is dropped (as Pillow does); a file with more of them is refused
=========================  ===========================================================================================

A damaged file is refused, never completed with grey: JPEG goes through libjpeg-turbo with its warnings as errors.
"""

import io
import logging
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (  # Image.open knows a format of FORMATS once its plugin is imported
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

Array = NDArray[np.uint8]

_PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    TiffImagePlugin.TiffImageFile,
)
FORMATS = tuple(plugin.format for plugin in _PLUGINS)
"""What is opened, by Pillow's names; "JPEG" covers MPO, a JPEG with further ones behind it."""
MAX_PIXELS = 64_000_000
"""Default pixel limit: a 64-megapixel camera's photo, 192 MB of RGB in one worker."""
BACKGROUND = 128
"""What transparent pixels are composited over (see the module's convention)."""

# Formats we refuse by name, so that the list of skipped files says more than "not an image".
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

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its remarks on odd files land on the user's terminal


class UnreadableImage(ValueError):
    """A file (or part of one) that cannot become pixels; `reason` is one line for the list of skipped files."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:  # crosses process boundaries
        return type(self), (self.reason,)


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its pixels are decoded; height and width are those of the upright image."""

    format: str
    height: int
    width: int
    grey: bool
    multiframe: bool


def decode(data: bytes, *, channels: int = 3, max_pixels: int = MAX_PIXELS, min_side: int = 0) -> Array:
    """Pixels of one image.

    Args:
        data: the file's bytes.
        channels: 3 for RGB, 1 for grey.
        max_pixels: images of more pixels are refused from their header (Pillow's own limit, 178,956,970, remains).
        min_side: if positive, a JPEG may be decoded at an eighth to seven eighths of its size, as long as its shorter
            side stays at least this long: much faster for photos that will be cropped and shrunk anyway.

    Raises:
        UnreadableImage: whatever is wrong with the data, with the reason.
    """
    return decode_with_header(data, channels=channels, max_pixels=max_pixels, min_side=min_side)[0]


def decode_with_header(
    data: bytes, *, channels: int = 3, max_pixels: int = MAX_PIXELS, min_side: int = 0
) -> tuple[Array, Header]:
    """As `decode`, together with what the header said."""
    if channels not in (1, 3):
        raise ValueError(f"channels={channels}: images are decoded to 3 channels (RGB) or 1 (grey)")
    with _refusing():
        if not data:
            raise UnreadableImage("empty file (0 bytes)")
        jpeg = _jpeg_header(data)
        if jpeg is not None:
            _check_size(jpeg.width, jpeg.height, max_pixels)
            pixels = _decode_jpeg(data, jpeg, channels, min_side)
            if pixels is not None:
                multiframe = jpeg.several and _pillow_header(io.BytesIO(data), max_pixels).multiframe
                return _upright(pixels, jpeg.orientation), jpeg.describe("MPO" if multiframe else "JPEG", multiframe)
        return _decode_pillow(data, channels, max_pixels)


def read_header(file: BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Header:
    """What the file says of itself, reading no more than the header; the checks of `decode` that need no pixels."""
    with _refusing():
        start = file.read(65_536)  # nearly every JPEG has its frame header in here
        if not start:
            raise UnreadableImage("empty file (0 bytes)")
        jpeg = _jpeg_header(start)
        if jpeg is not None and not jpeg.several:
            _check_size(jpeg.width, jpeg.height, max_pixels)
            return jpeg.describe("JPEG", False)
        file.seek(0)
        return _pillow_header(file, max_pixels)


# --- JPEG ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _JpegHeader:
    height: int
    width: int
    components: int
    orientation: int
    several: bool  # claims to hold more than one picture (CIPA DC-007 multi-picture format)

    def describe(self, form: str, multiframe: bool) -> Header:
        sides = (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)
        return Header(form, *sides, self.components == 1, multiframe)


def _jpeg_header(data: bytes) -> _JpegHeader | None:
    """Walks the marker segments up to the frame header (ITU-T T.81, annex B); None if there is none to be found."""
    if data[:2] != b"\xff\xd8":
        return None
    orientation, several, at = 1, False, 2
    while True:
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) and data[at] == 0xFF:  # a marker may be preceded by any number of fill bytes
            at += 1
        if at < 0 or at + 8 > len(data):
            return None
        marker = data[at]
        at += 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # these stand alone
            continue
        if marker in (0xD9, 0xDA):
            return None
        length = int.from_bytes(data[at : at + 2], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, components = struct.unpack_from(">HHB", data, at + 3)
            return _JpegHeader(height, width, components, orientation, several)
        if marker == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0":
            orientation = _orientation(data[at + 8 : at + length])
        elif marker == 0xE2 and data[at + 2 : at + 6] == b"MPF\0":
            several = True
        at += max(length, 2)


def _orientation(exif: bytes) -> int:
    """Tag 0x0112 of the first directory of a TIFF block; 1 (upright) where the block is broken or silent."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    try:
        if order is None:
            return 1
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(entries):
            tag, kind, count, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * entry)
            if tag == ExifTags.Base.Orientation:
                return value if kind == 3 and count == 1 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _decode_jpeg(data: bytes, header: _JpegHeader, channels: int, min_side: int) -> Array | None:
    """Decodes with libjpeg-turbo, its warnings as errors; None where only Pillow can tell (CMYK, odd markers).

    Raises:
        UnreadableImage: libjpeg found data missing or wrong, which it would otherwise complete with grey.
    """
    if header.components not in (1, 3, 4) or not header.height:
        return None
    colours = {1: "GRAY", 3: "RGB" if channels == 3 else "GRAY", 4: "CMYK"}[header.components]
    if header.components == 4:
        min_side = 0
    try:
        pixels = simplejpeg.decode_jpeg(data, colours, min_height=min_side, min_width=min_side)
    except ValueError as error:
        reason = str(error)
        if not reason.startswith(("Corrupt JPEG data", "Premature end")):
            return None
        if not _is_padding(reason, data):
            raise UnreadableImage(f"damaged JPEG: {reason.removeprefix('Corrupt JPEG data: ')}") from None
        pixels = simplejpeg.decode_jpeg(data, colours, min_height=min_side, min_width=min_side, strict=False)
    if header.components == 4:
        return None  # it is whole; Pillow knows which CMYK files are stored inverted
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] < channels else pixels


def _is_padding(reason: str, data: bytes) -> bool:
    """Whether the complaint is only about equal bytes between the last pixel and the end marker: some cameras pad."""
    extra = re.search(r"(\d+) extraneous bytes before marker 0xd9", reason)
    end = data.rfind(b"\xff\xd9")
    return bool(extra) and end > 0 and len(set(data[end - int(extra[1]) : end])) == 1  # type: ignore[index]


# --- Everything else ----------------------------------------------------------------------------------------------


def _pillow_header(file: BinaryIO, max_pixels: int) -> Header:
    with _open(file, max_pixels) as image:
        grey = image.mode in ("1", "L", "LA") or image.mode[0] in "IF"
        sides = (image.height, image.width) if _orientation_left(image) < 5 else (image.width, image.height)
        return Header(str(image.format), *sides, grey, _has_more_frames(image))


def _decode_pillow(data: bytes, channels: int, max_pixels: int) -> tuple[Array, Header]:
    header = _pillow_header(
        io.BytesIO(data), max_pixels
    )  # asking for a second frame moves in the file: a file of its own
    with _open(io.BytesIO(data), max_pixels) as image:
        image.load()
        _check_size(image.width, image.height, max_pixels)
        return _upright(_to_uint8(image, channels), _orientation_left(image)), header


@contextmanager
def _open(file: BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    start = file.read(64)
    file.seek(0)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        _check_size(*_webp_size(start), max_pixels)  # Pillow allocates the canvas of a WebP file while opening it
    with _quiet:
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            for offset, magic, name in _REFUSED:
                if start[offset : offset + len(magic)] == magic:
                    raise UnreadableImage(f"{name} is not one of the formats read ({', '.join(FORMATS)})") from None
            raise UnreadableImage(f"not an image, or a damaged header (formats read: {', '.join(FORMATS)})") from None
        with image:
            _check_size(image.width, image.height, max_pixels)
            yield image


def _has_more_frames(image: Image.Image) -> bool:
    # Counting walks through all frames, so a file that is damaged behind its first frame is refused like any other.
    return bool(getattr(image, "is_animated", False)) and image.n_frames > 1  # type: ignore[attr-defined]


def _orientation_left(image: Image.Image) -> int:
    """The orientation that Pillow leaves to us: it turns TIFFs upright itself."""
    if image.format == "TIFF":
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken EXIF block costs the orientation, not the image
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
    """The convention of the module's docstring, by Pillow's name of the pixel layout."""
    mode, goal = image.mode, "RGB" if channels == 3 else "L"
    if image.format == "TIFF":
        stored, read = getattr(image, "tag_v2", {}).get(277, 1), len(image.getbands())  # 277: SamplesPerPixel
        if stored > read + 1:
            raise UnreadableImage(f"{stored} bands, of which only {read} would be used: convert it to RGB or grey")
    if mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return _stack(((wide * 255 + 32_767) // 65_535).astype(np.uint8), channels)
    if mode in ("I", "F"):
        return _stack(_stretch(np.asarray(image)), channels)
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
    if image.mode in ("P", "CMYK", "HSV") and goal == "L":
        image = image.convert("RGB")
    return _stack(np.array(image.convert(goal)), channels)


def _stretch(values: NDArray[Any]) -> Array:
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if high == low:
        return np.zeros(values.shape, np.uint8)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    # Halves, because high - low may be larger than the largest float.
    return np.rint((values / 2 - low / 2) / (high / 2 - low / 2) * 255).astype(np.uint8)


def _stack(plane: Array, channels: int) -> Array:
    return plane if plane.ndim == 3 else np.repeat(plane[:, :, None], channels, axis=2)


def _upright(pixels: Array, orientation: int) -> Array:
    """Undoes an EXIF orientation (Exif 2.32, 4.6.4): 5 to 8 also swap height and width."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


# --- Refusal ------------------------------------------------------------------------------------------------------


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width <= 0 or height <= 0:
        raise UnreadableImage(f"no pixels ({width}×{height})")
    if width * height > max_pixels:
        raise UnreadableImage(f"{width}×{height} is {width * height:,} pixels, more than the limit of {max_pixels:,}")


@contextmanager
def _refusing() -> Iterator[None]:
    """Turns whatever a decoder raises into `UnreadableImage`: the decoders raise nearly every type there is."""
    try:
        yield
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"too many pixels: {_one_line(error)}") from None
    except MemoryError:
        raise UnreadableImage("not enough memory to decode it") from None
    except Exception as error:
        raise UnreadableImage(_one_line(error)) from None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)[:200]
    return text if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {text}"


class _Quiet:
    """Silences Pillow's warnings while anyone decodes: what they tell is either refused or handled here.

    `warnings.catch_warnings` alone is not safe when decodes overlap in threads (the filters of one end up restored by
    another), so the first to enter sets the filters and the last to leave restores them.
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
