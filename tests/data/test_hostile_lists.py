"""Small files that would take gigabytes or minutes: bombs in .npz, TIFF and PNG. Each is made here."""

import io
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from damaged import png_chunk, tiff
from PIL import Image

from barlow.data.decoding import UnreadableImage, decode, decode_with_header, read_header
from barlow.limits import GIF_BLOCK_BYTES, GIF_BLOCKS, NPY_HEADER_BYTES, PNG_CHUNKS, TIFF_PARTS, TIFF_TAGS


@contextmanager
def spared(seconds: float, megabytes: float) -> Iterator[None]:
    """What is done inside takes no more."""
    tracemalloc.start()
    began = time.thread_time()
    try:
        yield
        assert time.thread_time() - began < seconds
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
    finally:
        tracemalloc.stop()


def _refused(data: bytes) -> "tuple[pytest.ExceptionInfo[UnreadableImage], pytest.ExceptionInfo[UnreadableImage]]":
    with pytest.raises(UnreadableImage) as of_header:
        read_header(io.BytesIO(data))
    with pytest.raises(UnreadableImage) as of_pixels:
        decode(data)
    return of_header, of_pixels


def refusals(data: bytes, seconds: float = 1, megabytes: float = 10) -> str:
    """The line with which a file is refused, by its header and by decoding, neither of which takes long or much."""
    began = time.thread_time()
    _refused(data)
    assert time.thread_time() - began < seconds, "without the counting of memory, which takes longer than the work"
    with spared(10 * seconds, megabytes + len(data) / 1e6):
        of_header, of_pixels = _refused(data)
    assert of_header.value.reason == of_pixels.value.reason
    assert len(of_header.value.reason.splitlines()) == 1
    return of_header.value.reason


# --- .npz -----------------------------------------------------------------------------------------------------------


def npy(image: np.ndarray) -> bytes:
    made = io.BytesIO()
    np.save(made, image)
    return made.getvalue()


def npz(member: bytes, way: int, others: int = 0) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", way) as archive:
        archive.writestr("image.npy", member)
        for number in range(others):
            archive.writestr(f"{number}.txt", b"")
    return made.getvalue()


GREY = np.arange(24 * 24, dtype=np.uint8).reshape(24, 24)


