"""Whether runs are one but for their seed: their recipes differ in nothing else that matters."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from barlow.encoders import FoundEncoder
from barlow.recipe.request import FREE_ON_RESUME, LENGTH
from barlow.runs.identity import identity_of
from barlow.runs.run import Run, load_recipe_text

NO_DIFFERENCE = frozenset({"seed", *FREE_ON_RESUME, *LENGTH} - {"data.sources", "train.device"})
"""Keys that are no part of what differs in the recipes. Seed, steps and minutes have rows of their own."""

MEASURED = ("data.mean", "data.std")
"""Keys that follow from a sample of the images, which the seed draws, where they were `auto`."""


def flat(content: Any, above: str = "") -> Iterator[tuple[str, Any]]:
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
        yield from flat(value, f"{above}.{key}" if above else str(key))


def follows(key: str, auto: Collection[str]) -> bool:
    """Whether a key of a recipe says nothing of its own: words on where it comes from, or what follows from images.

    Args:
        key: dotted.
        auto: the keys that were `auto` when the run was asked for.
    """
    return key.startswith("source.") or (key in MEASURED and key in auto)


def same_but_for_seed(recipe: Mapping[str, Any], auto: Collection[str], budget: Mapping[str, Any]) -> str:
    """A text that is the same for runs that differ in their seed alone.

    Args:
        recipe: flat.
        auto: as for `follows`.
        budget: how long the run was to be, as it was asked for.
    """
    same = {key: value for key, value in recipe.items() if key not in NO_DIFFERENCE and not follows(key, auto)}
    return repr([sorted(same.items()), sorted(budget.items())])


def kin(encoders: Sequence[FoundEncoder]) -> list[str]:
    """For each encoder a text that it shares with those that are the same but for their seed, and with no others.

    These are encoders of runs of one recipe, at the same step; and one untrained network, drawn several times.
    """
    seen: dict[tuple[str, str], int] = {}
    found = []
    for i, each in enumerate(encoders):
        name, seed = _recipe_and_seed(each) or (f"encoder {i}", "")
        repeated = seen[name, seed] = seen.get((name, seed), -1) + 1
        found.append(f"{name} {repeated}")  # one that is named twice is no second seed
    return found


def _recipe_and_seed(encoder: FoundEncoder) -> tuple[str, str] | None:
    """None where an encoder does not say."""
    if encoder.kind == "untrained":
        name, _, seed = encoder.name.partition("@")
        return name, seed or "0"
    if encoder.run is None:
        return None
    try:
        recipe = dict(flat(load_recipe_text(encoder.run / "recipe.yaml")))
        identity = identity_of(Run(encoder.run))
    except (OSError, ValueError):
        return None
    asked = recipe if identity is None else dict(flat(identity.asked))
    auto = {key for key, value in asked.items() if value == "auto"}
    extended = identity is not None and bool(identity.extensions)
    budget = {key: (recipe if extended else asked).get(key) for key in LENGTH}
    return f"{same_but_for_seed(recipe, auto, budget)} {encoder.step}", str(recipe.get("seed"))
