"""`barlow search`: the images that an encoder sees most like a given one."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from barlow import tables
from barlow.data.counting import NowAndThen
from barlow.data.files import FilesSource, files_in
from barlow.data.sources import FoldersOrName, open_source
from barlow.distributed import choose_device
from barlow.encoders import Encoder, Named, find_encoder
from barlow.printable import printable
from barlow.probes.neighbours import most_similar
from barlow.run import load_recipe_text
from barlow.telling import unfailing
from barlow.vectors import Vectors, vectors_of
from barlow.wording import in_arguments

WIDTH = 80
"""Columns of the text."""

K = 20


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Args:
        encoder: that was used.
        asked: the images that others were looked for.
        among: the images that were searched.
        skipped: how many of these could not be read.
        similarity: cosines, of each that was asked for with its k most similar, these first.
        positions: of these among the searched.
    """

    encoder: Encoder
    asked: Vectors
    among: Vectors
    skipped: int
    similarity: Float[Tensor, "m k"]
    positions: Int64[Tensor, "m k"]

    def hits(self, query: int) -> list[tuple[float, str]]:
        """Of one image that was asked for: similarity and place of each image found, the most similar first."""
        values, rows = self.similarity[query].tolist(), self.positions[query].tolist()
        return [(value, self.among.place(row)) for value, row in zip(values, rows, strict=True)]

    def text(self) -> str:
        """A table for each image that was asked for, 80 columns wide. `as_dict` has paths that are cut short here."""
        lines = [_fitting(f"{len(self.among):,} images of {self.among.source.name}, by {self.encoder.name}", WIDTH)]
        if self.skipped:
            lines.append(f"{self.skipped:,} images cannot be read and were left out")
        for query in range(len(self.asked)):
            lines += ["", _fitting(self.asked.place(query), WIDTH), "rank  similarity  path"]
            for rank, (value, place) in enumerate(self.hits(query), 1):
                lines.append(f"{rank:4}  {value:10.4f}  {_fitting(place, WIDTH - 18)}")
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "encoder": self.encoder.name,
            "images": printable(self.among.source.name),
            "searched": len(self.among),
            "skipped": self.skipped,
            "queries": [
                {
                    "query": self.asked.place(query),
                    "found": [
                        {"rank": rank, "similarity": value, "path": place}
                        for rank, (value, place) in enumerate(self.hits(query), 1)
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

    A query that is itself among the images is found as the first, with the similarity 1.

    Args:
        named: the encoder, as `barlow.encoders.find_encoder` takes it.
        queries: image files; of a folder all images in it.
        images: what is searched: folders or the name of a set. By default what the run was trained on.
        k: how many are wanted.
        encoder: the network of a file of weights.
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
    files = files_in([queries] if isinstance(queries, str | os.PathLike) else queries)
    if not files:
        raise ValueError("no query is named: give one image file or several")
    used = find_encoder(named, encoder=encoder, image_size=image_size, say=say)
    counted, channels, ends = NowAndThen(say), used.preprocessing.channels, used.preprocessing.value_range
    source = open_source(_searched(used, images), channels=channels, value_range=ends, counted=counted)
    looked_for = FilesSource(files, "the queries", channels=channels, value_range=ends)
    asked = vectors_of(used, looked_for, device=where, batch_size=batch_size)
    if missing := len(files) - len(asked):
        left = sorted(set(range(len(files))) - set(asked.ids.tolist()))
        say(f"{missing} of {len(files)} queries cannot be read, such as {printable(files[left[0]])}")
    among = vectors_of(used, source, device=where, batch_size=batch_size, counted=counted)
    similarity, positions = most_similar(among.vectors, asked.vectors, min(k, len(among)))
    return Found(used, asked, among, len(source) - len(among), similarity, positions)


def _searched(encoder: Encoder, images: FoldersOrName | None) -> FoldersOrName:
    """The images that are named, or those that a run was trained on."""
    if images is not None:
        return images
    if encoder.run is None:
        raise ValueError(f"{encoder.name} is no run, which has images of its own: say which to search with --in FOLDER")
    path = encoder.run / "recipe.yaml"
    sources: list[str] = tables.checked(load_recipe_text(path), path)["data"]["sources"]
    return sources


def _fitting(text: str, width: int) -> str:
    """A text that fits; of one that is too long the end, which tells paths apart."""
    return text if len(text) <= width else "…" + text[1 - width :]
