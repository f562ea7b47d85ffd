"""An image and its tiles: which network sees what, and what is compared with what."""

from typing import Any

import pytest
import torch
from simple_encoder import Colours
from torch import Tensor, nn

from barlow.methods._networks import Method
from barlow.methods.image_and_tiles import ImageAndTiles
from barlow.nets.heads import Head
from barlow.types import Outputs, Rows
from barlow.views.ops.tiles import cut

HEAD = Head(widths=[4], hidden_bias=True, last_bias=True)
EACH = Head(widths=[3], hidden_bias=True, last_bias=True)


class Encoder(Colours):
    """With a weight for each feature, so that a copy can be told from the original."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(12))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.weight


def built(**keys: Any) -> Any:
    section = ImageAndTiles(**{"projector": HEAD, "tiles": HEAD, "each": EACH} | keys)
    return section.build(lambda *_, **__: (Encoder(), 12), seed=0)


def views(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(5, 3, 12, 12, generator=generator) for _ in range(count)]


def made(method: Method, given: list[Tensor]) -> Outputs:
    return method(Rows(given, {"ids": torch.arange(len(given[0]))}))


def by_hand(method: Any, view: Tensor) -> Tensor:
    """Of the tiles in the order in which they lie: each through the encoder and its head, and all through the last."""
    parts = [[method.tiles.each(method.encoder(tile[None]))[0] for tile in cut(one[None], (3, 3))] for one in view]
    return method.tiles.together(torch.stack([torch.cat(of_image) for of_image in parts]))


@pytest.mark.parametrize("rows", [None, 2])
def test_an_image_goes_through_the_projector_and_each_tile_through_its_own_head(rows: int | None) -> None:
    method = built(batch_norm_rows=rows, momentum=None if rows is None else 0.9)
    given = views(2 if rows is None else 3)
    outputs = made(method, given)
    expected = method.projector(method.encoder(given[0])), by_hand(method, given[-1])
    found = outputs.groups[0] if rows is None else tuple(z for z, _ in outputs.groups)
    assert all(torch.allclose(z, e, atol=1e-6) for z, e in zip(found, expected, strict=True))
    assert len(outputs.features) == 2, "the run's collapse is looked for in the image's features"
    assert torch.allclose(outputs.features[0], method.encoder(given[0]))


def test_the_order_of_the_tiles_matters_to_the_last_head_alone() -> None:
    method = built()
    image, tiles = views(2)
    first = made(method, [image, tiles])
    other = made(method, [image, tiles.roll(4, 3)])  # each row of tiles, moved on by one
    assert not torch.allclose(first.groups[0][1], other.groups[0][1], atol=1e-4)
    assert torch.allclose(first.features[1], other.features[1], atol=1e-6), "their mean does not know the order"


def test_with_a_slow_copy_image_and_tiles_have_the_key_of_the_plain_second_view() -> None:
    method = built(momentum=0.9)
    given = views(3)
    (image, key), (tiles, same) = made(method, given).groups
    assert key is same
    assert torch.allclose(key, method.projector(method.encoder(given[1])), atol=1e-6), "it starts as a copy"
    assert not key.requires_grad
    assert image.requires_grad
    assert tiles.requires_grad
    with torch.no_grad():
        method.encoder.weight.fill_(2.0)
    method.after_step(0.0)
    assert torch.allclose(method.target["encoder"].weight, torch.full((12,), 1.1))
    assert len(list(method.target.parameters())) == 3, "the head of the tiles has no copy"


def test_both_networks_are_named_for_groups_of_batch_norm_and_the_tiles_are_of_the_first() -> None:
    method = built(momentum=0.9, batch_norm_rows=2)
    apart = method.apart()
    assert set(apart) == {"online", "target"}
    online = {p for p in apart["online"].parameters()}
    assert set(method.tiles.parameters()) < online
    assert not online & set(apart["target"].parameters())
    assert set(built().apart()) == {"online"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tiles": EACH}, "end in 4 and 3 features"),
        ({"tiling": (0, 3)}, "tiling"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"momentum_schedule": "linear"}, "momentum_schedule"),
        ({"batch_norm_rows": 4}, "batch_norm_rows is 4 and momentum None"),
        ({"batch_norm_rows": 1, "momentum": 0.9}, "batch_norm_rows is 1"),
    ],
)
def test_what_does_not_fit_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built(**keys)


def test_too_few_views_are_refused() -> None:
    for keys, count in (({}, 1), ({"momentum": 0.9}, 2)):
        with pytest.raises(ValueError, match="the method image_and_tiles needs"):
            made(built(**keys), views(count))
