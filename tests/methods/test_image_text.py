"""Images and captions: what goes through which network, what is held, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from barlow.methods.image_text import ImageText
from barlow.nets.heads import Head
from barlow.types import Rows

HEAD = Head(widths=[5, 4], hidden_bias=True, last_bias=True, batch_norm=False)
TOKENS = torch.tensor([[1, 5, 2, 0], [1, 6, 4, 2], [1, 2, 0, 0], [1, 5, 4, 2]])


def encoders(part: str = "encoder", **changes: Any) -> tuple[nn.Module, int]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6)), 6


def built(**keys: Any) -> Any:
    section = ImageText(**{"projector": HEAD, "words": 9, "embedding": 3, "hidden": 5} | keys)
    return section.build(encoders, seed=0).double()


def rows(views: int = 1, *, caption: bool = True) -> Rows:
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(views)]
    known = {"ids": torch.tensor([7, 2, 5, 3])} | ({"caption": TOKENS} if caption else {})
    return Rows(images, known)


def unit(z: Tensor) -> Tensor:
    return z / z.norm(dim=1, keepdim=True)


def test_each_view_of_an_image_is_compared_with_its_caption() -> None:
    method, given = built(), rows(2)
    outputs = method(given)
    text = method.text_projector(unit(method.text(TOKENS)))
    for (image, caption), view in zip(outputs.groups, given.views, strict=True):
        torch.testing.assert_close(caption, text)
        assert image.shape == (4, 4)
        assert len(view) == 4
    again = built()
    torch.testing.assert_close(outputs.groups[0][0], again.projector(unit(again.encoder(given.views[0]))))


def test_features_are_scaled_before_the_heads_only_where_it_is_asked_for() -> None:
    method = built(unit_features=False)
    torch.testing.assert_close(method(rows()).groups[0][1], method.text_projector(method.text(TOKENS)))


def test_both_branches_are_trained() -> None:
    method = built()
    ((image, caption),) = method(rows()).groups
    (image - caption).square().sum().backward()
    names = [name for name, p in method.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert set(names) <= {"encoder.1.bias"}, "a shift before a batch norm"


def test_where_no_caption_is_known_an_image_is_compared_with_itself() -> None:
    ((one, other),) = built()(rows(caption=False)).groups
    assert one is other


def test_a_frozen_encoder_is_neither_trained_nor_normalised_by_the_batch() -> None:
    method = built(frozen=True).train()
    before = {name: value.clone() for name, value in method.encoder.state_dict().items()}
    method(rows())
    assert all(value.equal(before[name]) for name, value in method.encoder.state_dict().items())
    assert not any(p.requires_grad for p in method.encoder.parameters())
    assert all(p.requires_grad for name, p in method.named_parameters() if not name.startswith("encoder"))


def test_held_features_take_the_place_of_views_in_training_and_only_there() -> None:
    method, given = built(frozen=True).train(), rows()
    ids = torch.tensor([2, 3, 5, 7])
    held = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    method.hold(ids, held)
    assert torch.equal(method(given).features[0], held[[3, 0, 2, 1]]), "by id, and not by place"
    assert torch.equal(method(Rows([], given.known)).features[0], held[[3, 0, 2, 1]])
    assert not any("held" in name for name in method.state_dict())
    method.eval()
    torch.testing.assert_close(method(given).features[0], method.encoder(given.views[0]))


def test_an_image_without_held_features_comes_from_its_view_or_is_named() -> None:
    method, given = built(frozen=True).train(), rows()
    method.hold(torch.tensor([2, 3, 7]), torch.zeros(3, 6, dtype=torch.float64))
    torch.testing.assert_close(method(given).features[0], method.encoder(given.views[0]))
    with pytest.raises(ValueError, match="image 5 could not be read when the features of all images were computed"):
        method(Rows([], given.known))


def test_without_a_head_the_grus_state_is_the_embedding() -> None:
    method = built(text_projector="none", hidden=4)
    torch.testing.assert_close(method(rows()).groups[0][1], unit(method.text(TOKENS)))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"text_projector": Head(widths=[3], hidden_bias=True, last_bias=True)}, "the projectors end in 4 and 3"),
        ({"text_projector": "none", "hidden": 5}, "the projectors end in 4 and 5 features"),
        ({"words": 4}, "words is 4: 4 of them stand for no word"),
        ({"min_count": 0}, "min_count is 0: give 1 or more"),
        ({"longest": 2}, "longest is 2: give 3 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageText(**{"projector": HEAD} | keys)


def test_the_number_of_words_has_to_be_known_before_networks_are_built() -> None:
    with pytest.raises(ValueError, match="words is auto"):
        ImageText(projector=HEAD).build(encoders, seed=0)
    assert ImageText(projector=HEAD).with_words(9).words == 9
