"""Wholes and quarters: which pixels each is made of, what is summed, and that one network takes all of them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from barlow.methods.tile_sum import TileSum
from barlow.nets.heads import Head
from barlow.types import Rows

HEAD = Head(widths=[3], hidden_bias=True, last_bias=True)


class Corners(nn.Module):
    """Features that tell which image it was: its first pixel and its last, and its side."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return torch.stack([x[:, 0, 0, 0], x[:, 0, -1, -1], torch.full_like(x[:, 0, 0, 0], x.shape[-1])], dim=1)


def method(encoder: nn.Module | None = None, **keys: Any) -> Any:
    made: Any = encoder or Corners()
    return TileSum(head=HEAD, **keys).build(lambda *_, **__: (made, 3), seed=0).double()


def numbered(n: int = 2, side: int = 4) -> Tensor:
    """Images whose pixels are numbered row by row, a hundred higher from image to image."""
    of_image = torch.arange(side * side, dtype=torch.float64).view(1, 1, side, side)
    return of_image + 100 * torch.arange(n, dtype=torch.float64).view(n, 1, 1, 1)


def rows(*views: Tensor) -> Rows:
    return Rows(list(views), {"ids": torch.arange(len(views[0]))})


def test_the_whole_is_halved_by_the_mean_of_four_pixels_and_quarters_keep_theirs() -> None:
    whole, *quarters = method()(rows(numbered())).features
    # 0 1 2 3 / 4 5 6 7 / 8 9 10 11 / 12 13 14 15
    assert whole.tolist() == [[2.5, 12.5, 2.0], [102.5, 112.5, 2.0]]
    corners = [[0, 5], [2, 7], [8, 13], [10, 15]]
    for quarter, (first, last) in zip(quarters, corners, strict=True):
        assert quarter.tolist() == [[first, last, 2.0], [100 + first, 100 + last, 2.0]]


def test_the_sum_is_over_the_four_quarters_of_the_same_image() -> None:
    made = method()
    ((whole, summed),) = made(rows(numbered(3, 8))).groups
    features = made(rows(numbered(3, 8))).features
    torch.testing.assert_close(whole, made.head(features[0]).relu())
    torch.testing.assert_close(summed, sum(made.head(f).relu() for f in features[1:]))


def test_what_is_counted_is_not_negative_unless_that_is_asked_for() -> None:
    images = torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ((whole, summed),) = ([z.detach() for z in group] for group in method()(rows(images)).groups)
    assert min(float(whole.min()), float(summed.min())) == 0
    ((plain, plain_sum),) = ([z.detach() for z in group] for group in method(rectified=False)(rows(images)).groups)
    assert float(plain.min()) < 0
    torch.testing.assert_close(plain.relu(), whole)
    assert not torch.allclose(plain_sum.relu(), summed), "rectified before the sum, not after it"


def test_one_pass_takes_all_five_so_that_batch_norm_sees_them_together() -> None:
    encoder = Corners()
    images = torch.randn(200, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    method(nn.Sequential(nn.BatchNorm2d(3, affine=False), encoder)).train()(rows(images))
    assert len(encoder.seen) == 5 * 200
    assert float(encoder.seen.std()) == pytest.approx(1, rel=0.01)
    wholes, quarters = encoder.seen[:200], encoder.seen[200:]
    assert float(wholes.std() / quarters.std()) == pytest.approx(0.5, rel=0.05), (
        "as before: the mean of four varies less"
    )


def test_the_gradient_reaches_the_encoder_through_the_whole_and_through_every_quarter() -> None:
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for of_group in (0, 1):
        view = images.clone().requires_grad_()
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        group = method(encoder, rectified=False)(rows(view)).groups[0]
        assert group[of_group].requires_grad
        (gradient,) = torch.autograd.grad(group[of_group].square().sum(), view)
        assert bool((gradient != 0).all())


def test_every_view_has_a_group_of_its_own() -> None:
    views = [numbered(2, 4), numbered(2, 8)]
    groups = method()(rows(*views)).groups
    assert len(groups) == 2
    for view, group in zip(views, groups, strict=True):
        for z, alone in zip(group, method()(rows(view)).groups[0], strict=True):
            torch.testing.assert_close(z, alone)


def test_views_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match=r"views of 5 pixels in 2 × 2 tiles: give views whose sides are multiples"):
        method()(rows(numbered(2, 5)))
    with pytest.raises(ValueError, match="the method tile_sum needs one view or more"):
        method()(Rows([], {"ids": torch.arange(2)}))
