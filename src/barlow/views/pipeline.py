"""Makes the views of a batch: all at once from images in memory, or the crops in workers and the rest batched.

Both ways draw from the same table of keys, so they make the same views. Their pixels differ by rounding, because a
worker rounds its crops to the bits that they are held in, 8 or 16, to send them to the main process.
"""

import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt
from torch import Tensor

from barlow.size import Size, height_width, words
from barlow.types import Images, Pixels
from barlow.views.keys import Keys
from barlow.views.ops import Normalize, Op, RandomResizedCrop, as_images, kind_of
from barlow.views.ops.crop import central_boxes

CHUNK = 1 << 20
"""On a CPU, this many elements of float images (4 MiB) are worked on at a time. Torch's calls then cost little beside
their work. What an image becomes does not depend on its batch, so this changes the speed and nothing else."""

ALONE = 1 << 16
"""An image of more elements (147 pixels square) is worked on by itself. It is then changed where it lies, without being
gathered first, and it stays in a core's second cache from pass to pass."""

OUTPUTS = 4
"""Batches whose memory is kept: one in training, one that is being made, and as many that a caller looks at."""

Drawn = Sequence[tuple[Op, tuple[np.ndarray, ...]]]
"""Ops in their order, each with what it drew for the images of a batch."""


class ViewPipeline:
    """Turns images into one or more normalised views, each of a size of its own.

    Args:
        views: the ops of each view in order, with exactly one RandomResizedCrop each. Ops before the crop see the whole
            image (W-MSE's order). The position of an op in its list is part of its key.
        mean: per channel, of images in [0, 1]; normalisation comes last in every view.
        std: per channel.

    Attributes:
        sizes: of each view in pixels: the side of a square, or (height, width).
        crop_sizes: of what the crop of each view makes, before an op (tiles) makes another size of it.

    Raises:
        ValueError: there is no view; a view has no crop or several, or normalises; a view that is not square has an op
            for square ones; an op that changes the size comes before the crop, or does not fit the size; a crop or a
            flip comes after an op that tells what it drew; two ops tell something by the same name.
    """

    def __init__(self, views: Sequence[Sequence[Op]], mean: Sequence[float], std: Sequence[float]):
        self.views: tuple[tuple[Op, ...], ...] = tuple(tuple(ops) for ops in views)
        if not self.views:
            raise ValueError("views: got none; give the ops of one view or more.")
        self.normalize = Normalize(tuple(mean), tuple(std))
        self._crops = [_crop_position(number, ops) for number, ops in enumerate(self.views, 1)]
        self.crop_sizes: tuple[Size, ...] = tuple(self._crop(view).size for view in range(len(self.views)))
        numbers = range(1, 1 + len(self.views))
        self.sizes: tuple[Size, ...] = tuple(map(_size_after, numbers, self.views, self._crops))
        self._telling = _telling_ops(self.views)
        self._outputs = _Outputs(OUTPUTS * len(self.views))

    def _crop(self, view: int) -> RandomResizedCrop:
        crop = self.views[view][self._crops[view]]
        assert isinstance(crop, RandomResizedCrop)
        return crop

    def from_memory(
        self, pixels: Pixels, sizes: np.ndarray | Tensor | None, ids: np.ndarray | Tensor, seed: int, epoch: int
    ) -> list[Images]:
        """Makes all views of images that are held in memory at one size, on the device that they are on.

        Args:
            pixels: the images, uint8 or uint16.
            sizes: (n, 2) original height and width of each; None if the images were not resized.
            ids: (n,) sample ids.
            seed: of the run.
            epoch: of the batch.
        """
        original, ids = _original_sizes(pixels, sizes), _on_host(ids)
        if ids.shape != (len(pixels),):
            raise ValueError(f"got {len(pixels)} images and ids {ids.shape}; give ids (n,), one per image.")
        views = []
        for view, (ops, size) in enumerate(zip(self.views, self.sizes, strict=True)):
            drawn = _draw(ops, 0, Keys(seed, epoch, ids, view))
            shape = (*pixels.shape[:2], *height_width(size))
            views.append(self._normalized(pixels, shape, partial(_apply, drawn, original)))
        return views

    def cropper(self, ids: np.ndarray, seed: int, epoch: int) -> "Cropper":
        """Draws, for a batch at once, what makes the first part of each view: the ops up to and including the crop.

        Args:
            ids: (n,) sample ids.
            seed: of the run.
            epoch: of the batch.
        """
        return Cropper([ops[: at + 1] for ops, at in zip(self.views, self._crops, strict=True)], ids, seed, epoch)

    def crop_one(
        self, image: UInt[np.ndarray, "c h w"], id: int, seed: int, epoch: int
    ) -> list[UInt[np.ndarray, "c high wide"]]:
        """The same as ``cropper``, for the one image that has this id."""
        return self.cropper(np.array([id]), seed, epoch)(image, 0)

    def finish(
        self, crops: Sequence[Pixels], ids: np.ndarray | Tensor, seed: int, epoch: int
    ) -> list[Float[Tensor, "n c high wide"]]:
        """Makes the rest of each view, batched: the ops after the crop, and normalisation.

        Args:
            crops: the results of ``cropper``, stacked for each view; on the device to work on.
            ids: (n,) sample ids.
            seed: of the run.
            epoch: of the batch.
        """
        if len(crops) != len(self.views):
            raise ValueError(f"crops: got {len(crops)} views; give {len(self.views)}, as a cropper makes them.")
        ids = _on_host(ids)
        views = []
        for view, (ops, pixels) in enumerate(zip(self.views, crops, strict=True)):
            _check_held("crops", pixels.dtype, torch.uint8, torch.uint16)
            if ids.shape != (len(pixels),):
                raise ValueError(
                    f"got {len(pixels)} crops of a view and ids {ids.shape}; give ids (n,), one per image."
                )
            drawn = _draw(ops, self._crops[view] + 1, Keys(seed, epoch, ids, view))
            same = self.sizes[view] == self.crop_sizes[view]
            shape = pixels.shape if same else (*pixels.shape[:2], *height_width(self.sizes[view]))
            views.append(self._normalized(pixels, shape, partial(_apply, drawn, None)))
        return views

    def told(self, ids: np.ndarray | Tensor, seed: int, epoch: int) -> dict[str, Int64[Tensor, "n"]]:
        """What ops drew that an objective can ask for, by name, such as the ``rotation`` of RandomRotate90.

        It is drawn anew from the keys, so it needs no images and is the same wherever the views are made.

        Args:
            ids: (n,) sample ids.
            seed: of the run.
            epoch: of the batch.

        Returns:
            Tensors on the CPU; none if no op tells anything.
        """
        ids, told = _on_host(ids), {}
        for name, (view, position, op) in self._telling.items():
            draws = op.draws(Keys(seed, epoch, ids, view, position))
            told[name] = torch.from_numpy(op.told(*draws))
        return told

    def centre_from_memory(self, pixels: Pixels, sizes: np.ndarray | Tensor | None) -> Images:
        """One plain view of each image, without any draw: its centre at the first view's size, normalised.

        A pass that embeds all images (a clustering before an epoch) needs the same view of an image each time. It is
        the largest central box that has the view's aspect ratio, resampled as RandomResizedCrop resamples its box.

        Args:
            pixels: the images in memory, uint8 or uint16, on the device to work on.
            sizes: (n, 2) original height and width of each; None if the images were not resized.
        """
        original, crop = _original_sizes(pixels, sizes), self._crop(0)
        boxes = central_boxes(original[:, 0], original[:, 1], crop.size)

        def cropped(x: Images, rows: slice) -> Images:
            return crop.resample_held(x, boxes[rows], original[rows])

        return self._normalized(pixels, (*pixels.shape[:2], *height_width(crop.size)), cropped)

    def centre_crop(self, image: UInt[np.ndarray, "c h w"]) -> UInt[np.ndarray, "c high wide"]:
        """The same view as from ``centre_from_memory``, of an image of any size and before normalisation: for a worker.

        Args:
            image: uint8 or uint16; its layout in memory may be that of (h, w, c).
        """
        _check_held("image", image.dtype, np.dtype(np.uint8), np.dtype(np.uint16))
        height, width = image.shape[1:]
        crop = self._crop(0)
        return crop.resample_one(image, central_boxes(np.array([height]), np.array([width]), crop.size)[0])

    def finish_centre(self, crops: Pixels) -> Images:
        """Normalises the results of ``centre_crop``, stacked; on the device that they are on."""
        _check_held("crops", crops.dtype, torch.uint8, torch.uint16)
        return self._normalized(crops, crops.shape, lambda x, rows: x)

    def _normalized(self, pixels: Pixels, shape: Sequence[int], change: Callable[[Images, slice], Images]) -> Images:
        """Changes images and normalises them; on a CPU a few images at a time, in memory that is used again.

        Args:
            pixels: the images.
            shape: of the result.
            change: what is done to the images of some rows, given as floats.
        """
        n, on_cpu = len(pixels), pixels.device.type == "cpu"
        out = self._outputs.take(shape) if on_cpu else torch.empty(tuple(shape), device=pixels.device)
        # Elements of the image at its largest: before the crop or after it.
        elements = shape[1] * max(pixels.shape[2] * pixels.shape[3], shape[2] * shape[3])
        together = n if not on_cpu else 1 if elements > ALONE else CHUNK // max(1, elements)
        step = max(1, together)
        for start in range(0, max(1, n), step):
            rows = slice(start, start + step)
            # Inference mode spares autograd's bookkeeping of every pass. `out` was made outside of it, so the caller
            # gets an ordinary tensor.
            with torch.inference_mode():
                self.normalize.apply(change(as_images(pixels[rows]), rows), out=out[rows])
        return out


