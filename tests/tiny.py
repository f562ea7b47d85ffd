"""The smallest runs that go through everything: a few dozen generated images, a network of a few thousand weights."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from barlow import storage
from barlow.recipe import files
from barlow.recipe.changes import override
from barlow.seals import sha256
from barlow.size import Size, height_width

OBJECTIVES = ("barlow_twins", "vicreg", "w_mse")

SMALL: dict[str, Any] = {
    "encoder.options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
    "encoder.stages": "last",
    "encoder.whiten": None,
    "data.image_size": 16,
    "data.centre_size": None,
    "method.projector.widths": [16, 4],
    "train.batch_size": 16,
    "train.device": "cpu",
    "train.precision": "float32",
    "train.log_steps": 1,
    "train.monitor_images": 0,
    "train.steps": 12,
}
"""Overrides that make any shipped recipe tiny, and hand out the network's own features alone.

Four embedding dimensions: W-MSE then slices a batch of 16 in two.
"""


def heads(method: dict[str, Any]) -> dict[str, Any]:
    """Overrides that make the heads of a method tiny: the last width of a classifier is its number of classes."""
    return {
        f"method.{name}.widths": [4] if len(head["widths"]) == 1 else [16, 4]
        for name, head in method.items()
        if isinstance(head, dict) and "widths" in head
    }


def of_recipe(name: str) -> dict[str, Any]:
    """Overrides that make a recipe tiny and leave its views, objective, optimizer and schedule as they are.

    Pictures are held in memory (starting a worker takes longer than all the rest); slices, groups and the queue fit the
    batch.
    """
    content = files.read(name)
    changes: dict[str, Any] = {key: value for key, value in SMALL.items() if not key.startswith("method.")}
    changes |= {"data.executor": "in_memory"} | heads(content["method"])
    of_norms = {key: value for key, value in content["encoder"]["options"].items() if key == "norm_layer"}
    changes["encoder.options"] = changes["encoder.options"] | of_norms
    if content["objective"].get("slice_rows"):
        changes["objective.slice_rows"] = 8
    if content["objective"]["kind"] == "w_mse" and content["encoder"]["init"]:
        changes["data.image_size"] = 48  # at 16 pixels ImageNet's weights see all of these images as one
    if content["objective"].get("queue"):
        changes["objective.queue"] = 64
    if content["objective"].get("clusters"):
        changes["objective.clusters"] = [20, 24] if content["objective"]["kind"] == "pcl" else 8
    if content["objective"].get("negatives"):
        changes["objective.negatives"] = 4 if content["objective"]["kind"] == "pcl" else 20
    if content["objective"].get("words"):
        changes |= {"objective.words": 64, "objective.hidden": 8, "method.border": 0}
    changes |= smaller_tiles(content)
    if content["objective"].get("permutations"):
        (at,) = [at for at, op in enumerate(content["views"][0]) if op["kind"] == "tiles"]
        changes |= {"objective.permutations": 4, f"views.0.{at}.orders": 4}
    if content["objective"]["kind"] == "context_prediction":
        changes["method.head.widths"] = [16, 8]
    if content["method"].get("text_projector") == "none":
        changes["method.hidden"] = 4
    if content["method"].get("batch_norm_rows"):
        changes["method.batch_norm_rows"] = 8
    if content["method"].get("patch"):
        changes["method.patch"] = None
    return changes


def smaller_tiles(content: dict[str, Any]) -> dict[str, Any]:
    """Overrides by which tiles are a share of their cells, and not so many pixels: views may be small then."""
    return {
        f"views.{v}.{o}.side": None
        for v, view in enumerate(content["views"])
        for o, op in enumerate(view)
        if op["kind"] in ("tiles", "patch_pair")
    }


SIZES = {"median_height": 24, "median_width": 24}
"""What data.json says of the images that `images` makes."""


def recipe_of(name: str, **train: Any) -> dict[str, Any]:
    """A recipe as a run has written it, tiny and with nothing that is `auto`."""
    return override(files.read(name), SMALL | {f"train.{key}": value for key, value in train.items()})


def images(folder: Path, count: int = 64, *, classes: int = 0, side: Size = 24, seed: int = 0) -> Path:
    """Noisy PNGs of one of eight colours each; with classes, a sub-folder per class, and the colour tells the class."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        colour = np.array(np.unravel_index(i % (classes or 8), (2, 2, 2))) * 100
        pixels = np.clip(colour + rng.integers(0, 100, (*height_width(side), 3)), 0, 255).astype(np.uint8)
        home = folder / f"class{i % classes}" if classes else folder
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(home / f"{i:03}.png")
    return folder


def captioned(folder: Path, count: int = 64, *, seed: int = 0) -> Path:
    """A list of two captions of each image, which tell its colour, and the images beside it."""
    images(folder / "images", count, seed=seed)
    colours = ("black", "blue", "green", "cyan", "red", "purple", "yellow", "white")
    lines = ["image,caption"]
    for i in range(count):
        lines += [f'{i:03}.png,"Noise, of a {colours[i % 8]} kind"', f"{i:03}.png,something {colours[i % 8]}"]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "captions.csv"


def scenes(count: int, seed: int, side: int = 64) -> np.ndarray:
    """(n, side, side, 3): smooth random fields, whose spectrum falls as that of photos does."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequency[0, 0] = 1
    found = []
    for _ in range(count):
        planes = [np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) / frequency) for _ in range(3)]
        planes = [p / p.std() for p in planes]
        found.append(np.stack([128 + 40 * planes[0] + 15 * p for p in planes], axis=2))
    return np.clip(found, 0, 255).astype(np.uint8)


def words(**overrides: Any) -> list[str]:
    """`SMALL` and more as words of the command line."""
    import json

    changes = SMALL | {key.replace("__", "."): value for key, value in overrides.items()}
    return [word for key, value in changes.items() for word in (f"--{key}", json.dumps(value))]


def weights(run: Path) -> str:
    """SHA-256 of the encoder that a run wrote."""
    return hashlib.sha256((Path(run) / "encoder" / "model.safetensors").read_bytes()).hexdigest()


def change_weights(run: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Gives a run's encoder other weights, as if it had been written with them."""
    home = run / "encoder"
    data = storage.tensors_bytes(change(storage.read_tensors(home / "model.safetensors")))
    storage.write_bytes(home / "model.safetensors", data)
    described = storage.read_sealed(home / "config.json")
    storage.write_sealed(home / "config.json", described | {"model_sha256": sha256(data)})
