"""Exemplar triplets: copies of one image lie closer together than its nearest copies of others, by a margin."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from barlow.objectives._directions import directions
from barlow.objectives._inputs import check_positive, full_precision, in_float64
from barlow.objectives._levels import Levels
from barlow.types import Embedding, Terms

__all__ = ["ExemplarTriplets"]


@dataclass(frozen=True, kw_only=True)
class ExemplarTriplets:
    """Of every two views of an image, the first is held nearer to the second than to a view of another image.

    With embeddings of length 1 and squared distances D, for every anchor a and every other view p of its image:

        loss = mean of max(0, margin + D_ap - D_ak)

    where k is semi-hard: of all views of other images the nearest to a that is further from it than p is; where there
    is none, the furthest.

    Terms: ``triplets``, about the margin where nothing belongs together.

    Source: Kolesnikov et al., Revisiting Self-Supervised Visual Representation Learning (arXiv 1901.09005), section 3,
        exemplar: 8 copies of each image, margin 0.5; google/revisiting-self-supervised at b530e3b. Semi-hard negatives:
        Schroff et al., FaceNet (arXiv 1503.03832), section 3.2.
    Convention: a mean over all pairs of an anchor and another view of its image. Negatives are the views of all other
        images of the batch. Unchanged by a positive scale of any row, by a rotation of all and by exchanging the views.
        Which negative is taken has no gradient. Computed in float64 (float32 on devices without it).
    Deviation: embeddings are scaled to length 1 row by row, as the paper says; that code scales them along the batch.

    Args:
        margin: above 0.

    Raises:
        ValueError: a margin that is not above 0; embeddings that are not aligned float matrices with n ≥ 2.

    Example:
        >>> import torch
        >>> z = torch.eye(3)
        >>> ExemplarTriplets()(z, z)["triplets"].item()  # copies are equal, and other images far away
        0.0
    """

    margin: float = 0.5

    def __post_init__(self) -> None:
        check_positive(margin=self.margin)

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: a semi-hard negative is hardly further away than what it is compared with."""
        return Levels(self.margin, 0.0)

    def __call__(self, *z: Embedding) -> Terms:
        with full_precision(z) as views:
            n, count = len(views[0]), len(views)
            u = torch.cat([directions(in_float64(view)) for view in views])
            distances = 2.0 - 2.0 * (u @ u.T)
            image = torch.arange(n, device=u.device).repeat(count)
            of_others = image[:, None] != image
            total = distances.new_zeros(())
            for other in range(count):
                anchors = torch.arange(count * n, device=u.device) // n != other
                to_copy = distances[anchors, (other * n + image)[anchors]]
                to_other = distances[anchors].gather(1, _semi_hard(distances[anchors], to_copy, of_others[anchors]))
                total = total + (self.margin + to_copy - to_other[:, 0]).clamp(min=0.0).sum()
            return {"triplets": (total / (n * count * (count - 1))).to(views[0].dtype)}


@torch.no_grad()
def _semi_hard(distances: Float[Tensor, "a m"], to_copy: Float[Tensor, "a"], of_others: Tensor) -> Tensor:
    """Which view of another image each anchor is compared with, (a, 1)."""
    further = of_others & (distances > to_copy[:, None])
    nearest = torch.where(further, distances, torch.inf).argmin(dim=1)
    furthest = torch.where(of_others, distances, -torch.inf).argmax(dim=1)
    return torch.where(further.any(dim=1), nearest, furthest)[:, None]
