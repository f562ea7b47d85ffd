"""How good encoders are, measured with labelled images, beside raw pixels and untrained networks."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from barlow import protocols as known_protocols
from barlow import storage
from barlow.advice import after_evaluation
from barlow.data.counting import NowAndThen
from barlow.data.sources import FoldersOrName, places
from barlow.detection.labels import as_labelled, is_annotated
from barlow.distributed import choose_device
from barlow.encoders import FoundEncoder, Named, find_encoder
from barlow.evaluated_images import Sets, oddities_of, own_sets, read_images
from barlow.probes import Score
from barlow.probes.embedding import CachedFeatures
from barlow.probes.features import network_identity
from barlow.probes.measuring import Images, Measuring
from barlow.probes.outcomes import Outcomes
from barlow.probes.report import as_json, render, unsuited_features
from barlow.probes.results import Outcome, Results
from barlow.results import FEATURES, NEWEST, OUTCOMES, keep, prepare_homes
from barlow.runs.identity import identity_of
from barlow.runs.ran import Ran
from barlow.runs.run import Run, load_recipe_text
from barlow.runs.same_recipe import kin
from barlow.scores.score_table import Measured, Part, ScoreTable, score_table
from barlow.stopping import Asked, Interrupted, listening
from barlow.telling import Say, once, unfailing
from barlow.wording import in_arguments


@dataclass(frozen=True)
class Evaluation:
    """The numbers of one encoder on one pair of sets."""

    results: Results
    """By set of features (encoder, pixels_16, pixels_32, …, untrained, …), then by protocol."""
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


@dataclass(frozen=True)
class Evaluations:
    """The numbers of several encoders, on one or more pairs of sets."""

    by_sets: list[list[Evaluation]]
    """For each pair of sets, those of each encoder, in the order in which they were named."""
    scores: ScoreTable
    """All of them beside each other."""

    def table(self) -> str:
        """The numbers as text, at most 80 columns wide."""
        return self.scores.text()


Numbers = TypeVar("Numbers", Evaluation, Evaluations)


class NotKept(storage.StorageError):
    """The numbers are there, and could not be written."""

    def __init__(self, message: str, found: Evaluation | Evaluations) -> None:
        super().__init__(message)
        self.found = found


@in_arguments
def evaluate(
    named: Named,
    train: FoldersOrName | None = None,
    test: FoldersOrName | None = None,
    *,
    protocols: str | Sequence[str] | None = None,
    baselines: bool = True,
    batch_size: int = 256,
    device: str = "auto",
    max_bad: float = 0.01,
    augment: bool = False,
    encoder: str | nn.Module | None = None,
    overrides: Mapping[str, Any] | None = None,
    image_size: object = None,
    out: str | os.PathLike[str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measures an encoder: every image is embedded once, and every protocol reads the same features.

    Whatever a protocol has to choose, it chooses on a part of `train`. `test` is used for the final number only. What
    was found before is not computed again: an evaluation that was stopped goes on, and one that asks for one protocol
    more computes that one.

    Args:
        named: which encoder: a run folder, `RUN@STEP`, a folder with an encoder, a file of weights, `timm:NAME`,
            `packaged:NAME`, `random:NAME`, or a module; see `barlow.encoders.find_encoder`.
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
        encoder: the network of a file of weights: a name of timm's. For weights of a network that was given in Python,
            a module of the same class; a copy of it is filled.
        overrides: `encoder.options` and `encoder.stem` of that network, as in `pretrain`.
        image_size: of foreign weights and untrained networks, in place of their own.
        out: a folder for the results and the features, in place of the run's `evaluation`; needed for what is no run.
        tell: receives messages of one line.

    Returns:
        The numbers. They are also in a file for this encoder, these images, labels and protocols, which no other one
        replaces, in `results.json`, which is the newest, and in `history.jsonl`, which has a line for each.

    Raises:
        ValueError: there is no encoder or no labels, or the classes differ. One line says what to do.
        Interrupted: on Ctrl-C, SIGTERM and what else asks to stop. What was found so far is kept.
    """
    asked = _Asked(
        protocols, baselines, batch_size, device, max_bad, augment, encoder, dict(overrides or {}), image_size, out
    )
    with _stoppable(tell) as say:
        found = _evaluated([named], [(train, test)], asked, say)
        return _kept(found.by_sets[0][0], found.unkept)


