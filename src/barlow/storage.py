"""Every file barlow writes: beside its place, synced, renamed. A reader sees the old file or the new one, whole.

A checkpoint is a directory committed by one rename, with a manifest (size and SHA-256 of every file) that is read back
before the rename and checked again before anything is loaded. Tensors are safetensors, the rest JSON or YAML: opening a
run never runs code.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MANIFEST = "MANIFEST.json"


class StorageError(OSError):
    """A file could not be written; says which, and why, in one line."""


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
        raise _explained(error, path) from error
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Puts `data` at `path` atomically and durably."""
    path = Path(path)
    make_folder(path.parent)
    beside = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        _write_synced(beside, data)
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise _explained(error, path) from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text; file names that are not UTF-8 keep their bytes (surrogateescape)."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_json(path: Path, content: Any) -> None:
    """Writes JSON with an indent of two, keys in the order given. Not-a-number becomes null: JSON has no other."""
    write_bytes(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """JSON as bytes; non-ASCII is escaped, so that any file name survives."""
    return (json.dumps(_finite(content), indent=2) + "\n").encode()


def _finite(content: Any) -> Any:
    if isinstance(content, float) and (content != content or content in (float("inf"), float("-inf"))):
        return None
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def read_json(path: Path) -> Any:
    """Reads JSON; a broken file is a ValueError that names it."""
    try:
        return json.loads(Path(path).read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); it may be damaged") from error


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
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(Path(path).read_bytes())
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is not a valid safetensors file ({error}); it may be damaged") from error


def write_png(path: Path, picture: "np.ndarray") -> None:
    """Writes an (h, w, 3) uint8 picture."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Appends one JSON line. Not synced: a log line is worth less than a step."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(content)) + "\n")
    except OSError as error:
        raise _explained(error, path) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads JSON lines; a last line cut short by a crash is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces a file of JSON lines."""
    write_text(path, "".join(json.dumps(_finite(row)) + "\n" for row in rows))


def commit_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Puts a folder with these files at `path` by one rename, after reading every byte back.

    Raises:
        StorageError: it could not be written; nothing is left behind.
        FileExistsError: `path` exists: a committed folder is never overwritten.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; a committed folder is never overwritten")
    make_folder(path.parent)
    beside = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex[:8]}")
    manifest = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    try:
        beside.mkdir()
        for name, data in files.items():
            _write_synced(beside / name, data)
        _write_synced(beside / MANIFEST, json_bytes({"format": 1, "files": manifest}))
        _sync_folder(beside)
        damage = damage_in(beside)
        if damage:
            raise StorageError(f"cannot write {path}: read back differently ({damage}); the disk may be failing")
        os.rename(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise error if isinstance(error, StorageError) else _explained(error, path) from error


def damage_in(path: Path) -> str | None:
    """What is wrong with a committed folder, in a few words; None if every byte is as it was written."""
    try:
        manifest = read_json(path / MANIFEST)
        files = manifest["files"]
        if manifest["format"] != 1:
            return f"format {manifest['format']} is not known to this version of barlow"
        for name, expected in files.items():
            if os.sep in name or name.startswith("."):
                return f"the manifest names {name!r}, which is outside the folder"
            data = (path / name).read_bytes()
            if len(data) != expected["bytes"] or hashlib.sha256(data).hexdigest() != expected["sha256"]:
                return f"{name} differs from its manifest"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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


def remove_leftovers(folder: Path) -> None:
    """Removes our own unfinished folders and files from a crash."""
    if not folder.is_dir():
        return
    for leftover in (*folder.glob(".tmp-*"), *folder.glob(".*.tmp-*")):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
