"""The loop, its guard, and what the Python interface takes and gives back."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import yaml
from torch import Tensor, nn

import barlow
from barlow import checkpoints, pretraining, storage
from barlow.diagnostics.health import DIVERGED
from barlow.distributed import World
from barlow.objectives.barlow_twins import BarlowTwins
from barlow.objectives.vicreg import VICReg
from barlow.objectives.w_mse import WMSE
from barlow.planning import facts, preparation
from barlow.pretraining import Result, pretrain
from barlow.recipe import files
from barlow.recipe.request import chosen_recipe
from barlow.runs import beginning
from barlow.runs.run import Run, RunFolderError
from barlow.stopping import OutOfMemory
from barlow.training import learner as learners
from barlow.training.learner import Learner, NonFinite, guard
from barlow.types import Embedding, Terms


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "photos", 40)


def quick(data: Path, out: Path, **arguments: Any) -> Result:
    given = arguments.pop("overrides", {})  # None takes a key out
    overrides = {
        key: value for key, value in (tiny.SMALL | {"train.steps": 3}).items() if given.get(key, value) == value
    }
    overrides |= {key: value for key, value in given.items() if value is not None}
    return pretrain(data, out, progress=False, overrides=overrides, **arguments)


class Recording:
    """A Barlow Twins that remembers what it was called with, and can be told to go wrong at one call."""

    def __init__(self, at: int = -1, wrong: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None) -> None:
        self.calls: list[tuple[Tensor, ...]] = []
        self.at, self.wrong = at, wrong

    def __call__(self, *z: Tensor) -> dict[str, Tensor]:
        self.calls.append(z)
        terms = BarlowTwins()(*z)
        return self.wrong(terms) if self.wrong and len(self.calls) - 1 == self.at else terms


class Pooled(nn.Module):
    """An encoder of one's own: mean colour of the four quarters, through a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.linear(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))
        return features


# --- The loop -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "precision"), [(8, "float32"), (16, "float32"), (24, "bf16")])
def test_a_cpu_with_bfloat16_computes_tiny_views_in_float32(
    data: Path, monkeypatch: pytest.MonkeyPatch, size: int, precision: str
) -> None:
    # Below a stride, an image of one pixel: torch's bfloat16 kernels leave gradients there that nobody wrote.
    monkeypatch.setattr(facts, "has_native_bf16", lambda device: True)
    chosen = chosen_recipe(data, steps=1, image_size=size, device="cpu")
    plan = preparation.prepare(chosen, World(torch.device("cpu"))).plan
    assert plan.precision == plan.recipe.train.precision == precision


