"""InfoMin: MoCo's loss for an image and for its shuffled tiles, both with the key of another view."""

from dataclasses import dataclass
from typing import ClassVar

from barlow.linalg import Scalar
from barlow.objectives._inputs import check_positive, mean
from barlow.objectives._levels import Levels, contrast, least_contrast
from barlow.objectives.moco import MOST, KeyQueue
from barlow.types import Embedding

__all__ = ["InfoMin"]


@dataclass(frozen=True, kw_only=True)
class InfoMin:
    """Several queries of an image should each find one key, of another view of it, among those of earlier batches.

    A step has groups (q, k), with the same key in each: q is an image's embedding in the first, and that of its
    shuffled tiles in the second. The loss of a group is that of `MoCo`, and the loss is the mean over the groups, ½ of
    each. Then the step's keys come into the queue, once.

    Terms: ``contrast``.

    Source: Tian et al., What Makes for Good Views for Contrastive Learning (arXiv 2005.10243), section 5 and appendix;
        HobbitLong/PyContrast at 84f94ea, preset InfoMin: both queries against the key of the plain second view.
    Convention: a mean over rows and groups; otherwise as `MoCo`.
    Deviation: a row up to 1e-12 long has no direction; its similarities are 0 and it gets no gradient.

    Args:
        queue: keys that it holds, a multiple of the rows of a batch: 65,536 for ImageNet.
        temperature: (τ) above 0.

    Raises:
        ValueError: hyper-parameters out of range; groups that are not a query and its key, aligned float matrices of
            the width that the queue was built for; a queue that is not a multiple of the batch.

    Example:
        >>> import torch
        >>> objective = InfoMin(queue=8).build(width=2, seed=0)
        >>> q = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> terms = objective([(q, 3 * q), (2 * q, 3 * q)])
        >>> int(objective.oldest)  # two keys came in
        2
    """

    moving_target: ClassVar[bool] = True

    queue: int = 65536
    temperature: float = 0.15

    def __post_init__(self) -> None:
        if not 1 <= self.queue <= MOST:
            raise ValueError(
                f"queue is {self.queue}: give the number of keys that it holds, such as 4096, at most {MOST:,}"
            )
        check_positive(temperature=self.temperature)

    def levels(self, rows: int, width: int) -> Levels:
        """Those of MoCo's one direction."""
        unrelated = contrast(self.queue + 1, width, self.temperature)
        return Levels(unrelated, least_contrast(self.queue, -1.0, self.temperature))

    def build(self, *, width: int, seed: int) -> "SharedKeys":
        """The queue, for embeddings of `width` features."""
        return SharedKeys(self.queue, self.temperature, width, seed)


class SharedKeys(KeyQueue):
    """MoCo's queue for groups that have the same keys: their losses are averaged, and the keys come in once."""

    name = "InfoMin"

    def together(self, losses: list[Scalar]) -> Scalar:
        return mean(losses)

    def new_keys(self, keys: list[Embedding]) -> Embedding:
        return keys[0]
