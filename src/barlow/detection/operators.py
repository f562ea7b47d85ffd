"""`roi_align` and `nms` in plain torch, and how torchvision's detectors get them where its compiled part is missing.

torchvision's Faster and Mask R-CNN need two compiled operators. Where the library does not load (a CUDA build of
torchvision beside a CPU build of torch; see `barlow.torchvision_guard`), `provide` registers the two functions of this
module in their place. On a matching pair it does nothing, and the compiled ones run.
"""

import importlib
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 256
"""Boxes that `nms` decides at a time: large enough that the work is in matrices, small enough that these stay small."""

_libraries: list[Any] = []  # a torch.library.Library undoes its registrations when it is collected


def provide() -> bool:
    """Makes torchvision's detectors usable. Calling it again changes nothing.

    Returns:
        Whether the operators are ours; False where torchvision's own are there.
    """
    from torchvision.extension import _has_ops

    if _libraries:
        return True
    if _has_ops():
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    # The schema of nms is there already: `torchvision_guard` declared it, or torchvision could not have been imported.
    library.impl("nms", nms, "CompositeExplicitAutograd")
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )
    library.impl("roi_align", roi_align, "CompositeImplicitAutograd")  # autograd goes through it: no backward is needed
    _libraries.append(library)
    # Both modules imported the question whether the compiled part is there by name, so that it is answered in both.
    boxes: Any = importlib.import_module("torchvision.ops.boxes")
    aligning: Any = importlib.import_module("torchvision.ops.roi_align")  # the attribute of this name is the function
    boxes._assert_has_ops = aligning._assert_has_ops = _nothing_to_assert
    aligning._has_ops = _there
    return True


def _nothing_to_assert() -> None:
    """The operators are there."""


def _there() -> bool:
    return True


def roi_align(
    x: Float[Tensor, "n c h w"],
    rois: Float[Tensor, "k 5"],
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Float[Tensor, "k c ph pw"]:
    """Means over the cells of a grid in each box of a feature map, read between its pixels bilinearly.

    Source: He et al., Mask R-CNN (arXiv 1703.06870). The arguments are those of torchvision's operator.

    Convention: torchvision's own Python version, to rounding. A sample outside of the map reads the border.

    Deviation: torchvision's compiled operator reads zero more than one pixel outside of the map. There is no difference
    for boxes that are clipped to their image, as the detectors clip theirs.

    Args:
        x: feature maps.
        rois: in each row the number of an image, and left, top, right and bottom in its pixels.
        spatial_scale: pixels of the map for one of the image.
        pooled_height, pooled_width: of the grid.
        sampling_ratio: samples along each axis of a cell. If it is not positive, there are as many as a cell has pixels
            of the map, rounded up.
        aligned: whether half a pixel is taken off the coordinates. If not, a box has at least a side of one.
    """
    exact = x if x.dtype in (torch.float32, torch.float64) else x.float()
    image = rois[:, 0].long()
    offset = 0.5 if aligned else 0.0
    edges = rois[:, 1:].to(exact.dtype) * spatial_scale - offset
    start, extent = edges[:, :2], edges[:, 2:] - edges[:, :2]
    if not aligned:
        extent = extent.clamp(min=1)
    grid = (pooled_height, pooled_width)
    if not len(rois):  # the map still gets a gradient, of zero
        return (exact.new_zeros(0, x.shape[1], *grid) + 0 * exact.sum()).to(x.dtype)
    if sampling_ratio > 0:
        samples = torch.full((len(rois), 2), sampling_ratio, device=x.device)
    else:
        samples = (extent.detach() / extent.new_tensor([pooled_width, pooled_height])).ceil().clamp(min=1).long()
    alike, group = torch.unique(torch.cat([image[:, None], samples], 1), dim=0, return_inverse=True)
    parts, places = [], []
    for number, (of_image, across, down) in enumerate(alike.tolist()):
        rows = (group == number).nonzero()[:, 0]
        parts.append(_sampled(exact[of_image], start[rows], extent[rows], grid, (down, across)))
        places.append(rows)
    return torch.cat(parts)[torch.argsort(torch.cat(places))].to(x.dtype)


def _sampled(
    x: Float[Tensor, "c h w"],
    start: Float[Tensor, "k 2"],
    extent: Float[Tensor, "k 2"],
    grid: tuple[int, int],
    samples: tuple[int, int],
) -> Float[Tensor, "k c ph pw"]:
    """Boxes of one image with the same number of samples; start and extent are (across, down), the others (down,
    across)."""
    across = _positions(start[:, 0], extent[:, 0], grid[1] * samples[1], x.shape[2])
    down = _positions(start[:, 1], extent[:, 1], grid[0] * samples[0], x.shape[1])
    where = torch.stack(torch.broadcast_tensors(across[:, None, :], down[:, :, None]), -1).flatten(0, 1)
    read = F.grid_sample(x[None], where[None], mode="bilinear", padding_mode="border", align_corners=True)[0]
    cells = F.avg_pool2d(read, samples) if samples != (1, 1) else read
    return cells.unflatten(1, (len(start), grid[0])).transpose(0, 1)


def _positions(start: Tensor, extent: Tensor, count: int, side: int) -> Float[Tensor, "k count"]:
    """Where samples lie along one axis, from −1 at the centre of the first pixel to 1 at that of the last."""
    steps = (torch.arange(count, device=start.device, dtype=start.dtype) + 0.5) / count
    return (start[:, None] + steps * extent[:, None]) * (2 / max(side - 1, 1)) - 1


def nms(
    dets: Float[Tensor, "n 4"], scores: Float[Tensor, "n"], iou_threshold: float
) -> Int[Tensor, "kept"]:  # the names of torchvision's schema
    """Which boxes stay when each removes those of lower scores that overlap it by more than a threshold.

    The best box that is left is kept again and again. Boxes are taken in blocks. Within a block a box is kept if no
    kept better one covers it; asking this again with the answer from before settles the first box, then the second, and
    so on, in practice all of them in a few rounds. What a block keeps then removes boxes from the later ones.

    Convention: the overlap is intersection over union, and must be above the threshold. Of equal scores the first
    counts as the better.

    Args:
        dets: left, top, right, bottom.
        scores: one for each.
        iou_threshold: from 0 to 1.

    Returns:
        Their positions, the best first.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    boxes = dets[order]
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for first in range(0, len(boxes), BLOCK):
        block = slice(first, first + BLOCK)
        here, open_ = boxes[block], alive[block].clone()
        covers = (_overlaps(here, here) > iou_threshold).triu(1)
        keep = open_
        while True:
            again = open_ & ~(covers & keep[:, None]).any(0)
            if torch.equal(again, keep):
                break
            keep = again
        alive[block] = keep
        later = slice(first + BLOCK, None)
        alive[later] &= ~(_overlaps(here[keep], boxes[later]) > iou_threshold).any(0)
    return order[alive]


def _overlaps(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Intersection over union of each box with each other; not a number for two boxes of no area."""
    areas = [(each[:, 2] - each[:, 0]) * (each[:, 3] - each[:, 1]) for each in (a, b)]
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    return shared / (areas[0][:, None] + areas[1][None, :] - shared)
