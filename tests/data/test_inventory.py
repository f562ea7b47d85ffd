"""What can be read is known before training, and a run stops rather than train on less than the user thinks."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from barlow.data.decoding import UnreadableImage
from barlow.data.folder import FolderSource
from barlow.data.inventory import in_threads, scan
from barlow.data.sources import ArraySource, open_source


def make(folder: Path, good: int, empty: int = 0, cut: int = 0, grey: bool = False) -> FolderSource:
    draws = np.random.default_rng(0)
    for number in range(good + empty + cut):
        path = folder / f"{number % 2}" / f"{number:04d}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        image = Image.fromarray(draws.integers(0, 256, (10, 20, 3), dtype=np.uint8))
        (image.convert("L") if grey else image).save(path)
        if number >= good + empty:
            path.write_bytes(path.read_bytes()[:200])  # the header is whole, the pixels are not
        elif number >= good:
            path.write_bytes(b"")
    return FolderSource([folder])


def test_everything_readable(tmp_path: Path) -> None:
    inventory = scan(make(tmp_path, 12), max_bad=0.0)
    assert inventory.ids.tolist() == list(range(12))
    assert inventory.ids.dtype == np.int64
    assert inventory.candidates == inventory.decoded == 12
    assert inventory.skipped == []
    assert inventory.median_size == (10, 20)
    assert inventory.classes == {"0": 6, "1": 6}
    assert inventory.extensions == {"png": 12}
    assert not inventory.grey


@pytest.mark.parametrize("workers", [1, 3])
def test_bad_files_are_listed_with_their_reason_and_ids_stay(tmp_path: Path, workers: int) -> None:
    inventory = scan(make(tmp_path, 8, empty=1, cut=1), sample=None, workers=workers)
    assert [(where, reason.split(" (")[0].split(":")[0]) for _, where, reason in inventory.skipped] == [
        ("0/0008.png", "empty file"),
        ("1/0009.png", "damaged PNG"),
    ]
    assert [id for id, _, _ in inventory.skipped] == [4, 9]
    assert inventory.ids.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert inventory.bad_fraction == pytest.approx(0.2, abs=0.03)


def test_too_many_bad_files_stop_the_run_and_name_the_flag(tmp_path: Path) -> None:
    source = make(tmp_path, 95, empty=5)
    with pytest.raises(ValueError, match="--max-bad") as caught:
        scan(source, max_bad=0.01)
    message = str(caught.value)
    assert message.startswith("5 of 100 images")
    assert "5 %" in message
    assert message.count("empty file (0 bytes)") == 1
    assert "0/0096.png" in message
    assert "\n" not in message
    advised = float(message.rsplit(" ", 1)[1])
    scan(source, max_bad=advised)


def test_the_fraction_of_a_sample_stands_for_the_files_not_decoded(tmp_path: Path) -> None:
    source = make(tmp_path, 150, cut=50)
    inventory = scan(source, sample=60)
    assert inventory.decoded == 60
    assert 0 < len(inventory.skipped) < 50
    assert inventory.bad_fraction == pytest.approx(0.25, abs=0.15)
    with pytest.raises(ValueError, match="estimated from 60"):
        inventory.check(0.05)


def test_the_sample_depends_on_the_seed_alone(tmp_path: Path) -> None:
    source = make(tmp_path, 50, cut=50)
    skipped = [
        scan(source, sample=20, seed=seed, workers=workers).skipped for seed, workers in ((0, 1), (0, 2), (1, 1))
    ]
    assert skipped[0] == skipped[1] != skipped[2]


def test_no_readable_image_stops_whatever_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="readable images"):
        scan(make(tmp_path, 0, empty=3), max_bad=1.0)


def test_grey_sets_are_recognised_also_when_stored_in_colour(tmp_path: Path) -> None:
    assert scan(make(tmp_path, 4, grey=True)).grey
    assert scan(open_source("digits")).grey


def test_animations_are_counted(tmp_path: Path) -> None:
    source = make(tmp_path, 3)
    frames = [Image.new("L", (8, 8), value) for value in (0, 200)]
    frames[0].save(tmp_path / "0" / "animated.gif", save_all=True, append_images=frames[1:])
    inventory = scan(FolderSource([tmp_path]))
    assert inventory.multiframe == 1
    assert inventory.extensions == {"png": 3, "gif": 1}
    assert source.fingerprint() != inventory.fingerprint


def test_the_report_is_json_with_odd_names_escaped(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with open(bytes(tmp_path) + b"/a/\xff\n.png", "wb") as file:
        file.write(b"text")
    make(tmp_path, 2)
    report = json.loads(json.dumps(scan(FolderSource([tmp_path])).as_dict(), ensure_ascii=False).encode("utf-8"))
    assert report["usable"] == 2
    assert report["candidates"] == 3
    assert report["skipped"][0]["where"] == "a/\\udcff\\n.png"
    assert report["median_width"] == 20


def test_sources_in_memory_are_scanned_by_sample() -> None:
    class Broken(ArraySource):
        def read(self, index: int, min_side: int = 0) -> np.ndarray:
            if index == 3:
                raise UnreadableImage("scratched")
            return super().read(index)

    inventory = scan(Broken("mine", np.zeros((5, 7, 9, 1), np.uint8)), sample=None)
    assert inventory.skipped == [(3, "mine[3]", "scratched")]
    assert inventory.median_size == (7, 9)


def test_threads_keep_the_order_and_take_no_more_than_they_need() -> None:
    taken = []

    def items() -> Iterator[int]:
        for k in range(10_000):
            taken.append(k)
            yield k

    results = in_threads(lambda k: k * k, items(), 3)
    assert [next(results) for _ in range(100)] == [k * k for k in range(100)]
    assert len(taken) < 500
    results.close()  # type: ignore[attr-defined]


def test_what_goes_wrong_in_a_thread_is_raised() -> None:
    def fail(k: int) -> int:
        raise RuntimeError("not about images")

    with pytest.raises(RuntimeError, match="not about images"):
        list(in_threads(fail, range(40), 2))
