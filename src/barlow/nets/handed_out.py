"""What a run hands out: its network, with the features of all stages side by side, and whitened.

A network that was trained for minutes, not days, has not carried all it knows to its last stage. What its earlier
stages see, averaged over space, tells kinds of images apart as well. And its features vary much in a few directions
that all images share (how bright, how busy), and little in those that matter; neighbours by cosine are then found by
the few. Pooling all stages and whitening undoes both. After three minutes on 96-pixel aerial images they turned 48 %
kNN into 61 %, and 55 % of logistic regression into 62 % (docs/choosing.md). Baselines are treated in the same way.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from barlow.distributed import World
from barlow.nets.seeding import seeded
from barlow.size import height_width
from barlow.types import Features, Images

Stages = Literal["last", "all"]

IMAGES = 5_000
"""Statistics are taken over this many images, if there are so many: ten for each of 500 features."""


class HandedOut(nn.Module):
    """A timm network, its stages pooled, and a last linear layer.

    Args:
        network: without a classifier.
        stages: `all` puts the spatial means of the earlier stages' maps before the network's own features.
        whitened: whether a linear layer follows, as wide as the features. `fit` sets its weights.

    Attributes:
        network: as given. It alone is a plain timm network.
        whiten: the layer, or an identity.
        widths: how many features each stage has; the last number is the network's own.
    """

    def __init__(self, network: nn.Module, stages: Stages, whitened: bool) -> None:
        super().__init__()
        self.network = network
        self.indices = earlier_stages(network) if stages == "all" else []
        self.widths = _widths(self)
        width = sum(self.widths)
        self.whiten: nn.Module = nn.Identity()
        if whitened:
            with seeded(0, "whitening"):  # the first weights are replaced, and are no draw of the run
                self.whiten = nn.Linear(width, width)
        self.num_features = width

    def forward(self, x: Images) -> Features:
        made: Features = self.whiten(torch.cat(self.parts(x), 1))
        return made

    def parts(self, x: Images) -> list[Features]:
        """The features of each stage, before they are whitened."""
        if not self.indices:
            return [self.network(x)]
        timms: Any = self.network
        final, maps = timms.forward_intermediates(x, indices=self.indices)
        return [*(each.mean((2, 3)) for each in maps), timms.forward_head(final)]

    def fit(self, views: Iterable[Images], shrinkage: float, world: World) -> None:
        """Sets the last layer by the statistics of the features over some images.

        Args:
            views: normalised batches, on the network's device; of several processes each has its own.
            shrinkage: as in `whitening`; more of it where images are few (`enough_shrinkage`).
            world: the processes whose images count together.
        """
        assert isinstance(self.whiten, nn.Linear)
        width = sum(self.widths)
        # A row for each feature's products with the others, one for the sums, and one for the number of images.
        sums = torch.zeros(width + 2, width, dtype=torch.float64)
        with torch.no_grad():
            for view in views:
                features = torch.cat(self.parts(view), 1).cpu().double()
                sums[:width] += features.T @ features
                sums[width] += features.sum(0)
                sums[width + 1] += len(features)
        if world.size > 1:
            sums = world.collect(sums.to(world.device)).sum(0).cpu()
        mean = sums[width] / sums[width + 1]
        covariance = sums[:width] / sums[width + 1] - torch.outer(mean, mean)
        shrunk = enough_shrinkage(shrinkage, width, int(sums[width + 1, 0]))
        weight, bias = whitening(mean, covariance, shrunk, self.widths)
        with torch.no_grad():
            self.whiten.weight.copy_(weight)
            self.whiten.bias.copy_(bias)


def handed_out(network: nn.Module, stages: Stages, whiten: float | None) -> nn.Module:
    """A network as a recipe's `encoder.stages` and `encoder.whiten` hand it out; itself where they ask for nothing."""
    return network if stages == "last" and whiten is None else HandedOut(network, stages, whiten is not None)


