"""Whether test images differ from training images: the statistics equal scipy's, like sets are left in peace, and what
was shifted is told."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from barlow.data.shift import (
    CHANCE,
    Shift,
    class_shift,
    kolmogorov_smirnov,
    p_of_chi_squared,
    p_of_distance,
    shifts,
)
from barlow.data.sources import ArraySource, open_source
from barlow.data.survey import survey


def test_the_distance_and_its_chance_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for n, m, moved in ((300, 200, 0.0), (300, 200, 0.2), (50, 80, 1.0), (1000, 900, 0.05)):
        a, b = rng.normal(size=n), rng.normal(moved, 1, m)
        expected = stats.ks_2samp(a, b, method="asymp")
        assert kolmogorov_smirnov(a, b) == pytest.approx(expected.statistic, abs=1e-12)
        scaled = expected.statistic * np.sqrt(n * m / (n + m))
        assert p_of_distance(expected.statistic, a, b) == pytest.approx(stats.kstwobign.sf(scaled), rel=1e-9)


def test_equal_values_are_no_distance() -> None:
    sides = np.array([32.0] * 40 + [64.0] * 10)
    assert kolmogorov_smirnov(sides, np.array([32.0] * 8 + [64.0] * 2)) == pytest.approx(0)
    assert p_of_distance(0.0, sides, sides) == 1


@pytest.mark.parametrize(("statistic", "freedom"), [(0.0, 3), (3.2, 1), (40.0, 9), (12.5, 20), (300.0, 30)])
def test_the_chance_of_chi_squared_is_that_of_scipy(statistic: float, freedom: int) -> None:
    assert p_of_chi_squared(statistic, freedom) == pytest.approx(stats.chi2.sf(statistic, freedom), rel=1e-9, abs=1e-60)


def test_class_shares_are_compared_as_scipy_does() -> None:
    train, test = {"a": 300, "b": 500, "c": 200}, {"a": 80, "b": 90, "c": 30}
    found = class_shift(train, test)
    assert found is not None
    table = [[300, 500, 200], [80, 90, 30]]
    assert found.p == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue, rel=1e-9)
    assert found.moved == pytest.approx(0.1)
    assert (found.most, found.train, found.test) == ("a", 0.3, 0.4)
    assert found.missing == found.foreign == []


def test_classes_that_one_of_the_sets_lacks_are_named() -> None:
    found = class_shift({"ant": 50, "bee": 50}, {"bee": 40, "cat": 60})
    assert found is not None
    assert (found.missing, found.foreign) == (["ant"], ["cat"])
    assert found.told
    assert class_shift({}, {"bee": 3}) is None


def noise(count: int, seed: int, brightness: float = 128, spread: float = 40, side: int = 24) -> np.ndarray:
    rng = np.random.default_rng(seed)
    level = rng.normal(brightness, 25, (count, 1, 1, 1))
    return np.clip(level + rng.normal(0, spread, (count, side, side, 3)), 0, 255).astype(np.uint8)


def told(train: np.ndarray, test: np.ndarray) -> list[Shift]:
    found = shifts(*(survey(ArraySource("noise", images)) for images in (train, test)))
    return [shift for shift in found if shift.told]


def test_two_draws_of_one_heap_are_left_in_peace() -> None:
    for seed in range(6):
        assert told(noise(400, 2 * seed), noise(150, 2 * seed + 1)) == []


def test_darker_test_images_are_told() -> None:
    (shift,) = told(noise(400, 0), noise(150, 1, brightness=108))
    assert shift.what == "brightness"
    assert shift.words.startswith("test images are darker (mean brightness 0.41")
    assert -1.1 < shift.apart < -0.5


def test_images_without_colour_and_of_less_contrast_are_told() -> None:
    grey = np.repeat(noise(150, 1, spread=20)[:, :, :, :1], 3, axis=3)
    found = told(noise(400, 0), grey)
    assert [shift.what for shift in found] == ["contrast", "colour"]
    assert "less colourful" in found[1].words
    assert "of less contrast" in found[0].words


def test_a_difference_that_is_sure_and_small_is_not_told() -> None:
    train, test = (np.random.default_rng(seed).normal(0.05 * seed, 1, 40_000) for seed in (0, 1))
    distance = kolmogorov_smirnov(train, test)
    assert not Shift("brightness", 0, 0.05, 0.05, distance, p_of_distance(distance, train, test)).told
    assert p_of_distance(distance, train, test) < CHANCE


def test_another_spread_is_told_as_that() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 0.1, 800), rng.normal(0.5, 0.03, 800)
    distance = kolmogorov_smirnov(a, b)
    shift = Shift("brightness", 0.5, 0.5, 0.01, distance, p_of_distance(distance, a, b))
    assert shift.told
    assert "spread otherwise in brightness" in shift.words


def test_sizes_of_files_are_compared(tmp_path: Path) -> None:
    for name, side in (("train", 40), ("test", 20)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(noise(60, 0, side=40)):
            Image.fromarray(image).resize((side + 10 * (i % 2), side)).save(tmp_path / name / f"{i}.png")
    train, test = (survey(open_source(tmp_path / name)) for name in ("train", "test"))
    found = {shift.what: shift for shift in shifts(train, test) if shift.told}
    assert "test images are smaller" in found["shorter side"].words
    assert (found["shorter side"].train, found["shorter side"].test) == (40, 20)
