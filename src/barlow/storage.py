"""Every file barlow writes: beside its place, synced, renamed. A reader sees the old file or the new one, whole.

A checkpoint is a directory committed by one rename, with a manifest (size and SHA-256 of every file) that is read back
before the rename and checked again before anything is loaded. Tensors are safetensors, the rest JSON or YAML: opening a
run never runs code.

What means something carries its own SHA-256 (`seals.py`). What
cannot be read is not called damaged. Only bytes that are there, and are not those that were written, are.

Long because no other file may write, and the ways in which a file, a stream and a folder get their names belong side by
side.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from barlow import exits, limits, regular
from barlow.seals import SEAL, Damaged, finite, sealed, sha256, unsealed, unsealed_tensors

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "MANIFEST.json"
MANIFEST_FORMAT = 2
"""2 came with the manifest's own seal."""


class StorageError(OSError):
    """A file could not be written or read; says which, and why, in one line."""


class CannotCreate(StorageError):
    """The place where results should go cannot be made or written to."""

    exit_code = exits.CANNOT_CREATE


class Newer(exits.UnusableData):
    """A newer barlow wrote it, whole, in a form that this one does not know."""


def _unread(error: OSError, path: Path) -> StorageError:
    return StorageError(f"cannot read {path}: {error.strerror or error}; nothing was changed")


def _explained(error: OSError, path: Path) -> StorageError:
    reason = {
        errno.ENOSPC: "the disk is full; free some space, or choose another --out",
        errno.EDQUOT: "your disk quota is used up; free some space, or choose another --out",
        errno.EACCES: "permission denied; choose an --out you may write to",
        errno.EPERM: "permission denied; choose an --out you may write to",
        errno.EROFS: "the file system is read-only; choose an --out you may write to",
        errno.ENOTDIR: "a file is in the way where a folder is needed; choose another --out",
        errno.EEXIST: "a file is in the way where a folder is needed; choose another --out",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter --out",
        errno.ELOOP: "it is a link, which is not followed; put the file itself in its place",
    }.get(error.errno or 0, error.strerror or str(error))
    return StorageError(f"cannot write {path}: {reason}")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder to sync it; a rename there is durable on its own
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_folder(path: Path) -> Path:
    """Makes a folder and its parents; an existing one is fine."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotCreate(*_explained(error, path).args) from error
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Puts `data` at `path` atomically and durably."""
    path = Path(path)
    make_folder(path.parent)
    beside = _beside(path)
    try:
        _write_synced(beside, data)
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise _explained(error, path) from error


def _beside(path: Path) -> Path:
    """Where a file is written before it gets its name; `ownership.is_unfinished` knows it."""
    return path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")


def check_writable(folder: Path) -> None:
    """Tries whether files can be written in a folder: known before hours of work, and not after.

    Raises:
        CannotCreate: they cannot.
    """
    trial = _beside(folder / ".write-test")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(folder / ("x" * 100))  # longer than any name below a run folder
        _write_synced(trial, b"barlow")  # not empty, so that a full disk is noticed
        trial.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            trial.unlink(missing_ok=True)
        raise CannotCreate(*_explained(error, folder).args) from error


def open_in_place(path: Path) -> BinaryIO:
    """Opens a file for reading and writing, as it is; makes it if there is none. An error is `CannotCreate`.

    A link is refused, and what is no regular file.
    """
    try:
        return open(path, "r+b", buffering=0, opener=regular.in_place)
    except OSError as error:
        raise CannotCreate(*_explained(error, path).args) from error


