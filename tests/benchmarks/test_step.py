"""The step's benchmark: the bare step is the very update that `barlow pretrain` makes, and nothing less."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import pictures
import step
import step_methods
from programs import program

from barlow.distributed import World
from barlow.recipe import files

BATCH = 8


def case(recipe: str, **changed: object) -> step.Case:
    tiny = step.Case("tiny", "", recipe, BATCH, (24, 24), BATCH, **changed)  # type: ignore[arg-type]
    return replace(tiny, overrides={"train.precision": "float32", **tiny.overrides})


CASES = [
    case("small_barlow_twins"),
    case("small_vicreg"),
    case("small_w_mse", overrides={"method.projector.widths": [1024, BATCH // 2]}),
    case("small_byol", bare=step.distillation),
    case(
        "small_moco_v2",
        bare=step.distillation,
        overrides={"method.batch_norm_rows": None, "objective.queue": 2 * BATCH},
    ),
]

FEW = {
    "objective.negatives": 4,
    "objective.queue": 4 * BATCH,
    "objective.words": 2 * BATCH,
    "objective.hidden": 4,
    "method.batch_norm_rows": None,
}
"""Sizes that fit a batch of eight, for the objectives and methods that have them."""
SPECIAL: dict[str, dict[str, object]] = {
    "deepcluster_v1": {"objective.clusters": 3, "objective.whitened": 4},
    "deepcluster_v2": {"objective.clusters": 3},
    "sela": {"objective.clusters": 3},
    "pcl": {"objective.clusters": [14, 15], "objective.negatives": 2, "objective.warmup": 0.0},
    "infomin": {"objective.queue": 2 * BATCH},
}
NARROW = {"encoder.options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}, "train.precision": "float32"}
SGD = {"optim.kind": "sgd", "optim.momentum": 0.9}
"""Adam would make a whole step of a gradient that is nothing but rounding."""


def of_method(whole: step.Case) -> step.Case:
    """The case as it is measured, with a narrow network and sizes that fit a batch of eight."""
    content = files.read(whole.recipe)
    there = {f"{section}.{key}" for section in ("objective", "method") for key in content[section]}
    few = {key: value for key, value in FEW.items() if key in there and content[key.split(".")[0]][key.split(".")[1]]}
    options = NARROW["encoder.options"] | whole.overrides["encoder.options"]
    small = NARROW | SGD | few | SPECIAL.get(whole.name, {}) | {"encoder.options": options, "encoder.stages": "last"}
    small |= {"encoder.whiten": None, "data.centre_size": None, "data.executor": "in_memory"}
    return replace(whole, batch=BATCH, images=2 * BATCH, overrides=whole.overrides | small)


CASES += [of_method(whole) for whole in step_methods.OF_METHODS]


def test_every_method_with_a_bank_clusters_patches_or_a_made_up_label_has_a_case() -> None:
    earlier = {"moco_v1", "moco_v2", "moco_v3", "simsiam", "swav", "rotation"}  # of the first half, or like one of it
    compared = {name.removeprefix("small_") for name in program("experiments/compared_methods.py").OTHERS}
    assert compared - earlier <= {one.name for one in step_methods.OF_METHODS}


@pytest.mark.parametrize("chosen", CASES, ids=[one.recipe for one in CASES])
def test_the_bare_step_makes_the_update_of_the_command(tmp_path: Path, chosen: step.Case) -> None:
    assert chosen.side is not None
    folder = pictures.write_folder(tmp_path / "images", chosen.images, *chosen.side)
    world = World(torch.device("cpu"))
    (ours, loader), (theirs, _) = (step.prepared(chosen, folder, world) for _ in range(2))
    rate = theirs.optimizer.param_groups[0]["lr"]
    before = {name: value.clone() for name, value in theirs.state()[0].items()}
    step.looked(theirs, loader)  # a step of the learner does it by itself
    with ours.training():
        ours.step(next(iter(loader.stream(0, 1))), rate, 0.0)
    theirs.method.train()
    chosen.bare(step.built(theirs, loader, progress=0.0))()
    after = theirs.state()[0]
    assert any(not torch.equal(value, after[name]) for name, value in before.items() if "encoder" in name)
    # A pass over patches or tiles that lie otherwise in memory adds up in another order.
    torch.testing.assert_close(ours.state()[0], after, rtol=1e-5, atol=1e-7)


def test_the_words_of_a_case_are_those_that_a_user_would_give(tmp_path: Path) -> None:
    words = next(one for one in step.CASES if one.name == "moco_v2_32px").words(tmp_path, tmp_path / "out")
    assert words[:4] == ["pretrain", str(tmp_path), "-c", "cifar10/moco_v2"]
    assert json.loads(words[words.index("--method.batch_norm_rows") + 1]) == 32
