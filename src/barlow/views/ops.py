"""The ops views are made of: batched, with draws of its own for each sample, on any device.

Images are (n, c, h, w) floats in [0, 1]. An op returns new images and leaves its input as it was; what it does to a
sample depends on that sample and its key only, never on the batch around it. On a CPU this holds to the last bit: sums
run along rows of fixed length, and a sample's matrix product has the same shape in every batch
(tests/contracts/test_ops.py). On a GPU the library that multiplies matrices may choose another kernel for another
batch, and the last bits may differ.

Channels: brightness and contrast act on all channels of an image (contrast's mean is that of the grey image for three
channels, of all channels otherwise). Saturation, hue and grayscale speak of colour: images that do not have
three channels pass them unchanged. Crop, flip, blur and solarise act on each channel alike.
"""

import math
import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from barlow.types import Images, Pixels
from barlow.views.keys import Keys


class Op(Protocol):
    """One step of a view."""

    def __call__(self, x: Images, keys: Keys) -> Images:
        """Returns the images changed by each sample's own draws."""
        ...


def kind_of(op: type) -> str:
    """The name of an op class in a recipe: ``RandomResizedCrop`` is ``random_resized_crop``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", op.__name__).lower()


def _check_probability(name: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: got p={p}; give a probability from 0 to 1.")


def _check_range(name: str, low_high: tuple[float, float], lowest: float = 0.0) -> tuple[float, float]:
    low, high = (float(end) for end in low_high)
    if not lowest < low <= high < math.inf:
        raise ValueError(f"{name}: got {low_high}; give (low, high) with {lowest} < low <= high.")
    return low, high


def _between(uniform: np.ndarray, low: float, high: float) -> np.ndarray:
    return low + (high - low) * uniform


def _chosen(uniform: np.ndarray, p: float, device: torch.device) -> Tensor:
    return torch.from_numpy(np.flatnonzero(uniform < p)).to(device)


def _per_sample(values: np.ndarray, like: Images) -> Float[Tensor, "n 1 1 1"]:
    return torch.from_numpy(values.astype(np.float32)).to(like.device).to(like.dtype).view(-1, 1, 1, 1)


# ---------------------------------------------------------------------------------------------------------------- crop


def _bicubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5, the one Pillow and torch (antialias=True) resample with."""
    # Source: Keys 1981, "Cubic convolution interpolation for digital image processing", equation 15. Held at 2, where
    # it is 0, the outer piece needs no third case.
    t = distance.abs().clamp_(max=2.0)
    near = (1.5 * t).sub_(2.5).mul_(t).mul_(t).add_(1.0)
    far = (-0.5 * t).add_(2.5).mul_(t).sub_(4.0).mul_(t).add_(2.0)
    return torch.where(t < 1.0, near, far)


def resampling_weights(
    starts: Float[Tensor, "n"], lengths: Float[Tensor, "n"], side: int, size: int
) -> Float[Tensor, "n {size} {side}"]:
    """What each of ``size`` outputs takes from each of ``side`` pixels when an interval of them is resized.

    Bicubic; where the interval shrinks the kernel widens with it (antialiasing). Pixels outside of the interval have no
    weight, as if it had been cut out first; those partly inside count. Rows sum to one.

    Source: the convention of Pillow's ``Image.resize`` and torch's ``interpolate(antialias=True)``.
    """
    step = (lengths / size).view(-1, 1, 1)
    steps = torch.arange(size, device=starts.device, dtype=starts.dtype).view(1, -1, 1)
    pixels = torch.arange(side, device=starts.device, dtype=starts.dtype).view(1, 1, -1)
    centres = starts.view(-1, 1, 1) + step * (steps + 0.5)
    weights = _bicubic((pixels + 0.5 - centres).div_(step.clamp(min=1.0)))
    # A thousandth of a pixel is rounding (original coordinates mapped onto held pixels), not a part of a pixel.
    first = torch.floor(starts + 1e-3).view(-1, 1, 1)
    last = torch.ceil(starts + lengths - 1e-3).view(-1, 1, 1)
    inside = (pixels >= first) & (pixels < torch.maximum(last, first + 1))
    weights *= inside.to(weights.dtype)
    return weights.div_(weights.sum(-1, keepdim=True))


