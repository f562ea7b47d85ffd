"""SwAV: a view should say to which prototypes another view of its image was assigned."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from barlow.objectives._directions import directions
from barlow.objectives._inputs import check_positive, full_precision, in_float64, mean
from barlow.objectives._levels import Levels, contrast
from barlow.objectives._sinkhorn import sinkhorn
from barlow.types import Embedding, Terms

__all__ = ["SwAV"]

MOST = 2**22
"""Numbers in prototypes or in a queue's rows; ImageNet's recipe has 3,000 prototypes."""


@dataclass(frozen=True, kw_only=True)
class SwAV:
    """Each view predicts the codes of the other views: how their embeddings are shared out among prototypes.

    sᵥ = cos(zᵥ, prototypes), qᵢ = Sinkhorn's codes of sᵢ over the whole batch, taken for constants,
    loss = mean over the assigned views i of the mean over the views v ≠ i of
           -mean over rows of Σₖ qᵢₖ log softmax(sᵥ / temperature)ₖ.

    The first ``assigned`` views have codes: the large crops, where there are small ones. Every view predicts.

    Terms: ``swapped``, log(prototypes) where nothing is known.

    Source: Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (arXiv
        2006.09882), equations 1-5 and listing 1; facebookresearch/swav at 06b1b7c, main_swav.py.
    Convention: means over rows, predicting views and assigned views. The codes are those of the global batch, with the
        queue's rows in front where it is in use; only the batch's own codes are learned from. The prototypes have
        length 1 before every step, and the gradient does not pass through that scaling. Computed in float64 (float32 on
        devices without it); the queue is kept in float32.
        The paper does not train the prototypes at first: a recipe says that by a rule for `objective.prototypes` with
        `frozen_until`.
    Deviation: a row up to 1e-12 long has no direction; its similarities are 0 and it gets no gradient.

    Args:
        prototypes: how many, about ten times the classes one expects; fewer than a batch or a queue has rows.
        temperature: above 0, of the predictions.
        epsilon: above 0, of the codes; smaller ones are harder. The authors suggest 0.03 where the loss stays at
            log(prototypes).
        iterations: of Sinkhorn's algorithm, 1 or more.
        assigned: how many views have codes, from the first on.
        queue: rows of earlier embeddings, kept for each assigned view, that help to share out a small batch. It is a
            multiple of the batch; 0: none. It is used once it is full.
        queue_from: share of the run, in [0, 1], after which the queue begins to be filled; 0.0375 is epoch 15 of 400.

    Raises:
        ValueError: hyper-parameters out of range; more than one group, or no more views than one; embeddings of another
            width than the prototypes were built for; a queue that is not a multiple of the batch.

    Example:
        >>> objective = SwAV(prototypes=4).build(width=3, seed=0)
        >>> z = torch.ones(8, 3)
        >>> round(objective([(z, z)], progress=0.0)["swapped"].item(), 1) > 0
        True
    """

    moving_target: ClassVar[bool] = True

    prototypes: int = 3000
    temperature: float = 0.1
    epsilon: float = 0.05
    iterations: int = 3
    assigned: int = 2
    queue: int = 0
    queue_from: float = 0.0375

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature, epsilon=self.epsilon)
        for name, value, least, most in (
            ("prototypes", self.prototypes, 2, MOST),
            ("iterations", self.iterations, 1, 1000),
            ("assigned", self.assigned, 1, 1000),
            ("queue", self.queue, 0, MOST),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}: give a whole number from {least} to {most:,}")
        if not 0 <= self.queue_from <= 1:
            raise ValueError(f"queue_from is {self.queue_from}: give a share of the run, from 0 to 1")

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: the prediction knows nothing of the code, and is as sharp as random directions make it."""
        return Levels(contrast(self.prototypes, width, self.temperature), 0.0)

    def build(self, *, width: int, seed: int) -> "Swapping":
        """The prototypes and the queue, for embeddings of `width` features."""
        return Swapping(self, width, seed)


class Swapping(nn.Module):
    """SwAV's loss with its trained `prototypes`, a row each, and its `queue` of (assigned views, rows, features)."""

    queue: Tensor

    def __init__(self, section: SwAV, width: int, seed: int) -> None:
        super().__init__()
        self.section = section
        generator = torch.Generator().manual_seed(seed)
        # Torch starts a Linear layer uniform in a cube; of what length does not matter here.
        uniform = torch.rand(section.prototypes, width, generator=generator) * 2 - 1
        self.prototypes = nn.Parameter(directions(uniform))
        if section.queue:
            self.register_buffer("queue", torch.zeros(section.assigned, section.queue, width))

    def forward(self, groups: list[tuple[Embedding, ...]], *, progress: float) -> Terms:
        s = self.section
        if len(groups) != 1:
            raise ValueError(f"{len(groups)} groups: SwAV compares all views of a step, give [(z1, z2, ...)]")
        with full_precision(groups[0]) as views:
            self._check(views, s.assigned)
            u = [directions(in_float64(z)) for z in views]
            prototypes = in_float64(self.prototypes)
            scores = [view @ prototypes.T for view in u]
            codes = [self._codes(i, scores[i], prototypes) for i in range(s.assigned)]
            predictions = [F.log_softmax(score / s.temperature, dim=1) for score in scores]
            terms = [
                mean([-(code * p).sum(dim=1).mean() for v, p in enumerate(predictions) if v != i])
                for i, code in enumerate(codes)
            ]
            swapped = mean(terms).to(views[0].dtype)
            if s.queue and progress >= s.queue_from:
                self._enqueue(u[: s.assigned])
            return {"swapped": swapped}

    @torch.no_grad()
    def after_step(self) -> None:
        """Gives the prototypes length 1 again, which the update has taken from them."""
        self.prototypes.copy_(directions(self.prototypes))

    @torch.no_grad()
    def _codes(self, view: int, scores: Tensor, prototypes: Tensor) -> Tensor:
        s = self.section
        if s.queue and bool((self.queue[view, -1] != 0).any()):  # it is full: its oldest row has come in
            earlier = in_float64(self.queue[view]) @ prototypes.T
            return sinkhorn(torch.cat([earlier, scores]), s.epsilon, s.iterations)[-len(scores) :]
        return sinkhorn(scores, s.epsilon, s.iterations)

    @torch.no_grad()
    def _enqueue(self, assigned: list[Embedding]) -> None:
        """The batch comes in front, and the oldest rows go out at the end."""
        for view, rows in enumerate(assigned):
            newest = torch.cat([rows.to(self.queue.dtype), self.queue[view]])[: self.section.queue]
            self.queue[view].copy_(newest)

    def _check(self, views: list[Embedding], assigned: int) -> None:
        (n, width), built_for, queue = views[0].shape, self.prototypes.shape[1], self.section.queue
        if assigned > len(views):
            raise ValueError(f"{len(views)} views, and assigned is {assigned}: give as many views, or fewer assigned")
        if width != built_for:
            raise ValueError(
                f"embeddings of {width} features, and prototypes built for {built_for}: build them for {width}"
            )
        if queue % n:
            near = max(round(queue / n), 1) * n
            raise ValueError(
                f"a batch of {n} does not divide a queue of {queue}: use another batch size, or a queue of {near}, a "
                f"multiple of {n}"
            )
