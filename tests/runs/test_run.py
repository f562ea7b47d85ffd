"""A run folder is one process's at a time, never overwritten unasked, and resumed from its newest whole state."""

import contextlib
import errno
import hashlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from test_storage import Killed, failing

from barlow import checkpoints, cli, exits, storage
from barlow.pretraining import pretrain
from barlow.runs import run as runs
from barlow.runs.run import BrokenRun, Displaced, Run, RunFolderError
from barlow.training import step_log


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {"method/w": torch.full((5,), float(step)), "optimizer/w/step": torch.tensor(step)}


RECIPE = "data: {}\nobjective: {}\ntrain: {}\n"


def a_run(path: Path, *steps: int) -> Run:
    run = Run.create(path)
    storage.write_text(run.path / "recipe.yaml", RECIPE)
    for step in steps:
        checkpoints.save(run.path, step, tensors(step), {"total": 100})
    return run


def there(run: Run) -> set[str]:
    return {entry.name for entry in (run.path / "checkpoints").iterdir()}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# --- The folder ---------------------------------------------------------------------------------------------------


def test_a_new_run_makes_its_folder_with_parents_and_leaves_it_empty(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a" / "b")
    assert list(run.path.iterdir()) == []
    Run.create(tmp_path / "a" / "b")


def test_a_folder_that_is_not_empty_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"not empty; use --resume .* --overwrite") as caught:
        Run.create(run.path)
    assert str(run.path) in str(caught.value)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(b"")
    with pytest.raises(RunFolderError, match="is a file; name a folder"):
        Run.create(tmp_path / "run", overwrite=True)
    with pytest.raises(storage.StorageError, match="a file is in the way"):
        Run.create(tmp_path / "run" / "below")


def test_overwriting_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 4)
    storage.write_text(run.path / "encoder" / "config.json", "{}")
    storage.write_bytes(run.path / "evaluation" / "features" / f"{'0a' * 16}.safetensors", b"")
    (run.path / ".recipe.yaml.tmp-0123abcd").write_bytes(b"")
    (run.path / "checkpoints" / ".tmp-removed-step-000002-0123abcd").mkdir()
    (run.path / "checkpoints" / ".tmp-removed-step-000002-0123abcd" / "state.json").write_bytes(b"")
    Run.create(run.path, overwrite=True).clear()
    assert list(run.path.iterdir()) == []


FOREIGN = [
    "notes.txt", "photos", "model.pt", ".mine", ".tmp-mine/keep", "encoder/model.onnx", "evaluation/notes.md",
    "evaluation/results-mine.json", "evaluation/results.old.json",
    "evaluation/features/mine.safetensors", "checkpoints/best/model.ckpt", "checkpoints/epoch=3.ckpt",
    "checkpoints/step-000004/notes", "start/model.pt", "views.png.bak", "data.json/inner", "logs/",
]  # fmt: skip
"""Paths that barlow does not write, at every depth; some look like its own."""


@pytest.mark.parametrize("name", FOREIGN)
def test_overwriting_refuses_a_folder_with_anything_foreign_in_it(tmp_path: Path, name: str) -> None:
    run = a_run(tmp_path / "run", 4)
    path = run.path / name
    if name.endswith("/"):
        path.mkdir()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"precious")
    before = sorted(run.path.rglob("*"))
    with pytest.raises(RunFolderError, match=f"{re.escape(name.rstrip('/'))}.*--overwrite does not touch it"):
        Run.create(run.path, overwrite=True)
    run.clear()  # even if it came to that
    assert path in run.path.rglob("*")
    assert path.is_dir() or path.read_bytes() == b"precious"
    assert len(before) > len(sorted(run.path.rglob("*")))


def test_overwriting_refuses_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "photos" / "encoder").mkdir(parents=True)
    with pytest.raises(RunFolderError, match=r"no recipe\.yaml.*--overwrite does not touch it"):
        Run.create(tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "encoder").is_dir()


