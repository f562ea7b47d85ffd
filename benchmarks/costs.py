"""What guards and monitors cost: their own processor seconds over those of a step of `barlow pretrain`.

A guard or a monitor that comes later is an entry in COSTS. Its functions are named where the loop looks them up.
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
        ("torch.nn.utils:get_total_norm", "barlow.learner:guard"),
        0.03,
    ),
    Watched("live_line", "the live line, on a terminal", ("barlow.watchers:LiveLine.__call__",), 0.01),
    Watched(
        "log",
        "metrics.jsonl, with the statistics of features and embeddings, every 50 steps",
        ("barlow.watchers:MetricsLog.__call__",),
        0.02,
        50,
    ),
]
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

    return [row(one) for one in watched]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
