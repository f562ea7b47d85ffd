"""What the folder of a run says of it: its recipe, what it reached, and what it cost.

Everything is read, and nothing computed anew.
"""

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from barlow import limits, storage
from barlow.identity import identity_of
from barlow.printable import one_line, printable
from barlow.probes.report import ENCODER
from barlow.recipe.request import LENGTH
from barlow.results import HOME, NEWEST
from barlow.run import Run, load_recipe_text
from barlow.same_recipe import flat, follows, same_but_for_seed
from barlow.seals import digest_of

MOST_EARLIER = 50
"""Evaluations that are looked at beside the newest one."""

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""How the names of an encoder's tensors end that are no parameters."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation of a run says.

    Args:
        scores: of the encoder: by probe and metric the value, its interval and the number of test images.
        gains: likewise over the best baseline.
        test: what tells its test images from others; None where there was no evaluation.
        test_images: how many there are, and where.
    """

    scores: dict[str, dict[str, Any]]
    gains: dict[str, dict[str, Any]]
    test: str | None
    test_images: str | None


@dataclass(frozen=True)
class RunFacts:
    """What the folder of a run says.

    Args:
        run: the folder, as it was named.
        recipe: the resolved recipe, its dotted keys.
        auto: the keys that were `auto` when the run was asked for.
        budget: how long it was to be, as it was asked for: minutes, epochs or steps.
        steps: of the whole run.
        epochs: likewise; None where the images are not counted.
        seconds: that its logged steps took, over all its starts; None without a log.
        images_per_second: the median over its log; None without one.
        parameters: of its encoder's network; None where it has no encoder yet.
        images: that it was trained on.
        evaluations: the newest first. Columns show the first one.
        unknown: why there is none, if it is so.
    """

    run: str
    recipe: dict[str, Any]
    auto: frozenset[str]
    budget: dict[str, Any]
    steps: int | None
    epochs: float | None
    seconds: float | None
    images_per_second: float | None
    parameters: int | None
    images: int | None
    evaluations: list[Evaluation]
    unknown: str | None

    @property
    def evaluation(self) -> Evaluation:
        """The one that is shown; empty, where there is none."""
        return self.evaluations[0] if self.evaluations else Evaluation({}, {}, None, None)

    def shown_on(self, test: str) -> "RunFacts":
        """The same with its newest evaluation on some test images in front; as it is, where it has none."""
        first = sorted(self.evaluations, key=lambda each: each.test != test)
        return replace(self, evaluations=first)

    @property
    def seed(self) -> Any:
        return self.recipe.get("seed")

    @property
    def kind(self) -> str:
        """The same for runs that differ in their seed alone."""
        return repr([same_but_for_seed(self.recipe, self.auto, self.budget), self.evaluation.test])

    def follows(self, key: str) -> bool:
        """Whether a key says nothing of its own: words on where a recipe comes from, or what follows from images."""
        return follows(key, self.auto)


def facts_of(path: Path) -> RunFacts:
    """What a folder says.

    Raises:
        NoRun: it is no run.
        BrokenRun: its own files are damaged, or were changed by hand.
    """
    run = Run.open(path)
    identity = identity_of(run)
    recipe = dict(flat(load_recipe_text(path / "recipe.yaml")))
    asked = recipe if identity is None else dict(flat(identity.asked))
    extended = identity is not None and bool(identity.extensions)
    log = run.metrics()
    rates = [rate for line in log if (rate := _as_number(line.get("images_per_second"))) is not None]
    images = _images(path)
    steps = _as_number(recipe.get("train.steps"))
    batch = _as_number(recipe.get("train.batch_size"))
    evaluations, unknown = _evaluations(path)
    return RunFacts(
        run=printable(path),
        recipe=recipe,
        auto=frozenset(key for key, value in asked.items() if value == "auto"),
        budget={key: (recipe if extended else asked).get(key) for key in LENGTH},
        steps=None if steps is None else int(steps),
        epochs=None if steps is None or batch is None or not images else steps * batch / images,
        seconds=_seconds(log),
        images_per_second=statistics.median(rates) if rates else None,
        parameters=_parameters(path),
        images=images,
        evaluations=evaluations,
        unknown=unknown,
    )


def _as_number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _seconds(log: Sequence[Mapping[str, Any]]) -> float | None:
    """What the steps took, over all starts: the clock of the log begins anew at each."""
    read = [seconds for line in log if (seconds := _as_number(line.get("seconds"))) is not None]
    if not read:
        return None
    return sum(before for before, after in zip(read, [*read[1:], 0.0], strict=True) if after < before)


def _images(path: Path) -> int | None:
    try:
        usable = storage.read_sealed(path / "data.json")["usable"]
    except (OSError, ValueError, KeyError):
        return None
    number = _as_number(usable)
    return None if number is None else int(number)


def _parameters(path: Path) -> int | None:
    """Of the encoder's network, by the header of its file."""
    try:
        tensors = limits.tensors_in(path / "encoder" / "model.safetensors")
    except (OSError, ValueError):
        return None
    own = {name: tensor.items for name, tensor in tensors.items() if not name.endswith(BUFFERS)}
    of_network = {name: items for name, items in own.items() if name.startswith("network.")}
    return sum((of_network or own).values()) or None


def _evaluations(path: Path) -> tuple[list[Evaluation], str | None]:
    """What is known of a run's evaluations, the newest first; and why nothing is, if it is so."""
    home = path / HOME
    try:
        found = [_evaluation(home / NEWEST)]
    except FileNotFoundError:
        return [], f"{path} was not evaluated: barlow evaluate {path}"
    except _UNREADABLE as error:
        return [], f"the evaluation of {path} cannot be read ({one_line(error)})"
    earlier = sorted(home.glob("results-*.json"), key=lambda file: (-file.lstat().st_mtime, file.name))
    for file in earlier[:MOST_EARLIER]:
        with contextlib.suppress(*_UNREADABLE):
            found.append(_evaluation(file))
    return found, None


_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)


def _evaluation(file: Path) -> Evaluation:
    report = storage.read_sealed(file)
    images = report["images"]["test"]
    source, count = str(images["source"]), int(images["count"])
    # A folder may be called by another path each time; its name, the number of its images and their labels are enough.
    names = [Path(part).name for part in source.split(", ")]
    return Evaluation(
        scores={
            f"{probe}.{metric}": _score(score)
            for probe, outcome in report["sets"][ENCODER].items()
            for metric, score in outcome["metrics"].items()
        },
        gains={name: _score(gain) for name, gain in report["gain"].items()},
        test=digest_of([names, count, images["labels"]]),
        test_images=f"{count:,} of {source}",
    )


def _score(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: float(found[key]) for key in ("value", "low", "high")} | {"n": int(found["n"])}