def test_the_objective_sees_each_batch_once_in_float32(data: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bf16"):
        objective = Recording()
        quick(data, tmp_path / precision, objective=objective, overrides={"train.precision": precision})
        assert len(objective.calls) == 3
        for z in objective.calls:
            assert [(v.shape, v.dtype) for v in z] == [((16, 4), torch.float32)] * 2
            assert all(v.requires_grad for v in z)


def test_the_rate_follows_the_schedule_scaled_by_the_batch_and_is_logged(data: Path, tmp_path: Path) -> None:
    changes = {"train.steps": 8, "schedule.warmup_steps": 2, "schedule.floor": 0.0, "optim.lr_per_256": 0.32}
    run = quick(data, tmp_path / "run", overrides=changes).run_folder
    rates = [row["rate"] for row in Run(run).metrics()]
    peak = 0.32 * 16 / 256
    schedule = chosen_recipe(data, overrides=tiny.SMALL | changes).schedule.build(8, 2)
    assert rates == pytest.approx([peak * schedule(step, 8) for step in range(8)])
    assert max(rates) == pytest.approx(peak)


def test_the_log_has_terms_speed_and_the_state_of_features_and_embeddings(data: Path, tmp_path: Path) -> None:
    result = quick(data, tmp_path / "run", overrides={"train.steps": 5, "train.log_steps": 2})
    rows = Run(result.run_folder).metrics()
    assert [row["step"] for row in rows] == [1, 2, 4, 5], "the first, every two steps, and the last"
    assert result.metrics["step"] == 5
    for row in rows:
        assert row["loss"] == pytest.approx(sum(row["terms"].values()))
        assert row["gradient_norm"] > 0
        assert row["images_per_second"] > 0
        assert 0 <= row["data_wait"] <= 1
        for what in ("features", "embeddings"):
            assert {"std", "effective_rank", "mean_abs_correlation"} <= set(row[what])
            assert set(row["healthy"][what]) >= {"std", "effective_rank", "mean_abs_correlation"}


def test_the_logged_speeds_add_up_to_no_more_than_the_time_that_passed(data: Path, tmp_path: Path) -> None:
    def slowed(*z: Tensor) -> dict[str, Tensor]:
        time.sleep(0.02)
        return BarlowTwins()(*z)

    before = time.monotonic()
    changes = {"train.steps": 40, "train.log_steps": 1}
    run = quick(data, tmp_path / "run", objective=slowed, overrides=changes).run_folder
    passed = time.monotonic() - before
    seconds = [16 / row["images_per_second"] for row in Run(run).metrics()]
    assert min(seconds) > 0.019
    assert sum(seconds) < 1.01 * passed  # rounded in the log


# --- The guard ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_refused_with_its_terms(value: float) -> None:
    terms = {"invariance": torch.tensor(1.5), "covariance": torch.tensor(value)}
    with pytest.raises(NonFinite, match=r"step 7: .*invariance 1\.5, covariance .*weights were not updated.*Lower"):
        guard(7, terms, torch.tensor(1.0))
    guard(7, {"invariance": torch.tensor(1.5)}, torch.tensor(1.0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(NonFinite, match=r"step 7: .*distance 1.5, gradient norm (nan|inf)"):
        guard(7, {"distance": torch.tensor(1.5, requires_grad=True)}, torch.tensor(value))


def poisoned_loss(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: term * float("nan") for name, term in terms.items()}


def poisoned_gradient(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    (name, term), *_ = terms.items()
    return terms | {name: term + (0 * term).abs().sqrt()}  # value unchanged, derivative 0 · ∞


@pytest.mark.parametrize("poison", [poisoned_loss, poisoned_gradient])
@pytest.mark.parametrize("step", [0, 2])
def test_training_stops_before_the_update_and_nothing_bad_is_ever_stored(
    poison: Callable[..., Any], step: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {}

    def watched(*arguments: Any) -> Learner:
        kept["learner"] = built = build(*arguments)
        return built

    def remember(now: int, *rest: Any) -> None:
        if now == step:
            kept["before"] = {name: p.clone() for name, p in kept["learner"].method.named_parameters()}
        guard(now, *rest)

    build = pretraining.build_learner
    monkeypatch.setattr(pretraining, "build_learner", watched)
    monkeypatch.setattr(learners, "guard", remember)
    with pytest.raises(NonFinite, match=rf"step {step}: "):
        quick(data, tmp_path / "run", objective=Recording(step, poison), overrides={"train.checkpoint_steps": 1})
    for name, parameter in kept["learner"].method.named_parameters():
        assert torch.equal(parameter, kept["before"][name]), name
    for slots in kept["learner"].optimizer.state.values():
        assert all(torch.isfinite(value).all() for value in slots.values())
    run = Run(tmp_path / "run")
    checkpoint, _ = checkpoints.newest(run.path)
    assert checkpoint.step == step
    assert all(torch.isfinite(value).all() for value in checkpoint.tensors.values())
    *good, last = run.metrics()
    assert [row["step"] for row in good] == list(range(1, step + 1))
    assert (last["step"], last["state"], "loss" in last) == (step + 1, DIVERGED, False)
    assert not (run.path / "encoder").exists()


@pytest.mark.parametrize("poison", [poisoned_loss, poisoned_gradient])
def test_where_steps_are_read_late_the_bad_update_is_left_out_all_the_same(
    poison: Callable[..., Any], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(name: str, objective: Recording, steps: int) -> dict[str, Tensor]:
        kept: dict[str, Any] = {}

        def watched(*arguments: Any) -> Learner:
            kept["learner"] = built = build(*arguments)
            return built

        with monkeypatch.context() as patched:
            patched.setattr(pretraining, "build_learner", watched)
            kept["error"] = None
            try:
                quick(data, tmp_path / name, objective=objective, overrides=constant | {"train.steps": steps})
            except NonFinite as error:
                kept["error"] = str(error)
        return {"error": kept["error"], **{n: p.detach() for n, p in kept["learner"].method.named_parameters()}}

    build = pretraining.build_learner
    constant = {"train.log_steps": 100, "schedule.warmup_fraction": 0.0, "schedule.floor": 1.0}
    good = trained("good", Recording(), 2)
    monkeypatch.setattr(World, "queues", property(lambda world: True))
    read: list[int] = []

    def reading(step: int, *rest: Any) -> None:
        read.append(step)
        guard(step, *rest)

    monkeypatch.setattr(learners, "guard", reading)
    bad = trained("bad", Recording(2, poison), 6)
    assert bad.pop("error").startswith("step 2: ")
    assert good.pop("error") is None
    assert read == [0, 1, 2]  # and the third step is queued by then
    assert all(torch.equal(bad[name], good[name]) for name in good)
    assert [path.name for path in (tmp_path / "bad" / "checkpoints").iterdir()] == ["step-000000"]


@pytest.mark.parametrize("step", [0, 5])
def test_where_steps_are_read_late_nothing_bad_is_logged_or_kept(
    step: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "queues", property(lambda world: True))
    often = {"train.checkpoint_steps": 1, "train.log_steps": 1}
    with pytest.raises(NonFinite, match=rf"step {step}: "):
        quick(data, tmp_path / "run", objective=Recording(step, poisoned_loss), overrides=often | {"train.steps": 6})
    run = Run(tmp_path / "run")
    *good, last = run.metrics()
    assert [row["step"] for row in good] == list(range(1, step + 1))
    assert (last["state"], "loss" in last) == (DIVERGED, False)
    checkpoint, _ = checkpoints.newest(run.path)
    assert checkpoint.step == step
    assert not (run.path / "encoder").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 8589934592 bytes"),
    ],
    ids=["cuda", "python", "cpu"],
)
def test_running_out_of_memory_says_what_to_lower(error: Exception, data: Path, tmp_path: Path) -> None:
    def exhausted(terms: dict[str, Tensor]) -> dict[str, Tensor]:
        raise error

    with pytest.raises(
        OutOfMemory,
        match=r"batch 16 of 16-pixel views and resnet26; keep fewer images .*rows_in_memory, .* lower batch_size",
    ):
        quick(data, tmp_path / "run", objective=Recording(1, exhausted))


def test_other_errors_of_torch_are_left_as_they_are(data: Path, tmp_path: Path) -> None:
    def broken(terms: dict[str, Tensor]) -> dict[str, Tensor]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        quick(data, tmp_path / "run", objective=Recording(1, broken))


# --- The budget ---------------------------------------------------------------------------------------------------


def written(result: Result) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((result.run_folder / "recipe.yaml").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize(("epochs", "steps"), [(1, 2), (1.5, 3), (0.1, 1)])
def test_epochs_become_steps(epochs: float, steps: int, data: Path, tmp_path: Path) -> None:
    result = quick(data, tmp_path / "run", epochs=epochs, overrides={"train.steps": None})
    assert written(result)["train"] | {"steps": steps, "epochs": None, "minutes": None} == written(result)["train"]
    assert result.metrics["step"] == steps, "40 images are two batches of 16"


def test_minutes_become_steps_once_and_the_run_starts_from_its_seed_all_the_same(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result = quick(data, tmp_path / "run", minutes=0.0005, overrides={"train.steps": None}, tell=said.append)
    train = written(result)["train"]
    assert train["steps"] == result.metrics["step"] >= 1
    assert train["minutes"] is None
    assert any(f"steps {train['steps']}: 0.0005 minutes at" in line for line in said)
    again = quick(data, tmp_path / "again", steps=train["steps"], overrides={"train.steps": None})
    assert tiny.weights(again.run_folder) == tiny.weights(result.run_folder), "measuring left no trace"


def test_a_measured_time_gives_the_steps_that_fit(monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(pretraining, "seconds_per_step", lambda *_: 0.5)
    result = quick(data, tmp_path / "run", minutes=0.05, overrides={"train.steps": None})
    assert written(result)["train"]["steps"] == 6


class SlowBeforeAnEpoch(nn.Module):
    """Half a second before each epoch, and next to nothing in a step."""

    def forward(self, groups: list[tuple[Embedding, ...]]) -> Terms:
        return {"loss": groups[0][0].square().mean()}

    def before_epoch(self, embed: object) -> None:
        time.sleep(0.5)


def test_minutes_count_what_an_objective_does_before_an_epoch(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    objective = SlowBeforeAnEpoch()
    quick(data, tmp_path / "run", objective=objective, minutes=0.04, overrides={"train.steps": None}, tell=said.append)
    (line,) = [line for line in said if "minutes at" in line]
    # 40 images are two batches of 16, so half of it falls on each step: once, not once more for epochs while measuring.
    assert 0.25 <= float(line.split(" at ")[1].split(" s ")[0]) < 0.45, line


# --- What may be given --------------------------------------------------------------------------------------------


def test_the_result_has_encoder_folder_and_metrics(data: Path, tmp_path: Path) -> None:
    result = quick(data, tmp_path / "run")
    assert result.run_folder == tmp_path / "run"
    assert not result.encoder.training
    assert result.metrics == Run(result.run_folder).metrics()[-1] | {"healthy": result.metrics["healthy"]}
    assert result.encoder.preprocessing.size == 16


def test_the_saved_encoder_gives_the_features_of_the_one_returned(data: Path, tmp_path: Path) -> None:
    result = quick(data, tmp_path / "run")
    loaded = barlow.load_encoder(tmp_path / "run")
    x = loaded.preprocess([data / "000.png", data / "001.png"])
    assert torch.equal(x, result.encoder.preprocess([data / "000.png", data / "001.png"]))
    with torch.no_grad():
        features, again = result.encoder(x), loaded(x)
    assert features.shape == (2, 8)
    assert not torch.equal(features[0], features[1])
    torch.testing.assert_close(again, features)
    for name, value in result.encoder.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


@pytest.mark.parametrize("objective", [VICReg(gamma=0.5), WMSE(slice_rows=8, shrinkage=0.01), BarlowTwins()])
def test_an_objective_object_of_a_known_kind_is_written_into_the_recipe(
    objective: Any, data: Path, tmp_path: Path
) -> None:
    result = quick(data, tmp_path / "run", objective=objective)
    kind = {VICReg: "vicreg", WMSE: "w_mse", BarlowTwins: "barlow_twins"}[type(objective)]
    assert written(result)["objective"] == {"kind": kind, **objective.__dict__}
    assert written(result)["source"] == written_source(f"small_{kind}"), "with the recipe of its kind"


def written_source(name: str) -> dict[str, Any]:
    source: dict[str, Any] = files.read(name)["source"]
    return source


def test_an_objective_of_ones_own_is_used_and_its_name_written_down(data: Path, tmp_path: Path) -> None:
    def agreement(za: Tensor, zb: Tensor) -> dict[str, Tensor]:
        return {"agreement": (za - zb).square().mean()}

    result = quick(data, tmp_path / "run", objective=agreement)
    assert set(result.metrics["terms"]) == {"agreement"}
    assert written(result)["objective"]["kind"].startswith("custom:")


class Moving(nn.Module):
    """An objective of one's own with everything: a trained parameter, a buffer, and a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.calls = 0

    def forward(self, groups: list[tuple[Tensor, ...]], *, ids: Tensor) -> dict[str, Tensor]:
        za, zb = groups[0]
        loss = (self.scale * za - zb).square().mean()
        self.get_buffer("seen").add_(len(ids))
        self.calls += 1
        return {"distance": loss}


def test_an_objective_of_ones_own_with_state_is_trained_as_a_copy_saved_and_gone_on_with(
    data: Path, tmp_path: Path
) -> None:
    mine = Moving()
    changes = {"train.steps": 4, "train.checkpoint_steps": 2}
    run = quick(data, tmp_path / "run", objective=mine, overrides=changes).run_folder
    assert (mine.calls, int(mine.seen), float(mine.scale.detach())) == (0, 0, 1.0), "the caller's module is left alone"
    checkpoint, _ = checkpoints.newest(run)
    assert int(checkpoint.tensors["objective/seen"]) == 4 * 16
    assert float(checkpoint.tensors["objective/scale"]) != 1.0
    whole = tiny.weights(run)
    shutil.rmtree(run / "checkpoints" / "step-000004")
    pretrain(out=run, resume=True, objective=mine, progress=False)
    assert tiny.weights(run) == whole
    again, _ = checkpoints.newest(run)
    assert all(again.tensors[name].equal(value) for name, value in checkpoint.tensors.items())


def test_an_objective_of_ones_own_has_to_be_given_again(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", objective=Moving()).run_folder
    with pytest.raises(ValueError, match=r"the objective is custom:Moving: pass the object in Python"):
        pretrain(out=run, resume=True, progress=False)


def test_measuring_the_minutes_touches_nothing_of_the_run(data: Path, tmp_path: Path) -> None:
    mine = Moving()
    result = quick(data, tmp_path / "run", objective=mine, minutes=0.0005, overrides={"train.steps": None})
    steps = result.metrics["step"]
    checkpoint, _ = checkpoints.newest(result.run_folder)
    assert int(checkpoint.tensors["objective/seen"]) == steps * 16, "only the steps of the run are counted"
    assert (mine.calls, int(mine.seen)) == (0, 0)
    again = quick(data, tmp_path / "again", objective=Moving(), steps=steps, overrides={"train.steps": None})
    assert tiny.weights(again.run_folder) == tiny.weights(result.run_folder)


class Tallying:
    """A plain objective that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *z: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        return BarlowTwins()(*z)


def test_measuring_the_minutes_does_not_call_a_plain_objective_of_the_run(data: Path, tmp_path: Path) -> None:
    mine = Tallying()
    result = quick(data, tmp_path / "run", objective=mine, minutes=0.0005, overrides={"train.steps": None})
    assert mine.calls == result.metrics["step"]


@dataclass(frozen=True, kw_only=True)
class Section:
    """An objective with state, as a file of barlow.objectives has it, given in Python."""

    def build(self, *, seed: int) -> nn.Module:
        return Moving()


def test_a_dataclass_that_builds_its_state_can_be_given_in_python(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", objective=Section()).run_folder
    checkpoint, _ = checkpoints.newest(run)
    assert int(checkpoint.tensors["objective/seen"]) == 3 * 16


class Queued(nn.Module):
    """With state, and called as other libraries call their losses."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("queue", torch.zeros(3))

    def forward(self, za: Tensor, zb: Tensor) -> dict[str, Tensor]:
        return {"distance": (za - zb).square().mean()}


def test_an_objective_with_state_that_would_be_called_twice_a_step_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"Queued has state \(queue\) and its forward takes za, zb: let it take `groups`"
    ):
        quick(data, tmp_path / "run", objective=Queued())
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_run_with_a_queue_and_a_target_goes_on_to_the_bit(data: Path, tmp_path: Path) -> None:
    changes = {
        "train.steps": 6,
        "train.checkpoint_steps": 3,
        "objective.queue": 64,
        "method.batch_norm_rows": 8,
    }
    run = quick(data, tmp_path / "run", recipe="small_moco_v2", overrides=changes).run_folder
    first, _ = checkpoints.newest(run)
    assert "objective/queue" in first.tensors
    shutil.rmtree(run / "checkpoints" / "step-000006")
    pretrain(out=run, resume=True, progress=False)
    again, _ = checkpoints.newest(run)
    assert first.tensors.keys() == again.tensors.keys()
    assert all(again.tensors[name].equal(value) for name, value in first.tensors.items())


def test_a_rule_holds_for_some_of_the_parameters(data: Path, tmp_path: Path) -> None:
    frozen = [{"parameters": "projector.linear1.*", "frozen_until": 1.0}]
    run = quick(data, tmp_path / "run", overrides={"optim.groups": frozen}).run_folder
    start = quick(data, tmp_path / "start", overrides={"train.steps": 1, "optim.groups": frozen}).run_folder
    one, other = (checkpoints.newest(folder)[0].tensors for folder in (run, start))
    assert one["method/projector.linear1.weight"].equal(other["method/projector.linear1.weight"])
    assert not one["method/projector.linear0.weight"].equal(other["method/projector.linear0.weight"])
    with pytest.raises(ValueError, match=r"predictor\.\*"):
        quick(data, tmp_path / "none", overrides={"optim.groups": [{"parameters": "predictor.*"}]})
    with pytest.raises(ValueError, match=r"unknown key optim\.groups\.0\.frozen \(did you mean 'frozen_until'\?\)"):
        quick(data, tmp_path / "none", overrides={"optim.groups": [{"parameters": "*", "frozen": 0.1}]})


def test_an_encoder_of_ones_own_is_trained_as_a_copy_and_can_be_filled_again(data: Path, tmp_path: Path) -> None:
    mine = Pooled()
    before = mine.linear.weight.clone()
    result = quick(data, tmp_path / "run", encoder=mine)
    assert torch.equal(mine.linear.weight, before), "the caller's module is left alone"
    assert not torch.equal(result.encoder.linear.weight, before)
    assert written(result)["encoder"]["name"] == "custom:Pooled"
    loaded = barlow.load_encoder(tmp_path / "run", Pooled())
    assert torch.equal(loaded.linear.weight, result.encoder.linear.weight)
    with pytest.raises(ValueError, match="custom:Pooled: pass the module in Python"):
        pretrain(out=tmp_path / "again", recipe=str(tmp_path / "run" / "recipe.yaml"), progress=False)


def test_an_encoder_that_keeps_space_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must return \(n, features\): pool over space"):
        quick(data, tmp_path / "run", encoder=nn.Conv2d(3, 4, 3))


def test_weights_of_another_run_can_be_the_start(data: Path, tmp_path: Path) -> None:
    first = quick(data, tmp_path / "first").run_folder
    said: list[str] = []
    frozen = {"optim.lr_per_256": 1e-12, "optim.weight_decay": 0.0, "train.steps": 1}
    second = quick(data, tmp_path / "second", init=str(first), overrides=frozen, tell=said.append, seed=9).run_folder
    one, two = (storage.read_tensors(run / "encoder" / "model.safetensors") for run in (first, second))
    assert torch.allclose(one["conv1.weight"], two["conv1.weight"], atol=1e-9)
    assert any(str(first) in line and "tensors" in line for line in said)


def test_several_folders_are_one_set(data: Path, tmp_path: Path) -> None:
    more = tiny.images(tmp_path / "more", 8, seed=1)
    said: list[str] = []
    overrides = tiny.SMALL | {"train.steps": 1}
    pretrain([data, more], tmp_path / "run", overrides=overrides, progress=False, tell=said.append)
    assert any("48 usable of 48" in line for line in said)
    report = storage.read_json(tmp_path / "run" / "data.json")
    assert (report["usable"], report["sources"]) == (48, [str(data), str(more)])


def test_grey_images_are_trained_with_one_channel(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "grey").mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (24, 24), dtype=np.uint8)).save(tmp_path / "grey" / f"{i}.png")
    result = quick(tmp_path / "grey", tmp_path / "run", overrides={"train.steps": 1})
    assert written(result)["data"]["channels"] == 1
    assert len(written(result)["data"]["mean"]) == 1
    assert result.encoder.conv1.in_channels == 1


def test_a_mean_of_the_wrong_length_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    objective = Recording()
    with pytest.raises(ValueError, match="channel"):
        quick(data, tmp_path / "run", objective=objective, overrides={"data.mean": [0.5], "data.std": [0.5]})
    assert objective.calls == []


def test_the_automatic_choices_are_said_and_written_down(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    automatic = {"data.image_size": None, "train.batch_size": None, "train.precision": None, "train.device": None}
    content = written(quick(data, tmp_path / "run", overrides=automatic | {"train.steps": 1}, tell=said.append))
    text = "\n".join(said)
    for chosen in (content["data"]["image_size"], content["train"]["batch_size"], content["train"]["precision"]):
        assert str(chosen) in text
    assert "auto" not in str(content)
    assert 2 <= content["train"]["batch_size"] <= 40


def test_a_short_runs_log_is_spaced_by_its_length_where_nobody_asked_for_a_spacing(data: Path, tmp_path: Path) -> None:
    small = {key: value for key, value in tiny.SMALL.items() if key != "train.log_steps"} | {"train.steps": 21}
    run = pretrain(data, tmp_path / "run", recipe="small_barlow_twins", overrides=small, progress=False).run_folder
    assert [row["step"] for row in Run(run).metrics()] == [1, 10, 20, 21]
    kept = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    assert kept["train"]["log_steps"] == 10, "and so it is gone on with"
    new, asked = Run(tmp_path / "new"), {"data.sources": [str(data)]}
    assert beginning.of(new, None, asked, resume=False).spaced
    assert not beginning.of(new, None, {**asked, "train.log_steps": 50}, resume=False).spaced
    assert not beginning.of(new, str(run / "recipe.yaml"), asked, resume=False).spaced


def test_two_runs_never_share_a_folder(data: Path, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with run.locked(), pytest.raises(RunFolderError, match="in use by process"):
        quick(data, tmp_path / "run")


def test_overwriting_starts_anew(data: Path, tmp_path: Path) -> None:
    quick(data, tmp_path / "run", overrides={"train.steps": 4})
    result = quick(data, tmp_path / "run", overwrite=True, overrides={"train.steps": 2})
    assert [row["step"] for row in Run(result.run_folder).metrics()] == [1, 2]
    assert list(checkpoints.folders(tmp_path / "run")) == [0, 2]


def test_an_unknown_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        pretrain("photos", nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="nonsense"):
        chosen_recipe("photos", nonsense=1)


# --- What a run must not depend on ------------------------------------------------------------------------------------


def test_layers_that_draw_do_so_by_seed_and_step(data: Path, tmp_path: Path) -> None:
    options = {"encoder.options": tiny.SMALL["encoder.options"] | {"drop_path_rate": 0.5}, "train.checkpoint_steps": 2}
    first = quick(data, tmp_path / "first", overrides=options).run_folder
    torch.rand(3)  # whatever else has drawn
    second = quick(data, tmp_path / "second", overrides=options).run_folder
    assert tiny.weights(first) == tiny.weights(second)
    whole = tiny.weights(second)
    shutil.rmtree(second / "checkpoints" / "step-000003")
    pretrain(out=second, resume=True, progress=False)
    assert tiny.weights(second) == whole


def test_a_run_inside_its_own_folder_of_images_is_no_image(tmp_path: Path) -> None:
    photos = tiny.images(tmp_path / "photos", 40)
    run = quick(photos, photos / "runs" / "one").run_folder
    assert (run / "views.png").exists()
    pretrain(out=run, resume=True, progress=False)  # the images have not changed
    again = quick(photos, photos / "runs" / "two").run_folder
    assert storage.read_json(again / "data.json")["usable"] == 40


def test_a_file_that_went_bad_meanwhile_stops_a_resumption(tmp_path: Path) -> None:
    photos = tiny.images(tmp_path / "photos", 40)
    run = quick(photos, tmp_path / "run", max_bad=0.2).run_folder
    damaged = photos / "007.png"
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    with pytest.raises(ValueError, match="40 usable then, 39 now"):
        pretrain(out=run, resume=True, progress=False)


@pytest.mark.parametrize("name", ["000.png", "039.png"])
def test_an_unreadable_image_does_not_stop_the_picture_of_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of a large streamed set only a sample is tried before; a bad file outside of it, first or last, comes as here."""
    photos = tiny.images(tmp_path / "photos", 40)
    scan = preparation.scan

    def scanned(*given: Any, **more: Any) -> Any:
        found = scan(*given, **more)
        (photos / name).write_bytes(b"")
        return found

    monkeypatch.setattr(preparation, "scan", scanned)
    run = quick(photos, tmp_path / "run", overrides={"data.executor": "streaming", "data.workers": 0}).run_folder
    assert (run / "views.png").exists()


def test_a_folder_name_that_is_not_utf8_gives_a_run_that_can_be_read(tmp_path: Path) -> None:
    photos = tiny.images(tmp_path / os.fsdecode(b"ph\xf6t"), 40)
    run = quick(photos, tmp_path / "run").run_folder
    pretrain(out=run, resume=True, progress=False)


def test_a_given_mean_is_kept_beside_a_measured_deviation(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", overrides={"data.mean": [0.5, 0.5, 0.5]}).run_folder
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())["data"]
    assert recipe["mean"] == [0.5, 0.5, 0.5]
    assert recipe["std"] != "auto"
