"""`barlow.Embedder`: images to vectors, for engines that people already run (datasets, Ray, Spark)."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from barlow.data.decoding import decode
from barlow.distributed import choose_device
from barlow.encoders import FoundEncoder, find_encoder
from barlow.nets.preprocessing import Picture, Preprocessing
from barlow.probes.features import embed
from barlow.seals import digest_of
from barlow.wording import in_arguments

Given = Picture | bytes | Mapping[str, Any]
"""One image: what `Preprocessing` takes, the bytes of a file, or `{"bytes": …, "path": …}`, as datasets keeps images
that it does not decode."""


class Embedder:
    """Turns images into vectors. It can be sent to other processes, and reads its encoder there when it is first used.

        embedder = barlow.Embedder("runs/photos")
        embedder(["cat.jpg", "dog.jpg"])                            # (2, features) float32
        dataset.map(embedder, batched=True, batch_size=256)         # a column `vector` beside the others
        ray_dataset.map_batches(barlow.Embedder, fn_constructor_args=["runs/photos"], batch_size=256, concurrency=2)

    A column may hold arrays, (n, h, w, c) uint8 or an array of them, as Ray reads images; paths; and what else an image
    may be given by.

    Args:
        encoder: a run folder, or anything that `barlow.encoders.find_encoder` knows by name. The other processes must
            see it under the same path.
        column: of a batch that is a table: where its images are.
        output: what the new column is called.
        keep: columns that are handed on beside it. `Dataset.map` keeps the others by itself; Ray does not.
        batch_size: images per forward pass.
        device: cpu, cuda, mps or auto, in the process that embeds.
        dtype: float32 or float16.

    Raises:
        ValueError: there is no such encoder, or dtype.
    """

    @in_arguments
    def __init__(
        self,
        encoder: str | os.PathLike[str],
        *,
        column: str = "image",
        output: str = "vector",
        keep: Sequence[str] = (),
        batch_size: int = 256,
        device: str = "auto",
        dtype: str = "float32",
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise ValueError(f"--dtype {dtype}: give float16 or float32")
        if batch_size < 1:
            raise ValueError(f"--batch-size {batch_size}: at least 1")
        name = os.fspath(encoder)
        self.encoder = os.path.abspath(name) if os.path.exists(name) else name
        self.column, self.output, self.keep = column, output, tuple(keep)
        self.batch_size, self.device, self.dtype = batch_size, device, dtype
        found = find_encoder(self.encoder, taken="nothing")
        self.width = int(found.network.num_features)  # type: ignore[arg-type]
        """Of a vector."""
        self.digest = _digest(found)
        """SHA-256 of what its vectors follow from: the network, its tensors, and how it wants to see an image."""
        self._network: nn.Module | None = found.network

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_network": None}

    def __call__(self, images: Given | Sequence[Given] | Mapping[str, Any]) -> Any:
        """Vectors of images, or a table's new column.

        Args:
            images: a list of images (paths, bytes, Pillow images, (h, w, c) uint8 arrays), one of them, or a table, as
                `{"image": [...]}`.

        Returns:
            (n, width); of a table, `{output: (n, width)}` with the columns that are kept.

        Raises:
            ValueError: an image cannot be read, or the table has no such column.
        """
        if isinstance(images, Mapping) and not _is_file(images):
            if self.column not in images:
                raise ValueError(f"no column {self.column!r}; there are {', '.join(map(str, images))}: give column=")
            rows = list(images[self.column])
            return {**{name: images[name] for name in self.keep}, self.output: self._vectors(rows)}
        several = images if isinstance(images, list | tuple) else [images]
        return self._vectors(list(several))

    def _vectors(self, pictures: list[Any]) -> np.ndarray:
        network = self._loaded()
        kind = np.dtype(self.dtype)
        if not pictures:
            return np.zeros((0, self.width), kind)
        seen: Preprocessing = network.preprocessing  # type: ignore[assignment]
        starts = range(0, len(pictures), self.batch_size)
        batches = (seen([_opened(each, seen) for each in pictures[i : i + self.batch_size]]) for i in starts)
        return embed(network, batches, self._target).numpy().astype(kind, copy=False)

    @property
    def _target(self) -> torch.device:
        return choose_device(self.device)

    def _loaded(self) -> nn.Module:
        """The network, read again in another process, where it must be the same."""
        if self._network is None:
            found = find_encoder(self.encoder, taken="nothing")
            if (digest := _digest(found)) != self.digest:
                raise ValueError(
                    f"{self.encoder} is another encoder here than where the Embedder was made ({digest[:8]}, not "
                    f"{self.digest[:8]}), by its weights, its network or what it expects of an image: make it again, "
                    "or give the encoder a path of its own"
                )
            self._network = found.network
        return self._network


def _digest(found: FoundEncoder) -> str:
    return digest_of([found.identity, found.preprocessing.as_dict()])


def _is_file(table: Mapping[str, Any]) -> bool:
    """Whether a mapping is one image, as datasets keeps them."""
    return set(table) == {"bytes", "path"} and not isinstance(table["path"], list)


def _opened(given: Any, seen: Preprocessing) -> Picture:
    if isinstance(given, Mapping):
        given = given["path"] if given.get("bytes") is None else given["bytes"]
    if isinstance(given, bytes):
        try:
            return decode(given, channels=seen.channels, value_range=seen.value_range)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read an image of {len(given):,} bytes: {error}") from error
    picture: Picture = given
    return picture
