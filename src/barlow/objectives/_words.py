"""A list of visual words: bags of them that a map makes, and the network that makes a direction of each."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from barlow.linalg import Scalar
from barlow.objectives._directions import directions
from barlow.objectives._inputs import in_float64
from barlow.types import Embedding, Ids

FEW = 2**24
"""Fewer products than this are computed in float64, which costs next to nothing. More are left in float32."""

TOGETHER = 2**26
"""Distances between positions and words that are held at a time."""

LEAST = 1e-12
"""Of the mean distance: where a network gives all images one map, it falls towards 0, and divides."""

Map = Float[Tensor, "n h w c"]
Bags = Float[Tensor, "n k"]


class Words(nn.Module):
    """The list of one level: `words`, a row each, and `distance` (μ), from which the weights of words are scaled.

    `first`, `scale`, `shift`, `second` and `bias` are a perceptron with batch norm, from a word to its direction. They
    start as torch's layers do.

    Args:
        count: of words.
        channels: of a word.
        hidden: width of the perceptron.
        width: of the directions.
        generator: draws what it starts with.
    """

    words: Tensor
    distance: Tensor

    def __init__(self, count: int, channels: int, hidden: int, width: int, generator: torch.Generator) -> None:
        super().__init__()

        def uniform(*shape: int, fan_in: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(*shape, generator=generator) - 1) / math.sqrt(fan_in))

        self.register_buffer("words", torch.randn(count, channels, generator=generator).clamp(min=0))
        self.register_buffer("distance", torch.tensor(0.5))
        self.first = uniform(hidden, channels, fan_in=channels)
        self.scale, self.shift = nn.Parameter(torch.ones(hidden)), nn.Parameter(torch.zeros(hidden))
        self.second = uniform(width, hidden, fan_in=hidden)
        self.bias = uniform(width, fan_in=hidden)

    @torch.no_grad()
    def bags(self, maps: Sequence[Map], inverse_temperature: float, memory: float) -> tuple[list[Bags], Scalar]:
        """The bag of each image of some batches, and μ as it is after them, with which the bags are made."""
        images = torch.cat([m.flatten(1, 2) for m in maps])
        positions, count = images.shape[1], len(self.words)
        exact = _precision_for(images.numel() * count, images.dtype)
        words, images = exact(self.words), exact(images)
        # Around the words' mean, as a sum of squares less a product cancels far from the origin.
        centre = words.mean(dim=0)
        words, blocks = words - centre, (images - centre).split(max(1, TOGETHER // (positions * count)))
        held = [_squared(blocks[0], words)] if len(blocks) == 1 else None

        def squared() -> Iterator[Float[Tensor, "n p k"]]:
            yield from held or (_squared(block, words) for block in blocks)

        least = torch.cat([d.amin(dim=2) for d in squared()]).mean()
        distance = (memory * self.distance + (1 - memory) * least).clamp(min=LEAST)
        sharp = -inverse_temperature / distance
        pooled = torch.cat([d.mul_(sharp).softmax(dim=2).amax(dim=1) for d in squared()])
        return list((pooled / pooled.sum(dim=1, keepdim=True)).split([len(m) for m in maps])), distance

    def directions(self, precision: torch.dtype) -> Float[Tensor, "k d"]:
        """A direction for each word of the list as it is now, with a graph."""
        exact = _precision_for(len(self.words) * (self.first.numel() + self.second.numel()), precision)
        # A copy, because the gradient is computed after the step's words have come in.
        hidden = directions(exact(self.words.clone())) @ exact(self.first).T
        hidden = F.batch_norm(hidden, None, None, exact(self.scale), exact(self.shift), training=True)
        return directions(F.relu(hidden) @ exact(self.second).T + exact(self.bias))


def _squared(block: Float[Tensor, "n p c"], words: Float[Tensor, "k c"]) -> Float[Tensor, "n p k"]:
    """Squared distances between the positions of some images and all words."""
    x = block.flatten(0, 1)
    distances = torch.addmm(words.square().sum(dim=1), x, words.T, alpha=-2)
    return distances.add_(x.square().sum(dim=1, keepdim=True)).clamp_(min=0).unflatten(0, block.shape[:2])


def divergence(p: Embedding, weights: Float[Tensor, "k d"], bags: Bags, kappa: float) -> Scalar:
    """The mean over rows of KL(bag ‖ softmax(kappa p · weights)), in float64 (float32 on devices without it)."""
    exact = _precision_for(len(p) * weights.numel(), p.dtype)
    predicted = in_float64(kappa * exact(p) @ exact(weights).T).log_softmax(dim=1)
    y = in_float64(bags)
    return (torch.special.xlogy(y, y) - y * predicted).sum(dim=1).mean()


def window_mean(of_images: Map, bits: Ids, side: int) -> Embedding:
    """The mean of one window of each image's map, at the place that its bits say: a word.

    Args:
        of_images: the maps.
        bits: for each image a number, evenly spread.
        side: of a window; one that is larger than the map is as large as that.
    """
    height, width = of_images.shape[1:3]
    window = min(side, height), min(side, width)
    means = F.avg_pool2d(of_images.permute(0, 3, 1, 2), window, stride=1).flatten(2)
    place = (bits % means.shape[2])[:, None, None].expand(-1, means.shape[1], 1)
    return means.gather(2, place)[:, :, 0]


def _precision_for(products: int, precision: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Float64 for so many products if they are few, else this precision."""
    return in_float64 if products < FEW else lambda z: z.to(precision)
