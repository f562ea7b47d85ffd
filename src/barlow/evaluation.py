"""How good a run's encoder is, measured with labelled images, beside raw pixels and the untrained network."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from barlow import checkpoints, storage, tables
from barlow import protocols as known_protocols
from barlow.advice import Ran, after_evaluation
from barlow.checkpoints import split_step
from barlow.data import image_digests, oddities
from barlow.data.counting import Counted, NowAndThen
from barlow.data.folder import EMPTY
from barlow.data.inventory import TooManyUnreadable
from barlow.data.labelled import LabelledSet, read_labelled
from barlow.data.sources import FoldersOrName, missing_set, named_set, places
from barlow.detection.labels import as_labelled
from barlow.distributed import choose_device
from barlow.finishing import encoder_at
from barlow.identity import identity_of
from barlow.nets import stored_size
from barlow.nets.weights import encoder_folder
from barlow.printable import one_line
from barlow.probes import FeatureSet, Score, leaks
from barlow.probes.baselines import compared, whitened_pixels
from barlow.probes.embedding import Embedder
from barlow.probes.features import weights_hash
from barlow.probes.report import (
    AUGMENTED,
    ENCODER,
    Outcome,
    Results,
    as_json,
    evaluate_features,
    outcome_of,
    render,
    unsuited_rates,
)
from barlow.protocols import Probe
from barlow.protocols.linear_sgd import LinearSGD
from barlow.results import keep, prepare_home
from barlow.run import Run, load_recipe_text
from barlow.stopping import Asked, Interrupted, listening
from barlow.telling import Say, unfailing
from barlow.wording import in_arguments


@dataclass(frozen=True)
class Evaluation:
    """The numbers of one evaluation."""

    results: Results
    """By set of features (encoder, pixels_16, pixels_32, …, untrained, …), then by probe."""
    report: dict[str, Any]
    """The content of evaluation/results.json."""
    path: Path
    """Where that file is."""
    advice: list[str]
    """Whether the encoder is worth having, and what to try next: three lines at most."""

    @property
    def scores(self) -> dict[str, dict[str, Score]]:
        """Every number by its name: `scores["encoder"]["knn.top1"].value`."""
        return {
            name: {
                f"{kind}.{metric}": score
                for kind, outcome in outcomes.items()
                for metric, score in outcome.metrics.items()
            }
            for name, outcomes in self.results.items()
        }

    def table(self) -> str:
        """The numbers as text, at most 80 columns wide."""
        return render(self.results)


@in_arguments
def evaluate(
    run: str | os.PathLike[str],
    train: FoldersOrName | None = None,
    test: FoldersOrName | None = None,
    *,
    protocols: str | Sequence[str] | None = None,
    baselines: bool = True,
    batch_size: int = 256,
    device: str = "auto",
    max_bad: float = 0.01,
    augment: bool = False,
    encoder: nn.Module | None = None,
    out: str | os.PathLike[str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measures the encoder of a run: every image is embedded once, and every protocol reads the same features.

    Whatever a protocol has to choose, it chooses on a part of `train`. `test` is used for the final number only.

    Args:
        run: the run folder; of a run that is not finished, the newest checkpoint is measured. `RUN@STEP` is another.
        train: labelled images for the protocols to learn from: folders with a sub-folder for each class, a CSV file
            (path,label or path,labels), a folder in VOC's form (`FOLDER:SPLIT`), a JSON file in COCO's, or the name of
            a set. By default the run's own set, if it has labels and a test split.
        test: labelled images that the numbers are about; the default as for `train`.
        protocols: which protocols, by name: `knn,fewshot:1,5` or a list of names; `barlow.protocols.DEFAULT` by
            default. `barlow list protocols` shows all.
        baselines: whether to measure raw pixels and the untrained network too. Without them a number says little.
        batch_size: images per forward pass. It changes the numbers by rounding only.
        device: cpu, cuda, mps or auto.
        max_bad: the share of images that may be unreadable.
        augment: whether to measure the encoder by `linear_sgd` on augmented views too, with a new crop and flip of each
            image in each epoch, as in the papers. The test images and the baselines stay on centre views. The training
            set is then embedded a hundred times, once an epoch, which is work for a GPU.
        encoder: for a run whose encoder was given in Python, a module of the same class. It is filled with the weights.
        out: a folder for the results and the features, in place of the run's `evaluation`.
        tell: receives messages of one line.

    Returns:
        The numbers. They are also in a file for this encoder, these images, labels and probes, which no other one
        replaces, in `results.json`, which is the newest, and in `history.jsonl`, which has a line for each.

    Raises:
        ValueError: there is no run, no encoder or no labels, or the classes differ. One line says what to do.
        Interrupted: on Ctrl-C, SIGTERM and what else asks to stop. The features so far are kept.
    """
    say = unfailing(tell)
    with listening(say) as requests:
        requests.given_up = lambda: EMBEDDED
        try:
            return _evaluate(
                run,
                (train, test),
                protocols,
                baselines=baselines,
                batch_size=batch_size,
                device=device,
                max_bad=max_bad,
                augment=augment,
                module=encoder,
                out=None if out is None else Path(out),
                say=say,
            )
        except Asked as asked:
            raise Interrupted(f"stopped; {EMBEDDED}") from asked


