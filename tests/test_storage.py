"""A file is whole, old or new, whatever happens while it is written; a committed folder vouches for every bit."""

import builtins
import errno
import itertools
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from barlow import ownership, regular, storage
from barlow.seals import Damaged, sealed
from barlow.views.sheet import png

OLD, NEW = b"old " * 100, b"new " * 120
FILES = {"tensors.safetensors": bytes(range(256)) * 4, "state.json": b'{"step": 7}\n'}


class Killed(BaseException):
    """The process ends here: no handler of errors sees it."""


@contextmanager
def failing(at: int | None, failure: BaseException, *, removing: bool = False) -> Iterator[list[str]]:
    """Counts the calls that change a disk, and fails at one of them; a write fails when half of it is done.

    Those that remove something are counted only if asked for: while an error is handled they clean up.
    """
    done: list[str] = []

    def reached(name: str) -> bool:
        done.append(name)
        return len(done) == at

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if not (name == "mkdir" and os.path.isdir(arguments[0])) and reached(name):
                raise failure
            return function(*arguments, **keywords)

        return call

    def opened(path: Any, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
        if not set(mode) & set("wa+"):
            return builtins_open(path, mode, *arguments, **keywords)
        if reached("open"):
            raise failure
        file = builtins_open(path, mode, *arguments, **keywords)
        write = file.write

        class Half:
            def __enter__(self) -> "Half":
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def write(self, data: bytes) -> int:
                if reached("write"):
                    write(data[: len(data) // 2])
                    raise failure
                return int(write(data))

        return Half()

    builtins_open = builtins.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "open", opened, raising=False)
        for name in ("replace", "rename", "fsync", "mkdir", *(("unlink", "rmdir") if removing else ())):
            patch.setattr(os, name, counted(name, getattr(os, name)))
        yield done


def every_point(action: Callable[[], object], prepare: Callable[[], object]) -> Iterator[tuple[int, BaseException]]:
    """Runs the action again and again, failing at its first, second, ... and last call, by death and by a full disk."""
    prepare()
    with failing(None, Killed()) as done:
        action()
    assert {"open", "write", "fsync"} <= set(done), done
    for at, failure in itertools.product(range(1, len(done) + 1), (Killed(), OSError(errno.ENOSPC, "No space left"))):
        prepare()
        with (
            failing(at, failure),
            pytest.raises(Killed if isinstance(failure, Killed) else storage.StorageError),
        ):
            action()
        yield at, failure


def visible(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}


@pytest.mark.parametrize("before", [OLD, None])
def test_a_file_is_old_or_new_whichever_call_fails(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "run" / "recipe.yaml"

    def prepare() -> None:
        shutil.rmtree(path.parent, ignore_errors=True)
        if before is not None:
            path.parent.mkdir()
            path.write_bytes(before)

    seen = set()
    for _, failure in every_point(lambda: storage.write_bytes(path, NEW), prepare):
        content = path.read_bytes() if path.exists() else None
        assert content in (before, NEW)
        seen.add(content)
        if path.parent.exists():
            assert visible(path.parent) <= {"recipe.yaml"}
            if not isinstance(failure, Killed):
                assert not [e for e in path.parent.iterdir() if e.name.startswith(".")], "an error cleans up"
            ownership.remove_leftovers(path.parent)
            assert {e.name for e in path.parent.iterdir()} <= {"recipe.yaml"}
    assert seen == {before, NEW}, "the points before and after the rename were both met"


def test_a_folder_is_committed_whole_or_not_at_all_whichever_call_fails(tmp_path: Path) -> None:
    home = tmp_path / "checkpoints"
    path = home / "step-000007"

    def prepare() -> None:
        shutil.rmtree(home, ignore_errors=True)

    committed = []
    for _, failure in every_point(lambda: storage.commit_folder(path, FILES), prepare):
        committed.append(path.exists())
        if path.exists():
            assert storage.damage_in(path, FILES) is None
            assert {name: (path / name).read_bytes() for name in FILES} == FILES
        if home.exists():
            assert visible(home) <= {"step-000007"}
            if not isinstance(failure, Killed):
                assert not [e for e in home.iterdir() if e.name.startswith(".")], "an error cleans up"
            ownership.remove_leftovers(home, "checkpoints")
            assert {e.name for e in home.iterdir()} <= {"step-000007"}
    assert set(committed) == {True, False}


def test_a_committed_folder_is_never_overwritten(tmp_path: Path) -> None:
    storage.commit_folder(tmp_path / "step", FILES)
    with pytest.raises(FileExistsError, match="never overwritten"):
        storage.commit_folder(tmp_path / "step", {"other": b""})
    assert storage.damage_in(tmp_path / "step", FILES) is None


def test_what_reads_back_differently_is_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = storage._write_synced

    def rotting(path: Path, data: bytes) -> None:
        written(path, data[:-1] + b"?" if path.name == "state.json" else data)

    monkeypatch.setattr(storage, "_write_synced", rotting)
    with pytest.raises(storage.StorageError, match=r"state\.json differs.*disk may be failing"):
        storage.commit_folder(tmp_path / "step", FILES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_failure_is_one_line_with_the_path_and_the_reason(tmp_path: Path, number: int, words: str) -> None:
    path = tmp_path / "data.json"
    with (
        failing(2, OSError(number, os.strerror(number))),
        pytest.raises(storage.StorageError, match=words) as caught,
    ):
        storage.write_json(path, {})
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(storage.StorageError, match="a file is in the way"):
            storage.make_folder(path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_written_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        storage.write_bytes(tmp_path / "file", b"")
        storage.commit_folder(tmp_path / "folder", FILES)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "folder" / "state.json").stat().st_mode & 0o777 == 0o640


def test_every_flipped_bit_of_manifest_and_state_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    storage.commit_folder(folder, {name: data[:40] for name, data in FILES.items()})
    for path in folder.iterdir():
        good = path.read_bytes()
        for position in range(len(good)):
            bad = bytearray(good)
            bad[position] ^= 1 << (position % 8)
            path.write_bytes(bad)
            assert storage.damage_in(folder, FILES), f"{path.name}, byte {position}"
        path.write_bytes(good)
    assert storage.damage_in(folder, FILES) is None


def test_flipped_bits_anywhere_in_tensors_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    storage.commit_folder(folder, {"tensors.safetensors": storage.tensors_bytes({"w": values})})
    path = folder / "tensors.safetensors"
    good = path.read_bytes()
    rng = random.Random(0)
    for _ in range(200):
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        assert storage.damage_in(folder, ("tensors.safetensors",)) == "tensors.safetensors differs from its manifest"
    path.write_bytes(good)
    assert storage.damage_in(folder, ("tensors.safetensors",)) is None


def test_files_cut_short_made_longer_or_gone_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    storage.commit_folder(folder, FILES)
    for path in folder.iterdir():
        good = path.read_bytes()
        for bad in (b"", good[:-2], good + b"!"):
            path.write_bytes(bad)
            assert storage.damage_in(folder, FILES)
        path.unlink()
        assert storage.damage_in(folder, FILES) == f"{path.name} is missing"
        path.write_bytes(good)
    assert storage.damage_in(folder, FILES) is None
    assert storage.damage_in(tmp_path / "nothing", ()) == "MANIFEST.json is missing"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", ".hidden", "", "extra.bin"])
def test_a_manifest_that_names_another_file_is_refused_before_it_is_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "step"
    storage.commit_folder(folder, FILES)
    manifest = storage.read_sealed(folder / "MANIFEST.json")
    manifest["files"][name] = manifest["files"]["state.json"]
    storage.write_sealed(folder / "MANIFEST.json", manifest)  # whoever forges a manifest can seal it as well
    assert storage.damage_in(folder, FILES) == f"the manifest names {name!r}, which is none of its files"


@pytest.mark.parametrize(
    "manifest",
    [
        "[]",
        "7",
        "null",
        '"text"',
        "{}",
        '{"format": 1}',
        '{"format": 1, "files": []}',
        '{"format": 1, "files": {"a": 3}}',
        '{"format": 2, "files": {}}',
        '{"format": 1, "files": {"state.json": {"bytes": 12}}}',
        "[" * 100_000,
        '{"format": 1, "files": {"": {"bytes": 0, "sha256": ""}}}',
        '{"format": 2, "files": {}, "sha256": ""}',
        '{"format": 99, "files": {}, "sha256": 7}',
        '{"format": "2", "files": {}}',
        "\x00" * 50,
    ],
    ids=lambda text: text[:30].replace("\x00", "0"),
)
def test_a_hostile_manifest_is_damage_and_no_crash(tmp_path: Path, manifest: str) -> None:
    folder = tmp_path / "step"
    storage.commit_folder(folder, FILES)
    (folder / "MANIFEST.json").write_text(manifest)
    assert storage.damage_in(folder, FILES)


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    content = {"a": float("nan"), "b": [1.5, float("inf"), (float("-inf"), 2)], 3: {"c": 0.1}, "d": "ü", "e": None}
    storage.write_json(tmp_path / "a.json", content)
    assert storage.read_json(tmp_path / "a.json") == {
        "a": None, "b": [1.5, None, [None, 2]], "3": {"c": 0.1}, "d": "ü", "e": None,
    }  # fmt: skip
    assert b"NaN" not in (tmp_path / "a.json").read_bytes()


def test_names_that_are_not_utf8_survive_json_and_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    storage.write_json(tmp_path / "a.json", [name])
    assert storage.read_json(tmp_path / "a.json") == [name]
    storage.write_text(tmp_path / "a.txt", name)
    assert (tmp_path / "a.txt").read_bytes() == b"caf\xe9.jpg"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\xfd", b"[" * 100_000])
def test_broken_json_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.json is not valid JSON"):
        storage.read_json(tmp_path / "broken.json")


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=g)
    tensors = {
        "float": base,
        "transposed": base.t(),
        "part": base[1:3],
        "same memory": base,
        "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
        "double": base.double(),
        "bf16": base.bfloat16(),
        "counter": torch.tensor(2**40),
        "flags": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
        "weights": base.clone().requires_grad_(),
        "channels_last": torch.randn(2, 3, 4, 4, generator=g).to(memory_format=torch.channels_last),
    }
    storage.write_tensors(tmp_path / "t.safetensors", tensors, {"key": "value"})
    back = storage.read_tensors(tmp_path / "t.safetensors")
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        assert back[name].dtype == value.dtype
        assert torch.equal(back[name].nan_to_num(), value.detach().nan_to_num()), name
    assert storage.tensors_bytes(tensors) == storage.tensors_bytes(dict(tensors)), "the same tensors, the same bytes"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not tensors",
        (10 * 2**30).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{",
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        (lambda header: len(header).to_bytes(8, "little") + header + bytes(8))(
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        ),
    ],
    ids=["empty", "text", "ten gigabytes declared", "cut", "pickle", "overlapping"],
)
def test_a_hostile_tensor_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.safetensors is not a valid safetensors file"):
        storage.read_tensors(tmp_path / "bad.safetensors")


def test_lines_are_appended_and_a_last_line_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert storage.read_lines(path) == []
    for step in range(3):
        storage.append_line(path, {"step": step, "loss": float("nan")})
    with open(path, "a") as file:
        file.write('{"step": 3, "lo')
    rows = storage.read_lines(path)
    assert rows == [{"step": step, "loss": None} for step in range(3)]
    storage.write_lines(path, rows[:2])
    assert storage.read_lines(path) == rows[:2]


def test_a_line_that_was_changed_is_left_out_and_one_without_a_seal_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    storage.append_line(path, {"step": 1})
    for step in (2, 3):
        storage.append_line(path, sealed({"step": step, "loss": 0.25}))
    assert storage.read_lines(path) == [{"step": 1}, {"step": 2, "loss": 0.25}, {"step": 3, "loss": 0.25}]
    path.write_bytes(path.read_bytes().replace(b'"step": 2, "loss": 0.25', b'"step": 2, "loss": 0.35'))
    assert [row["step"] for row in storage.read_lines(path)] == [1, 3]
    assert [json.loads(line)["loss"] for line in storage.bad_lines(path)] == [0.35]


def test_a_picture_comes_back(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    storage.write_bytes(tmp_path / "views.png", png(picture))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "views.png")), picture)


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".tmp-step-000001-0123abcd").mkdir()
    (tmp_path / ".tmp-step-000001-0123abcd" / "state.json").write_bytes(b"")
    (tmp_path / ".tmp-removed-step-000001.bad-0123abcd").mkdir()
    kept = {"step-000001", "notes.txt", ".hidden", "tmp-mine", ".tmp-mine", ".tmp-mine-2", ".notes.tmp-old"}
    for name in kept:
        (tmp_path / name).write_bytes(b"")
    ownership.remove_leftovers(tmp_path, "checkpoints")
    ownership.remove_leftovers(tmp_path / "missing")
    assert {entry.name for entry in tmp_path.iterdir()} == kept


