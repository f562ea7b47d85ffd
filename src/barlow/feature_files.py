"""Features of any number of images on a disk: parts while they are computed, one file in the end.

A part has the features of a few hundred consecutive images and is written whole or not at all. So a command that is
killed goes on with the parts that are missing, several processes share the parts, and no more than a few parts are ever
held in memory. The final file is written from the parts in their order; it does not depend on who computed which of
them, and when.
"""

import csv
import io
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
from barlow.printable import one_line, printable
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
            UnusableData: it holds something that is not barlow's.
        """
        if self.folder.exists() and any(not _is_ours(entry.name) for entry in self.folder.iterdir()):
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
            raise exits.UnusableData(
                f"{self.folder} has features from before of another {differing[0].replace('_', ' ')} "
                f"({printable(str(before.get(differing[0])))[:60]}): give that again to go on, or remove the folder, "
                "or use another --out"
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
                {"id": i, "where": printable(source.locate(i)), "reason": printable(why)} for i, why in part.skipped
            )
            yield part

    if path.suffix == ".npy":
        _write_npy(path, read, parts, source, width)
    else:
        _write_parquet(path, read(), parts, source, width)
    return Written(rows, skipped)


def remove_leftovers(path: Path) -> None:
    """Removes what a command that was killed had not finished of the final file. The caller holds the parts' lock."""
    ours = tuple(f".{each.name}.tmp-" for each in (path, path.with_suffix(".csv"), path.with_suffix(".skipped.json")))
    for entry in path.parent.iterdir():
        if entry.name.startswith(ours) and ownership.is_unfinished(entry.name):
            storage.remove_own(entry)


def label_of(source: ImageSource) -> Any:
    """A function from an id to the name of its class; to a list of names where an image may have several; or None."""
    labels, classes = source.labels, source.classes
    if labels is None or classes is None:
        return None
    if labels.ndim == 1:
        return lambda i: printable(classes[int(labels[i])])
    return lambda i: [printable(classes[k]) for k in np.flatnonzero(labels[i])]


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
                pa.array([printable(source.locate(int(i))) for i in ids], pa.string()),
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
    index = path.with_suffix(".csv")
    count = 0
    with storage.streamed(index) as file:
        _row(file, ["id", "path", "label"])
        for part in read():
            count += len(part.ids)
            for i in map(int, part.ids):
                name = "" if label is None else label(i)
                _row(file, [i, printable(source.locate(i)), name if isinstance(name, str) else "|".join(name)])
    with storage.streamed(path) as file:
        kind = np.dtype(parts.about["dtype"]).newbyteorder("<")
        header = {"descr": kind.str, "fortran_order": False, "shape": (count, width)}
        np.lib.format.write_array_header_1_0(file, header)
        for number in range(len(parts)):
            file.write(np.ascontiguousarray(parts.read(number).features.numpy(), kind).tobytes())


def _row(file: BinaryIO, cells: Sequence[object]) -> None:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    file.write(line.getvalue().encode())


def as_about(**content: Any) -> Mapping[str, Any]:
    """What parts follow from, as JSON gives it back."""
    found: Mapping[str, Any] = json.loads(json.dumps({"format": FORMAT, **content}))
    return found


@dataclass(frozen=True)
class Features:
    """What a file of features has, in memory.

    Args:
        ids: of the images, in their set.
        paths: where each is, below the folder that was embedded.
        vectors: (n, width) float32.
        encoder: what it says of the network that made them, its class and its tensors' digest; None of `.npy`.
        preprocessing: what that network expects of an image; None of `.npy`.
    """

    ids: np.ndarray
    paths: list[str]
    vectors: Tensor
    encoder: str | None
    preprocessing: Mapping[str, Any] | None

    def __len__(self) -> int:
        return len(self.paths)


def is_file(named: object) -> bool:
    """Whether a user who says this means a file of features."""
    return isinstance(named, str | os.PathLike) and Path(named).suffix in (".parquet", ".npy") and Path(named).is_file()


def read(path: Path) -> Features:
    """Reads all of a file that `write` has made.

    Raises:
        Damaged: it is something else, or its index does not fit it.
        ValueError: pyarrow is not installed.
    """
    try:
        found = _read_parquet(path) if path.suffix == ".parquet" else _read_npy(path)
    except (OSError, EOFError, KeyError, TypeError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise Damaged(f"{printable(path)} is no file that barlow embed has written ({one_line(error)})") from error
    if not bool(torch.isfinite(found.vectors).all()):
        raise Damaged(f"{printable(path)} has vectors that are not finite")
    return found


def _read_parquet(path: Path) -> Features:
    check_installed(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["id", "path", "vector"])
        width = table.schema.field("vector").type.list_size
        about = json.loads((table.schema.metadata or {}).get(b"barlow", b"{}"))
        matrix = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, width)
        ids, paths = table["id"].to_numpy(), table["path"].to_pylist()
    except (pa.ArrowException, ValueError) as error:
        raise Damaged(f"{printable(path)} is no file that barlow embed has written ({one_line(error)})") from error
    vectors = torch.from_numpy(matrix.astype(np.float32))
    return Features(ids, paths, vectors, about.get("encoder"), about.get("preprocessing"))


def _read_npy(path: Path) -> Features:
    index = path.with_suffix(".csv")
    try:
        matrix = np.load(path, mmap_mode="r")
        with index.open(newline="", encoding="utf-8") as file:
            rows = [(int(row["id"]), row["path"]) for row in csv.DictReader(file)]
    except FileNotFoundError as error:
        raise Damaged(
            f"{printable(path)} has no {printable(index)} beside it, which says of what its rows are"
        ) from error
    except ValueError as error:
        raise Damaged(f"{printable(path)} is no file that barlow embed has written ({one_line(error)})") from error
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or len(rows) != len(matrix):
        raise Damaged(
            f"{printable(path)} has the shape {matrix.shape} and type {matrix.dtype}, and {printable(index)} has "
            f"{len(rows):,} rows: they do not belong together"
        )
    ids, paths = np.array([i for i, _ in rows], np.int64), [place for _, place in rows]
    return Features(ids, paths, torch.from_numpy(np.array(matrix, np.float32)), None, None)
