"""Same seed, same weights, bit for bit: run twice, killed, interrupted, with other workers, for each objective."""

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from forks import Fork
from nightly_cases import nightly_but
from PIL import Image

from barlow import checkpoints, cli, stopping, storage
from barlow.pretraining import pretrain
from barlow.recipe import request
from barlow.recipe.changes import flat
from barlow.recipe.messages import RecipeError
from barlow.runs.run import Run
from barlow.stopping import Interrupted
from barlow.training import learner as learners

STEPS = tiny.SMALL["train.steps"]
EVERY = 4
KILLED_AT = 7
VARIANTS: dict[str, dict[str, Any]] = {
    **{kind: {"objective.kind": kind} for kind in tiny.OBJECTIVES},
    "bf16": {"objective.kind": "barlow_twins", "train.precision": "bf16"},
    "streaming": {"objective.kind": "vicreg", "data.executor": "streaming", "data.workers": 1},
    "sgd": {"objective.kind": "barlow_twins", "optim.kind": "sgd"},
}
"""Every objective with its own recipe (AdamW, AdamW, Adam), and what else has a state of its own."""

ORDINARY = (*tiny.OBJECTIVES, "streaming")
"""Those of the ordinary test command; the others are nightly."""

KILLS = {
    **{variant: (variant, "updating", KILLED_AT) for variant in VARIANTS},
    "early": ("barlow_twins", "updating", 2),
    "late": ("barlow_twins", "updating", 11),
    "before the commit": ("barlow_twins", "before the commit", 8),
    "after the commit": ("barlow_twins", "after the commit", 8),
}
"""Which run is killed, at which moment of which step."""


def kill_at(moment: str, step: int) -> None:
    """From now on this process kills itself at a moment, without warning."""
    guard, rename = learners.guard, os.rename

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def deadly_guard(at: int, *rest: Any) -> None:
        if moment == "updating" and at == step:
            die()
        guard(at, *rest)

    def deadly_rename(old: Any, new: Any) -> None:
        committing = str(new).endswith(f"step-{step:06d}")
        if moment == "before the commit" and committing:
            die()
        rename(old, new)
        if moment == "after the commit" and committing:
            die()

    learners.guard, os.rename = deadly_guard, deadly_rename  # type: ignore[assignment]


def overrides(variant: str, **more: Any) -> dict[str, Any]:
    changes = tiny.SMALL | {"train.checkpoint_steps": EVERY, "data.workers": 2} | VARIANTS[variant]
    return changes | {key.replace("__", "."): value for key, value in more.items()}


def train(data: Path | None, out: Path, variant: str, *, tell: Any = None, **more: Any) -> Path:
    return pretrain(data, out, overrides=overrides(variant, **more), progress=False, tell=tell).run_folder


def resume(out: Path, data: Path | None = None, **changes: Any) -> list[str]:
    said: list[str] = []
    pretrain(
        data,
        out,
        resume=True,
        progress=False,
        tell=said.append,
        overrides={key.replace("__", "."): value for key, value in changes.items()},
    )
    return said


@pytest.fixture(scope="module", autouse=True)
def _unsynced() -> Iterator[None]:
    """No power cut is tested here: killed processes lose nothing that the system has, so flushing disks can wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "photos", 64)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs that nobody disturbed, by variant, made when first asked for."""
    home, made = tmp_path_factory.mktemp("whole"), dict[str, Path]()

    def run(variant: str) -> Path:
        if variant not in made:
            made[variant] = train(data, home / variant, variant)
        return made[variant]

    return run


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs that were killed, by their names in `KILLS`, made when first asked for."""
    home, made = tmp_path_factory.mktemp("killed"), dict[str, Path]()

    def run(name: str) -> Path:
        out, (variant, moment, step) = home / name, KILLS[name]

        def until_it_dies() -> None:
            kill_at(moment, step)
            train(data, out, variant)

        if name not in made:
            died = Fork(until_it_dies, output=home / f"{name}.log")
            assert died.wait(120) == -signal.SIGKILL, (home / f"{name}.log").read_text()
            made[name] = out
        return made[name]

    return run


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Arranges for this process to get a signal, once, while it computes the update after so many steps."""
    guard = learners.guard

    def at(step: int, number: int = signal.SIGINT) -> None:
        left = [number]

        def signalling(now: int, *rest: Any) -> None:
            if now == step and left:
                os.kill(os.getpid(), left.pop())
            guard(now, *rest)

        monkeypatch.setattr(learners, "guard", signalling)

    return at


