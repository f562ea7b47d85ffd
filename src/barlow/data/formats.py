"""Pillow decodes PNG, WebP, BMP, GIF, TIFF, and the JPEGs that libjpeg-turbo leaves to it."""

import io
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, TiffImagePlugin

from barlow.data import arrays, damage, tiff, tiff_values
from barlow.data.decoded import (
    Array,
    Header,
    OtherBands,
    UnreadableImage,
    check_memory,
    check_size,
    row_blocks,
    upright,
)
from barlow.data.opening import opened
from barlow.data.stored import BACKGROUND, Stored, ValueRange, looks_like_alpha, pixels_of, widened, with_channels


def read_header(file: BinaryIO, max_pixels: int, channels: int = 3, *, wide: bool = False) -> Header:
    """What the file says about its image, and whether that can be decoded into so many channels."""
    start = file.read(8)
    file.seek(0)
    if arrays.is_array(start):
        return arrays.read_header(file, max_pixels, channels, wide=wide)
    layout = tiff_values.layout_of(tiff.read_directory(file))
    if layout is not None:
        return layout.checked_header(file.seek(0, io.SEEK_END), max_pixels, channels, wide=wide)
    file.seek(0)
    with opened(file, max_pixels) as image:
        multiframe = _has_more_frames(image, file)
        orientation = _orientation_left(image, file)
        deep = _depth_of_png(image, file) == 16
        _check_memory(image, file.seek(0, io.SEEK_END), channels, orientation, max_pixels, wide=wide)
        return _header(image, orientation, multiframe, deep)


def decode_any(
    data: bytes, channels: int, max_pixels: int, value_range: ValueRange | None = None
) -> tuple[Array, Header]:
    """The pixels and the header of an image of any of the formats, by the convention of `decoding.py`."""
    found = tiff.directory(data)
    wide = value_range is not None
    stored = _as_stored(data, found, channels, max_pixels, wide=wide)
    if stored is not None:
        numbers, header, orientation = stored
        return upright(pixels_of(numbers, channels, value_range), orientation), header
    # This gets a file of its own, because counting the frames leaves the file elsewhere than at the first one.
    multiframe = has_more_frames(io.BytesIO(data), max_pixels)
    if found is not None:
        data = _in_one_plane(data, found)
    with opened(io.BytesIO(data), max_pixels) as image:
        orientation = _orientation_left(image, io.BytesIO(data))
        _check_memory(image, len(data), channels, orientation, max_pixels, wide=wide)
        deep = _depth_of_png(image, io.BytesIO(data)) == 16
        header = _header(image, orientation, multiframe, deep)
        if image.format == "PNG":
            damage.check_png(data)
        key = _Key.of(image, data, max_pixels)
        low = _low_bytes(data, max_pixels) if deep and wide and image.mode != "I;16" else None
        _load(image)
        check_size(image.width, image.height, max_pixels)
        if found is not None and (bands := found.get(tiff.SAMPLES, 1)) > len(image.getbands()):
            raise OtherBands(bands, channels)  # a fifth band beside CMYK, for example, which Pillow drops
        pixels = _in_blocks(image, key, low, channels, value_range)
        if found is not None:
            damage.check_tiff(data, found, lambda: _as_compressed(image, found, pixels))
        return upright(pixels, orientation), header


def stored_values(data: bytes, max_pixels: int) -> Stored | None:
    """The numbers of an image as its file stores them; None where they are 8 bits of grey, colour and alpha."""
    stored = _as_stored(data, tiff.directory(data), 0, max_pixels, wide=True)
    if stored is not None:
        return stored[0]
    with opened(io.BytesIO(data), max_pixels) as image:
        if _depth_of_png(image, io.BytesIO(data)) != 16:
            return None
        low = None if image.mode == "I;16" else _low_bytes(data, max_pixels)
        _load(image)
        return _of_16_bits(image, low)


def _as_stored(
    data: bytes, found: tiff.Directory | None, channels: int, max_pixels: int, *, wide: bool
) -> tuple[Stored, Header, int] | None:
    """What is read without Pillow: the numbers, the header, the EXIF orientation."""
    if arrays.is_array(data[:8]):
        return (*arrays.read(data, max_pixels, channels, wide=wide), 1)
    layout = tiff_values.layout_of(found)
    return None if layout is None else layout.read(data, max_pixels, channels, wide=wide)


def _depth_of_png(image: Image.Image, file: BinaryIO) -> int:
    """Bits of each number of a PNG; 0 of another format. Pillow does not say."""
    if image.format != "PNG":
        return 0
    file.seek(24)
    return file.read(1)[0]


def _low_bytes(data: bytes, max_pixels: int) -> Image.Image | None:
    """The low bytes of colour of 16 bits, of which Pillow gives the high ones alone; None of grey with alpha."""
    with opened(io.BytesIO(data), max_pixels) as low:
        if low.mode not in ("RGB", "RGBA"):
            return None
        assert isinstance(low, PngImagePlugin.PngImageFile)
        low.tile = [tile._replace(args=f"{low.mode};16L") for tile in low.tile]
        low.load()
    return low


