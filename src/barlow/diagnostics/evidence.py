"""What a step shows of how training goes, beside the statistics of its features: numbers that the doctor reads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from barlow.linalg import at_least_float32, center
from barlow.types import Embedding, Features, Images

WATCHED = 4_096
"""Numbers of each tensor by which it is told whether weights move."""

ROWS = 512
"""Rows at most that are compared."""


@torch.no_grad()
def of_views(
    views: Sequence[Images], group: Sequence[Embedding], features: Sequence[Features] = ()
) -> dict[str, float]:
    """How the first two views of a batch differ, and how much of that is left in their features and embeddings.

    - ``difference``: the root mean square of the difference of two views' pixels, normalised as the network gets them.
      Two unrelated images differ by about √2. It is missing where views have different sizes.
    - ``agreement``: the mean cosine of two embeddings of one image, each less the mean of its view.
    - ``chance``: the same of two different images.
    - ``error``: the standard error of their difference, by the images of the batch.
    - ``features_agreement``, ``features_chance``, ``features_error``: likewise of the encoder's features. Those of an
      untrained network agree already, so they tell views of one image from views of two before anything is learned.

    Args:
        views: of the batch.
        group: embeddings that are compared with each other, the first group of the step.
        features: of the encoder, a batch for each view.

    Where a step has one view, all of this is missing. What is compared then are parts of it (its tiles, its lightness
    and its colour) or an image and its caption, whose features have nothing in common before something is learned.
    """
    if len(views) < 2:
        return {}
    found = {}
    if views[0].shape == views[1].shape:
        found["difference"] = float((views[0][:ROWS] - views[1][:ROWS]).float().square().mean().sqrt())
    found |= _agreement(group)
    return found | {f"features_{name}": value for name, value in _agreement(features).items()}


def _agreement(batches: Sequence[Tensor]) -> dict[str, float]:
    if len(batches) < 2 or batches[0].shape != batches[1].shape or len(batches[0]) < 3:
        return {}
    a, b = (torch.nn.functional.normalize(center(at_least_float32(z[:ROWS].detach())), dim=1) for z in batches[:2])
    same, other = (a * b).sum(1), (a * b.roll(1, 0)).sum(1)
    error = float((same - other).std() / len(a) ** 0.5)
    return {"agreement": float(same.mean()), "chance": float(other.mean()), "error": error}


def parts_without_gradient(named: Iterable[tuple[str, nn.Parameter]]) -> list[str]:
    """The parts of a network none of whose parameters has a gradient that is not zero.

    A part is what stands before the first dot of a parameter's name: encoder, projector, predictor, objective.

    Args:
        named: parameters that are to be trained, after a backward pass.
    """
    alive: dict[str, bool] = {}
    for name, parameter in named:
        part = name.partition(".")[0]
        if not alive.get(part, False):
            alive[part] = parameter.grad is not None and bool((parameter.grad != 0).any())
    return [part for part, has in alive.items() if not has]


@dataclass
class Movement:
    """How far weights have moved since they were last looked at, or since this was made, by a sample of each matrix.

    Args:
        parameters: those that are trained. Vectors (biases, norms) are left out.
    """

    parameters: Sequence[Tensor]
    _before: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self._before = self._now()

    @torch.no_grad()
    def _now(self) -> list[Tensor]:
        return [p.flatten()[:WATCHED].float().cpu().clone() for p in self.parameters if p.ndim > 1]

    def read(self) -> float:
        """The length of the change over that of the weights before it, both of the sample."""
        before, now = self._before, self._now()
        self._before = now
        change = sum(float((a - b).square().sum()) for a, b in zip(now, before, strict=True))
        whole = sum(float(b.square().sum()) for b in before)
        return (change / whole) ** 0.5 if whole > 0 else 0.0
