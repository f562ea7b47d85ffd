"""The ops views are made of: batched, with draws of its own for each sample, on any device.

Images are (n, c, h, w) floats in [0, 1]. An op is two things: what it draws for each sample, a function of the keys
alone (`draws`), and what it does with that to images it may write to (`apply`). Called, it returns new images and
leaves its input as it was. What it does to a sample depends on that sample and its key only, never on the batch around
it. On a CPU this holds to the last bit: sums run along rows of fixed length, and a sample's matrix product has the same
shape in every batch (tests/contracts/test_ops.py). On a GPU the library that multiplies matrices may choose another
kernel for another batch, and the last bits may differ.

The same code serves a CPU and a GPU: the caller chooses how many images an op gets at once (see
`barlow.views.pipeline`). Several are sorted by what they drew, gathered, changed and put back; one alone, or several
that drew alike, are changed where they lie. On a CPU a pass over an image that lies in the cache takes a tenth of the
time that torch takes to choose between two images (`where`) or to put rows in place by index, so choices are written as
arithmetic.

Large RGB images on a CPU whose channels lie side by side in memory (channels_last, as decoders write them) are worked
on by OpenCV where it is installed (extra `opencv`), one by one, wherever channels or neighbours are mixed: faster, and
the same but for rounding. So the last bits depend on the layout an image comes in, and never on its batch.

Channels: brightness and contrast act on all channels of an image (contrast's mean is that of the grey image for three
channels, of all channels otherwise). Saturation, hue and grayscale speak of colour: images that do not have
three channels pass them unchanged. Crop, flip, blur and solarise act on each channel alike.
"""

import importlib.util
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from barlow.types import Images, Pixels
from barlow.views.keys import Keys


class Op(Protocol):
    """One step of a view."""

    def __call__(self, x: Images, keys: Keys) -> Images:
        """Returns the images changed by each sample's own draws."""
        layout = torch.channels_last if interleaved(x) else torch.contiguous_format
        return self.apply(x.clone(memory_format=layout), *self.draws(keys))

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """What is drawn for each sample: arrays with a row for each."""
        ...

    def apply(self, x: Images, *draws: Any) -> Images:
        """Changes images in place if it can: use what is returned.

        Args:
            x: images that nobody else needs, planar or such as OpenCV works on.
            draws: of these images, as returned by ``draws``.
        """
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


def _changed(x: Images, chosen: np.ndarray, change: Callable[..., Images], *factors: Tensor) -> Images:
    """Changes the chosen images, each by its own factors; in place where they are all there are."""
    if len(x) == 1:
        return change(x, *factors) if chosen[0] else x
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return x
    if interleaved(x):
        for i in rows.tolist():
            x[i : i + 1] = change(x[i : i + 1], *(factor[i : i + 1] for factor in factors))
        return x
    if len(rows) == len(x):
        return change(x, *factors)
    where = torch.from_numpy(rows).to(x.device)
    some = change(x.index_select(0, where), *(factor.index_select(0, where) for factor in factors))
    return x.index_copy_(0, where, some)


@cache
def _opencv() -> Any:
    """The module, where it is installed (extra `opencv`); else None."""
    if importlib.util.find_spec("cv2") is None:
        return None
    import cv2

    return cv2


LARGE = 64
"""Side above which an image is worth the calls that it takes to work on it alone."""


def interleaved(x: Images | Pixels) -> bool:
    """Whether OpenCV works on these images, one by one (see the module)."""
    _, c, h, w = x.shape
    return (
        c == 3
        and (h > LARGE or w > LARGE)
        # Of each image; what lies between them may not matter, or an image alone would be another's.
        and x.stride()[1:] == (1, 3 * w, 3)
        and x.dtype in (torch.float32, torch.uint8)
        and x.is_cpu
        and not x.requires_grad
        and _opencv() is not None
    )


def _pixels(x: Images) -> Float[np.ndarray, "h w 3"]:
    """The memory of one interleaved image, as OpenCV has it."""
    return x[0].permute(1, 2, 0).numpy()


# ---------------------------------------------------------------------------------------------------------------- crop


