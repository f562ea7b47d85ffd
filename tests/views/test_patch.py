"""Patches of a crop: where they lie, that they are drawn evenly, and that they are the crop's own pixels."""

import numpy as np
import pytest
import torch

from barlow.views.keys import Keys
from barlow.views.ops import RandomResizedCrop
from barlow.views.ops.patch import PatchOfCrop
from barlow.views.pipeline import ViewPipeline

N = 3000


def keys(n: int = N) -> Keys:
    return Keys(seed=3, epoch=1, ids=np.arange(n), view=2, op=0)


def whole(side: int = 256) -> PatchOfCrop:
    """Patches of all of the image."""
    return PatchOfCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0), whole=side, size=96 * side // 256, jitter=24 * side // 256)


def test_of_a_whole_image_the_patches_are_the_papers_nine_places_with_their_offsets() -> None:
    sides = np.full(N, 256)
    boxes = whole().boxes(sides, sides, keys())
    assert (boxes[:, 2:] == 96).all()
    cells, offsets = np.divmod(boxes[:, :2], 68)
    assert set(np.unique(cells)) == {0, 1, 2}
    assert offsets.min() == 0
    assert offsets.max() == 24
    counts = np.bincount(cells[:, 0] * 3 + cells[:, 1], minlength=9)
    assert counts.min() > 0.8 * N / 9
    assert np.bincount(offsets[:, 1], minlength=25).min() > 0.6 * N / 25
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 0.1


def test_a_patch_lies_inside_its_crop_and_has_its_share_of_it() -> None:
    heights, widths = np.full(N, 300), np.full(N, 400)
    op = PatchOfCrop()
    (uniforms,) = op.draws(keys())
    boxes = op.boxes_of(heights, widths, uniforms)
    crops = RandomResizedCrop(size=256, scale=(0.6, 1.0)).boxes_of(heights, widths, uniforms[:, PatchOfCrop.PATCH :])
    assert (boxes[:, :2] >= crops[:, :2]).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= crops[:, :2] + crops[:, 2:]).all()
    assert (np.abs(boxes[:, 2:] - crops[:, 2:] * 96 / 256) <= 0.5).all()


def test_the_pixels_are_those_of_the_crop_at_the_place_of_the_patch() -> None:
    x = torch.rand(4, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    boxes = whole().boxes(np.full(4, 256), np.full(4, 256), keys(4))
    for image, patch, (top, left, _, _) in zip(x, whole()(x, keys(4)), boxes, strict=True):
        assert torch.allclose(patch, image[:, top : top + 96, left : left + 96], atol=1e-5)


def test_a_worker_makes_the_same_patch_as_the_batch() -> None:
    x = torch.randint(0, 256, (3, 3, 64, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pipeline = ViewPipeline([[PatchOfCrop(size=12, whole=32, jitter=4)]], [0.5] * 3, [0.25] * 3)
    ids = np.arange(3)
    (held,) = pipeline.from_memory(x, None, ids, 0, 0)
    crops = np.stack([pipeline.crop_one(image.numpy(), int(i), 0, 0)[0] for i, image in zip(ids, x, strict=True)])
    (streamed,) = pipeline.finish([torch.from_numpy(crops)], ids, 0, 0)
    assert float((held - streamed).abs().max()) < 0.03
    assert pipeline.sizes == (12,)


@pytest.mark.parametrize("bad", [{"size": (96, 48)}, {"whole": 100}, {"grid": 0}, {"jitter": -1}])
def test_patches_that_do_not_fit_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="patch_of_crop"):
        PatchOfCrop(**bad)
