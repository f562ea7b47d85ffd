"""How good a run's encoder is, measured with labelled images, beside raw pixels and the untrained network."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from barlow import storage
from barlow.data.decoding import UnreadableImage
from barlow.data.inventory import in_threads, without_library_noise
from barlow.data.names import NAMED
from barlow.data.sources import FoldersOrName, ImageSource, open_source
from barlow.distributed import choose_device
from barlow.machine import available_cores, available_memory
from barlow.nets.encoders import build_encoder, load_encoder
from barlow.nets.norms import recalibrated
from barlow.nets.preprocessing import Preprocessing
from barlow.probes import DEFAULT_PROBES, PROBES, FeatureSet, Probe, Score, leaks
from barlow.probes.baselines import RawPixels
from barlow.probes.features import content_key, embed, load_features, save_features, weights_hash
from barlow.probes.linear import EpochFeatures, LinearAdam, LinearSGD
from barlow.probes.report import (
    AUGMENTED,
    ENCODER,
    PIXELS,
    UNTRAINED,
    Results,
    as_json,
    evaluate_features,
    outcome_of,
    render,
)
from barlow.run import Run, load_recipe_text
from barlow.types import Images
from barlow.views.keys import Keys, permutation
from barlow.views.ops import HorizontalFlip, Normalize, RandomResizedCrop, as_images

SHARE_OF_MEMORY = 0.25
"""Centre views that need less than this share of the free memory are held; others are decoded for each network."""

RECALIBRATION_BATCHES, RECALIBRATION_BATCH = 16, 256
"""Batches that the untrained network's batch norm is measured on: 4,096 images at the usual batch."""

SECONDS_BETWEEN_LINES = 30.0
"""How often a long embedding says how far it is."""

PROBE_VIEW = 1 << 32
"""The `view` in the keys of a probe's augmented views: none of pretraining's, or the probe would see the crops again
that the encoder was trained on."""


@dataclass(frozen=True)
class Evaluation:
    """The numbers of one evaluation."""

    results: Results
    """By set of features (encoder, pixels, untrained, untrained_recalibrated), then by probe."""
    report: dict[str, Any]
    """What stands in evaluation/results.json."""
    path: Path

    @property
    def scores(self) -> dict[str, dict[str, Score]]:
        """`scores["encoder"]["knn.top1"].value`."""
        return {
            name: {
                f"{kind}.{metric}": score
                for kind, outcome in outcomes.items()
                for metric, score in outcome.metrics.items()
            }
            for name, outcomes in self.results.items()
        }

    def table(self) -> str:
        """The numbers as text of at most 80 columns."""
        return render(self.results)


