"""What the monitor would have kept, of a run that was not monitored: from its checkpoint and its first weights."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from barlow import checkpoints, finishing
from barlow.assembly import Given, build_method
from barlow.data.decoding import UnreadableImage
from barlow.data.inventory import in_threads
from barlow.data.last_words import kept_from_the_screen
from barlow.diagnostics.rank import singular_values
from barlow.exits import NoInput
from barlow.finishing import Finishing
from barlow.identity import identity_of
from barlow.linalg import standardize
from barlow.machine import available_cores
from barlow.methods._networks import Method
from barlow.nets import stored_size
from barlow.nets.norms import has_fixed_statistics
from barlow.plan import Plan
from barlow.recipe import schema
from barlow.recipe.schema import Recipe
from barlow.report.matrix import SIDE
from barlow.report.record import Record
from barlow.run import Run
from barlow.telling import Say
from barlow.types import Rows
from barlow.views.keys import permutation
from barlow.views.pipeline import ViewPipeline

IMAGES = 500
BATCH = 100
EPOCH = 1_000_000
"""The epoch of the views: no run comes to it, so the networks have not been trained on them."""


def snapshots(run: Record, say: Say) -> list[dict[str, Any]]:
    """The networks before the first step, if they can be had, and at the newest checkpoint.

    Raises:
        ValueError, OSError: there is no checkpoint, or the images cannot be read.
    """
    if (folder := checkpoints.whole(run.path, look=stored_size.look())) is None:
        raise NoInput("the run has no checkpoint")
    checkpoint = checkpoints.read(folder)
    recipe = schema.check(run.recipe)
    if (identity := identity_of(Run(run.path))) is not None:
        recipe = identity.located(recipe)
    own = finishing.of_recipe(recipe, run.path)
    plan = plan_of(recipe, len(own.source))
    start = run.path / "start"
    method = build_method(plan, Given(start=start if start.is_dir() else None))
    rows = _rows(plan, own)
    say(f"reading {len(rows)} of the run's images, as it was not monitored")
    found = [snapshot(with_statistics(method, rows), rows, 0)]
    prefix = "method/"
    state = {name.removeprefix(prefix): t for name, t in checkpoint.tensors.items() if name.startswith(prefix)}
    method.load_state_dict(state, strict=True)
    return found if checkpoint.step == 0 else [*found, snapshot(method, rows, checkpoint.step)]


def plan_of(recipe: Recipe, candidates: int) -> Plan:
    """The plan that a resolved recipe is."""
    data: Any = recipe.data
    train: Any = recipe.train
    return Plan(
        recipe=recipe,
        channels=data.channels,
        image_size=data.image_size,
        centre_size=data.centre_size or data.image_size,
        working_size=data.working_size,
        executor=data.executor,
        workers=data.workers,
        mean=list(data.mean),
        std=list(data.std),
        value_range=data.value_range,
        batch_size=train.batch_size,
        precision=train.precision,
        stem=recipe.encoder.stem,
        candidates=candidates,
    )


def _rows(plan: Plan, own: Finishing) -> Rows:
    """Views of some of the run's images."""
    pipeline = ViewPipeline(plan.recipe.build_views(), plan.mean, plan.std)
    seed, ids = plan.recipe.seed, np.asarray(own.ids)[permutation(0, 0, len(own.ids))[:IMAGES]]

    def cropped(i: int) -> tuple[int, list[np.ndarray]] | None:
        try:
            return i, pipeline.crop_one(own.source.read(i).transpose(2, 0, 1), i, seed, EPOCH)
        except UnreadableImage:
            return None

    with kept_from_the_screen():
        made = [each for each in in_threads(cropped, [int(i) for i in ids], available_cores()) if each is not None]
    if len(made) < 2:
        raise NoInput("fewer than two of the run's images can be read")
    there = np.array([i for i, _ in made])
    crops = [torch.from_numpy(np.stack([views[v] for _, views in made])) for v in range(len(pipeline.views))]
    views = [view.clone() for view in pipeline.finish(crops, there, seed, EPOCH)]
    return Rows(views, {"ids": torch.from_numpy(there), **pipeline.told(there, seed, EPOCH)})


@torch.no_grad()
def with_statistics(method: Method, rows: Rows) -> Method:
    """Networks before their first step, with batch norm's statistics as these rows have them.

    Training takes them from its batches. Those that an untrained network is built with are of no data at all, and its
    outputs would be nearly alike. Statistics that are fixed in training stay as they are.
    """
    method.eval()
    norms = [m for m in method.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    measured = [norm for norm in norms if not has_fixed_statistics(norm)]
    momenta = [norm.momentum for norm in measured]
    for norm in measured:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
        norm.train()
    for start in _starts(len(rows)):
        method(rows[start : start + BATCH])
    for norm, momentum in zip(measured, momenta, strict=True):
        norm.momentum = momentum
    return method


@torch.no_grad()
def snapshot(method: Method, rows: Rows, step: int) -> dict[str, Any]:
    """What a line of monitor.jsonl says of the spectra and of the cross-correlation."""
    method.eval()
    parts = [method(rows[start : start + BATCH]) for start in _starts(len(rows))]
    features = torch.cat([part.features[0] for part in parts]).float()
    spectrum = {"features": singular_values(features, centred=True).tolist()}
    line: dict[str, Any] = {"step": step, "images": {"count": len(rows), "views": len(rows.views)}}
    if len(parts[0].groups[0]) > 1:
        za, zb = (torch.cat([part.groups[0][view] for part in parts]).float() for view in (0, 1))
        spectrum["embeddings"] = singular_values(za, centred=True).tolist()
        line["cross_correlation"] = blocks(za, zb)
    return {**line, "spectrum": spectrum}


def _starts(count: int) -> range:
    """Of batches; a last one of a single row would have no variance, and is left out."""
    return range(0, count - 1, BATCH) if count > 1 else range(count)


def blocks(za: Float[Tensor, "n d"], zb: Float[Tensor, "n d"], side: int = SIDE) -> Mapping[str, Any]:
    """The cross-correlation of two views, of each block of dimensions the value farthest from 0.

    Rows of blocks are made one by one: of 8,192 dimensions the whole matrix has 67 million numbers.
    """
    d = za.shape[1]
    side = min(side, d)
    a, b = (standardize(z.double(), eps=1e-12).x for z in (za, zb))
    edges = [round(i * d / side) for i in range(side + 1)]
    values: list[float] = []
    for top, bottom in pairwise(edges):
        strip = a[:, top:bottom].T @ b / len(a)
        for left, right in pairwise(edges):
            block = strip[:, left:right].flatten()
            values.append(round(float(block[block.abs().argmax()]), 4))
    return {"d": d, "side": side, "values": values}
