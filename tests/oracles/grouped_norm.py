"""Batch norm in groups by loops over groups and channels; its gradient is autograd's, of these plain sums."""

import torch
from torch import Tensor


def normalized(x: Tensor, members: list[list[int]], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Every group's values minus their mean over their standard deviation, and what running statistics move towards.

    Args:
        x: (n, c, ...) in float64.
        members: the rows of each group.
        eps: added to the variance.

    Returns:
        The normalised values, and for each channel the mean over groups of the mean and of the unbiased variance.
    """
    channels, rows = x.shape[1], {}
    means, variances = torch.zeros(channels, dtype=x.dtype), torch.zeros(channels, dtype=x.dtype)
    for group in members:
        of_channels = []
        for c in range(channels):
            values = torch.stack([x[row, c] for row in group])
            count = values.numel()
            mean = values.sum() / count
            squares = (values - mean).pow(2).sum()
            of_channels.append((values - mean) / (squares / count + eps).sqrt())
            means[c] += mean.detach() / len(members)
            variances[c] += squares.detach() / (count - 1) / len(members)
        for position, row in enumerate(group):
            rows[row] = torch.stack([values[position] for values in of_channels])
    return torch.stack([rows[row] for row in range(len(x))]), means, variances