def _crop_position(number: int, ops: Sequence[Op]) -> int:
    """Where the crop is among the ops of a view; raises ValueError if the view cannot be made."""
    positions = [i for i, op in enumerate(ops) if isinstance(op, RandomResizedCrop)]
    if len(positions) != 1:
        raise ValueError(f"view {number}: got {len(positions)} random_resized_crop ops; give exactly one.")
    if any(isinstance(op, Normalize) for op in ops):
        raise ValueError(f"view {number}: got a normalize op; leave it out: mean and std are applied last anyway.")
    return positions[0]


def _size_after(number: int, ops: Sequence[Op], crop: int) -> Size:
    """The size of a view, made by its crop and then by the ops that make another size of it.

    Raises:
        ValueError: the view is not square where an op is for square ones; an op changes the size before the crop, or
            cannot be used on this size.
    """
    if (early := next((op for op in ops[:crop] if op.tiling() is not None), None)) is not None:
        raise ValueError(f"view {number}: got {kind_of(type(early))} before the crop; put it after: it needs one size.")
    cropping = ops[crop]
    assert isinstance(cropping, RandomResizedCrop)
    size = cropping.size
    for op in (*ops[:crop], *ops[crop + 1 :]):
        _check_square(number, op, size)
        try:
            size = op.size_after(size)
        except ValueError as error:
            raise ValueError(f"view {number}: {error}") from None
    return size


