"""The ops that views are made of: crop, flip, colour, blur, rotation, …, one file for each family.

Ops are batched. They take (n, c, h, w) floats in [0, 1], on any device, and every image of the batch gets draws of its
own. What an image becomes depends on that image and its key, never on the batch around it. On a CPU this holds to the
last bit: sums run along rows of fixed length, and an image's matrix product has the same shape in every batch. On a GPU
the library that multiplies matrices may choose another kernel for another batch, so the last bits may differ.

Large RGB images on a CPU are worked on by OpenCV where it is installed; `_opencv.py` says which images exactly.

Not every image has three channels. Saturation, hue, grayscale and changes of colour space are about colour, so they
leave images with any other number of channels as they are. Such an op has ``channelwise = False`` and says in
`for_channels` what a run takes in its place (`channel_jitter` or `channel_dropout`), or refuses, so that none of a
recipe's ops silently becomes nothing.
Brightness and contrast change all channels alike, and the mean that contrast keeps is that of the grey image for three
channels, of all channels otherwise. Crop, flip, rotation, blur and solarisation treat each channel alike.

To add an op, add a file here, or a class to the file of its family: a frozen dataclass that inherits from `Op` and is
named in its file's ``__all__``. `OPS` finds it there, and with `OPS` the recipes and the contract tests
(tests/contracts/test_ops.py) do. Files whose name begins with an underscore hold what the families share. The imports
below only make the usual names short to import.
"""

import importlib
import pkgutil

from barlow.views.ops._op import Op, as_images, kind_of
from barlow.views.ops.blur import GaussianBlur
from barlow.views.ops.channels import ChannelDropout, ChannelJitter
from barlow.views.ops.color_dropping import ColorDropping
from barlow.views.ops.colour import ColorJitter, Grayscale
from barlow.views.ops.colour_spaces import ToLab, ToYcbcr
from barlow.views.ops.crop import RandomResizedCrop
from barlow.views.ops.exemplar_color import ColorComponents, ColorPowers
from barlow.views.ops.flip import HorizontalFlip
from barlow.views.ops.normalize import Normalize
from barlow.views.ops.photometric import Autocontrast, Equalize, Photometric, Posterize, Sharpness
from barlow.views.ops.rand_augment import RandAugment
from barlow.views.ops.rotate import RandomRotate90
from barlow.views.ops.solarize import Solarize
from barlow.views.ops.standardize import Standardize
from barlow.views.ops.tiles import PatchPair, Tiles

__all__ = [
    "OPS",
    "Autocontrast",
    "ChannelDropout",
    "ChannelJitter",
    "ColorComponents",
    "ColorDropping",
    "ColorJitter",
    "ColorPowers",
    "Equalize",
    "GaussianBlur",
    "Grayscale",
    "HorizontalFlip",
    "Normalize",
    "Op",
    "PatchPair",
    "Photometric",
    "Posterize",
    "RandAugment",
    "RandomResizedCrop",
    "RandomRotate90",
    "Sharpness",
    "Solarize",
    "Standardize",
    "Tiles",
    "ToLab",
    "ToYcbcr",
    "as_images",
]


def _found() -> dict[str, type[Op]]:
    files = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    modules = [importlib.import_module(f"{__name__}.{file}") for file in files]
    ops = {kind_of(op): op for module in modules for op in (getattr(module, name) for name in module.__all__)}
    return dict(sorted(ops.items()))


OPS: dict[str, type[Op]] = _found()
"""Every op by its kind, which is its name in a recipe."""
