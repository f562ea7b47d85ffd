"""Our views and those of the papers' code (Pillow and torchvision) as distributions: other draws, the same images.

Each view is reduced to a few numbers (below), and the distributions of each over many views are compared by a
Kolmogorov-Smirnov test, which has no tolerance but sampling error. What is known to differ:

- Pillow approximates a Gaussian by three box blurs of its variance, which leave more at the highest frequencies. With
  BYOL's kernel in its place (23 taps of a Gaussian, here torchvision's) nothing differs; with Pillow's, nothing but
  the upper half of the blurred view's spectrum.
- Pillow rounds to 8 bits after every op: noise of variance (1/255)²/12 each time, spread evenly over all frequencies.
  Powers below that of ten such roundings count as equal: there it covers what a strong blur leaves.
- Pillow turns the hue in steps of 1/255 of the circle, and computes HSV in 8 bits: errors of about 1/255 of a value,
  not seen here.
"""

import io
import random
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision import transforms

from barlow.data.decoding import decode
from barlow.views.ops import ColorJitter, GaussianBlur, Grayscale, HorizontalFlip, Op, RandomResizedCrop, Solarize
from barlow.views.pipeline import ViewPipeline

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import papers
import pictures

FLOOR = 10 * (1 / 255) ** 2 / 12
RINGS = 8
SMALLEST_P = 1e-4
"""Of about fifty tests a run, none falls below it by chance more than once in two hundred seeds; the seed is fixed."""

Stats = dict[str, np.ndarray]


# ------------------------------------------------------------------------------------------------------- the two sides


def byols_blur(p: float) -> Callable[[Image.Image], Image.Image]:
    return transforms.RandomApply([transforms.GaussianBlur(23, (0.1, 2.0))], p=p)  # type: ignore[no-any-return]


def ours(size: int) -> list[list[Op]]:
    shared: list[Op] = [RandomResizedCrop(size), HorizontalFlip(), ColorJitter(), Grayscale()]
    return [[*shared, GaussianBlur(1.0), Solarize(0.0)], [*shared, GaussianBlur(0.1), Solarize(0.2)]]


