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
from barlow.limits import NPY_HEADER_BYTES, PNG_CHUNKS, TIFF_PARTS, TIFF_TAGS


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


def refusals(data: bytes, seconds: float = 1, megabytes: float = 10) -> str:
    """The line with which a file is refused, by its header and by decoding, neither of which takes long or much."""
    with spared(seconds, megabytes + len(data) / 1e6):
        with pytest.raises(UnreadableImage) as of_header:
            read_header(io.BytesIO(data))
        with pytest.raises(UnreadableImage) as of_pixels:
            decode(data)
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
