"""A few labels, the whole network: it is fine-tuned on 1 % or 10 % of the labelled images."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from barlow import limits
from barlow.data.labelled import LabelledSet
from barlow.exits import NoInput, UnusableData
from barlow.printable import printable
from barlow.probes.drawn import Drawn
from barlow.probes.features import embed
from barlow.probes.metrics import highest
from barlow.probes.progress import Progress
from barlow.probes.splits import of_each_class, split
from barlow.probes.tuning import Diverged, Rates, Schedule, Unlabelled, tuned
from barlow.telling import Say

__all__ = ["SemiSupervised"]

RATES = (Rates(0.005, 0.5), Rates(0.002, 0.5), Rates(0.03, 0.08), Rates(0.01, 0.1))
"""Of encoder and linear layer: Barlow Twins' released code and its paper; VICReg's for 1 % and for 10 %."""

SMALL_BATCH = 32
"""Images of an update, where the papers' batch gives too few updates."""

INFERENCE_BATCH = 256
"""Images that are answered at a time. It changes the answers by rounding only."""


@dataclass(frozen=True)
class SemiSupervised:
    """The encoder and a linear layer are trained together on a class-balanced part of the training images.

    As many images of every class are drawn; a network is tuned on them, and answers all test images. It is repeated for
    several draws, each with another linear layer, order and views. With so few images it is the draw that decides, so
    the interval is over the draws.

    Source: Barlow Twins (section 3.1 and released code) and VICReg (README): 20 epochs of batches of 256, SGD with
    momentum 0.9 and no weight decay, cosine, all layers in train mode, weights of the linear layer from N(0, 0.01²).
    With a number the part is per cent of the images; with a file, `semi:1percent.txt`, the images that it lists (a name
    or a path on each line, as in SimCLR's lists), and the draws differ in their seeds alone.
    Convention: as many images of each class are drawn as a class would have of an even set, but at least one; a class
    that has fewer gives all. The image numbers of each draw are in the notes, with the updates, the rates and the
    held-out score.
    Deviation: the number of updates decides, and on a small set the papers' batch would be one update an epoch (on
    ImageNet's 1 % there were 50 an epoch). Where 20 epochs of 256 images are fewer than 200 updates, batches have 32
    images, and the epochs go on until there are 200. The rates are chosen among those of both papers for each draw: the
    ones that do best on a fifth of the drawn images after at most 100 updates on the rest. (After 50 the choice is
    worse: W-MSE's encoder lost three points at 10 %, see `experiments/choice_updates.py`.) The papers chose theirs on
    the test images' set, for ImageNet. Where training diverges at the best rates, after more updates than the choice
    had, the next best are taken. The cosine falls with every update, not every epoch.

    Args:
        percent: of the training images, above 0 and at most 100.
        listed: names or paths of the images, in place of a part that is drawn.
        draws: how many.
        epochs: passes over the drawn images, at least.
        batch_size: images of an update.
        fewest_updates: at least so many.
        rates: that are tried.
        held_out: the part of the drawn images that the rates are chosen on.
        choice_updates: at most so many updates for each of the rates that are tried.
        seed: of the draws, and of everything that is drawn after that.
        device: where it trains; by default the CPU.
    """

    percent: float = 1.0
    listed: tuple[str, ...] = ()
    draws: int = 3
    epochs: int = 20
    batch_size: int = 256
    fewest_updates: int = 200
    rates: tuple[Rates, ...] = RATES
    held_out: float = 0.2
    choice_updates: int = 100
    seed: int = 0
    device: str | None = None

    label: ClassVar[str] = "{} % labels"
    parameter: ClassVar[str | None] = "percent"
    usual: ClassVar[tuple[float, ...]] = (1.0, 10.0)
    several_labels: ClassVar[bool] = False
    trains_encoder: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise ValueError(f"{self.percent:g} per cent of the labels; use above 0 and at most 100")
        if min(self.draws, self.epochs, self.batch_size, self.fewest_updates, self.choice_updates) < 1:
            raise ValueError(
                f"draws {self.draws}, epochs {self.epochs}, batch_size {self.batch_size}, fewest_updates "
                f"{self.fewest_updates} and choice_updates {self.choice_updates}; use at least 1 of each"
            )
        if not self.rates or not 0 < self.held_out < 1:
            raise ValueError(f"rates {self.rates} and held_out {self.held_out}; use one pair or more, and a part")

    @classmethod
    def from_text(cls, text: str) -> "SemiSupervised":
        """The protocol on the images that a file lists."""
        path = Path(text)
        if not path.is_file():
            raise NoInput(f"protocol semi:{printable(text)}: give a number (per cent) or a file that lists images")
        limits.check_length(path)
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UnusableData(f"{printable(text)} cannot be read as a list of images: {error}") from error
        return cls(listed=tuple(line.strip() for line in lines if line.strip()))

    def schedule(self, images: int) -> Schedule:
        """How so many images are tuned on."""
        batch = self.batch_size
        if self.epochs * -(-images // batch) < self.fewest_updates:
            batch = min(batch, SMALL_BATCH)
        return Schedule(batch, max(self.epochs * -(-images // batch), self.fewest_updates))

    def predict(
        self,
        encoder: nn.Module,
        train: LabelledSet,
        test: Unlabelled,
        kept: Callable[[int, Callable[[], Drawn]], Drawn],
        say: Say,
    ) -> Drawn:
        chosen = [self.rows(train, draw) for draw in range(self.draws)]
        classes, listed = (len(np.unique(labels)) for labels in (train.labels, train.labels[chosen[0]]))
        if listed < classes:
            say(f"the images have {listed} of {classes} classes, and none of the others can be answered")
        each = []
        for draw, rows in enumerate(chosen):

            def work(draw: int = draw, rows: np.ndarray = rows) -> Drawn:
                return self._tuned(encoder, train.take(rows), test, draw, say)

            each.append(kept(draw, work))
        answers = np.concatenate([drawn.answers for drawn in each if drawn.answers is not None])
        notes = {"draws": self.draws, "each": [dict(drawn.notes) for drawn in each]}
        scores = [drawn.notes["held_out_score"] for drawn in each if drawn.notes.get("held_out_score") is not None]
        if scores:
            notes["held_out_score"] = float(np.mean(scores))
        return Drawn(answers, None, each[0].classes, notes)

    def named(self, train: LabelledSet) -> list[int] | None:
        """The positions of the listed images, ascending; None where a part is drawn."""
        return _listed(self.listed, train).tolist() if self.listed else None

    def rows(self, train: LabelledSet, draw: int) -> np.ndarray:
        """The positions of the images of a draw, ascending.

        Raises:
            UnusableData: the list has images that are not there, or are of one class only.
        """
        if self.listed:
            return _listed(self.listed, train)
        classes = len(np.unique(train.labels))
        count = max(1, round(self.percent / 100 * len(train) / classes))
        return np.sort(np.concatenate(of_each_class(train.labels, count, self.seed, draw)))

    def _tuned(self, encoder: nn.Module, images: LabelledSet, test: Unlabelled, draw: int, say: Say) -> Drawn:
        """What a network that was tuned on these images says of the test images."""
        began, device = time.monotonic(), torch.device(self.device or "cpu")
        classes, targets = np.unique(images.labels, return_inverse=True)
        seed = self.seed + draw
        schedule = self.schedule(len(images))
        notes: dict[str, Any] = {
            "images": images.ids.tolist(),
            "updates": schedule.updates,
            "batch": schedule.rows(len(images)),
        }
        say(
            f"draw {draw + 1} of {self.draws}: {len(images)} images of {len(classes)} classes, {schedule.updates} "
            f"updates of {schedule.rows(len(images))} images"
        )
        progress = Progress(say, f"draw {draw + 1} of {self.draws}", schedule.updates, "updates")
        tried = self._by_score(encoder, images, targets, draw, schedule, device, progress)
        while True:
            rates, score = tried.pop(0)
            try:
                model = tuned(encoder, images, targets, len(classes), rates, schedule, seed, device, progress)
                break
            except Diverged:  # what went well for the short choice may not for six times as many updates
                if not tried:
                    raise
                progress.total += schedule.updates
                say(f"draw {draw + 1}: diverged at rates {rates.encoder:g} and {rates.head:g}; the next best are taken")
        notes |= {"encoder_rate": rates.encoder, "head_rate": rates.head, "held_out_score": score}
        logits = embed(model, test.views(INFERENCE_BATCH), device).numpy()
        say(f"draw {draw + 1} of {self.draws} is done, in {timedelta(seconds=round(time.monotonic() - began))}")
        answers = classes[highest(logits.astype(np.float64), 5)][None]
        return Drawn(answers.astype(np.int64), None, len(classes), notes)

    def _by_score(
        self,
        encoder: nn.Module,
        images: LabelledSet,
        targets: np.ndarray,
        draw: int,
        schedule: Schedule,
        device: torch.device,
        progress: Progress,
    ) -> list[tuple[Rates, float | None]]:
        """All rates, those first that do best on a part of the drawn images, and how well; as they are given, if there
        is nothing to tell by. Of equally good ones the first come first."""
        fit, held = split(targets, self.held_out, np.random.default_rng([self.seed, draw, 1]))
        if len(self.rates) == 1 or not len(held):
            return [(rates, None) for rates in self.rates]
        short = Schedule(schedule.batch, min(schedule.updates, self.choice_updates))
        progress.total += short.updates * len(self.rates)
        others, classes = images.take(held), int(targets.max()) + 1
        scores: list[tuple[Rates, float | None]] = []
        for rates in self.rates:
            try:
                seed = self.seed + draw
                model = tuned(encoder, images.take(fit), targets[fit], classes, rates, short, seed, device, progress)
                found = embed(model, others.views(INFERENCE_BATCH), device).numpy().argmax(axis=1)
                scores.append((rates, float((found == targets[held]).mean())))
            except Diverged:
                scores.append((rates, -1.0))
        return sorted(scores, key=lambda each: -(each[1] or 0.0))


def _listed(names: tuple[str, ...], train: LabelledSet) -> np.ndarray:
    """The positions of images that are named, by their path or by their file's name."""
    where = [train.source.locate(int(image)) for image in train.ids]
    by_path = {path: position for position, path in enumerate(where)}
    by_name: dict[str, list[int]] = {}
    for position, path in enumerate(where):
        by_name.setdefault(Path(path).name, []).append(position)
    found: set[int] = set()
    missing: list[str] = []
    unclear: list[str] = []
    for name in names:
        places = [by_path[name]] if name in by_path else by_name.get(name, [])
        if len(places) == 1:
            found.add(places[0])
        else:
            (unclear if places else missing).append(name)
    for odd, what in ((missing, "are not among the training images"), (unclear, "are the names of several images")):
        if odd:
            raise UnusableData(f"{len(odd)} of {len(names)} listed images {what}, such as {printable(odd[0])}")
    rows = np.array(sorted(found), np.int64)
    if len(np.unique(train.labels[rows])) < 2:
        raise UnusableData(f"the {len(rows)} listed images are of one class; list images of all classes")
    return rows
