"""OpenCV where it is installed (extra `opencv`): which images it works on, and the few calls that the ops make.

Images that qualify (see `interleaved`) are worked on one by one, wherever an op mixes channels or neighbouring pixels.
That is faster than torch and gives the same but for rounding. Which images qualify depends on the layout that an image
comes in and never on its batch, so an image still becomes the same in every batch.
"""

import importlib.util
import threading
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from barlow.types import Images, Pixels

LARGE = 64
"""An image with a side above this many pixels is large: working on it alone is worth the extra calls."""


_LOADING = threading.Lock()
"""cv2 replaces itself while it is being imported: a thread that looks for it meanwhile finds half a module."""


@cache
def opencv() -> Any:
    """The module cv2, or None where it is not installed."""
    with _LOADING:
        if importlib.util.find_spec("cv2") is None:
            return None
        import cv2

        return cv2


def interleaved(x: Images | Pixels) -> bool:
    """Whether OpenCV works on these images: large RGB images on a CPU whose channels lie side by side in memory.

    Torch calls this layout channels_last. Decoders write it.
    """
    _, c, h, w = x.shape
    return (
        c == 3
        and (h > LARGE or w > LARGE)
        # The strides of each image. The distance between images must not count: alone, an image would else be judged
        # differently than in its batch.
        and x.stride()[1:] == (1, 3 * w, 3)
        and x.dtype in (torch.float32, torch.uint8, torch.uint16)
        and x.is_cpu
        and not x.requires_grad
        and opencv() is not None
    )


def _array(x: Float[Tensor, "1 3 h w"]) -> Float[np.ndarray, "h w 3"]:
    """The memory of one interleaved image, in the shape that OpenCV expects."""
    return x[0].permute(1, 2, 0).numpy()


def mirror(x: Float[Tensor, "1 3 h w"]) -> None:
    """Mirrors one interleaved image left to right, in place."""
    pixels = _array(x)
    opencv().flip(pixels, 1, dst=pixels)


def mix_channels(x: Float[Tensor, "1 3 h w"], matrix: Float[np.ndarray, "3 3"]) -> Float[Tensor, "1 3 h w"]:
    """One interleaved image with each pixel (r, g, b) multiplied by the matrix."""
    return torch.from_numpy(opencv().transform(_array(x), matrix.astype(np.float32))).permute(2, 0, 1)[None]


def shift_hue(x: Float[Tensor, "1 3 h w"], shift: float) -> None:
    """Turns the hue of one interleaved image by ``shift`` (1 is a full turn), in place."""
    cv2, pixels = opencv(), _array(x)
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    hsv[..., 0] += np.float32(360.0 * (shift % 1.0))  # on the way back from HSV, OpenCV takes no negative hues
    cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=pixels)


def convolve(x: Float[Tensor, "1 c h w"], down: np.ndarray, across: np.ndarray) -> None:
    """Convolves one image with a kernel for its columns and one for its rows, in place; edges reflect.

    Args:
        x: an interleaved image, or a planar one with any number of channels.
        down: the kernel along columns; an odd number of taps.
        across: the kernel along rows.
    """
    cv2 = opencv()
    for plane in [_array(x)] if interleaved(x) else x[0].numpy():
        cv2.sepFilter2D(plane, -1, across, down, dst=plane, borderType=cv2.BORDER_REFLECT_101)


def split_channels(x: Float[Tensor, "n 3 h w"], out: Float[Tensor, "n 3 h w"]) -> None:
    """Writes interleaved images into ``out``, which is planar: all of red, then all of green, then all of blue."""
    for i, planes in enumerate(out.numpy()):
        opencv().split(_array(x[i : i + 1]), list(planes))
