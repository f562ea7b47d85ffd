"""JPEG: the header, found without decoding, and the pixels, decoded by libjpeg-turbo with its warnings as errors."""

import re
import struct
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import ExifTags

from barlow.data.decoded import Array, Header, UnreadableImage


@dataclass(frozen=True)
class JpegHeader:
    """What the marker segments of a JPEG say, up to its frame header.

    Args:
        height: as stored, before the EXIF orientation is applied.
        width: likewise.
        components: 1 for grey, 3 for colour, 4 for CMYK or YCCK.
        orientation: of EXIF, 1 (upright) to 8.
        several: whether the file claims to hold more than one picture (CIPA DC-007, the multi-picture format).
    """

    height: int
    width: int
    components: int
    orientation: int
    several: bool

    def describe(self, form: str, multiframe: bool) -> Header:
        """The same as the header that all formats have; `form` is "JPEG" or "MPO"."""
        sides = (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)
        return Header(form, *sides, self.components == 1, multiframe)


def find_header(data: bytes) -> JpegHeader | None:
    """Walks the marker segments up to the frame header (ITU-T T.81, annex B); None if there is no frame header."""
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
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # these have no segment behind them
            continue
        if marker in (0xD9, 0xDA):  # the image ends, or its pixels start, before any frame header
            return None
        length = int.from_bytes(data[at : at + 2], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, components = struct.unpack_from(">HHB", data, at + 3)
            return JpegHeader(height, width, components, orientation, several)
        if marker == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0":
            orientation = _orientation(data[at + 8 : at + length])
        elif marker == 0xE2 and data[at + 2 : at + 6] == b"MPF\0":
            several = True
        at += max(length, 2)


def _orientation(exif: bytes) -> int:
    """Tag 0x0112 in the first directory of an EXIF block; 1 (upright) if the block is broken or has no such tag."""
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


def decode_jpeg(data: bytes, header: JpegHeader, channels: int, min_side: int) -> Array | None:
    """The pixels as stored, or None where Pillow has to decode the file: CMYK, and markers that libjpeg does not know.

    Raises:
        UnreadableImage: data is missing or damaged. Unless its warnings are errors, libjpeg fills such gaps with grey.
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
        return None  # now known to be whole; but only Pillow knows which CMYK files are stored inverted
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] < channels else pixels


def _is_padding(reason: str, data: bytes) -> bool:
    """Whether libjpeg only complains about equal bytes between the last pixel and the end marker: some cameras pad."""
    extra = re.search(r"(\d+) extraneous bytes before marker 0xd9", reason)
    end = data.rfind(b"\xff\xd9")
    return bool(extra) and end > 0 and len(set(data[end - int(extra[1]) : end])) == 1  # type: ignore[index]
