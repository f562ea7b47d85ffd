"""Random resized crops, and the resampling that they share with the centre view."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt
from torch import Tensor
from torch.nn import functional as F

from barlow.levels import white
from barlow.size import Size, aspect, height_width, size_of
from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops._op import Op, between, checked_range

__all__ = ["RandomResizedCrop"]


def _bicubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5, with which Pillow and torch (antialias=True) resample."""
    # Source: Keys 1981, "Cubic convolution interpolation for digital image processing", equation 15. It has two pieces,
    # for distances up to 1 and from 1 to 2. Each is exactly 0 at the ends of the other's interval. So the distance is
    # clamped to each interval in turn, and in the sum of the two pieces only the right one counts.
    t = distance.abs()
    far, t = t.clamp(1.0, 2.0), t.clamp_(max=1.0)
    near = (1.5 * t).sub_(2.5).mul_(t).mul_(t).add_(1.0)
    return near.add_((-0.5 * far).add_(2.5).mul_(far).sub_(4.0).mul_(far).add_(2.0))


def resampling_weights(
    starts: Float[Tensor, "n"], lengths: Float[Tensor, "n"], side: int, size: int
) -> Float[Tensor, "n {size} {side}"]:
    """How much each of ``side`` pixels counts in each of ``size`` outputs when an interval of them is resized.

    Bicubic. Where the interval shrinks, the kernel widens with it (antialiasing). Pixels outside of the interval have
    no weight, as if the interval had been cut out first; pixels that lie partly inside count. Rows sum to one.

    Source: the convention of Pillow's ``Image.resize`` and torch's ``interpolate(antialias=True)``.

    Args:
        starts: where each interval begins, in pixels; may be a fraction.
        lengths: of each interval, in pixels; may be a fraction.
        side: pixels along the axis.
        size: outputs along the axis.
    """
    step = (lengths / size).view(-1, 1, 1)
    steps = torch.arange(size, device=starts.device, dtype=starts.dtype).view(1, -1, 1)
    pixels = torch.arange(side, device=starts.device, dtype=starts.dtype).view(1, 1, -1)
    centres = starts.view(-1, 1, 1) + step * (steps + 0.5)
    weights = _bicubic((pixels + 0.5 - centres).div_(step.clamp(min=1.0)))
    # An interval that overlaps a pixel by less than a thousandth does so by rounding (coordinates of the original
    # image were mapped onto the pixels held), so that pixel does not count.
    first = torch.floor(starts + 1e-3).view(-1, 1, 1)
    last = torch.ceil(starts + lengths - 1e-3).view(-1, 1, 1)
    inside = (pixels >= first) & (pixels < torch.maximum(last, first + 1))
    weights *= inside.to(weights.dtype)
    return weights.div_(weights.sum(-1, keepdim=True))


