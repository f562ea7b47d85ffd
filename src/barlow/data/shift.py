"""Whether two sets of images differ more than two draws from one and the same heap would: test images from training
images.

Of each quantity (brightness, say) the two samples are compared by the test of Kolmogorov and Smirnov: the largest
distance of their distribution functions. It sees other means and other spreads alike. Of class shares it is
chi-squared. With thousands of images the smallest difference is beyond chance, so one is told only if it is also large
enough to matter.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from barlow.data.survey import Survey

CHANCE = 0.001
"""A difference is beyond chance where two draws from one heap would differ as much in fewer than one case in so many.
Seven are looked at, so that one of 140 checks of like sets says something for no reason."""

LEAST_DISTANCE = 0.1
"""Distance of two distribution functions that is worth a word. A shift by a quarter of a standard deviation is as
much."""

LEAST_SHARES = 0.05
"""Of class shares: the part of the test images that would have to be of another class."""

WORDS = {
    "brightness": ("darker", "brighter"),
    "contrast": ("of less contrast", "of more contrast"),
    "colour": ("less colourful", "more colourful"),
    "shorter side": ("smaller", "larger"),
    "width / height": ("narrower", "wider"),
}
"""What images are whose quantity is smaller, or larger."""


@dataclass(frozen=True)
class Shift:
    """How two samples of a quantity differ.

    Args:
        what: the quantity.
        train: its mean over the training images.
        test: its mean over the test images.
        apart: the difference of the means, in standard deviations of the training images.
        distance: of the two distribution functions, 0 to 1.
        p: how often two draws from one heap would be as distant.
    """

    what: str
    train: float
    test: float
    apart: float
    distance: float
    p: float

    @property
    def told(self) -> bool:
        """Whether it is beyond chance, and large enough to matter."""
        return self.p < CHANCE and self.distance >= LEAST_DISTANCE

    @property
    def words(self) -> str:
        """As in `test images are darker (mean brightness 0.31, against 0.44)`."""
        smaller, larger = WORDS[self.what]
        how = smaller if self.test < self.train else larger
        if abs(self.apart) < LEAST_DISTANCE:
            how = f"spread otherwise in {self.what}"
        return f"test images are {how} (mean {self.what} {self.test:.3g}, against {self.train:.3g} in training)"


@dataclass(frozen=True)
class ClassShift:
    """How class shares differ.

    Args:
        moved: the share of test images that would have to be of another class.
        p: how often two draws from one heap would differ as much.
        most: the class whose share differs most.
        train: its share of the training images.
        test: its share of the test images.
        missing: classes without a test image.
        foreign: classes without a training image.
    """

    moved: float
    p: float
    most: str
    train: float
    test: float
    missing: list[str]
    foreign: list[str]

    @property
    def told(self) -> bool:
        """Whether it is beyond chance, and large enough to matter."""
        return self.p < CHANCE and self.moved >= LEAST_SHARES


def shifts(train: Survey, test: Survey) -> list[Shift]:
    """The differences of all quantities, whether they are beyond chance or not. A quantity that is the same throughout
    both sets is left out."""
    found = []
    for (what, first), (_, second) in zip(_quantities(train), _quantities(test), strict=True):
        if max(first.max(), second.max()) > min(first.min(), second.min()):
            found.append(_compared(what, first, second))
    return found


def _quantities(survey: Survey) -> Iterator[tuple[str, NDArray[np.float64]]]:
    height, width = survey.sizes.T.astype(np.float64)
    values = {
        "brightness": survey.brightness,
        "contrast": survey.contrast,
        "colour": survey.colour,
        "shorter side": np.minimum(height, width),
        "width / height": width / height,
    }
    yield from ((what, values[what].astype(np.float64)) for what in WORDS)


def _compared(what: str, train: NDArray[np.float64], test: NDArray[np.float64]) -> Shift:
    distance = kolmogorov_smirnov(train, test)
    spread = float(train.std()) or float(test.std()) or 1.0
    apart = float(test.mean() - train.mean()) / spread
    return Shift(what, float(train.mean()), float(test.mean()), apart, distance, p_of_distance(distance, train, test))


def kolmogorov_smirnov(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The largest distance of two samples' distribution functions."""
    a, b = np.sort(first), np.sort(second)
    every = np.concatenate([a, b])
    of_a, of_b = (np.searchsorted(each, every, side="right") / len(each) for each in (a, b))
    return float(np.abs(of_a - of_b).max())


def p_of_distance(distance: float, first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """How often two draws from one heap are as distant, for large samples; too large for values that are often equal.

    Source: N. V. Smirnov, "Table for estimating the goodness of fit of empirical distributions", Annals of Mathematical
    Statistics 19 (1948).
    """
    n, m = len(first), len(second)
    scaled = distance * math.sqrt(n * m / (n + m))
    if scaled < 0.2:  # the series converges slowly there, and its value is 1 to ten digits
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * sum(terms)))


def class_shift(train: Mapping[str, int], test: Mapping[str, int]) -> ClassShift | None:
    """How class shares differ; None where one of the sets has no classes.

    Args:
        train: number of training images of each class.
        test: likewise.
    """
    names = sorted({*train, *test})
    counts = np.array([[each.get(name, 0) for name in names] for each in (train, test)], np.float64)
    if not train or not test or not counts.sum(axis=1).all():
        return None
    there = counts.sum(axis=0) > 0
    shares = counts / counts.sum(axis=1, keepdims=True)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    statistic = float((np.square(counts - expected)[:, there] / expected[:, there]).sum())
    most = int(np.abs(shares[0] - shares[1]).argmax())
    return ClassShift(
        moved=float(np.abs(shares[0] - shares[1]).sum() / 2),
        p=p_of_chi_squared(statistic, int(there.sum()) - 1),
        most=names[most],
        train=float(shares[0, most]),
        test=float(shares[1, most]),
        missing=[name for name, count in zip(names, counts[1], strict=True) if not count and train.get(name)],
        foreign=[name for name, count in zip(names, counts[0], strict=True) if not count and test.get(name)],
    )


def p_of_chi_squared(statistic: float, freedom: int) -> float:
    """How often chi-squared with so many degrees of freedom is at least as large."""
    if freedom < 1:
        return 1.0
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
