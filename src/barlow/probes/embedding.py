"""Labelled images through a network: the features that probes read, taken from the run's cache where it has them."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
from torch import nn

from barlow.data.labelled import LabelledSet
from barlow.exits import UnusableData
from barlow.probes.baselines import Compared, RawPixels
from barlow.probes.features import EpochFeatures, FeatureSet, embed, load_features, save_features
from barlow.types import Images

SECONDS_BETWEEN_LINES = 30.0
"""How often a long embedding says how far it is."""


@dataclass(frozen=True)
class CachedFeatures:
    """Embeds labelled images, whatever the network, in one and the same way.

    Args:
        cache: the folder where features are kept.
        batch_size: images per forward pass.
        device: where to compute.
        say: receives one line now and then.
    """

    cache: Path
    batch_size: int
    device: torch.device
    say: Callable[[str], None]

    def centre_views(self, of: Compared, images: LabelledSet) -> FeatureSet:
        """The features of one centre view of each image: from the cache, or computed and put there."""
        images = of.views_of(images)
        key = of.key(images)
        try:
            cached = load_features(self.cache, key, len(images))
        except UnusableData as damage:
            self.say(f"{damage}: these features are computed again")
            cached = None
        if cached is not None and len(cached) == len(images):
            return FeatureSet(cached.features, images.labels, images.ids)
        progress = _Progress(self.say, f"embedding {images.source.name}", len(images))
        views = progress.over(images.views(self.batch_size))
        features = FeatureSet(embed(of.network, views, self.device), images.labels, images.ids)
        if not isinstance(of.network, RawPixels):  # pixels are cheaper to read again than to store
            save_features(self.cache, key, features)
        return features

    def augmented_views(self, network: nn.Module, images: LabelledSet, *, epochs: int, seed: int) -> EpochFeatures:
        """The features of other views in each epoch, drawn and embedded when the epoch is asked for."""
        progress = _Progress(self.say, "linear_sgd on augmented views", epochs * len(images))

        def features(epoch: int) -> FeatureSet:
            views = images.augmented_views(self.batch_size, seed, epoch, self.device)
            counted = progress.over(views, f", epoch {epoch + 1} of {epochs}")
            return FeatureSet(embed(network, counted, self.device), images.labels, images.ids)

        return features


@dataclass
class _Progress:
    """Counts images, and says now and then how many of them are done."""

    say: Callable[[str], None]
    what: str
    total: int
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def over(self, batches: Iterable[Images], where: str = "") -> Iterator[Images]:
        """Passes the batches on. A batch counts as done when the next one is asked for."""
        for batch in batches:
            yield batch
            self.done += len(batch)
            now = time.monotonic()
            if now - self.said < SECONDS_BETWEEN_LINES:
                continue
            self.said = now
            rate = self.done / max(now - self.started, 1e-9)
            left = timedelta(seconds=round((self.total - self.done) / rate))
            self.say(f"{self.what}{where}: {self.done} of {self.total} images, {rate:.0f} images/s, eta {left}")
