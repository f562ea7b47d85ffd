"""A look before an epoch is told the progress of the run if it asks for it."""

from types import SimpleNamespace
from typing import Any

from barlow.training import looks


class Told:
    """An objective that asks."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def before_epoch(self, embed: Any, *, progress: float) -> None:
        self.seen.append(progress)


class Untold:
    """One that does not."""

    def __init__(self) -> None:
        self.seen = 0

    def before_epoch(self, embed: Any) -> None:
        self.seen += 1


def test_a_hook_that_asks_for_progress_is_told_it_at_the_beginning_of_an_epoch() -> None:
    told, untold = Told(), Untold()
    images: Any = SimpleNamespace(embedded=lambda step: None, groups=lambda: iter(()))
    for objective in (told, untold):
        looks.had(objective, images, 0, 0.25, begins_epoch=True)
        looks.had(objective, images, 1, 0.5, begins_epoch=False)
    assert told.seen == [0.25]
    assert untold.seen == 1


class Counting:
    """One that looks before a run."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def before_run(self, groups: Any) -> None:
        self.seen.append(len(list(groups())))


def test_a_look_before_a_run_comes_before_its_first_step_alone() -> None:
    counting = Counting()
    images: Any = SimpleNamespace(embedded=lambda step: None, groups=lambda: iter([[], []]))
    for step in range(3):
        assert looks.due(counting, step, 0.0, begins_epoch=True) is (step == 0)
        looks.had(counting, images, step, 0.0, begins_epoch=True)
    assert counting.seen == [2]
