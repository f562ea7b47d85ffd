"""Features: the encoder's output on one centre view of each image, computed once and kept.

The encoder is evaluated, not the projector: the projector is thrown away after pretraining.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from barlow import exits, limits, storage
from barlow.nets.modes import in_eval_mode
from barlow.probes.average_precision import UNJUDGED
from barlow.probes.given_networks import what_it_does
from barlow.seals import Damaged, sealed_tensors
from barlow.types import Features

PRECISIONS = ("float32", "bf16")

SAFE_EXPONENT = 40
"""Features below 2 to this power, and with a largest one above its inverse, are taken as they are."""


class NotFinite(ValueError):
    """Features that are not numbers: the encoder has diverged."""

    exit_code = exits.DIVERGED


@dataclass(frozen=True)
class FeatureSet:
    """Features of labelled images: all that a probe sees.

    Args:
        features: (N, f) finite float32, on the CPU or a device.
        labels: (N,) class numbers from 0, or (N, k) zeros and ones for several labels an image. In these, `UNJUDGED`
            stands where nobody says whether the image has the label.
        ids: (N,) which images of the source these are.
    """

    features: Features
    labels: np.ndarray
    ids: np.ndarray

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or not self.features.is_floating_point():
            raise ValueError(
                f"features have shape {tuple(self.features.shape)} and type {self.features.dtype}; give one row of "
                "floats per image"
            )
        n = len(self.features)
        if n == 0:
            raise ValueError("no features: the set is empty; give at least one labelled image")
        if len(self.labels) != n or len(self.ids) != n or self.labels.ndim not in (1, 2):
            raise ValueError(
                f"{n} rows of features, labels of shape {self.labels.shape} and {len(self.ids)} ids; "
                "give one label (or one row of labels) and one id per row"
            )
        lowest, highest = self.labels.min(initial=0), self.labels.max(initial=0)
        if self.labels.dtype.kind not in "iub" or lowest < (UNJUDGED if self.labels.ndim == 2 else 0):
            raise ValueError(
                f"labels of type {self.labels.dtype} with minimum {lowest}; they are class numbers "
                "from 0, or zeros and ones: leave unlabelled images out"
            )
        if self.labels.ndim == 2 and highest > 1:
            raise ValueError(f"labels of shape {self.labels.shape} must be zeros and ones, not {highest}")
        if not bool(torch.isfinite(self.features).all()):
            bad = int((~torch.isfinite(self.features).all(dim=1)).sum())
            raise NotFinite(
                f"the features of {bad} of {n} images are not finite; the encoder has diverged: choose an earlier "
                "checkpoint or train with a lower rate"
            )

    def __len__(self) -> int:
        return len(self.features)

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several labels."""
        return self.labels.ndim == 2


