"""Files as instruments write them: TIFFs of any depth and number of bands, made by hand from the standard."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {"u": 1, "i": 2, "f": 3}
DEFLATE = 8


def tiff(
    values: np.ndarray,
    *,
    bits: int | None = None,
    order: str = "<",
    photometric: int = 1,
    extra: tuple[int, ...] | None = None,
    compress: bool = False,
    predictor: int = 1,
    apart: bool = False,
    rows_per_strip: int = 5,
    tile: int | None = None,
    big: bool = False,
    orientation: int = 1,
    nodata: str | None = None,
) -> bytes:
    """A TIFF of (h, w) or (h, w, bands) numbers.

    Args:
        values: what it holds.
        bits: of each number, packed; those of the type if not given.
        order: of the bytes, < or >.
        photometric: 0 where white is zero, 1 where black is, 2 for RGB.
        extra: what the bands beside grey or RGB are: 0 unsaid, 1 premultiplied alpha, 2 alpha.
        compress: by Deflate.
        predictor: 1 none, 2 differences of numbers, 3 of the bytes of floats.
        apart: whether bands lie one after the other.
        rows_per_strip: of strips.
        tile: side of tiles, in place of strips.
        big: BigTIFF.
        orientation: of EXIF.
        nodata: GDAL's text for a missing number.
    """
    values = values if values.ndim == 3 else values[:, :, None]
    h, w, bands = values.shape
    bits = bits or 8 * values.dtype.itemsize
    planes = [values[:, :, b : b + 1] for b in range(bands)] if apart else [values]
    segments = []
    for plane in planes:
        if tile is None:
            blocks = [plane[top : top + rows_per_strip] for top in range(0, h, rows_per_strip)]
        else:
            padded = np.zeros((-(-h // tile) * tile, -(-w // tile) * tile, plane.shape[2]), plane.dtype)
            padded[:h, :w] = plane
            corners = [(t, left) for t in range(0, padded.shape[0], tile) for left in range(0, padded.shape[1], tile)]
            blocks = [padded[t : t + tile, left : left + tile] for t, left in corners]
        for block in blocks:
            body = _body(block, bits, order, predictor)
            segments.append(zlib.compress(body) if compress else body)
    entries: dict[int, Any] = {
        256: w, 257: h, 258: (bits,) * bands, 259: DEFLATE if compress else 1, 262: photometric,
        274: orientation, 277: bands, 284: 2 if apart else 1, 317: predictor, 339: (KINDS[values.dtype.kind],) * bands,
    }  # fmt: skip
    entries |= {322: tile, 323: tile} if tile else {278: rows_per_strip}
    base = 3 if photometric == 2 else 1
    extra = (0,) * (bands - base) if extra is None else extra
    if extra:
        entries[338] = extra
    if nodata is not None:
        entries[42113] = nodata.encode() + b"\0"
    return _file(segments, entries, order, big, tiled=tile is not None)


def _body(block: np.ndarray, bits: int, order: str, predictor: int) -> bytes:
    rows = block.shape[0]
    if bits % 8:
        shifts = np.arange(bits - 1, -1, -1)
        each = (block[..., None].astype(np.int64) >> shifts & 1).astype(np.uint8)
        return np.packbits(each.reshape(rows, -1), axis=1).tobytes()
    if predictor == 3:
        raw = block.astype(block.dtype.newbyteorder(">")).reshape(rows, -1)
        size = raw.dtype.itemsize
        split = raw.view(np.uint8).reshape(rows, -1, size).transpose(0, 2, 1).reshape(rows, -1, block.shape[2])
        first = np.zeros_like(split[:, :1])
        return np.diff(split, axis=1, prepend=first).astype(np.uint8).tobytes()
    if predictor == 2:
        whole = np.ascontiguousarray(block).view(f"u{block.dtype.itemsize}")
        block = np.diff(whole, axis=1, prepend=np.zeros_like(whole[:, :1])).view(block.dtype)
    return block.astype(block.dtype.newbyteorder(order)).tobytes()


def _file(segments: list[bytes], entries: dict[int, Any], order: str, big: bool, *, tiled: bool) -> bytes:
    start = 16 if big else 8
    offsets, body = [], b""
    for segment in segments:
        offsets.append(start + len(body))
        body += segment + b"\0" * (len(segment) % 2)
    entries = entries | {324 if tiled else 273: tuple(offsets), 325 if tiled else 279: tuple(map(len, segments))}
    at = start + len(body)
    count, inline = len(entries), 8 if big else 4
    heap_at = at + (8 + 20 * count + 8 if big else 2 + 12 * count + 4)
    directory, heap = struct.pack(f"{order}{'Q' if big else 'H'}", count), b""
    for tag, value in sorted(entries.items()):
        if isinstance(value, bytes):
            kind, number, packed = 2, len(value), value
        else:
            numbers = value if isinstance(value, tuple) else (value,)
            kind, number, packed = 4, len(numbers), struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(packed) > inline:
            place = struct.pack(f"{order}{'Q' if big else 'I'}", heap_at + len(heap))
            heap += packed + b"\0" * (len(packed) % 2)
        else:
            place = packed.ljust(inline, b"\0")
        directory += struct.pack(f"{order}HH{'Q' if big else 'I'}", tag, kind, number) + place
    directory += b"\0" * (8 if big else 4)
    mark = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    mark += struct.pack(f"{order}HHQ", 8, 0, at) if big else struct.pack(f"{order}I", at)
    return mark + body + directory + heap


def scenes(folder: Path, count: int, *, bands: int, classes: int = 2, side: int = 24, seed: int = 0) -> Path:
    """Labelled uint16 images of any number of bands: the class says which bands carry a pattern, and which are noise.

    The numbers are those of 12 bits: 4,095 would be white, and none comes near 65,535.
    """
    draws = np.random.default_rng(seed)
    for i in range(count):
        label = i % classes
        y, x = np.mgrid[0:side, 0:side] + draws.integers(0, side, 2)[:, None, None]
        image = draws.normal(1_200, 60, (side, side, bands))
        pattern = 900 * np.sin(2 * np.pi * (x if label % 2 else y) / 8)
        image[:, :, label % bands :: classes] += pattern[:, :, None]
        home = folder / f"class{label}"
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{i:03}.tif").write_bytes(tiff(image.clip(0, 4_095).astype(np.uint16), compress=i % 2 == 0))
    return folder
