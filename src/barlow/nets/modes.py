"""Networks that are looked at while they are trained."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Inside, batch norm uses its running statistics and nothing is drawn; then every part has its own mode again."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():  # not train(): that would also wake the parts a user had frozen
            module.training = training
