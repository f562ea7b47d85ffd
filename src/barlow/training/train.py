"""The loop. What a step is, `barlow.training.learner` knows; what is set up around it, `barlow.pretraining`."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from barlow.data.loader import Batch
from barlow.training.learner import Learner
from barlow.training.watchers import Moment, Watcher


@dataclass(frozen=True)
class Course:
    """How a run goes: its updates, and the rate of each."""

    total: int
    """Updates of the run."""
    peak: float
    """Rate that the schedule's values are multiples of."""
    schedule: Callable[[int, int], float]
    """As in `barlow.optim.schedules`."""
    scheduled: int | None = None
    """Updates that the schedule is for; None: those of the run. Where the run makes more, the rate stays as it ends."""

    def rate(self, step: int) -> float:
        """The learning rate of the update that follows `step` updates."""
        length = self.scheduled or self.total
        return self.peak * self.schedule(min(step, length), length)

    def progress(self, step: int) -> float:
        """The share of the schedule that is done before that update."""
        return min(step / (self.scheduled or self.total), 1.0)


def train(learner: Learner, batches: Iterable[Batch], course: Course, watchers: Sequence[Watcher]) -> None:
    """Makes a step of every batch.

    Anything that wants a line here first tries to be a watcher, a view op, a method or an objective.
    """
    with learner.training():
        before = time.monotonic()
        for batch in batches:
            waited = time.monotonic() - before
            outcome = learner.step(batch, course.rate(batch.step), course.progress(batch.step))
            after = time.monotonic()
            moment = Moment(batch, outcome, course.total, learner.world.size, waited, after - before, learner.settle)
            before = after
            for watcher in watchers:
                watcher(moment)
        learner.settle()
