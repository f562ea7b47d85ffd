"""The text network against a GRU by hand, and what a caption's features do not depend on."""

import pytest
import torch
from torch import Tensor

from barlow.nets.text import GRUText

TOKENS = torch.tensor([[1, 5, 2, 0, 0], [1, 6, 7, 8, 2], [1, 2, 0, 0, 0]])


def by_hand(text: GRUText, tokens: list[int]) -> Tensor:
    """The equations of torch.nn.GRU (Cho et al., arXiv 1406.1078), a word at a time."""
    gru, h = text.gru, torch.zeros(text.num_features, dtype=torch.float64)
    for number in tokens:
        x = text.embedding.weight[number]
        ours = (gru.weight_ih_l0 @ x + gru.bias_ih_l0).chunk(3)
        past = (gru.weight_hh_l0 @ h + gru.bias_hh_l0).chunk(3)
        reset, update = torch.sigmoid(ours[0] + past[0]), torch.sigmoid(ours[1] + past[1])
        h = (1 - update) * torch.tanh(ours[2] + reset * past[2]) + update * h
    return h


def test_features_and_gradients_are_those_of_a_gru_up_to_the_last_word() -> None:
    text = GRUText(9, 3, 4, init_range=0.5, seed=0).double()
    weights = list(text.parameters())
    target = torch.arange(12, dtype=torch.float64).reshape(3, 4).cos()
    found = text(TOKENS)
    reference = torch.stack([by_hand(text, [n for n in row if n]) for row in TOKENS.tolist()])
    assert torch.allclose(found, reference, rtol=0, atol=1e-14)
    for ours, theirs in zip(
        torch.autograd.grad((found * target).sum(), weights),
        torch.autograd.grad((reference * target).sum(), weights),
        strict=True,
    ):
        assert float((ours - theirs).abs().max()) <= 1e-12 * max(float(theirs.abs().max()), 1e-3)


def test_a_caption_has_the_same_features_alone_and_beside_longer_ones() -> None:
    text = GRUText(9, 3, 4, init_range=0.1, seed=0).double()
    together = text(TOKENS)
    assert torch.allclose(text(TOKENS[:1, :3]), together[:1], rtol=0, atol=1e-14)
    assert torch.allclose(text(TOKENS.flip(0)), together.flip(0), rtol=0, atol=1e-14)


def test_weights_follow_from_the_seed_and_words_begin_within_the_range() -> None:
    first, again, other = (GRUText(50, 8, 4, init_range=0.1, seed=seed) for seed in (0, 0, 1))
    assert all(a.equal(b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not first.embedding.weight.equal(other.embedding.weight)
    assert 0.08 < float(first.embedding.weight.detach().abs().max()) <= 0.1


def test_it_computes_in_float32_inside_autocast() -> None:
    text = GRUText(9, 3, 4, init_range=0.1, seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert text(TOKENS).dtype == torch.float32


@pytest.mark.parametrize(("sizes", "message"), [((9, 0, 4), "embedding is 0"), ((9, 3, 99_999), "hidden is 99999")])
def test_widths_that_cannot_be_are_refused(sizes: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GRUText(*sizes, init_range=0.1, seed=0)
