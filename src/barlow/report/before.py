"""The network before it was trained, made into an encoder as the trained one was: or else the two do not compare."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from barlow.data.centre import centre_views
from barlow.distributed import World
from barlow.machine import available_cores
from barlow.nets.norms import recalibrated
from barlow.nets.weights import description_of, read_encoder
from barlow.probes.baselines import as_built, untrained_identity
from barlow.probes.features import network_identity
from barlow.record import Record
from barlow.runs.finishing import Finishing
from barlow.types import Images
from barlow.views.keys import permutation

BATCHES, BATCH = 4, 256
"""Of the run's images, on which the batch norm of the untrained network is measured where no evaluation did it."""


@dataclass(frozen=True)
class Before:
    """The network before training."""

    network: nn.Module
    config: Mapping[str, Any]
    """The description of the encoder that it is compared with."""
    drawn: bool
    """Whether its weights are drawn at random; otherwise it is what the run started from, finished as the run's own
    encoder by the run itself."""

    def identity(self, learned_from: str) -> str:
        """What an evaluation knows its features by.

        Args:
            learned_from: the fingerprint of the images that the evaluation's protocols learned from.
        """
        if not self.drawn:
            return network_identity(self.network)
        return untrained_identity(self.network, self.config, learned_from)

    def finished(self, own: Finishing) -> nn.Module:
        """The encoder that the run would have handed out before its first step, by the images of the run."""
        if not self.drawn:
            return self.network
        return own.finished(recalibrated(self.network, _some(own)), World(torch.device("cpu")))

    def words(self, images: str) -> str:
        """What it is, and how it was treated.

        Args:
            images: those that batch norm is measured on, and that features are whitened by.
        """
        if not self.drawn:
            return (
                "Before training is the network with the weights that the run started from, made into an encoder in "
                "the same way as the trained one."
            )
        how = ["the features of all stages side by side"] if self.config.get("stages") == "all" else []
        normed, whitened = _has_batch_norm(self.network), self.config.get("whiten") is not None
        measured = ["batch norm"] * normed + ["whitening"] * whitened
        how += [f"{' and '.join(measured)} by {images}"] if measured else []
        treated = f": {'; '.join(how)}." if how else "."
        return (
            f"Before training is the same network with weights drawn at random, treated as the trained one is{treated}"
        )


def before_training(run: Record, encoder: nn.Module | None) -> Before | None:
    """The network as it was before it was trained.

    A run with `--init` has kept what it started from; any other network is built anew from its seed. One that was given
    in Python can be had in neither way.
    """
    if encoder is None:
        return None
    config = description_of(encoder)
    if config["kind"] == "custom":
        return None
    if (run.path / "start").is_dir():
        return Before(read_encoder(run.path / "start"), config, drawn=False)
    return Before(as_built(config), config, drawn=True)


def _has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def _some(own: Finishing) -> Iterator[Images]:
    """Centre views of some of the run's images: full batches, or all there is."""
    rows = permutation(0, 0, len(own.ids))[: BATCHES * BATCH]
    rows = rows[: len(rows) // BATCH * BATCH or None]
    ids = np.asarray(own.ids)[rows]
    return centre_views(own.source, ids, own.preprocessing, batch_size=BATCH, workers=available_cores())
