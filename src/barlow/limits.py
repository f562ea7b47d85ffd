"""Limits of what a file may ask for, held before memory is taken.

A run, a recipe or an encoder may come from a stranger. Reading one starts no program (the rule "No code from files" of
docs/architecture.md). What is left to an attacker is to ask for more memory or time than there is. So a text is
measured before it is read; what YAML's aliases would expand to is counted before anything walks through it; and a
safetensors file is compared with its own header, and with the network that it is for, before a tensor of it is read.
Of images, the limits of what a format lists are here; those of pixels and of decoding's memory are in
`barlow.data.decoded`.
"""

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from barlow.exits import UnusableData
from barlow.printable import one_line

TEXT_BYTES = 2**16
"""Of a recipe, or of an encoder's description: ten times as long as any that ships. YAML of this length is read in less
than a second."""

HUB_BYTES = 2**22
"""Of a `config.json` of timm's or transformers', which may have the names of all classes: ImageNet's 21,841 take 1.5
megabytes."""

DEPTH = 100
"""Of brackets inside brackets."""

SIDE = 2048
"""Of an encoder's input, in pixels."""

NODES = 50_000
"""Values in a recipe, its aliases expanded."""

STATE_BYTES, LIST_BYTES, LOG_BYTES = 2**24, 2**29, 2**29
"""Of a run's own files: of those that say what it is and how far (a run that was started ten thousand times has such a
run.json); of those with an entry for every image (images.json of 25 million images); and of its log."""

LENGTHS = {
    "run.json": STATE_BYTES,
    "state.json": STATE_BYTES,
    "MANIFEST.json": STATE_BYTES,
    "config.json": HUB_BYTES,
    "result.json": STATE_BYTES,
}
"""By the names of files. Other tables of JSON may have `LIST_BYTES`, and JSON lines `LOG_BYTES`."""

HEADER_BYTES = 2**23
"""Of a safetensors file's header: about 60,000 tensors. Large networks have some thousand."""

CHECKPOINT_TIMES, CHECKPOINT_ITEMS = 32, 10_000_000
"""Of a file of weights, over what it is for. The largest known: Barlow Twins' projector is six times its ResNet-50, and
the optimizer keeps as much again of both."""

CSV_BYTES = 2**27
"""Of a list of images: about two million."""

WORDS = 2**20
"""Of a vocabulary. English novels have some ten thousand different words, and all of Wikipedia some million that occur
more than a few times."""

LABELS = 2**31
"""Images times labels, where an image may have several: a byte each. A million images of two thousand labels."""

XML_BYTES = 2**22
"""Of the annotations of one image: about ten thousand objects."""

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
"""Of safetensors' types."""

NPY_HEADER_BYTES = 10_000
"""Of a NumPy array's header. NumPy has the same limit, and looks at it when the header is read."""

ZIP_INDEX_BYTES = 2**17
"""Of the list of an .npz archive's members, of which an image has one, and of the comment where it may be."""

TIFF_TAGS, TIFF_VALUES, TIFF_PARTS = 4_096, 2**20, 2**17
"""Of the first image of a TIFF: its tags, the values of all tags that are used, and its strips or tiles."""

TIFF_TIMES = 2
"""How often the strips or tiles of a TIFF, or its tags, may have the length of the file. Some writers let equal ones
share their bytes."""

TIFF_OPENED, TIFF_OPENED_BYTES = 2**13, 2**12
"""Of strips or tiles that libtiff undoes: each is opened by itself, which takes a tenth of a millisecond. There may be
so many, and one more for each so many bytes of the image."""

PNG_CHUNKS = 2**16
"""Of a PNG. A large one whose writer makes small chunks, of 8 kB, has 12,000 in 100 MB."""

GIF_BLOCKS, GIF_BLOCK_BYTES = 2**16, 128
"""Of a GIF up to its second image. There may be so many, and one more for each so many bytes of the file. Writers fill
a block with 255 bytes."""


class TooLarge(UnusableData):
    """A file asks for more than a limit allows; one line says which file, how much, and the limit."""


def check_length(path: Path) -> None:
    """Refuses a file of JSON that is longer than any of its name.

    Raises:
        TooLarge: it is.
        UnusableData: it is no regular file. (A pipe could be waited for without end.)
        FileNotFoundError: there is none.
    """
    there = path.stat()
    if not stat.S_ISREG(there.st_mode):
        raise UnusableData(f"{path} is not a file")
    most = LENGTHS.get(path.name, LOG_BYTES if path.suffix == ".jsonl" else LIST_BYTES)
    if there.st_size > most:
        raise TooLarge(f"{path} has {there.st_size:,} bytes, and such a file at most {most:,}: it is something else")


