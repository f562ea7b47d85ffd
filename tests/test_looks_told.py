"""A look before an epoch is told the progress of the run if it asks for it."""

from typing import Any

from barlow import looks


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
    for objective in (told, untold):
        looks.had(objective, lambda: None, 0.25, begins_epoch=True)
        looks.had(objective, lambda: None, 0.5, begins_epoch=False)
    assert told.seen == [0.25]
    assert untold.seen == 1