@dataclass(frozen=True)
class RandomResizedCrop:
    """Cuts out a box of random area and aspect ratio and resizes it to a square (Inception's crop).

    Ten boxes of area uniform in ``scale`` (a part of the image's) and aspect ratio log-uniform in ``ratio`` are tried;
    the first that fits is put at a uniform place. If none fits, the largest central box of an allowed ratio is taken.

    Source: torchvision's RandomResizedCrop with antialias=True; recipes of BYOL, Barlow Twins, VICReg, W-MSE (bicubic).
    Convention: values are clipped to [0, 1] after each of the two passes, as Pillow and torch do with 8-bit images,
    which is what the papers' code resampled; torch's float kernel lets bicubic overshoot.

    Args:
        size: side of the result in pixels.
        scale: smallest and largest part of the image's area.
        ratio: smallest and largest width / height.
        interpolation: only "bicubic".
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"

    ATTEMPTS = 10  # torchvision's; before the central box is taken

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"random_resized_crop: got size={self.size!r}; give the side in pixels, 1 or more.")
        object.__setattr__(self, "scale", _check_range("random_resized_crop: scale", self.scale))
        object.__setattr__(self, "ratio", _check_range("random_resized_crop: ratio", self.ratio))
        if self.interpolation != "bicubic":
            raise ValueError(
                f"random_resized_crop: got interpolation={self.interpolation!r}; only 'bicubic' is there, as in "
                "the published recipes."
            )

    def boxes(self, heights: np.ndarray, widths: np.ndarray, keys: Keys) -> np.ndarray:
        """The box of each sample, in whole pixels of the original image.

        Args:
            heights: (n,) of the original images.
            widths: (n,) of the original images.
            keys: of the samples.

        Returns:
            (n, 4) int64: top, left, height, width.
        """
        heights, widths = np.asarray(heights, dtype=np.int64), np.asarray(widths, dtype=np.int64)
        draws = keys.uniforms(0, 2 * self.ATTEMPTS + 2)
        area = heights * widths * _between(draws[: self.ATTEMPTS], *self.scale)
        ratio = np.exp(_between(draws[self.ATTEMPTS : -2], *np.log(self.ratio)))
        tried_w = np.rint(np.sqrt(area * ratio)).astype(np.int64)
        tried_h = np.rint(np.sqrt(area / ratio)).astype(np.int64)
        fits = (tried_w > 0) & (tried_w <= widths) & (tried_h > 0) & (tried_h <= heights)
        attempt, sample = fits.argmax(axis=0), np.arange(len(heights))
        found = fits[attempt, sample]
        h, w = tried_h[attempt, sample], tried_w[attempt, sample]

        # The largest central box. A side of an extremely thin image would round to 0 pixels; it keeps one.
        low, high = self.ratio
        tall, wide = widths < low * heights, widths > high * heights
        central_h = np.where(tall, np.maximum(np.rint(widths / low).astype(np.int64), 1), heights)
        central_w = np.where(wide, np.maximum(np.rint(heights * high).astype(np.int64), 1), widths)
        h, w = np.where(found, h, np.minimum(central_h, heights)), np.where(found, w, np.minimum(central_w, widths))

        spare_h, spare_w = heights - h, widths - w
        top = np.minimum(np.floor(draws[-2] * (spare_h + 1)).astype(np.int64), spare_h)
        left = np.minimum(np.floor(draws[-1] * (spare_w + 1)).astype(np.int64), spare_w)
        return np.stack([np.where(found, top, spare_h // 2), np.where(found, left, spare_w // 2), h, w], axis=1)

    def __call__(self, x: Images, keys: Keys, sizes: np.ndarray | None = None) -> Images:
        """Crops a batch of images held at one size.

        Args:
            x: the images.
            keys: of the samples.
            sizes: (n, 2) original height and width of each, if they were resized to be held together. Boxes are drawn
                in the original coordinates, so the aspect ratios of the views are those of the original images.
        """
        n, _, held_h, held_w = x.shape
        sizes = np.tile(np.array([[held_h, held_w]]), (n, 1)) if sizes is None else np.asarray(sizes)
        boxes = self.boxes(sizes[:, 0], sizes[:, 1], keys)
        return self.resample(x, boxes * np.tile(np.array([held_h, held_w]) / sizes, (1, 2)))

    def resample(self, x: Images, boxes: np.ndarray) -> Images:
        """Resizes the box (top, left, height, width, in pixels of ``x``; may be fractions) of each image."""
        n, c, h, w = x.shape
        top, left, height, width = torch.from_numpy(boxes.T.astype(np.float32)).to(x.device)
        down = resampling_weights(top, height, h, self.size).to(x.dtype)
        across = resampling_weights(left, width, w, self.size).to(x.dtype)
        # Clipped between the passes and after: where bicubic overshoots, 8-bit resampling does the same.
        rows = torch.bmm(x.reshape(n, c * h, w), across.transpose(1, 2)).clamp_(0.0, 1.0).view(n, c, h, self.size)
        out = [torch.bmm(down, rows[:, channel]) for channel in range(c)]
        return torch.stack(out, dim=1).clamp_(0.0, 1.0)

    def resample_one(self, image: UInt8[np.ndarray, "c h w"], box: np.ndarray) -> UInt8[np.ndarray, "c s s"]:
        """Resizes the box of one image of any size, in whole pixels and with torch's uint8 kernel: for a worker."""
        top, left, height, width = (int(edge) for edge in box)
        part = image[:, top : top + height, left : left + width]
        if not part.flags.writeable:  # torch warns of arrays it could write to and must not
            part = part.copy()
        pixels = torch.from_numpy(part)[None]
        return F.interpolate(pixels, (self.size, self.size), mode="bicubic", antialias=True)[0].numpy()