def check_text(path: Path, what: str) -> None:
    """Refuses a text file that is too long to be what it should be.

    Args:
        path: the file.
        what: what it should be, for the message.

    Raises:
        TooLarge: it is longer than `TEXT_BYTES`.
        ValueError: it is no regular file.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file: give {what}")
    if (size := path.stat().st_size) > TEXT_BYTES:
        raise TooLarge(f"{path} has {size:,} bytes, and {what} at most {TEXT_BYTES:,}: it is something else")


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, which may be a stranger's.

    Raises:
        TooLarge: it is too long, nested too deeply, or has aliases that expand to too much.
        ValueError: it is not YAML, or not UTF-8.
    """
    import yaml

    check_text(path, "a recipe")
    try:
        text = path.read_text(encoding="utf-8")
        if _depth(text) > DEPTH:  # found by the parser too, but slowly
            raise RecursionError
        content = yaml.safe_load(text)
        expanded = _expanded(content)  # which follows chains of aliases, as deep as they go
    except RecursionError as error:
        raise TooLarge(f"{path} is nested too deeply for a recipe") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is not valid YAML ({one_line(error)}); it may be damaged") from error
    if expanded > NODES:
        raise TooLarge(f"{path} has aliases that expand to more than {NODES:,} values: a recipe needs none")
    return content


def _depth(text: str) -> int:
    """How deeply the brackets of a text are nested."""
    steps = (1 if c in "[{" else -1 for c in text if c in "[{]}")
    return max(accumulate(steps), default=0)


def _expanded(content: Any) -> float:
    """How many values there are when every alias stands for what it means: infinitely many where one means itself."""
    sizes: dict[int, float] = {}

    def size(value: Any) -> float:
        if not isinstance(value, dict | list | tuple | set):
            return 1
        if id(value) not in sizes:
            sizes[id(value)] = math.inf  # of a value that is met again inside itself
            inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(map(size, inner))
        return sizes[id(value)]

    return size(content)


@dataclass(frozen=True)
class Entry:
    """What a safetensors header says of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def items(self) -> int:
        return math.prod(self.shape)


def tensors_in(path: Path) -> Mapping[str, Entry]:
    """The names and shapes of the tensors of a safetensors file. Only its header is read.

    Raises:
        UnusableData: it is no safetensors file, or its length is not what its header says.
        TooLarge: its header is too long.
    """
    try:
        if not path.is_file():  # a pipe could be waited for without end
            raise ValueError("it is not a file")
        with open(path, "rb") as file:
            there = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if length > HEADER_BYTES and length <= there:
                raise TooLarge(f"{path} has a header of {length:,} bytes; {HEADER_BYTES:,} are allowed")
            header = json.loads(file.read(length) if length <= there else b"")
        found: dict[str, Entry] = {}
        size = 8 + length
        header.pop("__metadata__", None)
        for name, entry in header.items():
            tensor = Entry(tuple(map(int, entry["shape"])), entry["dtype"])
            if min(tensor.shape, default=0) < 0:
                raise ValueError(f"{name} has the shape {list(tensor.shape)}")
            found[name] = tensor
            size += tensor.items * ITEM_BYTES[tensor.dtype]
        if size != there:
            raise ValueError(f"its header stands for {size:,} bytes, and it has {there:,}")
    except TooLarge:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise UnusableData(f"{path} is not a valid safetensors file ({one_line(error)}); it may be damaged") from error
    return found


def check_tensors(path: Path, items: int, what: str) -> Mapping[str, Entry]:
    """Refuses a file of weights that is far larger than what it is for.

    A full checkpoint may be larger than its encoder: projectors and an optimizer's state are several times as large.

    Args:
        path: a safetensors file.
        items: how many numbers it is for.
        what: what it is for, for the message.

    Raises:
        TooLarge: it holds more than `CHECKPOINT_TIMES` as many, and more than `CHECKPOINT_ITEMS` besides.
        UnusableData: it is no safetensors file.
    """
    found = tensors_in(path)
    check_items(path, found, items, what)
    return found


def check_items(path: Path, found: Mapping[str, Entry], items: int, what: str) -> None:
    """The same of what is already known to be in a file."""
    there = sum(tensor.items for tensor in found.values())
    if there > items_allowed(items):
        raise TooLarge(f"{path} holds {there:,} numbers, and {what} has {items:,}: give the file of its weights alone")


def items_allowed(items: int) -> int:
    """How many numbers a file may hold that is for so many."""
    return CHECKPOINT_TIMES * items + CHECKPOINT_ITEMS
