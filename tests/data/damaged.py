"""Image files that are damaged, odd or of rare kinds, made from nothing: what tests of reading images feed to it."""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image


def photograph(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """Smooth shapes with some noise, (height, width, 3): it is compressed about as a photograph is."""
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(draws.uniform(2, 9) * x + draws.uniform(2, 9) * y + draws.uniform(0, 6)) for _ in range(3)]
    pixels = 128 + 100 * np.stack(waves, axis=2) + draws.normal(0, 6, (height, width, 3))
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def encode(image: np.ndarray | Image.Image, form: str, **options: object) -> bytes:
    """The bytes of a file, written by Pillow."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, form, **options)
    return buffer.getvalue()


def overwritten(data: bytes, start: int, stop: int, byte: int = 0) -> bytes:
    """The same file with equal bytes from `start` to before `stop`."""
    return data[:start] + bytes([byte]) * (stop - start) + data[stop:]


def zero_tail(data: bytes, kept: float) -> bytes:
    """A download into a file of the right length that ended early: only the first part was written."""
    return overwritten(data, int(kept * len(data)), len(data))


def scan_start(data: bytes) -> int:
    """Where the pixels of the first scan of a JPEG begin."""
    at = data.find(b"\xff\xda")
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def lossless_jpeg(
    height: int, width: int, components: int = 1, bits: int = 8, process: int = 0xC3, extra: bytes = b""
) -> bytes:
    """A JPEG in which every difference from the prediction is zero, so that every sample is half of the range.

    Its only Huffman code is one bit long and stands for no difference (ITU-T T.81, annex H).
    """
    ids = [bytes([k + 1]) for k in range(components)]
    frame = struct.pack(">BHHB", bits, height, width, components) + b"".join(id + b"\x11\0" for id in ids)
    scan = bytes([components]) + b"".join(id + b"\0" for id in ids) + bytes([1, 0, 0])
    return b"".join(
        (
            b"\xff\xd8",
            extra,
            jpeg_segment(process, frame),
            jpeg_segment(0xC4, b"\0" + bytes([1] + [0] * 15) + b"\0"),
            jpeg_segment(0xDA, scan),
            bytes(-(-height * width * components // 8)),
            b"\xff\xd9",
        )
    )


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(depth: int, colour: int, rows: list[bytes], width: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of packed rows; colour 0 is grey, 2 RGB, 3 palette. `chunks` go between its header and its pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    between = b"".join(png_chunk(kind, chunk) for kind, chunk in chunks)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + between + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    )


def tiff(strips: list[bytes], tags: dict[int, int], order: str = "<", big: bool = False) -> bytes:
    """A TIFF of one directory. `tags` has a value for each number; strips are given as they are stored."""
    head = 16 if big else 8
    offsets, at = [], head
    for strip in strips:
        offsets.append(at)
        at += len(strip)
    lists = {273: offsets, 279: [len(strip) for strip in strips]}
    tail, entries = b"", []
    for tag, values in sorted({**{tag: [value] for tag, value in tags.items()}, **lists}.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        fits = 8 if big else 4
        if len(packed) > fits:
            place = struct.pack(order + ("Q" if big else "I"), at + len(tail))
            tail += packed
        else:
            place = packed.ljust(fits, b"\0")
        entries.append(struct.pack(order + ("HHQ" if big else "HHI"), tag, 4, len(values)) + place)
    directory = struct.pack(order + ("Q" if big else "H"), len(entries)) + b"".join(entries) + bytes(8 if big else 4)
    mark = b"II" if order == "<" else b"MM"
    start = (
        struct.pack(order + "HHHQ", 43, 8, 0, at + len(tail)) if big else struct.pack(order + "HI", 42, at + len(tail))
    )
    return mark + start + b"".join(strips) + tail + directory


def lossless_tiff(height: int, width: int, components: int) -> bytes:
    """A TIFF of one strip, which is a lossless JPEG."""
    samples = {258: 8, 262: 1 if components == 1 else 2, 277: components}
    tags = {256: width, 257: height, 259: 7, 278: height} | samples
    return tiff([lossless_jpeg(height, width, components)], tags)


def planar_tiff(image: np.ndarray) -> bytes:
    """A TIFF of three planes, each a strip of its own that is deflated."""
    height, width, _ = image.shape
    strips = [zlib.compress(image[:, :, k].tobytes()) for k in range(3)]
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 2, 277: 3, 278: height, 284: 2}
    return tiff(strips, tags)


def tiff_strips(data: bytes) -> list[tuple[int, int]]:
    """Offset and length of each strip of a TIFF."""
    with Image.open(io.BytesIO(data)) as image:
        return list(zip(image.tag_v2[273], image.tag_v2[279], strict=True))


@dataclass(frozen=True)
class Made:
    """A file that was made, and whether its pixels can be had whole."""

    name: str
    data: bytes
    readable: bool


def two_hundred(seed: int = 0) -> list[Made]:
    """Two hundred files, most of them damaged in ways that the file itself gives away."""
    made = [each for kind in (_jpegs, _pngs, _tiffs, _others, _lossless) for each in kind(seed)]
    assert len(made) == 200
    assert len({each.name for each in made}) == 200
    return made


JPEGS: dict[str, dict[str, object]] = {
    "baseline": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
}


def _jpegs(seed: int) -> Iterator[Made]:
    for number, (name, options) in enumerate(JPEGS.items()):
        data = encode(photograph(seed + number), "JPEG", quality=85, **options)
        start, end = scan_start(data), len(data) - 2
        for percent in (10, 50, 90):
            at = start + (end - start) * percent // 100
            for byte in (0x00, 0x55, 0xFF):
                yield Made(f"{name}-filled-{byte:02x}-from-{percent}.jpg", overwritten(data, at, end, byte), False)
            yield Made(f"{name}-zero-tail-from-{percent}.jpg", overwritten(data, at, len(data)), False)
            yield Made(f"{name}-cut-at-{percent}.jpg", data[:at], False)
        yield Made(f"{name}-whole.jpg", data, True)
        yield Made(f"{name}-padded.jpg", data[:end] + bytes(30) + data[end:], True)


def _pngs(seed: int) -> Iterator[Made]:
    for number, (name, form) in enumerate({"colour": "RGB", "grey": "L", "palette": "P"}.items()):
        image = Image.fromarray(photograph(seed + 10 + number)).convert(form)
        data = encode(image, "PNG")
        for percent in (30, 60, 90, 99):
            yield Made(f"{name}-zero-tail-from-{percent}.png", zero_tail(data, percent / 100), False)
            yield Made(f"{name}-cut-at-{percent}.png", data[: len(data) * percent // 100], False)
            at = len(data) * percent // 100 - 80
            yield Made(f"{name}-zeros-at-{percent}.png", overwritten(data, at, at + 64), False)
        yield Made(f"{name}-whole.png", data, True)
        yield Made(f"{name}-bytes-behind.png", data + bytes(100), True)
        yield Made(f"{name}-no-end.png", data[:-12], False)


def _tiffs(seed: int) -> Iterator[Made]:
    kinds: dict[str, dict[str, object]] = {
        "deflate": {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 40}},
        "differenced": {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 40, 317: 2}},
        "jpeg": {"compression": "jpeg", "quality": 85, "tiffinfo": {278: 40}},
    }
    for number, (name, options) in enumerate(kinds.items()):
        data = encode(photograph(seed + 20 + number), "TIFF", **options)
        strips = tiff_strips(data)
        for k, (offset, length) in enumerate(strips[:3]):
            for percent in (20, 50, 70):
                at = offset + length * percent // 100
                name_of_file = f"{name}-strip-{k}-zeros-at-{percent}.tif"
                yield Made(name_of_file, overwritten(data, at, at + min(64, length // 5)), False)
        yield Made(f"{name}-whole.tif", data, True)
        for percent in (30, 60, 90):
            yield Made(f"{name}-cut-at-{percent}.tif", data[: len(data) * percent // 100], False)

    planar = planar_tiff(photograph(seed + 25))
    yield Made("planar-whole.tif", planar, True)
    for k, (offset, length) in enumerate(tiff_strips(planar)):
        yield Made(
            f"planar-plane-{k}-zeros.tif", overwritten(planar, offset + length // 2, offset + length // 2 + 64), False
        )


FOREIGN = {
    "page": b"<!DOCTYPE html><html><body>404</body></html>",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n",
    "drawing": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "jxl": b"\xff\x0a" + bytes(30),
    "scan": bytes(128) + b"DICM" + bytes(40),
    "avif": b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(40),
}
"""The beginnings of files of other kinds, by what they are."""


def _others(seed: int) -> Iterator[Made]:
    for number, form in enumerate(("WEBP", "BMP", "GIF")):
        data = encode(photograph(seed + 30 + number), form)
        for percent in (20, 50, 90):
            yield Made(f"{form}-cut-at-{percent}.{form.lower()}", data[: len(data) * percent // 100], False)
    yield Made("empty.jpg", b"", False)
    yield Made("zeros.jpg", bytes(5_000), False)
    for name, start in FOREIGN.items():
        yield Made(f"{name}.jpg", start, False)


def _lossless(seed: int) -> Iterator[Made]:
    for components in (1, 3):
        for bits in (2, 4, 8, 12):
            for side in (40, 400, 401):
                data = lossless_jpeg(side, side, components, bits)
                yield Made(f"lossless-{components}x{bits}-bits-{side}.jpg", data, bits <= 8)
        yield Made(f"lossless-{components}.tif", lossless_tiff(400, 401, components), True)
    yield Made("hierarchical.jpg", lossless_jpeg(400, 400, process=0xC7), False)
