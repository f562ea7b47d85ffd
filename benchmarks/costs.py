"""What guards and monitors cost: their own processor seconds over those of a step of `barlow pretrain`.

A guard or a monitor that comes later is an entry in COSTS. Its functions are named where the loop looks them up. What
keeps a run from storing or using something wrong is an entry in PER_STEP or PER_CHECKPOINT, and they are measured
together, too.

Looking for damage in images that are read during training has no part here: it happens in other processes, and
`damage.py` measures it. The time of a checkpoint's checks is spread over the minutes from one to the next.
"""

import atexit
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import step
from clock import Cost


@dataclass(frozen=True)
class Watched:
    """Functions that together are one guard or monitor."""

    name: str
    what: str
    functions: tuple[str, ...]
    at_most: float
    steps: int = 10
    """Of one piece: a multiple of what lies between two times that it is due."""


COSTS = [
    Watched(
        "guard",
        "refusing a loss or a gradient that is not finite: the gradient's norm, and reading it",
        ("barlow.training.learner:norms", "barlow.training.learner:guard"),
        0.03,
    ),
    Watched("live_line", "the live line, on a terminal", ("barlow.training.live:LiveLine.__call__",), 0.01),
    Watched(
        "log",
        "metrics.jsonl, with the statistics of features and embeddings, every 50 steps",
        ("barlow.training.watchers:MetricsLog.__call__",),
        0.02,
        50,
    ),
]
PER_STEP = (
    "barlow.training.learner:norms",
    "barlow.training.learner:guard",
    "barlow.stopping:StopIfAsked.__call__",
    "barlow.training.step_log:sealed",
    "barlow.watchdog:Doing",
    "barlow.watchdog:Watch.verdict",
)
"""Of every step: the gradient's norm and whether it and the loss are finite; whether somebody asked to stop; the digest
of a line of the log; and the watchdog: what `Watch.steps` and `Watch.doing` write down of what is begun, and the look
that its thread takes at that. (`Watch.steps` itself waits for the images, which is no cost of its.)"""
PER_CHECKPOINT = {"barlow.pretraining:not_finite": 1, "barlow.storage:damage_in": 2}
"""Whether all weights are finite; and reading back what was written, whose digest is taken twice."""
GUARDS_AT_MOST = 0.01
MONITOR_AND_DOCTOR_AT_MOST = 0.01
LOG_STEPS = 50
"""From one line of the log to the next, as the recipes have it: a piece has one."""
CHECKPOINT_SECONDS = 300
"""From one checkpoint to the next, as the recipes have it."""

TERMINAL = {"FORCE_COLOR": "1"}
"""By this rich takes standard error for a terminal, where the line is rewritten twice a second."""


def rows(smoke: bool) -> Sequence[measure.Part]:
    """The rows, in one child process: a clock is around all their functions. A quick look has the rows of few steps."""
    watched = [one for one in COSTS if not smoke or one.steps <= 10]
    case = replace(step.SMALL, images=1024) if smoke else step.SMALL
    sides = step.Sides(case, TERMINAL, [name for one in watched for name in one.functions])
    atexit.register(sides.close)

    def row(one: Watched) -> measure.Part:
        def piece() -> tuple[Cost, Cost]:
            told = sides.child("--command").ask(steps=one.steps)
            own = sum(told["parts"][name] for name in one.functions)
            return Cost(own, own), Cost(told["wall"], told["processor"])

        return measure.Part(
            name=f"cost_{one.name}",
            what=f"{one.what}; {case.what}",
            piece=piece,
            whole_name="the whole step",
            at_most=one.at_most,
            warmups=0,
            seconds=60,
            restart=sides.close,
        )

    return [row(one) for one in watched] + ([] if smoke else [monitored(), *map(together, step.OF_GUARDS)])


def monitored() -> measure.Part:
    """The monitor, and the doctor with the log that it reads.

    The monitor looks once in half a minute or so, too rarely for a piece: as often as a share of the wall clock's time
    allows. So a look is measured by itself, in a process that does nothing else, and as many of them as the steps of a
    piece allow are added to them.
    """
    budget, log = "barlow.training.monitor:Budget.allows", "barlow.training.watchers:MetricsLog.__call__"
    sides = step.Sides(replace(step.SMALL, steps=LOG_STEPS), parts=[budget, log])
    atexit.register(sides.close)

    def piece() -> tuple[Cost, Cost]:
        from barlow.training.monitor import SHARE

        told = sides.child("--command").ask(steps=LOG_STEPS)
        look = sides.child("--look").cost(steps=1)
        assert look.processor is not None
        looks = SHARE * told["wall"] / look.wall
        own = told["parts"][budget] + told["parts"][log] + looks * look.processor
        return Cost(own, own), Cost(told["wall"], told["processor"])

    return measure.Part(
        name="cost_monitor_and_doctor",
        what="monitor.jsonl (500 images in two views), and metrics.jsonl with what the doctor reads and says, every "
        f"{LOG_STEPS} steps; {step.SMALL.what}",
        piece=piece,
        whole_name="the whole step",
        at_most=MONITOR_AND_DOCTOR_AT_MOST,
        warmups=0,
        seconds=90,
        restart=sides.close,
    )


def together(case: step.Case) -> measure.Part:
    """All guards of a recipe's steps."""
    sides = step.Sides(case, parts=[*PER_STEP, *PER_CHECKPOINT])
    atexit.register(sides.close)

    def piece() -> tuple[Cost, Cost]:
        told = sides.child("--command").ask(steps=case.steps)
        per_checkpoint = case.steps * sum(told["parts"][part] * times for part, times in PER_CHECKPOINT.items())
        steps_between = CHECKPOINT_SECONDS / told["wall"]
        own = sum(told["parts"][part] for part in PER_STEP) + per_checkpoint / steps_between
        return Cost(own, own), Cost(told["wall"], told["processor"])

    return measure.Part(
        name=f"cost_{case.name}",
        what=f"all guards of a step, and of a checkpoint every {CHECKPOINT_SECONDS / 60:g} minutes; {case.what}",
        piece=piece,
        whole_name="the whole step",
        at_most=GUARDS_AT_MOST,
        warmups=0,
        seconds=120,
        restart=sides.close,
    )


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
