"""How a step calls an objective: with all groups at once or with each, and with what its signature asks for."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from barlow import objectives

Objective = Callable[..., Mapping[str, Tensor]]


class Comparison:
    """An objective, as a step calls it.

    A module with `forward(self, groups, *, ...)` is called once with all groups. Anything else is called once for each
    group, and the mean of each term is taken. Other libraries' losses, modules with `forward(self, za, zb)`, are among
    these. They may have no state: a queue, called twice in a step, would meet the step's own keys.

    Args:
        objective: a dataclass of `barlow.objectives`, the module that one has built, or any callable.

    Raises:
        ValueError: an objective whose state would not be trained or saved, or that would not be told what it asks for.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.asks = objectives.asks(objective)
        self._all_groups = isinstance(objective, nn.Module) and _takes_all_groups(objective)
        if not isinstance(objective, nn.Module):
            _check_attributes(objective)

    def __call__(self, groups: list[tuple[Tensor, ...]], about: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """The terms of the loss.

        Args:
            groups: of the global batch.
            about: what is known of the step, by name. The objective is given what it asks for.

        Raises:
            ValueError: what it returns is no dictionary of scalar tensors.
        """
        asked = {name: about[name] for name in self.asks if name in about}
        if self._all_groups:
            return _checked(self.objective(groups, **asked))
        found = [_checked(self.objective(*group, **asked)) for group in groups]
        if len(found) == 1:
            return found[0]
        return {name: torch.stack([terms[name] for terms in found]).mean() for name in found[0]}


def _checked(terms: Any) -> Mapping[str, Tensor]:
    scalars = isinstance(terms, Mapping) and all(isinstance(t, Tensor) and t.ndim == 0 for t in terms.values())
    if not scalars or not terms:
        raise ValueError(
            f"an objective returned {type(terms).__name__} {str(terms)[:60]!r}: it returns a dictionary of named "
            "scalar tensors, {'distance': loss}, whose sum is the loss"
        )
    found: Mapping[str, Tensor] = terms
    return found


def _check_attributes(objective: Objective) -> None:
    held = {key: value for key, value in getattr(objective, "__dict__", {}).items() if isinstance(value, nn.Module)}
    for key, network in held.items():
        if network.state_dict():
            raise ValueError(
                f"the objective {type(objective).__name__} holds a network ({key}) and is no nn.Module: make it one, "
                "so that the network is trained and saved"
            )


def _takes_all_groups(objective: nn.Module) -> bool:
    """Whether it is called once, with all groups; what could not be trained or saved is refused."""
    name = type(objective).__name__
    state = [key for key, _ in (*objective.named_parameters(), *objective.named_buffers())]
    saved = objective.state_dict()
    unsaved = [key for key in state if key not in saved]
    if unsaved := unsaved + [key for key, value in saved.items() if not isinstance(value, Tensor)]:
        raise ValueError(
            f"the objective {name} has state that a checkpoint would not hold ({unsaved[0]}): let all of it be "
            "parameters and persistent buffers"
        )
    parameters = list(inspect.signature(objective.forward).parameters.values())
    if parameters and parameters[0].name == "groups":
        if asked := [p.name for p in parameters[1:] if p.kind is p.POSITIONAL_OR_KEYWORD]:
            raise ValueError(
                f"forward of the objective {name} asks for {asked[0]}, which has to be keyword-only: write "
                f"forward(self, groups, *, {asked[0]})"
            )
        return True
    if state:
        raise ValueError(
            f"the objective {name} has state ({state[0]}) and its forward takes "
            f"{', '.join(p.name for p in parameters)}: let it take `groups`, a list with a tuple of embeddings for "
            "each group, so that it is called once a step"
        )
    return False
