"""Memory banks: the last embeddings of all images, a row for each, and what an embedding is told apart from by them.

What NPID, PIRL and CMC share. A bank's objective scores an embedding against the row of its own image and against rows
of others, which are drawn by (seed, step, id).

A step is scored against the rows as the step before has left them. Then each image's row moves once. An image may be
in a batch twice (it stands in for one that cannot be read any more), and its row then moves towards the mean of both
embeddings, so that neither the order of the rows nor the number of processes decides which of them counts.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from barlow.objectives._classification import surprisal
from barlow.objectives._directions import directions
from barlow.objectives._draws import indices
from barlow.objectives._inputs import check_one_of, check_positive
from barlow.objectives._levels import Levels, contrast, least_contrast
from barlow.types import Embedding, Ids

Form = Literal["nce", "cross_entropy"]

EPS = 1e-7
"""In the denominators of noise-contrastive estimation, as in the released code: lemniscate.pytorch, lib/NCECriterion.py
at f7cfe29."""

MOST = 2**20
"""Negatives of a row; PIRL has 32,000."""

AT_A_TIME = 2**24
"""Numbers that are held at a time: scores of some rows against the bank, or copies of rows of it."""

WORTH_ALL = 16
"""Scores against all rows of a bank are a matrix product; against drawn ones, rows are copied first. The product is the
faster of the two up to about so many times as many rows as are drawn (two cores, 128 features)."""

Scores = Float[Tensor, "n k"]
"""Of each row against its candidates: first its own image's row, then the negatives."""


def uniform_rows(images: int, width: int, generator: torch.Generator) -> Embedding:
    """Rows as NPID and CMC start: uniform in a cube, ±√(3 / width), of length 1 on average and not exactly."""
    side = math.sqrt(3 / max(width, 1))
    return (torch.rand(images, width, generator=generator) * 2 - 1) * side


