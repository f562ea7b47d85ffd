"""Pillow decodes PNG, WebP, BMP, GIF, TIFF, and the JPEGs that libjpeg-turbo leaves to it."""

import io
import logging
import struct
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
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

from barlow.data import damage, foreign, tiff
from barlow.data.decoded import Array, Header, UnreadableImage, check_memory, check_size, row_blocks, upright

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

BACKGROUND = 128
"""The grey that transparent pixels are composited over; `decoding.py` says why."""

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


def read_header(file: BinaryIO, max_pixels: int, channels: int = 3) -> Header:
    """What the file says about its image, and whether that can be decoded into so many channels."""
    with _open(file, max_pixels) as image:
        multiframe = _has_more_frames(image)
        orientation = _orientation_left(image, file)
        _check_memory(image, file.seek(0, io.SEEK_END), channels, orientation, max_pixels)
        return _header(image, orientation, multiframe)


def decode_any(data: bytes, channels: int, max_pixels: int) -> tuple[Array, Header]:
    """The pixels and the header of an image of any of the formats, by the convention of `decoding.py`."""
    # This gets a file of its own, because counting the frames leaves the file elsewhere than at the first one.
    multiframe = has_more_frames(io.BytesIO(data), max_pixels)
    found = tiff.directory(data)
    if found is not None:
        data = _in_one_plane(data, found)
    with _open(io.BytesIO(data), max_pixels) as image:
        orientation = _orientation_left(image, io.BytesIO(data))
        _check_memory(image, len(data), channels, orientation, max_pixels)
        header = _header(image, orientation, multiframe)
        if image.format == "PNG":
            damage.check_png(data)
        key = _Key.of(image, data, max_pixels)
        _load(image)
        check_size(image.width, image.height, max_pixels)
        _check_bands(image)
        pixels = _in_blocks(image, key, channels)
        if found is not None:
            damage.check_tiff(data, found, lambda: _as_stored(image, found, pixels))
        return upright(pixels, orientation), header


def _header(image: Image.Image, orientation: int, multiframe: bool) -> Header:
    grey = image.mode in ("1", "L", "LA") or image.mode[0] in "IF"
    sides = (image.height, image.width) if orientation < 5 else (image.width, image.height)
    return Header(str(image.format), *sides, grey, multiframe)


@contextmanager
def _open(file: BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    start = file.read(foreign.START)
    file.seek(0)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        check_size(*_webp_size(start), max_pixels)  # before Image.open, which allocates the canvas of a WebP at once
    with _quiet:
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise UnreadableImage(foreign.called(start, FORMATS)) from None
        with image:
            _forget_xmp(image)
            check_size(image.width, image.height, max_pixels)
            yield image


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except OSError as error:
        if image.format == "TIFF" and str(error).startswith("decoder error"):  # what libtiff said went to stderr
            raise UnreadableImage("damaged TIFF: a strip or tile of it cannot be decoded") from None
        raise


def _forget_xmp(image: Image.Image) -> None:
    """Where EXIF has no orientation, Pillow takes that of XMP. It is not applied to JPEGs here, nor by browsers."""
    for name in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(name, None)


def _check_memory(image: Image.Image, size: int, channels: int, orientation: int, max_pixels: int) -> None:
    """Refuses what would take too many bytes: the file, what Pillow and the codec keep, and the pixels."""
    pixels = image.width * image.height
    stored = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}.get(image.mode, 4)
    codec = 0
    if image.format == "PNG" and image.mode == "RGB" and "transparency" in image.info:
        codec = 4 * pixels  # colour of sixteen bits is decoded twice
    elif image.format == "WEBP":
        codec = 8 * pixels  # two canvases
    elif image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        stored *= 1 + (tags.get(tiff.ORIENTATION, 1) > 1)
        codec = _part_bytes(image, tags)
    needed = size + codec + (stored + channels * (1 + (orientation > 1))) * pixels
    check_memory(f"a {image.format} of {image.width}×{image.height} pixels ({image.mode})", needed, max_pixels)


