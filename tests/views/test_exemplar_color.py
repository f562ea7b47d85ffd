"""Colours of exemplar networks, against NumPy's components and the standard library's HSV, image by image."""

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from barlow.views.keys import Keys
from barlow.views.ops import ColorComponents, ColorPowers, as_images

Pictures = Callable[..., Tensor]
MANY = 24_000


def keys(n: int) -> Keys:
    return Keys(seed=5, epoch=0, ids=np.arange(n), view=0, op=1)


@pytest.mark.usefixtures("with_and_without_opencv")
@pytest.mark.parametrize("size", [(12, 9), (70, 66)])
def test_components_are_those_of_the_images_own_colours(pictures: Pictures, size: tuple[int, int]) -> None:
    x = as_images(pictures(6, *size)).contiguous(memory_format=torch.channels_last) * 0.5 + 0.25
    op = ColorComponents(spread=(0.3, 0.3, 0.2))
    _, gains = op.draws(keys(6))
    out = op(x, keys(6))
    for image, made, factors in zip(x.double().numpy(), out.double().numpy(), gains, strict=True):
        pixels = image.reshape(3, -1)
        mean = pixels.mean(1, keepdims=True)
        values, components = np.linalg.eigh(np.cov(pixels, bias=True))
        order = np.argsort(values)[::-1]
        expected = mean + components[:, order] @ np.diag(factors) @ components[:, order].T @ (pixels - mean)
        assert np.abs(made.reshape(3, -1) - expected.clip(0, 1)).max() < 1e-4


def test_saturation_and_value_get_their_powers_and_the_hue_stays(pictures: Pictures) -> None:
    x = as_images(pictures(5, 6, 7))
    x[0, :, 0] = 0.4  # grey
    x[1, :, 1] = 0.0
    op = ColorPowers()
    _, numbers = op.draws(keys(5))
    out = op(x, keys(5))
    for image, made, (a, b, c, d, e, f) in zip(x.double(), out.double(), numbers, strict=True):
        for row in range(6):
            for column in range(7):
                h, s, v = colorsys.rgb_to_hsv(*image[:, row, column].tolist())
                grey = s == 0
                s, v = min(max(s**a * b + c, 0), 1), min(max(v**d * e + f, 0), 1)
                expected = (v, v, v) if grey else colorsys.hsv_to_rgb(h, s, v)
                assert made[:, row, column].tolist() == pytest.approx(expected, abs=2e-5)


def test_draws_are_as_published() -> None:
    _, gains = ColorComponents().draws(keys(MANY))
    for column, spread in enumerate((1.0, 1.0, 0.5)):
        assert stats.kstest(np.log2(gains[:, column]), "norm", args=(0, spread)).pvalue > 1e-3
    _, numbers = ColorPowers().draws(keys(MANY))
    for column, most in enumerate((2.0, 0.5, 0.1, 2.0, 0.5, 0.1)):
        drawn = numbers[:, column] if column % 3 == 2 else np.log2(numbers[:, column])
        assert stats.kstest(drawn, "uniform", args=(-most, 2 * most)).pvalue > 1e-3
    for drawn in (gains, numbers):
        assert np.abs(np.corrcoef(drawn.T) - np.eye(drawn.shape[1])).max() < 0.04


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ColorComponents(spread=(1.0, 1.0, -1.0)), "three numbers of 0 or more"),
        (lambda: ColorPowers(power=9), "power=9; give 0 to 8"),
        (lambda: ColorPowers(shift=1.5), "shift=1.5; give 0 to 1"),
    ],
)
def test_parameters_out_of_range_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
