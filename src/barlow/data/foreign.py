"""What a file is that is none of the formats that are read: there is more to say than "not an image"."""

import re
from collections.abc import Sequence

START = 512
"""How many bytes from a file's beginning are looked at."""

_NAMES = (
    (0, b"8BPS", "PSD"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (128, b"DICM", "DICOM"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\x93NUMPY", "NumPy array"),
    (0, b"PK\x03\x04", "ZIP archive"),
    (0, b"\x1f\x8b", "gzip archive"),
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
)
"""The bytes at an offset, by which a format is recognised."""

_BRANDS = (
    (b"avif", "AVIF"),
    (b"avis", "AVIF"),
    (b"hei", "HEIC"),
    (b"hev", "HEIC"),
    (b"mif1", "HEIF"),
    (b"crx ", "CR3"),
)
"""Brands of files that begin as MP4 does (ISO 14496-12), the more telling ones first."""

_HEADED = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8", "JPEG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"RIFF", "WebP or another RIFF file"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
)
"""How the formats that are read begin."""


def called(start: bytes, read: Sequence[str]) -> str:
    """What a file is that cannot be opened, in a few words, from its first `START` bytes; `read` are the formats
    that can be."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"version https://git-lfs"):
        return "not an image but a Git LFS pointer to it: run `git lfs pull`"
    if re.match(rb"<!doctype html|<html|<head|<body", text, re.IGNORECASE):
        return "not an image but an HTML page: download it again, servers send such in place of a file"
    if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!--", b"<!DOCTYPE svg")) and b"<svg" in text):
        return f"SVG is not one of the formats read ({', '.join(read)})"
    if start[4:8] == b"ftyp":
        brands = [start[8:12], *(start[at : at + 4] for at in range(16, min(_length(start), len(start)), 4))]
        for beginning, name in _BRANDS:
            if any(brand.startswith(beginning) for brand in brands):
                return f"{name} is not one of the formats read ({', '.join(read)})"
    for offset, magic, name in _NAMES:
        if start[offset : offset + len(magic)] == magic:
            return f"{name} is not one of the formats read ({', '.join(read)})"
    for magic, name in _HEADED:
        if start.startswith(magic):
            return f"damaged {name}: it is cut off, or its header is broken or of a kind that is not read"
    if not start.strip(b"\0"):
        return "not an image: it begins with zeros, as an unfinished download does"
    return f"not an image, or a damaged header (formats read: {', '.join(read)})"


def _length(start: bytes) -> int:
    """Of the first box of a file that begins as MP4 does."""
    return int.from_bytes(start[:4], "big")
