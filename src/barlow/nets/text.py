"""Text networks: from the words of a caption to features."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from barlow.data.captions import Tokens
from barlow.data.vocabulary import PADDING
from barlow.nets.seeding import seeded
from barlow.types import Features

WIDEST = 16_384
"""Of a word's vector, and of the GRU's state: sixteen times VSE++'s."""


class GRUText(nn.Module):
    """A vector for each word, and a GRU that reads them in their order; its state after the last word is the features.

    Source: Kiros et al., Unifying Visual-Semantic Embeddings (arXiv 1411.2539), and VSE++ (arXiv 1707.05612, released
        code): vectors of 300 numbers, uniform in ±0.1, and a GRU of 1,024.
    Convention: one layer, in one direction. What fills up a shorter caption is not read, so a caption has the same
        features beside longer ones. Computed in float32, outside of autocast.

    Args:
        words: how many numbers a vocabulary has, with those that stand for no word.
        embedding: numbers of a word's vector.
        hidden: of the GRU's state.
        init_range: of the first values of the words' vectors. The GRU starts as torch starts it.
        seed: the same seed gives the same weights.

    Raises:
        ValueError: a width that is not from 1 to `WIDEST`, or too few words.
    """

    def __init__(self, words: int, embedding: int, hidden: int, *, init_range: float, seed: int) -> None:
        super().__init__()
        for name, width in (("embedding", embedding), ("hidden", hidden)):
            if not 1 <= width <= WIDEST:
                raise ValueError(f"{name} is {width}: give a width from 1 to {WIDEST:,}")
        if words < 1:
            raise ValueError(f"words is {words}: a vocabulary has one or more")
        with seeded(seed, "text"):
            self.embedding = nn.Embedding(words, embedding)
            nn.init.uniform_(self.embedding.weight, -init_range, init_range)
            self.gru = nn.GRU(embedding, hidden, batch_first=True)
        self.num_features = hidden

    def forward(self, tokens: Tokens) -> Features:
        """The features of each caption."""
        lengths = (tokens != PADDING).sum(dim=1).clamp(min=1).cpu()
        device = self.embedding.weight.device
        with torch.autocast(device.type, enabled=False):
            vectors = self.embedding(tokens.to(device))
            packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
            last: Tensor = self.gru(packed)[1][0]
        return last