def _check_square(number: int, op: Op, size: Size) -> None:
    """Raises ValueError if a view that is not square has an op for square ones."""
    if not isinstance(size, int) and op.square:
        kind = kind_of(type(op))
        raise ValueError(
            f"view {number}: got {kind} and a size of {words(size)} (height x width); {kind} is for square views: give "
            f"one side ({min(size)}), or leave {kind} out."
        )


def _telling_ops(views: Sequence[Sequence[Op]]) -> dict[str, tuple[int, int, Op]]:
    """The ops that tell what they drew, by the name they use: (view, position in its list, op).

    Raises:
        ValueError: two tell by the same name, or an op moves pixels after one that tells. A flip after a rotation, for
            example, would turn a quarter turn to the left into one to the right.
    """
    found: dict[str, tuple[int, int, Op]] = {}
    for view, ops in enumerate(views):
        for position, op in enumerate(ops):
            if op.tells is None:
                continue
            place = f"{kind_of(type(op))} of view {view + 1}"
            if op.tells in found:
                other_view, _, other = found[op.tells]
                raise ValueError(
                    f"views: {kind_of(type(other))} of view {other_view + 1} and {place} both tell {op.tells!r}; keep "
                    "one: an objective could not know which is meant."
                )
            found[op.tells] = view, position, op
    for name, (view, position, op) in found.items():
        for later in views[view][position + 1 :]:
            if later.geometric:
                raise ValueError(
                    f"view {view + 1}: got {kind_of(type(later))} after {kind_of(type(op))}; put it before: it moves "
                    f"pixels, so the {name} that is told would be wrong."
                )
    return found


