"""Colorization: which of 313 colours does each place of an image have, of which the network sees the lightness?"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from barlow.linalg import Scalar
from barlow.objectives._colour_bins import BINS, rebalancing, smoothed, soft_codes
from barlow.objectives._inputs import check_non_negative, check_one_of, full_precision, in_float64, mean
from barlow.objectives._levels import Levels
from barlow.types import Embedding, Terms

__all__ = ["Colorization"]


@dataclass(frozen=True, kw_only=True)
class Colorization:
    """A classifier should tell the colour of each place of an image; rare colours count more.

    loss = mean over rows and places of v · -Σ_q z_q log softmax(logits)_q, where z is the colour's soft code over its
    ten nearest bins and v = w[nearest bin], w ∝ 1 / ((1 - uniform) p + uniform · u), with E_p[w] = 1. Rows without
    colour (all |a|, |b| ≤ grey) count as 0.

    A row of logits holds 313 numbers for each place, one bin after the other, and a row of targets the a of each place
    and then the b.

    Terms: ``cross_entropy``. Equal logits give log 313 where colours occur as the prior says.

    Source: Zhang, Isola, Efros, Colorful Image Colorization (arXiv 1603.08511), equations 2-4; richzhang/colorization
        at 4aa459f, resources/caffe_traininglayers.py.
    Convention: a mean over rows and places. Grey images stay in what it is divided by. The prior p is that of the
        places of all images' centres, each counted at its nearest bin, found before the first step, smoothed, and
        saved. `paper`: u is uniform over all bins; `code`: over those that occur. Unchanged by adding a number to all
        logits of a place. Codes and weights are constants, in float64 (float32 on devices without it); the logits'
        softmax is in the precision of the logits.
    Deviation: the printed loss has the weights in it. The released code applies them to the gradient alone, so that
        its printed loss is that without weights; gradients are the same. Of `code`, a colour that does not occur
        before training has the largest weight of those that do, where the released code has infinity.

    Args:
        uniform: (λ) the share of the uniform distribution, from 0 to 1.
        convention: paper or code: which bins the uniform distribution is over.
        smoothing: (σ) of the Gaussian that smooths a prior that was found, in units of a and b; 0: none.
        prior: 313 shares of the bins, if they are known beforehand; null: found in the images.
        grey: the |a| and |b| up to which a place has no colour.

    Raises:
        ValueError: hyper-parameters out of range; groups that are not logits and colours of as many places; before the
            first step, images of which none has a colour.

    Example:
        >>> objective = Colorization().build()
        >>> logits, ab = torch.zeros(1, 313 * 4), torch.full((1, 2 * 4), 20.0)
        >>> round(objective([(logits, ab)])["cross_entropy"].item(), 4)  # log 313
        5.7462
    """

    uniform: float = 0.5
    convention: str = "paper"
    smoothing: float = 5.0
    prior: tuple[float, ...] | None = None
    grey: float = 5.0

    def __post_init__(self) -> None:
        check_one_of(("paper", "code"), convention=self.convention)
        check_non_negative(uniform=self.uniform, smoothing=self.smoothing, grey=self.grey)
        if self.uniform > 1:
            raise ValueError(f"uniform is {self.uniform}: give a share from 0 to 1, such as 0.5")
        if self.prior is not None:
            object.__setattr__(self, "prior", tuple(float(share) for share in self.prior))
            _check_prior(self.prior)

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: all colours are equally likely everywhere."""
        return Levels(math.log(len(BINS)), 0.0)

    def build(self) -> "RebalancedColours":
        """The loss, with the prior that is given, or a uniform one until it is found."""
        return RebalancedColours(self)


