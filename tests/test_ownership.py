"""What is not barlow's is neither written through nor removed, whatever a stranger's run folder holds."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_run import a_run, tensors, there

from barlow import checkpoints, exits, ownership, storage
from barlow.results import LEFT_OVER_SECONDS, prepare_home
from barlow.runs.run import Run, RunFolderError

NAMES = (
    ".lock", "recipe.yaml", "metrics.jsonl", "start", "encoder", "encoder/model.safetensors", "checkpoints",
    "checkpoints/step-000004", "checkpoints/step-000004/state.json", "evaluation", "evaluation/history.jsonl",
    "evaluation/features", ".tmp-start-0123abcd", "checkpoints/.tmp-step-000004-0123abcd",
)  # fmt: skip


def put(run: Path, name: str, make: Callable[[Path], object]) -> Path:
    """Something at a name in a run folder, in place of what was there."""
    path = run / name
    if path.is_dir():
        path.rename(run.parent / "moved")
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    return path


def refused(run: Run, name: str, words: str) -> None:
    with pytest.raises(storage.CannotCreate, match=rf"{name} {words}.*another --out") as caught, run.locked():
        pass
    assert exits.code_of(caught.value) == 73


# --- The gate before anything is written ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_at_a_name_that_is_written_is_refused(tmp_path: Path, name: str, dangling: bool) -> None:
    run = a_run(tmp_path / "run", 4)
    victim = tmp_path / "victim"
    victim.mkdir()
    put(run.path, name, lambda path: path.symlink_to(victim / "new" if dangling else victim))
    refused(run, name, "is a link")
    assert list(victim.iterdir()) == []


def test_the_lock_of_a_strangers_run_does_not_overwrite_what_it_links_to(tmp_path: Path) -> None:
    run, victim = a_run(tmp_path / "run"), tmp_path / "bashrc"
    victim.write_text("precious")
    put(run.path, ".lock", lambda path: path.symlink_to(victim))
    refused(run, ".lock", "is a link")
    with pytest.raises(storage.CannotCreate, match="is a link"):
        storage.open_in_place(run.path / ".lock")
    with pytest.raises(storage.StorageError, match="is a link"):
        storage.append_line(run.path / ".lock", {"step": 1})
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "evaluation/history.jsonl"])
def test_a_second_name_of_another_file_is_refused_where_it_would_be_changed(tmp_path: Path, name: str) -> None:
    run, victim = a_run(tmp_path / "run"), tmp_path / "profile"
    victim.write_text("precious")
    put(run.path, name, lambda path: path.hardlink_to(victim))
    refused(run, name, r"has a second name elsewhere \(a hard link\)")
    with pytest.raises(storage.CannotCreate, match="hard link"):
        storage.open_in_place(run.path / name)
    with pytest.raises(storage.StorageError, match="hard link"):
        storage.append_line(run.path / name, {"step": 1})
    assert victim.read_text() == "precious"


def test_a_file_that_is_replaced_whole_may_have_a_second_name(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    (tmp_path / "copy").hardlink_to(run.path / "recipe.yaml")
    with run.locked():
        pass


def test_the_run_folder_itself_may_be_a_link_and_so_may_what_is_not_barlows(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 4)
    (run.path / "photos").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(run.path)
    with Run(tmp_path / "link").locked():
        pass


@pytest.mark.parametrize("name", ["history.jsonl", "results.json", "features", "skipped.json"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_evaluation_is_not_written_through_links(tmp_path: Path, name: str, elsewhere: bool) -> None:
    run, victim = a_run(tmp_path / "run"), tmp_path / "victim"
    home = tmp_path / "home" if elsewhere else run.path / "evaluation"
    home.mkdir()
    (home / name).symlink_to(victim)
    with pytest.raises(storage.CannotCreate, match=rf"{name} is a link.*another --out"):
        prepare_home(run.path, home if elsewhere else None)
    assert not victim.exists()
    assert [entry.name for entry in home.iterdir()] == [name]


def test_the_folder_that_an_evaluation_was_told_may_be_a_link_and_the_runs_own_may_not(tmp_path: Path) -> None:
    run, home = a_run(tmp_path / "run"), tmp_path / "home"
    home.mkdir()
    (run.path / "evaluation").symlink_to(home)
    with pytest.raises(storage.CannotCreate, match="evaluation is a link"):
        prepare_home(run.path, None)
    assert list(home.iterdir()) == []
    assert prepare_home(run.path, run.path / "evaluation") == run.path / "evaluation"


# --- Nothing but files ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 4)
    pipe = put(run.path, ".lock", os.mkfifo)
    for how in ({"overwrite": True}, {}):
        with pytest.raises(RunFolderError):
            Run.create(run.path, **how)
    refused(run, ".lock", "is a pipe or a device")
    (run.path / "recipe.yaml").unlink()
    with pytest.raises(RunFolderError):
        Run.create(run.path)
    with pytest.raises(storage.CannotCreate, match="is not a file"):
        storage.open_in_place(pipe)
    with pytest.raises(storage.StorageError, match="is not a file"):
        storage.append_line(pipe, {"step": 1})
    for read in (storage.read_bytes, storage.read_json, storage.read_tensors, storage.read_lines):
        with pytest.raises(exits.UnusableData, match="lock is not a file"):
            read(pipe)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "MANIFEST.json", "extra.bin"])
@pytest.mark.parametrize("what", ["a pipe", "an endless device", "a folder"])
def test_a_checkpoint_with_something_else_than_its_files_ends_in_one_line(tmp_path: Path, name: str, what: str) -> None:
    if what != "a folder" and os.name == "nt":
        pytest.skip("there is no such thing here")
    run = a_run(tmp_path / "run", 4)
    folder = run.path / "checkpoints" / "step-000004"
    makes = {
        "a pipe": os.mkfifo,
        "an endless device": lambda path: path.symlink_to("/dev/zero"),
        "a folder": Path.mkdir,
    }
    path = put(run.path, f"checkpoints/step-000004/{name}", makes[what])
    if name != "MANIFEST.json":
        manifest = storage.read_sealed(folder / "MANIFEST.json")
        manifest["files"][name] = {"bytes": path.stat().st_size, "sha256": "0" * 64}
        storage.write_sealed(folder / "MANIFEST.json", manifest)
    if name == "extra.bin":
        assert checkpoints.damage_in(folder) == "the manifest names 'extra.bin', which is none of its files"
        return
    with pytest.raises(exits.UnusableData, match=rf"{name} is not a file"):
        checkpoints.whole(run.path)


# --- Nothing but ours is removed --------------------------------------------------------------------------------------


FOREIGN = (
    ".tmp-photos-20261129/me.png",
    ".notes.txt.tmp-20261129",
    "checkpoints/.tmp-best-20261129/best.ckpt",
    "checkpoints/.tmp-step-000004-20261129/mine.txt",
    "checkpoints/.notes.txt.tmp-20261129",
    "encoder/.photo.png.tmp-20261129",
    ".tmp-encoder-20261129/mine.txt",
    ".tmp-step-000004-20261129/state.json",
)


@pytest.mark.parametrize("name", FOREIGN)
def test_what_only_looks_like_a_leftover_stays(tmp_path: Path, name: str) -> None:
    run = a_run(tmp_path / "run", 4)
    (run.path / name).parent.mkdir(parents=True, exist_ok=True)
    (run.path / name).write_text("precious")
    said: list[str] = []
    run.remove_leftovers(said.append)
    checkpoints.newest(run.path)
    assert (run.path / name).read_text() == "precious"
    assert len(said) == ("mine.txt" in name)
    assert all("'mine.txt' in it is not barlow's. Move that elsewhere" in line for line in said)


def test_real_leftovers_go(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 4)
    left = (".recipe.yaml.tmp-0123abcd", "checkpoints/.tmp-step-000008-0123abcd/state.json",
            "checkpoints/.tmp-removed-step-000002.bad-0123abcd/tensors.safetensors",
            "encoder/.config.json.tmp-0123abcd")  # fmt: skip
    for name in left:
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("half")
    run.remove_leftovers()
    assert not [name for name, path in ownership.contents(run.path) if ownership.is_unfinished(path.name)]


def test_an_evaluation_removes_its_own_leftovers_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    mine = (".tmp-photos-20261129/me.png", "features/.tmp-photos-20261129/me.png", ".recipe.yaml.tmp-0123abcd")
    ours = (".results.json.tmp-0123abcd", f"features/.{'0' * 32}.safetensors.tmp-0123abcd")
    for name in (*mine, *ours):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("text")
        for path in (home / name, (home / name).parent):
            os.utime(path, (0, 2 * LEFT_OVER_SECONDS))
    prepare_home(tmp_path / "run", home)
    assert [name for name in (*mine, *ours) if (home / name).exists()] == list(mine)


def test_a_checkpoint_that_somebody_put_a_file_into_is_not_rotated_away(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 3)
    (run.path / "checkpoints" / "step-000003" / "mine.txt").write_text("precious")
    said: list[str] = []
    for step in (4, 5, 6):
        checkpoints.save(run.path, step, tensors(step), {"total": 100}, said.append)
    assert there(run) == {"step-000003", "step-000005", "step-000006"}
    assert checkpoints.damage_in(run.path / "checkpoints" / "step-000003") is None, "all of it stays"
    assert "step-000003 stays: 'mine.txt' in it is not barlow's" in said[0]


def test_a_damaged_checkpoint_does_not_take_the_place_of_what_somebody_keeps(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 4, 8)
    home = run.path / "checkpoints"
    (home / "step-000008" / "state.json").write_text("{}")
    (home / "step-000008.bad").mkdir()
    (home / "step-000008.bad" / "mine.txt").write_text("precious")
    with pytest.raises(checkpoints.ForeignInside, match=r"step-000008\.bad stays: 'mine.txt' in it.*Move") as caught:
        checkpoints.newest(run.path)
    assert exits.code_of(caught.value) == 65
    assert there(run) == {"step-000004", "step-000008", "step-000008.bad"}


def test_a_link_among_the_checkpoints_is_not_removed_nor_what_it_leads_to(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 4)
    other = a_run(tmp_path / "other", 3)
    (run.path / "checkpoints" / "step-000003").symlink_to(other.path / "checkpoints" / "step-000003")
    for step in (5, 6):
        checkpoints.save(run.path, step, tensors(step), {"total": 100})
    assert torch.equal(
        checkpoints.read(other.path / "checkpoints" / "step-000003").tensors["method/w"], torch.full((5,), 3.0)
    )
    assert (run.path / "checkpoints" / "step-000003").is_symlink()


def test_a_pipe_at_one_of_our_names_is_not_ours(tmp_path: Path) -> None:
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "data.json")
        assert ownership.foreign(tmp_path) == ["data.json"]
    assert not ownership.is_ours("recipe.yaml", tmp_path)
