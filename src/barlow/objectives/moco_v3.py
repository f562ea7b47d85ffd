"""MoCo v3: a query should find the key of the other view of its image among the keys of the whole batch."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from barlow.objectives._classification import surprisal
from barlow.objectives._directions import directions
from barlow.objectives._inputs import check_positive, full_precision, in_float64
from barlow.objectives._levels import Levels, contrast, least_contrast
from barlow.types import Embedding, Terms

__all__ = ["MoCoV3"]


@dataclass(frozen=True, kw_only=True)
class MoCoV3:
    """A query should be more like its own key than like the keys of the batch's other images, without any queue.

    sᵢⱼ = cos(qᵢ, kⱼ) / temperature,
    loss of a group = 4 · temperature · mean over rows of -log (exp sᵢᵢ / Σⱼ exp sᵢⱼ), keys taken for constants.

    A step has a group for each ordered pair of views: (queries of view 1, keys of view 2) and the other way round. The
    mean over these two is MoCo v3's loss, the sum over both directions of 2 · temperature times the cross-entropy.

    Terms: ``contrast``.

    Source: Chen, Xie, He, An Empirical Study of Training Self-Supervised Vision Transformers (arXiv 2104.02057),
        algorithm 1; facebookresearch/moco-v3 at c349e6e, moco/builder.py.
    Convention: a mean over rows, a sum over the two directions. All keys of the other view are candidates, those of
        every process too; keys of the query's own view are not. Only the queries get a gradient. Unchanged by a
        positive scale of any row. Computed in float64 (float32 on devices without it).
    Deviation: a row up to 1e-12 long has no direction; its similarities are 0 and it gets no gradient. More than two
        views (not in the paper): twice the mean over the ordered pairs of views.

    Args:
        temperature: (τ) above 0: 1.0 for ResNet-50, 0.2 for vision transformers.

    Raises:
        ValueError: a temperature that is not positive; embeddings that are not aligned float matrices with n ≥ 2.

    Example:
        >>> z = torch.ones(4, 3)
        >>> round(MoCoV3()(z, z)["contrast"].item(), 4)  # collapsed: 4 · log n
        5.5452
    """

    moving_target: ClassVar[bool] = True

    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: the right key is one of n. Floor: keys equal their queries, and all other cosines are
        -1 / (n - 1), as low as all of n directions can have them."""
        scale = 4 * self.temperature
        least = least_contrast(rows - 1, -1 / (rows - 1), self.temperature)
        return Levels(scale * contrast(rows, width, self.temperature), scale * least)

    def __call__(self, q: Embedding, k: Embedding) -> Terms:
        with full_precision((q, k)) as (queries, keys):
            aim = directions(in_float64(keys.detach()))
            similar = directions(in_float64(queries)) / self.temperature @ aim.T
            others = similar.masked_fill(torch.eye(len(aim), dtype=torch.bool, device=aim.device), -torch.inf)
            contrast = surprisal(similar.diagonal(), others.logsumexp(dim=1)).mean()
            return {"contrast": (4 * self.temperature * contrast).to(queries.dtype)}