class Telling(Protocol):
    """How embeddings are told apart: what the sections of NPID, PIRL and CMC have in common."""

    @property
    def negatives(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def form(self) -> Form: ...
    @property
    def momentum(self) -> float: ...


def check(how: Telling) -> None:
    """Raises ValueError for a hyper-parameter out of range."""
    check_positive(temperature=how.temperature)
    check_one_of(get_args(Form), form=how.form)
    if not 0 <= how.negatives <= MOST:
        raise ValueError(
            f"negatives is {how.negatives}: give how many rows of the bank are drawn for each image, 4096 for example, "
            f"at most {MOST:,}, or 0 for all of them"
        )
    if not 0 <= how.momentum < 1:
        raise ValueError(
            f"momentum is {how.momentum}: give the share of a row that a step leaves as it was, in [0, 1), 0.5 for "
            "example"
        )


def levels(how: Telling, width: int, images: int | None) -> Levels:
    """Of one comparison. Unrelated: all rows of the bank are as like as any, but for chance.

    Of noise-contrastive estimation, with r the exponential of a score over its mean: the mean of log(1 + k / r) is that
    of the cross-entropy, and k times the mean of log(1 + r / k) is nearly that of r, which is 1. Its floor is that of a
    right row with cosine 1 and others with cosine -1, under the constant of a first batch of unrelated directions.
    """
    others = how.negatives or (0 if images is None else images - 1)
    if others < 1:
        return Levels(None, None)
    unrelated = contrast(others + 1, width, how.temperature)
    if not estimates(how):
        return Levels(unrelated, least_contrast(others, -1.0, how.temperature))
    spread = unrelated - math.log(others + 1)
    floor = math.log1p(others * math.exp(spread - 1 / how.temperature))
    floor += others * math.log1p(math.exp(-1 / how.temperature - spread) / others)
    return Levels(unrelated + 1, floor)


def estimates(how: Telling) -> bool:
    """Whether it is noise-contrastive estimation, which has a constant; against all rows it is the softmax itself."""
    return how.form == "nce" and how.negatives > 0


class Bank(nn.Module):
    """`rows`: one for each image, by its id. `constant`: Z of noise-contrastive estimation; 0 before the first step.

    Args:
        rows: at the start.
    """

    rows: Tensor
    constant: Tensor

    def __init__(self, rows: Embedding) -> None:
        super().__init__()
        self.register_buffer("rows", rows)
        self.register_buffer("constant", torch.zeros(()))

    def constant_for(self, u: Embedding, ids: Ids, negatives: Int64[Tensor, "n k"], temperature: float) -> Tensor:
        """Z: the one that is kept, or, in the first step, the mean of exp(score) times the number of images."""
        if bool(self.constant > 0):
            return self.constant.clone()
        with torch.no_grad():
            scores = self._scores(u.dtype, ids, negatives)
            parts = _parts(len(u), self._numbers_a_row(negatives))
            total = torch.stack([(scores(part, u[part]) / temperature).exp().sum() for part in parts]).sum()
            mean = total / (len(ids) * (negatives.shape[1] + 1))
            return mean * len(self.rows)

    def surprise(
        self, u: Embedding, ids: Ids, negatives: Int64[Tensor, "n k"] | None, how: Telling, constant: Tensor | None
    ) -> Float[Tensor, "n"]:
        """What it costs each row that it is not told apart.

        Args:
            u: directions.
            ids: of their images.
            negatives: rows of the bank that each is told apart from; None: all rows but its own.
            how: temperature and form.
            constant: Z, of noise-contrastive estimation; None: cross-entropy.
        """
        scores = self._scores(u.dtype, ids, negatives)

        def of_part(part: slice, x: Embedding) -> Float[Tensor, "m"]:
            scaled = scores(part, x) / how.temperature
            if constant is None:
                return surprisal(scaled[:, 0], scaled[:, 1:].logsumexp(dim=1))
            share = (scaled.shape[1] - 1) / len(self.rows)
            likely = (scaled - constant.to(scaled.dtype).log()).exp()
            right = torch.log1p((share + EPS) / likely[:, 0])
            return right + torch.log1p((likely[:, 1:] + EPS) / share).sum(dim=1)

        found: Float[Tensor, "n"] = _InParts.apply(u, of_part, _parts(len(u), self._numbers_a_row(negatives)))
        return found

    @torch.no_grad()
    def write(self, ids: Ids, u: Embedding, momentum: float) -> None:
        """Moves each image's row once: row ← direction of momentum · row + (1 - momentum) · mean of its embeddings."""
        order = ids.argsort(stable=True)
        listed, sorted_u = ids[order], u[order]
        begins = torch.ones_like(listed)
        begins[1:] = (listed[1:] != listed[:-1]).to(begins.dtype)
        image = begins.cumsum(0) - 1
        # Of index_add_ a GPU leaves the order open, and the last digit with it; of this it does not.
        sums = torch.zeros_like(sorted_u).index_put_((image,), sorted_u, accumulate=True)
        counts = sorted_u.new_zeros(len(ids)).index_put_((image,), sorted_u.new_ones(len(ids)), accumulate=True)
        means = (sums / counts.clamp(min=1)[:, None])[image]
        moved = directions(momentum * self.rows[listed].to(means.dtype) + (1 - momentum) * means)
        self.rows[listed] = moved.to(self.rows.dtype)

    def _all(self, negatives: Int64[Tensor, "n k"] | None) -> bool:
        """Whether scores are taken against all rows at once."""
        return negatives is None or len(self.rows) <= WORTH_ALL * (negatives.shape[1] + 1)

    def _numbers_a_row(self, negatives: Int64[Tensor, "n k"] | None) -> int:
        if negatives is None or self._all(negatives):
            return len(self.rows)
        return (negatives.shape[1] + 1) * self.rows.shape[1]

    def _scores(
        self, dtype: torch.dtype, ids: Ids, negatives: Int64[Tensor, "n k"] | None
    ) -> Callable[[slice, Embedding], Scores]:
        """Scores of some rows of the batch, given with their place in it."""
        every = self.rows.to(dtype) if self._all(negatives) else self.rows

        def scores(part: slice, x: Embedding) -> Scores:
            own = ids[part, None]
            if negatives is None:
                of_all = x @ every.T
                # The right one comes first. In its place stands what no sum of exponentials sees.
                return torch.cat([of_all.gather(1, own), of_all.scatter(1, own, -torch.inf)], dim=1)
            candidates = torch.cat([own, negatives[part]], dim=1)
            if self._all(negatives):
                return (x @ every.T).gather(1, candidates)
            return torch.einsum("nd,nkd->nk", x, every[candidates].to(dtype))

        return scores


class TellingApart(nn.Module):
    """What the modules of NPID, PIRL and CMC have in common: from which seed and step negatives are drawn.

    Args:
        how: the section.
        seed: of the run. It is kept among the state, so that a resumed run draws as it would have.
    """

    seed: Tensor
    steps: Tensor

    def __init__(self, how: Telling, seed: int) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("seed", torch.tensor(seed % (1 << 63), dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def negatives(self, ids: Ids, images: int) -> Int64[Tensor, "n k"] | None:
        """The rows that each image is told apart from in this step, its own perhaps among them; None: all others."""
        if not self.how.negatives:
            return None
        return indices(self.seed, self.steps, ids, self.how.negatives, images)

    def constant(self, bank: Bank, u: Embedding, ids: Ids, negatives: Int64[Tensor, "n k"] | None) -> Tensor | None:
        """Z of a bank, if it has a part in the loss; `u` is what it would be taken from in the first step."""
        if negatives is None or not estimates(self.how):
            return None
        return bank.constant_for(u.detach(), ids, negatives, self.how.temperature)

    @torch.no_grad()
    def finish(self, moved: Sequence[tuple[Bank, Embedding, Tensor | None]], ids: Ids) -> None:
        """After the last term: banks take the step's embeddings and keep their constants."""
        for bank, u, constant in moved:
            bank.write(ids, u.detach(), self.how.momentum)
            if constant is not None:
                bank.constant.copy_(constant)
        self.steps.add_(1)


def checked_group(
    groups: list[tuple[Embedding, ...]], banks: Sequence[Bank], ids: Ids, *, name: str, views: int | None, give: str
) -> tuple[Embedding, ...]:
    """The one group of a step.

    Args:
        groups: as the objective was called with.
        banks: that they are told apart by.
        ids: of the images.
        name: of the objective.
        views: how many it takes; None: any number from one on.
        give: what to give in place of anything else.

    Raises:
        ValueError: another number of groups or views, embeddings of another width than the banks have, or ids that are
            not one for each row, each below the number of images.
    """
    found = [len(group) for group in groups]
    if len(groups) != 1 or (views is not None and found[0] > views):
        raise ValueError(f"groups of {found}: {name} takes one group, give {give}")
    group, (images, width) = groups[0], banks[0].rows.shape
    first = group[0] if group else None
    if first is None or first.ndim != 2 or not first.is_floating_point():
        return group  # what is wrong with it is said where all embeddings are checked
    if first.shape[1] not in (0, width):
        raise ValueError(f"embeddings of {first.shape[1]} features, and a bank built for {width}: build it for these")
    if ids.shape != (len(first),) or ids.dtype != torch.int64:
        raise ValueError(
            f"ids is {ids.dtype} of shape {tuple(ids.shape)}: give one int64 for each of the {len(first)} rows"
        )
    # A GPU would have to be waited for; there an id without a row is its own error.
    if ids.device.type == "cpu" and len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < images):
        raise ValueError(
            f"ids from {int(ids.min())} to {int(ids.max())}, and a bank of {images} images: build it for more, or "
            "number them from 0"
        )
    return group


def _parts(rows: int, numbers_a_row: int) -> list[slice]:
    most = max(1, AT_A_TIME // numbers_a_row)
    return [slice(start, min(start + most, rows)) for start in range(0, rows, most)]


class _InParts(torch.autograd.Function):
    """A function that gives a number for each row of its input, and depends on that row alone.

    The gradient is computed at once, as the bank will have changed when it is asked for, and in parts, as the scores of
    a batch against a large bank do not fit into memory.
    """

    @staticmethod
    def forward(ctx: Any, u: Embedding, of_part: Callable[[slice, Tensor], Tensor], parts: list[slice]) -> Tensor:
        values, gradients = [], []
        for part in parts:
            with torch.enable_grad():
                x = u[part].detach().requires_grad_()
                found = of_part(part, x)
                (gradient,) = torch.autograd.grad(found.sum(), x)
            values.append(found.detach())
            gradients.append(gradient)
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[0][:, None] * gradient, None, None
