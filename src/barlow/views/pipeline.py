"""Makes the views of a batch: all at once from memory, or the crop in a worker and the rest batched.

Both ways draw from the same table of keys, so they make the same views; their pixels differ by rounding (a worker's
crop is rounded to 8 bits to cross the process boundary).
"""

import math
import threading
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from barlow.types import Images, Pixels
from barlow.views.keys import Keys
from barlow.views.ops import Normalize, Op, RandomResizedCrop, as_images

# Elements of float images worked on at a time on a CPU: 4 MiB, for which torch's calls cost little beside their work.
# An image of more than ALONE elements (147 pixels square) is worked on by itself, where it lies: it is changed without
# being gathered first, and stays in a core's second cache from pass to pass. What a sample becomes does not depend on
# its batch, so this changes the speed and nothing else.
CHUNK, ALONE = 1 << 20, 1 << 16

OUTPUTS = 4
"""Batches whose memory is kept: one in training, one that is made meanwhile, and as many that a caller looks at."""


class ViewPipeline:
    """Turns images into two or more normalised views of one size.

    Args:
        views: the ops of each view in order, with exactly one RandomResizedCrop each. Ops before the crop see the whole
            image (W-MSE's order). The position of an op in its list is part of its key.
        mean: per channel, of images in [0, 1]; normalisation comes last in every view.
        std: per channel.

    Raises:
        ValueError: if there are fewer than two views, one has no crop or several, sizes differ, or a view normalises.
    """

    def __init__(self, views: Sequence[Sequence[Op]], mean: Sequence[float], std: Sequence[float]):
        self.views: tuple[tuple[Op, ...], ...] = tuple(tuple(ops) for ops in views)
        if len(self.views) < 2:
            raise ValueError(f"views: got {len(self.views)}; give two or more: the objectives compare views.")
        self.normalize = Normalize(tuple(mean), tuple(std))
        self._crops = [self._crop_position(number, ops) for number, ops in enumerate(self.views)]
        sizes = [self._crop(view).size for view in range(len(self.views))]
        if len(set(sizes)) > 1:
            raise ValueError(f"views: got crops of sizes {sizes}; give all views the same size.")
        self.size: int = sizes[0]
        self._outputs = _Outputs(OUTPUTS * len(self.views))

    @staticmethod
    def _crop_position(number: int, ops: tuple[Op, ...]) -> int:
        positions = [i for i, op in enumerate(ops) if isinstance(op, RandomResizedCrop)]
        if len(positions) != 1:
            raise ValueError(f"view {number + 1}: got {len(positions)} random_resized_crop ops; give exactly one.")
        if any(isinstance(op, Normalize) for op in ops):
            raise ValueError(
                f"view {number + 1}: got a normalize op; leave it out: mean and std are applied last anyway."
            )
        return positions[0]

    def _crop(self, view: int) -> RandomResizedCrop:
        crop = self.views[view][self._crops[view]]
        assert isinstance(crop, RandomResizedCrop)
        return crop

    def from_memory(
        self, pixels: Pixels, sizes: np.ndarray | Tensor | None, ids: np.ndarray | Tensor, seed: int, epoch: int
    ) -> list[Images]:
        """Makes all views of images held decoded at one size, on the device they are on.

        Args:
            pixels: the images, uint8.
            sizes: (n, 2) original height and width of each; None if they are held as they were.
            ids: (n,) sample ids.
            seed: of the run.
            epoch: of the batch.
        """
        _check_uint8("pixels", pixels.dtype, torch.uint8)
        ids = _on_host(ids)
        original = np.tile([pixels.shape[2:]], (len(pixels), 1)) if sizes is None else _on_host(sizes)
        if original.shape != (len(pixels), 2) or ids.shape != (len(pixels),):
            raise ValueError(
                f"got {len(pixels)} images, sizes {original.shape}, ids {ids.shape}; give sizes (n, 2) and ids (n,)."
            )
        largest = pixels.shape[1] * max(pixels.shape[2] * pixels.shape[3], self.size**2)
        out = []
        for view in range(len(self.views)):
            ops, keys = list(enumerate(self.views[view])), Keys(seed, epoch, ids, view)
            out.append(self._made(pixels, ops, keys, original, largest))
        return out

    def cropper(self, ids: np.ndarray, seed: int, epoch: int) -> "Cropper":
        """Draws, for a batch at once, what makes the first part of each view: the ops up to and including the crop.

        Args:
            ids: (n,) sample ids.
            seed: of the run.
            epoch: of the batch.
        """
        return Cropper([ops[: at + 1] for ops, at in zip(self.views, self._crops, strict=True)], ids, seed, epoch)

    def crop_one(
        self, image: UInt8[np.ndarray, "c h w"], id: int, seed: int, epoch: int
    ) -> list[UInt8[np.ndarray, "c s s"]]:
        """As ``cropper``, for the one image that has this id."""
        return self.cropper(np.array([id]), seed, epoch)(image, 0)

    def finish(
        self, crops: Sequence[Pixels], ids: np.ndarray | Tensor, seed: int, epoch: int
    ) -> list[Float[Tensor, "n c s s"]]:
        """Makes the rest of each view, batched: the ops after the crop, and normalisation.

        Args:
            crops: per view the results of ``cropper``, stacked; on the device to work on.
            ids: (n,) sample ids.
            seed: of the run.
            epoch: of the batch.
        """
        if len(crops) != len(self.views):
            raise ValueError(f"crops: got {len(crops)} views; give {len(self.views)}, as a cropper makes them.")
        ids = _on_host(ids)
        out = []
        for view, pixels in enumerate(crops):
            _check_uint8("crops", pixels.dtype, torch.uint8)
            if ids.shape != (len(pixels),):
                raise ValueError(
                    f"got {len(pixels)} crops of a view and ids {ids.shape}; give ids (n,), one per image."
                )
            ops = list(enumerate(self.views[view]))[self._crops[view] + 1 :]
            out.append(self._made(pixels, ops, Keys(seed, epoch, ids, view), None, math.prod(pixels.shape[1:])))
        return out

    def _made(
        self,
        pixels: Pixels,
        ops: Sequence[tuple[int, Op]],
        keys: Keys,
        sizes: np.ndarray | None,
        elements: int,
    ) -> Images:
        """One view: the ops, each with its position, and normalisation; on a CPU a few images at a time.

        Args:
            pixels: what the ops are given.
            ops: with their positions.
            keys: of the samples.
            sizes: original height and width, if the crop is among the ops.
            elements: of the largest image that is met.
        """
        n, c = pixels.shape[:2]
        side = (n, c, self.size, self.size) if sizes is not None else pixels.shape
        cpu = pixels.device.type == "cpu"
        out = self._outputs.take(side) if cpu else torch.empty(side, device=pixels.device)
        drawn = [(op, op.draws(keys.for_op(position))) for position, op in ops]
        together = n if not cpu else 1 if elements > ALONE else CHUNK // max(1, elements)
        step = max(1, together)
        for start in range(0, max(1, n), step):
            rows = slice(start, start + step)
            # Which spares autograd's bookkeeping of every pass; `out` is an ordinary tensor all the same.
            with torch.inference_mode():
                x = as_images(pixels[rows])
                for op, draws in drawn:
                    of_rows = [draw[rows] for draw in draws]
                    if isinstance(op, RandomResizedCrop) and sizes is not None:
                        x = op.apply(x, of_rows[0], sizes[rows])
                    else:
                        x = op.apply(x, *of_rows)
                self.normalize.apply(x, out=out[rows])
        return out