def evaluate(
    run: str | os.PathLike[str],
    train: FoldersOrName | None = None,
    test: FoldersOrName | None = None,
    *,
    probes: Sequence[str] | None = None,
    baselines: bool = True,
    batch_size: int = 256,
    device: str = "auto",
    max_bad: float = 0.01,
    augment: bool = False,
    encoder: nn.Module | None = None,
    tell: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measures a run's encoder: features of one centre view, computed once, read by every probe.

    Whatever a probe chooses, it chooses on a part of `train`; `test` is used for the final number only.

    Args:
        run: the run folder.
        train: labelled images that the probes learn from (labels are names of sub-folders), or a set's name. By default
            the run's own set, where that has labels and a test split.
        test: labelled images that the number is about.
        probes: kinds; `barlow.probes.DEFAULT_PROBES` by default.
        baselines: measure raw pixels and the untrained network as well. Without them a number says little.
        batch_size: images per forward pass; it does not change the numbers but for rounding.
        device: cpu, cuda, mps or auto.
        max_bad: share of unreadable images allowed.
        augment: measure the encoder by `linear_sgd` on augmented views too, a crop and a flip drawn anew in each epoch
            as in the papers, tested on centre views. It embeds the training set once an epoch: a hundred times, which
            is work for a GPU. The baselines stay on centre views.
        encoder: for a run whose encoder was given in Python: a module of the same class, to be filled.
        tell: receives one-line messages.

    Returns:
        The numbers; they are also in evaluation/results.json.

    Raises:
        ValueError: no run, no encoder, no labels, different classes; one line says what to do.
    """
    say = tell or (lambda line: None)
    evaluate_features({}, probes)  # an unknown probe is refused before the hours of embedding
    kinds = DEFAULT_PROBES if probes is None else probes
    if augment and "linear_sgd" not in kinds:
        raise ValueError(f"--augment is for linear_sgd, and --probes names only {', '.join(kinds)}: add linear_sgd")
    if batch_size < 1:
        raise ValueError(f"--batch-size {batch_size}: at least 1")
    folder = Run.open(run)
    network = load_encoder(folder.path, encoder)
    preprocessing: Preprocessing = network.preprocessing  # type: ignore[assignment]
    train, test = _default_sets(folder, train, test)
    target = choose_device(device)
    say("reading the labelled images")
    learn = _labelled(train, "train", preprocessing, max_bad)
    measured = _labelled(test, "test", preprocessing, max_bad)
    labels = _common_labels(learn, measured)
    notes = [learn.skipped_note(), measured.skipped_note(), leaks.overlap(learn.hashes, measured.hashes).warning]
    if unseen := leaks.unseen_classes(*labels):
        notes.append(f"{len(unseen)} classes of the test images have no training image; those count as errors")
    warnings = [note for note in notes if note]
    for line in warnings:
        say(line)

    sets: dict[str, tuple[FeatureSet, FeatureSet]] = {}
    compared = _networks(network, folder, learn, batch_size) if baselines else [("encoder", network)]
    for name, net in compared:
        say(f"embedding {len(learn.ids) + len(measured.ids)} images: {name}")
        sets[name] = (
            _features(folder, net, learn, labels[0], batch_size, target, say),
            _features(folder, net, measured, labels[1], batch_size, target, say),
        )
    say(f"probing: {', '.join(kinds)}")
    chosen = {kind: _on_device(PROBES[kind](), target) for kind in kinds}
    results = evaluate_features(sets, chosen)
    if augment:
        probe = chosen["linear_sgd"]
        assert isinstance(probe, LinearSGD)
        say(f"linear_sgd on augmented views: {len(learn.ids)} images, embedded in each of {probe.epochs} epochs")
        test_features = sets[ENCODER][1].features
        views = _augmented(network, learn, labels[0], batch_size, target, probe, say)
        results[ENCODER][AUGMENTED] = outcome_of(probe.predict(views, test_features), labels[1])
    for line in _unsuited(results):
        warnings.append(line)
        say(line)
    path = folder.path / "evaluation" / "results.json"
    report = _report(results, learn, measured, preprocessing, warnings, weights_hash(network), path)
    storage.write_json(path, report)
    return Evaluation(results, report, path)


def own_set(run: str | os.PathLike[str]) -> str | None:
    """The name of the labelled set that a run was trained on, or None: folders have no labels that it knows of."""
    sources = load_recipe_text(Path(run) / "recipe.yaml")["data"]["sources"]
    name = str(sources[0]).partition(":")[0] if len(sources) == 1 else ""
    return name if name in NAMED else None


def _default_sets(
    run: Run, train: FoldersOrName | None, test: FoldersOrName | None
) -> tuple[FoldersOrName, FoldersOrName]:
    if train is not None and test is not None:
        return train, test
    name = own_set(run.path)
    if name is None:
        sources = load_recipe_text(run.path / "recipe.yaml")["data"]["sources"]
        missing = " and ".join(flag for flag, given in (("--train", train), ("--test", test)) if given is None)
        raise ValueError(
            f"{missing} not given: the run's images ({', '.join(map(str, sources))}) have no labels of their own; "
            "give two folders with a sub-folder of images for each class"
        )
    return train or f"{name}:train", test or f"{name}:test"


@dataclass
class _Progress:
    """Says now and then how far a number of images is."""

    say: Callable[[str], None]
    what: str
    total: int
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def over(self, batches: Iterable[Images], where: str = "") -> Iterator[Images]:
        """The batches as they come, each counted when the next one is asked for."""
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


@dataclass
class _Labelled:
    """A labelled set as the networks see it: its centre views, in memory or decoded again when asked for."""

    source: ImageSource
    preprocessing: Preprocessing
    ids: np.ndarray
    skipped: list[tuple[str, str]]
    hashes: list[str]
    sizes: np.ndarray
    """(N, 2) height and width of the originals."""
    held: np.ndarray | None
    fingerprint: str

    def views(self, batch_size: int, rows: np.ndarray | None = None) -> Iterator[Tensor]:
        """Normalised batches of centre views, in the order of `ids`, or of these rows of it."""
        rows = np.arange(len(self.ids)) if rows is None else rows
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.preprocessing.mean, self.preprocessing.std))

        def view(row: int) -> np.ndarray:
            return self.preprocessing.centre(self.source.read(int(self.ids[row])))

        # One row of threads for all batches: they decode the next one while the network has this one.
        decoded = iter(()) if self.held is not None else in_threads(view, rows, available_cores())
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            pixels = self.held[batch] if self.held is not None else np.stack([next(decoded) for _ in batch])
            # In place, and in the order of the bytes: what `channels_last` asks of the network's input.
            yield torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)

    def augmented_views(self, batch_size: int, seed: int, epoch: int, device: torch.device) -> Iterator[Images]:
        """Normalised batches in the order of `ids`: a random crop and a flip of each image, a function of (seed, epoch,
        image)."""
        crop, flip = RandomResizedCrop(self.preprocessing.size), HorizontalFlip()
        normalize = Normalize(self.preprocessing.mean, self.preprocessing.std)
        keys = Keys(seed, epoch, self.ids, PROBE_VIEW)
        boxes = crop.boxes(self.sizes[:, 0], self.sizes[:, 1], keys.for_op(0))

        def cut(row: int) -> np.ndarray:
            return crop.resample_one(self.source.read(int(self.ids[row])).transpose(2, 0, 1), boxes[row])

        crops = in_threads(cut, range(len(self.ids)), available_cores())
        for start in range(0, len(self.ids), batch_size):
            stop = min(start + batch_size, len(self.ids))
            pixels = torch.from_numpy(np.stack([next(crops) for _ in range(start, stop)])).to(device)
            yield normalize(flip(as_images(pixels), keys.for_op(1).rows(start, stop)))

    def skipped_note(self) -> str | None:
        """One line about images that could not be read."""
        if not self.skipped:
            return None
        where, reason = self.skipped[0]
        return f"{len(self.skipped)} images of {self.source.name} cannot be read and are left out ({where}: {reason})"


def _labelled(spec: FoldersOrName, split: str, preprocessing: Preprocessing, max_bad: float) -> _Labelled:
    source = open_source(spec, split=split, channels=preprocessing.channels)
    if source.labels is None or source.classes is None:
        raise ValueError(
            f"--{split} {source.name} has no labels; put its images into one sub-folder for each class "
            f"({source.name}/CLASS/image.jpg)"
        )
    size, count = preprocessing.size, len(source)
    needed = count * size * size * preprocessing.channels
    fits = needed <= SHARE_OF_MEMORY * available_memory()
    held = np.empty((count, size, size, preprocessing.channels), np.uint8) if fits else None
    sizes = np.zeros((count, 2), np.int64)

    def take(index: int) -> tuple[int, str, str]:
        try:
            image = source.read(index)
        except UnreadableImage as error:
            return index, "", error.reason
        sizes[index] = image.shape[:2]
        view = preprocessing.centre(image)
        if held is not None:
            held[index] = view
        return index, leaks.pixel_hash(view), ""

    with without_library_noise():
        taken = list(in_threads(take, range(count), available_cores()))
    skipped = [(source.locate(index), reason) for index, digest, reason in taken if not digest]
    if len(skipped) > max_bad * count or len(skipped) == count:
        allow = min(1.0, np.ceil(100 * len(skipped) / count) / 100)
        raise ValueError(
            f"{len(skipped)} of {count} images of --{split} {source.name} cannot be read "
            f"({skipped[0][0]}: {skipped[0][1]}); remove them, or allow them with --max-bad {allow:g}"
        )
    ids = np.array([index for index, digest, _ in taken if digest], np.int64)
    hashes = [digest for _, digest, _ in taken if digest]
    if held is not None and skipped:
        held = held[ids]
    return _Labelled(source, preprocessing, ids, skipped, hashes, sizes[ids], held, leaks.fingerprint(hashes))


def _common_labels(train: _Labelled, test: _Labelled) -> tuple[np.ndarray, np.ndarray]:
    """Labels of both sets, in the numbering of the training set's classes (folders number theirs alphabetically)."""
    ours, theirs = train.source.classes or [], test.source.classes or []
    labels = [np.asarray(s.source.labels)[s.ids] for s in (train, test)]
    if ours == theirs:
        return labels[0], labels[1]
    foreign = [name for name in theirs if name not in ours]
    if foreign or labels[1].ndim > 1:
        raise ValueError(
            f"--test has classes that --train has not ({', '.join((foreign or theirs)[:5])}); --train has "
            f"{', '.join(ours[:5])}{', …' if len(ours) > 5 else ''}: name the sub-folders alike"
        )
    return labels[0], np.array([ours.index(theirs[k]) for k in labels[1]], np.int64)


def _networks(network: nn.Module, run: Run, train: _Labelled, batch_size: int) -> Iterator[tuple[str, nn.Module]]:
    """The encoder and what it is compared with: raw pixels, and the same network before training, two ways."""
    yield "encoder", network
    yield PIXELS, RawPixels()
    config = storage.read_json(run.path / "encoder" / "config.json")
    if config["kind"] == "custom":  # it cannot be rebuilt, so neither can its untrained twin
        return
    keys = ("in_channels", "image_size", "stem", "zero_init_last", "seed", "options")
    fresh = build_encoder(config["name"], **{key: config[key] for key in keys})
    yield UNTRAINED[0], fresh
    # In a random order: folders are listed class by class, and statistics of one class at a time are a poor baseline.
    rows = permutation(0, 0, len(train.ids))[: RECALIBRATION_BATCHES * RECALIBRATION_BATCH]
    rows = rows[: len(rows) // RECALIBRATION_BATCH * RECALIBRATION_BATCH or None]  # full batches, or all there is
    yield UNTRAINED[1], recalibrated(fresh.cpu(), train.views(RECALIBRATION_BATCH, rows))


def _features(
    run: Run,
    network: nn.Module,
    images: _Labelled,
    labels: np.ndarray,
    batch_size: int,
    device: torch.device,
    say: Callable[[str], None],
) -> FeatureSet:
    """From the cache in the run folder, or computed and put there."""
    folder = run.path / "evaluation" / "features"
    key = content_key(
        encoder=f"{type(network).__name__} {weights_hash(network)}",
        source=images.fingerprint,
        preprocessing=images.preprocessing.as_dict(),
    )
    cached = load_features(folder, key)
    if cached is not None and len(cached) == len(images.ids):
        return FeatureSet(cached.features, labels, images.ids)
    views = _Progress(say, f"embedding {images.source.name}", len(images.ids)).over(images.views(batch_size))
    features = FeatureSet(embed(network, views, device), labels, images.ids)
    if not isinstance(network, RawPixels):  # pixels are cheaper to read again than to store
        save_features(folder, key, features)
    return features


def _on_device(probe: Probe, device: torch.device) -> Probe:
    """A probe that trains does so on the GPU, if there is one: the features of each step are moved there."""
    if isinstance(probe, LinearSGD | LinearAdam) and device.type == "cuda":
        return replace(probe, device=str(device))
    return probe


def _augmented(
    network: nn.Module,
    train: _Labelled,
    labels: np.ndarray,
    batch_size: int,
    device: torch.device,
    probe: LinearSGD,
    say: Callable[[str], None],
) -> EpochFeatures:
    """The encoder's features of the training images in each epoch, their views drawn and embedded when asked for."""
    progress = _Progress(say, "linear_sgd on augmented views", probe.epochs * len(train.ids))

    def features(epoch: int) -> FeatureSet:
        views = train.augmented_views(batch_size, probe.seed, epoch, device)
        counted = progress.over(views, f", epoch {epoch + 1} of {probe.epochs}")
        return FeatureSet(embed(network, counted, device), labels, train.ids)

    return features


def _unsuited(results: Results) -> Iterator[str]:
    """A line for each probe whose rate does not suit the scale of its features: its number says little."""
    for name, outcomes in results.items():
        for kind, outcome in outcomes.items():
            if outcome.notes.get("worse_than_class_frequencies"):
                yield (
                    f"{kind} on {name} fits the training images worse (loss {outcome.notes['train_loss']:.3g}) than "
                    f"the class frequencies alone: lr {outcome.notes['lr']:g} does not suit features of this scale; "
                    "rely on logistic, which standardises them"
                )


def _report(
    results: Results,
    train: _Labelled,
    test: _Labelled,
    preprocessing: Preprocessing,
    warnings: list[str],
    encoder_hash: str,
    path: Path,
) -> dict[str, Any]:
    earlier = storage.read_json(path) if path.exists() else {}
    sets: Mapping[str, _Labelled] = {"train": train, "test": test}
    return {
        **as_json(results),
        "images": {
            name: {
                "source": s.source.name,
                "count": len(s.ids),
                "skipped": [{"where": where, "reason": reason} for where, reason in s.skipped],
                "fingerprint": s.fingerprint,
            }
            for name, s in sets.items()
        },
        "classes": list(train.source.classes or []),
        "preprocessing": preprocessing.as_dict(),
        "encoder_sha256": encoder_hash,
        "warnings": warnings,
        "times_measured": earlier.get("times_measured", 0) + 1,
    }
