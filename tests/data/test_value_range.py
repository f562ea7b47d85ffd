"""The range of values of a set: found over a sample, robust, one for all of its files."""

from pathlib import Path

import measurements
import numpy as np
import pytest
from PIL import Image

from barlow.data.folder import FolderSource
from barlow.data.inventory import scan
from barlow.data.memory import hold
from barlow.data.sources import open_source
from barlow.data.value_range import find_range, range_of
from barlow.planning.facts import images as look


def write(folder: Path, arrays: list[np.ndarray], **options: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, array in enumerate(arrays):
        (folder / f"{number:03}.tif").write_bytes(measurements.tiff(array, **options))  # type: ignore[arg-type]
    return folder


def camera(count: int = 20, bits: int = 12, side: int = 40, seed: int = 0) -> list[np.ndarray]:
    """A camera's numbers: from 0 on, most of them dark, a few as bright as its bits allow."""
    draws = np.random.default_rng(seed)
    made = [draws.exponential(2**bits / 20, (side, side)).clip(0, 2**bits - 1).astype(np.uint16) for _ in range(count)]
    for image in made:
        image[:4, :10] = 2**bits - 1
    return made


def test_twelve_bits_in_sixteen_end_at_their_own_white(tmp_path: Path) -> None:
    found = find_range(FolderSource([write(tmp_path / "set", camera())], channels=1))
    assert found is not None
    assert found.ends == (0, 4_095)
    assert (found.images, found.clipped, found.kinds) == (20, 0.0, ("uint16",))


def test_a_few_hot_pixels_do_not_set_the_range(tmp_path: Path) -> None:
    made = camera()
    for image in made[::5]:
        image[20, 20] = 65_535
    found = find_range(FolderSource([write(tmp_path / "set", made)], channels=1))
    assert found is not None
    assert found.ends[0] == 0
    assert 4_095 <= found.ends[1] <= 3 * 4_095
    assert 0 < found.clipped < 1e-3


def test_a_few_bright_spots_are_kept_where_all_else_is_dark() -> None:
    values = np.zeros(100_000)
    values[:20] = 900.0
    assert range_of(values, 0.0, 900.0) == (0.0, 900.0)


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        (np.linspace(-0.2, 0.9, 5_000), (-0.2, 0.9)),
        (np.arange(-128.0, 128.0), (-128.0, 127.0)),
        (np.arange(256.0) + 2**31, (2.0**31, 2.0**31 + 255)),
        (np.full(10, 7.0), (7.0, 8.0)),
    ],
    ids=["fractions", "signs", "wide integers", "a constant"],
)
def test_whatever_the_numbers_are_they_all_lie_inside(values: np.ndarray, ends: tuple[float, float]) -> None:
    assert range_of(values, float(values.min()), float(values.max())) == ends


def test_missing_numbers_do_not_count(tmp_path: Path) -> None:
    field = np.random.default_rng(0).uniform(0, 1, (30, 30)).astype(np.float32)
    field[:10], field[10, 0], field[10, 1] = -9_999, np.nan, np.inf
    found = find_range(FolderSource([write(tmp_path / "set", [field], nodata="-9999")], channels=1))
    assert found is not None
    assert 0 <= found.ends[0] < found.ends[1] <= 1


def test_the_sample_is_of_the_seed_and_not_of_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barlow.data.value_range.IMAGES", 5)
    source = FolderSource([write(tmp_path / "set", [a * k for k, a in enumerate(camera(12))])], channels=1)
    assert find_range(source, seed=1, workers=1) == find_range(source, seed=1, workers=3)
    assert len({find_range(source, seed=seed) for seed in range(5)}) > 1


def test_a_set_of_8_bits_has_no_range(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "b.tif")
    source = FolderSource([tmp_path])
    assert find_range(source) is None
    assert not look(source).deep


def test_99_of_100_levels_inside_the_range_stay_apart_when_held(tmp_path: Path) -> None:
    """So they do at the size of the images, and in a file by file comparison."""
    made = camera(count=4, bits=16, side=64)
    source = FolderSource([write(tmp_path / "set", made)], channels=1)
    found = find_range(source)
    assert found is not None
    _, held = hold(open_source(tmp_path / "set", channels=1, value_range=found.ends), 64, workers=1)
    assert held.pixels.dtype.itemsize == 2
    for image, pixels in zip(made, held.pixels.numpy(), strict=True):
        inside = image[(image >= found.ends[0]) & (image <= found.ends[1])]
        assert len(np.unique(pixels)) >= 0.99 * len(np.unique(inside))


# --- What a look at a set shows ---------------------------------------------------------------------------------------


def test_the_number_of_bands_is_that_of_most_files(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    write(tmp_path, [draws.integers(0, 900, (12, 16, 5 if i < 6 else 4), np.uint16) for i in range(8)])
    facts = look(FolderSource([tmp_path]))
    assert (facts.bands, facts.deep, facts.grey, facts.short_side) == (5, True, False, 12)
    inventory = scan(FolderSource([tmp_path], channels=5, value_range=(0, 900)), sample=None)
    assert [(where, reason) for _, where, reason in inventory.skipped] == [
        (f"{i:03}.tif", "it has 4 bands, and images are read with 5; a run with --data.channels 4 reads such files")
        for i in (6, 7)
    ]


def test_dark_colours_of_16_bits_are_not_taken_for_grey(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    write(tmp_path, [draws.integers(0, 255, (12, 16, 3), np.uint16)], photometric=2)
    facts = look(FolderSource([tmp_path]))
    assert (facts.bands, facts.deep, facts.grey) == (None, True, False)


def test_arrays_are_images_where_there_are_no_others(tmp_path: Path) -> None:
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, np.ones((4, 4, 7), np.float32))
    source = FolderSource([tmp_path], channels=7, value_range=(0, 1))
    assert len(source) == 2
    assert source.read(0).shape == (4, 4, 7)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "photo.png")
    source = FolderSource([tmp_path])
    assert len(source) == 1, "beside photos they are somebody's labels or features"
    assert source.notes["other files, not images, by extension"] == {"npy": 2}


@pytest.mark.parametrize("sample", [None, 1])
def test_transparent_and_deep_images_are_counted(tmp_path: Path, sample: int | None) -> None:
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "b.png", transparency=(0, 0, 0))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "c.png")
    (tmp_path / "d.tif").write_bytes(measurements.tiff(np.zeros((8, 8), np.uint16)))
    for inventory in (scan(FolderSource([tmp_path]), sample=sample), hold(FolderSource([tmp_path]), 8)[0]):
        assert (inventory.transparent, inventory.deep) == (2, 1)
        assert inventory.as_dict()["transparent"] == 2
