"""`barlow evaluate … --protocol detect`: encoders as backbones of a detector, beside untrained weights, over seeds."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from torch import nn

from barlow import storage
from barlow.detection.annotations import AnnotatedSet, in_both
from barlow.detection.average_precision import check_installed
from barlow.detection.backbones import BatchNorm
from barlow.detection.compared import UNTRAINED, Row, detection_table, report_of
from barlow.detection.detectors import DESIGNS
from barlow.detection.measuring import FOLDER, Question, built, measured
from barlow.detection.schedules import SCHEDULES, chosen_schedule
from barlow.detection.sets import Places, read_annotated
from barlow.distributed import choose_device
from barlow.encoders import FoundEncoder, Named, find_encoder
from barlow.nets.building import build_encoder
from barlow.nets.weights import description_of, with_preprocessing
from barlow.results import keep, prepare_homes
from barlow.scores.labels import DETECT
from barlow.scores.score_table import ScoreTable
from barlow.stopping import Asked, Interrupted, listening
from barlow.telling import Say, unfailing
from barlow.wording import in_arguments

SEEDS, MOST_SEEDS = 3, 100

KEPT = "what was trained is kept, and the same command goes on from there"


@dataclass(frozen=True)
class Detection:
    """The numbers of a comparison."""

    rows: list[Row]
    question: Question
    notes: list[str]
    homes: list[Path]

    @property
    def scores(self) -> ScoreTable:
        """All encoders beside each other: differences to the first, and gains over untrained weights."""
        return detection_table(self.rows, self.question)

    def table(self) -> str:
        """The numbers as text, at most 80 columns wide."""
        return self.scores.text()


@in_arguments
def detect(
    named: Sequence[Named],
    train: Places,
    test: Places,
    *,
    design: str = "small_fpn",
    schedule: str = "short",
    steps: int | None = None,
    batch_norm: BatchNorm = "trained",
    seeds: int = SEEDS,
    baselines: bool = True,
    device: str = "auto",
    encoder: str | nn.Module | None = None,
    overrides: Mapping[str, Any] | None = None,
    image_size: object = None,
    out: str | os.PathLike[str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Detection:
    """Trains a detector on each encoder, with several seeds, and beside it one on untrained weights of its network.

    The whole detector is trained, encoder included, as in the papers. The training images decide everything; the test
    images are looked at once, after the last step.

    Args:
        named: encoders; see `barlow.encoders.find_encoder`.
        train, test: annotated images: `FOLDER:SPLIT` of VOC's form, a JSON file of COCO's, or `shapes_boxes`. A list of
            them is one set: the papers' VOC07+12 is `["VOC2007:trainval", "VOC2012:trainval"]`.
        design: `small_fpn`, `fpn` or `c4`.
        schedule: `short`, or a paper's; see `barlow.detection.schedules`.
        steps: another number of them, for `short`.
        batch_norm: `trained`, as in the papers, or `frozen`; with two images a step both are compromises. It is the
            same for all that are compared.
        seeds: how many: 0, 1, …
        baselines: whether to train on untrained weights too. Without that a number says little.
        device: cpu, cuda, mps or auto.
        encoder, image_size: as for `barlow.evaluate`. The size says nothing of the images that the detector gets.
        overrides: `encoder.options` and `encoder.stem`; `detection.seeds` and `detection.batch_norm` are arguments.
        out: a folder for the results, in place of each run's `evaluation`; needed for what is no run.
        tell: receives messages of one line.

    Raises:
        ValueError: an encoder cannot be the backbone, the sets cannot be used, or what is asked for is not there. One
            line says what to do.
        Interrupted: it was asked to stop. What was trained is kept.
    """
    say, keys = unfailing(tell), dict(overrides or {})
    seeds, batch_norm = keys.pop("detection.seeds", seeds), keys.pop("detection.batch_norm", batch_norm)
    _check(named, design, batch_norm, seeds, keys)
    finding: dict[str, Any] = {"encoder": encoder, "options": keys.get("encoder.options"), "image_size": image_size}
    finding["stem"] = keys.get("encoder.stem") or "as_is"
    course = chosen_schedule(schedule, steps, design)
    with listening(say) as requests:
        requests.given_up = lambda: KEPT
        try:
            target = choose_device(device)
            encoders = [find_encoder(each, say=say, **finding) for each in named]
            whose = [(each.name, each.run) for each in encoders]
            homes = prepare_homes(whose, None if out is None else Path(out), say)
            learn, tested, notes = _sets(train, test, say)
            question = Question(learn, tested, design, course, batch_norm)
            _check_fit(encoders, question)
            about: dict[str, Any] = {"device": target, "requests": requests, "say": say}

            def over_seeds(networks: Iterable[nn.Module], name: str, home: Path) -> list[dict[str, Any]]:
                pairs = zip(range(seeds), networks, strict=False)
                return [measured(network, name, question, seed, home=home, **about) for seed, network in pairs]

            rows = []
            for each, home in zip(encoders, homes, strict=True):
                results = over_seeds(repeat(each.network), each.name, home)
                beside = None
                if baselines and each.kind != "untrained" and _described(each.network):
                    fresh = (untrained(each.network, seed) for seed in range(seeds))
                    beside = over_seeds(fresh, f"{UNTRAINED} of {each.name}", home)
                rows.append(Row(each.name, results, beside))
                _keep(rows[-1], each, question, (train, test), notes, home, say)
            return Detection(rows, question, notes, list(dict.fromkeys(homes)))
        except Asked as asked:
            raise Interrupted(f"stopped; {KEPT}") from asked


def _check(named: Sequence[Named], design: str, batch_norm: str, seeds: object, keys: Mapping[str, Any]) -> None:
    if unknown := keys.keys() - {"encoder.options", "encoder.stem"}:
        raise ValueError(f"--{min(unknown)} is no key of detection; it has detection.seeds and detection.batch_norm")
    check_installed()
    if design not in DESIGNS:
        raise ValueError(f"no detector {design!r}; there are {', '.join(DESIGNS)}")
    if batch_norm not in ("trained", "frozen"):
        raise ValueError(f"--detection.batch_norm {batch_norm}: trained or frozen")
    if type(seeds) is not int or not 1 <= seeds <= MOST_SEEDS:
        raise ValueError(f"--detection.seeds {seeds}: it is how many seeds, from 1 to {MOST_SEEDS}")
    if not named:
        raise ValueError("no encoder is named")


def _check_fit(encoders: Sequence[FoundEncoder], question: Question) -> None:
    """Refuses an encoder that cannot be the backbone: known before any detector is trained, and not at its turn."""
    for each in encoders:
        built(each.network, each.name, question, 0)


def _sets(train: Places, test: Places, say: Say) -> tuple[AnnotatedSet, AnnotatedSet, list[str]]:
    """Both sets with the same class numbers, and what is odd about them, which is said."""
    learn = read_annotated(train, "train")
    tested = read_annotated(test, "test").numbered_like(learn)
    notes = [f"{each.name}: {note}" for each in (learn, tested) for note in each.notes]
    shared = len(in_both(learn, tested))
    if shared == len(tested):
        notes.append("all images of --test are in --train, too: the numbers say nothing")
    elif shared:
        notes.append(f"{shared:,} of {len(tested):,} images of --test are in --train, too: the numbers say less")
    for note in notes:
        say(note)
    return learn, tested, notes


def _keep(
    row: Row,
    encoder: FoundEncoder,
    question: Question,
    named: tuple[Places, Places],
    notes: Sequence[str],
    home: Path,
    say: Say,
) -> None:
    """Adds an encoder's numbers to the results of its evaluations. Where that cannot be, it is said and no more: the
    numbers of every seed are kept by themselves."""
    asked = {
        "step": encoder.step,
        "probes": [question.protocol],
        "augment": False,
        "baselines": row.beside is not None,
        "seeds": len(row.results),
    }
    try:
        keep(home, report_of(row, encoder, question, named, notes), asked, say)
    except storage.StorageError as error:
        say(f"{error}; the numbers are in {home / FOLDER}, and in the table")


def _described(network: nn.Module) -> bool:
    """Whether a network can be built again."""
    return bool(description_of(network).get("kind") == "timm")


def untrained(network: nn.Module, seed: int) -> nn.Module:
    """An encoder's network as it is built, before any training, which gets the same images."""
    config = description_of(network)
    keys = ("in_channels", "image_size", "stem", "zero_init_last", "options")
    fresh = build_encoder(config["name"], seed=seed, **{key: config[key] for key in keys})
    return with_preprocessing(fresh.eval(), network.preprocessing)  # type: ignore[arg-type]


def options_of(name: str) -> dict[str, Any]:
    """What `detect`, `detect:DESIGN`, `detect:DESIGN:SCHEDULE` or `detect:DESIGN:STEPS` asks for, as arguments.

    Example:
        >>> options_of("detect:small_fpn:200")
        {'design': 'small_fpn', 'steps': 200}
        >>> options_of("detect:c4:vicreg_voc")
        {'design': 'c4', 'schedule': 'vicreg_voc'}
    """
    kind, *parts = name.split(":")
    if kind != DETECT or len(parts) > 2 or "" in parts:
        raise ValueError(
            f"--protocol {name!r}: give detect, detect:DETECTOR ({', '.join(DESIGNS)}), and after another colon a "
            f"number of steps or a schedule ({', '.join(SCHEDULES)})"
        )
    asked: dict[str, Any] = {"design": parts[0]} if parts else {}
    if len(parts) == 2:
        digits = parts[1].removeprefix("-")
        number = digits.isascii() and digits.isdigit() and len(digits) < 9
        asked |= {"steps": int(parts[1])} if number else {"schedule": parts[1]}
    return asked