def _of_16_bits(image: Image.Image, low: Image.Image | None) -> Stored | None:
    """The numbers of a PNG of 16 bits, or of some of its rows; None where its low bytes cannot be had."""
    if image.mode.startswith("I"):
        return Stored(np.asarray(image).astype(np.uint16)[:, :, None], 65_535)
    if low is None:
        return None
    return Stored(
        np.asarray(image).astype(np.uint16) << 8 | np.asarray(low), 65_535, image.mode == "RGBA", opaque=65_535
    )


def _header(image: Image.Image, orientation: int, multiframe: bool, deep: bool) -> Header:
    grey = image.mode in ("1", "L", "LA") or image.mode[0] in "IF"
    sides = (image.height, image.width) if orientation < 5 else (image.width, image.height)
    alpha = image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info
    return Header(str(image.format), *sides, grey, multiframe, 1 if grey else 3, deep and image.mode != "LA", alpha)


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except OSError as error:
        if image.format == "TIFF" and str(error).startswith("decoder error"):  # what libtiff said went to stderr
            raise UnreadableImage("damaged TIFF: a strip or tile of it cannot be decoded") from None
        raise


def _check_memory(
    image: Image.Image, size: int, channels: int, orientation: int, max_pixels: int, *, wide: bool = False
) -> None:
    """Refuses what would take too many bytes: the file, what Pillow and the codec keep, and the pixels."""
    pixels = image.width * image.height
    stored = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}.get(image.mode, 4)
    codec = 0
    if image.format == "PNG" and image.mode in ("RGB", "RGBA") and (wide or "transparency" in image.info):
        codec = 4 * pixels  # colour of sixteen bits is decoded twice
    elif image.format == "WEBP":
        codec = 8 * pixels  # two canvases
    elif image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        stored *= 1 + (tags.get(tiff.ORIENTATION, 1) > 1)
        codec = _part_bytes(image, tags)
    out = channels * (1 + (orientation > 1)) * (2 if wide else 1)
    needed = size + codec + (stored + out) * pixels
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


def _as_compressed(image: Image.Image, found: tiff.Directory, decoded: Array) -> Array | None:
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
    with opened(file, max_pixels) as image:
        return _has_more_frames(image, file)


def _has_more_frames(image: Image.Image, file: BinaryIO) -> bool:
    # Counting the frames of a GIF or a TIFF would read them all, of which a small file may have a million.
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.next >= file.seek(0, io.SEEK_END):
        raise UnreadableImage("damaged TIFF: its second image is missing")
    return bool(getattr(image, "is_animated", False))


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
        low = _low_bytes(data, max_pixels)
        return _Key(tuple(key), low)

    def mask(self, block: Image.Image, rows: tuple[int, int]) -> NDArray[np.bool_]:
        """Which pixels of some rows, decoded as `block`, are transparent."""
        values = np.asarray(block)
        if self.low is None:
            return values == self.value[0]
        low = np.asarray(self.low.crop((0, rows[0], self.low.width, rows[1])))
        key = np.array(self.value)
        return ((values == key >> 8) & (low == key & 255)).all(axis=2)


def _in_blocks(
    image: Image.Image, key: _Key | None, low: Image.Image | None, channels: int, value_range: ValueRange | None
) -> Array:
    """Converts some rows at a time, as every conversion takes several times the memory of what it converts.

    Args:
        image: as Pillow has decoded it.
        key: the transparent colour that Pillow does not apply.
        low: the low bytes of colour of 16 bits, where they are wanted.
        channels: that it gets.
        value_range: see `pixels_of`.
    """
    blocks = list(row_blocks(image.height, image.width))
    tagged = image.format == "TIFF" and image.mode == "RGBA" and channels != 4
    if tagged and not looks_like_alpha(np.asarray(image.getchannel("A"))):
        raise OtherBands(4, channels)  # of JPEG's compression, which only Pillow undoes

    def part(whole: Image.Image, rows: tuple[int, int]) -> Image.Image:
        return whole if len(blocks) == 1 else whole.crop((0, rows[0], whole.width, rows[1]))

    def converted(rows: tuple[int, int]) -> Array:
        block = part(image, rows)
        numbers = None
        if low is not None or image.mode.startswith("I"):
            numbers = _of_16_bits(block, None if low is None else part(low, rows))
        if numbers is not None:
            pixels = pixels_of(numbers, channels, value_range)
        else:
            pixels = _to_uint8(block, channels)
            pixels = pixels if value_range is None else widened(pixels)
        if key is not None:
            pixels[key.mask(block, rows)] = BACKGROUND if value_range is None else BACKGROUND * 257
        return pixels

    if len(blocks) == 1:
        return converted(blocks[0])
    pixels = np.empty((image.height, image.width, channels), np.uint8 if value_range is None else np.uint16)
    for top, bottom in blocks:
        pixels[top:bottom] = converted((top, bottom))
    return pixels


def _to_uint8(image: Image.Image, channels: int) -> Array:
    """Applies the convention of `decoding.py`, according to Pillow's name for the layout of the pixels.

    Args:
        image: a whole image, or some of its rows.
        channels: that it gets.
    """
    mode = image.mode
    if channels not in (1, 3):
        if {"RGBA": 4, "LA": 2}.get(mode) == channels:  # alpha was asked for, as a band like the others
            return np.array(image)
        raise OtherBands(1 if mode in ("1", "L", "LA") else 3, channels)
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
