"""Looks at all images, which objectives may have before an epoch or at times of their own: for clusterings.

`barlow.objectives.ObjectiveWithState` has what an objective writes; the learner calls it.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from barlow import objectives
from barlow.distributed import World
from barlow.linalg import at_least_float32
from barlow.methods._networks import Method, features_of
from barlow.nets.grouped_norms import Groups
from barlow.nets.modes import in_eval_mode
from barlow.nets.seeding import seeded
from barlow.training.global_gradient import distinct
from barlow.types import Embedding, Features, Ids, Rows

HOOKS = ("before_run", "before_epoch", "before_step")


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
    for hook in HOOKS:
        if hasattr(objective, hook) and all_rows is None:
            raise ValueError(f"{name} has a {hook}, which needs all_rows; give it")
    if hasattr(objective, "before_step") and not hasattr(objective, "due"):
        raise ValueError(
            f"{name} has a before_step and no due: write due(self, progress), which says when it is called"
        )


@dataclass(frozen=True)
class AllImages:
    """All images through a method, for an objective that looks at them. Nothing is changed by it.

    Args:
        method: the networks.
        rows: gives all images once.
        world: the processes; what is found is alike in all of them.
        norms: the grouped batch norms of the method, which draw their groups.
        views: how many the method is used to; it is given the centre so many times.
        precision: of the networks.
        seed: of what layers draw.
    """

    method: Method
    rows: AllRows
    world: World
    norms: Sequence[Groups]
    views: int
    precision: str
    seed: int

    @torch.no_grad()
    def embedded(
        self, step: int = 0, member: int = 0, *, augmented: bool = False, training: bool = False
    ) -> tuple[Ids, Embedding]:
        """Embeddings in the order of the ids: what a hook's `embed` gives.

        `barlow.objectives.ObjectiveWithState` says what `member`, `augmented` and `training` ask for.

        Args:
            step: whose look it is. Another step has other draws.
            member: which of the embeddings that `forward` gives.
            augmented: of views, or else of the centres.
            training: with the networks in the mode that they are trained in, or else in eval mode.
        """
        ids, z = [], []
        for known, groups in self._made(step, augmented=augmented, training=training):
            embedded = [one for group in groups for one in group][member]
            z.append(self._of_all_processes(embedded.float()))
            ids.append(self._of_all_processes(known.to(embedded.device)))
        return in_order(torch.cat(ids), torch.cat(z))

    @torch.no_grad()
    def features(self) -> tuple[Ids, Features]:
        """The encoder's features of the centres, in the order of the ids: what `Method.hold` is given."""
        ids, found = [], []
        with in_eval_mode(self.method):
            for rows in self.rows():
                with self.world.autocast(self.precision):
                    features = features_of(self.method.encoder, rows.views[0])
                found.append(self._of_all_processes(at_least_float32(features)))
                ids.append(self._of_all_processes(rows.known["ids"].to(features.device)))
        return in_order(torch.cat(ids), torch.cat(found))

    @torch.no_grad()
    def groups(self) -> Iterator[list[tuple[Tensor, ...]]]:
        """The groups of all centres, a batch at a time, each image once: what a hook's `groups` gives."""
        seen: set[int] = set()
        for known, groups in self._made(0, augmented=False, training=False):
            tensors, places = distinct(groups)
            whole = [self._of_all_processes(z.float()) for z in tensors]
            new = _unseen(self._of_all_processes(known).tolist(), seen)
            yield [tuple(whole[i][new] for i in place) for place in places]

    def _made(self, step: int, *, augmented: bool, training: bool) -> Iterator[tuple[Ids, list[tuple[Tensor, ...]]]]:
        """What the method makes of this process's images, a batch at a time."""
        draws = seeded(self.seed, f"all images {step} process {self.world.rank}", self.world.device)
        with draws, buffers_kept(self.method) if training else in_eval_mode(self.method):
            for rows in self.rows(step) if augmented else self.rows():
                given = rows if augmented else Rows(rows.views * self.views, rows.known)
                for norm in self.norms if training else ():
                    norm.draw(step, len(rows) * self.world.size)
                with self.world.autocast(self.precision):
                    yield rows.known["ids"], self.method(given).groups

    def _of_all_processes(self, values: Tensor) -> Tensor:
        return self.world.collect(values).flatten(0, 1)


def due(objective: Any, step: int, progress: float, *, begins_epoch: bool) -> bool:
    """Whether the objective looks at all images before a step."""
    return (
        (step == 0 and hasattr(objective, "before_run"))
        or (begins_epoch and hasattr(objective, "before_epoch"))
        or _due_now(objective, progress)
    )


def had(objective: Any, images: AllImages, step: int, progress: float, *, begins_epoch: bool) -> list[nn.Parameter]:
    """Lets the objective look, if it is to. Returns its parameters that begin anew."""
    embed = partial(images.embedded, step)
    renewed: list[nn.Parameter] = []
    if step == 0 and hasattr(objective, "before_run"):
        objective.before_run(images.groups)
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


def _unseen(ids: Sequence[int], seen: set[int]) -> list[int]:
    """The places of ids that have not been seen before; they are added to those that have.

    An image may come twice: at the end of the last batch, or in place of one that cannot be read any more.
    """
    places = []
    for place, each in enumerate(ids):
        if each not in seen:
            seen.add(each)
            places.append(place)
    return places


@contextlib.contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """Inside, a network may be used as in training; then its running statistics are what they were before."""
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in network.named_buffers():
            buffer.copy_(kept[name])
