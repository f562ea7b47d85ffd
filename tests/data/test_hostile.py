"""Odd, broken and exploding files from the test suites of image libraries, and scientific TIFFs."""

import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from damaged import two_hundred
from injections import record
from PIL import Image

from barlow.data.decoding import UnreadableImage, decode_with_header
from barlow.data.folder import FolderSource
from barlow.data.inventory import TooManyUnreadable, scan
from barlow.data.memory import hold

ALLOWED = {"JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "NPY"}

NOT_AS_PILLOW = {
    "bad/imageio__chelsea_jpg.npy.jpg": ("ok_still", "NPY"),
    "ok_still/image-rs-tiff__images__extra_bits_gray_8b.tiff": ("ok_still", "two bands, of which Pillow drops one"),
    "bad/libjpeg-turbo-seeds__afl-testcases__gif__full__images__id_000640_src_000216_000634_op_splice_rep_2.gif": (
        "ok_multiframe",
        "GIF",  # damaged in a frame behind the first, which is not looked at
    ),
}
"""Where the list of what Pillow says is not what is right."""


DAMAGED = {
    "ok_still/go-fuzz__png__corpus__12c78abf392fdda9bfe61e9796fbfcc20dfe802d-1.png",
    "ok_still/go-fuzz__png__corpus__41102d75135bd5b24412585bdcde9310ae5514b7-2.png",
    "ok_still/go-fuzz__png__corpus__4930d001f211f78029c9deace8bb8671e27a5397-4.png",
    "ok_still/go-fuzz__tiff__corpus__004b591a0d7156de5a9900269fc572bb62e1e75d-6.tif",
    "ok_still/go-fuzz__tiff__corpus__18d79ab1a1fbd9e817a12f952eed94a5a66f40ef-6.tif",
}
"""Files that Pillow decodes to the end although parts of them are missing (PNG) or do not inflate (TIFF)."""


def extract(shared_data: Path, name: str, to: Path) -> Path:
    archive = shared_data / f"{name}.tar"
    if not archive.exists():
        pytest.skip(f"no {archive}")
    with tarfile.open(archive) as tar:
        tar.extractall(to, filter="data")
    return to / name


@pytest.fixture(scope="module")
def hostile(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract(shared_data, "hostile-images", tmp_path_factory.mktemp("hostile"))


def truth(hostile: Path) -> dict[str, tuple[str, str]]:
    """Relative path -> (folder, Pillow's format or "")."""
    lines = (hostile / "index.tsv").read_text(encoding="utf-8").splitlines()[1:]
    outcomes = {path: outcome.split("|") for path, _, outcome in (line.split("\t") for line in lines)}
    found = {p: (p.split("/")[0], o[1] if o[0] == "OK" and p not in DAMAGED else "") for p, o in outcomes.items()}
    return found | NOT_AS_PILLOW


def test_every_file_is_in_or_out_as_it_should_be(hostile: Path) -> None:
    wrong, foreign = [], 0
    for path, (kind, form) in truth(hostile).items():
        expected = kind.startswith("ok") and form in ALLOWED
        reason = ""
        try:
            pixels, header = decode_with_header((hostile / path).read_bytes())
        except UnreadableImage as refused:
            reason = refused.reason
            foreign += kind.startswith("ok") and path not in DAMAGED
        if bool(reason) == expected:
            wrong.append((path, kind, form, reason))
        if reason:
            assert len(reason.splitlines()) == 1
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
            assert header.multiframe == (kind == "ok_multiframe")
    assert wrong == []
    assert foreign == 124  # whole images of formats that are not opened


def test_first_frames_are_those_of_pillow(hostile: Path) -> None:
    compared = 0
    for path in sorted((hostile / "ok_multiframe").iterdir()):
        with Image.open(path) as image:
            if image.format not in ("GIF", "WEBP", "PNG") or image.mode not in ("RGB", "L"):
                continue
            first = np.asarray(image.convert("RGB")) if "transparency" not in image.info else None
        if first is not None:
            assert np.array_equal(decode_with_header(path.read_bytes())[0], first)
            compared += 1
    assert compared >= 5


def test_scanning_and_holding_agree_on_what_to_skip(hostile: Path) -> None:
    source = FolderSource([hostile])
    scanned = scan(source, sample=None)
    inventory, held = hold(source, 32)
    assert scanned.skipped == inventory.skipped
    assert scanned.multiframe == inventory.multiframe == 34
    assert len(held.ids) == len(inventory.ids)
    kinds = truth(hostile)
    for index in inventory.ids:
        assert kinds[source.locate(int(index))][0].startswith("ok")


@dataclass(frozen=True)
class Mixed:
    """A folder of good, odd and damaged files, and which of them cannot be read."""

    folder: Path
    unreadable: set[str]
    files: int
    """How many there are at least."""


def good_and_damaged(folder: Path, good: int) -> set[str]:
    """Writes so many good images of every format, and two hundred damaged and odd files; returns the unreadable."""
    draws = np.random.default_rng(0)
    forms = ("png", "jpg", "webp", "bmp", "gif", "tif")
    for number in range(good):
        image = Image.fromarray(draws.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        image.save(folder / f"{number}.{forms[number % len(forms)]}")
    (folder / "damaged").mkdir()
    for made in two_hundred():
        (folder / "damaged" / made.name).write_bytes(made.data)
    return {f"damaged/{made.name}" for made in two_hundred() if not made.readable}


@pytest.fixture(scope="module", params=["our own", "with hostile ones"])
def everything(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    """A thousand good images, the hostile files and two hundred damaged ones; or fewer, all of them made here."""
    folder = tmp_path_factory.mktemp("everything")
    if request.param == "our own":
        return Mixed(folder, good_and_damaged(folder, 100), 300)
    unreadable = good_and_damaged(folder, 1_000)
    extract(request.getfixturevalue("shared_data"), "hostile-images", folder)
    (folder / "hostile-images" / "index.tsv").rename(folder / "index.tsv")
    unreadable |= {f"hostile-images/{path}" for path, (_, form) in truth(folder).items() if form not in ALLOWED}
    return Mixed(folder, unreadable, 1_600)


def test_of_good_odd_and_damaged_files_exactly_the_bad_ones_are_skipped(everything: Mixed) -> None:
    folder, unreadable = everything.folder, everything.unreadable
    source = FolderSource([folder])
    listed = {source.locate(k) for k in range(len(source))}
    with pytest.raises(TooManyUnreadable, match="--max-bad") as caught:
        hold(source, 16, max_bad=0.01)
    assert {entry["where"] for entry in caught.value.report["skipped"]} == unreadable & listed
    inventory, held = hold(source, 16, max_bad=0.7)
    skipped = {where for _, where, _ in inventory.skipped}
    wrong = skipped ^ (unreadable & listed)
    record("good, odd and damaged image files, of which exactly the bad ones are skipped", len(listed), len(wrong))
    assert skipped == unreadable & listed
    assert all(reason for _, _, reason in inventory.skipped)
    assert len(held.ids) == len(listed - unreadable)
    assert scan(source, sample=None).skipped == inventory.skipped


PROGRAM = """
import resource, sys, threading, time
from pathlib import Path
from damaged import encode, photograph
from barlow.data.decoding import UnreadableImage, decode
from barlow.data.last_words import kept_from_the_screen

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def run():
    for path in sorted(path for path in Path(sys.argv[1]).rglob("*") if path.is_file()):
        for min_side in (0, 32):
            began = time.thread_time()
            try:
                decode(path.read_bytes(), min_side=min_side)
            except UnreadableImage:
                pass
            slowest.append((time.thread_time() - began, path.name))

slowest = []
for form in ("JPEG", "PNG", "TIFF", "WEBP", "GIF"):
    decode(encode(photograph(0), form))  # what every process takes once
before = peak()
with kept_from_the_screen():
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
late = sum(seconds > float(sys.argv[2]) for seconds, _ in slowest)
print(peak() - before, len(slowest), late, *max(slowest))
"""
MOST_SECONDS, MOST_BYTES = 2.0, 300e6


def test_none_of_them_takes_two_seconds_or_much_memory(everything: Mixed) -> None:
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    words = [sys.executable, "-c", PROGRAM, str(everything.folder), str(MOST_SECONDS)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=paths)
    peak, decoded, late, seconds, slowest = done.stdout.split()
    failures = int(late) + (int(peak) > MOST_BYTES)
    record("decodings in at most two seconds each, and 300 MB in all", int(decoded), failures)
    assert done.stderr == ""
    assert int(decoded) >= 2 * everything.files
    assert int(peak) <= MOST_BYTES
    assert float(seconds) <= MOST_SECONDS, slowest


def test_scientific_files_are_converted_or_refused_with_a_reason(shared_data: Path, tmp_path: Path) -> None:
    folder = extract(shared_data, "multi-channel", tmp_path)
    refused = {}
    for path in sorted(folder.iterdir()):
        try:
            pixels, _ = decode_with_header(path.read_bytes())
        except UnreadableImage as error:
            refused[path.name] = error.reason
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
    assert 5 <= len(refused) <= 10
    assert "4 bands" in refused["rasterio-tests__all-nodata.tif"]
    sixteen = decode_with_header((folder / "bioimage-notebooks__membrane2d.tif").read_bytes())[0]
    assert len(np.unique(sixteen)) >= 90
    assert (sixteen == 255).mean() < 0.01  # Pillow's own conversion turns nearly all of it white
