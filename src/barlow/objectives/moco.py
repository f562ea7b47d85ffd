"""MoCo: a query should find the key of the other view of its image among the keys of earlier batches."""

from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import nn

from barlow.linalg import Scalar
from barlow.objectives._classification import surprisal
from barlow.objectives._directions import directions
from barlow.objectives._inputs import check_positive, full_precision, in_float64
from barlow.objectives._levels import Levels, contrast, least_contrast
from barlow.types import Embedding, Terms

__all__ = ["MoCo"]

MOST = 2**22
"""Keys in a queue: three times as many as ImageNet has images."""


@dataclass(frozen=True, kw_only=True)
class MoCo:
    """A query should be more like its key than like any key in a queue, which earlier batches have left there.

    sᵢ = cos(qᵢ, kᵢ) / temperature, rᵢⱼ = qᵢ · queueⱼ / (‖qᵢ‖ temperature),
    loss of a group = mean over rows of -log (exp sᵢ / (exp sᵢ + Σⱼ exp rᵢⱼ)), keys and queue taken for constants;
    then the step's keys, scaled to length 1, take the places of the oldest in the queue.

    A step has one group, (queries of view 1, keys of view 2), or two, the other way round as well: the symmetric form,
    whose loss is the sum of both.

    Terms: ``contrast``.

    Source: He et al., Momentum Contrast (arXiv 1911.05722), equation 1 and algorithm 1; facebookresearch/moco at
        87e36d3, moco/builder.py; for the symmetric form its CIFAR-10 notebook at f736491.
    Convention: a mean over rows, a sum over the groups. All groups are scored against the queue as the last step left
        it, before any of this step's keys come in. At the start the queue holds random directions, drawn from ``seed``.
        Only the queries get a gradient. Unchanged by a positive scale of any row. Computed in float64 (float32 on
        devices without it): the gradient is a difference of directions, which may be nearly equal. The queue itself is
        kept in float32.
    Deviation: a row up to 1e-12 long has no direction; its similarities are 0 and it gets no gradient.

    Args:
        queue: keys that it holds, a multiple of the keys of a step (n, or 2n where a step has two groups). 65,536 for
            ImageNet; 4,096 are enough for CIFAR-10.
        temperature: (τ) above 0: 0.07 in MoCo's paper, 0.2 in that of version 2 (arXiv 2003.04297).

    Raises:
        ValueError: hyper-parameters out of range; groups that are not a query and its key, aligned float matrices of
            the width that the queue was built for; a queue that is not a multiple of the keys of a step.

    Example:
        >>> objective = MoCo(queue=8).build(width=2, seed=0)
        >>> q = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> terms = objective([(q, 3 * q)])
        >>> objective.queue[:2]  # the keys of this step, for the next
        tensor([[1., 0.],
                [0., 1.]])
    """

    moving_target: ClassVar[bool] = True

    queue: int = 65536
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if not 1 <= self.queue <= MOST:
            raise ValueError(
                f"queue is {self.queue}: give the number of keys that it holds, such as 4096, at most {MOST:,}"
            )
        check_positive(temperature=self.temperature)

    def levels(self, rows: int, width: int, *, groups: int = 1) -> Levels:
        """Unrelated: the right key is one of the queue's and one more. Floor: all keys of the queue lie opposite."""
        unrelated = contrast(self.queue + 1, width, self.temperature)
        return Levels(groups * unrelated, groups * least_contrast(self.queue, -1.0, self.temperature))

    def build(self, *, width: int, seed: int) -> "KeyQueue":
        """The queue, for embeddings of `width` features."""
        return KeyQueue(self.queue, self.temperature, width, seed)


class KeyQueue(nn.Module):
    """MoCo's loss with its queue: `queue` holds a key a row, `oldest` is the row that the next key replaces."""

    name = "MoCo"

    def __init__(self, length: int, temperature: float, width: int, seed: int) -> None:
        super().__init__()
        self.temperature = temperature
        random = torch.randn(length, width, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("queue", directions(random))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))

    def forward(self, groups: list[tuple[Embedding, Embedding]]) -> Terms:
        if not groups or any(len(group) != 2 for group in groups):
            sizes = [len(group) for group in groups]
            raise ValueError(
                f"groups of {sizes}: {self.name} compares queries with their keys, give [(q, k)] or "
                "[(q1, k2), (q2, k1)]"
            )
        with full_precision([z for group in groups for z in group], fewest=1) as flat:
            queries = [directions(in_float64(q)) for q in flat[::2]]
            keys = [directions(in_float64(k.detach())) for k in flat[1::2]]
            entering = self.new_keys(keys)
            self._check(len(entering), flat[0].shape[1])
            # A copy, because the gradient is computed after the step's keys have come in.
            earlier = in_float64(self.get_buffer("queue").clone())
            losses = [self._contrast(q, k, earlier) for q, k in zip(queries, keys, strict=True)]
            terms = {"contrast": self.together(losses).to(flat[0].dtype)}
            self._enqueue(entering)
            return terms

    def together(self, losses: list[Scalar]) -> Scalar:
        """The loss of all groups."""
        return reduce(torch.add, losses)

    def new_keys(self, keys: list[Embedding]) -> Embedding:
        """Of the keys of each group, those that come into the queue."""
        return torch.cat(keys)

    def _contrast(self, q: Embedding, k: Embedding, earlier: Embedding) -> Scalar:
        scaled = q / self.temperature
        return surprisal((scaled * k).sum(dim=1), (scaled @ earlier.T).logsumexp(dim=1)).mean()

    @torch.no_grad()
    def _enqueue(self, keys: Embedding) -> None:
        queue, oldest = self.get_buffer("queue"), self.get_buffer("oldest")
        places = (oldest + torch.arange(len(keys), device=queue.device)) % len(queue)
        queue.index_copy_(0, places, keys.to(queue.dtype))
        oldest.add_(len(keys)).remainder_(len(queue))

    def _check(self, keys: int, width: int) -> None:
        length, built_for = self.get_buffer("queue").shape
        if width != built_for:
            raise ValueError(f"embeddings of {width} features, and a queue built for {built_for}: build it for {width}")
        if length % keys:
            near = max(round(length / keys), 1) * keys
            raise ValueError(
                f"a step of {keys} keys does not divide a queue of {length}: use another batch size, or a queue of "
                f"{near}, a multiple of {keys}"
            )