EMBEDDED = "what was embedded is kept, and the same command goes on from there"


def _evaluate(
    name: str | os.PathLike[str],
    sets_given: tuple[FoldersOrName | None, FoldersOrName | None],
    protocols: str | Sequence[str] | None,
    *,
    baselines: bool,
    batch_size: int,
    device: str,
    max_bad: float,
    augment: bool,
    module: nn.Module | None,
    out: Path | None,
    say: Say,
) -> Evaluation:
    target = choose_device(device)
    chosen = known_protocols.build(protocols, target)  # first: hours of embedding must not end with an unknown one
    if augment and "linear_sgd" not in chosen:
        raise ValueError(f"--augment is for linear_sgd, and --protocol names only {', '.join(chosen)}: add linear_sgd")
    if batch_size < 1:
        raise ValueError(f"--batch-size {batch_size}: at least 1")
    path, step = split_step(os.fspath(name))
    folder = Run.open(path)
    unfinished = step is None and encoder_folder(path) is None
    if unfinished and (newest := checkpoints.whole(path, look=stored_size.look(module))) is not None:
        step = checkpoints.step_of(newest)
        say(f"the run is not finished: its encoder at step {step} is measured")
    network = encoder_at(path, step, module)
    train, test = _default_sets(folder, *sets_given)
    home = prepare_home(folder.path, out, say)
    say("reading the labelled images")
    learn, measured = _read_both(train, test, network, max_bad, home, NowAndThen(say))
    known_protocols.check_labels(chosen, learn.labels.ndim == 2)
    warnings = list(_warnings(learn, measured, folder))
    for line in warnings:
        say(line)

    embedder = Embedder(home / "features", batch_size, target, say)
    sets: dict[str, tuple[FeatureSet, FeatureSet]] = {}
    for each in islice(compared(network, folder.path, learn), None if baselines else 1):  # the encoder is the first
        say(f"embedding {len(learn) + len(measured)} images: {each.name}")
        of_train, of_test = (embedder.centre_views(each.network, each.views_of(images)) for images in (learn, measured))
        sets[each.name] = of_train, of_test
    if baselines:
        sets |= whitened_pixels(sets, network)

    say(f"probing: {', '.join(chosen)}")
    results = evaluate_features(sets, chosen)
    if augment:
        outcome = _on_augmented_views(chosen["linear_sgd"], network, learn, sets[ENCODER][1], embedder)
        results[ENCODER][AUGMENTED] = outcome
    for line in unsuited_rates(results):
        warnings.append(line)
        say(line)

    report = _report(results, (learn, measured), (train, test), warnings, weights_hash(network))
    evaluation = Evaluation(results, report, home / "results.json", after_evaluation(_what_ran(folder.path), results))
    asked = {"step": step, "probes": list(chosen), "augment": augment, "baselines": baselines}
    try:
        return replace(evaluation, report=keep(home, report, asked, say))
    except storage.StorageError as error:
        raise NotKept(f"{error}. The numbers are above, and nowhere else", evaluation) from error


class NotKept(storage.StorageError):
    """The numbers are there, and could not be written."""

    def __init__(self, message: str, evaluation: Evaluation) -> None:
        super().__init__(message)
        self.evaluation = evaluation


def _what_ran(run: Path) -> Ran | None:
    """What a run's folder says of it; None where that is not what this version writes, or was changed: numbers need no
    advice."""
    try:
        identity_of(Run(run))  # which compares recipe.yaml with what the run began with
        return Ran.of(load_recipe_text(run / "recipe.yaml"), storage.read_sealed(run / "data.json"))
    except (OSError, LookupError, TypeError, ValueError):
        return None


def _sources(run: Path) -> list[str]:
    path = run / "recipe.yaml"
    sources: list[str] = tables.checked(load_recipe_text(path), path)["data"]["sources"]
    return sources