def made_by_them(
    images: Sequence[Image.Image], size: int, times: int, blurred_by: Callable[[float], papers.Change] = byols_blur
) -> list[torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        random.seed(5)
        pair = papers.views(size, blurred_by=blurred_by)
        views = [[view(image) for view in pair] for _ in range(times) for image in images]
    return [torch.stack(view) for view in zip(*views, strict=True)]


def made_by_us(arrays: Sequence[np.ndarray], ops: Sequence[Sequence[Op]], times: int) -> list[torch.Tensor]:
    p = ViewPipeline(ops, (0.0,) * 3, (1.0,) * 3)
    parts = []
    for epoch in range(times):
        crops = [p.crop_one(array.transpose(2, 0, 1), i, 11, epoch) for i, array in enumerate(arrays)]
        stacked = [torch.from_numpy(np.stack(view)) for view in zip(*crops, strict=True)]
        parts.append(p.finish(stacked, np.arange(len(arrays)), 11, epoch))
    return [torch.cat(view) for view in zip(*parts, strict=True)]


# --------------------------------------------------------------------------------------------------------- the numbers


def numbers(views: list[torch.Tensor]) -> Stats:
    """Of each pair of views: moments and spectrum of each, and how far they are from each other."""
    found: Stats = {}
    for number, view in enumerate(views, 1):
        x = view.double()
        for channel, name in enumerate("rgb"):
            found[f"mean of {name}, view {number}"] = x[:, channel].mean((1, 2)).numpy()
            found[f"deviation of {name}, view {number}"] = x[:, channel].std((1, 2)).numpy()
        found[f"colourfulness, view {number}"] = (x.amax(1) - x.amin(1)).mean((1, 2)).numpy()
        found[f"red over blue, view {number}"] = (x[:, 0] - x[:, 2]).mean((1, 2)).numpy()
        for ring, power in enumerate(spectrum(x.mean(1))):
            found[f"power in ring {ring}, view {number}"] = power
    found["distance of the views"] = (views[0] - views[1]).double().square().mean((1, 2, 3)).sqrt().numpy()
    return found


def spectrum(plane: torch.Tensor) -> list[np.ndarray]:
    """Logarithm of the mean power in rings of equal width up to the highest frequency along an axis."""
    side = plane.shape[-1]
    # A window, or the jump from one edge to the opposite one would be seen at all frequencies.
    window = torch.hann_window(side, dtype=plane.dtype)
    centred = (plane - plane.mean((1, 2), keepdim=True)) * window[:, None] * window[None, :]
    power = torch.fft.fft2(centred).abs().square() / window.square().sum().square()  # of white noise: its variance
    frequency = torch.fft.fftfreq(side).double()
    ring = (torch.hypot(frequency[:, None], frequency[None, :]) * 2 * RINGS).long()
    rings = [power[:, ring == k].mean(1) for k in range(RINGS)]
    return [mean.clamp(min=FLOOR).log10().numpy() for mean in rings]


def unlike(one: Stats, other: Stats) -> dict[str, float]:
    """The numbers whose distributions differ, with the p-values."""
    found = {name: float(stats.ks_2samp(one[name], other[name]).pvalue) for name in one}
    return {name: p for name, p in found.items() if p < SMALLEST_P}


# ----------------------------------------------------------------------------------------------------------- the tests


SIZE = 48


@pytest.fixture(scope="module")
def generated() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [pictures.natural(90, 120, rng) for _ in range(150)]


@pytest.fixture(scope="module")
def theirs_of_generated(generated: list[np.ndarray]) -> Stats:
    return numbers(made_by_them([Image.fromarray(image) for image in generated], SIZE, 6))


def test_views_of_generated_pictures_are_distributed_as_the_papers(
    generated: list[np.ndarray], theirs_of_generated: Stats
) -> None:
    assert unlike(numbers(made_by_us(generated, ours(SIZE), 6)), theirs_of_generated) == {}


def test_with_pillows_blur_only_the_highest_frequencies_of_the_blurred_view_differ(
    generated: list[np.ndarray], theirs_of_generated: Stats
) -> None:
    of_them = numbers(made_by_them([Image.fromarray(image) for image in generated], SIZE, 6, papers.Blur))
    known = {f"power in ring {ring}, view 1" for ring in range(RINGS // 2, RINGS)}
    assert unlike(numbers(made_by_us(generated, ours(SIZE), 6)), of_them).keys() <= known


def with_op(kind: type[Op], **changes: object) -> list[list[Op]]:
    return [[replace(op, **changes) if isinstance(op, kind) else op for op in view] for view in ours(SIZE)]  # type: ignore[type-var]


@pytest.mark.parametrize(
    "wrong",
    [
        with_op(RandomResizedCrop, scale=(0.2, 1.0)),
        with_op(GaussianBlur, sigma=(0.1, 1.5)),
        with_op(ColorJitter, brightness=0.2),
        with_op(ColorJitter, p=0.0),
        with_op(Grayscale, p=0.0),
        [ours(SIZE)[1], ours(SIZE)[1]],
    ],
    ids=["scale", "sigma", "brightness", "jitter", "grey", "the second view twice"],
)
def test_the_comparison_sees_views_that_are_a_little_wrong(
    wrong: list[list[Op]], generated: list[np.ndarray], theirs_of_generated: Stats
) -> None:
    assert unlike(numbers(made_by_us(generated, wrong, 6)), theirs_of_generated)


def test_views_of_jpegs_are_distributed_as_the_papers(shared_data: Path) -> None:
    with tarfile.open(shared_data / "native-jpegs.tar") as tar:
        members = [m for m in tar if m.isfile() and m.name.lower().endswith((".jpg", ".jpeg"))][:60]
        files = [stream.read() for m in members if (stream := tar.extractfile(m)) is not None]
    of_them = made_by_them([Image.open(io.BytesIO(data)).convert("RGB") for data in files], 224, 2)
    of_us = made_by_us([decode(data) for data in files], ours(224), 2)
    assert unlike(numbers(of_us), numbers(of_them)) == {}
