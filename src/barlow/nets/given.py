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
class Question:
    """What weights do not show of their network, and how a user says it.

    Args:
        why: what is not shown.
        flag: what says it, as `--encoder NAME`; "" where nothing does.
        more: about the flag, after it.
    """

    why: str
    flag: str = ""
    more: str = ""

    def __str__(self) -> str:
        """For who takes the flag."""
        return f"{self.why}: add {self.flag}{self.more}" if self.flag else self.why

    def for_import(self, name: str) -> str:
        """For who does not: it is said once, to `barlow import`."""
        if not self.flag:
            return self.why
        choices = f"; {self.flag.rpartition(' ')[2]}{self.more}" if self.more else ""
        return f"{self.why}: `barlow import {name} {self.flag} --out DIR` first, and DIR in its place{choices}"


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
        asks: why there is no network, and what to say in its place; None where there is one.
        stemless: the network but for its stem, where the stem is what is asked for.
        most: how many parameters the network may have, and what that number is, in words, where its arguments are a
            stranger's; as of `build_encoder`.
    """

    source: str
    read: Callable[[nn.Module], Given]
    network: Network | None = None
    normalization: Normalization | None = None
    centre: Centre | None = None
    channels: int | None = None
    recognised: str = ""
    assumed: tuple[str, ...] = ()
    asks: Question | None = None
    stemless: Network | None = None
    most: tuple[int, str] | None = None
