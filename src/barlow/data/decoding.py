"""The one decoder: the bytes of a file in, (h, w, c) pixels out, or `UnreadableImage` with the reason.

The format is found from the content, never from the file's name. Only JPEG (with MPO), PNG, WebP, BMP, GIF and TIFF are
opened, and NumPy's arrays: most vulnerabilities of image libraries are in the other formats, and EPS even starts
another program.

A damaged file is refused, never completed with grey: `jpeg.py` decodes JPEGs with libjpeg-turbo, whose warnings are
errors here. `formats.py` decodes with Pillow, and `damage.py` looks for the damage that Pillow passes. What has more
bands or more bits than Pillow knows is read by `tiff_values.py` and `arrays.py`.

Convention: this is how every layout of pixels becomes 8-bit RGB or grey, or 16-bit pixels of any number of bands. It is
the same in training, in evaluation and wherever features are computed.

=========================  ===========================================================================================
several frames             the first one is read (animations, multi-page TIFF, MPO); the header says that there are more
orientation                EXIF orientation is applied; if the EXIF block is broken, the image is read as it is stored
grey (1, L)                repeated to three channels; colour becomes one channel by ITU-R 601 luma
CMYK, YCCK, YCbCr, HSV     by Pillow's formulas for devices, without colour management; ICC profiles are not applied
Lab                        through LittleCMS to sRGB
palette                    the palette's colours
alpha, transparent colour  composited over mid-grey (128), near the mean that is subtracted later. Over white, a white
                           logo on a transparent ground would vanish; over black, a dark drawing would. A fourth band of
                           a TIFF that is tagged as alpha and does not look like it (`stored.ALPHA_SHARE`) is a band
more than 8 bits, signs,   with the set's range of values, its ends become black and white, in 16 bits, and what lies
fractions                  outside is clipped; `value_range.py` says how a set's range is found. Without one, in 8 bits:
                           integers of up to 16 bits by their depth, round(v · 255 / 65535); all others stretched, from
                           the image's smallest finite value to its largest. Not-a-number becomes black
16-bit colour PNG          without a range of values, its high bytes; grey with alpha always so, as Pillow has no more
white is zero              inverted, at every depth
further bands              all are read, where the set is read with as many channels; otherwise the file is refused
=========================  ===========================================================================================
"""

import io
from typing import BinaryIO

from barlow.data import formats
from barlow.data.decoded import Array, Header, OtherBands, UnreadableImage, check_size, refusing, upright
from barlow.data.jpeg import decode_jpeg, find_header
from barlow.data.stored import Stored, ValueRange, widened

__all__ = [
    "MAX_PIXELS",
    "Array",
    "Header",
    "OtherBands",
    "Stored",
    "UnreadableImage",
    "ValueRange",
    "decode",
    "decode_with_header",
    "read_header",
    "stored_values",
]

MAX_PIXELS = 64_000_000
"""The default limit: a photo of 64 megapixels, which takes 192 MB as RGB, in each worker. What decoding takes in all is
limited too (`decoded.check_memory`)."""


def decode(
    data: bytes,
    *,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    min_side: int = 0,
    value_range: ValueRange | None = None,
) -> Array:
    """The pixels of one image.

    Args:
        data: the file's bytes.
        channels: 3 for RGB, 1 for grey; any other number of bands has to be in the file.
        max_pixels: an image with more pixels is refused, from its header, and one whose decoding would take more than
            288 MB, or 4.5 bytes for each of so many pixels. Pillow's own limit of 178,956,970 pixels holds too.
        min_side: if positive, a JPEG may be decoded at one to seven eighths of its size, as long as its shorter side
            keeps this many pixels. That is much faster for photos that will be cropped and shrunk anyway.
        value_range: the numbers that become black and white. The pixels then have 16 bits (uint16), else 8.

    Raises:
        UnreadableImage: whatever is wrong with the data, with the reason.
    """
    return decode_with_header(
        data, channels=channels, max_pixels=max_pixels, min_side=min_side, value_range=value_range
    )[0]


def decode_with_header(
    data: bytes,
    *,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    min_side: int = 0,
    value_range: ValueRange | None = None,
) -> tuple[Array, Header]:
    """The pixels as from `decode`, and the header."""
    if channels < 1:
        raise ValueError(f"channels={channels}: give 3 (RGB), 1 (grey), or the number of bands that the files have")
    with refusing():
        if not data:
            raise UnreadableImage("empty file (0 bytes)")
        header = find_header(data)
        if header is not None:
            check_size(header.width, header.height, max_pixels)
            header.check()
            if channels not in (1, 3):
                raise OtherBands(1 if header.components == 1 else 3, channels)
            pixels: Array | None = decode_jpeg(data, header, channels, min_side, max_pixels)
            if pixels is not None:
                pixels = pixels if value_range is None else widened(pixels)
                multiframe = header.several and formats.has_more_frames(io.BytesIO(data), max_pixels)
                described = header.describe("MPO" if multiframe else "JPEG", multiframe)
                return upright(pixels, header.orientation), described
        return formats.decode_any(data, channels, max_pixels, value_range)


def stored_values(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Stored | None:
    """The numbers of an image as its file stores them; None where they are 8 bits of grey or colour.

    Raises:
        UnreadableImage: as from `decode`.
    """
    with refusing():
        return None if find_header(data) is not None else formats.stored_values(data, max_pixels)


def read_header(file: BinaryIO, *, channels: int = 3, max_pixels: int = MAX_PIXELS, wide: bool = False) -> Header:
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
        return formats.read_header(file, max_pixels, channels, wide=wide)