def test_a_line_after_one_that_was_cut_short_is_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    storage.append_line(path, {"step": 1})
    with failing(2, OSError(errno.ENOSPC, "No space left")), pytest.raises(storage.StorageError, match="disk is full"):
        storage.append_line(path, {"step": 2})
    assert not path.read_bytes().endswith(b"\n")
    storage.append_line(path, {"step": 3})
    assert storage.read_lines(path) == [{"step": 1}, {"step": 3}]


@pytest.mark.parametrize("at", [None, 1, 2, 3])
def test_a_folder_is_tried_before_the_work_and_nothing_is_left_of_the_trial(tmp_path: Path, at: int | None) -> None:
    if at is None:
        storage.check_writable(tmp_path)
    else:
        with failing(at, OSError(errno.ENOSPC, "No space left")), pytest.raises(storage.CannotCreate, match="is full"):
            storage.check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- Seals ------------------------------------------------------------------------------------------------------------


def test_every_flipped_bit_of_a_sealed_table_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path, content = tmp_path / "a.json", {"name": "ü", "sizes": [1, 2.5, float("nan")], "more": {"b": True, "a": None}}
    storage.write_sealed(path, content)
    good, meant = path.read_bytes(), storage.read_sealed(path)
    assert meant == {"name": "ü", "sizes": [1, 2.5, None], "more": {"b": True, "a": None}}
    noticed = 0
    for position, bit in itertools.product(range(len(good)), range(8)):
        bad = bytearray(good)
        bad[position] ^= 1 << bit
        path.write_bytes(bad)
        try:
            read = storage.read_sealed(path)
        except Damaged:
            noticed += 1
        else:
            assert read == meant or set(read) - set(meant), f"bit {bit} of byte {position} changed the meaning"
    assert noticed > 4 * len(good)