def earlier_stages(network: nn.Module) -> list[int]:
    """Which of timm's feature maps are those of a network's earlier stages: the last map of each resolution.

    Networks that keep one resolution throughout, such as ViTs, have their blocks at one, two and three quarters of the
    depth instead. The last stage is not among them, as the network's own features come from it.
    """
    info = list(network.feature_info)  # type: ignore[arg-type]
    described: list[Any] = [entry if isinstance(entry, dict) else vars(entry) for entry in info]
    reductions = [entry["reduction"] for entry in described]
    last = [i for i, reduction in enumerate(reductions) if reduction not in reductions[i + 1 :]]
    if len(last) > 1:
        return last[:-1]
    depth = len(reductions)
    return sorted({depth * quarter // 4 - 1 for quarter in (1, 2, 3)} - {-1, depth - 1})


def freeze_stages(network: nn.Module, count: int) -> int:
    """Freezes a timm network's first stages, so that they are not trained, and a step does not go back through them.

    Args:
        network: changed in place.
        count: of the maps in timm's `feature_info`. For a ResNet 1 is the stem, and 2 the stem and its first stage.

    Returns:
        The number of parameters (tensors) that are frozen.

    Raises:
        ValueError: the network has no stages, or not so many.
    """
    if count == 0:
        return 0
    info: Any = getattr(network, "feature_info", None)
    names = [entry["module"] for entry in info] if info else []
    if count >= len(names):
        known = f"has {len(names)}, of which one has to be trained" if names else "does not say what its stages are"
        raise ValueError(f"encoder.frozen_stages is {count}: {type(network).__name__} {known}")
    ordered = list(network.named_parameters())
    inside = [i for i, (name, _) in enumerate(ordered) if name.startswith(f"{names[count - 1]}.")]
    # A stage may be named by an activation, which has no parameters. All that comes before the next stage is its own.
    following = [i for i, (name, _) in enumerate(ordered) if name.startswith(f"{names[count]}.")]
    end = inside[-1] + 1 if inside else following[0]
    for _, parameter in ordered[:end]:
        parameter.requires_grad_(False)
    return end


def _widths(handed_out: HandedOut) -> list[int]:
    """How many features each stage has, measured on one blank image."""
    network: Any = handed_out.network
    built_as = network.built_as
    modes = [(module, module.training) for module in network.modules()]
    like = next(network.parameters())
    network.eval()
    blank = torch.zeros(1, built_as.in_channels, *height_width(built_as.image_size), device=like.device)
    try:
        with torch.no_grad():
            return [part.shape[1] for part in handed_out.parts(blank)]
    finally:
        for module, training in modes:
            module.training = training


def enough_shrinkage(shrinkage: float, features: int, images: int) -> float:
    """How much a covariance is shrunk before features are whitened by it: what was asked for, or d / (d + n) if more.

    Of n images there are n - 1 directions in which features vary at all, and most of d directions are known badly where
    n is near d or below. Whitening blows these up to the size of the others. 600 photographs have 1,472 features of an
    EfficientNet: whitened with a shrinkage of 0.1 their neighbours were worse than those of the last stage as it is.

    Source: the order of the shrinkage that is best for a covariance of n rows is d / n (Ledoit and Wolf, A
    well-conditioned estimator for large-dimensional covariance matrices, 2004). docs/choosing.md has what it gives.

    Args:
        shrinkage: what was asked for.
        features: d.
        images: n, by which the covariance is known.
    """
    return max(shrinkage, features / (features + images))


def whitening(mean: Tensor, covariance: Tensor, shrinkage: float, widths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The map f → W f + b, after which features of this mean and covariance are centred and vary alike.

    With x = D⁻¹ (f - mean), where D makes every feature vary alike and every stage as much as any other:
    W f + b = ((1 - s) Σₓ + s tr(Σₓ)/d I)^(-1/2) x.

    Convention: the symmetric root (ZCA), with which the features stay as near to what they were as can be. Shrinkage is
    relative to the mean variance. A feature that never varies is left out: its column of W is 0.

    Args:
        mean: (d,) float64.
        covariance: (d, d) float64, with the divisor n.
        shrinkage: s, from 0 to 1. It keeps directions of hardly any variance from becoming noise of full size.
        widths: of the stages; they add up to d.
    """
    variances = covariance.diagonal()
    stage = torch.cat([torch.full((width,), float(width), dtype=mean.dtype) for width in widths])
    # Rounding leaves a constant feature with a variance of about 1e-16 of its square.
    varies = variances > 1e-12 * (variances + mean.square())
    scale = torch.where(varies, (variances.clamp(min=1e-300) * stage).rsqrt(), 0.0)
    values, vectors = torch.linalg.eigh(covariance * torch.outer(scale, scale))
    values = (1 - shrinkage) * values.clamp(min=0) + shrinkage * values.mean()
    kept = values > values.max() * len(values) * torch.finfo(values.dtype).eps
    roots = torch.where(kept, values.clamp(min=1e-300).rsqrt(), 0.0)
    weight = (vectors * roots) @ vectors.T * scale
    return weight, -weight @ mean


def whiten_features(reference: Features, shrinkage: float, *others: Features) -> list[Features]:
    """Features of one stage, whitened by the statistics of some of them: `reference` and each of the others."""
    exact = reference.double()
    mean = exact.mean(0)
    covariance = (exact - mean).T @ (exact - mean) / len(exact)
    weight, bias = whitening(mean, covariance, enough_shrinkage(shrinkage, len(mean), len(exact)), [len(mean)])
    return [(each.double() @ weight.T + bias).to(each.dtype) for each in (reference, *others)]
