"""`barlow search`: the images that an encoder sees most like a given one."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from barlow import tables
from barlow.checkpoints import split_step
from barlow.data.counting import NowAndThen
from barlow.data.files import FilesSource, files_in
from barlow.data.folder import FolderSource
from barlow.data.sources import FoldersOrName, open_source
from barlow.distributed import choose_device
from barlow.encoders import FoundEncoder, Named, find_encoder
from barlow.features import stored_features
from barlow.features.feature_files import stored_text
from barlow.features.vectors import Vectors, vectors_of
from barlow.nets.preprocessing import Preprocessing
from barlow.printable import printable
from barlow.probes.neighbours import most_similar
from barlow.runs.run import Run, load_recipe_text
from barlow.size import words
from barlow.telling import Say, unfailing
from barlow.wording import in_arguments, many

WIDTH = 80
"""Columns of the text."""

K = 20

ROUNDING = 1e-5
"""Of the cosine of an image with itself, embedded twice."""

SQUARE = Preprocessing(96, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, 3)
"""What is shown of an image, where nobody says what was looked at."""


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Args:
        encoder: its name, or that of the file of features.
        preprocessing: what it looks at of an image.
        asked: the images that others were looked for.
        among: the images that were searched.
        skipped: how many of these could not be read.
        similarity: cosines, of each that was asked for with its k most similar, these first.
        positions: of these among the searched.
    """

    encoder: str
    preprocessing: Preprocessing
    asked: Vectors
    among: Vectors
    skipped: int
    similarity: Float[Tensor, "m k"]
    positions: Int64[Tensor, "m k"]

    def hits(self, query: int) -> list[tuple[float, str]]:
        """Of one image that was asked for: similarity and place of each image found, the most similar first."""
        return [(value, self.among.place(row)) for value, row in self._rows(query)]

    def _rows(self, query: int) -> list[tuple[float, int]]:
        return list(zip(self.similarity[query].tolist(), self.positions[query].tolist(), strict=True))

    def text(self) -> str:
        """A table for each image that was asked for, 80 columns wide. `as_dict` has paths that are cut short here."""
        images = many(len(self.among), "image", "images")
        lines = [_fitting(f"{images} of {self.among.source.name}, by {self.encoder}", WIDTH)]
        if self.skipped:
            images = many(self.skipped, "image cannot be read and was", "images cannot be read and were")
            lines.append(f"{images} left out")
        for query in range(len(self.asked)):
            lines += ["", _fitting(self.asked.place(query), WIDTH), "rank  similarity  path"]
            for rank, (value, place) in enumerate(self.hits(query), 1):
                lines.append(f"{rank:4}  {value:10.4f}  {_fitting(place, WIDTH - 18)}")
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """For programs: paths as they are, whatever is in them."""
        return {
            "encoder": self.encoder,
            "images": printable(self.among.source.name),
            "searched": len(self.among),
            "skipped": self.skipped,
            "queries": [
                {
                    "query": self.asked.path(query),
                    "found": [
                        {"rank": rank, "similarity": value, "path": self.among.path(row)}
                        for rank, (value, row) in enumerate(self._rows(query), 1)
                    ],
                }
                for query in range(len(self.asked))
            ],
        }