def _part_bytes(image: Image.Image, tags: Any) -> int:
    """Of a strip or tile of a TIFF, which libtiff decodes as a whole; nothing where Pillow reads it without libtiff."""
    if tags.get(tiff.COMPRESSION, 1) == 1:
        return 0
    rows = min(tags.get(tiff.TILE_HEIGHT, tags.get(tiff.ROWS_PER_STRIP, image.height)), image.height)
    bits = tags.get(tiff.BITS, (8,))
    sample = max(bits) if isinstance(bits, tuple) else bits
    return int(rows * tags.get(tiff.TILE_WIDTH, image.width) * tags.get(tiff.SAMPLES, 1) * sample // 8)


def _in_one_plane(data: bytes, found: tiff.Directory) -> bytes:
    """A TIFF of a single band that says "in planes", which Pillow does not read, as one that says "pixel by pixel"."""
    if found.get(tiff.PLANAR, 1) != 2 or found.get(tiff.SAMPLES, 1) != 1:
        return data
    at = found.places[tiff.PLANAR]
    return data[:at] + struct.pack(found.order + "H", 1) + data[at + 2 :]


def _as_stored(image: Image.Image, found: tiff.Directory, decoded: Array) -> Array | None:
    """The pixels of a TIFF as they were before they were compressed, where that is how Pillow keeps them."""
    plain = {"L": (1, 1), "RGB": (2, 3), "RGBA": (2, 4), "CMYK": (5, 4)}  # mode: photometric interpretation, samples
    layout = found.get(tiff.PHOTOMETRIC, -1), found.get(tiff.SAMPLES, 1)
    whole = set(found.values.get(tiff.BITS, (1,))) == {8} and found.get(tiff.PLANAR, 1) == 1
    if plain.get(image.mode) != layout or not whole or found.get(tiff.ORIENTATION, 1) != 1:
        return None
    if len(image.getbands()) == decoded.shape[2]:
        return decoded
    return np.asarray(image).reshape(image.height, image.width, -1)


def has_more_frames(file: BinaryIO, max_pixels: int) -> bool:
    """Whether a file has frames behind its first one."""
    with _open(file, max_pixels) as image:
        return _has_more_frames(image)


def _has_more_frames(image: Image.Image) -> bool:
    # Counting the frames reads them all. So a file with damage behind its first frame is refused like any other.
    return bool(getattr(image, "is_animated", False)) and image.n_frames > 1  # type: ignore[attr-defined]


def _orientation_left(image: Image.Image, file: BinaryIO) -> int:
    """The EXIF orientation that is still to be undone: none for TIFF, which Pillow turns upright itself.

    Of a PNG, Pillow would decode all of it to find an EXIF block behind the pixels. So that is looked for in `file`,
    whose place changes.
    """
    if image.format == "TIFF":
        return 1
    if image.format == "PNG" and "exif" not in image.info and (late := damage.png_chunk(file, b"eXIf")):
        image.info["exif"] = b"Exif\0\0" + late
    try:
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
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


def _check_bands(image: Image.Image) -> None:
    """Refuses a TIFF of which Pillow would leave out more than one band."""
    if image.format != "TIFF":
        return
    stored, read = getattr(image, "tag_v2", {}).get(tiff.SAMPLES, 1), len(image.getbands())
    if stored > read + 1:
        raise UnreadableImage(f"{stored} bands, of which only {read} would be used: convert it to RGB or grey")


@dataclass(frozen=True)
class _Key:
    """The transparent colour of a PNG (its tRNS chunk), in the values of the file.

    Pillow compares it with eight bits. For two and four bits it is scaled here as Pillow scales the pixels. For one bit
    and for sixteen it is compared here; colour of sixteen bits is decoded a second time for that, as Pillow gives its
    high bytes alone.
    """

    value: tuple[int, ...]
    low: Image.Image | None
    """The low bytes of colour of sixteen bits."""

    @staticmethod
    def of(image: Image.Image, data: bytes, max_pixels: int) -> "_Key | None":
        """The key that Pillow cannot apply; None where there is none, or Pillow applies it."""
        key = image.info.get("transparency")
        if image.format != "PNG" or key is None or image.mode not in ("1", "L", "I;16", "RGB"):
            return None
        depth = data[24]
        if image.mode == "L":
            image.info["transparency"] = key * 255 // (2**depth - 1)
            return None
        if image.mode == "RGB" and depth == 8:
            return None
        del image.info["transparency"]
        if image.mode != "RGB":
            return _Key((bool(key) if image.mode == "1" else key,), None)
        with _open(io.BytesIO(data), max_pixels) as low:
            assert isinstance(low, PngImagePlugin.PngImageFile)
            low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
            low.load()
        return _Key(tuple(key), low)

    def mask(self, block: Image.Image, rows: tuple[int, int]) -> NDArray[np.bool_]:
        """Which pixels of some rows, decoded as `block`, are transparent."""
        values = np.asarray(block)
        if self.low is None:
            return values == self.value[0]
        low = np.asarray(self.low.crop((0, rows[0], self.low.width, rows[1])))
        key = np.array(self.value)
        return ((values == key >> 8) & (low == key & 255)).all(axis=2)


def _in_blocks(image: Image.Image, key: _Key | None, channels: int) -> Array:
    """Converts some rows at a time, as every conversion takes several times the memory of what it converts."""
    blocks = list(row_blocks(image.height, image.width))

    def block(rows: tuple[int, int]) -> Image.Image:
        return image if len(blocks) == 1 else image.crop((0, rows[0], image.width, rows[1]))

    limits = None
    if image.mode in ("I", "F"):
        limits = _limits(np.asarray(block(rows)) for rows in blocks)

    def converted(rows: tuple[int, int]) -> Array:
        part = block(rows)
        pixels = _to_uint8(part, channels, limits)
        if key is not None:
            pixels[key.mask(part, rows)] = BACKGROUND
        return pixels

    if len(blocks) == 1:
        return converted(blocks[0])
    pixels = np.empty((image.height, image.width, channels), np.uint8)
    for top, bottom in blocks:
        pixels[top:bottom] = converted((top, bottom))
    return pixels


def _to_uint8(image: Image.Image, channels: int, limits: tuple[float, float] | None) -> Array:
    """Applies the convention of `decoding.py`, according to Pillow's name for the layout of the pixels.

    Args:
        image: a whole image, or some of its rows.
        channels: that it gets.
        limits: the values of the whole image that become 0 and 255, where it is stretched.
    """
    mode, goal = image.mode, "RGB" if channels == 3 else "L"
    if mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return _stack(((wide * 255 + 32_767) // 65_535).astype(np.uint8), channels)
    if limits is not None:
        return _stack(_stretch(np.asarray(image), *limits), channels)
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


def _limits(blocks: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """The smallest and the largest finite value; 0 and 0 if there is none."""
    finite = (values[np.isfinite(values)] for values in blocks)
    ends = [(float(values.min()), float(values.max())) for values in finite if values.size]
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else (0.0, 0.0)


def _stretch(values: NDArray[Any], low: float, high: float) -> Array:
    """Maps `low`, the smallest finite value of the image, to 0 and `high`, the largest, to 255."""
    if high == low:
        return np.zeros(values.shape, np.uint8)
    values = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    # Of halves, because high - low itself may be larger than the largest float.
    return np.rint((values / 2 - low / 2) / (high / 2 - low / 2) * 255).astype(np.uint8)


def _stack(plane: Array, channels: int) -> Array:
    """(h, w) as (h, w, channels); what has channels already stays as it is."""
    return plane if plane.ndim == 3 else np.repeat(plane[:, :, None], channels, axis=2)
