"""Labelled images through a network: the features that probes read, taken from the run's cache where it has them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from barlow.data.labelled import LabelledSet
from barlow.exits import UnusableData
from barlow.probes.baselines import Compared, RawPixels
from barlow.probes.features import EpochFeatures, FeatureSet, embed, forget_features, load_features, save_features
from barlow.probes.progress import Progress
from barlow.types import Features

PART = 8192
"""After so many images their features are kept, so that an embedding that was stopped goes on from there."""


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
        if (kept := self._kept(key, len(images))) is not None:
            return FeatureSet(kept.features, images.labels, images.ids)
        if isinstance(of.network, RawPixels):  # pixels are cheaper to read again than to store
            views = self._progress(images).over(images.views(self.batch_size))
            return FeatureSet(embed(of.network, views, self.device), images.labels, images.ids)
        return self._in_parts(of.network, images, key)

    def _kept(self, key: str, rows: int) -> FeatureSet | None:
        """What is in the cache; None if nothing is, or what is there is damaged."""
        try:
            kept = load_features(self.cache, key, rows)
        except UnusableData as damage:
            self.say(f"{damage}: these features are computed again")
            return None
        return kept if kept is not None and len(kept) == rows else None

    def _in_parts(self, network: nn.Module, images: LabelledSet, key: str) -> FeatureSet:
        """Computes features part by part, and keeps each; when all are there, they are kept as one.

        A part is of whole batches, so the features are those of one pass, to the bit.
        """
        progress = self._progress(images)
        step = max(1, PART // self.batch_size) * self.batch_size
        parts: list[Features] = []
        keys: list[str] = []
        for start in range(0, len(images), step):
            rows = np.arange(start, min(start + step, len(images)))
            keys.append(hashlib.sha256(f"{key} {start} {len(rows)}".encode()).hexdigest())
            kept = self._kept(keys[-1], len(rows))
            if kept is not None:
                progress.begin_at(start + len(rows))
                parts.append(kept.features)
                continue
            parts.append(embed(network, progress.over(images.views(self.batch_size, rows)), self.device))
            if len(rows) < len(images):
                save_features(self.cache, keys[-1], FeatureSet(parts[-1], images.labels[rows], images.ids[rows]))
        features = FeatureSet(torch.cat(parts), images.labels, images.ids)
        save_features(self.cache, key, features)
        for each in keys:
            forget_features(self.cache, each)
        return features

    def _progress(self, images: LabelledSet) -> Progress:
        return Progress(self.say, f"embedding {images.source.name}", len(images))

    def augmented_views(self, network: nn.Module, images: LabelledSet, *, epochs: int, seed: int) -> EpochFeatures:
        """The features of other views in each epoch, drawn and embedded when the epoch is asked for."""
        progress = Progress(self.say, "linear_sgd on augmented views", epochs * len(images))

        def features(epoch: int) -> FeatureSet:
            views = images.augmented_views(self.batch_size, seed, epoch, self.device)
            counted = progress.over(views, f", epoch {epoch + 1} of {epochs}")
            return FeatureSet(embed(network, counted, self.device), images.labels, images.ids)

        return features