@in_arguments
def search(
    named: Named,
    queries: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    images: FoldersOrName | None = None,
    k: int = K,
    encoder: str | None = None,
    image_size: object = None,
    batch_size: int = 64,
    device: str = "auto",
    tell: Callable[[str], None] | None = None,
) -> Found:
    """The k images that an encoder sees most like each query, by cosine. Every pair is compared.

    A query that is itself among the images is found as the first, before copies of it, with the similarity 1. Which of
    several images comes first that are equally similar is not said.

    Args:
        named: the encoder, as `barlow.encoders.find_encoder` takes it; or a file of features, as `barlow.embed` writes
            it (`.parquet` or `.npy`).
        queries: image files; of a folder all images in it. In a file of features, also the paths that it has.
        images: what is searched: folders or the name of a set. By default what the run was trained on. With a file of
            features: the folder that was embedded, where the pictures are.
        k: how many are wanted.
        encoder: the network of a file of weights; with a file of features, the encoder that made it.
        image_size: for foreign weights, in place of their own.
        batch_size: images per forward pass.
        device: cpu, cuda, mps or auto.
        tell: receives messages of one line.

    Returns:
        What was found: `text()` for people, `as_dict()` for programs.

    Raises:
        NoInput: the encoder, a query or the images do not exist.
        UnusableData: none of the queries, or of the images, can be read.
        ValueError: a value is not allowed.
    """
    say = unfailing(tell)
    if k < 1:
        raise ValueError(f"-k is {k}: give 1 or more")
    if batch_size < 1:
        raise ValueError(f"--batch-size {batch_size}: give 1 or more")
    where = str(choose_device(device))
    wanted = [queries] if isinstance(queries, str | os.PathLike) else list(queries)
    if not wanted:
        raise ValueError("no query is named: give one image file or several")
    if stored_features.is_file(named):
        file = Path(named)  # type: ignore[arg-type]
        return _in_file(file, wanted, images, k, encoder, image_size, batch_size, where, say)
    files = files_in(wanted)
    used = find_encoder(named, encoder=encoder, image_size=image_size, taken="size", say=say)
    counted, seen = NowAndThen(say), used.preprocessing
    searched = _searched(used, images)
    source = open_source(searched, channels=seen.channels, value_range=seen.value_range, counted=counted)
    asked = _asked(used, files, batch_size, where, say)
    among = vectors_of(used, source, device=where, batch_size=batch_size, counted=counted)
    similarity, positions = _most_similar(among, asked, k)
    return Found(used.name, seen, asked, among, len(source) - len(among), similarity, positions)


def own_images(named: Named) -> list[str]:
    """The images that a run was trained on, as its recipe names them; none for what is no run."""
    if not isinstance(named, str | os.PathLike):
        return []
    run, _ = split_step(os.fspath(named))
    for home in (run, run.parent):
        if Run(home).exists():
            path = home / "recipe.yaml"
            sources: list[str] = tables.checked(load_recipe_text(path), path)["data"]["sources"]
            return sources
    return []


def _most_similar(among: Vectors, asked: Vectors, k: int) -> tuple[Float[Tensor, "m k"], Int64[Tensor, "m k"]]:
    """`most_similar`, with a query that is itself among the images in front: a byte copy is as similar as it is, and
    rounding may put either first."""
    similarity, positions = most_similar(among.vectors, asked.vectors, min(k, len(among)))
    for query, own in enumerate(_own_rows(among, asked)):
        if own is None:
            continue
        order, values = positions[query].tolist(), similarity[query].tolist()
        cosine = torch.nn.functional.cosine_similarity(asked.vectors[query], among.vectors[own], dim=0)
        if cosine < max(values) - ROUNDING:  # its file is no longer the one that was embedded
            continue
        place = order.index(own) if own in order else len(order) - 1  # a copy of the lowest rank makes room
        positions[query] = torch.tensor([own, *order[:place], *order[place + 1 :]])
        similarity[query] = torch.tensor([max(values), *values[:place], *values[place + 1 :]])
    return similarity, positions


def _own_rows(among: Vectors, asked: Vectors) -> list[int | None]:
    """Of each query the row that is the same file, if one is."""
    if asked.source is among.source:
        row_of = {int(i): row for row, i in enumerate(among.ids)}
        return [row_of.get(int(i)) for i in asked.ids]
    if not isinstance(among.source, FilesSource | FolderSource) or not isinstance(asked.source, FilesSource):
        return [None] * len(asked)
    files = [os.path.realpath(asked.source.file(int(i))) for i in asked.ids]
    tails = {os.path.basename(file) for file in files}
    rows: dict[str, int] = {}
    for row, i in enumerate(among.ids.tolist()):  # most files have another name than any query, and are not looked at
        file = among.source.file(i)
        if os.path.basename(file) in tails:
            rows.setdefault(os.path.realpath(file), row)
    return [rows.get(file) for file in files]


