"""SeLa: classifiers should say to which clusters of one size an image belongs, by labels that they make themselves."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from barlow.objectives._clusters import (
    check_clusters,
    check_counts,
    check_ids,
    check_width,
    cross_entropy,
    drawn_labels,
    seed_of,
)
from barlow.objectives._equal_masses import labels_of_equal_masses
from barlow.objectives._inputs import check_positive, full_precision, in_float64, mean
from barlow.objectives._levels import Levels
from barlow.types import Embed, Embedding, Ids, Terms

__all__ = ["SeLa"]

AT_A_TIME = 2**22
"""Logits that are computed at a time for new labels."""


@dataclass(frozen=True, kw_only=True)
class SeLa:
    """Several linear classifiers learn labels, and now and then the labels are made anew from what they say.

    loss = mean over heads h and views of the mean over rows of -log softmax(W_h z + b_h)_L, L = label h of the image.
    An update of the labels: P = softmax of all images, L = argmax of Q, which of all matrices with rows of one sum and
    columns of one sum is nearest to P to the power of ``sharpness``. The updates come at the shares (i / updates)² of
    the run, i = 0, 1, …: often at first. Until the first, image i has the label i mod clusters, in random order.

    Terms: ``clusters``, log(clusters) where nothing is known.

    Source: Asano, Rupprecht and Vedaldi, Self-labelling via simultaneous clustering and representation learning (arXiv
        1911.05371), sections 3.1-3.3 and algorithm 1; yukimasano/self-label at 3891e37.
    Convention: means over rows, views and heads. Labels are made from views of the images that are drawn for the
        purpose. The classifiers start as torch starts linear layers. Rows of images without a label are left out of the
        mean. Computed in float64 (float32 on devices without it).
    Deviation: labels are made with the networks in eval mode. Where several updates are due at once, one is made.
        Memory: 8 bytes for each image and cluster, of one head at a time.

    Args:
        clusters: of each head, at most as many as there are images. 3,000 for ImageNet, 128 for CIFAR-10.
        heads: classifiers, each with labels of its own: 10 for ImageNet.
        sharpness: (λ) power of the probabilities, above 0: 25 for ImageNet, 10 for CIFAR-10.
        updates: of the labels in a run.
        tolerance: above 0, at which the iterations of an update end (`equal_masses`).

    Raises:
        ValueError: hyper-parameters out of range; more clusters than images; embeddings that are no float matrix of the
            width that it was built for.

    Example:
        >>> objective = SeLa(clusters=4, heads=2).build(width=3, images=8, seed=0)
        >>> objective.due(0.0)
        True
        >>> z, ids = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8)
        >>> objective.before_step(lambda *_, **__: (ids, z), progress=0.0)
        >>> objective.due(0.0), objective.due(0.01)
        (False, True)
    """

    moving_target: ClassVar[bool] = True

    clusters: int = 3000
    heads: int = 10
    sharpness: float = 25.0
    updates: int = 100
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        check_positive(sharpness=self.sharpness, tolerance=self.tolerance)
        check_counts(clusters=(self.clusters, 2), heads=(self.heads, 1), updates=(self.updates, 1))

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: all clusters are equally likely."""
        return Levels(math.log(self.clusters), 0.0)

    def build(self, *, width: int, images: int, seed: int) -> "SelfLabels":
        """The classifiers and the labels."""
        check_clusters(self.clusters, images)
        return SelfLabels(self, width, images, seed)


class SelfLabels(nn.Module):
    """The loss with its trained classifiers, `weight` (heads, clusters, features) and `bias`, and with its `labels`
    (heads, images), -1 where there is none, of which `updated` counts the updates that were due."""

    labels: Tensor
    updated: Tensor

    def __init__(self, section: SeLa, width: int, images: int, seed: int) -> None:
        super().__init__()
        self.section = s = section
        generator = torch.Generator().manual_seed(seed_of(seed, 0, 0))
        bound = 1 / math.sqrt(max(width, 1))

        def uniform(*shape: int) -> Tensor:
            return bound * (2 * torch.rand(*shape, generator=generator) - 1)

        self.weight = nn.Parameter(uniform(s.heads, s.clusters, width))
        self.bias = nn.Parameter(uniform(s.heads, s.clusters))
        labels = [drawn_labels(images, s.clusters, seed_of(seed, 0, 1 + head)) for head in range(s.heads)]
        self.register_buffer("labels", torch.stack(labels))
        self.register_buffer("updated", torch.zeros((), dtype=torch.int64))
        self._known: int | None = None  # the same number, for which a device need not be waited for
        self.register_load_state_dict_post_hook(_forget)

    def due(self, progress: float) -> bool:
        """Whether labels are to be made before the step at this share of the run."""
        if self._known is None:
            self._known = int(self.updated)
        return self._known < self._wanted(progress)

    @torch.no_grad()
    def before_step(self, embed: Embed, *, progress: float) -> None:
        """New labels for all heads."""
        s = self.section
        ids, z = embed(augmented=True)
        check_clusters(s.clusters, len(ids))
        self.labels.fill_(-1)
        for head in range(s.heads):
            blocks = [s.sharpness * logits.log_softmax(dim=1) for logits in self._logits(z, head)]
            self.labels[head, ids] = labels_of_equal_masses(torch.cat(blocks), tolerance=s.tolerance)
        self._known = self._wanted(progress)
        self.updated.fill_(self._known)

    def forward(self, groups: list[tuple[Embedding]], *, ids: Ids) -> Terms:
        terms = []
        for (view,) in groups:
            with full_precision((view,), fewest=1) as (z,):
                check_width(z, self.weight.shape[2])
                check_ids(ids, len(z))
                exact = in_float64(z)
                losses = [
                    cross_entropy(exact @ in_float64(weight).T + in_float64(bias), labels[ids])
                    for weight, bias, labels in zip(self.weight, self.bias, self.labels, strict=True)
                ]
                terms.append(mean(losses).to(z.dtype))
        return {"clusters": mean(terms)}

    def _wanted(self, progress: float) -> int:
        """How many updates are due by now: those of the shares (i / updates)² up to this one."""
        return min(int(self.section.updates * math.sqrt(progress)) + 1, self.section.updates)

    def _logits(self, z: Embedding, head: int) -> Iterator[Tensor]:
        weight, bias = in_float64(self.weight[head]), in_float64(self.bias[head])
        for block in z.split(max(AT_A_TIME // len(weight), 1)):
            yield in_float64(block) @ weight.T + bias


def _forget(module: nn.Module, keys: Any) -> None:
    """What was known of the state before another one was loaded."""
    assert isinstance(module, SelfLabels)
    module._known = None
