"""JPEG: the header, found without decoding, and the pixels, decoded by libjpeg-turbo with its warnings as errors."""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import ExifTags, Image

from barlow.data.decoded import MEMORY, Array, Header, UnreadableImage, check_memory

_BY_CODE = {0xC0, 0xC1, 0xC2}
"""Frame headers (SOF0, 1 and 2) of the processes that libjpeg can decode at a fraction of the size: baseline, extended
and progressive, by cosine transform and Huffman code."""
_PROGRESSIVE = {0xC2, 0xCA}
_ARITHMETIC = {0xC9, 0xCA}
_LOSSLESS = 0xC3
_READ = _BY_CODE | _ARITHMETIC | {_LOSSLESS}
_SCAN = 0xDA

DAMAGED = ("Corrupt JPEG data", "Premature end", "Inconsistent progression")
"""How libjpeg's warnings about missing or damaged data begin."""

FILLED = 8
"""So many equal bytes before its end marker do not belong to the pixels of a JPEG."""

MOST_SCANS = 16
"""A progressive JPEG refines the whole image in each of its scans, of which ten or so are usual. Limit of the scans of
an image of `max_pixels`; smaller images may have more of them, as long as scans × pixels is no larger."""

SCAN_BYTES, BYTES_AT_MOST = 10, 5
"""A scan is no shorter than its header. And for each pixel, times its channels and four, no image takes more: two bytes
of a coefficient, and three copies."""

COEFFICIENT_BYTES = 2
"""What libjpeg keeps of each coefficient of a file of several scans, until the last of them is read."""


class JpegHeader(NamedTuple):
    """What the marker segments of a JPEG say, up to its frame header.

    Args:
        height: as stored, before the EXIF orientation is applied.
        width: likewise.
        components: 1 for grey, 3 for colour, 4 for CMYK or YCCK.
        orientation: of EXIF, 1 (upright) to 8.
        several: whether the file claims to hold more than one picture (CIPA DC-007, the multi-picture format).
        process: the frame header's marker, 0xC0 to 0xCF, which says how the pixels are coded.
        bits: of each sample.
        sampling: of each component its number, its two sampling factors in a byte, and a table's number.
        end: where in the file the frame header ends.
    """

    height: int
    width: int
    components: int
    orientation: int
    several: bool
    process: int = 0xC0
    bits: int = 8
    sampling: bytes = b""
    end: int = 2

    @property
    def coefficients(self) -> int:
        """How many there are in all components, 64 for each block of 8 × 8 samples. Each component has as many as
        samples, but for the rounding to blocks."""
        factors = [(max(hv >> 4, 1), max(hv & 15, 1)) for hv in self.sampling[1::3]]
        if not factors:
            return 0
        most = max(h for h, _ in factors) * max(v for _, v in factors)
        return sum(self.height * self.width * h * v // most for h, v in factors)

    def describe(self, form: str, multiframe: bool) -> Header:
        """The same as the header that all formats have; `form` is "JPEG" or "MPO"."""
        sides = (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)
        return Header(form, *sides, self.components == 1, multiframe, 1 if self.components == 1 else 3)

    def check(self) -> None:
        """Refuses what no decoder here reads, by its name, and what one would read wrongly.

        Raises:
            UnreadableImage: more than eight bits a sample, or a process that is neither one of cosine transforms nor
                lossless with Huffman codes.
        """
        if self.process not in _READ:
            raise UnreadableImage(
                f"a hierarchical or lossless arithmetic JPEG (SOF{self.process - 0xC0}), which is not read: convert it"
            )
        if self.bits > 8 or (self.bits < 8 and self.process != _LOSSLESS):
            raise UnreadableImage(f"a JPEG of {self.bits}-bit samples, of which 8 bits are read: convert it to TIFF")


def segments(data: bytes, at: int = 2) -> Iterator[tuple[int, int, int, int]]:
    """Walks the marker segments up to the first scan (ITU-T T.81, annex B).

    Args:
        data: the file.
        at: where to begin: at its first segment, or behind another one.

    Yields:
        The marker; where its segment starts, with its two bytes of length, and ends; and how many stray bytes, which
        belong to no segment, came before the marker. The last one is the start of the first scan, if it is there.
    """
    size = len(data)
    while True:
        before = at
        at = first = data.find(b"\xff", at)
        while 0 <= at < size and data[at] == 0xFF:  # a marker may be preceded by any number of fill bytes
            at += 1
        if at < 0 or at + 8 > size:
            return
        marker = data[at]
        at += 1
        if marker <= 0x01 or 0xD0 <= marker <= 0xD8:  # these have no segment behind them
            continue
        if marker == 0xD9:  # the image ends before any of its pixels
            return
        end = at + max(data[at] << 8 | data[at + 1], 2)
        yield marker, at, end, first - before
        if marker == _SCAN:
            return
        at = end


def find_header(data: bytes) -> JpegHeader | None:
    """What the segments up to the frame header say; None if there is no frame header."""
    if data[:2] != b"\xff\xd8":
        return None
    orientation, several = 1, False
    for marker, start, end, _ in segments(data):
        if marker == _SCAN:
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, components = struct.unpack_from(">BHHB", data, start + 2)
            sampling = data[start + 8 : start + 8 + 3 * components]
            return JpegHeader(height, width, components, orientation, several, marker, bits, sampling, end)
        if marker == 0xE1 and data[start + 2 : start + 8] == b"Exif\0\0":
            orientation = _orientation(data[start + 8 : end])
        elif marker == 0xE2 and data[start + 2 : start + 6] == b"MPF\0":
            several = True
    return None


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


def decode_jpeg(data: bytes, header: JpegHeader, channels: int, min_side: int, max_pixels: int) -> Array | None:
    """The pixels as stored, or None where Pillow has to decode the file: CMYK, and markers that libjpeg does not know.

    Raises:
        UnreadableImage: data is missing or damaged. Unless its warnings are errors, libjpeg fills such gaps with grey.
            Or decoding would take too long, or too much memory.
    """
    if header.components not in (1, 3, 4) or not header.height:
        return None
    colours = {1: "GRAY", 3: "RGB" if channels == 3 else "GRAY", 4: "CMYK"}[header.components]
    if header.components == 4 or header.process not in _BY_CODE:
        min_side = 0
    if header.process == _LOSSLESS and header.components == 3:
        colours = "RGB"  # libjpeg converts no colours of a lossless file
    _check_cost(data, header, channels, min_side, max_pixels)
    try:
        pixels = strictly(data, colours, min_side)
    except ValueError as error:
        reason = str(error)
        if not reason.startswith(DAMAGED):
            return None
        raise UnreadableImage(f"damaged JPEG: {reason.removeprefix('Corrupt JPEG data: ')}") from None
    if header.process in _PROGRESSIVE and _filled(data) >= FILLED and not _has_all_scans(data):
        raise UnreadableImage("damaged JPEG: scans are missing, and equal bytes are in their place")
    height, width = _size_at(header, min_side)
    if pixels.shape[:2] != (height, width):
        raise UnreadableImage(f"decoded to {pixels.shape[1]}×{pixels.shape[0]}, not {width}×{height}")
    if header.components == 4:
        return None  # now known to be whole; but only Pillow knows which CMYK files are stored inverted
    if header.bits < 8:
        most = 2**header.bits - 1
        pixels = np.round(np.arange(256).clip(0, most) * (255 / most)).astype(np.uint8)[pixels]
    if pixels.shape[2] > channels:
        return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] < channels else pixels