class RebalancedColours(nn.Module):
    """Colorization's loss with its `prior`, the share of each bin."""

    def __init__(self, section: Colorization) -> None:
        super().__init__()
        self.section = section
        prior = torch.full((len(BINS),), 1 / len(BINS)) if section.prior is None else torch.tensor(section.prior)
        self.register_buffer("prior", prior / prior.sum())

    @torch.no_grad()
    def before_run(self, groups: Callable[[], Iterable[list[tuple[Embedding, ...]]]]) -> None:
        """Finds the prior in the colours of all images, unless it was given."""
        if self.section.prior is not None:
            return
        prior = self.get_buffer("prior")
        counts, coloured, images = torch.zeros(len(BINS), dtype=torch.int64, device=prior.device), 0, 0
        for (_, ab), *_ in groups():
            coloured += int(self._coloured(ab).sum())
            images += len(ab)
            colours = in_float64(ab).unflatten(1, (2, -1)).transpose(1, 2).flatten(0, 1)
            counts += torch.bincount(soft_codes(colours)[0][:, 0], minlength=len(BINS))
        if not coloured:
            raise ValueError(
                f"none of {images} images has a colour (all a and b are from {-self.section.grey:g} to "
                f"{self.section.grey:g}), so there is nothing to learn: give colour images, or take another objective"
            )
        prior.copy_(smoothed(in_float64(counts), self.section.smoothing))

    def forward(self, groups: list[tuple[Embedding, Embedding]]) -> Terms:
        weights = self.weights()
        return {"cross_entropy": mean([self._of_group(logits, ab, weights) for logits, ab in groups])}

    def weights(self) -> Float[Tensor, "q"]:
        """The weight of each bin."""
        found = rebalancing(in_float64(self.get_buffer("prior")), self.section.uniform, self.section.convention)
        return torch.where(found.isfinite(), found, found[found.isfinite()].max())

    def _of_group(self, logits: Embedding, ab: Embedding, weights: Float[Tensor, "q"]) -> Scalar:
        with full_precision((logits,), fewest=1) as (scores,), full_precision((ab.detach(),), fewest=1) as (colours,):
            _check_places(scores, colours)
            scores = scores.to(torch.promote_types(scores.dtype, colours.dtype))
            n, places = len(scores), colours.shape[1] // 2
            colours = in_float64(colours).view(n, 2, places)
            which, shares = soft_codes(colours.nan_to_num().transpose(1, 2).flatten(0, 1))
            boost = self._coloured(colours.flatten(1))[:, None] * weights[which[:, 0]].view(n, places)
            likely = scores.view(n, len(BINS), places).log_softmax(dim=1)
            nearest = likely.gather(1, which.view(n, places, -1).transpose(1, 2))
            spread = shares.view(n, places, -1).transpose(1, 2).to(scores.dtype)
            # Nothing but bins that are near has a part in the sum; what is no number is seen all the same.
            unseen = 0 * (scores.sum() + colours.sum().to(scores.dtype))
            return (boost.to(scores.dtype) * -(spread * nearest).sum(dim=1)).mean() + unseen

    def _coloured(self, ab: Embedding) -> Bool[Tensor, "n"]:
        """Which rows have a colour anywhere."""
        return (ab.abs() > self.section.grey).any(dim=1)


def _check_prior(prior: tuple[float, ...] | None) -> None:
    assert prior is not None
    usable = all(math.isfinite(share) and share >= 0 for share in prior) and sum(prior) > 0
    if len(prior) != len(BINS) or not usable:
        raise ValueError(
            f"prior has {len(prior)} numbers, from {min(prior, default=0)} to {max(prior, default=0)}: give "
            f"{len(BINS)} shares of 0 or more, of which some are above 0, or null to find them"
        )


def _check_places(scores: Embedding, colours: Embedding) -> None:
    """Raises ValueError for logits and colours that are not of the same rows and places."""
    (n, k), (rows, width) = scores.shape, colours.shape
    if rows != n:
        raise ValueError(f"logits of {n} rows and colours of {rows}: row i of both comes from image i, give one shape")
    if width % 2 or k * 2 != width * len(BINS):
        raise ValueError(
            f"logits are {k} wide and colours {width}: give {len(BINS)} logits and 2 numbers for each place, as the "
            "method colorization makes them (for m places one shape of 313 m and one of 2 m)"
        )
