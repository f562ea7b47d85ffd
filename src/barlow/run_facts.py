"""What the folder of a run says of it: its recipe, what it reached, and what it cost.

Everything is read, and nothing computed anew.
"""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from barlow import limits
from barlow.identity import identity_of
from barlow.printable import one_line, printable
from barlow.probes.report import ENCODER
from barlow.recipe.request import FREE_ON_RESUME, LENGTH
from barlow.record import Record, read, value_of
from barlow.run import Run
from barlow.seals import digest_of

NO_DIFFERENCE = frozenset({"seed", *FREE_ON_RESUME, *LENGTH} - {"data.sources", "train.device"})
"""Keys that are no part of what differs in the recipes. Seed, steps and minutes have rows of their own."""

MEASURED = ("data.mean", "data.std")
"""Keys that follow from a sample of the images, which the seed draws, where they were `auto`."""

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
        same = {key: value for key, value in self.recipe.items() if key not in NO_DIFFERENCE and not self.follows(key)}
        return repr([sorted(same.items()), sorted(self.budget.items()), self.evaluation.test])

    def follows(self, key: str) -> bool:
        """Whether a key says nothing of its own: words on where a recipe comes from, or what follows from images."""
        return key.startswith("source.") or (key in MEASURED and key in self.auto)


def facts_of(path: Path) -> RunFacts:
    """What a folder says.

    Raises:
        NoRun: it is no run.
        BrokenRun: its own files are damaged, or were changed by hand.
    """
    run = Run.open(path)
    identity = identity_of(run)
    record = read(path)
    recipe = dict(_flat(record.recipe))
    asked = dict(_flat(record.asked)) if record.asked else recipe
    extended = identity is not None and bool(identity.extensions)
    rates = [rate for _, rate in record.curve("images_per_second")]
    images, steps = value_of(record.data, "usable"), value_of(recipe, "train.steps")
    batch = value_of(recipe, "train.batch_size")
    evaluations, notes = _evaluations(record)
    return RunFacts(
        run=printable(path),
        recipe=recipe,
        auto=frozenset(key for key, value in asked.items() if value == "auto"),
        budget={key: (recipe if extended else asked).get(key) for key in LENGTH},
        steps=None if steps is None else int(steps),
        epochs=None if steps is None or batch is None or not images else steps * batch / images,
        seconds=record.seconds,
        images_per_second=statistics.median(rates) if rates else None,
        parameters=_parameters(path),
        images=None if images is None else int(images),
        evaluations=evaluations,
        notes=notes,
    )


def _flat(content: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys. Items of a list that have a kind are called by it, as `views.0.grayscale.p`, so that recipes with
    other orders of the same ops can be compared; the list itself is then the order of its kinds."""
    inner: Mapping[Any, Any] | None = None
    if isinstance(content, Mapping) and content:
        inner = content
    elif isinstance(content, list) and any(isinstance(each, Mapping | list) for each in content):
        kinds = [each.get("kind") if isinstance(each, Mapping) else None for each in content]
        if len({str(kind) for kind in kinds}) == len(kinds) and None not in kinds:
            yield above, [str(kind) for kind in kinds]
            inner = {
                kind: {key: value for key, value in each.items() if key != "kind"}
                for kind, each in zip(kinds, content, strict=True)
            }
        else:
            inner = dict(enumerate(content))
    if inner is None:
        yield above, content
        return
    for key, value in inner.items():
        yield from _flat(value, f"{above}.{key}" if above else str(key))


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