def write_over(file: BinaryIO, data: bytes) -> None:
    """Replaces the content of a file that `open_in_place` has opened. At no moment is it empty if it was not before."""
    try:
        file.seek(0)
        file.write(data)
        file.truncate()
    except OSError as error:
        raise _explained(error, Path(file.name)) from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text; file names that are not UTF-8 keep their bytes (surrogateescape)."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_json(path: Path, content: Any) -> None:
    """Writes JSON with an indent of two, keys in the order given. Not-a-number becomes null: JSON has no other."""
    write_bytes(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """JSON as bytes; non-ASCII is escaped, so that any file name survives."""
    return (json.dumps(finite(content), indent=2) + "\n").encode()


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: there is none.
        StorageError: it is there and cannot be read.
        UnusableData: it is a folder, a pipe or a device.
    """
    try:
        return regular.content(Path(path))
    except FileNotFoundError:
        raise
    except regular.NotRegular as error:
        raise exits.UnusableData(f"{path} is not a file") from error
    except OSError as error:
        raise _unread(error, path) from error


def _read_text(path: Path) -> bytes:
    """The content of a file of JSON, unless it is far too long to be one (`limits.TooLarge`)."""
    try:
        limits.check_length(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unread(error, path) from error
    return read_bytes(path)


def read_json(path: Path) -> Any:
    """Reads JSON; a broken file is an error that names it."""
    text = _read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is not valid JSON ({error}); it may be damaged") from error


def free_bytes(folder: Path) -> int | None:
    """How much space is left where a folder is; None where the system does not say."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a table as JSON with its seal."""
    write_json(path, sealed(content))


def read_sealed(path: Path) -> dict[str, Any]:
    """Reads a table and checks its seal. One without a seal is taken as it is: older versions wrote none.

    Raises:
        Damaged: it is no table of JSON, or not the one that was written.
    """
    return unsealed(read_json(path), path)


def tensors_bytes(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] | None = None) -> bytes:
    """Tensors as the bytes of a safetensors file."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(plain, metadata=dict(metadata or {}))


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file."""
    write_bytes(path, tensors_bytes(tensors, metadata))


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Reads a safetensors file whole (never mapped: the file may be replaced while we hold it)."""
    return tensors_of(read_bytes(path), path)


def tensors_of(data: bytes, path: Path) -> "dict[str, Tensor]":
    """The tensors of a safetensors file's content; `path` is what a message calls it."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError) as error:
        raise Damaged(f"{path} is not a valid safetensors file ({error}); it may be damaged") from error


def read_sealed_tensors(path: Path) -> "dict[str, Tensor]":
    """Reads tensors that were sealed, and checks that they are those."""
    return unsealed_tensors(read_tensors(path), path)


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Appends one JSON line. Where the last one was cut short, by a full disk say, it begins on a line of its own."""
    append_bytes(path, json.dumps(finite(content)).encode() + b"\n", as_line=True)


def append_bytes(path: Path, data: bytes, *, as_line: bool = False) -> None:
    """Appends to a file, which is made where it is missing. Not synced: a log is worth less than a step."""
    try:
        with open(path, "a+b", opener=regular.in_place) as file:
            cut = as_line and file.seek(0, os.SEEK_END) > 0 and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
            file.write(b"\n" * cut + data)
    except OSError as error:
        raise _explained(error, path) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads JSON lines, without their seals. What is no table of JSON, or not what was sealed, is left out: a line cut
    short by a crash, a damaged one."""
    return [row for row in map(_row, _lines(path)) if row is not None]


def _lines(path: Path) -> list[bytes]:
    try:
        return _read_text(path).split(b"\n")
    except FileNotFoundError:
        return []


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        return unsealed(json.loads(line), "a line")
    except (ValueError, RecursionError):  # `Damaged` is a ValueError
        return None


def bad_lines(path: Path) -> list[bytes]:
    """The lines that `read_lines` leaves out, apart from empty ones."""
    return [line for line in _lines(path) if line.strip() and _row(line) is None]


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces a file of JSON lines."""
    write_text(path, "".join(json.dumps(finite(row)) + "\n" for row in rows))


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A folder to be filled, which gets its name when the body is through: it appears whole, or not at all.

    Raises:
        FileExistsError: `path` exists, before the body or after it.
        StorageError: it could not be made, or could not get its name. Nothing is left behind, as when the body fails.
    """
    path = Path(path)
    taken = f"{path} exists; a committed folder is never overwritten"
    if path.exists():
        raise FileExistsError(taken)
    make_folder(path.parent)
    beside = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        try:
            beside.mkdir()
        except OSError as error:
            raise _explained(error, path) from error
        yield beside
        if path.exists():
            raise FileExistsError(taken)
        try:
            os.rename(beside, path)
            _sync_folder(path.parent)
        except OSError as error:
            raise _explained(error, path) from error
    except (Exception, KeyboardInterrupt):
        shutil.rmtree(beside, ignore_errors=True)
        raise


