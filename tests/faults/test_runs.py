"""What happens to runs on clusters and on desks: nothing that was computed is lost, and nothing foreign is touched."""

import contextlib
import errno
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from commands import Command
from nightly_cases import nightly_but
from PIL import Image

from barlow import (
    checkpoints,
    cli,
    evaluate,
    exits,
    load_encoder,
    ownership,
    pretraining,
    record,
    regular,
    results,
    storage,
    wording,
)
from barlow.nets.handed_out import HandedOut
from barlow.pretraining import Result, pretrain
from barlow.recipe.changes import flat
from barlow.recipe.messages import RecipeError
from barlow.recipe.schema import check
from barlow.runs import identity
from barlow.runs.beginning import ChangedImages
from barlow.runs.run import BrokenRun, Run, RunFolderError, load_recipe_text
from barlow.seals import Damaged
from barlow.training.learner import NonFinite
from barlow.training.watchers import Checkpointer


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    return quick(photos, tmp_path_factory.mktemp("runs") / "finished").run_folder


def quick(photos: Path | None, out: Path, *, said: list[str] | None = None, **more: Any) -> Result:
    overrides = tiny.SMALL | {"train.steps": 4, "train.checkpoint_steps": 2} | more.pop("overrides", {})
    tell = None if said is None else said.append
    return pretrain(photos, out, overrides=overrides, progress=False, tell=tell, **more)


def started_anew(*words: object, **options: Any) -> "subprocess.Popen[str]":
    program = [sys.executable, "-m", "barlow.cli", *map(str, words)]
    return subprocess.Popen(program, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **options)


# --- Telling (R1) -----------------------------------------------------------------------------------------------------


def closed_pipe() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "where",
    nightly_but(["a pipe whose reader is gone", "a full disk", "nowhere"], lambda where: "pipe" in where),
)
def test_what_cannot_be_said_is_dropped_and_training_goes_on(where: str, photos: Path, tmp_path: Path) -> None:
    streams: dict[str, Any] = {
        "a pipe whose reader is gone": lambda: {"stdout": (pipe := closed_pipe()), "stderr": pipe},
        "a full disk": lambda: {"stdout": (full := os.open("/dev/full", os.O_WRONLY)), "stderr": full},
        "nowhere": lambda: {"preexec_fn": lambda: (os.close(1), os.close(2))},
    }[where]()
    process = started_anew("pretrain", photos, "--out", tmp_path / "run", *tiny.words(train__steps=2), **streams)
    assert process.wait(120) == exits.OK
    assert list(checkpoints.folders(tmp_path / "run")) == [0, 2]
    assert (tmp_path / "run" / "encoder" / "config.json").exists()


@pytest.mark.nightly  # as a pipe whose reader is gone, above, and another error number
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo-terminals")
def test_a_terminal_that_was_closed_does_not_end_training(photos: Path, tmp_path: Path) -> None:
    """What is written to it then fails with EIO."""
    ours, its = os.openpty()
    words = ["pretrain", photos, "--out", tmp_path / "run", *tiny.words(train__steps=2)]
    process = started_anew(*words, stdout=its, stderr=its)
    os.close(its)
    os.close(ours)
    assert process.wait(120) == exits.OK
    assert (tmp_path / "run" / "encoder" / "config.json").exists()


def test_a_callable_that_fails_does_not_end_training(photos: Path, tmp_path: Path) -> None:
    def broken(line: str) -> None:
        raise BrokenPipeError(line)

    assert (
        pretrain(
            photos, tmp_path / "run", overrides=tiny.SMALL | {"train.steps": 1}, progress=False, tell=broken
        ).metrics["step"]
        == 1
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "words", [("list", "methods"), ("pretrain", "shapes", "--print-recipe")], ids=["list", "recipe"]
)
def test_a_list_is_through_when_its_reader_is_and_says_so_when_the_disk_is_full(words: tuple[str, ...]) -> None:
    for stdout, code, said in ((closed_pipe(), exits.OK, 0), (os.open("/dev/full", os.O_WRONLY), exits.IO, 1)):
        process = started_anew(*words, stdout=stdout, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, len(err.splitlines())) == (code, said), err
        os.close(stdout)