class Cropper:
    """Makes the first part of each view of the images of a batch, one by one; see `ViewPipeline.cropper`.

    Drawing takes as long for one image as for all of a batch, and in a worker a tenth of what an image takes in all.
    """

    def __init__(self, views: Sequence[Sequence[Op]], ids: np.ndarray, seed: int, epoch: int) -> None:
        self._views = views
        self._crops = [crop for *_, crop in views if isinstance(crop, RandomResizedCrop)]
        self._draws = [
            [op.draws(Keys(seed, epoch, ids, view, position)) for position, op in enumerate(ops)]
            for view, ops in enumerate(views)
        ]
        shapes = (crop.shapes(draws[-1][0]) for crop, draws in zip(self._crops, self._draws, strict=True))
        self._shapes = [(shares.tolist(), ratios.tolist()) for shares, ratios in shapes]

    def __call__(self, image: UInt8[np.ndarray, "c h w"], row: int) -> list[UInt8[np.ndarray, "c s s"]]:
        """The crops of the image that has the id at this row, one for each view.

        Args:
            image: uint8 of any size; its layout in memory may be that of (h, w, c).
            row: of the ids.
        """
        _check_uint8("image", image.dtype, np.dtype(np.uint8))
        _, height, width = image.shape
        out = []
        for (*before, _), draws, crop, shapes in zip(self._views, self._draws, self._crops, self._shapes, strict=True):
            shares, ratios = (values[row] for values in shapes)
            box = crop.box_of_one(height, width, shares, ratios, draws[-1][0][row])
            if not before:
                out.append(crop.resample_one(image, box))
                continue
            x = as_images(torch.from_numpy(np.array(image))[None])
            for op, drawn in zip(before, draws[:-1], strict=True):
                x = op.apply(x, *(values[row : row + 1] for values in drawn))
            out.append(as_pixels(crop.resample(x, np.array([box])))[0].numpy())
        return out


def as_pixels(x: Images) -> Pixels:
    """Images in [0, 1] rounded to 8 bits."""
    return x.mul(255.0).round_().to(torch.uint8)


class _Outputs:
    """Memory for finished views on a CPU, given out again once nobody holds the views that were in it.

    The system clears memory at its first touch, which takes longer than most ops on the images that are put there.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[tuple[np.ndarray, weakref.ref[np.ndarray]]] = []
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["_Outputs"], tuple[int]]:
        return type(self), (self._most,)  # another process has memory of its own

    def take(self, shape: Sequence[int]) -> Images:
        """A tensor of any content that shares its memory with no other."""
        with self._lock:
            free = (at for at, (array, lent) in enumerate(self._kept) if lent() is None and array.shape == tuple(shape))
            if (at := next(free, None)) is not None:
                array, _ = self._kept.pop(at)
            else:
                # NumPy asks the system for large pages (on Linux, from 4 MB on), which are cleared faster.
                array = np.empty(shape, np.float32)
            # The tensor and whatever is made of it hold this view of the array, and nobody else does.
            lent = array[:]
            self._kept = [(array, weakref.ref(lent)), *self._kept[: self._most - 1]]
            return torch.from_numpy(lent)


def _on_host(values: np.ndarray | Tensor) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _check_uint8(name: str, given: object, allowed: object) -> None:
    if given != allowed:
        raise ValueError(f"{name}: got {given}; give uint8, as images are stored.")
