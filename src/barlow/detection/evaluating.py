"""`barlow evaluate … --protocol detect`: encoders as backbones of a detector, beside untrained weights, over seeds."""

import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from barlow.detection.annotations import AnnotatedSet
from barlow.detection.average_precision import COCO_NAMES, check_installed
from barlow.detection.backbones import BatchNorm
from barlow.detection.detectors import DESIGNS
from barlow.detection.measuring import Question, measured
from barlow.detection.schedules import SCHEDULES, chosen_schedule
from barlow.detection.sets import read_annotated
from barlow.distributed import choose_device
from barlow.encoders import Encoder, Named, find_encoder
from barlow.nets.building import build_encoder
from barlow.nets.weights import description_of, with_preprocessing
from barlow.probes.intervals import over_draws
from barlow.results import prepare_home
from barlow.stopping import Asked, Interrupted, listening
from barlow.telling import Say, unfailing
from barlow.wording import in_arguments

PROTOCOL = "detect"
SEEDS, MOST_SEEDS = 3, 100
UNTRAINED = "untrained"

CONVENTIONS = {
    "voc07": "VOC AP (11-point, 2007)",
    "coco_box": "COCO box AP (101-point)",
    "coco_mask": "COCO mask AP (101-point)",
}
"""By the names that results have, what tables call them. Of one set's numbers never compare one kind with another."""

KEPT = "what was trained is kept, and the same command goes on from there"


@dataclass(frozen=True)
class Row:
    """An encoder's numbers over the seeds.

    Args:
        name: of the encoder.
        results: as `measuring.measured` returns them, one for each seed.
        beside: the same of untrained weights of the same network; None where they cannot be made.
    """

    name: str
    results: list[dict[str, Any]]
    beside: list[dict[str, Any]] | None

    def values(self, convention: str, metric: str) -> list[float] | None:
        """A metric of each seed; None where a set has no object that it is about."""
        return _values(self.results, convention, metric)

    def gains(self, convention: str, metric: str) -> list[float] | None:
        """For each seed the difference to the untrained weights."""
        own, other = (_values(rows, convention, metric) for rows in (self.results, self.beside or []))
        return None if not own or not other else [a - b for a, b in zip(own, other, strict=True)]


def _values(rows: Sequence[dict[str, Any]], convention: str, metric: str) -> list[float] | None:
    found = [row["precision"].get(convention, {}).get(metric) for row in rows]
    return None if None in found else found


@dataclass(frozen=True)
class Detection:
    """The numbers of a comparison."""

    rows: list[Row]
    question: Question
    notes: list[str]
    homes: list[Path]

    def table(self) -> str:
        """Mean and standard deviation over the seeds, in percent, at most 80 columns wide."""
        first = self.rows[0].results
        steps, seeds = self.question.schedule.steps, len(first)
        lines = [f"{self.question.design}, {steps} steps, {seeds} {'seeds' if seeds > 1 else 'seed'}"]
        lines += [f"learned   {self.question.train.name}", f"tested    {self.question.test.name}"]
        for convention in (name for name in CONVENTIONS if name in first[0]["precision"]):
            lines += ["", f"{CONVENTIONS[convention]:<28}{'AP':>13}{'AP50':>13}{'AP75':>13}"]
            for row in self.rows:
                lines.append(self._line(row.name, row.results, convention))
                if row.beside is not None:
                    lines.append(self._line("  untrained", row.beside, convention))
                    lines.append(self._gain(row, convention))
        return "\n".join(lines)

    def _line(self, name: str, results: Sequence[dict[str, Any]], convention: str) -> str:
        cells = [_spread(_values(results, convention, metric)) for metric in COCO_NAMES[:3]]
        return f"{_short(name):<28}" + "".join(f"{cell:>13}" for cell in cells)

    def _gain(self, row: Row, convention: str) -> str:
        gains = row.gains(convention, "AP50")
        if gains is None:
            return "  gain: not known"
        if len(gains) == 1:
            return f"  gain in AP50 {100 * gains[0]:+.1f}; one seed says nothing of how sure that is"
        mean, low, high = over_draws(np.array(gains))
        return f"  gain in AP50 {100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}], 95 % over seeds"


def _spread(values: list[float] | None) -> str:
    if values is None:
        return "-"
    mean = f"{100 * statistics.fmean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _short(name: str, width: int = 27) -> str:
    return name if len(name) <= width else f"…{name[1 - width :]}"


@in_arguments
def detect(
    named: Sequence[Named],
    train: str | os.PathLike[str],
    test: str | os.PathLike[str],
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
        train, test: annotated images: `FOLDER:SPLIT` of VOC's form, a JSON file of COCO's, or `shapes_boxes`.
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
            if out is None and (outside := [each.name for each in encoders if each.run is None]):
                raise ValueError(
                    f"{outside[0]} is no run, so its results have no folder of their own: give --out FOLDER"
                )
            homes = [prepare_home(each.run, None if out is None else Path(out), say) for each in encoders]
            learn, tested, notes = _sets(train, test, say)
            question = Question(learn, tested, design, course, batch_norm)
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
        raise ValueError(f"--detection.seeds {seeds}: from 1 to {MOST_SEEDS}")
    if not named:
        raise ValueError("no encoder is named")


def _homes(encoders: Sequence[Encoder], out: str | os.PathLike[str] | None, say: Say) -> list[Path]:
    """Where each encoder's results go."""
    if out is None and (outside := [each.name for each in encoders if each.run is None]):
        raise ValueError(f"{outside[0]} is no run, so its results have no folder of their own: give --out FOLDER")
    return [prepare_home(each.run, None if out is None else Path(out), say) for each in encoders]


def _sets(
    train: str | os.PathLike[str], test: str | os.PathLike[str], say: Say
) -> tuple[AnnotatedSet, AnnotatedSet, list[str]]:
    """Both sets with the same class numbers, and what is odd about them, which is said."""
    learn = read_annotated(train, "train")
    tested = read_annotated(test, "test").numbered_like(learn)
    notes = [f"{each.name}: {note}" for each in (learn, tested) for note in each.notes]
    if learn.fingerprint == tested.fingerprint:
        notes.append("the images of --train and --test are the same: the numbers say nothing")
    for note in notes:
        say(note)
    return learn, tested, notes


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
    if kind != PROTOCOL or len(parts) > 2 or "" in parts:
        raise ValueError(
            f"--protocol {name!r}: give detect, detect:DETECTOR ({', '.join(DESIGNS)}), and after another colon a "
            f"number of steps or a schedule ({', '.join(SCHEDULES)})"
        )
    asked: dict[str, Any] = {"design": parts[0]} if parts else {}
    if len(parts) == 2:
        asked |= {"steps": int(parts[1])} if parts[1].isdigit() and len(parts[1]) < 9 else {"schedule": parts[1]}
    return asked
