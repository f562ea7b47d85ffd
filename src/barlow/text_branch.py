"""What a run of images and captions hands out beside its encoder: the text network, both heads and the vocabulary."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch import Tensor, nn

from barlow import __version__, checkpoints, limits, storage
from barlow.checkpoints import split_step
from barlow.data.captions import tokens_of
from barlow.data.vocabulary import Vocabulary, vocabulary_from
from barlow.exits import Diverged, NoInput, UnusableData
from barlow.linalg import not_finite
from barlow.methods.image_text import ImageText
from barlow.nets import stored_size, weights
from barlow.nets.weight_file import tensors_with_digest
from barlow.objectives._directions import directions
from barlow.planning import captioning
from barlow.printable import one_line, printable
from barlow.recipe import schema
from barlow.recipe.schema import Recipe
from barlow.runs.run import load_recipe_text
from barlow.types import Embedding, Features
from barlow.wording import in_arguments

HOME = "text_encoder"
"""In a run folder; `encoder` beside it has the image encoder."""

KIND, FORMAT = "image_text", 1
PARTS = ("projector", "text", "text_projector")
"""Of the method, all but the image encoder."""

BATCH = 256
"""Captions that are embedded at a time."""


class TextBranch(nn.Module):
    """Embeds captions, and features of images, so that what belongs together is near. In eval mode, on the CPU.

    Args:
        section: of the recipe.
        features: how many the image encoder has.
        vocabulary: of the captions that it was trained on.
        seed: of the first weights.
    """

    def __init__(self, section: ImageText, features: int, vocabulary: Vocabulary, seed: int = 0) -> None:
        super().__init__()
        heads = section.heads(features, seed)
        self.projector, self.text, self.text_projector = (heads[part] for part in PARTS)
        self.section, self.vocabulary, self.num_features = section, vocabulary, features
        self.eval()

    @torch.no_grad()
    def images(self, features: Features) -> Embedding:
        """The embeddings of images, of length 1, from their features by the run's encoder."""
        return directions(self.projector(self._scaled(features)).double())

    @torch.no_grad()
    def texts(self, captions: Sequence[str]) -> Embedding:
        """The embeddings of captions, of length 1."""
        made = []
        for start in range(0, len(captions), BATCH):
            tokens = tokens_of(captions[start : start + BATCH], self.vocabulary, self.section.longest)
            made.append(directions(self.text_projector(self._scaled(self.text(tokens))).double()))
        return torch.cat(made)

    def _scaled(self, features: Tensor) -> Tensor:
        return directions(features) if self.section.unit_features else features


def write(run: Path, recipe: Recipe, method: nn.Module, vocabulary: Vocabulary | None) -> None:
    """Writes RUN/text_encoder, if the run has captions.

    Raises:
        Diverged: its numbers are not finite, and were not written.
    """
    if vocabulary is None:
        return
    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in method.state_dict().items()
        if name.partition(".")[0] in PARTS
    }
    if broken := not_finite(tensors):
        raise Diverged(f"{broken[0]} is not finite, so {run / HOME} was not written")
    config = {
        "format": FORMAT,
        "barlow": __version__,
        "kind": KIND,
        "method": {key: value for key, value in recipe.method.items() if key != "kind"},
        "features": tensors["projector.linear0.weight"].shape[1],
    }
    storage.write_sealed(run / HOME / captioning.FILE, vocabulary.as_dict())
    weights.write(run / HOME, tensors, config)


@in_arguments
def load_text_encoder(run: str | Path) -> TextBranch:
    """The text network of a run of images and captions, with both heads.

        encoder, text = barlow.load_encoder("runs/birds"), barlow.load_text_encoder("runs/birds")
        images = text.images(encoder(encoder.preprocess(["owl.jpg", "wren.jpg"])))
        similarity = text.texts(["a large owl on a branch"]) @ images.T

    Args:
        run: a run folder, or `RUN@STEP` for one of its checkpoints.

    Raises:
        NoInput: the run has none.
        UnusableData: it is damaged, or a newer barlow wrote it.
    """
    return branch_at(*split_step(str(run)))


def branch_at(run: Path, step: int | None = None) -> TextBranch:
    """The same of a folder and a step that are known already: of an unfinished run that of its newest checkpoint."""
    if step is None and (run / HOME / "config.json").is_file():
        return _of_folder(run / HOME)
    folder = checkpoints.whole(run, step, stored_size.look()) if run.is_dir() else None
    if folder is None or not (run / captioning.FILE).is_file():
        raise NoInput(
            f"no text encoder in {printable(str(run))}: give a run that was trained on captions (docs/captions.md)"
        )
    checkpoint = checkpoints.read(folder)
    recipe = schema.check(checkpoint.state.get("recipe") or load_recipe_text(run / "recipe.yaml"))
    tensors = {
        name.removeprefix("method/"): value
        for name, value in checkpoint.tensors.items()
        if name.removeprefix("method/").partition(".")[0] in PARTS
    }
    vocabulary = vocabulary_from(storage.read_sealed(run / captioning.FILE), run / captioning.FILE)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    return _filled(_empty(recipe.build_method(), shapes, vocabulary, folder), tensors)


def _of_folder(home: Path) -> TextBranch:
    limits.check_text(home / "config.json", "a text encoder's description")
    config = storage.read_sealed(home / "config.json")
    if config.get("kind") != KIND or type(config.get("format")) is not int:
        raise UnusableData(f"{home / 'config.json'} describes no text encoder")
    if config["format"] > FORMAT:
        raise storage.Newer(f"{home} is of format {config['format']}, and this barlow reads up to {FORMAT}: upgrade it")
    vocabulary = vocabulary_from(storage.read_sealed(home / captioning.FILE), home / captioning.FILE)
    try:
        section = pydantic.TypeAdapter(ImageText).validate_python(config["method"])
    except (KeyError, ValueError) as error:
        raise UnusableData(f"{home / 'config.json'} is incomplete or damaged: {one_line(error)}") from error
    path = home / "model.safetensors"
    there = {name: tuple(entry.shape) for name, entry in limits.tensors_in(path).items()}
    branch = _empty(section, there, vocabulary, home)
    return _filled(branch, tensors_with_digest(path, config.get("model_sha256")))


def _empty(section: Any, there: Mapping[str, tuple[int, ...]], vocabulary: Vocabulary, place: Path) -> TextBranch:
    """The networks without values, which take no memory, once their shapes are those that are there."""
    if not isinstance(section, ImageText) or section.words != len(vocabulary):
        raise UnusableData(f"{place} is of another method, or its vocabulary of another run")
    width = there.get("projector.linear0.weight", ())
    if len(width) != 2:
        raise UnusableData(f"{place} has no projector for the features of images")
    with torch.device("meta"):
        branch = TextBranch(section, width[1], vocabulary)
    wanted = {name: tuple(value.shape) for name, value in branch.state_dict().items()}
    if wrong := sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name)):
        raise UnusableData(f"the weights in {place} do not fit its description: {printable(wrong[0])}")
    return branch


def _filled(branch: TextBranch, tensors: Mapping[str, Tensor]) -> TextBranch:
    if broken := not_finite(tensors):
        raise Diverged(f"the text encoder's weights are not finite ({broken[0]}): the run that made them had diverged")
    branch.load_state_dict(dict(tensors), strict=True, assign=True)
    return branch.eval().requires_grad_(False)