def test_a_seal_does_not_depend_on_layout_and_a_table_without_one_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    storage.write_sealed(path, {"b": 1, "a": [1, 2]})
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_bytes()).items()))))
    assert storage.read_sealed(path) == {"a": [1, 2], "b": 1}
    path.write_text('{"a": 1}')
    assert storage.read_sealed(path) == {"a": 1}
    path.write_text("[1]")
    with pytest.raises(Damaged, match="not a table"):
        storage.read_sealed(path)


# --- What cannot be read is not damaged -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("name", [*FILES, "MANIFEST.json"])
def test_an_error_of_reading_is_no_damage(
    tmp_path: Path, name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "step"
    storage.commit_folder(folder, FILES)
    read = regular.content

    def failing_read(path: Path) -> bytes:
        if path.name == name:
            raise OSError(number, os.strerror(number), str(path))
        return read(path)

    monkeypatch.setattr(regular, "content", failing_read)
    with pytest.raises(storage.StorageError, match=f"cannot read .*{name}: .*nothing was changed"):
        storage.damage_in(folder, FILES)


def test_a_newer_format_is_no_damage(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    storage.commit_folder(folder, FILES)
    manifest = storage.read_sealed(folder / "MANIFEST.json")
    storage.write_sealed(folder / "MANIFEST.json", {**manifest, "format": 3})
    with pytest.raises(storage.Newer, match="format 3, and this barlow reads up to 2: upgrade it"):
        storage.damage_in(folder, FILES)


def test_folders_committed_by_the_first_release_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    storage.commit_folder(folder, FILES)
    manifest = storage.read_sealed(folder / "MANIFEST.json")
    storage.write_json(folder / "MANIFEST.json", {**manifest, "format": 1})  # without a seal
    assert storage.damage_in(folder, FILES) is None


def test_a_manifest_that_does_not_name_what_must_be_there_is_damage(tmp_path: Path) -> None:
    storage.commit_folder(tmp_path / "step", {})
    assert storage.damage_in(tmp_path / "step", ("state.json",)) == "the manifest does not name state.json"
