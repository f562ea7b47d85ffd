"""What weights that others have made expect of an image."""

from dataclasses import dataclass
from typing import Any

from barlow.size import Size, size_of


@dataclass(frozen=True)
class Normalization:
    """What weights expect of an image: its channels, and their mean and standard deviation, for pixels in [0, 1].

    Of images of more than 8 bits, [0, 1] is the range of values.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: tuple[float, float] | None = None

    @property
    def channels(self) -> int:
        return len(self.mean)

    def fits(self, channels: int, value_range: tuple[float, float] | None) -> bool:
        """Whether it is of such images."""
        return (self.channels, self.value_range) == (channels, value_range)


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The usual one, of torchvision's and most of timm's networks."""


@dataclass(frozen=True)
class Centre:
    """Which centre view of an image a network is measured on; see `Preprocessing`."""

    size: Size
    crop_ratio: float
    interpolation: str


def normalization_of(name: str) -> Normalization:
    """What timm's weights of a name expect of an image; of a network's name, those that timm takes by default.

    `IMAGENET`, where timm says nothing.
    """
    cfg = _configured(name)
    return IMAGENET if cfg is None else Normalization(tuple(cfg.mean), tuple(cfg.std))


def centre_of(name: str) -> Centre:
    """The centre view that timm's weights of a name are measured on, likewise; 224 pixels, where timm says nothing."""
    cfg = _configured(name)
    if cfg is None:
        return Centre(224, 0.875, "bicubic")
    known = cfg.interpolation in ("nearest", "bilinear", "bicubic", "lanczos")
    return Centre(size_of(cfg.input_size[1:]), float(cfg.crop_pct), cfg.interpolation if known else "bilinear")


def _configured(name: str) -> Any:
    """What timm says of weights, or of a network; None where it knows nothing of the name."""
    import timm

    return timm.get_pretrained_cfg(name, allow_unregistered=True)
