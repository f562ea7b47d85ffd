"""What a run needs of captions before its first step: a vocabulary, their words as numbers, and lines on both."""

from dataclasses import dataclass, field
from typing import Any

from barlow.data import captioned
from barlow.data.captions import Captions, captions_of, digest
from barlow.data.sources import ImageSource
from barlow.data.vocabulary import Vocabulary
from barlow.recipe import schema
from barlow.recipe.changes import override
from barlow.recipe.messages import RecipeError
from barlow.recipe.schema import Recipe

FILE = "vocabulary.json"
"""In a run folder, and beside the text network that the run hands out."""


@dataclass(frozen=True)
class Spoken:
    """The captions of a run's images; nothing of a run whose method reads none."""

    vocabulary: Vocabulary | None = None
    tokens: Captions | None = None
    report: dict[str, Any] = field(default_factory=dict)
    """For data.json. A run that is gone on with needs the same captions."""
    lines: list[str] = field(default_factory=list)
    """What is said of them."""


def with_words(chosen: Recipe, source: ImageSource) -> tuple[Recipe, Spoken]:
    """The recipe with the number of words where it is `auto`, and the captions, if its method reads any.

    The vocabulary is a function of the captions and of `method.min_count` alone, so every process makes the same.

    Raises:
        RecipeError: the images have no captions, or the recipe is for another vocabulary, or the encoder would hand out
            other features than those that the heads are trained on.
    """
    section = chosen.build_method()
    kind = chosen.method["kind"]
    if "caption" not in getattr(section, "asks", ()):
        return chosen, Spoken()
    captions = captions_of(source)
    if captions is None:
        raise RecipeError(
            f"the method {kind} compares images with captions, and {source.name} has none: give a CSV file whose first "
            "line is image,caption, or the set shapes_captions"
        )
    if chosen.encoder.stages != "last" or chosen.encoder.whiten is not None:
        raise RecipeError(
            f"the heads of {kind} are trained on the encoder's own features: set encoder.stages to last and "
            "encoder.whiten to null"
        )
    vocabulary = Vocabulary.of(captions, section.min_count)
    if section.words not in ("auto", len(vocabulary)):
        raise RecipeError(
            f"method.words is {section.words}, and the captions give {len(vocabulary)} with min_count "
            f"{section.min_count}: use auto, or the captions that the recipe was made for"
        )
    count, length = captioned.counts(captions)
    unknown = vocabulary.unknown_share(captions)
    about = {"images": len(captions), "captions": count, "words": len(vocabulary), "digest": digest(captions)}
    lines = [
        f"captions {count:,} of {len(captions):,} images, {length:.1f} words each; {len(vocabulary.words):,} words "
        f"occur {section.min_count} times or more, and {100 * unknown:.1f} % are unknown",
        *captioned.lines(source),
    ]
    resolved = schema.check(override(chosen.as_dict(), {"method.words": len(vocabulary)}))
    return resolved, Spoken(vocabulary, Captions.of(captions, vocabulary, section.longest), {"captions": about}, lines)