def share_alike(train: Features, test: Features) -> float:
    """The share of all images whose features are the same but for rounding, if it is the larger part of them.

    It looks at a few rows and counts those that are like one of them, so a small share may be missed.
    """
    n, found = len(train), 0.0
    for position in {0, n // 3, n // 2, n - 1}:
        row = train[position]
        near = 1e-6 * row.abs().max()
        like = [int(((part - row.to(part)).abs().amax(dim=1) <= near).sum()) for part in (train, test) if len(part)]
        found = max(found, sum(like) / (n + len(test)))
    return found


def squarable(*sets: Features) -> float:
    """A factor by which features have squares, and sums of them, that float32 can hold: 1 but for very large or very
    small ones. It is a power of two, which changes no digit, and it is the same for all sets."""
    largest = max(float(each.abs().max()) for each in sets if each.numel())
    exponent = math.frexp(largest)[1]
    return 1.0 if largest == 0 or abs(exponent) <= SAFE_EXPONENT else 2.0**-exponent


EpochFeatures = Callable[[int], FeatureSet]
"""Gives the features that an epoch (counted from 0) trains on, for example those of augmented views, embedded anew."""


def embed(
    encoder: nn.Module, images: Iterable[Tensor], device: torch.device | str = "cpu", precision: str = "float32"
) -> Features:
    """Passes batches through an encoder and returns its outputs, float32, on the CPU, in the order given.

    The encoder is in eval mode meanwhile (every part gets its own mode back) and is moved to `device`.

    Args:
        encoder: images to features, (n, c, h, w) to (n, f).
        images: normalised float batches, of any sizes n.
        device: where to compute.
        precision: "float32", or "bf16" for autocast: faster where the hardware has it, but the numbers move by a few
            tenths of a point; published numbers are float32.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; use one of {', '.join(PRECISIONS)}")
    device = torch.device(device)
    encoder.to(device)
    rows = []
    with in_eval_mode(encoder), torch.no_grad(), torch.autocast(device.type, torch.bfloat16, precision == "bf16"):
        for batch in images:
            f = encoder(batch.to(device, memory_format=torch.channels_last))
            if f.ndim != 2:
                raise ValueError(
                    f"the encoder returns shape {tuple(f.shape)} for {len(batch)} images; a probe needs (n, features): "
                    "pool over positions first (timm: num_classes=0)"
                )
            rows.append(f.float().cpu())
    if not rows:
        raise ValueError("no images to embed; give at least one batch")
    return torch.cat(rows)


def weights_hash(encoder: nn.Module) -> str:
    """SHA-256 of an encoder's tensors: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def network_identity(network: nn.Module) -> str:
    """What the features of a network follow from, beside the images: its class, its tensors, and what they do not show.

    Two networks may have the same tensors and be different functions: timm's `efficientnet_lite0` and
    `tf_efficientnet_lite0` pad in different ways. A description tells those apart that barlow builds from it. Of a
    network that was given in Python it is looked what it does (`given_networks.py`).
    """
    described: Any = getattr(network, "description", None) or vars(network).get("built_as")
    if described is not None and not isinstance(described, Mapping):
        described = asdict(described)
    told = {key: described[key] for key in _TOLD if key in described} if described else {}
    identity = f"{type(network).__name__} {json.dumps(told, sort_keys=True)} {weights_hash(network)}"
    return identity if _built_here(network, described) else f"{identity} {what_it_does(network)}"


def _built_here(network: nn.Module, described: Mapping[str, Any] | None) -> bool:
    """Whether a network's description says all that its tensors do not. Networks of barlow's own classes need none."""
    if described is None:
        return type(network).__module__.partition(".")[0] == "barlow"
    return described.get("kind") != "custom"


_TOLD = ("name", "stem", "options", "stages")
"""What is told of a network and not shown by its tensors."""


def content_key(*, encoder: str, source: str, preprocessing: Mapping[str, object]) -> str:
    """Names features by what they were computed from, so that a cache can never answer for something else.

    Args:
        encoder: `network_identity`, or whatever else fixes the function.
        source: the fingerprint of the images (`barlow.data.labelled.fingerprint`).
        preprocessing: everything else: size, crop ratio, mean, std, precision.
    """
    content = json.dumps({"encoder": encoder, "source": source, "preprocessing": dict(preprocessing)}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def save_features(folder: Path, key: str, features: FeatureSet, metadata: Mapping[str, str] | None = None) -> Path:
    """Writes features to FOLDER/KEY.safetensors."""
    path = Path(folder) / f"{key[:32]}.safetensors"
    tensors = {
        "features": features.features,
        "labels": torch.from_numpy(features.labels.astype(np.int64)),
        "ids": torch.from_numpy(features.ids.astype(np.int64)),
    }
    storage.write_tensors(path, sealed_tensors(tensors), {**(metadata or {}), "key": key})
    return path


def forget_features(folder: Path, key: str) -> None:
    """Removes what `save_features` wrote under this key, if it did."""
    storage.remove_own(Path(folder) / f"{key[:32]}.safetensors")


WIDTH = 2**17
"""Numbers that are kept of an image at most. All stages of the widest of timm's networks have some ten thousand."""


def load_features(folder: Path, key: str, rows: int) -> FeatureSet | None:
    """Reads what `save_features` wrote under this key; None if there is nothing.

    Args:
        folder, key: as for `save_features`.
        rows: how many images there are features of.

    Raises:
        Damaged: the file is there, and is not what was written.
    """
    path = Path(folder) / f"{key[:32]}.safetensors"
    if not path.exists():
        return None
    try:
        there = limits.tensors_in(path)  # before a stranger's gigabytes are read
    except ValueError as error:
        raise Damaged(str(error)) from error
    if sum(entry.items for entry in there.values()) > max(rows, 1) * WIDTH:
        raise Damaged(f"{path} is far larger than the features of {rows:,} images")
    tensors = storage.read_sealed_tensors(path)
    if missing := {"features", "labels", "ids"} - tensors.keys():
        raise Damaged(f"{path} lacks {', '.join(sorted(missing))}")
    return FeatureSet(tensors["features"], tensors["labels"].numpy(), tensors["ids"].numpy())


def check(train: FeatureSet, test: Features) -> None:
    """What every probe asks of its training set, before any work is done."""
    if test.ndim != 2 or test.shape[1] != train.features.shape[1]:
        raise ValueError(
            f"training features are {train.features.shape[1]} wide and test features have shape {tuple(test.shape)}; "
            "embed both with the same encoder"
        )
    if train.several_labels:
        return
    classes = np.unique(train.labels)
    if len(classes) < 2:
        raise ValueError(
            f"every one of the {len(train)} training images has the class {classes[0]}; a probe needs at least two "
            "classes: give a folder with one sub-folder per class"
        )