def _central_boxes(heights: np.ndarray, widths: np.ndarray, low: float, high: float) -> Int64[np.ndarray, "n 4"]:
    """The largest central box (top, left, height, width) of each image with width / height from low to high."""
    tall, wide = widths < low * heights, widths > high * heights
    # A side of an extremely thin image would round to 0 pixels; it keeps one.
    h = np.where(tall, np.maximum(np.rint(widths / low).astype(np.int64), 1), heights)
    w = np.where(wide, np.maximum(np.rint(heights * high).astype(np.int64), 1), widths)
    h, w = np.minimum(h, heights), np.minimum(w, widths)
    return np.stack([(heights - h) // 2, (widths - w) // 2, h, w], axis=1)


def central_boxes(heights: np.ndarray, widths: np.ndarray, size: Size) -> Int64[np.ndarray, "n 4"]:
    """The largest central box (top, left, height, width) of each image that has the aspect ratio of a size."""
    return _central_boxes(heights, widths, aspect(size), aspect(size))


@dataclass(frozen=True)
class RandomResizedCrop(Op):
    """Cuts out a box of random area and aspect ratio and resizes it to one size (Inception's crop).

    Ten boxes are tried, with an area uniform in ``scale`` (as a part of the image's) and an aspect ratio log-uniform in
    ``ratio``. The first that fits into the image is put at a uniform place. If none fits, the largest central box of an
    allowed ratio is taken.

    ``ratio`` is relative to the result's own aspect ratio: it says how far the content may be stretched or squeezed,
    and that is the same for every size. For example, with (3/4, 4/3) and a result of 32 × 128, whose width is 4 times
    its height, the boxes' widths are from 3 to 5.33 times their heights. For a square the two meanings are one.

    Source: torchvision's RandomResizedCrop with antialias=True; recipes of BYOL, Barlow Twins, VICReg, W-MSE (bicubic).
    Convention: values are clipped to [0, 1] after each of the two passes of the resampling. Pillow and torch do so with
    8-bit images, and those are what the papers' code resampled; torch's float kernel lets bicubic overshoot.
    Deviation: torchvision's ``ratio`` is that of the box, whatever the result's. It differs where the result is not
    square, and the papers' are.

    Args:
        size: of the result in pixels: the side of a square, or (height, width).
        scale: smallest and largest part of the image's area.
        ratio: smallest and largest width / height of the box, relative to that of the result.
        interpolation: only "bicubic".
    """

    size: Size
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"

    ATTEMPTS: ClassVar[int] = 10  # torchvision's; then the central box is taken
    geometric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", size_of(self.size, "random_resized_crop: size"))
        object.__setattr__(self, "scale", checked_range("random_resized_crop: scale", self.scale))
        object.__setattr__(self, "ratio", checked_range("random_resized_crop: ratio", self.ratio))
        if self.interpolation != "bicubic":
            raise ValueError(
                f"random_resized_crop: got interpolation={self.interpolation!r}; only 'bicubic' is there, as in "
                "the published recipes."
            )

    def boxes(self, heights: np.ndarray, widths: np.ndarray, keys: Keys) -> Int64[np.ndarray, "n 4"]:
        """The box of each image (top, left, height, width), in whole pixels of the original image.

        Args:
            heights: (n,) of the original images.
            widths: (n,) of the original images.
            keys: of the images.
        """
        return self.boxes_of(heights, widths, *self.draws(keys))

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Uniform numbers for each image: the areas of all attempts, their ratios, and the place of the box."""
        return (keys.uniforms(0, 2 * self.ATTEMPTS + 2).T,)

    def boxes_of(self, heights: np.ndarray, widths: np.ndarray, uniforms: np.ndarray) -> Int64[np.ndarray, "n 4"]:
        """The same as ``boxes``, made of the result of ``draws``."""
        limits, (shares, ratios) = np.stack([heights, widths]).astype(np.float64), self.shapes(uniforms)
        areas = (limits[0] * limits[1])[:, None] * shares
        tried = np.rint(np.sqrt(np.stack([areas / ratios, areas * ratios])))  # height and width, (2, n, attempts)
        fits = ((tried > 0) & (tried <= limits[..., None])).all(axis=0)
        sample, attempt = np.arange(len(fits)), fits.argmax(axis=1)
        sides, found = tried[:, sample, attempt], fits[sample, attempt]
        spare = limits - sides
        corners = np.minimum(np.floor(uniforms[:, -2:].T * (spare + 1)), spare)
        boxes = np.concatenate([corners, sides]).T.astype(np.int64)
        if found.all():
            return boxes
        return np.where(found[:, None], boxes, _central_boxes(heights, widths, *self._ratios()))

    def shapes(self, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For every attempt of every image, the box's share of the image's area, and its width / height."""
        shares = between(uniforms[:, : self.ATTEMPTS], *self.scale)
        return shares, np.exp(between(uniforms[:, self.ATTEMPTS : -2], *np.log(self.ratio))) * aspect(self.size)

    def _ratios(self) -> tuple[float, float]:
        """Smallest and largest width / height of a box."""
        return self.ratio[0] * aspect(self.size), self.ratio[1] * aspect(self.size)

    def box_of_one(
        self, height: int, width: int, shares: Sequence[float], ratios: Sequence[float], uniforms: np.ndarray
    ) -> tuple[int, int, int, int]:
        """The same box as from ``boxes_of`` for one image, in a tenth of the time, which counts in a worker.

        Args:
            height: of the image.
            width: of the image.
            shares: of its attempts, from ``shapes``.
            ratios: of its attempts, from ``shapes``.
            uniforms: its draws.
        """
        for share, ratio in zip(shares, ratios, strict=True):
            area = height * width * share
            h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < w <= width and 0 < h <= height:
                top, left = uniforms[-2:].tolist()
                top, left = math.floor(top * (height - h + 1)), math.floor(left * (width - w + 1))
                return min(top, height - h), min(left, width - w), h, w
        top, left, h, w = self.boxes_of(np.array([height]), np.array([width]), uniforms[None])[0].tolist()
        return top, left, h, w

    def __call__(self, x: Images, keys: Keys, sizes: np.ndarray | None = None) -> Images:
        """Crops a batch of images, which have one size in memory.

        Args:
            x: the images.
            keys: of the images.
            sizes: (n, 2) original height and width of each image, if they were resized to be held in memory together.
                Boxes are drawn in the original coordinates, so that views have the aspect ratios of the originals.
        """
        return self.apply(x, self.draws(keys)[0], sizes)

    def apply(self, x: Images, uniforms: np.ndarray, sizes: np.ndarray | None = None) -> Images:
        """See the class. The images given stay as they were."""
        sizes = np.tile(np.array(x.shape[2:]), (len(x), 1)) if sizes is None else np.asarray(sizes)
        return self.resample_held(x, self.boxes_of(sizes[:, 0], sizes[:, 1], uniforms), sizes)

    def resample_held(self, x: Images, boxes: np.ndarray, sizes: np.ndarray) -> Images:
        """Resizes a box of each image, given in the coordinates that the image had before it was resized to be held.

        Args:
            x: the images as they are held.
            boxes: (n, 4) top, left, height, width, in pixels of the original image.
            sizes: (n, 2) original height and width of each image.
        """
        return self.resample(x, boxes * np.tile(np.array(x.shape[2:]) / sizes, (1, 2)))

    def resample(self, x: Images, boxes: np.ndarray) -> Images:
        """Resizes a box (top, left, height, width, in pixels of ``x``; may be fractions) of each image."""
        n, c, h, w = x.shape
        high, wide = height_width(self.size)
        top, left, height, width = torch.from_numpy(boxes.T.astype(np.float32)).to(x.device)
        down = resampling_weights(top, height, h, high).to(x.dtype)
        across = resampling_weights(left, width, w, wide).to(x.dtype)
        # Clipped after each pass, because 8-bit resampling clips there what bicubic overshoots.
        rows = torch.bmm(x.reshape(n, c * h, w), across.transpose(1, 2)).clamp_(0.0, 1.0).view(n, c, h, wide)
        out = x.new_empty(n, c, high, wide)
        for channel in range(c):
            out[:, channel] = torch.bmm(down, rows[:, channel])
        return out.clamp_(0.0, 1.0)

    def resample_one(self, image: UInt[np.ndarray, "c h w"], box: Iterable[int]) -> UInt[np.ndarray, "c high wide"]:
        """Resizes the box of one image of any size, in whole pixels and with torch's kernels: for a worker.

        The result has the image's bits, 8 or 16, and lies in memory as (high, wide, c). In this order the kernel for 8
        bits is fastest.
        """
        top, left, height, width = (int(edge) for edge in box)
        part = np.array(image[:, top : top + height, left : left + width].transpose(1, 2, 0), order="C")
        pixels = torch.from_numpy(part)[None].permute(0, 3, 1, 2)
        high, wide = height_width(self.size)
        if pixels.dtype == torch.uint8:
            return F.interpolate(pixels, (high, wide), mode="bicubic", antialias=True)[0].numpy()
        # Torch has no kernel for 16 bits. In floats, one axis after the other, and clipped after each, as those for 8
        # bits and `resample` do.
        x, largest = pixels.to(torch.float32), white(pixels)
        for shape in ((height, wide), (high, wide)):
            x = F.interpolate(x, shape, mode="bicubic", antialias=True).clamp_(0, largest)
        rounded = x.round_().to(pixels.dtype)
        return rounded.contiguous(memory_format=torch.channels_last)[0].numpy()
