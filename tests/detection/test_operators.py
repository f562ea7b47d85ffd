"""`roi_align` and `nms` of ours, against torchvision's own Python version and a textbook loop."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from barlow.detection import operators


def reference(*given: object) -> Tensor:
    """torchvision's Python version, as it stands behind its `torch.compile`."""
    import torchvision.ops  # noqa: F401

    plain = sys.modules["torchvision.ops.roi_align"]._roi_align  # type: ignore[attr-defined]
    while hasattr(plain, "__wrapped__"):
        plain = plain.__wrapped__
    return plain(*given)  # type: ignore[no-any-return]


def boxes(count: int, seed: int, images: int = 2, side: float = 40.0) -> Tensor:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, side, (count, 2, 2)), axis=1)
    corners[0] = [[0, 0], [side, side]]  # the whole image
    corners[1] = [[side - 0.3, 3], [side, 3.2]]  # less than a pixel, at the border
    image = rng.integers(0, images, (count, 1))
    return torch.from_numpy(np.concatenate([image, corners.reshape(count, 4)], 1))


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [1, 2, 0, -1])
@pytest.mark.parametrize("pooled", [(7, 7), (14, 14), (3, 5)])
def test_roi_align_is_torchvisions_to_the_last_digits_and_so_is_its_gradient(
    aligned: bool, ratio: int, pooled: tuple[int, int]
) -> None:
    made = []
    for function in (operators.roi_align, reference):
        x = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 3, 10, 12))).requires_grad_()
        out = function(x, boxes(24, seed=2), 0.25, *pooled, ratio, aligned)
        weights = torch.from_numpy(np.random.default_rng(3).standard_normal(tuple(out.shape)))
        (out * weights).sum().backward()
        made.append((out.detach(), x.grad))
    (ours, our_gradient), (theirs, their_gradient) = made
    assert ours.shape == (24, 3, *pooled)
    assert (ours - theirs).abs().max() <= 1e-13
    assert (our_gradient - their_gradient).abs().max() <= 1e-13


def test_roi_align_reads_a_map_of_one_pixel() -> None:
    x = torch.full((1, 2, 1, 1), 3.0, dtype=torch.float64)
    rois = torch.tensor([[0.0, 0.0, 0.0, 16.0, 16.0]], dtype=torch.float64)
    assert torch.equal(operators.roi_align(x, rois, 1 / 16, 2, 2, 2, False), torch.full((1, 2, 2, 2), 3.0).double())


def test_roi_align_of_no_box_is_empty_and_leaves_a_gradient_of_zero() -> None:
    x = torch.ones(1, 2, 4, 4, requires_grad=True)
    made = operators.roi_align(x, torch.zeros(0, 5), 0.25, 7, 7, 2, False)
    assert made.shape == (0, 2, 7, 7)
    made.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_roi_align_of_half_precision_is_computed_in_full() -> None:
    x = torch.randn(1, 2, 30, 30, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor([[0.0, 1.3, 2.7, 101.1, 90.9]])
    low = operators.roi_align(x.bfloat16(), rois, 0.25, 7, 7, 2, False)
    full = operators.roi_align(x.bfloat16().float(), rois, 0.25, 7, 7, 2, False)
    assert torch.equal(low, full.bfloat16())


def textbook(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])  # sorted() is stable
    kept = []
    while left:
        best, *left = left
        kept.append(best)
        left = [i for i in left if not overlap(boxes[best], boxes[i]) > threshold]
    return kept


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = wide * high
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.mark.parametrize("count", [1, 2, 50, 300, 700])  # of one block, and of several
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms_keeps_what_a_textbook_loop_keeps(count: int, threshold: float) -> None:
    rng = np.random.default_rng(count)
    corners = rng.uniform(0, 60, (count, 2))
    found = np.concatenate([corners, corners + rng.uniform(4, 40, (count, 2))], 1)
    scores = np.round(rng.uniform(0, 1, count), 2)  # so that some are equal
    kept = operators.nms(torch.from_numpy(found), torch.from_numpy(scores), threshold)
    assert kept.tolist() == textbook(found, scores, threshold)
    assert count < 50 or len(kept) < count, "something was removed"


def test_nms_of_nothing_is_nothing() -> None:
    assert operators.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_a_chain_of_boxes_that_each_cover_the_next_keeps_every_second() -> None:
    """The case in which settling a block takes as many rounds as it has boxes."""
    count = 600
    left = torch.arange(count, dtype=torch.float64)
    chain = torch.stack([left, torch.zeros(count), left + 3, torch.ones(count)], 1).double()
    kept = operators.nms(chain, torch.linspace(1, 0, count, dtype=torch.float64), 0.4)  # 2 / 4 and 1 / 5
    assert kept.tolist() == list(range(0, count, 2))


def test_torchvisions_own_functions_work_whether_or_not_its_compiled_part_does() -> None:
    ours = operators.provide()
    from torchvision.extension import _has_ops
    from torchvision.ops import batched_nms, roi_align

    assert ours != _has_ops()
    assert operators.provide() == ours, "a second call changes nothing"
    x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    rois = torch.tensor([[0.0, 1.0, 2.0, 20.0, 25.0]]).double()
    made = roi_align(x, rois, (7, 7), spatial_scale=0.25, sampling_ratio=2)
    assert (made - reference(x, rois, 0.25, 7, 7, 2, False)).abs().max() <= 1e-13
    same = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).repeat(3, 1)
    kept = batched_nms(same, torch.tensor([0.1, 0.9, 0.5]), torch.tensor([0, 0, 1]), 0.5)
    assert kept.tolist() == [1, 2], "of one class one stays"
