"""Captions as numbers, of which a step gets one for each image."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from barlow.data.vocabulary import PADDING, Vocabulary
from barlow.seals import sha256
from barlow.types import Ids
from barlow.views.keys import hashed

CAPTIONS = 7
"""First word of the keys by which captions are drawn: no other draw of a run has it."""

OfImages = Sequence[Sequence[str]]
"""The captions of all images, one or more of each."""

Tokens = Int64[Tensor, "n length"]
"""Numbers of words, a caption in each row, filled up with zeros (`barlow.data.vocabulary`)."""


def captions_of(source: object) -> OfImages | None:
    """The captions of a source's images, of each image one or more; None if it has none."""
    found: OfImages | None = getattr(source, "captions", None)
    return found


def tokens_of(captions: Sequence[str], vocabulary: Vocabulary, longest: int) -> Tokens:
    """A row for each caption, as long as the longest of them, and at most `longest`."""
    numbers = [vocabulary.numbers(caption, longest) for caption in captions]
    tokens = torch.full((len(numbers), max(map(len, numbers), default=0)), PADDING, dtype=torch.int64)
    for row, found in zip(tokens, numbers, strict=True):
        row[: len(found)] = torch.tensor(found)
    return tokens


def digest(captions: OfImages) -> str:
    """Changes when a caption does."""
    return sha256(json.dumps([list(of_image) for of_image in captions]).encode())


@dataclass(frozen=True)
class Captions:
    """The captions of all images of a source.

    Args:
        tokens: all of them, those of one image in rows that follow each other.
        first: of each image its first row; one more number says where the last image ends.
    """

    tokens: Tokens
    first: np.ndarray

    @classmethod
    def of(cls, captions: OfImages, vocabulary: Vocabulary, longest: int) -> "Captions":
        """Of each image one or more."""
        assert all(len(of_image) for of_image in captions)
        flat = [caption for of_image in captions for caption in of_image]
        first = np.array([0, *accumulate(map(len, captions))], np.int64)
        return cls(tokens_of(flat, vocabulary, longest), first)

    def drawn(self, ids: Ids, seed: int, epoch: int) -> Tokens:
        """One caption of each image, by (seed, epoch, id) and nothing else.

        Two captions of an image in one batch would be each other's wrong answers, so an image has one a step. Over the
        epochs all of its captions come, each as often as the others in the mean.
        """
        images = ids.cpu().numpy()
        counts = (self.first[images + 1] - self.first[images]).astype(np.uint64)
        chosen = (hashed((CAPTIONS, seed, epoch), images) % counts).astype(np.int64)
        return self.tokens[torch.from_numpy(self.first[images] + chosen)]
