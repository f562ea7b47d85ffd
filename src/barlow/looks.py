"""Looks at all images, which objectives may have before an epoch or at times of their own: for clusterings.

`barlow.objectives.ObjectiveWithState` has what an objective writes; the learner calls it.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import nn

from barlow import objectives
from barlow.types import Embed, Embedding, Ids, Rows


class AllRows(Protocol):
    """All images once: this process's block of one batch after the other. The last batch is filled up with repeated
    rows."""

    def __call__(self, drawn: int | None = None) -> Iterable[Rows]:
        """The images in the order of their ids, as one view of their centre; or in random order, as the views of a
        step, by draws that have this number and are no step's."""
        ...


def check(objective: Any, all_rows: AllRows | None) -> None:
    """Refuses an objective that could not look.

    Raises:
        ValueError: it has a hook, and there are no images to look at; or it does not say when its look is due.
    """
    name = type(objective).__name__
    for hook in ("before_epoch", "before_step"):
        if hasattr(objective, hook) and all_rows is None:
            raise ValueError(f"{name} has a {hook}, which needs all_rows; give it")
    if hasattr(objective, "before_step") and not hasattr(objective, "due"):
        raise ValueError(
            f"{name} has a before_step and no due: write due(self, progress), which says when it is called"
        )


def due(objective: Any, progress: float, *, begins_epoch: bool) -> bool:
    """Whether the objective looks at all images before a step."""
    return (begins_epoch and hasattr(objective, "before_epoch")) or _due_now(objective, progress)


def had(objective: Any, embed: Embed, progress: float, *, begins_epoch: bool) -> list[nn.Parameter]:
    """Lets the objective look, if it is to. Returns its parameters that begin anew."""
    renewed: list[nn.Parameter] = []
    if begins_epoch and hasattr(objective, "before_epoch"):
        told = {"progress": progress} if "progress" in objectives.asks(objective.before_epoch) else {}
        renewed += objective.before_epoch(embed, **told) or ()
    if _due_now(objective, progress):
        renewed += objective.before_step(embed, progress=progress) or ()
    return renewed


def _due_now(objective: Any, progress: float) -> bool:
    return hasattr(objective, "before_step") and bool(objective.due(progress))


def in_order(ids: Ids, z: Embedding) -> tuple[Ids, Embedding]:
    """Each image once, in the order of the ids.

    One may come twice: where the last batch was filled up, or in place of another that cannot be read any more.
    """
    listed, order = ids.sort(stable=True)
    first = torch.ones_like(listed, dtype=torch.bool)
    first[1:] = listed[1:] != listed[:-1]
    return listed[first], z[order][first]


@contextlib.contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """Inside, a network may be used as in training; then its running statistics are what they were before."""
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in network.named_buffers():
            buffer.copy_(kept[name])
