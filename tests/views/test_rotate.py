"""Rotation by quarter turns, and how an objective gets to know which one was drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops import (
    ColorJitter,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Normalize,
    Op,
    RandomResizedCrop,
    RandomRotate90,
    Solarize,
    as_images,
)
from barlow.views.ops._opencv import interleaved
from barlow.views.pipeline import ViewPipeline

Pictures = Callable[..., Tensor]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MANY = 24_000


def keys(n: int) -> Keys:
    return Keys(seed=4, epoch=1, ids=np.arange(n), view=0, op=2)


# ------------------------------------------------------------------------------------------------------------ the turns


@pytest.mark.parametrize(
    ("k", "expected"),
    [(0, [[1, 2], [3, 4]]), (1, [[2, 4], [1, 3]]), (2, [[4, 3], [2, 1]]), (3, [[3, 1], [4, 2]])],
)
def test_a_square_is_turned_as_in_the_published_example(k: int, expected: list[list[int]]) -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert RandomRotate90().apply(x, np.array([k])).tolist() == [[expected]]


@pytest.mark.usefixtures("with_and_without_opencv")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("side", [9, 80])
def test_each_image_is_turned_as_numpy_turns_it(pictures: Pictures, side: int, layout: torch.memory_format) -> None:
    x = as_images(pictures(16, side)).contiguous(memory_format=layout)
    (turns,) = RandomRotate90().draws(keys(16))
    assert set(turns.tolist()) == {0, 1, 2, 3}
    turned = RandomRotate90()(x, keys(16))
    kept = layout if interleaved(x) else torch.contiguous_format
    assert turned.is_contiguous(memory_format=kept), "the ops after it find the layout that they are fastest in"
    for ours, image, k in zip(turned, x, turns, strict=True):
        assert np.array_equal(ours.numpy(), np.rot90(image.numpy(), k, axes=(1, 2)))


def test_all_four_rotations_are_as_likely_and_unrelated_to_the_image_before() -> None:
    (turns,) = RandomRotate90().draws(keys(MANY))
    assert stats.chisquare(np.bincount(turns, minlength=4)).pvalue > 1e-3
    pairs = np.bincount(4 * turns[:-1] + turns[1:], minlength=16)
    assert stats.chisquare(pairs).pvalue > 1e-3


def test_an_image_that_is_not_square_is_refused() -> None:
    with pytest.raises(ValueError, match=r"images of 4 × 6 pixels; give square ones: put the crop before the rotation"):
        RandomRotate90()(torch.zeros(2, 3, 4, 6), keys(2))


# -------------------------------------------------------------------------------------------------------- what is told


def turned_views(size: int) -> list[list[Op]]:
    """A plain view, and one with ops before and after its rotation."""
    after: list[Op] = [ColorJitter(), Grayscale(), GaussianBlur(0.5), Solarize(0.2)]
    return [[RandomResizedCrop(20)], [RandomResizedCrop(size), HorizontalFlip(), RandomRotate90(), *after]]


@pytest.mark.parametrize("size", [24, 80])
@pytest.mark.parametrize("ways", ["memory", "workers"])
def test_what_is_told_is_what_was_done_to_the_view(pictures: Pictures, size: int, ways: str) -> None:
    views = turned_views(size)
    p, pixels, ids = ViewPipeline(views, MEAN, STD), pictures(14, 48), np.array([*range(30, 43), 10**12])
    told = p.told(torch.from_numpy(ids), 8, 3)
    assert set(told) == {"rotation"}
    assert (told["rotation"].dtype, told["rotation"].shape) == (torch.int64, (14,))
    assert set(told["rotation"].tolist()) == {0, 1, 2, 3}
    if ways == "memory":
        x = as_images(pixels)
        made = p.from_memory(pixels, None, ids, 8, 3)[1]
    else:
        crops = [p.crop_one(image.numpy(), int(i), 8, 3) for image, i in zip(pixels, ids, strict=True)]
        stacked = [torch.from_numpy(np.stack(view)) for view in zip(*crops, strict=True)]
        x = as_images(stacked[1])
        made = p.finish(stacked, ids, 8, 3)[1]
    for position, op in enumerate(views[1]):
        if isinstance(op, RandomRotate90):
            for image, k in zip(x, told["rotation"].tolist(), strict=True):
                image.copy_(torch.from_numpy(np.rot90(image.numpy(), k, axes=(1, 2)).copy()))
        elif not (ways == "workers" and position == 0):
            x = op(x, Keys(8, 3, ids, 1, position))
    assert torch.equal(made, Normalize(MEAN, STD)(x))


def test_what_is_told_of_an_image_depends_on_its_key_alone() -> None:
    p, ids = ViewPipeline(turned_views(24), MEAN, STD), np.arange(200)
    whole = p.told(ids, 0, 5)["rotation"]
    again = ViewPipeline(turned_views(24), MEAN, STD)  # as after a resumption: nothing ran before
    order = np.random.default_rng(0).permutation(200)
    assert torch.equal(again.told(order, 0, 5)["rotation"], whole[torch.from_numpy(order)])
    assert torch.equal(again.told(ids[17:18], 0, 5)["rotation"], whole[17:18])
    for seed, epoch in ((1, 5), (0, 6)):
        assert not torch.equal(p.told(ids, seed, epoch)["rotation"], whole)


def test_views_whose_ops_tell_nothing_tell_nothing() -> None:
    assert ViewPipeline([[RandomResizedCrop(8), HorizontalFlip()]] * 2, MEAN, STD).told(np.arange(3), 0, 0) == {}


def test_several_ops_may_tell_under_different_names(pictures: Pictures) -> None:
    @dataclass(frozen=True)
    class Shade(Op):
        tells: ClassVar[str | None] = "shade"

        def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
            return (keys.uniforms(0, 2).T,)

        def told(self, levels: np.ndarray) -> Any:
            return (10 * levels[:, 1]).astype(np.int64)

        def apply(self, x: Images, levels: np.ndarray) -> Images:
            return x.mul_(torch.from_numpy(levels[:, 1]).float().view(-1, 1, 1, 1))

    ops: list[Op] = [RandomResizedCrop(24), RandomRotate90(), Shade()]
    told = ViewPipeline([[RandomResizedCrop(16)], ops], MEAN, STD).told(np.arange(40), 2, 0)
    assert set(told) == {"shade", "rotation"}
    assert torch.equal(told["shade"], torch.from_numpy((10 * Keys(2, 0, np.arange(40), 1, 2).uniform(1)).astype(int)))
    assert torch.equal(told["rotation"], torch.from_numpy((4 * Keys(2, 0, np.arange(40), 1, 1).uniform(0)).astype(int)))
