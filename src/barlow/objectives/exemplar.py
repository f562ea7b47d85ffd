"""Exemplar: every image is a class of its own, and a classifier should tell whose copy a view is."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from barlow.objectives._classification import Classes, cross_entropy
from barlow.objectives._inputs import full_precision, in_float64, mean
from barlow.objectives._levels import Levels
from barlow.types import Embedding, Terms

__all__ = ["Exemplar"]

MOST_IMAGES = 2_000_000
"""Classes that the classifier may have. From 100,000 on, a memory bank (`npid`) costs less."""


@dataclass(frozen=True, kw_only=True)
class Exemplar:
    """A linear classifier, which is a part of the objective, should give every view the class of its image.

    loss = mean over views and rows of -log softmax(W z + b)_id.

    The classes are the images' ids, so the classifier grows with the images: it is built for as many as there are.

    Terms: ``cross_entropy``, log of the number of images where all are equally likely.

    Source: Dosovitskiy et al., Discriminative Unsupervised Feature Learning with Exemplar Convolutional Neural Networks
        (arXiv 1406.6909), equations 1 and 5; the authors' toolbox at ethanhe42/Exemplar-CNN@4c99692.
    Convention: a mean over rows and over views. Computed in float64 (float32 on devices without it).
    Deviation: none in the formula. The authors choose 16,000 patches rich in gradients once, and make 150 copies of
        each; here every image is a class, and its copies are the views of a step.

    Raises:
        ValueError: more than 2,000,000 images; embeddings that are not aligned float matrices; ids that are not n
            integers below the number of images.

    Example:
        >>> import torch
        >>> module = Exemplar().build(width=3, images=5, seed=0)
        >>> z = torch.zeros(2, 3)  # says nothing: all five images are about as likely
        >>> 1.3 < module([(z, z)], ids=torch.tensor([0, 4]))["cross_entropy"].item() < 2.0
        True
    """

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: log of the number of images, which the batch does not say."""
        return Levels(None, 0.0)

    def build(self, *, width: int, images: int, seed: int) -> nn.Module:
        if images > MOST_IMAGES:
            raise ValueError(
                f"{images:,} images, and exemplar has a class for each of at most {MOST_IMAGES:,}: give fewer, or take "
                "--objective exemplar_triplets, which has no classifier"
            )
        return _Exemplar(width, images, seed)


class _Exemplar(nn.Module):
    """The classifier: a row of `weight` for each image. It starts as torch starts a Linear layer."""

    def __init__(self, width: int, images: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(images, width + 1, generator=generator).mul_(2).sub_(1) / math.sqrt(width)
        self.weight, self.bias = nn.Parameter(uniform[:, :-1].clone()), nn.Parameter(uniform[:, -1].clone())

    def forward(self, groups: list[tuple[Embedding, ...]], *, ids: Classes) -> Terms:
        losses = []
        for group in groups:
            with full_precision(group) as views:
                weight, bias = in_float64(self.weight), in_float64(self.bias)
                for z in views:
                    logits = (in_float64(z) @ weight.T + bias).to(z.dtype)
                    losses.append(cross_entropy(logits, ids, name="ids"))
        return {"cross_entropy": mean(losses)}
