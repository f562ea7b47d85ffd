"""The method of tiles: each tile alone through the encoder, all of them side by side through a head."""

import pytest
import torch
from torch import Tensor, nn

from barlow.methods._tiles import TileHeads
from barlow.methods.tiles import Tiles
from barlow.nets.heads import Head
from barlow.types import Rows
from barlow.views.ops.tiles import cut, joined


class Encoder(nn.Module):
    """Says of each tile the mean of its left and of its right half."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.mean(1).chunk(2, dim=2)
        return torch.stack([left.mean((1, 2)), right.mean((1, 2))], dim=1)


def head(*widths: int) -> Head:
    return Head(widths=list(widths), hidden_bias=True, last_bias=True, batch_norm=False)


def built(section: Tiles) -> nn.Module:
    return section.build(lambda *_, **__: (Encoder(), 2), seed=0).eval()


def rows(view: Tensor) -> Rows:
    return Rows([view], {"ids": torch.arange(len(view))})


@pytest.mark.parametrize("each", [None, head(5)])
@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("tiling", [(1, 2), (2, 3)])
def test_logits_are_those_of_tiles_one_by_one_put_side_by_side(
    tiling: tuple[int, int], rectified: bool, each: Head | None
) -> None:
    method = built(Tiles(tiling=tiling, each=each, rectified=rectified, head=head(7, 4)))
    view = torch.randn(3, 3, 4 * tiling[0], 6 * tiling[1], generator=torch.Generator().manual_seed(0))
    outputs = method(rows(view))
    for i in range(3):
        parts = []
        for row in range(tiling[0]):
            for column in range(tiling[1]):
                tile = view[i : i + 1, :, 4 * row : 4 * row + 4, 6 * column : 6 * column + 6]
                part = method.heads.each(method.encoder(tile))
                parts.append(part.relu() if rectified else part)
        torch.testing.assert_close(outputs.groups[0][0][i], method.heads.together(torch.cat(parts, 1))[0])
    (features,) = outputs.features
    tiles = method.encoder(cut(view, tiling)).view(3, -1, 2)
    torch.testing.assert_close(features, tiles.mean(1))


def test_the_order_in_which_tiles_lie_is_seen_by_the_head_and_not_by_the_encoder() -> None:
    method = built(Tiles(tiling=(2, 2), head=head(4)))
    view = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([2, 0, 3, 1])
    tiles = cut(view, (2, 2)).view(2, 4, 3, 4, 4)
    shuffled = joined(tiles[:, order].flatten(0, 1), (2, 2))
    plain, moved = method(rows(view)), method(rows(shuffled))
    assert not torch.allclose(plain.groups[0][0], moved.groups[0][0])
    torch.testing.assert_close(moved.features[0], plain.features[0])


def test_two_such_heads_of_one_method_start_from_other_weights_and_those_of_one_seed_alike() -> None:
    def weights(seed: int, part: str) -> Tensor:
        heads = TileHeads((2, 2), 3, each=head(4), rectified=False, together=head(5), seed=seed, part=part)
        return torch.cat([p.flatten() for p in heads.parameters()])

    assert weights(0, "tiles").equal(weights(0, "tiles"))
    assert not weights(0, "tiles").equal(weights(1, "tiles"))
    assert not weights(0, "tiles").equal(weights(0, "patches"))


@pytest.mark.parametrize("tiling", [(0, 3), (3,), (-1, 2)])
def test_a_tiling_that_is_no_grid_is_refused(tiling: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="give rows and columns of the tiles"):
        Tiles(tiling=tiling, head=head(4))  # type: ignore[arg-type]


def test_views_that_do_not_divide_into_tiles_are_refused() -> None:
    with pytest.raises(ValueError, match=r"views of 8 pixels in 3 × 3 tiles: give views whose sides are multiples"):
        built(Tiles(head=head(4)))(rows(torch.zeros(2, 3, 8, 8)))