def own_set(run: str | os.PathLike[str]) -> str | None:
    """The name of the labelled set that a run was trained on; None for folders, whose labels nobody has told."""
    sources = _sources(Path(run))
    return named_set(str(sources[0])) if len(sources) == 1 else None


def _default_sets(
    run: Run, train: FoldersOrName | None, test: FoldersOrName | None
) -> tuple[FoldersOrName, FoldersOrName]:
    if train is not None and test is not None:
        return train, test
    name = own_set(run.path)
    if name is None:
        sources = _sources(run.path)
        missing = " and ".join(flag for flag, given in (("--train", train), ("--test", test)) if given is None)
        raise ValueError(
            f"{missing} not given: the run's images ({', '.join(map(str, sources))}) have no labels of their own; "
            "give two folders with a sub-folder of images for each class"
        )
    if missing_set(name):
        raise ValueError(
            f"the run's own images are {name}, which is not here and would be downloaded: name it yourself to ask for "
            f"it (--train {name}:train --test {name}:test), or give folders"
        )
    return train or f"{name}:train", test or f"{name}:test"


def _read_both(
    train: FoldersOrName, test: FoldersOrName, network: nn.Module, max_bad: float, home: Path, counted: Counted
) -> tuple[LabelledSet, LabelledSet]:
    """The training and the test images as the network wants them, with the class numbers of the training images."""
    expected: Any = network.preprocessing
    try:
        learn, measured = (
            read_labelled(as_labelled(images, split, expected), split, expected, max_bad, counted)
            for images, split in ((train, "train"), (test, "test"))
        )
    except TooManyUnreadable as error:
        path = home / "skipped.json"
        storage.write_json(path, error.report)
        raise TooManyUnreadable(f"{error}. All of them are listed in {path}", error.report) from None
    return learn, measured.numbered_like(learn)


def _seen_in_pretraining(test: LabelledSet, run: Run) -> str | None:
    """A line if test images are among those that a run was trained on, or if nobody can tell; a run of the first
    release kept no list of them."""
    try:
        digests = image_digests.from_json(storage.read_sealed(run.path / "images.json"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"{one_line(error)}: whether test images were pretrained on is not known"
    return leaks.seen_in_pretraining(test.digests, digests)


def _warnings(train: LabelledSet, test: LabelledSet, run: Run) -> Iterator[str]:
    """What makes the numbers say less than they seem to: a line for each thing that is odd about the images."""
    for note in (train.skipped_note, test.skipped_note, leaks.overlap(train.hashes, test.hashes).warning):
        if note:
            yield note
    if seen := _seen_in_pretraining(test, run):
        yield seen
    for images, name in ((train, "train"), (test, "test")):
        if empty := getattr(images.source, "notes", {}).get(EMPTY):
            yield f"--{name} {images.source.name} has no images in {oddities.names(empty)}"
    if missing := leaks.missing_classes(test.labels, train.classes):
        yield missing
    if unseen := leaks.unseen_classes(train.labels, test.labels):
        yield f"{len(unseen)} classes of the test images have no training image; those count as errors"


def _on_augmented_views(
    probe: Probe, network: nn.Module, train: LabelledSet, test: FeatureSet, embedder: Embedder
) -> Outcome:
    """What `linear_sgd` finds when it sees other views of the training images in each epoch."""
    assert isinstance(probe, LinearSGD)
    embedder.say(f"linear_sgd on augmented views: {len(train)} images, embedded in each of {probe.epochs} epochs")
    views = embedder.augmented_views(network, train, epochs=probe.epochs, seed=probe.seed)
    return outcome_of(probe.predict(views, test.features), test.labels)


def _report(
    results: Results,
    sets: tuple[LabelledSet, LabelledSet],
    given: tuple[FoldersOrName, FoldersOrName],
    warnings: list[str],
    encoder_hash: str,
) -> dict[str, Any]:
    """What a file of results says. `places` is where `barlow report` finds the images again, to show them."""
    train = sets[0]
    return {
        **as_json(results),
        "images": {
            name: {
                "source": images.source.name,
                "places": places(named),
                "count": len(images),
                "skipped": [{"where": where, "reason": reason} for where, reason in images.skipped],
                "fingerprint": images.fingerprint,
                "labels": images.labels_digest,
            }
            for name, images, named in zip(("train", "test"), sets, given, strict=True)
        },
        "classes": train.classes,
        "preprocessing": train.preprocessing.as_dict(),
        "encoder_sha256": encoder_hash,
        "warnings": warnings,
    }
