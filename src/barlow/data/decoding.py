"""The one decoder: the bytes of a file in, (h, w, c) uint8 pixels out, or `UnreadableImage` with the reason.

The format is found from the content, never from the file's name. Only JPEG (with MPO), PNG, WebP, BMP, GIF and TIFF are
opened: most vulnerabilities of image libraries are in the other formats, and EPS even starts another program.

A damaged file is refused, never completed with grey: `jpeg.py` decodes JPEGs with libjpeg-turbo, whose warnings are
errors here. `formats.py` decodes everything else with Pillow, and `damage.py` looks for the damage that Pillow passes.

Convention: this is how every layout of pixels becomes 8-bit RGB or grey. It is the same in training, in evaluation and
wherever features are computed.

=========================  ===========================================================================================
several frames             the first one is read (animations, multi-page TIFF, MPO); the header says that there are more
orientation                EXIF orientation is applied; if the EXIF block is broken, the image is read as it is stored
grey (1, L)                repeated to three channels; colour becomes one channel by ITU-R 601 luma
CMYK, YCCK, YCbCr, HSV     by Pillow's formulas for devices, without colour management; ICC profiles are not applied
Lab                        through LittleCMS to sRGB
palette                    the palette's colours
alpha, transparent colour  composited over mid-grey (128), near the mean that is subtracted later. Over white, a white
                           logo on a transparent ground would vanish; over black, a dark drawing would
16-bit integer             scaled by its bit depth, round(v · 255 / 65535); of colour images Pillow reads the high byte.
                           Twelve-bit data in sixteen bits stays dark, but no value is clipped
32-bit integer, float,     stretched, as their units are unknown: the smallest finite value of the image becomes 0, the
signed 16-bit              largest 255; not-a-number and −∞ become 0, +∞ becomes 255; a constant image becomes 0
further bands              one unnamed band is dropped, as Pillow does; a file with more of them is refused
=========================  ===========================================================================================
"""

import io
from typing import BinaryIO

from barlow.data import formats
from barlow.data.decoded import Array, Header, UnreadableImage, check_size, refusing, upright
from barlow.data.jpeg import decode_jpeg, find_header

__all__ = ["MAX_PIXELS", "Array", "Header", "UnreadableImage", "decode", "decode_with_header", "read_header"]

MAX_PIXELS = 64_000_000
"""The default limit: a photo of 64 megapixels, which takes 192 MB as RGB, in each worker. What decoding takes in all is
limited too (`decoded.check_memory`)."""


def decode(data: bytes, *, channels: int = 3, max_pixels: int = MAX_PIXELS, min_side: int = 0) -> Array:
    """The pixels of one image.

    Args:
        data: the file's bytes.
        channels: 3 for RGB, 1 for grey.
        max_pixels: an image with more pixels is refused, from its header, and one whose decoding would take more than
            288 MB, or 4.5 bytes for each of so many pixels. Pillow's own limit of 178,956,970 pixels holds too.
        min_side: if positive, a JPEG may be decoded at one to seven eighths of its size, as long as its shorter side
            keeps this many pixels. That is much faster for photos that will be cropped and shrunk anyway.

    Raises:
        UnreadableImage: whatever is wrong with the data, with the reason.
    """
    return decode_with_header(data, channels=channels, max_pixels=max_pixels, min_side=min_side)[0]


def decode_with_header(
    data: bytes, *, channels: int = 3, max_pixels: int = MAX_PIXELS, min_side: int = 0
) -> tuple[Array, Header]:
    """The pixels as from `decode`, and the header."""
    if channels not in (1, 3):
        raise ValueError(f"channels={channels}: images are decoded to 3 channels (RGB) or 1 (grey)")
    with refusing():
        if not data:
            raise UnreadableImage("empty file (0 bytes)")
        header = find_header(data)
        if header is not None:
            check_size(header.width, header.height, max_pixels)
            header.check()
            pixels = decode_jpeg(data, header, channels, min_side, max_pixels)
            if pixels is not None:
                multiframe = header.several and formats.has_more_frames(io.BytesIO(data), max_pixels)
                described = header.describe("MPO" if multiframe else "JPEG", multiframe)
                return upright(pixels, header.orientation), described
        return formats.decode_any(data, channels, max_pixels)


def read_header(file: BinaryIO, *, channels: int = 3, max_pixels: int = MAX_PIXELS) -> Header:
    """What the file says about its image, after those checks of `decode` that need no pixels."""
    with refusing():
        start = file.read(65_536)  # nearly every JPEG has its frame header in here
        if not start:
            raise UnreadableImage("empty file (0 bytes)")
        header = find_header(start)
        if header is not None and not header.several:
            check_size(header.width, header.height, max_pixels)
            header.check()
            return header.describe("JPEG", False)
        file.seek(0)
        return formats.read_header(file, max_pixels, channels)
