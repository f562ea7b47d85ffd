"""What takes cues away from tiles: standardisation, and colours that are dropped."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from barlow.views.keys import Keys
from barlow.views.ops import ColorDropping, Standardize, as_images

Pictures = Callable[..., Tensor]
MANY = 24_000


def keys(n: int) -> Keys:
    return Keys(seed=3, epoch=0, ids=np.arange(n), view=0, op=1)


def test_every_channel_has_one_mean_and_one_spread_afterwards(pictures: Pictures) -> None:
    x = as_images(pictures(20, 24))
    out = Standardize(reach=6.0)(x, keys(20)).double()
    expected = x.double()
    expected = (expected - expected.mean((2, 3), keepdim=True)) / expected.std((2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(out, (0.5 + expected / 12).clamp(0, 1), atol=1e-5, rtol=0)
    changed = Standardize(reach=6.0)(0.3 * x + torch.tensor([0.1, 0.5, 0.2]).view(3, 1, 1), keys(20))
    torch.testing.assert_close(changed.double(), out, atol=1e-4, rtol=0)


def test_what_varies_by_less_than_a_level_is_not_blown_up() -> None:
    x = 0.7 + 1e-6 * torch.rand(3, 3, 8, 8)
    assert (Standardize()(x, keys(3)) - 0.5).abs().max() < 1e-3


def test_one_channel_is_kept_as_it_is_and_the_others_hold_faint_noise(pictures: Pictures) -> None:
    x = as_images(pictures(60, 20))
    op = ColorDropping(p=0.5, noise=0.5)
    applies, kept, _ = op.draws(keys(60))
    out = op(x, keys(60))
    assert set(kept) == {0, 1, 2}
    noise = []
    for i in range(60):
        if not applies[i]:
            assert torch.equal(out[i], x[i])
            continue
        assert torch.equal(out[i, kept[i]], x[i, kept[i]])
        noise.append(out[i, [k for k in range(3) if k != kept[i]]])
    values = (torch.stack(noise).double().flatten().numpy() - 0.5) * 255
    assert np.abs(values).max() <= 0.5 + 1e-3
    assert stats.kstest(values[::7], "uniform", args=(-0.5, 1.0)).pvalue > 1e-3


def test_noise_is_unrelated_from_pixel_to_pixel_and_image_to_image() -> None:
    out = ColorDropping(1.0, noise=100.0)(torch.zeros(200, 3, 16, 16), keys(200))
    kept = ColorDropping().draws(keys(200))[1]
    planes = torch.stack([one[(k + 1) % 3] for one, k in zip(out, kept, strict=True)]).double() - 0.5
    flat = planes.flatten(1)
    size = flat.numel()
    for shifted in (flat.roll(1, 1), flat.roll(16, 1), flat.roll(1, 0)):
        correlation = float((flat * shifted).sum() / flat.square().sum())
        assert abs(correlation) < 5 / np.sqrt(size)


def test_every_channel_is_kept_as_often() -> None:
    assert stats.chisquare(np.bincount(ColorDropping().draws(keys(MANY))[1], minlength=3)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Standardize(0.0), "reach=0.0; give a number above 0"),
        (lambda: ColorDropping(noise=200), "noise=200; give 0 to 127.5"),
        (lambda: ColorDropping(p=1.5), "p=1.5"),
    ],
)
def test_parameters_out_of_range_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