@pytest.mark.parametrize("lock", [b"", b"pid 7\n"])
def test_a_lock_alone_proves_nothing(tmp_path: Path, lock: bytes) -> None:
    """Another tool's folder: its lock has the name of ours, and its checkpoints lie where ours would."""
    checkpoint = tmp_path / "run" / "checkpoints" / "epoch=3.ckpt"
    storage.write_bytes(checkpoint, b"precious")
    (tmp_path / "run" / ".lock").write_bytes(lock)
    (tmp_path / "run" / "data.json").write_bytes(b"{}")
    with pytest.raises(RunFolderError, match="--overwrite does not touch it"):
        Run.create(tmp_path / "run", overwrite=True)
    assert checkpoint.read_bytes() == b"precious"


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_run_that_ended_before_its_recipe_was_written_is_begun_anew(tmp_path: Path, overwrite: bool) -> None:
    run = Run.create(tmp_path / "run")
    with run.locked():
        storage.write_json(run.path / "data.json", {})
    Run.create(run.path, overwrite=overwrite).clear()
    assert {entry.name for entry in run.path.iterdir()} == {".lock"}


@pytest.mark.parametrize("left", ["..write-test.tmp-0123abcd", ".write-test", ".lock"])
def test_a_folder_in_which_a_command_was_killed_before_it_began_is_as_good_as_empty(tmp_path: Path, left: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / left).write_bytes(b"")
    run = Run.create(tmp_path / "run")
    run.remove_leftovers()
    assert not [entry for entry in run.path.iterdir() if "tmp" in entry.name]


def test_a_run_that_has_lost_its_recipe_is_not_begun_anew_over_its_checkpoints(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 4, 8)
    with run.locked():
        (run.path / "recipe.yaml").unlink()
    for resume in (True, False):
        with pytest.raises(BrokenRun, match=r"checkpoints up to step 8 and no recipe\.yaml.*--overwrite"):
            Run.create(run.path, resume=resume)
    assert list(checkpoints.folders(run.path)) == [4, 8]
    Run.create(run.path, overwrite=True).clear()
    assert {entry.name for entry in run.path.iterdir()} == {".lock"}


def test_a_run_that_is_half_removed_is_no_run(tmp_path: Path) -> None:
    """The recipe, which makes it one, is written last and removed first."""
    run = a_run(tmp_path / "run", 4)
    storage.write_bytes(run.path / "encoder" / "config.json", b"")
    with failing(1, Killed(), removing=True), pytest.raises(Killed):
        run.clear()
    assert run.exists()
    with failing(2, Killed(), removing=True), pytest.raises(Killed):
        run.clear()
    assert not run.exists()
    assert (run.path / "encoder" / "config.json").exists()


def test_a_run_that_somebody_else_has_begun_meanwhile_is_left_to_him(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 4)
    with pytest.raises(RunFolderError, match="another process has just begun the run; give the command again"):
        Run.create(run.path, resume=True)


def test_overwriting_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_bytes(b"")
    run = a_run(tmp_path / "run")
    (run.path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match=r"checkpoints.*--overwrite does not touch it"):
        Run.create(run.path, overwrite=True)
    run.clear()  # even if it came to that
    assert (tmp_path / "elsewhere" / "precious").exists()
    assert (run.path / "checkpoints").is_symlink()


def test_opening_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="does not exist, so it is not a run"):
        Run.open(tmp_path / "nothing")
    with pytest.raises(RunFolderError, match=r"has no recipe\.yaml, so it is not a run"):
        Run.open(tmp_path)
    assert Run.open(a_run(tmp_path / "run").path).path == tmp_path / "run"


# --- The lock -----------------------------------------------------------------------------------------------------

TAKE_IT = """
import sys
from barlow.runs.run import Run, RunFolderError
try:
    with Run({path!r}).locked():
        print("taken")
except RunFolderError as error:
    print(error)
"""


def test_a_second_process_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    program = "from pathlib import Path\n" + TAKE_IT.replace("{path!r}", f"Path({str(tmp_path)!r})")

    def other() -> str:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    with run.locked():
        assert f"in use by process {os.getpid()} on" in other()
    assert other() == "taken\n"


