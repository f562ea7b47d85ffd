"""`barlow export`: an encoder as a folder that another library reads, with the proof that it does."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from barlow import exits, exports, storage
from barlow.cards import card, last_part
from barlow.data.centre import centre_views, normalized
from barlow.data.sources import FoldersOrName, open_source
from barlow.encoders import FoundEncoder, find_encoder
from barlow.exports._proof import Proof, missing_library, prove
from barlow.exports._protocol import Material, Target, Use
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.weights import description_of
from barlow.printable import one_line, printable
from barlow.recipe import schema
from barlow.run_facts import RunFacts, facts_of
from barlow.runs.finishing import of_recipe
from barlow.runs.identity import identity_of
from barlow.runs.run import Run, load_recipe_text
from barlow.size import height_width
from barlow.telling import Say, unfailing
from barlow.types import Images
from barlow.wording import in_arguments

IMAGES = 8
"""Images that an export is proved on, spread through those of the run."""

FOLDER_FORMAT = 1


class CannotExport(ValueError):
    """This encoder cannot have this form; the message says which it can have."""


@dataclass(frozen=True)
class Export:
    """What was written."""

    folder: Path
    """It holds the files of the target, README.md (the card), preprocessing.json and export.json."""
    target: str
    proofs: list[Proof]
    """What each library made of it."""
    files: list[str]
    """Of the folder."""


@in_arguments
def export(
    encoder: str | os.PathLike[str] | nn.Module,
    to: str,
    out: str | os.PathLike[str],
    *,
    license: str | None = None,
    images: FoldersOrName | None = None,
    tell: Say | None = None,
) -> Export:
    """Writes an encoder in the form of another library, after that library has read it and made the same features.

    The folder appears whole, when the proof is there, or not at all.

    Args:
        encoder: a run folder, or anything that `barlow.encoders.find_encoder` knows.
        to: a target: `barlow.exports.names()` has them.
        out: a folder that does not exist yet.
        license: for the card, as Hugging Face writes them: `apache-2.0`, `mit`. By default the card says that nobody
            has said.
        images: what the proof is made on: folders, or the name of a set. By default images of the run; generated ones
            where it has none.
        tell: receives messages of one line.

    Raises:
        ValueError: there is no such encoder or target, or this encoder cannot have that form.
        NotTheSame: the library does not read it, or its features differ; nothing is left.
        BrokenRun: the run's recipe was changed after it began.
    """
    say, folder = unfailing(tell), Path(out)
    target = exports.load(to)
    if folder.exists():
        raise storage.CannotCreate(f"--out {folder} exists: name a folder that does not, or remove it first")
    found = find_encoder(encoder, taken="nothing", say=say)
    if found.run is not None:
        identity_of(Run(found.run))  # a card of a recipe that was changed by hand would say what is not so
    material = Material(found.network, description_of(found.network))
    if (reason := target.refuses(material)) is not None:
        others = ", ".join(exports.found(material))
        raise CannotExport(f"{found.name} cannot be exported --to {to}: {reason}. It can go --to {others}")
    uses = target.uses(material)
    _check_installed(to, uses)
    views, words = _views(found, images, say)
    say(f"writing {to}: {target.about}")
    with storage.appearing(folder) as beside:
        for name, data in _files(target, material, found.name, to).items():
            storage.write_bytes(beside / name, data)
        storage.write_json(beside / "preprocessing.json", material.preprocessing.as_dict())
        proofs = []
        for use in uses:
            proofs.append(proof := prove(beside, use, material, views))
            say(proof.line())
        _describe(beside, to, target, material, found, license, uses, proofs, words)
        files = sorted(path.name for path in beside.iterdir())
    return Export(folder, to, proofs, files)


def _check_installed(to: str, uses: list[Use]) -> None:
    for use in uses:
        if (missing := missing_library(use)) is not None:
            raise CannotExport(f"--to {to} needs {missing}, which is not installed: pip install 'barlow[{use.extra}]'")


def _files(target: Target, material: Material, name: str, to: str) -> dict[str, bytes]:
    try:
        return target.files(material)
    except (RuntimeError, TypeError, ValueError) as error:  # a network that an exporter cannot follow
        if exits.out_of_memory(error):
            raise
        raise CannotExport(f"{name} cannot be exported --to {to}: {one_line(error)}") from error


def _views(found: FoundEncoder, given: FoldersOrName | None, say: Say) -> tuple[Images, str]:
    """What the proof is made on, and what that is in words."""
    seen = found.preprocessing
    if given is not None:
        source = open_source(given, channels=seen.channels, value_range=seen.value_range)
        ids = np.arange(len(source))
    else:
        try:
            if found.run is None:
                raise exits.NoInput("it comes from no run")
            finishing = of_recipe(_recipe(found.run), found.run)
            source, ids = finishing.source, finishing.ids
        except (OSError, ValueError, LookupError, TypeError) as error:
            say(f"the proof is made on generated images ({one_line(error)}); --images FOLDER names others")
            return generated(seen), f"{IMAGES} generated images"
    chosen = ids[np.unique(np.linspace(0, len(ids) - 1, IMAGES).astype(int))]
    views = list(centre_views(source, chosen, seen, batch_size=IMAGES, workers=1))
    if not views:
        raise exits.UnusableData(f"none of {len(chosen)} images of {source.name} can be read: name others by --images")
    places = ", ".join(map(last_part, source.name.split(", ")))
    return views[0].contiguous(), f"{len(views[0])} images of {printable(places)}"


def generated(seen: Preprocessing) -> Images:
    """Images that nobody took: waves of all lengths and directions, and noise."""
    rng = np.random.default_rng(0)
    high, wide = height_width(seen.size)
    y, x = np.meshgrid(np.linspace(0, 1, high), np.linspace(0, 1, wide), indexing="ij")
    shape = (IMAGES, 1, 1, seen.channels)
    along, across, start = (rng.uniform(low, end, shape) for low, end in ((-9, 9), (-9, 9), (0, 6.3)))
    waves = np.sin(along * y[None, ..., None] + across * x[None, ..., None] + start)
    values = 0.5 + 0.35 * waves + 0.05 * rng.standard_normal((IMAGES, high, wide, seen.channels))
    most, kind = (255, np.uint8) if seen.value_range is None else (65_535, np.uint16)
    return normalized(np.clip(values * most, 0, most).astype(kind), seen).contiguous()


def _recipe(run: Path) -> schema.Recipe:
    recipe = schema.check(load_recipe_text(run / "recipe.yaml"))
    identity = identity_of(Run(run))
    return recipe if identity is None else identity.located(recipe)


def _describe(
    folder: Path,
    to: str,
    target: Target,
    material: Material,
    found: FoundEncoder,
    license: str | None,
    uses: list[Use],
    proofs: list[Proof],
    images: str,
) -> None:
    """Writes the card, and for programs what was proved."""
    facts, recipe = _facts(found)
    text = card(
        material,
        name=f"{last_part(found.name)} for {to}",
        license=license,
        uses=uses,
        proofs=proofs,
        notes=target.notes(material),
        facts=facts,
        recipe=recipe,
        images=images,
    )
    storage.write_text(folder / "README.md", text)
    record: dict[str, Any] = {
        "format": FOLDER_FORMAT,
        "target": to,
        "encoder": printable(last_part(found.name)),
        "encoder_sha256": found.digest,
        "whole": all(use.whole for use in uses),
        "license": license,
        "proved_on": images,
        "proofs": [asdict(proof) for proof in proofs],
        "torch": torch.__version__,
    }
    storage.write_sealed(folder / "export.json", json.loads(json.dumps(record)))


def _facts(found: FoundEncoder) -> tuple[RunFacts | None, dict[str, Any] | None]:
    """What the run says of itself, where there is one that says anything."""
    if found.run is None:
        return None, None
    try:
        return facts_of(found.run), load_recipe_text(found.run / "recipe.yaml")
    except (OSError, ValueError):
        return None, None
