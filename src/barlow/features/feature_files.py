"""Features of any number of images on a disk: parts while they are computed, one file in the end.

A part has the features of a few hundred consecutive images and is written whole or not at all. So a command that is
killed goes on with the parts that are missing, several processes share the parts, and no more than a few parts are ever
held in memory. The final file is written from the parts in their order; it does not depend on who computed which of
them, and when.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from barlow import exits, ownership, storage
from barlow.data.sources import ImageSource
from barlow.features.feature_places import COLUMNS, companions, index_path
from barlow.output_file import csv_line
from barlow.printable import printable
from barlow.seals import Damaged, sealed_tensors

FORMAT = 1
PART = 512
"""Images in a part, about: a multiple of the batch. Seconds of work are lost when a command is killed, or minutes of
the largest networks on a processor."""

ROW_GROUP = 8_192
"""Rows of a Parquet file that are read together."""

TYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Part:
    """Some consecutive images.

    Args:
        ids: of those that could be read.
        features: (n, width), float16 or float32.
        skipped: id and reason of those that could not.
    """

    ids: np.ndarray
    features: Tensor
    skipped: list[tuple[int, str]]


@dataclass(frozen=True)
class Parts:
    """The folder in which features are collected, `FILE.parts` beside the file that they are for.

    Args:
        folder: it belongs to the command alone.
        about: all that the features follow from; another encoder's or another set's parts are never taken.
        count: of the images, readable or not.
        size: images in a part.
    """

    folder: Path
    about: dict[str, Any]
    count: int
    size: int

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def ids(self, part: int) -> range:
        """The images of a part."""
        return range(part * self.size, min(self.count, (part + 1) * self.size))

    def check_ours(self) -> None:
        """Refuses a folder of this name that somebody else has made, before anything is written to it.

        Raises:
            UnusableData: it holds something that is not barlow's, or is a link or a file.
        """
        if not os.path.lexists(self.folder):
            return
        if self.folder.is_symlink() or not self.folder.is_dir():
            what = "a link, which is not followed" if self.folder.is_symlink() else "no folder"
            raise exits.UnusableData(f"{printable(self.folder)} is {what}: remove it, or use another --out")
        if any(not _is_ours(entry.name) for entry in self.folder.iterdir()):
            raise exits.UnusableData(f"{self.folder} is there and not barlow's: remove it, or use another --out")

    def prepare(self) -> list[int]:
        """Makes the folder, or goes on with the one that is there.

        Returns:
            The parts that are missing.

        Raises:
            UnusableData: the folder is of another encoder, or of other images.
        """
        path = self.folder / "about.json"
        if not path.exists():
            storage.write_sealed(path, self.about)
        before = storage.read_sealed(path)
        if differing := [key for key, value in self.about.items() if before.get(key) != value]:
            which = differing[0].replace("_", " ")
            shown = f"({printable(str(before.get(differing[0])))[:60]}): give that again"
            if which.startswith("encoder"):  # what tells encoders apart is no name that could be given
                shown = (
                    "(one that a file builds needs the same weights each time: seed it or load them): give that again"
                )
            raise exits.UnusableData(
                f"{self.folder} has features from before of another {which} {shown} to go on, or remove the folder, or "
                "use another --out"
            )
        for entry in self.folder.iterdir():
            if ownership.is_unfinished(entry.name) and _is_ours(entry.name):
                storage.remove_own(entry)
        return [part for part in range(len(self)) if not self.path(part).exists()]

    def path(self, part: int) -> Path:
        """Where a part is."""
        return self.folder / f"part-{part:08}.safetensors"

    def write(self, part: int, content: Part) -> None:
        """Puts a part into the folder, whole."""
        skipped = torch.frombuffer(bytearray(json.dumps(content.skipped).encode()), dtype=torch.uint8)
        tensors = {"features": content.features, "ids": torch.from_numpy(content.ids), "skipped": skipped}
        storage.write_tensors(self.path(part), sealed_tensors(tensors))

    def read(self, part: int) -> Part:
        """A part.

        Raises:
            Damaged: it is not what was written; it was removed, so that the same command computes it again.
        """
        try:
            tensors = storage.read_sealed_tensors(self.path(part))
        except Damaged as error:
            storage.remove_own(self.path(part))
            raise Damaged(f"{error}: it was removed, and the same command computes it again") from error
        skipped = json.loads(bytes(tensors["skipped"].tolist()))
        return Part(tensors["ids"].numpy(), tensors["features"], [(int(i), str(why)) for i, why in skipped])

    def remove(self) -> None:
        """Removes all of it, when the final file is there."""
        storage.remove_folder(self.folder)


def _is_ours(name: str) -> bool:
    plain = name.lstrip(".")
    return plain.startswith((".lock", "lock", "about.json", "part-"))


@dataclass(frozen=True)
class Written:
    """What the final file has."""

    rows: int
    skipped: list[dict[str, Any]]


def write(path: Path, parts: Parts, source: ImageSource, width: int) -> Written:
    """Writes the final file from the parts: Parquet, or by the name's ending `.npy` with an index beside it.

    Raises:
        UnusableData: no image could be read, so there is nothing to write.
    """
    if not any(len(parts.read(number).ids) for number in range(len(parts))):  # mostly the first of them has some
        raise exits.UnusableData(f"none of {len(source)} images of {source.name} can be read: {path} would be empty")
    skipped: list[dict[str, Any]] = []
    rows = 0

    def read() -> Iterator[Part]:
        nonlocal rows
        for number in range(len(parts)):
            part = parts.read(number)
            rows += len(part.ids)
            skipped.extend(
                {"id": i, "where": stored_text(source.locate(i)), "reason": printable(why)} for i, why in part.skipped
            )
            yield part

    if path.suffix == ".npy":
        _write_npy(path, read, parts, source, width)
    else:
        _write_parquet(path, read(), parts, source, width)
    return Written(rows, skipped)


def remove_leftovers(path: Path) -> None:
    """Removes what a command that was killed had not finished of the final file. The caller holds the parts' lock."""
    ours = tuple(f".{each.name}.tmp-" for each in (path, *companions(path)))
    for entry in path.parent.iterdir():
        if entry.name.startswith(ours) and ownership.is_unfinished(entry.name):
            storage.remove_own(entry)


