"""The model card of an export (README.md): what the encoder is, how it is loaded, how good it is, and what it is not.

Whatever a run does not say, the card says is not known. Names of a stranger's folders have no control characters, and
none of Markdown's or HTML's.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from barlow import __version__
from barlow.exports._proof import Proof
from barlow.exports._protocol import Material, Use
from barlow.printable import printable
from barlow.recipe.files import as_yaml
from barlow.run_facts import RunFacts
from barlow.size import words

UNKNOWN_LICENSE = "unknown"

LONGEST_NOTE = 200
"""Of words that an encoder's description brings along."""


def card(
    material: Material,
    *,
    name: str,
    license: str | None,
    uses: Sequence[Use],
    proofs: Sequence[Proof],
    notes: Sequence[str],
    facts: RunFacts | None,
    recipe: dict[str, Any] | None,
    images: str,
) -> str:
    """The text of README.md.

    Args:
        material: what was exported.
        name: what a person calls the encoder.
        license: as Hugging Face writes them (`apache-2.0`); None if nobody has said.
        uses, proofs: how it is loaded, and what came out, in the same order.
        notes: what is different there.
        facts: of the run that it comes from; None if it comes from none.
        recipe: of that run.
        images: what the proof was made on, in words.
    """
    return "\n".join(
        [
            *_front(uses, license),
            f"# {plain(name)}",
            "",
            *_what(material, uses, facts),
            "",
            "## Loading it",
            "",
            *_loading(uses),
            "## Images",
            "",
            *_images(material),
            "",
            "## Scores",
            "",
            *_scores(facts),
            "",
            "## Data",
            "",
            *_data(facts),
            "",
            "## Limits",
            "",
            *_limits(material, uses, notes, facts, license),
            "",
            "## Proof",
            "",
            f"When it was exported (barlow {__version__}), each library above read this folder in a fresh process and "
            f"was given {images}. What is said below is the length of the difference of two feature vectors over the "
            "length of one, at most over the images; batches of one and three images were tried, too.",
            "",
            *(f"- {proof.line()}" for proof in proofs),
            "",
            *_recipe(recipe),
        ]
    )


def plain(text: str) -> str:
    """A stranger's name as Markdown that is nothing but text.

    Example:
        >>> plain("photos <b>*new*</b>")
        'photos \\\\<b\\\\>\\\\*new\\\\*\\\\</b\\\\>'
    """
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", printable(text))


def last_part(place: object) -> str:
    """What a folder or a file is called. The rest of its path is of somebody's machine, and a card is published."""
    return Path(str(place)).name or "a folder"


def _front(uses: Sequence[Use], license: str | None) -> list[str]:
    content = {
        "license": license or UNKNOWN_LICENSE,
        "library_name": uses[0].package or "detectron2",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["self-supervised", "image-representations", "barlow"],
    }
    return ["---", yaml.safe_dump(content, sort_keys=False).strip(), "---"]


def _what(material: Material, uses: Sequence[Use], facts: RunFacts | None) -> list[str]:
    encoder, config = material.encoder, material.config
    whole = all(use.whole for use in uses)
    width = config["num_features"] if whole else material.network.num_features
    of_plain = "" if whole else " (the plain network's, see Limits)"
    lines = [f"Images to {width} features{of_plain}: {material.name}, {_options(material)}."]
    if whole and material.hands_out_more:
        widths = " + ".join(str(part) for part in encoder.widths)  # type: ignore[union-attr]
        white = config.get("whiten") is not None
        lines.append(
            f"Its features are the spatial means of its stages, side by side ({widths})"
            + (f", whitened (shrinkage {config['whiten']:g} or more)." if white else ".")
        )
    if isinstance(branch := config.get("branch"), str):
        lines.append(f"It is the {plain(branch[:LONGEST_NOTE])}.")
    if facts is not None:
        kind = facts.recipe.get("objective.kind")
        how = "with the labels of its images" if kind == "supervised" else "without labels"
        lines.append(f"Trained {how} (objective `{kind}`) by barlow.")
        if (start := facts.recipe.get("encoder.init")) is not None:
            lines.append(
                f"It began at weights of others, `{plain(last_part(start))}`: what those were trained on, with which "
                "labels and under which licence, holds for this encoder too."
            )
    return [" ".join(lines)]


def _options(material: Material) -> str:
    options = material.config.get("options") or {}
    told = [f"{key} {value}" for key, value in options.items()]
    if material.replaced_stem is not None:
        told.append(f"its stem {material.replaced_stem}")
    return plain(", ".join(told)) if told else "as timm builds it" if not material.is_custom else "given in Python"


