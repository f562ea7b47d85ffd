"""Decoding an image takes a bounded amount of memory, whatever its file says; a refusal names the limit to raise."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from damaged import encode, lossless_jpeg, photograph
from nightly_cases import nightly_but
from PIL import Image

from barlow.data.decoding import UnreadableImage, decode

MOST = 300e6
"""Bytes that a thread may take to decode an image, by the default limit."""


def spread(side: int, form: str, mode: str = "RGB", **options: object) -> bytes:
    """A large image of few different rows, which is written fast and compressed to little."""
    rows = np.zeros((side, side), np.uint8)
    rows[::7, ::5] = 90
    image = Image.fromarray(rows)
    wide = {"F": np.float32, "I;16": np.uint16, "I": np.int32}
    image = Image.fromarray(rows.astype(wide[mode])) if mode in wide else image.convert(mode)
    return encode(image, form, **options)


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


DEFLATE = {"compression": "tiff_adobe_deflate"}
LARGE = {
    "JPEG": lambda: spread(8_000, "JPEG"),
    "grey JPEG": lambda: spread(8_000, "JPEG", "L"),
    "progressive JPEG": lambda: spread(6_000, "JPEG", progressive=True),
    "rotated JPEG": lambda: spread(6_600, "JPEG", exif=rotated()),
    "CMYK JPEG": lambda: spread(6_000, "JPEG", "CMYK"),
    "lossless JPEG": lambda: lossless_jpeg(8_000, 8_000, 1),
    "PNG": lambda: spread(6_300, "PNG", compress_level=1),
    "grey PNG": lambda: spread(8_000, "PNG", "L", compress_level=1),
    "16-bit PNG": lambda: spread(7_500, "PNG", "I;16", compress_level=1),
    "GIF": lambda: spread(8_000, "GIF", "P"),
    "WebP": lambda: spread(4_300, "WEBP", lossless=True, method=0),
    "BMP": lambda: spread(5_300, "BMP"),
    "float TIFF": lambda: spread(6_300, "TIFF", "F", **DEFLATE),
    "int TIFF": lambda: spread(6_300, "TIFF", "I", **DEFLATE),
    "16-bit TIFF": lambda: spread(7_500, "TIFF", "I;16", **DEFLATE),
    "colour TIFF": lambda: spread(6_300, "TIFF", **DEFLATE),
    "TIFF of one strip": lambda: spread(5_200, "TIFF", tiffinfo={278: 5_200}, **DEFLATE),
    "rotated TIFF": lambda: spread(5_000, "TIFF", tiffinfo={274: 6}, **DEFLATE),
}
"""Images about as large as are accepted by the default limit."""

TOO_LARGE = {
    "float TIFF": lambda: spread(8_000, "TIFF", "F", **DEFLATE),
    "16-bit TIFF": lambda: spread(8_000, "TIFF", "I;16", **DEFLATE),
    "PNG": lambda: spread(8_000, "PNG", compress_level=1),
    "progressive JPEG": lambda: spread(8_000, "JPEG", progressive=True),
    "WebP": lambda: spread(8_000, "WEBP", lossless=True, method=0),
}
"""Images under the limit of pixels that would take more bytes than are allowed."""

PROGRAM = textwrap.dedent("""
    import resource, sys, threading
    from damaged import encode, photograph
    from barlow.data.decoding import UnreadableImage, decode

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    for form in ("JPEG", "PNG", "TIFF", "WEBP", "GIF"):
        decode(encode(photograph(0), form))  # what every process takes once
    before = peak()

    def run():
        with open(sys.argv[1], "rb") as file:
            data = file.read()
        try:
            print(decode(data).shape)
        except UnreadableImage as error:
            print(error.reason)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    print(peak() - before)