def _bicubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5, the one Pillow and torch (antialias=True) resample with."""
    # Source: Keys 1981, "Cubic convolution interpolation for digital image processing", equation 15. Each of its pieces
    # is 0 at both ends of the other's, exactly: held inside their own, their sum is the one that counts.
    t = distance.abs()
    far, t = t.clamp(1.0, 2.0), t.clamp_(max=1.0)
    near = (1.5 * t).sub_(2.5).mul_(t).mul_(t).add_(1.0)
    return near.add_((-0.5 * far).add_(2.5).mul_(far).sub_(4.0).mul_(far).add_(2.0))


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
class RandomResizedCrop(Op):
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
        return self.boxes_of(heights, widths, *self.draws(keys))

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Uniform numbers: area and ratio of every attempt, and the place."""
        return (keys.uniforms(0, 2 * self.ATTEMPTS + 2).T,)

    def boxes_of(self, heights: np.ndarray, widths: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """As ``boxes``, of draws made before."""
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

        # The largest central box. A side of an extremely thin image would round to 0 pixels; it keeps one.
        low, high = self.ratio
        tall, wide = widths < low * heights, widths > high * heights
        central_h = np.where(tall, np.maximum(np.rint(widths / low).astype(np.int64), 1), heights)
        central_w = np.where(wide, np.maximum(np.rint(heights * high).astype(np.int64), 1), widths)
        central_h, central_w = np.minimum(central_h, heights), np.minimum(central_w, widths)
        centred = np.stack([(heights - central_h) // 2, (widths - central_w) // 2, central_h, central_w], axis=1)
        return np.where(found[:, None], boxes, centred)

    def shapes(self, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of draws, for every attempt: what share of the image's area the box has, and its width / height."""
        shares = _between(uniforms[:, : self.ATTEMPTS], *self.scale)
        return shares, np.exp(_between(uniforms[:, self.ATTEMPTS : -2], *np.log(self.ratio)))

    def box_of_one(
        self, height: int, width: int, shares: Sequence[float], ratios: Sequence[float], uniforms: np.ndarray
    ) -> tuple[int, int, int, int]:
        """The same box as from ``boxes_of``, for one image, in a tenth of the time: in a worker it counts.

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
        """Crops a batch of images held at one size.

        Args:
            x: the images.
            keys: of the samples.
            sizes: (n, 2) original height and width of each, if they were resized to be held together. Boxes are drawn
                in the original coordinates, so the aspect ratios of the views are those of the original images.
        """
        return self.apply(x, self.draws(keys)[0], sizes)

    def apply(self, x: Images, uniforms: np.ndarray, sizes: np.ndarray | None = None) -> Images:
        """See the class; the images given stay as they were."""
        n, _, held_h, held_w = x.shape
        sizes = np.tile(np.array([[held_h, held_w]]), (n, 1)) if sizes is None else np.asarray(sizes)
        boxes = self.boxes_of(sizes[:, 0], sizes[:, 1], uniforms)
        return self.resample(x, boxes * np.tile(np.array([held_h, held_w]) / sizes, (1, 2)))

    def resample(self, x: Images, boxes: np.ndarray) -> Images:
        """Resizes the box (top, left, height, width, in pixels of ``x``; may be fractions) of each image."""
        n, c, h, w = x.shape
        top, left, height, width = torch.from_numpy(boxes.T.astype(np.float32)).to(x.device)
        down = resampling_weights(top, height, h, self.size).to(x.dtype)
        across = resampling_weights(left, width, w, self.size).to(x.dtype)
        # Clipped between the passes and after: where bicubic overshoots, 8-bit resampling does the same.
        rows = torch.bmm(x.reshape(n, c * h, w), across.transpose(1, 2)).clamp_(0.0, 1.0).view(n, c, h, self.size)
        out = x.new_empty(n, c, self.size, self.size)
        for channel in range(c):
            out[:, channel] = torch.bmm(down, rows[:, channel])
        return out.clamp_(0.0, 1.0)

    def resample_one(self, image: UInt8[np.ndarray, "c h w"], box: Iterable[int]) -> UInt8[np.ndarray, "c s s"]:
        """Resizes the box of one image of any size, in whole pixels and with torch's uint8 kernel: for a worker.

        The result lies in memory as (s, s, c), in which order that kernel is fastest.
        """
        top, left, height, width = (int(edge) for edge in box)
        part = np.array(image[:, top : top + height, left : left + width].transpose(1, 2, 0), order="C")
        pixels = torch.from_numpy(part)[None].permute(0, 3, 1, 2)
        return F.interpolate(pixels, (self.size, self.size), mode="bicubic", antialias=True)[0].numpy()


# ------------------------------------------------------------------------------------------------------ flip and colour


@dataclass(frozen=True)
class HorizontalFlip(Op):
    """Mirrors an image left to right with probability ``p``."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _check_probability("horizontal_flip", self.p)

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Whether each is mirrored."""
        return (keys.uniform(0) < self.p,)

    def apply(self, x: Images, mirrored: np.ndarray) -> Images:
        """See the class."""
        return _changed(x, mirrored, self._mirrored)

    @staticmethod
    def _mirrored(x: Images) -> Images:
        if not interleaved(x):
            return x.flip(-1)
        pixels = _pixels(x)
        _opencv().flip(pixels, 1, dst=pixels)
        return x


LUMA = (0.2989, 0.587, 0.114)
"""Of red, green and blue. Source: ITU-R BT.601, rounded as torchvision rounds it."""


def grey(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """The luma of RGB images."""
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    return (r * LUMA[0]).add_(g, alpha=LUMA[1]).add_(b, alpha=LUMA[2])


def _towards_grey(x: Images, kept: float) -> Images:
    """Mixes an interleaved image with its grey image."""
    matrix = kept * np.identity(3) + (1.0 - kept) * np.array(LUMA)
    return torch.from_numpy(_opencv().transform(_pixels(x), matrix.astype(np.float32))).permute(2, 0, 1)[None]


def _shift_hue(
    x: Float[Tensor, "n 3 h w"], shift: Float[Tensor, "n 1 1 1"], *, far: bool = True
) -> Float[Tensor, "n 3 h w"]:
    """Turns the hue by ``shift`` (1 is a full turn), keeping HSV's value and saturation; in place.

    Convention: HSV as in Pillow and torchvision. With value v, chroma d = v·s = max − min and hue H in sixths of a turn
    from red, a channel is min + d·clip(2 − |H − o|, 0, 1), o = 0, 2, 4 for red, green, blue, |·| the shorter way round.

    Everything is kept multiplied by d, so that nothing is divided and grey (d = 0) is no case of its own. With
    e = g + b − 2r the angle between the colour and red is |H|·d = 3/2·d + e − clip(e, −d, d)/2 whichever channel is the
    largest: three straight pieces, over the sixths in which red is the largest, neither and the smallest. Its side is
    the sign of g − b. The shorter way round of an angle y of up to a full turn is 3 − ||y| − 3|, so a channel is
    min + clip(||y·d| − 3·d| − d, 0, d).

    Args:
        x: the images.
        shift: of each.
        far: whether a shift may be more than a sixth of a turn, when y can be up to one and a half.
    """
    if interleaved(x):
        return _shift_hue_by_opencv(x, float(shift))
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    low, high = torch.minimum(g, b), torch.maximum(g, b)
    torch.minimum(low, r, out=low)
    torch.maximum(high, r, out=high)
    chroma = high - low
    turn = (g + b).sub_(r, alpha=2.0)
    turn.add_(torch.clamp(turn, -chroma, chroma), alpha=-0.5).add_(chroma, alpha=1.5)
    turn = torch.copysign(turn, g - b).add_(chroma * (6.0 * shift))
    r.copy_(turn)
    torch.sub(turn, chroma, alpha=2.0, out=g)
    torch.add(turn, chroma, alpha=2.0, out=b)
    x.abs_()
    if far:
        x.sub_(6.0 * chroma).abs_()
    x.sub_(chroma.mul_(3.0)).abs_().add_(low.mul(2.0).sub_(high))
    return torch.clamp(x, low, high, out=x)


def _shift_hue_by_opencv(x: Float[Tensor, "1 3 h w"], shift: float) -> Float[Tensor, "1 3 h w"]:
    cv2, pixels = _opencv(), _pixels(x)
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    hsv[..., 0] += np.float32(360.0 * (shift % 1.0))  # back from HSV it takes no negative hues
    cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=pixels)
    return x


def _mean_grey(x: Images) -> Float[Tensor, "n 1 1 1"]:
    if interleaved(x):
        means = x.permute(0, 2, 3, 1).flatten(2).sum(1).view(-1, 3).mean(0).div_(x.shape[2])
        return means.mul_(_luma(x.device)).sum().view(1, 1, 1, 1)
    # One axis at a time: a sum over both is split over threads when the batch is one image, and not when it is two.
    means = x.sum(-1).sum(-1).div_(x.shape[2] * x.shape[3])
    return (means.mul_(_luma(x.device)) if x.shape[1] == 3 else means.div_(x.shape[1])).sum(1).view(-1, 1, 1, 1)


# What is kept from call to call is made outside of inference mode, in which the pipeline works: callers may not.
@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _luma(device: torch.device) -> Float[Tensor, "3"]:
    return torch.tensor(LUMA, device=device)


@dataclass(frozen=True)
class ColorJitter(Op):
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

    def apply(self, x: Images, applies: np.ndarray, factors: np.ndarray, order: np.ndarray) -> Images:
        """See the class."""
        steps = (self._brighten, self._stretch, self._saturate, self._turn)
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        able = [strength > 0 and (kind < 2 or x.shape[1] == 3) for kind, strength in enumerate(strengths)]
        if not applies.any():
            return x
        columns = torch.from_numpy(factors.T.astype(np.float32)).to(x.device, x.dtype).view(4, -1, 1, 1, 1)
        if len(x) == 1:
            for kind in order[0].tolist():
                x = steps[kind](x, columns[kind]) if able[kind] else x
            return x
        for kinds in order.T:
            for kind in filter(able.__getitem__, range(4)):
                x = _changed(x, applies & (kinds == kind), steps[kind], columns[kind])
        return x

    @staticmethod
    def _brighten(x: Images, factor: Float[Tensor, "n 1 1 1"]) -> Images:
        return x.mul_(factor).clamp_(0.0, 1.0)

    @staticmethod
    def _stretch(x: Images, factor: Float[Tensor, "n 1 1 1"]) -> Images:
        mean = _mean_grey(x).mul_(1.0 - factor)
        return x.mul_(factor).add_(mean).clamp_(0.0, 1.0)

    @staticmethod
    def _saturate(x: Images, factor: Float[Tensor, "n 1 1 1"]) -> Images:
        x = _towards_grey(x, float(factor)) if interleaved(x) else torch.lerp(grey(x), x, factor, out=x)
        return x.clamp_(0.0, 1.0)

    def _turn(self, x: Images, shift: Float[Tensor, "n 1 1 1"]) -> Images:
        return _shift_hue(x, shift, far=self.hue > 1 / 6)


@dataclass(frozen=True)
class Grayscale(Op):
    """Gives all three channels the luma with probability ``p``; images without three channels pass unchanged."""

    p: float = 0.2

    def __post_init__(self) -> None:
        _check_probability("grayscale", self.p)

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Whether each becomes grey."""
        return (keys.uniform(0) < self.p,)

    def apply(self, x: Images, greyed: np.ndarray) -> Images:
        """See the class."""
        return _changed(x, greyed, self._grey) if x.shape[1] == 3 else x

    @staticmethod
    def _grey(x: Images) -> Images:
        return _towards_grey(x, 0.0) if interleaved(x) else x.copy_(grey(x))


@dataclass(frozen=True)
class Solarize(Op):
    """Inverts the pixels from ``threshold`` (of 255) up, with probability ``p``.

    Source: Pillow's ``ImageOps.solarize`` as BYOL and Barlow Twins use it (threshold 128).
    """

    p: float
    threshold: float = 128

    def __post_init__(self) -> None:
        _check_probability("solarize", self.p)
        if not 0 <= self.threshold <= 256:
            raise ValueError(f"solarize: got threshold={self.threshold}; give 0 to 256, in units of 1/255.")

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Whether each is solarised."""
        return (keys.uniform(0) < self.p,)

    def apply(self, x: Images, solarized: np.ndarray) -> Images:
        """See the class."""
        return _changed(x, solarized, self._invert)

    def _invert(self, x: Images) -> Images:
        above = x.clone().ge_(self.threshold / 255)  # 1 or 0, and |1 − x| is the inverse, |0 − x| the pixel
        return x.sub_(above).abs_()


# ---------------------------------------------------------------------------------------------------------------- blur


@dataclass(frozen=True)
class GaussianBlur(Op):
    """Blurs with a Gaussian of standard deviation uniform in ``sigma`` pixels, with probability ``p``; edges reflect.

    Source: BYOL's code (kernel 23, whatever the sigma), Barlow Twins' (Pillow, whose radius is the standard deviation).
    Deviation: an image of fewer than 12 pixels a side cannot be reflected 11 pixels deep; its kernel ends at side − 1.

    Args:
        p: probability.
        sigma: smallest and largest standard deviation in pixels.
    """

    p: float
    sigma: tuple[float, float] = (0.1, 2.0)

    RADIUS = 11  # of BYOL's kernel of 23
    CUT = 5  # standard deviations, beyond which lies 6e-7 of a Gaussian's weight: less than a sum of its taps rounds
    # Outputs per matrix product of large images on a CPU where OpenCV is not installed: few, so that the matrix is not
    # mostly zeros, and a register of 512 bits (other numbers are a quarter slower).
    BLOCK = 16

    def __post_init__(self) -> None:
        _check_probability("gaussian_blur", self.p)
        object.__setattr__(self, "sigma", _check_range("gaussian_blur: sigma", self.sigma))

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Whether each is blurred; its standard deviation."""
        uniform = keys.uniforms(0, 2)
        return uniform[0] < self.p, _between(uniform[1], *self.sigma)

    def apply(self, x: Images, blurred: np.ndarray, sigmas: np.ndarray) -> Images:
        """See the class."""
        if x.device.type != "cpu" or max(x.shape[2:]) <= LARGE:
            return _changed(x, blurred, lambda some: self._blur_whole(some, sigmas[blurred]))
        by_opencv = x.dtype == torch.float32 and _opencv() is not None
        if by_opencv and not interleaved(x):
            x = x.contiguous()  # OpenCV writes whole planes only
        blur = self._blur_by_opencv if by_opencv else self._blur_in_blocks
        for i in np.flatnonzero(blurred):
            blur(x[i : i + 1], float(sigmas[i]))
        return x

    def _blur_by_opencv(self, x: Float[Tensor, "1 c h w"], sigma: float) -> None:
        """Blurs one image in place, with as few taps as its sigma needs."""
        cv2, kernels = _opencv(), []
        for side in x.shape[2:]:
            weights = _gaussian_weights(np.array([sigma]), self._radius(sigma, side))[0, :-1]
            kernels.append(np.concatenate([weights[:0:-1], weights]))
        down, across = kernels
        for plane in [_pixels(x)] if interleaved(x) else x[0].numpy():
            cv2.sepFilter2D(plane, -1, across, down, dst=plane, borderType=cv2.BORDER_REFLECT_101)

    def _radius(self, sigma: float, side: int) -> int:
        """Pixels on each side that count, of an image of this side."""
        return min(math.ceil(self.CUT * sigma), self.RADIUS, side - 1)

    def _blur_whole(self, x: Images, sigmas: np.ndarray) -> Images:
        """Blurs a batch by products with one matrix for all rows of an image and one for all its columns."""
        n, c, h, w = x.shape
        across = self._matrix(sigmas, w, x)
        down = across if h == w else self._matrix(sigmas, h, x)
        rows = torch.bmm(x.view(n, c * h, w), across).view(n, c, h, w)
        for channel in range(c):
            x[:, channel] = torch.bmm(down.transpose(1, 2), rows[:, channel])
        return x

    def _matrix(self, sigmas: np.ndarray, side: int, like: Images) -> Float[Tensor, "n side side"]:
        radius = min(self.RADIUS, side - 1)
        weights = _gaussian(sigmas, radius, like)
        ways = [weights.index_select(1, way) for way in _mirrored(side, radius, like.device)]
        return ways[0].add_(ways[1]).add_(ways[2]).view(-1, side, side)

    def _blur_in_blocks(self, x: Float[Tensor, "1 c h w"], sigma: float) -> None:
        """Blurs one image in place, with as few taps as its sigma needs, by products with one matrix for all blocks."""
        x = x[0]
        c, h, w = x.shape
        # Of both sides: blocks (the last one is filled up), and a kernel that ends where the mirror does.
        block = self.BLOCK
        high, wide = math.ceil(h / block), math.ceil(w / block)
        deep, r = self._radius(sigma, h), self._radius(sigma, w)
        rows = x.new_empty(c, h, wide * block + 2 * r)
        rows[..., r : r + w] = x
        rows[..., :r] = x[..., 1 : r + 1].flip(-1)
        rows[..., r + w : 2 * r + w] = x[..., w - r - 1 : w - 1].flip(-1)
        rows[..., 2 * r + w :] = 0.0
        band = _band(sigma, r, block, x)
        windows = rows.view(c * h, -1).unfold(-1, block + 2 * r, block).transpose(0, 1)
        blurred = torch.bmm(windows, band.expand(wide, -1, -1)).view(wide, c, h, block)

        columns = x.new_empty(c, high * block + 2 * deep, wide * block)
        columns[:, deep : deep + h].view(c, h, wide, block).copy_(blurred.permute(1, 2, 0, 3))
        columns[:, :deep] = columns[:, deep + 1 : 2 * deep + 1].flip(1)
        columns[:, deep + h : 2 * deep + h] = columns[:, h - 1 : deep + h - 1].flip(1)
        columns[:, 2 * deep + h :] = 0.0
        band = band if deep == r else _band(sigma, deep, block, x)
        exact = (high * block, wide * block) == (h, w)
        out = x if exact else x.new_empty(c, high * block, wide * block)
        for channel in range(c):
            windows = columns[channel].unfold(0, block + 2 * deep, block).transpose(1, 2)
            torch.bmm(band.t().expand(high, -1, -1), windows, out=out[channel].view(high, block, -1))
        if not exact:
            x.copy_(out[:, :h, :w])


def _gaussian(sigmas: np.ndarray, radius: int, like: Tensor) -> Float[Tensor, "n taps"]:
    return torch.from_numpy(_gaussian_weights(sigmas, radius)).to(like.device, like.dtype)


def _gaussian_weights(sigmas: np.ndarray, radius: int) -> Float[np.ndarray, "n taps"]:
    """Each kernel's weights at distance 0 to ``radius``, and the 0 of every pixel further away."""
    # In float64 and rounded once; at the smallest sigmas the outer weights underflow to 0, which is right.
    kernel = np.exp(-0.5 * np.square(np.arange(radius + 2) / sigmas[:, None]))
    kernel[:, -1] = 0.0
    kernel /= kernel[:, :1] + 2.0 * kernel[:, 1:].sum(axis=1, keepdims=True)
    return kernel.astype(np.float32)


def _band(sigma: float, radius: int, block: int, like: Tensor) -> Float[Tensor, "window {block}"]:
    """The matrix that takes a window of pixels to a block of outputs."""
    weights = _gaussian(np.array([sigma]), radius, like)[0]
    return weights.index_select(0, _distances(block, radius)).view(block + 2 * radius, block)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _distances(block: int, radius: int) -> Int64[Tensor, "entries"]:
    distance = np.abs(np.arange(block + 2 * radius)[:, None] - radius - np.arange(block)[None, :])
    return torch.from_numpy(np.minimum(distance, radius + 1).ravel())


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _mirrored(side: int, radius: int, device: torch.device) -> Int64[Tensor, "3 entries"]:
    """How far a pixel is from an output: directly, and seen in the mirror at each edge (which does not see itself)."""
    pixel, output = np.arange(side)[:, None], np.arange(side)[None, :]
    left = np.where(pixel > 0, pixel + output, side)
    right = np.where(pixel < side - 1, 2 * (side - 1) - pixel - output, side)
    distances = np.minimum([np.abs(pixel - output), left, right], radius + 1)
    return torch.from_numpy(distances.reshape(3, -1)).to(device)


# ------------------------------------------------------------------------------------------------------- normalisation


@dataclass(frozen=True)
class Normalize(Op):
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
        return self.apply(x.clone())

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """Nothing."""
        return ()

    def apply(self, x: Images, *, out: Images | None = None) -> Images:  # type: ignore[override]
        """See the class; the result in ``x``, or in ``out``, which is planar (then `x` holds nothing of use)."""
        if x.shape[1] != len(self.mean):
            raise ValueError(
                f"normalize: got images of {x.shape[1]} channels and means of {len(self.mean)}; give one mean and std "
                "per channel."
            )
        if not interleaved(x):
            mean, std = (_by_channel(values, 0, x.dtype, x.device) for values in (self.mean, self.std))
            return torch.div(x.sub_(mean), std, out=x if out is None else out)
        # Line by line as they lie in memory: over three numbers at a time the arithmetic would crawl.
        mean, std = (_by_channel(values, x.shape[3], x.dtype, x.device) for values in (self.mean, self.std))
        x.permute(0, 2, 3, 1).flatten(2).sub_(mean).div_(std)
        if out is None:
            return x
        for i, planes in enumerate(out.numpy()):
            _opencv().split(_pixels(x[i : i + 1]), list(planes))
        return out


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _by_channel(values: tuple[float, ...], width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number for each channel as a column, or, for a line of `width` pixels, over and over."""
    column = torch.tensor(values, dtype=dtype, device=device)
    return column.repeat(width) if width else column.view(-1, 1, 1)


def as_images(pixels: Pixels) -> Images:
    """Stored pixels as floats in [0, 1], in the layout that the ops are fastest in."""
    if interleaved(pixels):
        return pixels.to(torch.float32, memory_format=torch.channels_last).div_(255.0)
    return pixels.contiguous().to(torch.float32).div_(255.0)


OPS: dict[str, type[Op]] = {
    kind_of(op): op
    for op in (RandomResizedCrop, HorizontalFlip, ColorJitter, Grayscale, GaussianBlur, Solarize, Normalize)
}
