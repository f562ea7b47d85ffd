"""A file of weights, as far as it can be known before a number of it is read: names, shapes, and what else lies there.

Two forms are read. A safetensors file says in its header what it holds. A file of `torch.save` (.pth, .pt, .ckpt,
.pth.tar, .bin, .torch) is a pickle, which is a program; `barlow.nets.pickle_format` tells what it would make, without
running it, in a process of its own. Which of the two a file is, its first bytes decide, not its name.
"""

import json
import math
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from barlow import limits, regular, storage
from barlow.exits import UnusableData
from barlow.limits import ITEM_BYTES, Entry
from barlow.nets import pickle_format
from barlow.printable import printable
from barlow.seals import Damaged, sha256

Tensors = dict[str, Tensor]

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "F16": torch.float16,
    "BF16": torch.bfloat16, "I32": torch.int32, "F32": torch.float32, "I64": torch.int64, "F64": torch.float64,
}  # fmt: skip
"""torch's types by safetensors' names of them."""

SECONDS = 60.0
"""That the describing process may take. It limits itself to less of the processor; a disk may be slow."""

START = 512
"""How many bytes from a file's beginning show what it is."""


@dataclass(frozen=True)
class Stored(Entry):
    """A tensor in a file: shape, type, and where its numbers are.

    Args:
        key: of the storage that it is a view of; in a safetensors file its name.
        offset: of its first number in that storage.
        stride: as torch's; None where the numbers lie in order.
    """

    key: str = ""
    offset: int = 0
    stride: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Other:
    """What a file has in the place of a tensor, in a word: "int", "argparse.Namespace"."""

    what: str


Tree = dict[str, Any]
"""Names to `Stored`, `Other`, `str` or another tree."""


@dataclass(frozen=True)
class WeightFile:
    """A file of weights.

    Args:
        path: where it is.
        tree: what is in it.
        reading: see `read`.
    """

    path: Path
    tree: Tree
    reading: Callable[[Mapping[str, Stored], int, str], Tensors]

    def read(self, wanted: Mapping[str, Stored], most: int, what: str) -> Tensors:
        """The numbers of some of its tensors.

        Args:
            wanted: the tensors, under the names that they are to have.
            most: how many numbers may be read for them.
            what: what they are for, for the message.

        Raises:
            limits.TooLarge: it would be more. A small tensor may be a view of gigabytes.
            UnusableData: it is damaged, or another file by now.
        """
        return self.reading(wanted, most, what)


def open_weights(path: Path, digest: str | None = None) -> WeightFile:
    """Looks into a file of weights.

    Args:
        path: of any name.
        digest: that its description names, if it has one. It is compared when tensors are read.

    Raises:
        UnusableData: it is no file of weights, or a damaged one; one line says what it is.
        limits.TooLarge: it asks for too much.
    """
    try:
        with open(path, "rb", opener=regular.to_read) as file:
            start, size = file.read(START), os.fstat(file.fileno()).st_size
    except regular.NotRegular as error:
        raise UnusableData(f"{path} is not a file") from error
    if wrong := _something_else(start):
        raise UnusableData(f"{path} is {wrong}")
    if start.startswith((b"PK", b"\x80")) and not _has_header(start, size):
        return _pickled(path)
    if path.suffix != ".safetensors" and not _has_header(start, size):
        raise UnusableData(
            f"{path} is not a file of weights: it is neither safetensors nor what torch.save writes, or its beginning "
            "is damaged"
        )
    found = {name: Stored(entry.shape, entry.dtype, name) for name, entry in limits.tensors_in(path).items()}
    return WeightFile(path, dict(found), lambda wanted, most, what: _from_safetensors(path, digest, wanted, most, what))


def _something_else(start: bytes) -> str | None:
    """What a file is that is no file of weights, where its first bytes tell; None where they do not."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start:
        return "empty: download or copy it again"
    if text.startswith(b"version https://git-lfs"):
        return "not a file of weights but a Git LFS pointer to it: run `git lfs pull`"
    if re.match(rb"<!doctype|<html|<head|<body|<\?xml", text, re.IGNORECASE):
        return "not a file of weights but an HTML page: download it again, servers send such in place of a file"
    if not start.strip(b"\0"):
        return "not a file of weights: it begins with zeros, as an unfinished download does"
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it, and give the file of weights in it"
    for magic, name in (
        (b"\x1f\x8b", "a gzip archive: unpack it, and give the file of weights in it"),
        (b"7z\xbc\xaf", "a 7z archive: unpack it, and give the file of weights in it"),
        (b"\x89HDF", "an HDF5 file, as Keras writes them: only torch's files and safetensors are read"),
        (b"\x93NUMPY", "a NumPy array: only torch's files and safetensors are read"),
        (b"\x89PNG", "an image"),
        (b"\xff\xd8\xff", "an image"),
        (b"%PDF", "a PDF"),
    ):
        if start.startswith(magic):
            return name
    if text.startswith((b"{", b"[")):
        return "JSON, not a file of weights; give the .safetensors or .bin file beside it"
    return None


def _has_header(start: bytes, size: int) -> bool:
    """Whether a file begins as safetensors does: with the length of a header in JSON."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8


def _check_size(path: Path, there: int, most: int, what: str) -> None:
    if there > most:
        raise limits.TooLarge(
            f"{path} holds {there:,} numbers, far more than {what} has: give the file of its weights alone"
        )


