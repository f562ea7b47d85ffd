"""How many directions features spread over, and how evenly: numbers that need no labels, from the spectrum of a matrix.

A name says its convention where published ones differ. "Raw" reads the rows as they are, so that a common offset counts
as a direction; "centred" takes the mean row off first. Everything is computed in float64.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from barlow import linalg
from barlow.linalg import center

Rows = Float[Tensor, "n d"]
Grouped = Float[Tensor, "n q d"]
"""q views of each of n images."""
Spectrum = Float[Tensor, "k"]
"""The k = min(n, d) singular values of a matrix, largest first."""

EPSILON = 1e-7
"""What RankMe and LiDAR add to each share before they take its logarithm."""


class Undefined(ValueError):
    """A diagnostic has no meaning for these features: their spectrum ends too early, say."""


def singular_values(x: Rows, *, centred: bool) -> Spectrum:
    """The singular values of the rows, in float64, largest first.

    Raises:
        ValueError: it is no matrix of two rows or more, or holds NaN or infinity.
    """
    if x.ndim != 2 or len(x) < 2 or x.shape[1] == 0 or not x.is_floating_point():
        raise ValueError(f"a spectrum needs a float matrix of two rows or more, got {x.dtype} of {tuple(x.shape)}")
    x = as_float64(x)
    x = center(x) if centred else x
    return torch.linalg.svdvals(x if x.shape[0] >= x.shape[1] else x.T)


def as_float64(x: Tensor) -> Tensor:
    """Features in float64.

    Raises:
        ValueError: they hold NaN or infinity.
    """
    x = x.detach()
    x = (x.cpu() if x.device.type == "mps" else x).double()  # mps has no float64
    if not bool(x.isfinite().all()):
        raise ValueError("the features hold NaN or infinity: no diagnostic has a meaning for them")
    return x


def entropy_rank(shares: Float[Tensor, "k"], epsilon: float, zeros: int = 0) -> float:
    """exp(-Σ p ln p) with p = shares / Σ shares + ε; 0 if all shares are 0.

    Args:
        shares: not negative.
        epsilon: added to each after the division, as published, so that they sum to more than 1. With 0, shares of 0
            add nothing.
        zeros: further shares that are 0, which count where ε is not.
    """
    total = shares.sum()
    if float(total) == 0:
        return 0.0
    p = shares / total + epsilon
    of_zeros = zeros * -epsilon * math.log(epsilon) if epsilon else 0.0
    return math.exp(float(torch.special.entr(p).sum()) + of_zeros)


def rankme(x: Rows, *, epsilon: float = EPSILON, centred: bool = False) -> float:
    """RankMe: the exponential of the entropy of the singular values' shares.

    Source: Garrido et al., RankMe (arXiv 2210.02885), equation 2. The paper reads 25,600 rows.
    Convention: raw, and ε is added after the division. Others centre, use 1e-6, or divide by ln d: such numbers are not
        to be compared with this one.

    Args:
        x: features or embeddings, one row for each image.
        epsilon: see above; it adds up to k · 1.6e-6 to the entropy, k = min(n, d).
        centred: whether the mean row is taken off first, which is not RankMe as published.

    Raises:
        ValueError: as `singular_values` does.
    """
    return entropy_rank(singular_values(x, centred=centred), epsilon)


def effective_rank(x: Rows) -> float:
    """The same of the centred rows and without ε: the directions around the mean.

    Source: Roy and Vetterli, The effective rank (EUSIPCO 2007), definition 1.
    Convention: centred.

    Raises:
        ValueError: as `singular_values` does.
    """
    return float(linalg.effective_rank(center(as_float64(x))))


def stable_rank(x: Rows, *, centred: bool = False) -> float:
    """Σ σ² / σ₁²: how many times the strongest direction's energy there is in all; 0 for the zero matrix.

    Source: Rudelson and Vershynin, Sampling from large matrices (J. ACM 2007).
    Convention: raw, unless `centred`.

    Raises:
        ValueError: as `singular_values` does.
    """
    return stable_rank_of(singular_values(x, centred=centred))


def stable_rank_of(singular: Spectrum) -> float:
    """The same of singular values."""
    energies = _shares(singular)
    return float(energies.sum() / energies[0]) if float(energies[0]) > 0 else 0.0


def _shares(singular: Spectrum) -> Spectrum:
    """Their squares, in units of the largest: the squares themselves could overflow or vanish."""
    return (singular / singular[0].clamp_min(torch.finfo(singular.dtype).tiny)).square()


def participation_ratio(x: Rows) -> float:
    """(Σ λ)² / Σ λ²: how many directions of equal variance would give these eigenvalues; 0 if nothing varies.

    Source: Gao et al., A theory of multineuronal dimensionality (bioRxiv 214262), section 2.
    Convention: eigenvalues λ of the centred covariance.

    Raises:
        ValueError: as `singular_values` does.
    """
    return participation_ratio_of(singular_values(x, centred=True))


def participation_ratio_of(singular: Spectrum) -> float:
    """The same of the singular values of the centred rows."""
    variances = _shares(singular)
    squares = variances.square().sum()
    return float(variances.sum().square() / squares) if float(squares) > 0 else 0.0


def top_eigenvalue_share(x: Rows) -> float:
    """λ₁ / Σ λ: the share of the variance that lies in one direction; 1 if nothing varies at all.

    Convention: eigenvalues λ of the centred covariance.

    Raises:
        ValueError: as `singular_values` does.
    """
    return top_eigenvalue_share_of(singular_values(x, centred=True))


def top_eigenvalue_share_of(singular: Spectrum) -> float:
    """The same of the singular values of the centred rows."""
    variances = _shares(singular)
    return float(variances[0] / variances.sum()) if float(variances[0]) > 0 else 1.0


def alpha_req(x: Rows, first: int = 11, last: int = 100, *, weights: Literal["equal", "1/i"] = "equal") -> float:
    """α-ReQ: how fast the eigenvalues of the covariance fall, -slope of ln λᵢ against ln i by least squares.

    0 is a flat spectrum. The paper finds encoders good whose α is near 1. The number depends much on the range of i:
    compare it over the same range only.

    Source: Agrawal et al., α-ReQ (NeurIPS 2022). `weights="1/i"` is the weighted fit of Stringer et al. (Nature 2019).
    Convention: centred; i counts from 1, and `first` to `last` are both in the fit.

    Args:
        x: features, one row for each image.
        first, last: the range; the first eigenvalues are left out.
        weights: of the points of the fit.

    Raises:
        Undefined: there are fewer eigenvalues than `last` that are not zero.
    """
    return alpha_req_of(singular_values(x, centred=True), first, last, weights=weights)


def alpha_req_of(singular: Spectrum, first: int, last: int, *, weights: Literal["equal", "1/i"] = "equal") -> float:
    """The same of the singular values of the centred rows."""
    if not 1 <= first < last:
        raise ValueError(f"a slope needs a range of two eigenvalues or more, counted from 1; got {first} to {last}")
    # What is smaller is what rounding leaves of zero (the tolerance of numpy.linalg.matrix_rank).
    rank = int((singular > float(singular[0]) * len(singular) * torch.finfo(singular.dtype).eps).sum())
    if last > rank:
        raise Undefined(
            f"α over the eigenvalues {first} to {last} needs {last} that are not zero, and there are {rank}"
        )
    i = torch.arange(first, last + 1, dtype=singular.dtype, device=singular.device)
    chosen = singular[first - 1 : last].square()
    w = torch.ones_like(i) if weights == "equal" else 1 / i
    logs, values = i.log(), chosen.log()
    logs = logs - (w * logs).sum() / w.sum()
    return float(-(w * logs * values).sum() / (w * logs.square()).sum())


def lidar(
    views: Grouped, *, delta: float = 1e-4, epsilon: float = EPSILON, relative: bool = False, biased: bool = False
) -> float:
    """LiDAR: along how many directions images differ more than views of one image do.

    Σb is the covariance of the n images' means, divisor n - 1. Σw is the pooled covariance of the views around their
    image's mean, divisor n (q - 1), plus δI. The number is exp of the entropy of the shares of the eigenvalues of
    Σw^-½ Σb Σw^-½.

    It is at most n - 1, and biased upwards with few views: the same 16 directions of signal gave 33.5 with two views of
    400 images, and 21.3 with ten. So compare it at the same n and q only, and with ten views or more. Views without any
    signal score high, too: beside this, look at whether views of an image agree.

    Source: Thilak et al., LiDAR (arXiv 2312.04000).
    Convention: the divisors above. Implementations do not agree on δ, 1e-3 to 1e-6; 1e-4 is said to be the paper's. It
        is absolute, so that the number depends on the features' scale, unless `relative`.

    Args:
        views: features of q views of each of n images.
        delta: see above.
        epsilon: added to each share, as in RankMe.
        relative: δ counts in units of trace(Σw) / d, which makes the number free of scale. This is our own choice.
        biased: whether the divisors are n and n q. Of Σb's the number does not depend at all, and of Σw's only beside
            δ: so this is the same as another δ, and there to compare with implementations that count so.

    Raises:
        ValueError: there are fewer than two images or two views, or a value is not finite.
        Undefined: Σw is singular, and δ is 0.
    """
    if views.ndim != 3 or min(views.shape[:2]) < 2 or not views.is_floating_point():
        raise ValueError(
            f"LiDAR needs two views or more of two images or more, (n, q, d); got {views.dtype} of {tuple(views.shape)}"
        )
    x = as_float64(views)
    n, q, d = x.shape
    x = x - x.mean((0, 1))
    if d > n * q:  # all there is to see lies in the space of the rows, and there the matrices are smaller
        x = torch.linalg.qr(x.reshape(n * q, d).T, mode="r").R.T.reshape(n, q, n * q)
    means = x.mean(1)
    around = (x - means[:, None]).reshape(n * q, -1)
    within = around.T @ around / (n * q if biased else n * (q - 1))
    scale = float(within.diagonal().sum()) / d if relative else 1.0
    within.diagonal().add_(delta * scale)
    factor, failed = torch.linalg.cholesky_ex(within)
    if int(failed):
        raise Undefined("the views of an image vary in fewer directions than there are: LiDAR needs delta above 0")
    whitened = torch.linalg.solve_triangular(factor, means.T, upper=False)
    energies = torch.linalg.svdvals(whitened).square()
    return entropy_rank(energies, epsilon, zeros=d - len(energies))