def commit_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Puts a folder with these files at `path` by one rename, after reading every byte back.

    Raises:
        StorageError: it could not be written; nothing is left behind.
        FileExistsError: `path` exists: a committed folder is never overwritten.
    """
    manifest = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    with appearing(path) as beside:
        try:
            for name, data in files.items():
                _write_synced(beside / name, data)
            _write_synced(beside / MANIFEST, json_bytes(sealed({"format": MANIFEST_FORMAT, "files": manifest})))
            _sync_folder(beside)
            damage = damage_in(beside, files)
        except OSError as error:
            raise error if isinstance(error, StorageError) else _explained(error, path) from error
        if damage:
            raise StorageError(f"cannot write {path}: read back differently ({damage}); the disk may be failing")


@contextlib.contextmanager
def streamed(path: Path) -> Iterator[BinaryIO]:
    """A file to be written piece by piece, which gets its name, whole and synced, when the body is through.

    Raises:
        StorageError: it could not be written. Nothing is left behind, as when the body fails.
    """
    path = Path(path)
    make_folder(path.parent)
    beside = _beside(path)
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_folder(path.parent)
    except (Exception, KeyboardInterrupt) as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise _explained(error, path) from error
        raise


LARGE_BYTES = 2**25
"""Of a file in a committed folder that is looked at before all of it is read."""


def damage_in(path: Path, names: Iterable[str], look: Callable[[Path], str | None] | None = None) -> str | None:
    """What is wrong with a committed folder, in a few words; None if every byte is as it was written.

    Args:
        path: the folder.
        names: the files that it must have; its manifest names these and no others.
        look: called with each file that is longer than `LARGE_BYTES`, when all smaller ones are known to be whole; says
            what is wrong with it, or raises, before its bytes are read.

    Raises:
        StorageError: a file is there and cannot be read, which says nothing about its bytes.
        UnusableData: a newer barlow wrote the folder (`Newer`); or what `look` raises.
    """
    try:
        content = read_json(path / MANIFEST)
        manifest = unsealed(content, path / MANIFEST)
        form = manifest["format"]
        if form > MANIFEST_FORMAT:
            raise Newer(f"{path} has format {form}, and this barlow reads up to {MANIFEST_FORMAT}: upgrade it")
        files = manifest["files"]
        if form == MANIFEST_FORMAT and SEAL not in content:
            return "its manifest has no seal"
        if missing := sorted(set(names) - files.keys()):
            return f"the manifest does not name {missing[0]}"
        if extra := sorted(files.keys() - set(names)):  # before anything that a stranger names is read
            return f"the manifest names {extra[0]!r}, which is none of its files"
        for name, expected in sorted(files.items(), key=lambda item: int(item[1]["bytes"])):
            differs = f"{name} differs from its manifest"
            if (path / name).stat().st_size != expected["bytes"]:
                return differs
            if look is not None and expected["bytes"] > LARGE_BYTES and (wrong := look(path / name)):
                return wrong
            if sha256(read_bytes(path / name)) != expected["sha256"]:
                return differs
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, exits.UnusableData) and not isinstance(error, Damaged):
            raise  # it is whole, and newer, too large, or of something that is not known here
        return f"its manifest cannot be read ({error})"
    return None


def remove_folder(path: Path) -> None:
    """Removes a folder that barlow wrote: renamed away first, so that no half of it keeps its name."""
    away = path.with_name(f".tmp-removed-{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        os.rename(path, away)
    except OSError as error:
        raise _explained(error, path) from error
    shutil.rmtree(away, ignore_errors=True)


def remove_own(path: Path) -> None:
    """Removes a file, or an empty folder; a folder that is not empty stays."""
    try:
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise _explained(error, path) from error
