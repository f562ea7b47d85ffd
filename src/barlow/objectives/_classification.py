"""Cross-entropy, for classifiers and for objectives that ask which of many embeddings is the right one."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from barlow.linalg import Scalar
from barlow.objectives._inputs import full_precision, in_float64

Logits = Float[Tensor, "n k"]
"""What a classifier says of each row: a score for each class."""

Classes = Int64[Tensor, "n"]
"""The right class of each row, counted from 0."""


def surprisal(right: Float[Tensor, "*n"], others: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """How surprising the right class is: -log of the probability that a softmax gives it.

    -log(exp(right) / (exp(right) + exp(others))), which keeps its digits also where the right class is all but certain.

    Args:
        right: its logit.
        others: log Σ exp over the logits of all other classes.
    """
    return -F.logsigmoid(right - others)


def cross_entropy(logits: Logits, classes: Classes, *, name: str, width: int | None = None) -> Scalar:
    """The mean over the rows of the right class's surprisal, computed in float64 (float32 on devices without it).

    Args:
        logits: what the classifier says.
        classes: what is right.
        name: what the classes are called in messages: "labels", "rotation".
        width: how many classes there are; None: as many as there are logits.

    Raises:
        ValueError: logits that are no (n, k) matrix of floats with k = width ≥ 2; classes that are not n integers from
            0 to k - 1.
    """
    with full_precision((logits,), fewest=1) as (scores,):
        n, k = scores.shape
        if k < 2 or k != (width or k):
            many = width or "2 or more"
            raise ValueError(f"{k} logits a row, where {name} has {many} classes: give the classifier as many outputs")
        if classes.shape != (n,) or classes.dtype != torch.int64:
            raise ValueError(
                f"{name} is {classes.dtype} of shape {tuple(classes.shape)}: give one int64 for each of the {n} rows"
            )
        if not bool(((classes >= 0) & (classes < k)).all()):
            raise ValueError(
                f"{name} has classes from {int(classes.min())} to {int(classes.max())}: count them from 0 to {k - 1}, "
                "or give the classifier more outputs"
            )
        exact, right = in_float64(scores), classes[:, None]
        others = exact.scatter(1, right, -torch.inf).logsumexp(dim=1)
        return surprisal(exact.gather(1, right)[:, 0], others).mean().to(scores.dtype)
