"""A file of features that is read again: one of `barlow embed`'s, or a stranger's that claims to be one.

What it says is looked at before it is used. Whatever is wrong with it is one line.
"""

import csv
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from barlow.features.feature_files import check_installed
from barlow.features.feature_places import index_path
from barlow.nets.preprocessing import Preprocessing
from barlow.printable import printable
from barlow.seals import Damaged


@dataclass(frozen=True)
class Features:
    """What a file of features has, in memory.

    Args:
        ids: of the images, in their set.
        paths: where each is, below the folder that was embedded (`barlow.features.feature_files.stored_text`).
        vectors: (n, width) float32.
        encoder: which made them (`FoundEncoder.identity`); None of `.npy`.
        preprocessing: what that encoder expects of an image; None of `.npy`.
    """

    ids: np.ndarray
    paths: list[str]
    vectors: Tensor
    encoder: str | None
    preprocessing: Preprocessing | None

    def __len__(self) -> int:
        return len(self.paths)


def is_file(named: object) -> bool:
    """Whether a user who says this means a file of features."""
    return isinstance(named, str | os.PathLike) and Path(named).suffix in (".parquet", ".npy") and Path(named).is_file()


def read(path: Path) -> Features:
    """Reads all of a file that `barlow embed` has written.

    Raises:
        Damaged: it is something else, or its index does not fit it.
        ValueError: pyarrow is not installed.
    """
    found = _read_parquet(path) if path.suffix == ".parquet" else _read_npy(path)
    if not len(found):
        raise Damaged(f"{printable(path)} has no rows")
    if not bool(torch.isfinite(found.vectors).all()):
        raise Damaged(f"{printable(path)} has vectors that are not finite")
    return found


def _damaged(path: Path, why: str) -> Damaged:
    return Damaged(f"{printable(path)} is no file that barlow embed has written: {why}")


def _read_parquet(path: Path) -> Features:
    check_installed(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        kinds = {name: schema.field(name).type for name in ("id", "path", "vector") if schema.names.count(name) == 1}
        if (why := _odd_columns(kinds)) is not None:
            raise _damaged(path, why)
        table = pq.read_table(path, columns=list(kinds))
        if nulls := [name for name in kinds if table[name].null_count]:
            raise _damaged(path, f"its column {nulls[0]} has rows without a value")
        numbers = table["vector"].combine_chunks().flatten()
        if numbers.null_count:
            raise _damaged(path, "some of its vectors lack numbers")
        ids, paths = table["id"].to_numpy(), table["path"].to_pylist()
    except Damaged:
        raise
    except OSError as error:
        raise _damaged(path, error.strerror or "Parquet cannot read it") from error
    except (pa.ArrowException, ValueError) as error:  # of bytes that are not UTF-8, too
        raise _damaged(path, "Parquet cannot read it") from error
    matrix = numbers.to_numpy(zero_copy_only=False).reshape(-1, kinds["vector"].list_size)
    encoder, preprocessing = _about(path, (schema.metadata or {}).get(b"barlow"))
    vectors = torch.from_numpy(matrix.astype(np.float32))
    return Features(ids.astype(np.int64), paths, vectors, encoder, preprocessing)


def _odd_columns(kinds: Mapping[str, Any]) -> str | None:
    """What is wrong with the types of a table's columns, in a few words."""
    import pyarrow as pa

    if missing := [name for name in ("id", "path", "vector") if name not in kinds]:
        return f"it has no column {missing[0]}, or two of that name"
    if not pa.types.is_integer(kinds["id"]):
        return f"its column id has the type {kinds['id']}, and whole numbers are expected"
    if not (pa.types.is_string(kinds["path"]) or pa.types.is_large_string(kinds["path"])):
        return f"its column path has the type {kinds['path']}, and texts are expected"
    kind = kinds["vector"]
    if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type) or kind.list_size < 1:
        return (
            f"its column vector has the type {printable(str(kind))[:60]}, and lists of one size of floats are expected"
        )
    return None


def _about(path: Path, text: bytes | None) -> tuple[str | None, Preprocessing | None]:
    """What a Parquet file's metadata says of the encoder, and of what that expects of an image."""
    if text is None:
        return None, None
    try:
        about = json.loads(text)
        encoder, seen = about["encoder"], Preprocessing(**about["preprocessing"])
        if isinstance(encoder, str):
            return encoder, seen
    except (ValueError, LookupError, TypeError, RecursionError, AttributeError, OverflowError):
        pass
    raise _damaged(path, "its metadata do not say which encoder made it and what that expects of an image")


def _read_npy(path: Path) -> Features:
    index = index_path(path)
    try:
        matrix = np.load(path, mmap_mode="r")
    except OSError as error:
        raise _damaged(path, error.strerror or "NumPy cannot read it") from error
    except (EOFError, ValueError, SyntaxError, OverflowError, MemoryError, zipfile.BadZipFile) as error:
        raise _damaged(path, "NumPy finds no array of numbers in it") from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.shape[1]:
        what = f"shape {matrix.shape} and type {matrix.dtype}" if isinstance(matrix, np.ndarray) else "several arrays"
        raise _damaged(path, f"it has {what}, and a matrix of floats with a row for each image is expected")
    rows = _index(path, index)
    if len(rows) != len(matrix):
        raise Damaged(
            f"{printable(path)} has {len(matrix):,} rows, and {printable(index)} beside it {len(rows):,}: they do not "
            "belong together"
        )
    ids, paths = np.array([i for i, _ in rows], np.int64), [place for _, place in rows]
    return Features(ids, paths, torch.from_numpy(np.array(matrix, np.float32)), None, None)


def _index(path: Path, index: Path) -> list[tuple[int, str]]:
    """Id and path of each row."""
    rows: list[tuple[int, str]] = []
    try:
        with index.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := [name for name in ("id", "path") if (reader.fieldnames or []).count(name) != 1]:
                raise _damaged(index, f"it has no column {missing[0]}, or two of that name")
            for number, row in enumerate(reader, 1):
                i, place = row["id"], row["path"]
                if not i or not (i.isascii() and i.isdigit() and len(i) < 19) or not place:
                    raise _damaged(index, f"row {number} has no id that is a whole number, or no path")
                rows.append((int(i), place))
    except FileNotFoundError as error:
        raise Damaged(
            f"{printable(path)} has no {printable(index)} beside it, which says of what its rows are"
        ) from error
    except OSError as error:
        raise Damaged(f"{printable(index)} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _damaged(index, "it is not UTF-8") from error
    except csv.Error as error:
        raise _damaged(index, "it is not a table of comma-separated values") from error
    return rows
