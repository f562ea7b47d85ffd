"""CPC's patches must not see each other in the encoder, and a prediction must not see what it is of."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from oracles.cpc import labels
from torch import Tensor, nn

import barlow
from barlow.methods._networks import Method
from barlow.methods.cpc import CPC, patches
from barlow.nets.building import build_encoder
from barlow.nets.norms import fix_statistics
from barlow.types import Outputs, Rows

SIDE, GRID, PATCH = 24, 5, 8
STEP = 4
NARROW = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


class Mean(nn.Module):
    """The colour of a patch, and its square: no patch sees another."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3))
        return torch.cat([mean, mean.square()], 1)


def built(encoder: nn.Module, features: int, **options: Any) -> Method:
    section = CPC(**({"grid": GRID, "ahead": (1, 3), "width": 4, "hidden": 6, "blocks": 3} | options))
    return section.build(lambda *_, **__: (encoder, features), seed=0).train()


def images(n: int = 2, side: int = SIDE) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def outputs(method: Method, view: Tensor) -> Outputs:
    with torch.no_grad():
        return method.to(view.dtype)(Rows([view], {"ids": torch.arange(len(view))}))


def corner_changed(view: Tensor) -> Tensor:
    """With other pixels in the last patch of the first image alone: those that no other patch has."""
    other = view.clone()
    other[0, :, -STEP:, -STEP:] += 5
    return other


def test_patches_are_cut_row_by_row_in_equal_steps() -> None:
    view = images()
    cut = patches(view, GRID, PATCH).view(2, GRID, GRID, 3, PATCH, PATCH)
    for row in range(GRID):
        for column in range(GRID):
            top, left = row * STEP, column * STEP
            assert cut[1, row, column].equal(view[1, :, top : top + PATCH, left : left + PATCH])


@pytest.mark.parametrize(
    ("side", "grid", "patch", "found"),
    [(24, 5, None, 8), (32, 7, None, 8), (32, 5, None, 12), (48, 5, None, 16), (260, 6, 80, 80), (20, 2, 10, 10)],
)
def test_patches_overlap_by_about_half_unless_their_side_is_given(side: int, grid: int, patch: Any, found: int) -> None:
    cut = patches(torch.zeros(1, 1, side, side), grid, patch)
    assert cut.shape == (grid**2, 1, found, found)


def test_patches_that_do_not_fill_the_view_are_refused_with_one_that_does() -> None:
    with pytest.raises(ValueError, match=r"5 patches of 9 pixels do not fill 24 in equal steps: .* such as 8"):
        patches(images(), 5, 9)
    with pytest.raises(ValueError, match="or a smaller method"):
        patches(images(side=4), 5, None)


def map_of(method: Method, view: Tensor) -> Tensor:
    found: list[Tensor] = []
    hook = method.directions[0].register_forward_pre_hook(lambda module, given: found.append(given[0].detach()))
    outputs(method, view)
    hook.remove()
    return found[0]


def with_norms(kind: str) -> Any:
    options = NARROW | {"norm_layer": kind}
    return build_encoder("resnet26", image_size=SIDE, stem="strided", zero_init_last=False, options=options)


def changed_by_a_corner(method: Method) -> Tensor:
    """Which places of the map are others once the last patch of the first image is."""
    before, after = (map_of(method, view) for view in (images(), corner_changed(images())))
    return (before != after).any(dim=1)


@pytest.mark.parametrize("norm", ["groupnorm1", "batchnorm2d"])
def test_a_change_in_one_patch_changes_no_other_patch_if_norms_are_of_one_image_or_fixed(norm: str) -> None:
    encoder = with_norms(norm)
    if norm == "batchnorm2d":
        fix_statistics(encoder)
    differs = changed_by_a_corner(built(encoder, encoder.num_features))
    assert differs[0, -1, -1]
    assert differs.sum() == 1