def test_a_second_handle_of_the_same_process_is_refused(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    with run.locked(), pytest.raises(RunFolderError, match="in use by process"), Run(tmp_path).locked():
        pass
    with run.locked():
        pass


def test_the_lock_ends_with_its_process_even_if_a_data_worker_lives_on(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    read, write = os.pipe()
    owner = os.fork()
    if owner == 0:
        with run.locked():
            worker = os.fork()
            if worker == 0:
                os.write(write, f"{os.getpid()}\n".encode())
                signal.pause()
            signal.pause()
    worker = int(os.read(read, 20))
    try:
        with pytest.raises(RunFolderError, match="in use"), run.locked():
            pass
        os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)
        os.kill(worker, 0)
        with run.locked():
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_a_file_system_has_no_locks_work_goes_on_and_what_is_not_guarded_is_said_once(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    def flock(file: object, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    said: list[str] = []
    with Run.create(tmp_path / "run").locked(said.append) as check_held:
        check_held()  # that the folder is still the same is looked after without locks, too
    assert said == [
        f"lock     the file system of {tmp_path / 'run'} has no locks ({os.strerror(number)}), so nothing keeps a "
        "second command from writing into this folder at the same time: give each command a folder of its own"
    ]
    if number == errno.ENOSYS:
        photos = tiny.images(tmp_path / "photos", 32)
        words = ["pretrain", str(photos), "--out", str(tmp_path / "run"), *tiny.words(train__steps=1)]
        assert cli.main(words) == 0
        assert capsys.readouterr().err.count("has no locks") == 1


def test_a_disk_that_fails_to_lock_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def flock(file: object, how: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    words = re.escape(f"--out {tmp_path / 'run'} cannot be locked (Input/output error): use a folder on another disk")
    with pytest.raises(RunFolderError, match=words) as caught, Run.create(tmp_path / "run").locked():
        pass
    assert exits.code_of(caught.value) == exits.CANNOT_CREATE


def test_without_fcntl_the_lock_is_that_of_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a fake has it: it locks one byte at the beginning of a file, for one handle, and refuses with EACCES."""
    held: set[tuple[int, int, int]] = set()

    def locking(descriptor: int, how: int, count: int) -> None:
        assert (how, count) == (2, 1)
        found = os.fstat(descriptor)
        place = (found.st_dev, found.st_ino, os.lseek(descriptor, 0, os.SEEK_CUR))
        if place in held:
            raise OSError(errno.EACCES, "Permission denied")
        held.add(place)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))
    run = Run.create(tmp_path)
    with run.locked(), pytest.raises(RunFolderError, match=f"in use by process {os.getpid()} on"), run.locked():
        pass
    assert [at for _, _, at in held] == [0]


def test_a_lock_says_at_every_moment_whose_the_folder_is(tmp_path: Path) -> None:
    """A run that was killed before its recipe was written is known by it, and so is one that was killed once more."""
    run = Run.create(tmp_path / "run")
    with run.locked():
        storage.write_json(run.path / "data.json", {})
    for at in itertools.count(1):
        with failing(at, Killed(), removing=True) as done, contextlib.suppress(Killed), run.locked():
            pass
        Run.create(run.path)  # is not refused
        if len(done) < at:
            break
    assert at > 1


def test_a_lock_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    (run.path / ".lock").mkdir()
    with pytest.raises(storage.CannotCreate, match=rf"cannot write {run.path}/\.lock: "), run.locked():
        pass


# --- Checkpoints --------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 7)
    checkpoint, notes = checkpoints.newest(run.path)
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.state["total"], notes) == (7, 100, [])
    assert checkpoint.tensors.keys() == tensors(7).keys()
    assert all(torch.equal(value, tensors(7)[name]) for name, value in checkpoint.tensors.items())


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert checkpoints.newest(a_run(tmp_path / "run").path) == (None, [])


def test_the_two_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 4, 8, 12, 16)
    assert there(run) == {"step-000012", "step-000016"}


def test_a_checkpoint_too_many_that_a_kill_has_left_is_let_go_of(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 4, 8)
    shutil.copytree(run.path / "checkpoints" / "step-000004", run.path / "checkpoints" / "step-000002")
    checkpoints.rotate(run.path)
    assert there(run) == {"step-000004", "step-000008"}


def test_the_newest_is_told_by_its_step_not_by_the_clock(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 999_996, 1_000_002)
    for step, seconds in ((999_996, 2e9), (1_000_002, 1e9)):
        folder = run.path / "checkpoints" / f"step-{step:06d}"
        for path in (*folder.iterdir(), folder):
            os.utime(path, (seconds, seconds))
    assert checkpoints.newest(run.path)[0].step == 1_000_002


def test_saving_a_step_twice_writes_it_once(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 4)
    with failing(None, Killed()) as done:
        checkpoints.save(run.path, 4, tensors(4), {"total": 100})
    assert done == []


def test_a_damaged_step_is_written_anew_when_it_is_reached_again(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 4, 8)
    flip(run.path / "checkpoints" / "step-000008" / "tensors.safetensors")
    checkpoints.save(run.path, 8, tensors(8), {"total": 100})
    checkpoint, notes = checkpoints.newest(run.path)
    assert (checkpoint.step, notes) == (8, [])


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "MANIFEST.json"])
def test_a_damaged_newest_is_set_aside_and_the_one_before_is_used(tmp_path: Path, name: str) -> None:
    run = a_run(tmp_path / "run", 4, 8)
    for _ in range(2):  # also when the same step is damaged a second time
        flip(run.path / "checkpoints" / "step-000008" / name)
        checkpoint, notes = checkpoints.newest(run.path)
        assert checkpoint.step == 4
        assert float(checkpoint.tensors["method/w"][0]) == 4
        assert len(notes) == 1
        assert "step-000008 is damaged" in notes[0]
        assert there(run) == {"step-000004", "step-000008.bad"}
        checkpoints.save(run.path, 8, tensors(8), {"total": 100})


def test_a_run_whose_checkpoints_are_all_damaged_stops_and_never_starts_afresh(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 4, 8)
    for folder in (run.path / "checkpoints").iterdir():
        flip(folder / "tensors.safetensors")
    with pytest.raises(checkpoints.AllDamaged, match=r"no checkpoint in .* can be read: .*step-000008.*step-000004"):
        checkpoints.newest(run.path)
    with pytest.raises(checkpoints.AllDamaged, match="no checkpoint in"):  # nor at the second try
        checkpoints.newest(run.path)


def test_any_flipped_bit_is_noticed_and_the_checkpoint_before_is_used(tmp_path: Path) -> None:
    original = a_run(tmp_path / "run", 4, 8)
    newest = original.path / "checkpoints" / "step-000008"
    places = [(path.name, position) for path in newest.iterdir() for position in range(path.stat().st_size)]
    for case, (name, position) in enumerate(places[:: len(places) // 60]):
        run = Run(tmp_path / str(case))
        shutil.copytree(original.path, run.path)
        path = run.path / "checkpoints" / "step-000008" / name
        content = bytearray(path.read_bytes())
        content[position] ^= 1 << (case % 8)
        path.write_bytes(content)
        checkpoint, notes = checkpoints.newest(run.path)
        assert (checkpoint.step, len(notes)) == (4, 1), f"{name}, byte {position}"


def test_whichever_call_fails_while_saving_a_whole_checkpoint_is_there_to_go_on_from(tmp_path: Path) -> None:
    before = a_run(tmp_path / "before", 4, 8)
    whole = tmp_path / "whole"
    shutil.copytree(before.path, whole)
    with failing(None, Killed()) as done:
        checkpoints.save(whole, 12, tensors(12), {})
    assert done.count("rename") == 2, "commit, and letting go of the oldest"
    steps = set()
    for at, failure in itertools.product(range(1, len(done) + 1), (Killed(), OSError(errno.ENOSPC, "full"))):
        run = Run(tmp_path / f"{at}-{type(failure).__name__}")
        shutil.copytree(before.path, run.path)
        with failing(at, failure), pytest.raises((Killed, OSError)):
            checkpoints.save(run.path, 12, tensors(12), {})
        checkpoint, notes = checkpoints.newest(run.path)
        assert checkpoint.step in (8, 12)
        assert float(checkpoint.tensors["method/w"][0]) == checkpoint.step
        assert notes == []
        assert not [name for name in there(run) if name.startswith(".")], "leftovers are gone after loading"
        steps.add(checkpoint.step)
        for step in (12, 16):
            checkpoints.save(run.path, step, tensors(step), {})
        assert there(run) == {"step-000012", "step-000016"}
    assert steps == {8, 12}


def test_a_checkpoint_forged_with_a_fitting_manifest_runs_no_code_and_reads_nothing_outside(tmp_path: Path) -> None:
    canary, secret = tmp_path / "canary", tmp_path / "secret"
    secret.write_bytes(b"secret")
    run = a_run(tmp_path / "run", 4)
    pickled = b"cos\nmkdir\n(S'" + str(canary).encode() + b"'\ntR."
    state = storage.json_bytes({"step": 8})
    storage.commit_folder(
        run.path / "checkpoints" / "step-000008", {"tensors.safetensors": pickled, "state.json": state}
    )
    with pytest.raises(ValueError, match=r"tensors\.safetensors is not a valid safetensors file"):
        checkpoints.newest(run.path)
    manifest = run.path / "checkpoints" / "step-000008" / "MANIFEST.json"
    content = storage.read_sealed(manifest)
    content["files"]["../../../secret"] = {"bytes": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}
    storage.write_sealed(manifest, content)
    checkpoint, notes = checkpoints.newest(run.path)
    assert checkpoint.step == 4
    assert "which is none of its files" in notes[0]
    assert not canary.exists()


# --- The log ------------------------------------------------------------------------------------------------------


def test_lines_of_steps_that_are_run_again_are_forgotten(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    for step in range(1, 8):
        storage.append_line(run.path / "metrics.jsonl", {"step": step})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 8, "lo')
    assert step_log.rewind(run.path / "metrics.jsonl", 4) == 1
    assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4]
    assert (run.path / "metrics.jsonl").read_text().endswith("}\n")
    assert step_log.rewind(run.path / "metrics.jsonl", 0) == 0
    assert run.metrics() == []


def test_a_recipe_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("- a\n- b\n")
    with pytest.raises(RunFolderError, match="holds no recipe"):
        runs.load_recipe_text(tmp_path / "recipe.yaml")


def test_a_process_that_has_lost_its_folder_writes_nothing_into_the_next_one(tmp_path: Path) -> None:
    """It was forgotten, its folder was removed, and another run lies there now."""
    data, out = tiny.images(tmp_path / "data", 24), tmp_path / "run"
    taken = []

    def take(*z: torch.Tensor) -> dict[str, torch.Tensor]:
        if len(taken) == 4:
            shutil.rmtree(out)
            pretrain(data, out, recipe="small_vicreg", overrides=tiny.SMALL | {"train.steps": 2}, progress=False)
        taken.append(len(z))
        return {"distance": (z[0] - z[1]).square().mean()}

    settings = tiny.SMALL | {"train.checkpoint_steps": 8}
    with pytest.raises(Displaced, match="was removed, moved or replaced while this run was training into it"):
        pretrain(data, out, recipe="small_vicreg", objective=take, overrides=settings, progress=False)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-000000", "step-000002"]
    assert Run(out).metrics()[-1]["step"] in (2, 8), "a line of the log may have come late, and no more"


def test_a_run_that_was_moved_away_is_not_made_anew_where_it_was(tmp_path: Path) -> None:
    data, out = tiny.images(tmp_path / "data", 24), tmp_path / "run"
    called = []

    def move(*z: torch.Tensor) -> dict[str, torch.Tensor]:
        if len(called) == 4:
            out.rename(tmp_path / "moved")
        called.append(len(z))
        return {"distance": (z[0] - z[1]).square().mean()}

    settings = tiny.SMALL | {"train.checkpoint_steps": 8}
    with pytest.raises(Displaced):
        pretrain(data, out, recipe="small_vicreg", objective=move, overrides=settings, progress=False)
    assert not out.exists()
    assert (tmp_path / "moved" / "recipe.yaml").is_file()