# ------------------------------------------------------------------------------------------------------ flip and colour


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirrors an image left to right with probability ``p``."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _check_probability("horizontal_flip", self.p)

    def __call__(self, x: Images, keys: Keys) -> Images:
        """See the class."""
        out = x.clone()
        chosen = _chosen(keys.uniform(0), self.p, x.device)
        out[chosen] = x[chosen].flip(-1)
        return out


def grey(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """The luma of RGB images.

    Source: ITU-R BT.601 weights, rounded as torchvision rounds them.
    """
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    return (r * 0.2989).add_(g, alpha=0.587).add_(b, alpha=0.114)


def _shift_hue(x: Float[Tensor, "n 3 h w"], shift: Float[Tensor, "n 1 1 1"]) -> Float[Tensor, "n 3 h w"]:
    """Turns the hue by ``shift`` (1 is a full turn), keeping HSV's value and saturation.

    Convention: HSV as in Pillow and torchvision. With value v, chroma d = v·s = max − min and hue H in sixths of a
    turn, a channel is v − d·clip(min(k, 4 − k), 0, 1), k = (o + H) mod 6, o = 5, 3, 1 for red, green, blue.
    """
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    value = torch.maximum(torch.maximum(r, g), b)  # a reduction over three channels is many times slower
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    divisor = chroma + (chroma == 0).to(x.dtype)
    hue = torch.where(value == g, ((b - r) / divisor).add_(2.0), ((r - g) / divisor).add_(4.0))
    hue = torch.where(value == r, (g - b) / divisor, hue).add_(6.0 * shift)
    k = hue + torch.tensor([5.0, 3.0, 1.0], device=x.device, dtype=x.dtype).view(1, 3, 1, 1)
    k.sub_(torch.floor(k / 6.0).mul_(6.0))
    return value - torch.minimum(k, 4.0 - k).clamp_(0.0, 1.0).mul_(chroma)


def _mean_grey(x: Images) -> Float[Tensor, "n 1 1 1"]:
    plane = grey(x)[:, 0] if x.shape[1] == 3 else x.flatten(1, 2)
    # One axis at a time: a sum over both is split over threads when the batch is one image, and not when it is two.
    total = plane.sum(-1).sum(-1)
    return (total / (plane.shape[1] * plane.shape[2])).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class ColorJitter:
    """With probability ``p`` changes brightness, contrast, saturation and hue, in an order drawn for each image.

    Brightness, contrast and saturation blend the image with black, with the mean of its grey image and with its grey
    image: f·x + (1 − f)·other, clipped to [0, 1], f uniform in [max(0, 1 − strength), 1 + strength]. Hue turns by a
    part of the circle uniform in [−hue, hue]. See the module for images that do not have three channels.

    Source: torchvision's ColorJitter; strengths of BYOL, Barlow Twins and VICReg.

    Args:
        p: probability that an image is changed at all.
        brightness: strength, 0 or more.
        contrast: strength, 0 or more.
        saturation: strength, 0 or more.
        hue: 0 to 0.5.
    """

    p: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1

    def __post_init__(self) -> None:
        _check_probability("color_jitter", self.p)
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"color_jitter: got {name}={getattr(self, name)}; give a strength of 0 or more.")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"color_jitter: got hue={self.hue}; give 0 to 0.5 (half the circle each way).")

    def draws(self, keys: Keys) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is drawn for each sample.

        Returns:
            (n,) bool, whether it is changed; (n, 4) brightness, contrast and saturation factor and hue shift; (n, 4)
            order: which of these four comes first, second, third, last.
        """
        u = keys.uniforms(0, 9)
        strengths = (self.brightness, self.contrast, self.saturation)
        factors = [_between(u[1 + i], max(0.0, 1.0 - s), 1.0 + s) for i, s in enumerate(strengths)]
        factors.append(_between(u[4], -self.hue, self.hue))
        return u[0] < self.p, np.stack(factors, axis=1), np.argsort(u[5:9], axis=0, kind="stable").T

    def __call__(self, x: Images, keys: Keys) -> Images:
        """See the class."""
        applies, factors, order = self.draws(keys)
        out = x.clone()
        steps = (self._brighten, self._stretch, self._saturate, self._turn)
        active = (self.brightness > 0, self.contrast > 0, self.saturation > 0, self.hue > 0)
        for position in range(4):
            for kind in range(4):
                chosen = np.flatnonzero(applies & (order[:, position] == kind))
                if active[kind] and len(chosen) and (kind < 2 or x.shape[1] == 3):
                    rows = torch.from_numpy(chosen).to(x.device)
                    out[rows] = steps[kind](out[rows], _per_sample(factors[chosen, kind], x))
        return out

    @staticmethod
    def _brighten(x: Images, factor: Float[Tensor, "n 1 1 1"]) -> Images:
        return (x * factor).clamp_(0.0, 1.0)

    @staticmethod
    def _stretch(x: Images, factor: Float[Tensor, "n 1 1 1"]) -> Images:
        return (x * factor).add_(_mean_grey(x) * (1.0 - factor)).clamp_(0.0, 1.0)

    @staticmethod
    def _saturate(x: Images, factor: Float[Tensor, "n 1 1 1"]) -> Images:
        return (x * factor).add_(grey(x) * (1.0 - factor)).clamp_(0.0, 1.0)

    @staticmethod
    def _turn(x: Images, shift: Float[Tensor, "n 1 1 1"]) -> Images:
        return _shift_hue(x, shift)


@dataclass(frozen=True)
class Grayscale:
    """Gives all three channels the luma with probability ``p``; images without three channels pass unchanged."""

    p: float = 0.2

    def __post_init__(self) -> None:
        _check_probability("grayscale", self.p)

    def __call__(self, x: Images, keys: Keys) -> Images:
        """See the class."""
        out = x.clone()
        if x.shape[1] == 3:
            chosen = _chosen(keys.uniform(0), self.p, x.device)
            out[chosen] = grey(x[chosen]).expand(-1, 3, -1, -1)
        return out


@dataclass(frozen=True)
class Solarize:
    """Inverts the pixels from ``threshold`` (of 255) up, with probability ``p``.

    Source: Pillow's ``ImageOps.solarize`` as BYOL and Barlow Twins use it (threshold 128).
    """

    p: float
    threshold: float = 128

    def __post_init__(self) -> None:
        _check_probability("solarize", self.p)
        if not 0 <= self.threshold <= 256:
            raise ValueError(f"solarize: got threshold={self.threshold}; give 0 to 256, in units of 1/255.")

    def __call__(self, x: Images, keys: Keys) -> Images:
        """See the class."""
        out = x.clone()
        chosen = _chosen(keys.uniform(0), self.p, x.device)
        some = x[chosen]
        out[chosen] = torch.where(some >= self.threshold / 255, 1.0 - some, some)
        return out


# ---------------------------------------------------------------------------------------------------------------- blur


@dataclass(frozen=True)
class GaussianBlur:
    """Blurs with a Gaussian of standard deviation uniform in ``sigma`` pixels, with probability ``p``; edges reflect.

    Source: BYOL's code (kernel 23, whatever the sigma), Barlow Twins' (Pillow, whose radius is the standard deviation).
    Deviation: an image of fewer than 12 pixels a side cannot be reflected 11 pixels deep; its kernel ends at side − 1.

    Args:
        p: probability.
        sigma: smallest and largest standard deviation in pixels.
    """

    p: float
    sigma: tuple[float, float] = (0.1, 2.0)

    RADIUS = 11  # of BYOL's kernel of 23: at sigma 2 it cuts off less than 1e-7 of the weight
    BLOCK = 32  # outputs per matrix product: large enough for the product to pay, small enough not to be mostly zeros

    def __post_init__(self) -> None:
        _check_probability("gaussian_blur", self.p)
        object.__setattr__(self, "sigma", _check_range("gaussian_blur: sigma", self.sigma))

    def __call__(self, x: Images, keys: Keys) -> Images:
        """See the class."""
        out = x.clone()
        draws = keys.uniforms(0, 2)
        rows = np.flatnonzero(draws[0] < self.p)
        if len(rows):
            chosen = torch.from_numpy(rows).to(x.device)
            sigmas = _between(draws[1][rows], *self.sigma)
            across = self._banded(sigmas, x.shape[3], x)
            down = across if x.shape[2] == x.shape[3] else self._banded(sigmas, x.shape[2], x)
            blurred = self._along_rows(x[chosen], across)
            out[chosen] = self._along_rows(blurred.transpose(2, 3), down).transpose(2, 3)
        return out

    def _layout(self, side: int) -> tuple[int, int, int]:
        """How a row of ``side`` pixels is convolved: the kernel's radius, blocks of outputs, outputs per block."""
        blocks = math.ceil(side / self.BLOCK)
        return min(self.RADIUS, side - 1), blocks, math.ceil(side / blocks)

    def _banded(self, sigmas: np.ndarray, side: int, like: Images) -> Float[Tensor, "n window block"]:
        """The matrix that takes a window of pixels to a block of outputs: the same for every block of an image."""
        radius, _, block = self._layout(side)
        # In float64 and rounded once; at the smallest sigmas the outer weights underflow to 0, which is right.
        kernel = np.exp(-0.5 * np.square(np.arange(radius + 1) / sigmas[:, None]))
        kernel /= kernel[:, :1] + 2.0 * kernel[:, 1:].sum(axis=1, keepdims=True)
        kernel = np.concatenate([kernel, np.zeros((len(sigmas), 1))], axis=1).astype(np.float32)
        distance = np.abs(np.arange(block + 2 * radius)[:, None] - radius - np.arange(block)[None, :])
        positions = torch.from_numpy(np.minimum(distance, radius + 1).ravel()).to(like.device)
        matrices = torch.from_numpy(kernel).to(like.device, like.dtype).index_select(1, positions)
        return matrices.view(len(sigmas), block + 2 * radius, block)

    def _along_rows(self, x: Images, banded: Float[Tensor, "n window block"]) -> Images:
        """Convolves each row in blocks, all products of an image with its one matrix."""
        n, c, h, w = x.shape
        radius, blocks, block = self._layout(w)
        rows = x.reshape(n, c * h, w)
        if radius:
            rows = F.pad(rows, (radius, radius), mode="reflect")
        if blocks * block > w:
            rows = F.pad(rows, (0, blocks * block - w))  # the last block's surplus, cut off again
        windows = rows.unfold(-1, block + 2 * radius, block).reshape(n, c * h * blocks, block + 2 * radius)
        return torch.bmm(windows, banded).view(n, c, h, blocks * block)[..., :w]