def steps_logged(run: Path) -> list[int]:
    return [row["step"] for row in Run(run).metrics()]


# --- Twice --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", nightly_but(VARIANTS, ORDINARY.__contains__))
def test_the_same_seed_gives_the_same_weights_to_the_bit(
    variant: str, data: Path, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    again = train(data, tmp_path / "again", variant)
    assert tiny.weights(again) == tiny.weights(whole(variant))
    losses = [[row["loss"] for row in Run(run).metrics()] for run in (again, whole(variant))]
    assert losses[0] == losses[1]
    assert len(losses[0]) == STEPS


def test_another_seed_gives_other_weights(data: Path, whole: Callable[[str], Path], tmp_path: Path) -> None:
    other = train(data, tmp_path / "other", "vicreg", seed=1)
    assert tiny.weights(other) != tiny.weights(whole("vicreg"))


def test_another_folder_and_order_of_creation_change_nothing(
    data: Path, whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("copy").mkdir()
    for path in sorted(data.iterdir(), reverse=True):
        shutil.copyfile(path, Path("copy") / path.name)
    assert tiny.weights(train(Path("copy"), Path("run"), "vicreg")) == tiny.weights(whole("vicreg"))


def test_the_draws_of_others_change_nothing(data: Path, whole: Callable[[str], Path], tmp_path: Path) -> None:
    import random

    import numpy as np

    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    assert tiny.weights(train(data, tmp_path / "run", "w_mse")) == tiny.weights(whole("w_mse"))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_number_of_workers_that_stream_changes_nothing(
    workers: int, data: Path, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    run = train(data, tmp_path / "run", "streaming", data__workers=workers)
    assert yaml.safe_load((run / "recipe.yaml").read_text())["data"]["workers"] == workers
    assert tiny.weights(run) == tiny.weights(whole("streaming"))


@pytest.mark.parametrize("variant", tiny.OBJECTIVES)
def test_the_number_of_threads_that_decode_changes_nothing(
    variant: str, data: Path, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    run = train(data, tmp_path / "run", variant, data__workers=1)
    assert yaml.safe_load((whole(variant) / "recipe.yaml").read_text())["data"]["workers"] == 2
    assert tiny.weights(run) == tiny.weights(whole(variant))


# --- Killed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", nightly_but(VARIANTS, ORDINARY.__contains__))
def test_a_run_that_was_killed_and_resumed_equals_one_that_was_not(
    variant: str, killed: Callable[[str], Path], whole: Callable[[str], Path], tmp_path: Path
) -> None:
    run = shutil.copytree(killed(variant), tmp_path / "run")
    assert not (run / "encoder").exists()
    assert list(checkpoints.folders(run)) == [0, EVERY]
    assert f"resumed at step {EVERY}" in resume(run)
    assert tiny.weights(run) == tiny.weights(whole(variant))
    assert steps_logged(run) == list(range(1, STEPS + 1))
    losses = [[row["loss"] for row in Run(folder).metrics()] for folder in (run, whole(variant))]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("case", "start"), [("before the commit", 4), ("after the commit", 8), ("early", 0)])
def test_a_run_killed_while_it_saved_or_before_it_saved_equals_one_that_was_not(
    case: str, start: int, killed: Callable[[str], Path], whole: Callable[[str], Path], tmp_path: Path
) -> None:
    run = shutil.copytree(killed(case), tmp_path / "run")
    said = resume(run)
    assert f"resumed at step {start}" in said
    assert tiny.weights(run) == tiny.weights(whole("barlow_twins"))
    leftovers = [path for path in run.rglob(".*") if path.name != ".lock"]
    assert leftovers == []


def test_a_damaged_newest_checkpoint_costs_its_steps_and_nothing_else(
    killed: Callable[[str], Path], whole: Callable[[str], Path], tmp_path: Path
) -> None:
    run = shutil.copytree(killed("late"), tmp_path / "run")
    newest = run / "checkpoints" / "step-000008" / "tensors.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    said = resume(run)
    assert any("step-000008 is damaged" in line for line in said)
    assert "resumed at step 4" in said
    assert tiny.weights(run) == tiny.weights(whole("barlow_twins"))


@pytest.mark.parametrize("part", ["method", "optimizer"])
def test_a_checkpoint_that_lacks_a_tensor_is_refused_by_name(
    killed: Callable[[str], Path], tmp_path: Path, part: str
) -> None:
    run = shutil.copytree(killed("barlow_twins"), tmp_path / "run")
    checkpoint, _ = checkpoints.newest(run)
    assert checkpoint is not None
    names = [name for name in checkpoint.tensors if name.startswith(part)]
    for missing in (names[0], names[-1]):
        shutil.rmtree(run / "checkpoints")
        rest = {name: value for name, value in checkpoint.tensors.items() if name != missing}
        checkpoints.save(run, checkpoint.step, rest, checkpoint.state)
        inner = missing.removeprefix(f"{part}/").rpartition("/")[0] or missing.removeprefix(f"{part}/")
        with pytest.raises(ValueError, match=inner):
            resume(run)


# --- Interrupted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "number"), [*((kind, signal.SIGINT) for kind in tiny.OBJECTIVES), ("barlow_twins", signal.SIGTERM)]
)
def test_an_interrupted_run_saves_says_how_to_go_on_and_equals_one_that_was_not(
    variant: str, number: int, data: Path, whole: Callable[[str], Path], tmp_path: Path, send: Callable[..., None]
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    send(5, number)
    with pytest.raises(Interrupted, match=rf"stopped at step 6 of 12, saved\. .*--resume --out {tmp_path / 'run'}"):
        train(data, tmp_path / "run", variant)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert not (tmp_path / "run" / "encoder").exists()
    assert "resumed at step 6" in resume(tmp_path / "run")
    assert tiny.weights(tmp_path / "run") == tiny.weights(whole(variant))


@pytest.mark.nightly
def test_a_run_interrupted_again_and_again_equals_one_that_was_not(
    data: Path, whole: Callable[[str], Path], tmp_path: Path, send: Callable[..., None]
) -> None:
    run = tmp_path / "run"
    send(0)
    with pytest.raises(Interrupted, match="step 1 of"):
        train(data, run, "barlow_twins")
    for step in (1, 4, 8, 10):
        send(step)
        with pytest.raises(Interrupted, match=f"step {step + 1} of"):
            resume(run)
    send(11)  # too late: the run is done
    resume(run)
    assert tiny.weights(run) == tiny.weights(whole("barlow_twins"))
    assert steps_logged(run) == list(range(1, STEPS + 1))


def test_a_second_ctrl_c_ends_the_run_at_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(step: int, *rest: Any) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(stopping.ONE_REQUEST_SECONDS + 0.1)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(learners, "guard", twice)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", "barlow_twins")
    assert list(checkpoints.folders(tmp_path / "run")) == [0, EVERY]


def test_a_signal_that_is_repeated_at_once_is_one_request(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(step: int, *rest: Any) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(learners, "guard", twice)
    with pytest.raises(Interrupted, match="stopped at step 6"):
        train(data, tmp_path / "run", "barlow_twins")


def test_the_command_line_ends_with_75_and_the_command_to_go_on(
    data: Path,
    whole: Callable[[str], Path],
    tmp_path: Path,
    send: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    send(5)
    run = tmp_path / "run"
    words = tiny.words(**{"train.checkpoint_steps": EVERY})
    assert cli.main(["pretrain", str(data), "--out", str(run), *words]) == 75
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("barlow: stopped at step 6 of 12, saved. To go on: barlow pretrain --resume")
    command = err.splitlines()[-1].partition("To go on: barlow ")[2].split()
    assert cli.main(command) == 0
    assert tiny.weights(run) == tiny.weights(whole("w_mse"))


def test_a_finished_run_can_be_resumed_and_stays_what_it_is(
    data: Path, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    run = shutil.copytree(whole("vicreg"), tmp_path / "run")
    before = [row["step"] for row in Run(run).metrics()]
    shutil.rmtree(run / "encoder")  # as if it had been killed right after the last step
    resume(run)
    assert tiny.weights(run) == tiny.weights(whole("vicreg"))
    assert steps_logged(run) == before


# --- Resumed as something else ------------------------------------------------------------------------------------

FREE = {
    "data.workers",
    "train.device",
    "train.log_steps",
    "train.monitor_images",
    "train.stop_if_collapsed",
    "train.tensorboard",
    "train.checkpoint_minutes",
    "train.checkpoint_steps",
}
OTHER = {
    "data.value_range": [0.0, 4095.0],
    "data.channels": 1, "data.executor": "streaming", "data.split": "test", "encoder.name": "resnet34",
    "encoder.stem": "as_is", "encoder.options": {}, "encoder.init": "timm:resnet18.a1_in1k", "method.kind": None,
    "method.batch_norm_sees": "all_views", "objective.kind": "barlow_twins", "optim.kind": "sgd", "schedule.kind": None,
    "train.precision": "bf16", "views": None, "data.sources": None, "schedule.warmup_epochs": 1,
    "schedule.warmup_steps": 1, "schedule.drops_at_fraction": [0.5], "schedule.drops_at_epochs": [1],
    "schedule.drops_at_steps": [1], "train.epochs": 3, "train.minutes": 3, "train.checkpoint_minutes": 3,
    "train.device": "cpu", "optim.betas": [0.5, 0.999],
    "objective.convention": "algorithm_1", "optim.vectors_lr_per_256": 0.1, "train.rows_in_memory": 8,
    "schedule.warmup_from": 0.1, "method.projector.last_batch_norm": "plain", "method.projector.init_std": 0.01,
    "optim.groups": [{"parameters": "encoder.*"}],
    "method.passes": "each_size", "method.large": 1,
    "data.centre_size": 32, "encoder.whiten": 0.1, "encoder.stages": "all",
}  # fmt: skip


def other(key: str, value: Any) -> Any:
    """Another value that is allowed for the key."""
    if key in OTHER:
        return OTHER[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [other("", value[0]), *value[1:]]
    return f"{value}." if isinstance(value, str) else value + 1 if isinstance(value, int) else value / 2


def test_every_key_is_refused_on_resume_or_known_to_change_nothing(
    killed: Callable[[str], Path], tmp_path: Path
) -> None:
    run = shutil.copytree(killed("vicreg"), tmp_path / "run")
    keys = flat(yaml.safe_load((run / "recipe.yaml").read_text()))
    assert set(request.FREE_ON_RESUME) == FREE | {"data.sources"}
    refused = set()
    for key, value in keys.items():
        if key in FREE or key in request.LENGTH or key.startswith("source."):
            continue
        if (changed := other(key, value)) is None:
            continue
        # What keeps a part of given weights is refused in a run without any, before it is compared with the run.
        message = rf"as it was, where {key} is .*Leave the flag out|{key} keeps a part of given weights"
        with pytest.raises(RecipeError, match=message):
            resume(run, **{key: changed})
        refused.add(key)
    words = {"source.paper", "source.code", "source.differs"}  # say where a recipe comes from, and nothing else
    left = {*request.LENGTH, *words, "views", "data.sources", "method.kind", "schedule.kind"}
    assert keys.keys() - refused == FREE | left
    with pytest.raises(RecipeError, match=r"as it was, where views is "):
        resume(run, **{"views.0.1.p": 0.1})


def test_the_same_flags_again_are_no_change(
    killed: Callable[[str], Path], whole: Callable[[str], Path], tmp_path: Path
) -> None:
    run = shutil.copytree(killed("vicreg"), tmp_path / "run")
    resume(run, **overrides("vicreg"))
    assert tiny.weights(run) == tiny.weights(whole("vicreg"))


def test_another_number_of_workers_on_resume_changes_nothing(
    killed: Callable[[str], Path], whole: Callable[[str], Path], tmp_path: Path
) -> None:
    run = shutil.copytree(killed("streaming"), tmp_path / "run")
    resume(run, data__workers=2, train__log_steps=5, train__checkpoint_steps=3)
    assert tiny.weights(run) == tiny.weights(whole("streaming"))


@pytest.mark.parametrize("change", ["add", "remove", "rename", "replace"])
def test_changed_images_are_refused_on_resume(
    change: str, killed: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(killed("vicreg"), tmp_path / "run")
    photos = shutil.copytree(data, tmp_path / "photos")
    first = photos / "000.png"
    if change == "add":
        shutil.copy(first, photos / "new.png")
    elif change == "remove":
        first.unlink()
    elif change == "rename":
        first.rename(photos / "zzz.png")
    else:
        Image.new("RGB", (30, 30)).save(first)
    with pytest.raises(RecipeError, match=f"the images have changed since {run} began"):
        resume(run, photos)
    assert not (run / "encoder").exists()


def test_images_that_moved_or_were_touched_are_the_same_images(
    killed: Callable[[str], Path], data: Path, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    run = shutil.copytree(killed("vicreg"), tmp_path / "run")
    photos = shutil.copytree(data, tmp_path / "elsewhere")
    for path in photos.iterdir():
        os.utime(path)
    resume(run, photos)
    assert tiny.weights(run) == tiny.weights(whole("vicreg"))


@pytest.mark.parametrize(
    "full",
    nightly_but(["step-000008", "step-000012", "encoder", "metrics.jsonl"], ("step-000008", "encoder").__contains__),
)
def test_a_full_disk_costs_no_step_and_no_checkpoint_that_is_there(
    full: str, data: Path, whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training goes on without a log, and until the next checkpoint. Only what has to be there at the end ends it."""
    said: list[str] = []
    disk = OSError(errno.ENOSPC, "No space left on device")
    write, append = storage._write_synced, storage.append_line

    def written(path: Path, content: bytes) -> None:
        if full in str(path.relative_to(tmp_path)):
            raise disk
        write(path, content)

    def appended(path: Path, content: Any) -> None:
        if full in path.name:
            raise storage._explained(disk, path)
        append(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "_write_synced", written)
        patch.setattr(storage, "append_line", appended)
        if full in ("step-000012", "encoder"):
            with pytest.raises(storage.StorageError, match=rf"cannot write .*{full}.*: the disk is full"):
                train(data, tmp_path / "run", "barlow_twins", tell=said.append)
            assert list(checkpoints.folders(tmp_path / "run"))[-1] == (8 if full == "step-000012" else 12)
        elif full == "metrics.jsonl":
            train(data, tmp_path / "run", "barlow_twins", tell=said.append)
            assert [line for line in said if "the disk is full; " in line and "training goes on" in line]
        else:
            train(data, tmp_path / "run", "barlow_twins", tell=said.append)
            assert len([line for line in said if f"cannot write {tmp_path / 'run'}/checkpoints/{full}" in line]) == 1
    resume(tmp_path / "run")
    assert tiny.weights(tmp_path / "run") == tiny.weights(whole("barlow_twins"))