@pytest.mark.parametrize("verb", ["pretrain", "evaluate"])
def test_a_broken_pipe_inside_of_the_work_is_no_success(
    verb: str, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Processes talk to each other by pipes, too."""
    from barlow import evaluation

    @wording.in_arguments
    def broken(*given: Any, **more: Any) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(pretraining, "pretrain", broken)
    monkeypatch.setattr(evaluation, "evaluate_several", broken)
    words = ["pretrain", "shapes"] if verb == "pretrain" else ["evaluate", str(finished)]
    assert cli.main(words) == exits.IO
    assert "Broken pipe" in capsys.readouterr().err


# --- What is ours (R2) ------------------------------------------------------------------------------------------------


def test_all_that_a_run_writes_is_known_to_be_its_own(
    photos: Path, labelled: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that are about to be written count, too: a crash leaves them."""
    written: set[Path] = set()
    write = storage._write_synced

    def recorded(path: Path, data: bytes) -> None:
        written.add(path)
        write(path, data)

    monkeypatch.setattr(storage, "_write_synced", recorded)
    run = quick(photos, tmp_path / "run", init=str(finished)).run_folder
    evaluate(run, labelled, labelled, protocols=["knn"])
    inside = [path for path in written if path.is_relative_to(run)]
    assert len({path.parent for path in inside}) >= 6
    assert [path for path in inside if not ownership.is_ours(path.relative_to(run).as_posix(), path)] == []
    assert ownership.foreign(run) == []


def test_a_failed_overwriting_leaves_the_run_as_it_was(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    bad = tmp_path / "bad"
    for i in range(20):
        storage.write_bytes(bad / f"{i}.png", b"no image")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(exits.UnusableData, match="cannot be read"):
        quick(bad, run, overwrite=True)
    assert before == {path: path.read_bytes() for path in before}


# --- Damage, or an error of reading (R3) ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_checkpoint_that_cannot_be_read_stops_and_renames_nothing(
    number: int, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    read = regular.content

    def failing(path: Path) -> bytes:
        if path.name == "tensors.safetensors":
            raise OSError(number, os.strerror(number), str(path))
        return read(path)

    monkeypatch.setattr(regular, "content", failing)
    with pytest.raises(storage.StorageError, match=r"cannot read .*tensors\.safetensors: .*nothing was changed"):
        pretrain(out=run, resume=True, progress=False)
    assert list(checkpoints.folders(run)) == [2, 4]


def test_a_checkpoint_of_a_newer_version_stops_and_renames_nothing(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    for folder in checkpoints.folders(run).values():
        manifest = storage.read_sealed(folder / "MANIFEST.json")
        storage.write_sealed(folder / "MANIFEST.json", manifest | {"format": 3})
    with pytest.raises(storage.Newer, match=r"format 3.*upgrade it"):
        pretrain(out=run, resume=True, progress=False)
    assert list(checkpoints.folders(run)) == [2, 4]


# --- Signals (R4) -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_a_signal_that_is_ignored_on_purpose_stays_ignored(photos: Path, tmp_path: Path) -> None:
    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    words = ["pretrain", str(photos), "--out", str(tmp_path / "run"), *tiny.words(train__steps=100_000)]
    command = Command(words, tmp_path / "log", nohup)
    command.until(lambda: Run(tmp_path / "run").metrics())
    os.kill(command.pid, signal.SIGHUP)
    step = Run(tmp_path / "run").metrics()[-1]["step"]
    command.until(lambda: Run(tmp_path / "run").metrics()[-1]["step"] > step + 3)
    assert command.signalled(signal.SIGTERM)[0] == exits.STOPPED


@pytest.mark.parametrize("where", ["prepare", "seconds_per_step", "build_learner"])
def test_a_signal_before_the_first_step_loses_nothing(
    where: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While images are read, and while the time of a step is measured."""
    home = pretraining.preparation if where == "prepare" else pretraining
    original = getattr(home, where)

    def interrupted(*given: Any, **more: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*given, **more)

    words = ["pretrain", str(photos), "--out", str(tmp_path / "run"), "--resume", *tiny.words(train__steps=2)]
    if where == "seconds_per_step":
        words = [*tiny_without_steps(words), "--minutes", "0.001"]
    with monkeypatch.context() as patch:
        patch.setattr(home, where, interrupted)
        assert cli.main(words) == exits.STOPPED
    assert "stopped before the first step, and nothing is lost: give the same command again" in capsys.readouterr().err
    assert cli.main(words) == exits.OK


def tiny_without_steps(words: list[str]) -> list[str]:
    place = words.index("--train.steps")
    return words[:place] + words[place + 2 :]


def test_a_signal_while_features_are_embedded_keeps_what_there_is(
    finished: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    words = ["evaluate", str(run), "--train", str(labelled), "--test", str(labelled), "--protocol", "knn"]
    from barlow.protocols.knn import WeightedKNN

    def interrupted(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(WeightedKNN, "predict", interrupted)
        assert cli.main(words) == exits.STOPPED
    assert "the same command goes on from there" in capsys.readouterr().err
    assert list((run / "evaluation" / "features").glob("*.safetensors"))
    assert cli.main(words) == exits.OK


# --- Who a run is (R5, R7, R8, R12) -----------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["log", "encoder"])
def test_a_run_whose_checkpoints_were_removed_is_never_begun_again(left: str, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    if left == "log":
        shutil.rmtree(run / "encoder")
    else:
        (run / "metrics.jsonl").unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(BrokenRun, match=r"and no checkpoint: they were removed.*overwrite"):
        pretrain(out=run, resume=True, progress=False)
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize("executor", ["in_memory", "streaming"])
def test_images_replaced_by_others_of_the_same_name_and_size_are_noticed(executor: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(20):
        Image.new("RGB", (24, 24), (10 * i, 0, 0)).save(photos / f"{i}.bmp")
    changes = {"train.steps": 1, "data.executor": executor, "data.workers": 0}
    run = quick(photos, tmp_path / "run", overrides=changes).run_folder
    shutil.rmtree(run / "encoder")
    for path in photos.iterdir():
        os.utime(path)
    quick(photos, run, resume=True, overrides=changes)  # a touch is no change
    shutil.rmtree(run / "encoder")
    Image.new("RGB", (24, 24), (0, 99, 0)).save(photos / "7.bmp")
    with pytest.raises(ChangedImages, match=r"have changed since .* began, in their contents"):
        pretrain(out=run, resume=True, progress=False)


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("seed", "seed: 0", "seed: 1"),
        ("optim.lr_per_256", "lr_per_256: ", "lr_per_256: 2"),
        ("data.mean", "mean: [", "mean: [1"),
        ("train.batch_size", "batch_size: ", "batch_size: 1"),
        ("objective.kind", "objective: {kind: w_mse", "objective: {kind: simclr"),
    ],
)
def test_a_recipe_that_was_edited_by_hand_is_refused_with_the_key(
    key: str, old: str, new: str, finished: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    text = (run / "recipe.yaml").read_text()
    assert text.count(old) >= 1
    (run / "recipe.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(BrokenRun, match=rf"recipe\.yaml was changed after the run began: {key} is "):
        pretrain(out=run, resume=True, progress=False)


def test_what_was_edited_by_hand_is_told_wherever_a_recipe_is_shown_or_handed_on(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("seed: 0", "seed: 1", 1))
    told = "recipe.yaml was changed after the run began: seed is 1 there, and the run has 0"
    assert any(told in note for note in record.read(run).notes)
    assert cli.main(["export", str(run), "--to", "safetensors", "--out", str(tmp_path / "exported")]) == exits.DATA
    assert told in capsys.readouterr().err
    assert not (tmp_path / "exported").exists()


def test_a_length_that_was_edited_by_hand_is_not_followed(finished: Path, photos: Path, tmp_path: Path) -> None:
    """How long a run is may change, but only by asking for it."""
    run = shutil.copytree(finished, tmp_path / "run")
    text = (run / "recipe.yaml").read_text()
    assert text.count(" steps: 4,") == 1
    (run / "recipe.yaml").write_text(text.replace(" steps: 4,", " steps: 9,"))
    pretrain(out=run, resume=True, progress=False)
    assert (max(checkpoints.folders(run)), tiny.weights(run)) == (4, tiny.weights(finished))


def test_no_flipped_bit_of_a_recipe_makes_it_another_recipe(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    data = (run / "recipe.yaml").read_bytes()
    meant = fixed(run)
    noticed = 0
    for number in range(150):
        at = number * len(data) // 150
        (run / "recipe.yaml").write_bytes(data[:at] + bytes([data[at] ^ 1 << number % 8]) + data[at + 1 :])
        try:
            identity.identity_of(Run(run))
            check(load_recipe_text(run / "recipe.yaml"))  # an unknown key whose value is null, as another's would be
        except (BrokenRun, RecipeError):
            noticed += 1
        else:
            assert fixed(run) == meant, f"bit {number % 8} of byte {at}"
    assert noticed > 100


def fixed(run: Path) -> dict[str, Any]:
    """What a recipe says of all that a run never changes."""
    content = flat(load_recipe_text(run / "recipe.yaml"))
    return {key: value for key, value in content.items() if key not in identity.NOT_FIXED}


def test_of_a_long_value_that_was_edited_the_part_that_differs_is_shown(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    text = (run / "recipe.yaml").read_text()
    assert len(re.search(r"\n  differs:(.*?)\n\w", text, re.DOTALL)[1]) > 300
    (run / "recipe.yaml").write_text(text.replace("in place of ResNet-18", "in place of ResNet-19", 1))
    with pytest.raises(BrokenRun, match=r"source\.differs is .*ResNet-19.* the run has .*ResNet-18") as caught:
        pretrain(out=run, resume=True, progress=False)
    assert len(str(caught.value)) < 500 + len(str(run)) * 3


def test_without_its_identity_a_run_is_still_told_from_its_recipe_by_its_checkpoints(
    finished: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / identity.FILE).unlink()
    pretrain(out=run, resume=True, progress=False)
    (run / identity.FILE).unlink()
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(BrokenRun, match="was made with seed 0, and the run's recipe has 1"):
        pretrain(out=run, resume=True, progress=False)


def test_a_run_of_the_first_release_is_gone_on_with_by_the_command_that_began_it(photos: Path, tmp_path: Path) -> None:
    """It has no run.json, so what was `auto` for it is not known."""
    asked: dict[str, Any] = {"recipe": "small_vicreg", "overrides": tiny.SMALL | {"data.image_size": "auto"}}
    pretrain(photos, tmp_path / "run", **asked, progress=False)
    whole = tiny.weights(tmp_path / "run")
    (tmp_path / "run" / identity.FILE).unlink()
    shutil.rmtree(tmp_path / "run" / "encoder")
    pretrain(photos, tmp_path / "run", **asked, resume=True, progress=False)
    assert tiny.weights(tmp_path / "run") == whole
    (tmp_path / "run" / identity.FILE).unlink()
    with pytest.raises(RecipeError, match=r"data\.image_size is \d+; you gave 48"):
        pretrain(photos, tmp_path / "run", recipe="small_vicreg", resume=True, image_size=48, progress=False)


def test_another_runs_checkpoints_are_refused(photos: Path, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    other = quick(photos, tmp_path / "other").run_folder
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(other / "checkpoints", run / "checkpoints")
    with pytest.raises(BrokenRun, match="is of another run"):
        pretrain(out=run, resume=True, progress=False)


def test_another_recipe_that_is_named_is_refused(finished: Path, photos: Path) -> None:
    with pytest.raises(RecipeError, match=r"as it was, where objective\.kind is 'w_mse'; you gave 'vicreg'"):
        quick(photos, finished, recipe="small_vicreg", resume=True)


def test_every_start_is_kept_and_what_differs_is_told(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    first = storage.read_sealed(run / "run.json")["starts"]
    real = pretraining.environment

    def newer(*given: Any) -> dict[str, Any]:
        found = real(*given)
        found["versions"]["torch"] = "9.9"
        found["hardware"]["threads"] = 64
        return found

    monkeypatch.setattr(pretraining, "environment", newer)
    said: list[str] = []
    pretrain(out=run, resume=True, progress=False, tell=said.append)
    told = [line for line in said if line.startswith("machine  ")]
    assert [line.split()[1] for line in told] == ["torch:", "threads:"]
    starts = storage.read_sealed(run / "run.json")["starts"]
    assert starts[0] == first[0]
    assert [start["step"] for start in starts] == [0, 4]


# --- Nothing that is not finite (R9, R10) -----------------------------------------------------------------------------


def test_a_run_that_diverges_stores_nothing_of_it_and_says_how_to_go_on(photos: Path, tmp_path: Path) -> None:
    diverging = {"optim.lr_per_256": 1e30, "schedule.warmup_fraction": 0.0, "schedule.floor": 1.0, "train.steps": 8}
    with pytest.raises(NonFinite) as caught:
        quick(photos, tmp_path / "run", overrides=diverging)
    assert exits.code_of(caught.value) == exits.DIVERGED
    assert not (tmp_path / "run" / "encoder").exists()
    there = checkpoints.folders(tmp_path / "run")
    for folder in there.values():
        assert all(value.isfinite().all() for value in checkpoints.read(folder).tensors.values())
    assert f"The checkpoint of step {max(there)} is good." in str(caught.value)


def test_the_command_that_a_diverged_run_advises_works_as_it_stands(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the name of the new folder is the user's to choose."""
    step = pretraining.Learner.step

    def spoilt(self: Any, batch: Any, *rest: Any) -> Any:
        if batch.step == 3:
            with torch.no_grad():
                next(self.method.parameters()).fill_(math.nan)
        return step(self, batch, *rest)

    monkeypatch.setattr(pretraining.Learner, "step", spoilt)
    with pytest.raises(NonFinite) as caught:
        quick(photos, tmp_path / "run")
    monkeypatch.undo()
    advised = re.search(r"barlow (pretrain .*ANOTHER_FOLDER)", str(caught.value))
    assert advised is not None
    assert cli.main(advised[1].replace("ANOTHER_FOLDER", str(tmp_path / "next")).split()) == exits.OK
    rates = [load_recipe_text(tmp_path / name / "recipe.yaml")["optim"]["lr_per_256"] for name in ("run", "next")]
    assert rates[1] == pytest.approx(rates[0] / 3, rel=0.01)


def test_weights_that_are_not_finite_are_refused_wherever_they_are_read(
    finished: Path, labelled: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    tiny.change_weights(run, lambda tensors: {name: tensor * float("inf") for name, tensor in tensors.items()})
    with pytest.raises(exits.Diverged, match="are not finite"):
        load_encoder(run)
    with pytest.raises(exits.Diverged, match="are not finite"):
        evaluate(run, labelled, labelled, protocols=["knn"])
    checkpoint = checkpoints.read(checkpoints.folders(run)[4])
    broken = {
        name: value * float("nan") if value.is_floating_point() else value for name, value in checkpoint.tensors.items()
    }
    shutil.rmtree(run / "checkpoints")
    checkpoints.save(run, 4, broken, checkpoint.state)
    with pytest.raises(exits.Diverged, match="holds numbers that are not finite"):
        pretrain(out=run, resume=True, progress=False)


# --- Digests of all that is stored (R11) ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_flipped_bit_of_an_encoder_is_noticed(name: str, finished: Path, tmp_path: Path) -> None:
    home = shutil.copytree(finished / "encoder", tmp_path / "encoder")
    good = (home / name).read_bytes()
    features = load_encoder(home)(torch.ones(1, 3, 16, 16))
    for k in range(60):
        bad = bytearray(good)
        bad[len(bad) * k // 60] ^= 1 << (k % 8)
        (home / name).write_bytes(bad)
        try:
            loaded = load_encoder(home)
        except ValueError:
            continue
        assert loaded(torch.ones(1, 3, 16, 16)).equal(features), "what was not noticed changed nothing"
        assert name == "config.json"


def test_damaged_features_are_computed_again_and_said(finished: Path, labelled: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    good = evaluate(run, labelled, labelled, protocols=["knn"]).scores["encoder"]["knn.top1"].value
    for path in (run / "evaluation" / "features").iterdir():
        tensors = storage.read_tensors(path)
        storage.write_tensors(path, tensors | {"features": torch.zeros_like(tensors["features"])})
        with pytest.raises(Damaged):
            storage.read_sealed_tensors(path)
    said: list[str] = []
    more = ["knn", "knn5_euclidean"]  # what is known needs no features
    again = evaluate(run, labelled, labelled, protocols=more, tell=said.append)
    assert again.scores["encoder"]["knn.top1"].value == good
    assert [line for line in said if "these features are computed again" in line]


# --- One command that can be repeated (R13, R17, R18, R20) ------------------------------------------------------------


def test_one_command_begins_goes_on_and_is_through_whatever_is_there(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = [
        "pretrain",
        str(photos),
        "--out",
        str(out),
        "--resume",
        *tiny.words(train__steps=4, train__checkpoint_steps=2),
    ]
    assert cli.main(words) == exits.OK
    whole = tiny.weights(out)
    for missing in ("encoder", "checkpoints/step-000004", "checkpoints/step-000004"):
        shutil.rmtree(out / missing)
        if missing != "encoder":
            shutil.rmtree(out / "encoder")
        capsys.readouterr()
        assert cli.main(words) == exits.OK
        assert tiny.weights(out) == whole
    capsys.readouterr()
    assert cli.main(words) == exits.OK
    assert "finished at step 4 already; a larger --steps, --epochs or --minutes goes on" in capsys.readouterr().err
    for name in ("recipe.yaml", "data.json", "views.png"):  # as after a kill before the recipe was written
        (out / name).unlink()
    for name in ("encoder", "checkpoints/step-000002", "checkpoints/step-000004"):
        shutil.rmtree(out / name)
    assert cli.main(words) == exits.OK
    assert tiny.weights(out) == whole


def test_minutes_that_were_asked_for_may_be_asked_for_again(photos: Path, tmp_path: Path) -> None:
    minutes = {"train.steps": None, "train.minutes": 0.002, "train.checkpoint_steps": None}
    run = quick(photos, tmp_path / "run", overrides=minutes, recipe="small_w_mse").run_folder
    steps = Run(run).metrics()[-1]["step"]
    shutil.rmtree(run / "encoder")
    quick(photos, run, overrides=minutes, recipe="small_w_mse", resume=True)
    assert Run(run).metrics()[-1]["step"] == steps


def test_epochs_may_be_asked_for_again_and_more_of_them_make_the_run_longer(photos: Path, tmp_path: Path) -> None:
    """40 images in batches of 16 are two steps an epoch."""
    epochs = {"train.steps": None, "train.epochs": 2}
    run = quick(photos, tmp_path / "run", overrides=epochs).run_folder
    whole = tiny.weights(run)
    shutil.rmtree(run / "encoder")
    quick(photos, run, overrides=epochs, resume=True)
    assert tiny.weights(run) == whole
    pretrain(out=run, resume=True, progress=False, epochs=3)
    straight = quick(photos, tmp_path / "straight", overrides={"train.steps": 6, "schedule.steps": 4}).run_folder
    assert tiny.weights(run) == tiny.weights(straight)


def test_twice_the_minutes_are_twice_the_steps_of_the_first_start(photos: Path, tmp_path: Path) -> None:
    minutes = {"train.steps": None, "train.minutes": 0.002, "train.checkpoint_steps": None}
    run = quick(photos, tmp_path / "run", overrides=minutes).run_folder
    steps = Run(run).metrics()[-1]["step"]
    pretrain(out=run, resume=True, progress=False, minutes=0.004)
    assert Run(run).metrics()[-1]["step"] == 2 * steps


def test_a_run_can_be_made_longer_and_equals_one_that_was_so_from_the_start(photos: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = quick(photos, tmp_path / "run").run_folder
    pretrain(out=run, resume=True, progress=False, steps=7, tell=said.append)
    (line,) = [line for line in said if line.startswith("steps 7")]
    assert "extended from 4; after step 4 the rate stays as the schedule ends" in line
    straight = quick(photos, tmp_path / "straight", overrides={"train.steps": 7, "schedule.steps": 4}).run_folder
    assert tiny.weights(run) == tiny.weights(straight)
    assert [row["step"] for row in Run(run).metrics()] == list(range(1, 8))
    assert storage.read_sealed(run / "run.json")["extensions"][0]["steps_before"] == 4
    pretrain(out=run, resume=True, progress=False, steps=9)
    longer = quick(photos, tmp_path / "longer", overrides={"train.steps": 9, "schedule.steps": 4}).run_folder
    assert tiny.weights(run) == tiny.weights(longer)


def test_a_longer_run_may_be_stretched_and_none_may_be_cut(photos: Path, tmp_path: Path) -> None:
    run = quick(photos, tmp_path / "run").run_folder
    said: list[str] = []
    pretrain(out=run, resume=True, progress=False, steps=8, overrides={"schedule.steps": 8}, tell=said.append)
    assert any("its schedule is stretched over all 8" in line for line in said)
    with pytest.raises(RecipeError, match="the run has 8 steps and 5 are asked for; resume=True can make a run longer"):
        pretrain(out=run, resume=True, progress=False, steps=5)


@pytest.mark.parametrize("schedule", [6, 8, 10])
def test_the_command_that_makes_a_run_longer_may_be_repeated(schedule: int, photos: Path, tmp_path: Path) -> None:
    run = quick(photos, tmp_path / "run").run_folder
    for _ in range(2):
        pretrain(out=run, resume=True, progress=False, steps=8, overrides={"schedule.steps": schedule})
    with pytest.raises(RecipeError, match="goes with a larger budget"):
        pretrain(out=run, resume=True, progress=False, overrides={"schedule.steps": 5})


def test_a_run_that_another_process_has_changed_meanwhile_is_looked_at_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first look at a run and its lock the processes find each other, and that may take a while."""
    run, joined = shutil.copytree(finished, tmp_path / "run"), pretraining.joined

    @contextlib.contextmanager
    def slowly(device: str) -> Iterator[Any]:
        monkeypatch.setattr(pretraining, "joined", joined)
        pretrain(out=run, resume=True, progress=False, steps=6)
        with joined(device) as world:
            yield world

    monkeypatch.setattr(pretraining, "joined", slowly)
    with pytest.raises(RunFolderError, match="another process has just changed the run; give the command again"):
        pretrain(out=run, resume=True, progress=False, steps=5)
    assert storage.read_sealed(run / "run.json")["recipe"]["train"]["steps"] == 6
    pretrain(out=run, resume=True, progress=False, steps=7)
    assert list(checkpoints.folders(run)) == [6, 7]


def test_a_log_that_could_not_be_rewound_is_rewound_before_its_next_line(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "step-000004")
    write, said, full = storage.write_lines, list[str](), [OSError(errno.ENOSPC, "No space left")]

    def once(path: Path, rows: Any) -> None:
        if full:
            raise storage._explained(full.pop(), path)
        write(path, rows)

    monkeypatch.setattr(storage, "write_lines", once)
    pretrain(out=run, resume=True, progress=False, tell=said.append)
    assert [line for line in said if "the disk is full" in line and "training goes on" in line]
    assert [row["step"] for row in Run(run).metrics()] == [1, 2, 3, 4]


def test_an_encoder_that_is_half_replaced_is_not_taken_for_one(finished: Path, tmp_path: Path) -> None:
    """Of a run that is made longer: its newest checkpoint is taken until the new encoder is whole."""
    run = shutil.copytree(finished, tmp_path / "run")
    write, seen = storage.write_sealed, list[torch.Tensor]()
    x = torch.ones(1, 3, 16, 16)

    def looked_at(path: Path, content: Any) -> None:
        if path.parent.name == "encoder":
            seen.append(load_encoder(run)(x))
        write(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "write_sealed", looked_at)
        pretrain(out=run, resume=True, progress=False, steps=6)
    assert seen[0].equal(load_encoder(run)(x))


def test_a_run_is_gone_on_with_from_another_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(photos, tmp_path / "here" / "photos")
    monkeypatch.chdir(tmp_path / "here")
    run = tmp_path / "run"
    quick(Path("photos"), run, overrides={"train.steps": 2})
    monkeypatch.chdir("/")
    pretrain(out=run, resume=True, progress=False, steps=3)
    assert Run(run).metrics()[-1]["step"] == 3


def test_a_damaged_log_is_set_aside_and_does_not_block(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    log = run / "metrics.jsonl"
    log.write_bytes(b"\xff\xfe broken\n5\n" + log.read_bytes() + b'{"loss": 1}\n{"step": 99, "lo')
    pretrain(out=run, resume=True, progress=False)
    assert [row["step"] for row in Run(run).metrics()] == [1, 2, 3, 4]
    assert (run / "metrics.jsonl.bad").read_bytes() == b'\xff\xfe broken\n5\n{"step": 99, "lo\n'


# --- Evaluation (R16, R18, R19) ---------------------------------------------------------------------------------------


def test_two_evaluations_keep_both_results_and_a_history(finished: Path, labelled: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    other = shutil.copytree(labelled, tmp_path / "other")
    for test, probes in ((labelled, ["knn"]), (other, ["knn"]), (labelled, ["logistic"]), (labelled, ["knn"])):
        evaluate(run, labelled, test, protocols=probes, baselines=False)
    home = run / "evaluation"
    kept = [storage.read_sealed(path) for path in sorted(home.glob("results-*.json"))]
    assert len(kept) == 2, "the other folder holds the same images"
    assert sorted((tuple(each["asked"]["probes"]), each["times_measured"]) for each in kept) == [
        (("knn",), 3),
        (("logistic",), 1),
    ]
    assert storage.read_sealed(home / "results.json")["asked"]["probes"] == ["knn"]
    assert [line["probes"] for line in storage.read_lines(home / "history.jsonl")] == [
        ["knn"],
        ["knn"],
        ["logistic"],
        ["knn"],
    ]


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"times_measured": "x"}'])
def test_an_odd_result_of_before_does_not_stand_in_the_way(
    content: bytes, finished: Path, labelled: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    evaluate(run, labelled, labelled, protocols=["knn"], baselines=False)
    for path in (run / "evaluation").glob("results*.json"):
        path.write_bytes(content)
    assert evaluate(run, labelled, labelled, protocols=["knn"], baselines=False).report["times_measured"] == 1


def test_a_folder_that_cannot_be_written_is_known_before_the_work_and_out_is_the_way_round(
    finished: Path, labelled: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "evaluation").write_bytes(b"a file")
    said: list[str] = []
    with pytest.raises(storage.CannotCreate, match=r"a file is in the way.*: out FOLDER"):
        evaluate(run, labelled, labelled, protocols=["knn"], tell=said.append)
    assert not [line for line in said if line.startswith("embedding")]
    found = evaluate(run, labelled, labelled, protocols=["knn"], baselines=False, out=tmp_path / "elsewhere")
    assert found.path == tmp_path / "elsewhere" / "results.json"
    assert found.path.exists()


def test_the_table_is_printed_though_the_results_cannot_be_written(
    finished: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")

    def full(path: Path, content: object) -> None:
        raise storage._explained(OSError(errno.ENOSPC, "No space left"), path)

    monkeypatch.setattr(storage, "write_sealed", full)
    words = ["evaluate", str(run), "--train", str(labelled), "--test", str(labelled), "--protocol", "knn"]
    assert cli.main(words) == exits.IO
    out, err = capsys.readouterr()
    assert "kNN top-1" in out
    assert "the disk is full" in err
    assert "The numbers are above" in err


def test_what_a_killed_evaluation_left_is_removed_when_it_is_old(
    finished: Path, labelled: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    old, new = (run / "evaluation" / "features" / f".{0:032x}.safetensors.tmp-0123456{k}" for k in "ab")
    for path in (old, new):
        storage.write_bytes(path, b"")
    os.utime(old, (time.time() - 2 * results.LEFT_OVER_SECONDS,) * 2)
    evaluate(run, labelled, labelled, protocols=["knn"], baselines=False)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_run_that_was_stopped_can_be_used(photos: Path, labelled: Path, finished: Path, tmp_path: Path) -> None:
    """Its newest checkpoint is measured, loaded and started from; and so is one that is named."""
    run = shutil.copytree(finished, tmp_path / "run")
    x = torch.ones(1, 3, 16, 16)
    whole = load_encoder(run)(x)
    shutil.rmtree(run / "encoder")
    assert load_encoder(run)(x).equal(whole)
    earlier = load_encoder(f"{run}@2")(x)
    assert not earlier.equal(whole)
    said: list[str] = []
    found = evaluate(run, labelled, labelled, protocols=["knn"], tell=said.append)
    assert any("not finished: its encoder at step 4 is taken" in line for line in said)
    assert found.report["asked"]["step"] == 4
    assert evaluate(f"{run}@2", labelled, labelled, protocols=["knn"], baselines=False).report["asked"]["step"] == 2
    started = quick(photos, tmp_path / "next", init=f"{run}@2", overrides={"train.steps": 1})
    assert load_encoder(started.run_folder / "start")(x).equal(earlier)


def test_a_run_that_is_training_can_be_evaluated_beside_it(photos: Path, labelled: Path, tmp_path: Path) -> None:
    """The training process holds the lock, and goes on as if nothing were read."""
    scores: list[float] = []

    class Evaluating(Checkpointer):
        def __call__(self, moment: Any) -> None:
            super().__call__(moment)
            if moment.step == 3:
                found = evaluate(tmp_path / "run", labelled, labelled, protocols=["knn"], baselines=False)
                assert found.report["asked"]["step"] == 2
                scores.append(found.scores["encoder"]["knn.top1"].value)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pretraining, "Checkpointer", Evaluating)
        run = quick(photos, tmp_path / "run").run_folder
    assert len(scores) == 1
    assert tiny.weights(run) == tiny.weights(quick(photos, tmp_path / "alone").run_folder)


def test_the_step_that_is_told_is_the_one_that_is_measured(finished: Path, labelled: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "encoder")
    earlier = load_encoder(f"{run}@2")(torch.ones(1, 3, 16, 16))
    (checkpoints.folders(run)[4] / "tensors.safetensors").write_bytes(b"damaged")
    found = evaluate(run, labelled, labelled, protocols=["knn"], baselines=False)
    assert found.report["asked"]["step"] == 2
    assert load_encoder(run)(torch.ones(1, 3, 16, 16)).equal(earlier)


def test_a_stopped_run_of_16_bits_reads_images_as_a_finished_one_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(20):
        Image.fromarray(rng.integers(0, 4096, (24, 24)).astype(np.uint16)).save(photos / f"{i:02}.png")
    handed_out = {"encoder.stages": "all", "encoder.whiten": 0.1}
    run = quick(photos, tmp_path / "run", overrides=handed_out | {"train.steps": 2}).run_folder
    whole = load_encoder(run)
    assert whole.preprocessing.value_range is not None
    shutil.rmtree(run / "encoder")
    again = load_encoder(run)
    assert again.preprocessing == whole.preprocessing
    x = whole.preprocess(photos / "00.png")
    torch.testing.assert_close(again(x), whole(x), rtol=1e-4, atol=1e-5)


def test_a_strangers_stopped_run_fetches_nothing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "encoder")
    monkeypatch.setattr("barlow.runs.finishing.missing_set", lambda source: "cifar10")
    with pytest.raises(exits.NoInput, match="cifar10, which is not here and would be downloaded"):
        load_encoder(run)


def test_a_list_of_skipped_images_goes_where_the_results_go(finished: Path, labelled: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    bad = shutil.copytree(labelled, tmp_path / "bad")
    for path in sorted(bad.rglob("*.png"))[:8]:
        path.write_bytes(b"no image")
    with pytest.raises(exits.UnusableData, match="are listed in"):
        evaluate(run, labelled, bad, protocols=["knn"], out=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "skipped.json").exists()
    assert not (run / "evaluation").exists()


def test_the_features_of_a_stopped_run_are_whitened_as_those_of_a_finished_one(photos: Path, tmp_path: Path) -> None:
    run = quick(photos, tmp_path / "run", overrides={"encoder.stages": "all", "encoder.whiten": 0.1}).run_folder
    x = torch.ones(1, 3, 16, 16)
    whole = load_encoder(run)(x)
    shutil.rmtree(run / "encoder")
    torch.testing.assert_close(load_encoder(run)(x), whole, rtol=1e-4, atol=1e-5)


def test_weights_that_a_run_started_from_may_be_gone(photos: Path, finished: Path, tmp_path: Path) -> None:
    start = shutil.copytree(finished, tmp_path / "start")
    run = quick(photos, tmp_path / "run", init=str(start), overrides={"train.steps": 2}).run_folder
    shutil.rmtree(start)
    shutil.rmtree(run / "encoder")
    pretrain(out=run, resume=True, progress=False, steps=3)
    assert Run(run).metrics()[-1]["step"] == 3


# --- Space (R6) and exit codes ----------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_known_before_the_first_step(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "free_bytes", lambda folder: 1000)
    with pytest.raises(storage.CannotCreate, match=r"needs about \d+ MB for checkpoints, and 0 MB are free") as caught:
        quick(photos, tmp_path / "run")
    assert exits.code_of(caught.value) == exits.CANNOT_CREATE
    assert {entry.name for entry in (tmp_path / "run").iterdir()} <= {".lock"}


def test_exit_codes_say_what_kind_of_thing_is_wrong(
    finished: Path, photos: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_bytes(b"")
    out = ["--out", str(tmp_path / "run")]
    for words, code in (
        (["pretrain", str(photos), *out, "--objective", "nothing"], exits.USAGE),
        (["pretrain", str(tmp_path / "nowhere"), *out], exits.NO_INPUT),
        (["pretrain", str(tmp_path / "empty"), *out], exits.NO_INPUT),
        (["pretrain", str(photos), "--out", str(tmp_path / "full")], exits.CANNOT_CREATE),
        (["evaluate", str(tmp_path / "nowhere")], exits.NO_INPUT),
        (["pretrain", "--resume", *out], exits.NO_INPUT),
        (["evaluate", str(finished), "--train", str(photos), "--test", str(photos)], exits.DATA),
    ):
        assert cli.main(words) == code, words
        assert len(capsys.readouterr().err.strip().splitlines()) <= 5


def test_too_little_memory_has_an_exit_code_of_its_own(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(pretraining, "train", full)
    words = ["pretrain", str(photos), "--out", str(tmp_path / "run"), *tiny.words(train__steps=2)]
    assert cli.main(words) == exits.MEMORY
    assert "--rows-in-memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "error"),
    [
        ("evaluate", "torch's own"),
        ("evaluate", "Python's"),
        ("embed", "torch's own"),
        ("embed", "a device's"),
        ("search", "torch's own"),
        ("pretrain", "torch's own"),
    ],
)
def test_memory_that_runs_out_after_training_is_said_in_one_line_that_says_what_to_lower(
    verb: str,
    error: str,
    finished: Path,
    labelled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: Any) -> Any:
        if error == "torch's own":
            return torch.empty(10**15)
        if error == "a device's":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore")
        raise MemoryError

    out = ["--out", str(tmp_path / "out.npy")] if verb == "embed" else ["--out", str(tmp_path / "out")]
    words = {
        "evaluate": ["evaluate", str(finished), *out, "--train", str(labelled), "--test", str(labelled)],
        "embed": ["embed", str(finished), str(labelled), *out],
        "search": ["search", str(finished), str(next(labelled.rglob("*.png"))), "--in", str(labelled)],
        "pretrain": ["pretrain", str(labelled), *out, *tiny.words(train__steps=1, encoder__whiten=0.1)],
    }[verb]
    monkeypatch.setattr(*((HandedOut, "fit") if verb == "pretrain" else (torch.nn.Conv2d, "forward")), full)
    assert cli.main(words) == exits.MEMORY
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("barlow: ")]
    assert len(said) == 1
    assert said[0].startswith("barlow: out of memory"), said
    if error != "Python's":
        assert {"torch's own": "(4e+06 GB more", "a device's": "(2.00 GiB more"}[error] in said[0]
    batch = {"search": 64}.get(verb, 256)
    lower = "end what else takes memory" if verb == "pretrain" else f"lower --batch-size, which was {batch}"
    assert lower in said[0]


def test_no_error_is_judged_by_importing_torch() -> None:
    program = (
        "import sys; from barlow import exits\n"
        "assert exits.code_of(MemoryError()) == exits.MEMORY and exits.code_of(RuntimeError()) == exits.OUR_FAULT\n"
        "assert exits.code_of(RuntimeError('DefaultCPUAllocator: not enough memory')) == exits.MEMORY\n"
        "assert 'torch' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_folder_of_results_in_which_nothing_can_be_written_is_known_before_the_work(
    finished: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there already, with all its folders, so that only writing shows it."""
    run = shutil.copytree(finished, tmp_path / "run")
    evaluate(run, labelled, labelled, protocols=["knn"], baselines=False)

    def read_only(path: Path, content: bytes) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(storage, "_write_synced", read_only)
    said: list[str] = []
    with pytest.raises(storage.CannotCreate, match="The results can go elsewhere"):
        evaluate(run, labelled, labelled, protocols=["knn5_euclidean"], tell=said.append)
    assert not [line for line in said if line.startswith(("reading", "embedding"))]