def _draw(ops: Sequence[Op], first: int, keys: Keys) -> Drawn:
    """The ops from position ``first`` on, each with its draws."""
    return [(op, op.draws(keys.for_op(at))) for at, op in enumerate(ops) if at >= first]


def _apply(drawn: Drawn, sizes: np.ndarray | None, x: Images, rows: slice) -> Images:
    """Applies ops to the images of some rows of a batch.

    Args:
        drawn: the ops, with the draws of the whole batch.
        sizes: (n, 2) original height and width of each image, if the crop is among the ops.
        x: the images of these rows.
        rows: of the batch.
    """
    for op, draws in drawn:
        of_rows = [draw[rows] for draw in draws]
        if isinstance(op, RandomResizedCrop) and sizes is not None:
            of_rows.append(sizes[rows])
        x = op.apply(x, *of_rows)
    return x


class Cropper:
    """Makes the first part of each view of the images of a batch, one by one; see `ViewPipeline.cropper`.

    Drawing takes as long for one image as for a whole batch. If a worker drew for each image apart, that would be a
    tenth of its time.
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

    def __call__(self, image: UInt[np.ndarray, "c h w"], row: int) -> list[UInt[np.ndarray, "c high wide"]]:
        """The crops of the image that has the id at this row, one for each view.

        Args:
            image: uint8 or uint16 of any size; its layout in memory may be that of (h, w, c).
            row: of the ids.
        """
        _check_held("image", image.dtype, np.dtype(np.uint8), np.dtype(np.uint16))
        _, height, width = image.shape
        out = []
        for (*before, _), draws, crop, shapes in zip(self._views, self._draws, self._crops, self._shapes, strict=True):
            shares, ratios = (values[row] for values in shapes)
            box = crop.box_of_one(height, width, shares, ratios, draws[-1][0][row])
            if not before:
                out.append(crop.resample_one(image, box))
                continue
            pixels = torch.from_numpy(np.array(image))[None]
            x = as_images(pixels)
            for op, drawn in zip(before, draws[:-1], strict=True):
                x = op.apply(x, *(values[row : row + 1] for values in drawn))
            out.append(as_pixels(crop.resample(x, np.array([box])), pixels.dtype)[0].numpy())
        return out


def as_pixels(x: Images, kind: torch.dtype = torch.uint8) -> Pixels:
    """Images in [0, 1] rounded to 8 bits, or to 16."""
    return x.mul(255.0 if kind == torch.uint8 else 65_535.0).round_().to(kind)


class _Outputs:
    """Memory for finished views on a CPU. It is given out again once nobody holds the views that were in it.

    The system clears memory when it is first touched, and that takes longer than most ops take on the images that are
    then put there.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[tuple[np.ndarray, weakref.ref[np.ndarray]]] = []
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["_Outputs"], tuple[int]]:
        return type(self), (self._most,)  # a copy in another process has memory of its own

    def take(self, shape: Sequence[int]) -> Images:
        """A tensor of any content that shares its memory with no other tensor in use."""
        with self._lock:
            free = (at for at, (array, lent) in enumerate(self._kept) if lent() is None and array.shape == tuple(shape))
            if (at := next(free, None)) is not None:
                array, _ = self._kept.pop(at)
            else:
                # NumPy asks the system for large pages (on Linux, from 4 MB on), which are cleared faster.
                array = np.empty(shape, np.float32)
            # The tensor, and whatever is made of it, holds this view of the array. Nobody else does, so the memory is
            # free as soon as the view is gone.
            lent = array[:]
            self._kept = [(array, weakref.ref(lent)), *self._kept[: self._most - 1]]
            return torch.from_numpy(lent)


def _original_sizes(pixels: Pixels, sizes: np.ndarray | Tensor | None) -> np.ndarray:
    """Checks images in memory; returns (n, 2), the height and width that each had before it was resized."""
    _check_held("pixels", pixels.dtype, torch.uint8, torch.uint16)
    original = np.tile([pixels.shape[2:]], (len(pixels), 1)) if sizes is None else _on_host(sizes)
    if original.shape != (len(pixels), 2):
        raise ValueError(f"got {len(pixels)} images and sizes {original.shape}; give sizes (n, 2), one row per image.")
    return original


def _on_host(values: np.ndarray | Tensor) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _check_held(name: str, given: object, *allowed: object) -> None:
    if given not in allowed:
        raise ValueError(f"{name}: got {given}; give uint8 or uint16, as images are held.")
