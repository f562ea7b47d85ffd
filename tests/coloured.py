"""Small labelled images whose class is their colour, and networks that learn from them in a second."""

import numpy as np
from torch import Tensor, nn

from barlow.data.labelled import LabelledSet, read_labelled
from barlow.data.sources import ArraySource
from barlow.nets.preprocessing import Preprocessing

EXPECTED = Preprocessing(8, 1.0, "bilinear", (0.5,) * 3, (0.25,) * 3, 3)


def coloured(n: int, seed: int, classes: int = 4, noise: float = 40.0) -> LabelledSet:
    """Images of 12 pixels, the classes one after the other."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    colours = np.random.default_rng(3).uniform(60, 200, (classes, 3))
    pixels = colours[labels][:, None, None] + noise * rng.normal(size=(n, 12, 12, 3))
    source = ArraySource(
        "coloured", pixels.clip(0, 255).astype(np.uint8), labels, [f"class {k}" for k in range(classes)]
    )
    return read_labelled(source, "train", EXPECTED, 0.0)


class Small(nn.Module):
    """A convolution with batch norm: 6 features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu().mean(dim=(2, 3))
