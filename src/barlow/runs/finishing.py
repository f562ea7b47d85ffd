"""From a trained network to the encoder that a run hands out: whole, or as it was at a checkpoint."""

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from barlow import checkpoints, storage, tables
from barlow.data.centre import centre_views
from barlow.data.counting import Counted, not_shown
from barlow.data.sources import ImageSource, missing_set, open_source
from barlow.distributed import World
from barlow.exits import Diverged, NoInput, UnusableData
from barlow.linalg import not_finite
from barlow.machine import available_cores
from barlow.nets import hub_folder, stored_size, weights
from barlow.nets.building import build_encoder
from barlow.nets.handed_out import IMAGES, HandedOut, handed_out
from barlow.nets.preprocessing import Preprocessing
from barlow.planning.plan import preprocessing_of
from barlow.recipe import schema
from barlow.recipe.schema import Recipe
from barlow.runs.identity import identity_of
from barlow.runs.run import Run, load_recipe_text
from barlow.views.keys import permutation
from barlow.wording import in_arguments


@dataclass(frozen=True)
class Finishing:
    """What it takes, beside the network: the resolved recipe, and the images that features are whitened by."""

    recipe: Recipe
    preprocessing: Preprocessing
    source: ImageSource
    ids: np.ndarray
    """Of the usable images."""
    counted: Counted = not_shown
    """Told how many images have been embedded."""

    def finished(self, encoder: nn.Module, world: World) -> nn.Module:
        """The encoder as it is handed out: in eval mode, with the stages and the whitening that the recipe asks for."""
        section = self.recipe.encoder
        made = handed_out(encoder.eval(), section.stages, section.whiten).eval().to(world.device)
        if isinstance(made, HandedOut) and section.whiten is not None:
            ids = np.asarray(self.ids)[permutation(self.recipe.seed, 0, len(self.ids))[:IMAGES]]
            own, threads = ids[world.rank :: world.size], max(1, available_cores() // world.neighbours)
            reading = {"batch_size": 256, "workers": threads}
            views = centre_views(self.source, own, self.preprocessing, **reading, counted=self.counted)
            made.fit((view.to(world.device) for view in views), section.whiten, world)
        return made

    def packed(self, encoder: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A finished encoder's tensors and description."""
        section = self.recipe.encoder
        tensors, config = weights.packed(
            encoder,
            name=section.name,
            **section.built,
            seed=self.recipe.seed,
            preprocessing=self.preprocessing,
            stages=section.stages,
            whiten=section.whiten,
        )
        kept = self.recipe.kept
        return tensors, config if kept is None else config | {"branch": kept}

    def write(self, folder: Path, encoder: nn.Module) -> None:
        """Writes a finished encoder.

        Raises:
            Diverged: it is not finite, and was not written.
        """
        tensors, config = self.packed(encoder)
        if broken := not_finite(tensors):
            raise Diverged(f"{broken[0]} of the finished encoder is not finite, so it was not written to {folder}")
        weights.write(folder, tensors, config)


@in_arguments
def load_encoder(folder: str | os.PathLike[str], module: nn.Module | None = None) -> nn.Module:
    """The encoder of a run, on the CPU and in eval mode.

    It has `.num_features`, `.preprocessing` (what it expects of an image) and `.preprocess(image)`, which makes its
    input of a path, a Pillow image, an (h, w, c) uint8 array, or a list of them:

        encoder = barlow.load_encoder("runs/photos")
        features = encoder(encoder.preprocess("cat.jpg"))     # (1, num_features)

    Of a run that is not finished it is the encoder of the newest checkpoint, finished as the run's own will be. If its
    features are whitened, some of the run's images are read for that.

    Args:
        folder: a run folder, `RUN@STEP` for one of its checkpoints, or the `encoder` folder inside a run.
        module: needed for an encoder that was given in Python: a module of the same architecture, which is filled
            and returned.

    Raises:
        ValueError: there is no encoder, it is damaged, a newer barlow wrote it, or it does not fit `module`.
        Diverged: its weights are not finite.
    """
    return encoder_at(*checkpoints.split_step(os.fspath(folder)), module)


def encoder_at(run: Path, step: int | None = None, module: nn.Module | None = None) -> nn.Module:
    """The same of a folder and a step that are known already. They are not put together as `RUN@STEP` again, because a
    folder may have that name."""
    if step is None and (home := weights.encoder_folder(run)) is not None:
        return weights.read_encoder(home, module)
    if step is None and hub_folder.weights_in(run) is not None:
        raise UnusableData(
            f"{run} is a folder of timm's or transformers', and no run: barlow.find_encoder reads it as it is, and "
            f"`barlow import {run} --out DIR` makes an encoder of it"
        )
    if not run.is_dir():
        raise NoInput(f"no folder {run}; give a run folder, or the encoder folder inside it")
    if (whole := checkpoints.whole(run, step, stored_size.look(module))) is None:
        raise NoInput(f"no encoder in {run} (encoder/config.json and encoder/model.safetensors); give a run folder")
    return _of_checkpoint(run, whole, module)


def _of_checkpoint(run: Path, folder: Path, module: nn.Module | None) -> nn.Module:
    checkpoint = checkpoints.read(folder)
    stored = checkpoint.state.get("recipe")  # those of the first release have none
    recipe = schema.check(load_recipe_text(run / "recipe.yaml") if stored is None else stored)
    if (identity := identity_of(Run(run))) is not None:
        recipe = identity.located(recipe)
    finishing = of_recipe(recipe, run)
    section, world = recipe.encoder, World(torch.device("cpu"))
    if module is None and section.name.startswith(schema.CUSTOM):
        raise ValueError(
            f"{run} trains a {section.name.removeprefix(schema.CUSTOM)} that was given in Python: "
            "load_encoder(folder, module=...) fills a module of the same class"
        )
    network = copy.deepcopy(module) or build_encoder(
        section.name,
        in_channels=finishing.preprocessing.channels,
        image_size=recipe.data.image_size,  # type: ignore[arg-type]  # resolved
        seed=recipe.seed,
        **section.built,
    )
    prefix = "method/encoder."
    found = {name.removeprefix(prefix): t for name, t in checkpoint.tensors.items() if name.startswith(prefix)}
    network.load_state_dict(found, strict=True)
    tensors, config = finishing.packed(finishing.finished(network, world))
    return weights.unpacked(tensors, config, str(folder), module)


def of_recipe(recipe: Recipe, run: Path) -> Finishing:
    """What finishing takes, from a run's own files.

    Args:
        recipe: resolved, with its folders where they are.
        run: its folder.

    Raises:
        NoInput: the images are those of a set that is not here, or there are none.
    """
    data, preprocessing = recipe.data, preprocessing_of(recipe)
    for missing in filter(None, map(missing_set, data.sources)):
        raise NoInput(
            f"{run} is not finished, and finishing its encoder takes images of {missing}, which is not here and would "
            f"be downloaded: go on with the run by naming it yourself (barlow pretrain {missing} --resume --out {run})"
        )
    report = tables.checked(storage.read_sealed(run / "data.json"), run / "data.json")
    skipped = [entry["id"] for entry in report["skipped"]]
    source = open_source(
        data.sources,
        split=data.split,
        channels=preprocessing.channels,
        max_pixels=data.max_pixels,
        value_range=preprocessing.value_range,
    )
    return Finishing(recipe, preprocessing, source, np.setdiff1d(np.arange(report["candidates"]), skipped))
