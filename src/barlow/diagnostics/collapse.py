"""Whether one batch shows collapse: all images at one point, all in a few directions, or many features dead."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from barlow.diagnostics.geometry import correlations, dead, per_dimension_std, scaled
from barlow.linalg import center, effective_rank

# The cost of the statistics grows with the square of the rows and of the columns. This many give two digits and take
# tens of milliseconds.
_ROWS = 512
_COLUMNS = 512


@torch.no_grad()
def embedding_statistics(z: Float[Tensor, "n d"]) -> dict[str, float]:
    """Measures how far the rows of one view's features or embeddings spread, whatever their scale.

    - ``std``: the mean over features of the standard deviation over rows, after each row is scaled to length √d. It is
      1 for centred isotropic rows, and 0 when all rows point the same way. The scaling makes it comparable between
      objectives: Barlow Twins and W-MSE leave the scale of the embedding free, so its raw spread says nothing.
    - ``dead``: the share of features whose standard deviation is below 1/1000 of the root mean square of all.
    - ``effective_rank``: the number of directions that the centred rows spread over (exp of the entropy of the singular
      values).
    - ``mean_abs_correlation``: the mean of |corr(i, j)| over pairs of different features that are not dead. If only one
      is left, it is 0.

    Source: std: SimSiam (arXiv 2011.10566) section 4.1; effective rank: RankMe (arXiv 2210.02885).
    Deviation: RankMe reads the uncentred rows of a whole data set. Here the rows are centred, so that a common offset
        does not count as a direction. And they are one training batch, whose size bounds the rank. SimSiam's 1/√d
        becomes 1.

    Args:
        z: two rows or more of one view. Of more than 512 rows the first 512 are read (a training batch is in random
            order). Of more than 512 features, 512 evenly spaced ones are correlated.
    """
    if z.ndim != 2 or len(z) < 2 or z.shape[1] == 0 or not z.is_floating_point():
        raise ValueError(f"statistics need a float matrix of two rows or more, got {z.dtype} of shape {tuple(z.shape)}")
    with torch.autocast(z.device.type, enabled=False):
        x = z[:_ROWS].detach().float()
        x = x.cpu() if x.device.type == "mps" else x  # mps has no float64 and no eigenvalues
        if not bool(x.isfinite().all()):
            return dict.fromkeys(("std", "dead", "effective_rank", "mean_abs_correlation"), math.nan)
        statistics = {
            "std": per_dimension_std(x).mean(),
            "dead": dead(x).float().mean(),
            "effective_rank": effective_rank(center(scaled(x)).double()),
            "mean_abs_correlation": correlations(x, _COLUMNS)[0],
        }
        return dict(zip(statistics, torch.stack([s.double() for s in statistics.values()]).tolist(), strict=True))


def healthy_ranges(n: int, d: int) -> dict[str, tuple[float, float]]:
    """Between which numbers each statistic of `embedding_statistics` should lie, for a batch of n rows and d features.

    - ``std``: at least 0.25, at most 1. With rows of length √d, the mean variance is 1 - the mean cosine between two
      rows, so std ≤ √(1 - cosine). Under 0.25, two images lie on average within about 20 degrees of each other.
    - ``dead``: at most 0.1, a tenth of the width. This is a choice.
    - ``effective_rank``: at most min(n - 1, d), which is the rank of n centred rows, and at least a tenth of it. The
      tenth is a choice; isotropic noise reaches 0.8 of the bound or more. Where two directions are possible, at least
      1.5.
    - ``mean_abs_correlation``: at most √(2/π(n-1)) + 0.25, but never above 0.9, and anything below four rows. The first
      part is chance: the correlation of n independent Gaussian pairs has variance 1/(n-1), so the mean of its absolute
      value is √(2/π(n-1)). The second part stands for dependence: features that are correlated by r have
      d / (1 + (d-1) r²) independent directions (the participation ratio of the correlation matrix). So r = 0.25 leaves
      at most 16, however wide the embedding is.

    The ranges hold for encoder features and for embeddings some epochs after the start. An untrained network may lie
    outside.
    """
    n = min(n, _ROWS)
    bound = max(min(n - 1, d), 1)
    chance = math.sqrt(2 / (math.pi * max(n - 1, 1)))
    return {
        "std": (0.25, 1.0),
        "dead": (0.0, 0.1),
        "effective_rank": (min(max(0.1 * bound, 1.5), 0.75 * bound), float(bound)),
        "mean_abs_correlation": (0.0, min(chance + 0.25, 0.9) if n > 3 else 1.0),
    }