def _loading(uses: Sequence[Use]) -> list[str]:
    lines = []
    for use in uses:
        lines += ["```python", 'folder = "."  # this one', use.program.rstrip(), "```", ""]
    return lines


def _images(material: Material) -> list[str]:
    seen = material.preprocessing
    numbers = "pixels in [0, 1]"
    if seen.value_range is not None:
        low, high = seen.value_range
        numbers = f"values from {low:g} to {high:g} as 0 to 1"
    return [
        f"{words(seen.size)} pixels, {seen.channels} channels: the largest central box of that shape times "
        f"{seen.crop_ratio:.4g}, resampled ({seen.interpolation}, antialiased); {numbers}, minus the mean, over the "
        "standard deviation. `preprocessing.json` has the numbers in full, and `barlow.load_encoder(…).preprocess` of "
        "the run does all of it.",
        "",
        f"- mean {_numbers(seen.mean)}",
        f"- standard deviation {_numbers(seen.std)}",
    ]


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _draws(score: str) -> bool:
    """Whether a score is of a protocol that draws training images, as `fewshot:5.top1` is."""
    return score.startswith(("fewshot", "semi", "svm:"))


def _scores(facts: RunFacts | None) -> list[str]:
    if facts is None:
        return ["Not known: it does not come from a run of barlow's."]
    found = facts.evaluation
    if not found.scores:
        return ["It was not evaluated."]
    lines = [
        f"On {plain(_tested(found.test_images or ''))}; intervals are of 95 %, over test images."
        + " Those of protocols that draw training images are over the draws." * any(map(_draws, found.scores)),
        "",
        "| score | value | interval | over the best baseline |",
        "|---|---|---|---|",
    ]
    for name, score in found.scores.items():
        gain = found.gains.get(name)
        over = "" if gain is None else f"{gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"
        lines.append(f"| {plain(name)} | {score['value']:.3f} | {score['low']:.3f} to {score['high']:.3f} | {over} |")
    return lines


def _tested(images: str) -> str:
    """Test images without the paths of their folders."""
    count, of, places = images.partition(" of ")
    return count + of + ", ".join(map(last_part, places.split(", ") if places else []))


def _data(facts: RunFacts | None) -> list[str]:
    if facts is None:
        return ["Not known: it does not come from a run of barlow's."]
    sources = facts.recipe.get("data.sources") or []
    names = ", ".join(plain(last_part(source)) for source in sources) or "images given in Python"
    count = "an unknown number of" if facts.images is None else f"{facts.images:,}"
    lines = [f"{count} images of {names}"]
    if facts.steps is not None:
        lines.append(f"{facts.steps:,} steps" + (f" ({facts.epochs:.3g} epochs)" if facts.epochs is not None else ""))
    if facts.seconds:
        lines.append(f"{facts.seconds / 60:.3g} minutes")
    return [", ".join(lines) + ". What is on them, and who may use them, the run does not know."]


def _limits(
    material: Material, uses: Sequence[Use], notes: Sequence[str], facts: RunFacts | None, license: str | None
) -> list[str]:
    lines = []
    if any(not use.whole for use in uses):
        lines.append(
            f"This form holds the plain network: its {material.network.num_features} features, not the "
            f"{material.config['num_features']} that the run hands out and that its scores are about."
        )
    lines += notes
    from_others = facts is not None and facts.recipe.get("encoder.init") is not None
    more = ", from weights that had seen others." if from_others else " and nothing else."
    lines.append(f"It was trained on the images above{more} On others, measure it before you rely on it.")
    if facts is not None and not facts.evaluation.scores:
        lines.append("Nobody has measured it on labelled images.")
    if license is None:
        lines.append("Nobody has said under which licence it may be used (`license` above; `barlow export --license`).")
    return [f"- {line}" for line in lines]


def _recipe(recipe: dict[str, Any] | None) -> list[str]:
    if recipe is None:
        return []
    data, encoder = recipe["data"], recipe["encoder"]
    told = {
        **recipe,
        "data": {**data, "sources": [last_part(source) for source in data["sources"]]},
        "encoder": {**encoder, "init": None if encoder["init"] is None else last_part(encoder["init"])},
    }
    fence = "````"
    return ["## Recipe", "", f"{fence}yaml", printable_block(as_yaml(told)).rstrip(), fence, ""]


def printable_block(text: str) -> str:
    """Lines without control characters, in which no fence of Markdown ends."""
    return "\n".join(printable(line).replace("````", "'''") for line in text.split("\n"))