""")


def decoded_apart(data: bytes, folder: Path) -> tuple[str, int]:
    """What a fresh process says of a file, and by how many bytes its peak of memory rose."""
    (folder / "image").write_bytes(data)
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder / "image")], capture_output=True, text=True, check=True, env=paths
    )
    *said, bytes_more = done.stdout.splitlines()
    return said[-1], int(bytes_more)


@pytest.mark.parametrize("kind", nightly_but(LARGE, "float TIFF".__eq__))
def test_the_largest_images_that_are_accepted_take_no_more(kind: str, tmp_path: Path) -> None:
    said, peak = decoded_apart(LARGE[kind](), tmp_path)
    assert said.startswith("("), said
    assert peak <= MOST


@pytest.mark.parametrize("kind", ["float TIFF", "16-bit TIFF"])
def test_an_image_of_few_bytes_and_many_values_is_refused_before_memory_is_taken(kind: str, tmp_path: Path) -> None:
    data = TOO_LARGE[kind]()
    assert len(data) < 500_000
    said, peak = decoded_apart(data, tmp_path)
    assert "--data.max_pixels" in said
    assert peak <= 20e6


@pytest.mark.nightly
@pytest.mark.parametrize("kind", TOO_LARGE)
def test_a_refusal_names_the_limit_that_allows_the_image(kind: str) -> None:
    data = TOO_LARGE[kind]()
    with pytest.raises(UnreadableImage) as caught:
        decode(data)
    enough = re.search(r"--data\.max_pixels (\d+) allows it", caught.value.reason)
    assert enough is not None
    assert decode(data, max_pixels=int(enough[1])).shape == (8_000, 8_000, 3)


def test_a_refusal_names_the_limit_of_pixels() -> None:
    with pytest.raises(UnreadableImage, match=r"4,799 \(--data\.max_pixels\)"):
        decode(encode(photograph(0, 60, 80), "PNG"), max_pixels=4_799)


def test_a_small_limit_of_pixels_is_none_of_bytes() -> None:
    assert decode(encode(photograph(0, 60, 80), "PNG"), max_pixels=4_800).shape == (60, 80, 3)


@pytest.mark.parametrize(
    ("form", "mode"), [("PNG", "RGBA"), ("PNG", "P"), ("TIFF", "F"), ("TIFF", "CMYK"), ("PNG", "LA")]
)
def test_conversion_by_rows_is_that_of_the_whole(form: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(photograph(3)).convert("L" if mode in ("F", "LA") else "RGB").convert(mode)
    data = encode(image, form)
    whole = decode(data), decode(data, channels=1)
    monkeypatch.setattr("barlow.data.decoded.BLOCK_PIXELS", 160 * 7)
    assert np.array_equal(decode(data), whole[0])
    assert np.array_equal(decode(data, channels=1), whole[1])


@pytest.mark.parametrize("ends", [None, (-1.0, 1.0)])
def test_numbers_are_scaled_by_rows_as_the_whole_is(
    ends: tuple[float, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    draws[3, 4], draws[20, 1] = np.nan, np.inf
    data = encode(Image.fromarray(draws), "TIFF")
    whole = decode(data, value_range=ends)
    assert (whole.min(), whole[20, 1, 0]) == (0, 255 if ends is None else 65_535)
    monkeypatch.setattr("barlow.data.decoded.BLOCK_PIXELS", 30 * 10)
    assert np.array_equal(decode(data, value_range=ends), whole)


INVENTORY = textwrap.dedent("""
    import resource, sys
    from damaged import encode, photograph
    from barlow.planning import facts
    from barlow.data import memory, statistics
    from barlow.data.decoding import decode
    from barlow.data.folder import FolderSource
    from barlow.data.inventory import scan

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    source = FolderSource([sys.argv[1]])
    decode(encode(photograph(0), "JPEG"))
    before = peak()
    facts.images(source)
    assert len(scan(source, sample=None, workers=1).ids) == len(source)
    statistics.measure_source(source, range(len(source)), workers=1)
    memory.hold(source, 64, workers=1)
    print(peak() - before)
""")


@pytest.mark.nightly
def test_an_inventory_takes_no_more_than_its_largest_image(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(spread(8_000, "JPEG"))
        (tmp_path / f"{number}.png").write_bytes(spread(6_300, "PNG", compress_level=1))
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    words = [sys.executable, "-c", INVENTORY, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=paths)
    assert int(done.stdout) <= MOST