# ------------------------------------------------------------------------------------------------------- normalisation


@dataclass(frozen=True)
class Normalize:
    """Subtracts the mean and divides by the standard deviation of each channel; draws nothing.

    Args:
        mean: per channel, of images in [0, 1].
        std: per channel, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        mean, std = tuple(float(m) for m in self.mean), tuple(float(s) for s in self.std)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)
        if len(mean) != len(std) or not mean:
            raise ValueError(f"normalize: got {len(mean)} means and {len(std)} stds; give one of each per channel.")
        if not all(0 < s < math.inf for s in std) or not all(math.isfinite(m) for m in mean):
            raise ValueError(f"normalize: got mean={mean}, std={std}; give finite means and finite stds above 0.")

    def __call__(self, x: Images, keys: Keys | None = None) -> Images:
        """See the class."""
        if x.shape[1] != len(self.mean):
            raise ValueError(
                f"normalize: got images of {x.shape[1]} channels and means of {len(self.mean)}; give one mean and std "
                "per channel."
            )
        mean = torch.tensor(self.mean, dtype=x.dtype, device=x.device).view(-1, 1, 1)
        std = torch.tensor(self.std, dtype=x.dtype, device=x.device).view(-1, 1, 1)
        return x.sub(mean).div_(std)


def as_images(pixels: Pixels) -> Images:
    """Stored pixels as floats in [0, 1]."""
    return pixels.to(torch.float32).div_(255.0)


OPS: dict[str, type[Op]] = {
    kind_of(op): op
    for op in (RandomResizedCrop, HorizontalFlip, ColorJitter, Grayscale, GaussianBlur, Solarize, Normalize)
}