def stored_text(text: str) -> str:
    """A path or name as a file of features has it: as it is, so that a program can open what it names.

    A name that is not UTF-8 cannot be in these files. It has the escaped form that people are shown.

    Example:
        >>> stored_text("two\\nlines.png"), stored_text("caf\\udce9.png")
        ('two\\nlines.png', 'caf\\\\udce9.png')
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return printable(text)
    return text


def label_of(source: ImageSource) -> Any:
    """A function from an id to the name of its class; to a list of names where an image may have several; or None."""
    labels, classes = source.labels, source.classes
    if labels is None or classes is None:
        return None
    if labels.ndim == 1:
        return lambda i: stored_text(classes[int(labels[i])])
    return lambda i: [stored_text(classes[k]) for k in np.flatnonzero(labels[i])]


def check_installed(path: Path) -> None:
    """Says what is missing for a file of this name, before any image is read.

    Raises:
        ValueError: pyarrow is not installed, or the name has another ending.
    """
    if path.suffix == ".npy":
        return
    if path.suffix != ".parquet":
        raise ValueError(f"--out {path}: give a name that ends in .parquet or .npy")
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"--out {path} is written by pyarrow, which is not installed: pip install 'barlow[embed]', or give a name "
            "that ends in .npy"
        ) from error


def _write_parquet(path: Path, read: Iterator[Part], parts: Parts, source: ImageSource, width: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    label = label_of(source)
    kind = pa.float16() if parts.about["dtype"] == "float16" else pa.float32()
    several = label is not None and source.labels is not None and source.labels.ndim > 1
    of_label = [pa.field("label", pa.list_(pa.string()) if several else pa.string())] if label is not None else []
    schema = pa.schema(
        [
            pa.field("id", pa.int64()),
            pa.field("path", pa.string()),
            *of_label,
            pa.field("vector", pa.list_(kind, width)),
        ],
        metadata={"barlow": json.dumps(parts.about, sort_keys=True)},
    )
    # Vectors do not repeat: a dictionary of them would cost time and space.
    dictionary = [field.name for field in of_label if not several]
    with (
        storage.streamed(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=dictionary) as writer,
    ):
        for ids, features in _in_groups(read, ROW_GROUP):
            columns = [
                pa.array(ids, pa.int64()),
                pa.array([stored_text(source.locate(int(i))) for i in ids], pa.string()),
                *(pa.array([label(int(i)) for i in ids], field.type) for field in of_label),
                pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1), kind), width),
            ]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=ROW_GROUP)


def _in_groups(read: Iterator[Part], rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and features of so many images at a time, and of the rest."""
    held: list[Part] = []
    for part in read:
        held.append(part)
        if sum(len(each.ids) for each in held) < rows:
            continue
        ids, features = _together(held)
        while len(ids) >= rows:
            yield ids[:rows], features[:rows]
            ids, features = ids[rows:], features[rows:]
        held = [Part(ids, torch.from_numpy(features), [])]
    if held and sum(len(each.ids) for each in held):
        yield _together(held)


def _together(held: Sequence[Part]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([each.ids for each in held]), torch.cat([each.features for each in held]).numpy()


def _write_npy(path: Path, read: Any, parts: Parts, source: ImageSource, width: int) -> None:
    """The matrix, and `NAME.csv` with a line for each of its rows. The matrix comes last: then all is there."""
    label = label_of(source)
    count = 0
    with storage.streamed(index_path(path)) as file:
        _row(file, COLUMNS)
        for part in read():
            count += len(part.ids)
            for i in map(int, part.ids):
                name = "" if label is None else label(i)
                _row(file, [i, stored_text(source.locate(i)), name if isinstance(name, str) else "|".join(name)])
    with storage.streamed(path) as file:
        kind = np.dtype(parts.about["dtype"]).newbyteorder("<")
        header = {"descr": kind.str, "fortran_order": False, "shape": (count, width)}
        np.lib.format.write_array_header_1_0(file, header)
        for number in range(len(parts)):
            file.write(np.ascontiguousarray(parts.read(number).features.numpy(), kind).tobytes())


def _row(file: BinaryIO, cells: Sequence[object]) -> None:
    file.write(csv_line(cells).encode())


def as_about(**content: Any) -> Mapping[str, Any]:
    """What parts follow from, as JSON gives it back."""
    found: Mapping[str, Any] = json.loads(json.dumps({"format": FORMAT, **content}))
    return found
