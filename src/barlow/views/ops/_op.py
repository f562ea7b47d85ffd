"""What an op is, and what the ops share."""

import math
import re
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from barlow.levels import white
from barlow.size import Size
from barlow.types import Images, Pixels
from barlow.views.keys import Keys
from barlow.views.ops._opencv import interleaved


class Op(Protocol):
    """One step of a view: what it draws for each image, and what it does to the image with that.

    `draws` is a function of the keys alone. `apply` is a function of the images and their draws. Keeping the two apart
    lets the pipeline draw once for a whole batch and then work on a few images at a time.
    """

    geometric: ClassVar[bool] = False
    """Whether the op moves pixels, as a crop, a flip or a rotation does."""

    square: ClassVar[bool] = False
    """Whether the op is for square views only, as a quarter turn is: it would change height into width."""

    tells: ClassVar[str | None] = None
    """The name by which an objective can ask what this op drew, such as `rotation`. None: nobody can ask.

    Crops and flips must come before an op that tells, because what they move could make wrong what it has told."""

    channelwise: ClassVar[bool] = True
    """Whether the op does the same to images of any number of channels. One that does not says in `for_channels` what
    stands in its place where images have others than it is for; otherwise it would there become nothing, silently."""

    def __call__(self, x: Images, keys: Keys) -> Images:
        """The images changed, each by its own draws. The images given stay as they were."""
        layout = torch.channels_last if interleaved(x) else torch.contiguous_format
        return self.apply(x.clone(memory_format=layout), *self.draws(keys))

    def draws(self, keys: Keys) -> tuple[np.ndarray, ...]:
        """What is drawn for the images: arrays with a row for each image."""
        ...

    def apply(self, x: Images, *draws: Any) -> Images:
        """The images changed by these draws; works in place where it can, so use what is returned.

        Args:
            x: images that nobody else needs, either planar or in the layout that OpenCV works on.
            draws: of these images, as ``draws`` returns them.
        """
        ...

    def for_channels(self, channels: int) -> "Op":
        """What stands in its place in a recipe for images of so many channels; itself, if it can be used on them.

        Raises:
            ValueError: nothing can.
        """
        return self

    def size_after(self, size: Size) -> Size:
        """The size of the images that come out where images of a size go in. Most ops leave it as it is.

        Raises:
            ValueError: the op cannot be used on images of this size.
        """
        return size

    def tiling(self) -> tuple[int, int] | None:
        """Rows and columns of the tiles that it lays side by side; None: its result is one picture."""
        return None

    def told(self, *draws: Any) -> Int64[np.ndarray, "n"]:
        """One integer for each image that says what was drawn. An op that has a name in `tells` overrides this.

        Args:
            draws: as ``draws`` returns them.
        """
        raise ValueError(f"{kind_of(type(self))} tells nothing of its draws; ask an op that has a name in `tells`")


def kind_of(op: type) -> str:
    """The name of an op class in a recipe: ``RandomResizedCrop`` is ``random_resized_crop``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", op.__name__).lower()


def check_probability(name: str, p: float) -> None:
    """Raises ValueError if ``p`` is no probability."""
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: got p={p}; give a probability from 0 to 1.")


def checked_range(name: str, low_high: tuple[float, float]) -> tuple[float, float]:
    """The range as two floats.

    Raises:
        ValueError: the ends are not positive, not finite, or the wrong way round.
    """
    low, high = (float(end) for end in low_high)
    if not 0.0 < low <= high < math.inf:
        raise ValueError(f"{name}: got {low_high}; give (low, high) with 0.0 < low <= high.")
    return low, high


def between(uniform: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers uniform in [low, high), made of numbers uniform in [0, 1)."""
    return low + (high - low) * uniform


def changed(x: Images, chosen: Bool[np.ndarray, "n"], change: Callable[..., Images], *factors: Tensor) -> Images:
    """Applies ``change`` to the chosen images, each with its own row of every factor, and leaves the others alone.

    If only some images are chosen, they are gathered, changed together and put back. On a CPU a pass over an image that
    lies in the cache takes a tenth of the time of such a gathering. So a single image, or a batch of which all images
    are chosen, is changed where it lies, and images that OpenCV works on are taken one by one.
    """
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


def as_images(pixels: Pixels) -> Images:
    """Stored pixels as floats in [0, 1], in the memory layout in which the ops are fastest."""
    if interleaved(pixels):
        return pixels.to(torch.float32, memory_format=torch.channels_last).div_(white(pixels))
    return pixels.contiguous().to(torch.float32).div_(white(pixels))


def channel_means(x: Images) -> Float[Tensor, "n c"]:
    """The mean of each channel of each image."""
    if interleaved(x):  # one image
        return x.permute(0, 2, 3, 1).flatten(2).sum(1).view(-1, 3).mean(0).div_(x.shape[2])[None]
    # One axis at a time. Torch splits a sum over both among threads when the batch is one image, and does not when it
    # is two: the last bits of an image's mean would depend on its batch.
    return x.sum(-1).sum(-1).div_(x.shape[2] * x.shape[3])
