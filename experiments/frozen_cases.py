"""What two trees of barlow are trained on when their numbers are compared: images, recipes and the list of trainings.

The recipes are written out here as they stood at commit d19bfb7, so that what ships may change and this comparison
still asks the same question. Each keeps its own views, objective, optimizer and schedule. Networks, views and batches
are small, and whatever `auto` would choose is chosen here, because that choice may change too.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STEPS = 30
HALF = 15
"""The step of the checkpoint from which runs are resumed."""

BATCH = 32
"""Of which W-MSE makes two slices of 16 rows, for its embeddings have 8 dimensions."""

ROWS_IN_MEMORY = 12
"""Makes chunks of unequal size: 12, 12 and 8 rows of 32; 12 and 4 of the 16 that each of two processes has."""

IMAGES = 104
"""Three batches of 32 and a rest of 8, so that the short batch at the end of an epoch is dropped, too."""


# --- Images -----------------------------------------------------------------------------------------------------------


def write_images(folder: Path, sides: tuple[int, int] = (40, 112), formats: Sequence[str] = ("png", "jpg")) -> Path:
    """Writes `IMAGES` pictures: a disc or a bar before a plain ground under noise, every fourth of them grey.

    They are drawn in integer arithmetic from raw 64-bit draws, so every machine and every NumPy draws the same bytes.

    Args:
        folder: where to put them; made if it is not there.
        sides: the smallest and the largest height and width. OpenCV has a part in images above 64 pixels.
        formats: endings of the files, taken in turn. The pixels of a JPEG depend on the library that reads it.
    """
    folder.mkdir(parents=True)
    for i in range(IMAGES):
        pixels = _picture(np.random.PCG64(i), sides)
        image = Image.fromarray(pixels)
        image = image.convert("L") if i % 4 == 3 else image
        image.save(folder / f"{i:03}.{formats[i // 2 % len(formats)]}", quality=90)
    return folder


def _picture(draws: np.random.PCG64, sides: tuple[int, int]) -> np.ndarray:
    smallest, largest = sides
    h, w = (smallest + int(draws.random_raw()) % (largest - smallest + 1) for _ in range(2))
    ground, colour = (np.frombuffer(draws.random_raw(1).tobytes(), np.uint8)[:3].astype(int) for _ in range(2))
    y, x, size = (int(draws.random_raw()) % (smallest // 2) + smallest // 4 for _ in range(3))
    dy, dx = np.abs(np.arange(h) - y)[:, None], np.abs(np.arange(w) - x)[None]
    inside = dy * dy + dx * dx <= size * size // 4 if int(draws.random_raw()) % 2 else (dy <= size // 2) & (dx <= size)
    noise = np.frombuffer(draws.random_raw(h * w).tobytes(), np.uint8).reshape(h, w, 8)[..., :3].astype(int) % 48
    return np.clip(np.where(inside[..., None], colour, ground) + noise - 24, 0, 255).astype(np.uint8)


# --- Recipes as they stood at d19bfb7 ---------------------------------------------------------------------------------

Content = dict[str, Any]

FLIP: Content = {"kind": "horizontal_flip", "p": 0.5}
JITTER: Content = {"kind": "color_jitter", "p": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
STRONG_JITTER: Content = {**JITTER, "saturation": 0.4}
GREY: Content = {"kind": "grayscale", "p": 0.2}
SOLARIZE: Content = {"kind": "solarize", "p": 0.2, "threshold": 128}


def _crop(smallest: float, ratio: tuple[float, float] = (0.75, 1.3333333)) -> Content:
    return {"kind": "random_resized_crop", "size": "auto", "scale": [smallest, 1.0], "ratio": list(ratio)}


def _blur(p: float) -> Content:
    return {"kind": "gaussian_blur", "p": p, "sigma": [0.1, 2.0]}


def _data(side: int, mean: Any = "auto", std: Any = "auto") -> Content:
    return {
        "sources": [],
        "split": "train",
        "image_size": side,
        "channels": 3,
        "executor": "in_memory",
        "working_size": side * 3 // 2,
        "mean": mean,
        "std": std,
        "max_bad": 0.01,
        "max_pixels": 64_000_000,
        "workers": 1,
    }


def _encoder(name: str, channels: Sequence[int], stem: str, zero_init_last: bool) -> Content:
    options = {"layers": [1, 1, 1, 1], "channels": list(channels)}
    return {"name": name, "stem": stem, "zero_init_last": zero_init_last, "options": options, "init": None}


def _method(widths: Sequence[int], hidden_bias: bool, last_bias: bool, sees: str = "each_view") -> Content:
    projector = {"widths": list(widths), "hidden_bias": hidden_bias, "last_bias": last_bias, "batch_norm": True}
    return {"kind": "siamese", "projector": projector, "batch_norm_sees": sees}


def _adamw(rate: float, second_beta: float = 0.999) -> Content:
    return {
        "kind": "adamw",
        "lr_per_256": rate,
        "vectors_lr_per_256": None,
        "weight_decay": 0.0001,
        "exclude_1d": True,
        "betas": [0.9, second_beta],
        "eps": 1e-8,
        "loss_weight": 1.0,
    }


def _lars(rate: float, weight_decay: float, trust: float, clip: bool, loss_weight: float) -> Content:
    return {
        "kind": "lars",
        "lr_per_256": rate,
        "vectors_lr_per_256": None,
        "weight_decay": weight_decay,
        "exclude_1d": True,
        "momentum": 0.9,
        "trust": trust,
        "clip": clip,
        "loss_weight": loss_weight,
    }


_SMALL_SCHEDULE: Content = {"kind": "warmup_cosine", "warmup_fraction": 0.05, "warmup_from": 0.0, "floor": 0.001}
_TRAIN: Content = {
    "batch_size": BATCH,
    "epochs": None,
    "steps": STEPS,
    "minutes": None,
    "device": "cpu",
    "precision": "float32",
    "channels_last": True,
    "checkpoint_minutes": None,
    "checkpoint_steps": HALF,
    "log_steps": 1,
    "rows_in_memory": None,
    "activation_checkpointing": False,
}
_VICREG: Content = {
    "kind": "vicreg",
    "invariance": 25.0,
    "variance": 25.0,
    "covariance": 1.0,
    "gamma": 1.0,
    "eps": 0.0001,
    "convention": "code",
}
_BARLOW_TWINS: Content = {
    "kind": "barlow_twins",
    "invariance": 1.0,
    "redundancy": 0.0051,
    "eps": 0.00001,
    "normalization": "batch",
}
_EXACT = (0.75, 1.3333333333333333)

RECIPES: dict[str, Content] = {
    "small_barlow_twins": {
        "data": _data(32),
        "views": [[_crop(0.3), FLIP, JITTER, GREY], [_crop(0.3), FLIP, JITTER, GREY, SOLARIZE]],
        "encoder": _encoder("resnet26", (8, 8, 16, 16), "strided", False),
        "method": _method((64, 64, 64), False, False),  # 64 of 32 rows: like the recipe's 1024 of 128, by n × n
        "objective": _BARLOW_TWINS,
        "optim": _adamw(0.006),
        "schedule": _SMALL_SCHEDULE,
    },
    "small_vicreg": {
        "data": _data(32),
        "views": [[_crop(0.3), FLIP, JITTER, GREY], [_crop(0.3), FLIP, JITTER, GREY, SOLARIZE]],
        "encoder": _encoder("resnet18", (8, 16, 16, 32), "strided", False),
        "method": _method((48, 48, 24), True, False),  # 24 of 32 rows: the covariance by d × d, the other form
        "objective": _VICREG,
        "optim": _adamw(0.004),
        "schedule": _SMALL_SCHEDULE,
    },
    "small_w_mse": {
        "data": _data(32),
        "views": [[STRONG_JITTER, {**GREY, "p": 0.1}, _crop(0.4), FLIP]] * 2,
        "encoder": _encoder("resnet18", (8, 16, 16, 32), "strided", False),
        "method": _method((64, 8), True, True, "all_views"),
        "objective": {
            "kind": "w_mse",
            "slice_rows": None,
            "shrinkage": 0.0,
            "slicings": 4,
            "whitening": "cholesky",
            "distance": "cosine",
        },
        "optim": _adamw(0.012, 0.99),
        "schedule": _SMALL_SCHEDULE,
    },
    "cifar10/barlow_twins": {
        "data": _data(32, [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]) | {"working_size": 32},
        "views": [
            [_crop(0.08, _EXACT), JITTER, GREY, FLIP],
            [_crop(0.08, _EXACT), JITTER, GREY, SOLARIZE, FLIP],
        ],
        "encoder": _encoder("resnet18", (8, 8, 16, 16), "small", False),
        "method": _method((64, 64, 64), True, True),
        "objective": _BARLOW_TWINS,
        "optim": _lars(0.3, 0.0001, 0.02, True, 0.1),
        # The recipe's warm-up is 10 of 1000 epochs. A run here has 10 of 3 steps, so it warms up for 2.
        "schedule": {"kind": "warmup_cosine", "warmup_epochs": 2, "warmup_from": 0.0001, "floor": 0.0},
    },
    "imagenet/vicreg": {
        "data": _data(48, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        "views": [
            [_crop(0.08, _EXACT), FLIP, JITTER, GREY, _blur(1.0)],
            [_crop(0.08, _EXACT), FLIP, JITTER, GREY, _blur(0.1), SOLARIZE],
        ],
        "encoder": _encoder("resnet50", (8, 8, 16, 16), "as_is", True),
        "method": _method((64, 64, 64), True, False),
        "objective": _VICREG,
        "optim": _lars(0.2, 0.000001, 0.001, False, 1.0),
        "schedule": {"kind": "warmup_cosine", "warmup_epochs": 2, "warmup_from": 0.0, "floor": 0.001},
    },
}
"""Whole but for `source` and `train`, which `Case.content` adds."""


# --- Trainings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One training of the list."""

    recipe: str
    executor: str = "in_memory"
    chunks: bool = False
    processes: int = 1
    precision: str = "float32"

    @property
    def name(self) -> str:
        """The words by which `--only` finds it, such as `small_vicreg streaming chunks 2-processes bf16`."""
        batch = "chunks" if self.chunks else "whole"
        processes = "1-process" if self.processes == 1 else f"{self.processes}-processes"
        return f"{self.recipe} {self.executor} {batch} {processes} {self.precision}"

    def content(self, steps: int = STEPS) -> Content:
        """The recipe's file."""
        recipe = copy.deepcopy(RECIPES[self.recipe])
        source = {"paper": f"{self.recipe} at d19bfb7", "code": "none", "differs": ["made small"]}
        train = _TRAIN | {"steps": steps, "precision": self.precision}
        train["rows_in_memory"] = ROWS_IN_MEMORY if self.chunks else None
        recipe["data"]["executor"] = self.executor
        return {"source": source, "seed": 0, **recipe, "train": train}


def cases(bf16: bool) -> Iterator[Case]:
    """Every recipe in memory and streamed, whole and in chunks, in one process and two; some in bfloat16, too."""
    for recipe in RECIPES:
        for processes, executor, chunks in product((1, 2), ("in_memory", "streaming"), (False, True)):
            yield Case(recipe, executor, chunks, processes)
        if bf16:
            yield Case(recipe, precision="bf16")
    if bf16:
        yield Case("small_vicreg", "streaming", True, 1, "bf16")
        yield Case("small_w_mse", "in_memory", True, 2, "bf16")


RESUMED = (
    *(Case(recipe) for recipe in RECIPES),
    Case("small_w_mse", "streaming", True),
    Case("cifar10/barlow_twins", "in_memory", False, 2),
    Case("small_barlow_twins", precision="bf16"),
)
"""Runs of the old tree that the new one also resumes from their half."""

HASHED = (*(Case(recipe) for recipe in RECIPES), Case("small_vicreg", "streaming", True))
HASHED_STEPS = 8
"""What the tests train, and compare with a hash of the weights."""