@in_arguments
def evaluate_several(
    named: Sequence[Named],
    sets: Sequence[tuple[FoldersOrName | None, FoldersOrName | None]] = ((None, None),),
    *,
    protocols: str | Sequence[str] | None = None,
    baselines: bool = True,
    batch_size: int = 256,
    device: str = "auto",
    max_bad: float = 0.01,
    augment: bool = False,
    encoder: str | nn.Module | None = None,
    overrides: Mapping[str, Any] | None = None,
    image_size: object = None,
    out: str | os.PathLike[str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Evaluations:
    """Measures several encoders with the same images, on one or more pairs of sets, and sets them beside each other.

    Runs that differ in their seed alone are one column, with the mean over them and its spread. A baseline that is the
    same for several encoders is measured once.

    Args:
        named: the encoders, as for `evaluate`. Differences are to the first of them.
        sets: pairs of training and test images; None as for `evaluate`.
        out: one folder for all results and features. By default each run's are in its own `evaluation`; it is needed if
            one of the encoders is no run.
        protocols, baselines, batch_size, device, max_bad, augment, encoder, overrides, image_size, tell: as for
            `evaluate`.

    Raises:
        ValueError, Interrupted: as of `evaluate`.
    """
    if not named or not sets:
        raise ValueError("no encoder is named" if not named else "no images are named")
    asked = _Asked(
        protocols, baselines, batch_size, device, max_bad, augment, encoder, dict(overrides or {}), image_size, out
    )
    with _stoppable(tell) as say:
        found = _evaluated(named, sets, asked, say)
        return _kept(Evaluations(found.by_sets, _beside_each_other(found)), found.unkept)


def _beside_each_other(found: "_Found") -> ScoreTable:
    names, same = [each.name for each in found.encoders], kin(found.encoders)
    return score_table(
        [
            Part(
                row[0].report["images"],
                row[0].report["classes"],
                [Measured(*each) for each in zip(names, same, (found.results for found in row), strict=True)],
            )
            for row in found.by_sets
        ]
    )


EMBEDDED = "what was found so far is kept, and the same command goes on from there"


@contextmanager
def _stoppable(tell: Callable[[str], None] | None) -> Iterator[Say]:
    """Inside, what asks to stop is answered; gives what lines are told to."""
    say = unfailing(tell)
    with listening(say) as requests:
        requests.given_up = lambda: EMBEDDED
        try:
            yield say
        except Asked as asked:
            raise Interrupted(f"stopped; {EMBEDDED}") from asked


@dataclass(frozen=True)
class _Asked:
    """The question, beside encoders and images."""

    protocols: str | Sequence[str] | None
    baselines: bool
    batch_size: int
    device: str
    max_bad: float
    augment: bool
    encoder: str | nn.Module | None
    overrides: dict[str, Any]
    image_size: object
    out: str | os.PathLike[str] | None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"--batch-size {self.batch_size}: at least 1")
        for key in self.overrides:
            if key not in _KEYS:
                raise ValueError(
                    f"--{key} is a recipe's key; only `barlow pretrain` takes those (but for {' and '.join(_KEYS)})"
                )

    def found(self, named: Named, say: Say) -> FoundEncoder:
        """The encoder of a name."""
        options, stem = (self.overrides.get(key) for key in _KEYS)
        return find_encoder(
            named, encoder=self.encoder, options=options, stem=stem or "as_is", image_size=self.image_size, say=say
        )

    def check_used(self, encoders: Sequence[FoundEncoder]) -> None:
        """Refuses what nothing here asks for."""
        given = {"--encoder": isinstance(self.encoder, str), "--image-size": self.image_size is not None}
        given |= {f"--{key}": key in self.overrides for key in _KEYS}
        if any(given.values()) and not any(each.kind in ("weights", "untrained") for each in encoders):
            flag = next(flag for flag, there in given.items() if there)
            raise ValueError(
                f"{flag} is for files of weights, timm:NAME, packaged:NAME and random:NAME; "
                f"{', '.join(each.name for each in encoders)} say themselves what they are: leave it out"
            )


_KEYS = ("encoder.options", "encoder.stem")
"""Of the recipe's, those that say which network a file of weights is of."""


@dataclass(frozen=True)
class _Found:
    encoders: list[FoundEncoder]
    by_sets: list[list[Evaluation]]
    unkept: list[storage.StorageError]


def _evaluated(
    named: Sequence[Named], sets: Sequence[tuple[FoldersOrName | None, FoldersOrName | None]], asked: _Asked, say: Say
) -> _Found:
    """All encoders on all pairs of sets. Those that expect the same of an image are measured after each other, so that
    images are read once for them."""
    target = choose_device(asked.device)
    # First: hours of embedding must not end with an unknown one.
    chosen = known_protocols.build(asked.protocols, target)
    if asked.augment and "linear_sgd" not in chosen:
        raise ValueError(f"--augment is for linear_sgd, and --protocol names only {', '.join(chosen)}: add linear_sgd")
    encoders = [asked.found(each, say) for each in named]
    asked.check_used(encoders)
    pairs = [own_sets(encoders, *each) for each in sets]
    out = None if asked.out is None else Path(asked.out)
    homes = prepare_homes([(each.name, each.run) for each in encoders], out, say)
    known: dict[str, Outcome] = {}
    warn, unkept, by_sets = once(say), list[storage.StorageError](), []
    for pair in pairs:
        row: dict[int, Evaluation] = {}
        for members in _alike(encoders):
            say("reading the labelled images")
            first = members[0]
            expected = encoders[first].preprocessing
            given = as_labelled(pair[0], "train", expected), as_labelled(pair[1], "test", expected)
            images = read_images(given, expected, asked.max_bad, homes[first], NowAndThen(say))
            known_protocols.check_labels(chosen, images.train.labels.ndim == 2)
            for i in members:
                if len(encoders) > 1:
                    say(f"encoder  {encoders[i].name}")
                features = CachedFeatures(homes[i] / FEATURES, asked.batch_size, target, say)
                kept = Outcomes(homes[i] / OUTCOMES, say)
                measuring = Measuring(chosen, asked.baselines, asked.augment, features, kept, known)
                row[i], error = _measured(encoders[i], images, pair, measuring, homes[i], warn)
                unkept += [] if error is None else [error]
        by_sets.append([row[i] for i in range(len(encoders))])
    return _Found(encoders, by_sets, unkept)


def _alike(encoders: Sequence[FoundEncoder]) -> list[list[int]]:
    """The encoders by their numbers, those together that expect the same of an image."""
    groups: dict[str, list[int]] = {}
    for i, each in enumerate(encoders):
        groups.setdefault(repr(each.preprocessing), []).append(i)
    return list(groups.values())


def _measured(
    encoder: FoundEncoder, images: Images, sets: Sets, measuring: Measuring, home: Path, warn: Say
) -> tuple[Evaluation, storage.StorageError | None]:
    """The numbers of one encoder on one pair of sets; and why they could not be kept, if it is so."""
    named = None if any(map(is_annotated, sets)) else sets
    for line in (warnings := list(oddities_of(images, encoder.run, named))):
        warn(line)
    results = measuring.results(encoder.network, encoder.run, images)
    encoder.network.cpu()  # the next one needs the room
    for line in unsuited_features(results):
        warnings.append(line)
        warn(line)
    report = _report(encoder, results, images, sets, warnings)
    advice = after_evaluation(None if encoder.run is None else _what_ran(encoder.run), results)
    evaluation = Evaluation(results, report, home / NEWEST, advice)
    asked = {"step": encoder.step, **measuring.asked(images)}
    try:
        return replace(evaluation, report=keep(home, report, asked, measuring.features.say)), None
    except storage.StorageError as error:
        return evaluation, error


def _kept(found: Numbers, unkept: Sequence[storage.StorageError]) -> Numbers:
    """The numbers, if all could be written.

    Raises:
        NotKept: some could not.
    """
    if unkept:
        raise NotKept(f"{unkept[0]}. The numbers are above, and nowhere else", found) from unkept[0]
    return found


def _what_ran(run: Path) -> Ran | None:
    """What a run's folder says of it; None where that is not what this version writes, or was changed: numbers need no
    advice."""
    try:
        identity_of(Run(run))  # which compares recipe.yaml with what the run began with
        return Ran.of(load_recipe_text(run / "recipe.yaml"), storage.read_sealed(run / "data.json"))
    except (OSError, LookupError, TypeError, ValueError):
        return None


def _report(
    encoder: FoundEncoder, results: Results, images: Images, sets: Sets, warnings: Sequence[str]
) -> dict[str, Any]:
    """What a file of results says. `places` is where `barlow report` finds the images again, to show them."""
    return {
        **as_json(results),
        "images": {
            name: {
                "source": part.source.name,
                "places": places(named),
                "count": len(part),
                "skipped": [{"where": where, "reason": reason} for where, reason in part.skipped],
                "fingerprint": part.fingerprint,
                "labels": part.labels_digest,
            }
            for name, part, named in zip(("train", "test"), (images.train, images.test), sets, strict=True)
        },
        "classes": images.train.classes,
        "preprocessing": images.train.preprocessing.as_dict(),
        "encoder": encoder.name,
        "encoder_sha256": encoder.digest,
        "encoder_identity": network_identity(encoder.network),
        "warnings": list(warnings),
    }
