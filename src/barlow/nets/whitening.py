"""Whitened features: a last linear layer of the encoder, after which all directions of its features vary alike.

Features of networks that were trained for minutes, not days, vary much in a few directions that all images share (how
bright, how busy) and little in those that tell kinds of images apart. Neighbours by cosine then are found by the few.
Whitening undoes that. On 96-pixel aerial images, after three minutes of training, it is worth four points of kNN to
every objective that was tried (docs/choosing.md). Logistic regression standardises features by itself and gains little.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from barlow.distributed import World
from barlow.nets.seeding import seeded
from barlow.types import Features, Images

IMAGES = 10_000
"""Statistics are taken over this many images, if there are so many: twenty for each of 512 features."""


def with_last_layer(encoder: nn.Module, width: int) -> nn.Linear:
    """Gives a timm network a last linear layer, as wide as its features, where its classifier would be.

    So the whitened encoder is a timm network like any other: `timm.create_model(name, num_classes=width)` takes its
    weights.

    Args:
        encoder: without a classifier; changed in place.
        width: number of its features.
    """
    timms: Any = encoder
    with seeded(0, "whitening"):  # timm draws first weights, which are replaced
        timms.reset_classifier(width)
    layer = timms.get_classifier()
    assert isinstance(layer, nn.Linear), f"timm's classifier of {type(encoder).__name__} is no linear layer"
    return layer


def whitening(mean: Tensor, covariance: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """The map f → W f + b, after which features of this mean and covariance are centred and vary alike.

    W = ((1 - s) Σ + s tr(Σ)/d I)^(-1/2), b = -W mean.

    Convention: the symmetric root (ZCA), with which the features stay as near to what they were as can be. Shrinkage is
    relative to the mean variance, so the features' scale does not matter. A direction without variance has no root
    where s is 0; it is left out (its weight is 0).

    Args:
        mean: (d,) float64.
        covariance: (d, d) float64, Σ.
        shrinkage: s, from 0 to 1. It keeps directions of hardly any variance from becoming noise of full size.
    """
    values, vectors = torch.linalg.eigh(covariance)
    values = (1 - shrinkage) * values.clamp(min=0) + shrinkage * values.mean()
    kept = values > values.max() * len(values) * torch.finfo(values.dtype).eps
    roots = torch.where(kept, values.clamp(min=torch.finfo(values.dtype).tiny).rsqrt(), 0.0)
    weight = (vectors * roots) @ vectors.T
    return weight, -weight @ mean


def whiten_features(reference: Features, shrinkage: float, *others: Features) -> list[Features]:
    """Features whitened by the statistics of some of them: `reference` and each of the others."""
    exact = reference.double()
    mean = exact.mean(0)
    weight, bias = whitening(mean, (exact - mean).T @ (exact - mean) / len(exact), shrinkage)
    return [(each.double() @ weight.T + bias).to(each.dtype) for each in (reference, *others)]


def whiten_encoder(encoder: nn.Module, views: Iterable[Images], shrinkage: float, world: World) -> None:
    """Adds a last layer that whitens the encoder's features, by their statistics over some images.

    Args:
        encoder: a timm network in eval mode, on the world's device; changed in place.
        views: normalised batches; of several processes each has its own.
        shrinkage: as in `whitening`.
        world: the processes whose images count together.
    """
    count, total, products = 0, torch.zeros(()), torch.zeros(())  # which broadcast
    with torch.no_grad():
        for view in views:
            features = encoder(view).cpu().double()
            count += len(features)
            total, products = total + features.sum(0), products + features.T @ features
    own = torch.cat([products, total[None]])
    sums = world.collect(own.to(world.device)).sum(0).cpu() if world.size > 1 else own
    mean = sums[-1] / (count * world.size)
    covariance = sums[:-1] / (count * world.size) - torch.outer(mean, mean)
    weight, bias = whitening(mean, covariance, shrinkage)
    like = next(encoder.parameters())
    layer = with_last_layer(encoder, len(mean)).to(like.device)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