class AcrossTheBatch(Mean):
    """With the batch's mean taken off, as a norm of the batch does it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean((0, 2, 3), keepdim=True))


def test_an_encoder_with_batch_norm_is_refused_as_all_patches_would_see_what_is_predicted() -> None:
    assert changed_by_a_corner(built(AcrossTheBatch(), 6)).all(), "no patch is left as it was"
    encoder = with_norms("batchnorm2d")
    with pytest.raises(ValueError, match=r"batch norm \(bn1 and \d+ others\), .* '\{norm_layer: group"):
        built(encoder, encoder.num_features)
    with pytest.raises(ValueError, match=r"batch norm \(1\), through which"):
        built(nn.Sequential(Mean(), nn.BatchNorm1d(6)), 6)


def test_the_command_line_says_so_before_the_first_step(tmp_path: Path) -> None:
    changes = tiny.of_recipe("small_cpc")
    changes["encoder.options"] = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    with pytest.raises(ValueError, match="through which CPC's patches see"):
        barlow.pretrain(
            tiny.images(tmp_path / "data", 40), tmp_path / "run", recipe="small_cpc", overrides=changes, progress=False
        )


def test_a_prediction_sees_the_rows_up_to_its_own_in_all_columns_and_nothing_below() -> None:
    method = built(Mean(), 6)
    direction = method.double().directions[0]
    seen = torch.randn(1, 6, GRID, GRID, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen.requires_grad_()
    for row in range(GRID):
        (gradient,) = torch.autograd.grad(direction.context(seen)[0, :, row, 2].sum(), seen)
        reached = (gradient != 0).any(dim=1)[0]
        assert not reached[row + 1 :].any(), "what it has to predict"
        assert reached[row, 2]
        # Three blocks reach three rows up, and three columns to either side.
        assert reached[max(0, row - 3) : row].any(dim=1).all()


def test_the_groups_are_directions_and_distances_of_each_view() -> None:
    method, view = built(Mean(), 6), images()
    groups = outputs(method, view).groups
    assert len(groups) == 4 * 2
    assert [tuple(z.shape) for z in groups[0]] == [(2, 4 * 5 * 4), (2, 25 * 4)]
    assert [tuple(z.shape) for z in groups[1]] == [(2, 2 * 5 * 4), (2, 25 * 4)]
    assert groups[0][1] is groups[1][1]
    assert CPC(grid=GRID, ahead=(1, 3), width=4).widths(1) == [tuple(z.shape[1] for z in group) for group in groups]


def test_each_direction_is_that_of_the_image_turned_with_networks_of_its_own() -> None:
    method, view = built(Mean(), 6), images()
    one, turned = (outputs(method, x).groups for x in (view, torch.rot90(view, 1, (2, 3))))
    # The map of the turned image is the turned map: its first direction sees what the second one of the image saw.
    own = method.directions[0]
    method.directions[0], method.directions[1] = method.directions[1], own
    swapped = outputs(method, torch.rot90(view, 1, (2, 3))).groups
    assert torch.allclose(swapped[0][0], one[2][0], atol=1e-12)
    assert not torch.allclose(turned[0][0], one[2][0], atol=1e-3)


def test_the_target_of_a_prediction_lies_so_many_rows_below_it() -> None:
    """With layers that copy, a prediction from a row is that row's own patch; its target is another."""
    method = built(Mean(), 6, blocks=0, width=6)
    direction = method.double().directions[0]
    for layer in (direction.target, *direction.predict.values()):
        nn.init.dirac_(layer.weight)
        nn.init.zeros_(layer.bias)
    view = images().abs()
    seen = map_of(method, view)
    for (p, t), ahead in zip(outputs(method, view).groups[:2], (1, 3), strict=True):
        every = t.view(-1, 6)
        assert p.view(-1, 6).equal(seen.relu().permute(0, 2, 3, 1)[:, : GRID - ahead].reshape(-1, 6))
        right = every[labels(2, GRID, GRID, ahead)].view(2, GRID - ahead, GRID, 6)
        assert right.equal(seen.permute(0, 2, 3, 1)[:, ahead:])


def test_the_features_are_the_mean_of_the_patches() -> None:
    method, view = built(Mean(), 6), images()
    (features,) = outputs(method, view).features
    assert torch.allclose(features, map_of(method, view).mean((2, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 1}, "grid is 1"),
        ({"patch": 0}, "patch 0"),
        ({"ahead": ()}, r"ahead is \[\]: give distances in rows"),
        ({"ahead": (2, 1)}, r"ahead is \[2, 1\]"),
        ({"ahead": (5,)}, "from 1 to 4 of a grid of 5"),
        ({"width": 0}, "width is 0"),
        ({"blocks": -1}, "blocks -1"),
        ({"hidden": 4096, "blocks": 64}, "64 blocks of 4096 channels have 21,474,836,480 parameters in 4 directions"),
    ],
)
def test_sections_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CPC(**({"grid": GRID, "ahead": (1,)} | options))
