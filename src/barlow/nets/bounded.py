"""Networks are measured before they are built: what a recipe or an encoder's description asks for may be anything."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as modules

from barlow.limits import TooLarge

LAYERS = 3_000
"""Modules that a network may consist of. The largest of timm's, tf_efficientnet_l2, has 1,757."""


@contextlib.contextmanager
def bounded(what: str, most: float, why: str) -> Iterator[None]:
    """Inside, a network is built in this thread; one that becomes too large is stopped while it is being built.

    Args:
        what: the network, for the message.
        most: how many numbers its parameters may have.
        why: what this limit is, for the message.

    Raises:
        TooLarge: it has more, or more than `LAYERS` modules.
    """
    thread, layers, items = threading.get_ident(), 0, 0

    def layer(owner: nn.Module, name: str, value: Any) -> None:
        nonlocal layers
        if threading.get_ident() == thread:
            layers += 1
            if layers > LAYERS:
                raise TooLarge(f"{what} has more than {LAYERS:,} layers")

    def parameter(owner: nn.Module, name: str, value: Any) -> None:
        nonlocal items
        if threading.get_ident() == thread and isinstance(value, nn.Parameter):
            items += value.numel()
            if items > most:
                raise TooLarge(f"{what} has more than {int(most):,} parameters, {why}")

    with contextlib.ExitStack() as hooks:
        for handle in (
            modules.register_module_module_registration_hook(layer),
            modules.register_module_parameter_registration_hook(parameter),
        ):
            hooks.callback(handle.remove)
        yield


def items_of(network: nn.Module) -> int:
    """How many numbers a network's state has."""
    return sum(value.numel() for value in network.state_dict().values() if isinstance(value, torch.Tensor))
