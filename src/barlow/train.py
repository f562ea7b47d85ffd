"""The loop. What a step is, `barlow.learner` knows; what is set up around it, `barlow.pretraining`."""

import time
from collections.abc import Callable, Iterable, Sequence

from barlow.data.loader import Batch
from barlow.learner import Learner
from barlow.watchers import Moment, Watcher


def train(
    learner: Learner,
    batches: Iterable[Batch],
    rate: Callable[[int, int], float],
    total: int,
    watchers: Sequence[Watcher],
) -> None:
    """Makes a step of every batch. `rate(step, total)` is the learning rate of the update that follows `step` updates.

    Anything that wants a line here first tries to be a watcher, a view op, a method or an objective.
    """
    with learner.training():
        before = time.monotonic()
        for batch in batches:
            waited = time.monotonic() - before
            outcome = learner.step(batch, rate(batch.step, total), batch.step / total)
            after = time.monotonic()
            moment = Moment(batch, outcome, total, learner.world.size, waited, after - before, learner.settle)
            before = after
            for watcher in watchers:
                watcher(moment)
        learner.settle()
