"""Looks at a run from outside while it trains: the same few images in the same views, again and again.

A line of monitor.jsonl is what the diagnostics say of their features and embeddings, the spectra, the cross-correlation
of two views, and, where labelled images were named, how good the features are. Nothing of it is trained on or chosen
by. Networks are in eval mode meanwhile, and nothing of them changes.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from barlow.data.counting import Counted
from barlow.data.fixed_views import FixedViews
from barlow.data.labelled import LabelledSet, read_labelled
from barlow.data.sources import FoldersOrName
from barlow.diagnostics import diagnose
from barlow.diagnostics.rank import singular_values
from barlow.linalg import standardize
from barlow.planning.plan import Plan
from barlow.planning.preparation import Prepared
from barlow.probes.features import FeatureSet, embed
from barlow.probes.intervals import Score
from barlow.probes.splits import split, subset
from barlow.protocols.knn import WeightedKNN
from barlow.telling import Say, silent
from barlow.training.learner import Learner
from barlow.training.step_log import StepLog
from barlow.training.watchers import Moment
from barlow.wording import percent

SHARE, SHARE_OF_SCORES = 0.009, 0.02
"""Of a run's time that diagnostics, and scores, may take; the first and the last of a run come anyway. What is left of
a hundredth is for the log and the doctor."""

DRAWS = 2
"""Fixed views of each image."""

READING_SECONDS = 0.5
"""In which the images are read. Of large photographs these are fewer, and each line says how many."""

SIDE = 64
"""Cells of the cross-correlation as it is stored."""

SPECTRUM = 512
"""Most singular values that are stored."""

LEARN, HELD = 2_000, 500
"""Labelled images at most that kNN learns from, and is measured on."""

Line = dict[str, Any]


@dataclass
class Scores:
    """kNN on a held-out part of labelled training images."""

    images: LabelledSet
    seed: int
    learn: np.ndarray = field(init=False)
    held: np.ndarray = field(init=False)
    """Positions in the images."""

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.seed)
        labels = self.images.labels
        rows = subset(labels, LEARN + HELD, generator)
        learn, held = split(labels[rows], HELD / (LEARN + HELD), generator)
        self.learn, self.held = rows[learn], rows[held]

    def of(self, encoder: nn.Module, batch_size: int, device: torch.device) -> Line:
        """Each metric of kNN with its interval, of the features that the encoder itself has."""
        learn, held = (
            FeatureSet(
                embed(encoder, self.images.views(batch_size, rows), device),
                self.images.labels[rows],
                self.images.ids[rows],
            )
            for rows in (self.learn, self.held)
        )
        return {f"knn.{name}": asdict(score) for name, score in WeightedKNN()(learn, held).items()}


@dataclass
class Budget:
    """Lets something happen as often as a share of the time that has passed allows."""

    share: float
    began: float = field(default_factory=time.monotonic)
    spent: float = 0.0
    last: float = 1.0
    """Seconds that it took the last time, or is taken to take the first time."""

    def allows(self, now: float) -> bool:
        """Whether there is time for it now, and for the last one of a run, which comes anyway."""
        return self.spent + 2 * self.last <= self.share * (now - self.began)

    def took(self, seconds: float) -> None:
        self.spent, self.last = self.spent + seconds, seconds


@dataclass
class Monitor:
    """A watcher that reads the networks on fixed views when its share of time allows, and after the last step."""

    log: StepLog
    learner: Learner
    views: FixedViews
    method_views: int
    """How many views the method is used to."""
    batch_size: int
    scores: Scores | None = None
    held_out: bool = False
    """Whether the images of the views are such that no step sees."""
    diagnostics_budget: Budget = field(default_factory=lambda: Budget(SHARE))
    scores_budget: Budget = field(default_factory=lambda: Budget(SHARE_OF_SCORES))
    say: Say = silent
    """Told the scores that were measured first and last."""
    latest: Line = field(default_factory=dict)
    """The newest line."""
    _scored: list[tuple[int, str, Score]] = field(default_factory=list, init=False)
    """The first scores that were measured in this start and the newest ones: the step, and the first of the metrics."""
    _took: float = field(default=0.0, init=False)

    def __call__(self, moment: Moment) -> None:
        last, now = moment.step == moment.total, time.monotonic()
        read = last or self.diagnostics_budget.allows(now)
        measure = self.scores is not None and (last or self.scores_budget.allows(now))
        if read or measure:
            moment.settle()
            self.look(moment.step, read=read, measure=measure)
        if last:
            self._tell_scores()

    def look(self, step: int, *, read: bool = True, measure: bool = True) -> None:
        """Writes a line of what the networks are after so many steps."""
        self._took = 0.0
        line: Line = {}
        if read and len(self.views) > 1:
            line |= self._timed(self.diagnostics_budget, self.read)
        if measure and self.scores is not None:
            line |= self._timed(self.scores_budget, self._measure)
        if line:
            now = time.monotonic() - self.diagnostics_budget.began
            self.latest = {"step": step, "seconds": round(now, 2), "took": round(self._took, 3), **line}
            self.log.append(self.latest)
        if scores := line.get("scores"):
            name, score = next(iter(scores.items()))
            self._scored = [*self._scored[:1], (step, name, Score(**score))]

    @property
    def score(self) -> str | None:
        """The newest score in few characters, for the live line."""
        return f"{self._scored[-1][1]} {percent(self._scored[-1][2].value)}" if self._scored else None

    def _tell_scores(self) -> None:
        """Says what was measured last, and what it was in the beginning."""
        if not self._scored:
            return
        (first, _, before), (step, name, now) = self._scored[0], self._scored[-1]
        between = f"{percent(now.low)} to {percent(now.high)}"
        since = f"; it was {percent(before.value)} at step {first:,}" if first < step else ""
        self.say(f"scores   {name} {percent(now.value)} at step {step:,} ({between}){since}")

    def _timed(self, budget: Budget, function: Callable[[], Line]) -> Line:
        began = time.monotonic()
        try:
            return function()
        finally:
            budget.took(time.monotonic() - began)
            self._took += budget.last

    def _measure(self) -> Line:
        assert self.scores is not None
        device = self.learner.world.device
        return {"scores": self.scores.of(self.learner.method.encoder, self.batch_size, device)}

    def read(self) -> Line:
        """What the diagnostics say of the networks as they are, their spectra, and the cross-correlation."""
        images = {"count": len(self.views), "views": DRAWS, "held_out": self.held_out}
        found: dict[str, Any] = {"images": images, "diagnostics": {}, "spectrum": {}}
        draws = [self._outputs(draw) for draw in range(DRAWS)]
        for name in draws[0]:
            views = torch.stack([each[name] for each in draws], dim=1)
            if bool(views.isfinite().all()):
                found["diagnostics"][name] = {which: asdict(one) for which, one in diagnose(views).items()}
                found["spectrum"][name] = spectrum(views[:, 0])
        if "embeddings" in found["diagnostics"]:
            found["cross_correlation"] = cross_correlation(*(each["embeddings"] for each in draws[:2]))
        return found

    def _outputs(self, draw: int) -> dict[str, Tensor]:
        """Features and embeddings of one draw of all images, on the CPU."""
        device, rows = self.learner.world.device, []
        for view in self.views.batches(draw, batch_size=self.batch_size, device=device):
            rows.append(self.learner.outputs_of(view, self.method_views))
        names = rows[0].keys()
        return {name: torch.cat([row[name] for row in rows]) for name in names}


def monitor_of(
    plan: Plan,
    prepared: Prepared,
    learner: Learner,
    log: StepLog,
    labelled: FoldersOrName | None,
    say: Say,
    counted: Counted,
) -> Monitor | None:
    """The monitor of a run; None if its recipe wants none.

    Args:
        plan: of the run.
        prepared: its images.
        learner: what is looked at.
        log: where lines go.
        labelled: images with labels, for scores.
        say: told what is looked at.
        counted: told how many images have been read.

    Raises:
        ValueError: the labelled images cannot be used.
    """
    images = plan.recipe.train.monitor_images
    if not images and labelled is None:
        return None
    apart = len(prepared.held_out) > 0
    views = FixedViews(
        prepared.source,
        prepared.held_out if apart else prepared.ids,
        prepared.pipeline,
        seed=plan.recipe.seed,
        images=images,
        draws=DRAWS,
        seconds=READING_SECONDS,
        workers=max(1, plan.workers),
    )
    scores = None
    if labelled is not None:
        read = read_labelled(
            labelled, "train", plan.preprocessing, plan.recipe.data.max_bad, counted, called="probe-with"
        )
        scores = Scores(read, plan.recipe.seed)
        say(
            f"scores   kNN learns from {len(scores.learn):,} of the labelled images, and is measured on "
            f"{len(scores.held):,} others, as often as {SHARE_OF_SCORES:.0%} of the time allows"
        )
    if len(views) > 1:
        say(
            f"monitor  {len(views):,} {'held-out' if apart else 'training'} images in {DRAWS} fixed views each, as "
            f"often as {SHARE:.0%} of the time allows (monitor.jsonl)"
        )
    return Monitor(log, learner, views, len(prepared.pipeline.views), plan.batch_size, scores, held_out=apart, say=say)


def spectrum(x: Float[Tensor, "n d"]) -> list[float]:
    """The singular values of the centred rows, largest first, to five digits; of very many, some at even ratios."""
    values = singular_values(x, centred=True)
    if len(values) > SPECTRUM:
        places = np.unique(np.geomspace(1, len(values), SPECTRUM).round().astype(int)) - 1
        values = values[places]
    return [float(f"{value:.5g}") for value in values.tolist()]


def cross_correlation(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Line:
    """The correlations of each feature of one view with each of the other, as SIDE × SIDE numbers at most.

    Of more features, a cell is the entry of largest magnitude in its block. So the diagonal stays visible, and so does
    a single pair that is redundant.
    """
    x, y = (standardize(each.float(), 1e-5).x for each in (a, b))
    n, d = x.shape
    side = min(d, SIDE)
    edges = np.linspace(0, d, side + 1).round().astype(int)
    cells = np.zeros((side, side))
    for i, (top, bottom) in enumerate(pairwise(edges)):
        block = (x[:, top:bottom].T @ y / n).numpy()
        for j, (left, right) in enumerate(pairwise(edges)):
            part = block[:, left:right]
            cells[i, j] = part.flat[np.abs(part).argmax()]
    return {"d": d, "side": side, "values": [float(f"{value:.3g}") for value in cells.ravel()]}
