"""Images as vectors, all of them in memory: what a search compares, and a look for duplicates."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64

from barlow.data.centre import normalized, tried_centres
from barlow.data.counting import Counted, not_shown
from barlow.data.decoding import UnreadableImage
from barlow.data.last_words import kept_from_the_screen
from barlow.data.sources import ImageSource
from barlow.encoders import FoundEncoder
from barlow.exits import UnusableData
from barlow.machine import available_cores
from barlow.printable import printable
from barlow.probes.features import FeatureSet, embed
from barlow.types import Features, Images


@dataclass(frozen=True)
class Vectors:
    """Images of a source, and an encoder's vector of each.

    Args:
        source: where the images are.
        ids: those that could be read, in their order.
        vectors: a row for each, float32.
        unread: of the others why, by their ids.
    """

    source: ImageSource
    ids: Int64[np.ndarray, "n"]
    vectors: Features
    unread: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def place(self, row: int) -> str:
        """Where a person finds an image, fit to be printed."""
        return printable(self.path(row))

    def path(self, row: int) -> str:
        """The same for a program: the name as it is."""
        return self.source.locate(int(self.ids[row]))


def vectors_of(
    encoder: FoundEncoder,
    source: ImageSource,
    *,
    ids: Int64[np.ndarray, "n"] | None = None,
    device: str = "cpu",
    batch_size: int = 64,
    counted: Counted = not_shown,
) -> Vectors:
    """The vectors of one centre view of each image, as an evaluation embeds them. What cannot be read is left out.

    Args:
        encoder: `barlow.encoders.find_encoder` gives it.
        source: what is embedded.
        ids: which of its images; all by default.
        device: where to compute.
        batch_size: images per forward pass.
        counted: told how many images have been read.

    Raises:
        UnusableData: no image can be read.
        NotFinite: the encoder has diverged.
    """
    wanted = np.arange(len(source)) if ids is None else ids
    kept: list[int] = []
    unread: dict[int, str] = {}

    def batches() -> Iterator[Images]:
        batch: list[np.ndarray] = []
        centres = tried_centres(source, wanted, encoder.preprocessing, available_cores())
        for done, (index, centre) in enumerate(zip(wanted.tolist(), centres, strict=True), 1):
            counted("images embedded", done, len(wanted))
            if isinstance(centre, UnreadableImage):
                unread[index] = printable(centre.reason or "unreadable")
                continue
            kept.append(index)
            batch.append(centre)
            if len(batch) == batch_size:
                yield normalized(np.stack(batch), encoder.preprocessing)
                batch = []
        if batch:
            yield normalized(np.stack(batch), encoder.preprocessing)
        if not kept:
            raise UnusableData(
                f"none of the {len(wanted)} images of {source.name} can be read{_such_as(source, unread)}"
            )

    with kept_from_the_screen():
        features = embed(encoder.network, batches(), device)
    # A set of features looks at them as it is made: how wide they are, and whether they are numbers at all.
    checked = FeatureSet(features, np.zeros(len(kept), np.int64), np.asarray(kept, np.int64))
    return Vectors(source, checked.ids, checked.features, unread)


def _such_as(source: ImageSource, unread: Mapping[int, str]) -> str:
    """The first of the images that cannot be read, and why."""
    return "".join(f" ({printable(source.locate(i))}: {why})" for i, why in list(unread.items())[:1])