# --- safetensors --------------------------------------------------------------------------------------------------


def tensors_with_digest(file: Path, digest: str | None = None) -> Tensors:
    """The tensors of a safetensors file, if it has the digest that its description names. Older ones name none.

    Raises:
        Damaged: it has another.
    """
    data = storage.read_bytes(file)
    if digest is not None and sha256(data) != digest:
        raise Damaged(f"{file} is not the file that was written with its config.json: it is damaged, or of another run")
    return storage.tensors_of(data, file)


def _from_safetensors(path: Path, digest: str | None, wanted: Mapping[str, Stored], most: int, what: str) -> Tensors:
    _check_size(path, sum(entry.items for entry in limits.tensors_in(path).values()), most, what)
    there = tensors_with_digest(path, digest)
    return {name: there[entry.key] for name, entry in wanted.items()}


# --- Files of torch.save ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where the numbers of a storage are in a file, in bytes, and their CRC-32 if the file has one."""

    first: int
    length: int
    checksum: int | None


def _pickled(path: Path) -> WeightFile:
    with open(path, "rb", opener=regular.to_read) as file:
        seen = _version(file.fileno())
        # -I and -S: nothing of the user's, of this package or of any other is imported there.
        command = [sys.executable, "-I", "-S", os.fspath(pickle_format.__file__)]
        try:
            done = subprocess.run(command, stdin=file, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise limits.TooLarge(
                f"{path} cannot be read: it took longer than {SECONDS:.0f} s to tell what it holds"
            ) from error
    if done.returncode < 0:
        raise limits.TooLarge(f"{path} cannot be read: telling what it holds takes more time or memory than is allowed")
    try:
        told = json.loads(done.stdout)
    except ValueError as error:
        last = " ".join(done.stderr.decode(errors="replace").strip().splitlines()[-1:])
        raise UnusableData(f"{path} cannot be read: the process that reads it failed ({_short(last)})") from error
    if "wrong" in told:
        raise UnusableData(f"{path} cannot be read: {_short(told['wrong'])}")
    places = {key: _Place(*place) for key, place in told["places"].items()}
    root = _tree(told["root"])
    if not isinstance(root, dict):
        what = f"a whole {root.what}" if isinstance(root, Other) else "a single tensor"
        raise UnusableData(
            f"{path} holds {what}, not tensors by name: save those alone, torch.save(module.state_dict(), FILE)"
        )
    return WeightFile(path, root, lambda wanted, most, what: _from_storages(path, seen, places, wanted, most, what))


def _tree(told: Mapping[str, Any]) -> Any:
    """The tree that the process has told."""
    if "entries" in told:
        return {str(name): _tree(inner) for name, inner in told["entries"]}
    if "tensor" in told:
        dtype, shape, stride, key, offset = told["tensor"]
        return Stored(tuple(shape), dtype, key, offset, tuple(stride))
    return told["text"] if "text" in told else Other(_short(told["other"]))


def _short(text: str, limit: int = 200) -> str:
    """What a file says, fit for a message."""
    said = printable(" ".join(text.split()))
    return said if len(said) <= limit else said[: limit - 1] + "…"


def _version(handle: int) -> tuple[int, ...]:
    there = os.fstat(handle)
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns


def _from_storages(
    path: Path, seen: tuple[int, ...], places: Mapping[str, _Place], wanted: Mapping[str, Stored], most: int, what: str
) -> Tensors:
    """Tensors of a file, each in memory of its own."""
    found: Tensors = {}
    by_storage: dict[str, list[str]] = {}
    for name, entry in wanted.items():
        by_storage.setdefault(entry.key, []).append(name)
    lengths = {
        key: places[key].length // ITEM_BYTES[wanted[names[0]].dtype]
        for key, names in by_storage.items()
        if key in places
    }
    _check_size(path, sum(lengths.values()), most, what)
    with open(path, "rb", opener=regular.to_read) as file:
        if _version(file.fileno()) != seen:
            raise UnusableData(f"{path} changed while it was read: give it again when it is whole")
        for key, names in by_storage.items():
            place = places.get(key)
            if place is None:
                raise UnusableData(f"{path} is damaged: the numbers of {names[0]} are not in it; download it again")
            file.seek(place.first)
            content = bytearray(file.read(place.length))
            if len(content) < place.length:
                raise UnusableData(f"{path} is cut off: download or copy it again")
            if place.checksum is not None and zlib.crc32(content) != place.checksum:
                raise Damaged(f"{path} is damaged: the numbers of {names[0]} are not those that were written")
            for name in names:
                found[name] = _view(path, name, wanted[name], content)
    return found


def _view(path: Path, name: str, entry: Stored, content: bytearray) -> Tensor:
    """A tensor as its storage's bytes have it; a copy."""
    assert entry.stride is not None
    last = entry.offset + sum((side - 1) * step for side, step in zip(entry.shape, entry.stride, strict=True))
    there = len(content) // ITEM_BYTES[entry.dtype]
    if 0 in entry.shape:
        return torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
    if last >= there or math.prod(entry.shape) > there:
        raise UnusableData(f"{path} is damaged: {name} is larger than its numbers in it")
    # A storage may end with a part of a number, where a type is read from another's bytes.
    numbers = torch.frombuffer(content, dtype=DTYPES[entry.dtype], count=there)
    return numbers.as_strided(entry.shape, entry.stride, entry.offset).clone().contiguous()
