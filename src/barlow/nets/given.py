"""What is known of given weights: of which network they are, what they expect of images, and what was read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from barlow.nets.expected import Centre, Normalization

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Network:
    """Which network weights are of: arguments of `build_encoder`."""

    name: str
    options: dict[str, Any]
    stem: str
    zero_init_last: bool


@dataclass(frozen=True)
class Given:
    """Weights as they were read, under the names that the encoder has for them.

    Args:
        tensors: by name, perhaps with a classifier.
        dropped: names in the file that are no part of an encoder, by what they are.
    """

    tensors: Tensors
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """Given weights.

    Args:
        source: as the user named them.
        read: takes the encoder that is to be filled, and returns the tensors by its names.
        network: which network they are of; None where the source does not say.
        normalization: what they expect of an image; None where the source does not say.
        channels: of the images, where the source shows it.
        centre: the view that they are measured on; None where the source does not say.
        recognised: what kind of file it is and of which network, in words; empty for weights of our own and of timm's,
            which need not be recognised.
        assumed: what no file of weights shows and is taken to be so, a phrase each.
        asks: why there is no network, and what to say in its place; empty where there is one.
        stemless: the network but for its stem, where the stem is what is asked for.
    """

    source: str
    read: Callable[[nn.Module], Given]
    network: Network | None = None
    normalization: Normalization | None = None
    centre: Centre | None = None
    channels: int | None = None
    recognised: str = ""
    assumed: tuple[str, ...] = ()
    asks: str = ""
    stemless: Network | None = None
