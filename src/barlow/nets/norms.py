"""Batch norm of networks that have not been trained."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def recalibrated(encoder: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A copy with every batch-norm scale 1 and running statistics measured over `batches`.

    As built, an untrained ResNet is a poor baseline in eval mode: the residual branches are multiplied by zero
    (`zero_init_last`) and the running statistics are those of no data at all. Random features deserve better.

    Convention: the statistics are the plain average over the batches (not the exponential one), each batch weighing the
    same. Only batch norm is in train mode while they are measured: dropout and stochastic depth stay off.

    Args:
        encoder: left as it is. Without batch norm, the copy is equal to it.
        batches: normalised views on the encoder's device.

    Returns:
        The copy, in eval mode.

    Raises:
        ValueError: there are no batches.
    """
    copied = copy.deepcopy(encoder).eval()
    norms = [module for module in copied.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        if norm.affine:
            nn.init.ones_(norm.weight)
        norm.reset_running_stats()
        norm.momentum = None  # torch's name for the cumulative average
        norm.train()
    seen = 0
    with torch.no_grad():
        for batch in batches:
            copied(batch)
            seen += 1
    if not seen:
        raise ValueError("no batches to measure batch-norm statistics on; give at least one batch of images")
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return copied.eval()
