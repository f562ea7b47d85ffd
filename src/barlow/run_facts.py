"""What the folder of a run says of it: its recipe, what it reached, and what it cost.

Everything is read, and nothing computed anew.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from barlow import limits
from barlow.advice import standing
from barlow.data.epochs import epochs_of
from barlow.printable import one_line, printable
from barlow.probes.report import ENCODER
from barlow.recipe.request import LENGTH
from barlow.record import Record, read, value_of
from barlow.runs.identity import identity_of
from barlow.runs.run import Run
from barlow.runs.same_recipe import flat, follows, same_but_for_seed
from barlow.seals import digest_of

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
        notes: what of the folder could not be read, and whether it was not evaluated.
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
    notes: list[str]
    state: str | None = None
    """The word on the run at the end of its log; None where it has none."""
    why: str | None = None
    """What is wrong with it."""

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
    record = read(path)
    recipe = dict(flat(record.recipe))
    asked = dict(flat(record.asked)) if record.asked else recipe
    extended = identity is not None and bool(identity.extensions)
    rates = [rate for _, rate in record.curve("images_per_second")]
    images, steps = value_of(record.data, "usable"), value_of(recipe, "train.steps")
    batch = value_of(recipe, "train.batch_size")
    evaluations, notes = _evaluations(record)
    state, why = _standing(record)
    epochs = None
    if steps is not None and batch is not None and images:
        trained = int(images) - int(value_of(record.data, "held_out") or 0)
        epochs = epochs_of(int(steps), trained, int(batch))
    return RunFacts(
        run=printable(path),
        recipe=recipe,
        auto=frozenset(key for key, value in asked.items() if value == "auto"),
        budget={key: (recipe if extended else asked).get(key) for key in LENGTH},
        steps=None if steps is None else int(steps),
        epochs=epochs,
        seconds=record.seconds,
        images_per_second=statistics.median(rates) if rates else None,
        parameters=_parameters(path),
        images=None if images is None else int(images),
        evaluations=evaluations,
        notes=notes,
        state=state,
        why=why,
    )


def _standing(record: Record) -> tuple[str | None, str | None]:
    """The word on a run, and what is wrong with it."""
    if (found := standing(record.ran, record.log)) is None:
        return None, None
    word, sick = found
    if sick is not None:
        return word, f"{sick.name}: {sick.evidence}"
    why = record.log[-1].get("why")
    return word, why.partition(". ")[0] if isinstance(why, str) else None


def _parameters(path: Path) -> int | None:
    """Of the encoder's network, by the header of its file."""
    try:
        tensors = limits.tensors_in(path / "encoder" / "model.safetensors")
    except (OSError, ValueError):
        return None
    own = {name: tensor.items for name, tensor in tensors.items() if not name.endswith(BUFFERS)}
    of_network = {name: items for name, items in own.items() if name.startswith("network.")}
    return sum((of_network or own).values()) or None


def _evaluations(record: Record) -> tuple[list[Evaluation], list[str]]:
    """What is known of a run's evaluations, the newest first; and what cannot be read."""
    found, notes = list[Evaluation](), list(record.notes)
    newest = [] if record.results is None else [record.results]
    for report in [*newest, *reversed(record.evaluations)]:
        try:
            found.append(_evaluation(report))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if report is record.results:
                notes.append(f"the evaluation of {record.command} cannot be read ({one_line(error)})")
    if not found and not notes:
        notes.append(f"{record.command} was not evaluated: barlow evaluate {record.command}")
    return found, notes


def _evaluation(report: Mapping[str, Any]) -> Evaluation:
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