def _size_at(header: JpegHeader, min_side: int) -> tuple[int, int]:
    """Height and width at which simplejpeg gives back an image: the fewest eighths, rounded up, that leave each side at
    least `min_side`, or all of it where it has no more. The whole where nothing less is asked for."""
    height, width = header.height, header.width
    for k in range(1, 8) if min_side > 0 else ():
        of_height, of_width = -(-height * k // 8), -(-width * k // 8)
        if of_height >= min(min_side, height) and of_width >= min(min_side, width):
            return of_height, of_width
    return height, width


def _check_cost(data: bytes, header: JpegHeader, channels: int, min_side: int, max_pixels: int) -> None:
    """Refuses what would take too long, or too many bytes: the file, the pixels, and coefficients that are kept."""
    size = header.height * header.width
    scans_at_most, bytes_at_most = len(data) // SCAN_BYTES, len(data) + BYTES_AT_MOST * (channels + 4) * size
    if scans_at_most * size <= MOST_SCANS * max_pixels and bytes_at_most <= MEMORY:
        return  # it is too small to be any trouble, so that nothing has to be looked for
    kept = 0
    if header.process in _PROGRESSIVE or _components_of_first_scan(data, header) < header.components:
        kept = COEFFICIENT_BYTES * header.coefficients
        scans = data.count(b"\xff\xda")  # inside a scan only 0, or the number of a restart, follows a byte 0xFF
        if scans > MOST_SCANS and scans * header.height * header.width > MOST_SCANS * max_pixels:
            raise UnreadableImage(f"{scans} scans of {header.width}×{header.height} pixels would take too long")
    short = min(header.height, header.width)
    eighths = min(8, max(1, -(-8 * min_side // max(short, 1)))) if min_side > 0 else 8
    pixels = header.height * header.width * eighths * eighths // 64
    channels += 4 if header.components == 4 else 0  # what Pillow keeps of it
    copies = 1 + (header.components == 1 and channels == 3) / 3 + (header.orientation > 1)
    needed = len(data) + kept + int(pixels * channels * copies)
    check_memory(f"a JPEG of {header.width}×{header.height} pixels", needed, max_pixels)


def _components_of_first_scan(data: bytes, header: JpegHeader) -> int:
    return next((data[start + 2] for marker, start, _, _ in segments(data, header.end) if marker == _SCAN), 0)


def check_within(data: bytes, most_pixels: int) -> None:
    """Looks for damage in a JPEG that lies in another file and is decoded by another library.

    A side of one pixel stands for an eighth of the size: all of the scan is read, and little of it computed. What
    libjpeg cannot scale is decoded whole: asked for less, it would write beyond the memory that it is given.

    Args:
        data: of the JPEG.
        most_pixels: of the part of the image that it is. One that says it has more is not decoded whole.

    Raises:
        ValueError: a warning or an error of libjpeg.
    """
    header = find_header(data)
    if header is None or header.process in _BY_CODE:
        strictly(data, "GRAY", 1)
    elif header.height * header.width <= most_pixels:
        strictly(data, "RGB" if (header.process, header.components) == (_LOSSLESS, 3) else "GRAY", 0)


def strictly(data: bytes, colours: str, min_side: int, mends: int = 3) -> Array:
    """Decodes a JPEG with warnings as errors, but for those about bytes that are of no consequence for its pixels.

    Such bytes are taken out, and what is left is decoded as strictly. So a first warning, at which libjpeg stops, does
    not excuse a second one.

    Raises:
        ValueError: a warning or an error of libjpeg.
    """
    try:
        return simplejpeg.decode_jpeg(data, colours, min_height=min_side, min_width=min_side)
    except ValueError as error:
        mends_of = (_without_strays, _without_padding, _of_known_revision)
        mended = next((found for mend in mends_of if (found := mend(data, str(error))) is not None), None)
        if mended is None or mended == data or not mends:
            raise
        try:
            return strictly(mended, colours, min_side, mends - 1)
        except ValueError as later:
            raise (later if str(later).startswith(DAMAGED) else error) from None


def _without_strays(data: bytes, warning: str) -> bytes | None:
    """The file without bytes between the segments of its header and without its colour profile, which is not applied.

    None where the warning is about something else. Bytes that may have been a segment on colours are left, and with
    them the warning.
    """
    found = re.search(r"extraneous bytes before marker 0x([0-9a-f]{2})|bad ICC marker", warning)
    if found is None or found[1] == "d9":
        return None
    kept, last = [b"\xff\xd8"], len(data)
    for marker, start, end, stray in segments(data):
        between = data[start - 2 - stray : start - 2]
        if b"Adobe" in between or b"JFIF" in between:
            return None
        if marker == _SCAN:
            last = start
            break
        if marker != 0xE2:
            kept.append(b"\xff" + bytes([marker]) + data[start:end])
    return b"".join([*kept, b"\xff\xda", data[last:]])


def _without_padding(data: bytes, warning: str) -> bytes | None:
    """The file without equal bytes between the last pixel and the end marker, with which some cameras fill it up.

    All of them are taken out, not only those that libjpeg calls extraneous: when the end of a scan was overwritten with
    equal bytes, the decoder takes the first of them for pixels. Without any, such a file ends too early.
    """
    found = re.search(r"(\d+) extraneous bytes before marker 0xd9", warning)
    end = data.rfind(b"\xff\xd9")
    if found is None or end <= 0:
        return None
    filled = _filled(data)
    return data[: end - filled] + data[end:] if filled >= int(found[1]) else None


def _of_known_revision(data: bytes, warning: str) -> bytes | None:
    """The file with 1 for the revision of JFIF, of which there is no other; it says nothing of the pixels."""
    if "unknown JFIF revision" not in warning:
        return None
    at = next((s + 7 for marker, s, _, _ in segments(data) if marker == 0xE0 and data[s + 2 : s + 6] == b"JFIF"), 0)
    return data[:at] + b"\1" + data[at + 1 :] if at else None


def _filled(data: bytes) -> int:
    """How many equal bytes there are before the end marker."""
    end = max(data.rfind(b"\xff\xd9"), 1)
    return end - len(data[:end].rstrip(data[end - 1 : end]))


def _has_all_scans(data: bytes) -> bool:
    """Whether the scans of a progressive JPEG give every coefficient of each component to its last bit.

    Without the last scans such a file is a whole image of lower quality, and no warning tells that they are missing.
    """
    left: dict[int, list[int]] = {}
    first = next((start - 2 for marker, start, _, _ in segments(data) if marker == _SCAN), len(data))
    stop, at = data.find(b"\xff\xd9", first), first
    while 0 <= at < stop:
        count = data[at + 4]
        low, high, bits = data[at + 5 + 2 * count : at + 8 + 2 * count]
        for component in data[at + 5 : at + 5 + 2 * count : 2]:
            bits_left = left.setdefault(component, [1] * 64)
            bits_left[low : high + 1] = [bits & 15] * (min(high, 63) + 1 - low)
        at = data.find(b"\xff\xda", at + 2)
    return not any(bits for bits_left in left.values() for bits in bits_left)
