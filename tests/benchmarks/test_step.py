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

from barlow.distributed import World

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


@pytest.mark.parametrize("chosen", CASES, ids=[one.recipe for one in CASES])
def test_the_bare_step_makes_the_update_of_the_command(tmp_path: Path, chosen: step.Case) -> None:
    folder = pictures.write_folder(tmp_path / "images", chosen.images, 24, 24)
    world = World(torch.device("cpu"))
    (ours, loader), (theirs, _) = (step.prepared(chosen, folder, world) for _ in range(2))
    rate = theirs.optimizer.param_groups[0]["lr"]
    before = {name: value.clone() for name, value in theirs.state()[0].items()}
    with ours.training():
        ours.step(next(iter(loader.stream(0, 1))), rate, 0.0)
    theirs.method.train()
    chosen.bare(step.Built(theirs, step.views(loader)))()
    after = theirs.state()[0]
    assert any(not torch.equal(value, after[name]) for name, value in before.items() if "encoder" in name)
    torch.testing.assert_close(ours.state()[0], after, rtol=1e-5, atol=1e-7)


def test_the_words_of_a_case_are_those_that_a_user_would_give(tmp_path: Path) -> None:
    words = next(one for one in step.CASES if one.name == "moco_v2_32px").words(tmp_path, tmp_path / "out")
    assert words[:4] == ["pretrain", str(tmp_path), "-c", "cifar10/moco_v2"]
    assert json.loads(words[words.index("--method.batch_norm_rows") + 1]) == 32