@pytest.mark.parametrize("way", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_whose_inflating_has_no_limit_is_refused(way: int) -> None:
    reason = refusals(npz(npy(GREY) + bytes(60_000_000), way))
    assert "np.savez_compressed" in reason


@pytest.mark.parametrize("way", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_npz_as_numpy_writes_it_is_read(way: int) -> None:
    assert decode(npz(npy(GREY), way), channels=1)[:, :, 0].tolist() == GREY.tolist()


def test_zeros_behind_the_array_of_an_npz_are_not_inflated() -> None:
    data = npz(npy(GREY) + bytes(60_000_000), zipfile.ZIP_DEFLATED)
    with spared(1, 10):
        assert decode(data, channels=1).shape == (24, 24, 1)


@pytest.mark.parametrize("way", [None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_header_of_an_array_has_a_length_that_is_looked_at_first(way: int | None) -> None:
    length = 60_000_000
    member = b"\x93NUMPY\x02\x00" + struct.pack("<I", length) + b" " * length
    reason = refusals(member if way is None else npz(member, way))
    assert f"{length:,}" in reason
    assert f"{NPY_HEADER_BYTES:,} are allowed" in reason


def test_an_archive_of_many_members_is_refused_before_they_are_listed() -> None:
    assert "list of members" in refusals(npz(npy(GREY), zipfile.ZIP_STORED, others=5_000))


# --- TIFF -----------------------------------------------------------------------------------------------------------

DEEP = {256: 1, 258: 16, 259: 1, 262: 1, 277: 1, 278: 1}
"""A TIFF of one column in 16 bits, each pixel a strip, but for its height (tag 257)."""


def listing(entries: list[tuple[int, int, int, int]], body: bytes = b"", following: int = 0) -> bytes:
    """A TIFF of a directory at its end: tag, type, number of values, and the value or where it begins."""
    start = struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + struct.pack("<H", len(entries))
    return start + b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries)) + struct.pack("<I", following)


def described(height: int, bits: int) -> list[tuple[int, int, int, int]]:
    tags = DEEP | {257: height, 258: bits, 278: height}
    return [(tag, 4, 1, value) for tag, value in tags.items()]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("tags", [[40_000 + k for k in range(400)], [339] * 400])
def test_tags_of_a_tiff_that_all_claim_the_same_bytes_are_refused(tags: list[int], bits: int) -> None:
    much = 1 << 18
    entries = [*described(4, bits), (273, 4, 1, 8), (279, 4, 1, 8), *((tag, 1, much, 8) for tag in tags)]
    assert "tags claim" in refusals(listing(entries, bytes(much)))


def test_tags_that_are_not_used_are_not_kept() -> None:
    much = 1 << 18
    entries = [*described(4, 16), (273, 4, 1, 8), (279, 4, 1, 8), *((40_000 + k, 1, much, 8) for k in range(2))]
    data = listing(entries, bytes(much))
    with spared(1, 1.5):
        assert decode(data, channels=1).shape == (4, 1, 1)


def test_a_tiff_of_very_many_tags_is_refused() -> None:
    entries = [*described(4, 8), (273, 4, 1, 8), (279, 4, 1, 8), *[(40_000, 3, 1, 0)] * TIFF_TAGS]
    assert f"at most {TIFF_TAGS:,}" in refusals(listing(entries, bytes(8)))


@pytest.mark.parametrize(("bits", "way"), [(16, 1), (16, 8), (16, 5), (8, 1), (8, 8)])
def test_strips_of_a_tiff_that_overlap_many_times_are_refused(bits: int, way: int) -> None:
    many, long = 2_000, 1_000_000
    lists = struct.pack(f"<{many}I", *[8] * many), struct.pack(f"<{many}I", *[long] * many)
    body = bytes(long) + b"".join(lists)
    tags = DEEP | {257: many, 258: bits, 259: way}
    places = [(273, 4, many, 8 + long), (279, 4, many, 8 + long + 4 * many)]
    data = listing([*((tag, 4, 1, value) for tag, value in tags.items()), *places], body)
    assert "strips or tiles claim" in refusals(data)


def test_strips_that_share_their_bytes_a_few_times_are_read() -> None:
    places = [(273, 3, 2, 8 | 8 << 16), (279, 3, 2, 8 | 8 << 16)]
    tags = {256: 4, 257: 2, 258: 16, 259: 1, 262: 1, 277: 1, 278: 1}
    data = listing([*((tag, 4, 1, value) for tag, value in tags.items()), *places], bytes(range(8)))
    pixels = decode(data, channels=1)
    assert pixels[0].tolist() == pixels[1].tolist()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_of_a_million_strips_is_refused(bits: int) -> None:
    many = 1_000_000
    lists = struct.pack("<I", 8) * many + struct.pack("<I", 2) * many
    tags = DEEP | {257: many, 258: bits}
    places = [(273, 4, many, 8), (279, 4, many, 8 + 4 * many)]
    data = listing([*((tag, 4, 1, value) for tag, value in tags.items()), *places], lists)
    reason = refusals(data)
    assert "1,000,000 strips or tiles" in reason
    assert f"at most {TIFF_PARTS:,}" in reason


def test_a_tiff_of_many_strips_that_libtiff_would_undo_is_refused() -> None:
    tags = DEEP | {257: 20_000, 259: 32_773}
    assert "20,000 strips or tiles" in refusals(tiff([b"\x01ab"] * 20_000, tags))


def test_tiles_that_are_not_there_take_no_memory() -> None:
    tags = {256: 5_000, 257: 5_000, 258: 16, 259: 1, 262: 1, 277: 1, 322: 1, 323: 1, 324: 8, 325: 2}
    data = listing([(tag, 4, 1, value) for tag, value in tags.items()], b"ab")
    with spared(1, 60), pytest.raises(UnreadableImage, match="1 strips or tiles of 25000000"):
        decode(data, channels=1)


# --- Frames and chunks ----------------------------------------------------------------------------------------------


def test_the_pages_of_a_tiff_are_not_counted() -> None:
    page = [*described(2, 8), (273, 4, 1, 8), (279, 4, 1, 2)]
    whole, step = b"ab", 2 + 12 * len(page) + 4
    pages = 20_000
    for number in range(pages):
        at = 8 + 2 + step * (number + 1)
        whole += listing(page, following=at if number + 1 < pages else 0)[8:]
    data = struct.pack("<2sHI", b"II", 42, 10) + whole
    with spared(1, 1 + 2 * len(data) / 1e6):
        assert read_header(io.BytesIO(data)).multiframe
        pixels, header = decode_with_header(data)
    assert header.multiframe
    assert pixels[:, 0, 0].tolist() == list(b"ab")


def test_the_frames_of_a_gif_are_not_counted() -> None:
    made = io.BytesIO()
    Image.new("L", (1, 1)).save(made, "GIF")
    once = made.getvalue()
    frame = once[once.index(b",", 13) : -1]
    data = once[:-1] + frame * 100_000 + b";"
    with spared(1, 1 + 2 * len(data) / 1e6):
        assert read_header(io.BytesIO(data)).multiframe
        assert decode_with_header(data)[1].multiframe


def many_chunks(count: int) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(b"\0\7"))
    empty = png_chunk(b"IDAT", b"")
    return b"\x89PNG\r\n\x1a\n" + header + pixels + empty * count + png_chunk(b"IEND", b"")


def test_a_png_of_a_million_chunks_is_refused() -> None:
    assert f"more than {PNG_CHUNKS:,} chunks" in refusals(many_chunks(1_000_000))


def test_a_png_of_some_thousand_chunks_is_read() -> None:
    assert decode(many_chunks(10_000), channels=1).tolist() == [[[7]]]


def gif(kind: str, count: int) -> bytes:
    """An image of 2×2 pixels whose file has very many blocks of one byte, or very many bytes that begin nothing."""
    made = io.BytesIO()
    Image.new("P", (2, 2)).save(made, "GIF")
    whole = made.getvalue()
    pixels = whole.rindex(b",")
    block = {"comment": b"!\xfe" + b"\x01x" * count + b"\0", "comments": b"!\xfe\0" * count, "stray": b"?" * count}
    if kind in block:
        return whole[:pixels] + block[kind] + whole[pixels:]
    code_size = pixels + 10
    return whole[: code_size + 1] + b"\x01\x44" * count + whole[code_size + 1 :]


@pytest.mark.parametrize("kind", ["comment", "comments", "stray", "pixels"])
def test_a_gif_of_a_million_blocks_is_refused(kind: str) -> None:
    data = gif(kind, 1_000_000)
    most = GIF_BLOCKS + len(data) // GIF_BLOCK_BYTES
    assert f"more than {most:,} blocks" in refusals(data)


@pytest.mark.parametrize("kind", ["comment", "comments", "stray"])
def test_a_gif_of_some_thousand_blocks_is_read(kind: str) -> None:
    assert decode(gif(kind, 10_000), channels=1).shape == (2, 2, 1)