def _asked(used: FoundEncoder, files: list[str], batch_size: int, device: str, say: Say) -> Vectors:
    """The queries. Those that cannot be read are told, and left out."""
    seen = used.preprocessing
    source = FilesSource(files, "the queries", channels=seen.channels, value_range=seen.value_range)
    asked = vectors_of(used, source, device=device, batch_size=batch_size)
    if missing := len(files) - len(asked):
        left = sorted(set(range(len(files))) - set(asked.ids.tolist()))
        say(
            f"{missing} of {len(files)} queries cannot be read, such as {printable(files[left[0]])} "
            f"({asked.unread[left[0]]})"
        )
    return asked


def _in_file(
    path: Path,
    queries: Sequence[str | os.PathLike[str]],
    images: FoldersOrName | None,
    k: int,
    encoder: str | None,
    image_size: object,
    batch_size: int,
    device: str,
    say: Say,
) -> Found:
    """A search in a file of features. Its own images may be asked for by the paths that it has of them."""
    file = stored_features.read(path)
    seen = file.preprocessing or SQUARE
    takes: dict[str, Any] = {"root": _root(images), "channels": seen.channels, "value_range": seen.value_range}
    among = Vectors(FilesSource(file.paths, printable(path), **takes), np.arange(len(file)), file.vectors)
    row_of = {name: row for row, name in enumerate(file.paths)}
    names = [stored_text(os.fsdecode(each)) for each in queries]
    if all(name in row_of for name in names):
        rows = np.array([row_of[name] for name in names], np.int64)
        asked = Vectors(among.source, rows, file.vectors[torch.from_numpy(rows)])
        name = printable(path)
    elif encoder is None:
        new = next(each for each in names if each not in row_of)
        raise ValueError(
            f"{printable(new)} is no path that {printable(path)} has: add --encoder ENCODER, the one that made its "
            "vectors, and image files are embedded by it"
        )
    else:
        used = find_encoder(encoder, image_size=image_size, taken="size", say=say)
        name = used.name
        _check_same(path, file, used)
        asked = _asked(used, files_in(queries), batch_size, device, say)
    similarity, positions = _most_similar(among, asked, k)
    return Found(name, seen, asked, among, 0, similarity, positions)


def _root(images: FoldersOrName | None) -> str:
    """The folder below which the paths of a file of features are."""
    if images is None:
        return ""
    folders = [images] if isinstance(images, str | os.PathLike) else list(images)
    if len(folders) != 1:
        raise ValueError(f"--in names {len(folders)} folders: give the one that was embedded")
    return os.fspath(folders[0])


def _check_same(path: Path, file: stored_features.Features, used: FoundEncoder) -> None:
    """Refuses an encoder that is not the one that made the vectors of a file, or that gets other images."""
    width = int(used.network.num_features)  # type: ignore[arg-type]
    if width != file.vectors.shape[1] or file.encoder not in (None, used.identity):
        raise ValueError(
            f"the vectors of {printable(path)} ({file.vectors.shape[1]} wide) were not made by {used.name} ({width} "
            "wide): cosines between two encoders mean nothing; name the encoder that barlow embed was given"
        )
    if file.preprocessing not in (None, used.preprocessing):
        raise ValueError(
            f"the vectors of {printable(path)} were made by {used.name} of images that were prepared in another way "
            f"({words(file.preprocessing.size)} pixels there, {words(used.preprocessing.size)} here): name it as "
            "barlow embed was given it, and --image-size too, if it was"
        )


def _searched(encoder: FoundEncoder, images: FoldersOrName | None) -> FoldersOrName:
    """The images that are named, or those that a run was trained on."""
    if images is not None:
        return images
    if encoder.run is None:
        raise ValueError(f"{encoder.name} is no run, which has images of its own: say which to search with --in FOLDER")
    return own_images(encoder.run)


def _fitting(text: str, width: int) -> str:
    """A text that fits; of one that is too long the end, which tells paths apart."""
    return text if len(text) <= width else "…" + text[1 - width :]
