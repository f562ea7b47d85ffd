"""The siamese topology: passes, batch norm over one view or all, and what it refuses."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from barlow.methods._networks import Method
from barlow.methods.siamese import Siamese
from barlow.nets.heads import Head
from barlow.types import Rows


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


HEAD = Head(widths=[5, 4], hidden_bias=True, last_bias=True)


def projector() -> nn.Module:
    return HEAD.build(6, 0, "projector")


def siamese(sees: str = "each_view", network: nn.Module | None = None) -> Method:
    section = Siamese(projector=HEAD, batch_norm_sees=sees)  # type: ignore[arg-type]
    return section.build(lambda: (encoder() if network is None else network, 6), seed=0)


def rows(count: int = 2) -> Rows:
    # views of different scale: batch norm over one of them and over all of them then differ
    generator = torch.Generator().manual_seed(1)
    views = [(k + 1) * torch.randn(8, 3, 6, 6, generator=generator) + k for k in range(count)]
    return Rows(views, {"ids": torch.arange(8)})


def embeddings(method: Method, given: Rows) -> list[Tensor]:
    (group,) = method(given).groups
    return list(group)


def test_each_view_takes_a_forward_pass_of_its_own_through_both_networks() -> None:
    method = siamese()
    outputs = method(rows())
    expected = encoder()
    for view, f, z in zip(rows().views, outputs.features, outputs.groups[0], strict=True):
        torch.testing.assert_close(f, expected(view))
        torch.testing.assert_close(z, projector()(f))
    assert method.encoder[1].num_batches_tracked == 2
    assert method.projector.norm0.num_batches_tracked == 2


def test_all_views_share_the_projectors_batch_norm_but_not_the_encoders() -> None:
    method = siamese("all_views")
    z = embeddings(method, rows(3))
    expected = encoder()
    together = projector()(torch.cat([expected(view) for view in rows(3).views]))
    assert [len(view) for view in z] == [8, 8, 8]
    torch.testing.assert_close(torch.cat(z), together)
    assert method.encoder[1].num_batches_tracked == 3
    assert method.projector.norm0.num_batches_tracked == 1
    assert not torch.allclose(embeddings(siamese(), rows(3))[0], z[0], atol=0.1)


def test_all_views_are_compared_with_each_other() -> None:
    outputs = siamese()(rows())
    assert [f.shape for f in outputs.features] == [(8, 6)] * 2
    assert [[z.shape for z in group] for group in outputs.groups] == [[(8, 4)] * 2]


def test_one_view_is_a_group_of_its_own() -> None:
    outputs = siamese()(rows(1))
    assert [[z.shape for z in group] for group in outputs.groups] == [[(8, 4)]]


def test_gradients_reach_both_networks_from_every_view() -> None:
    for k in range(2):
        method = siamese()
        embeddings(method, rows())[k].square().sum().backward()
        assert bool(method.encoder[0].weight.grad.any())
        assert bool(method.projector.linear0.weight.grad.any())


def test_channels_last_gives_the_same_embeddings() -> None:
    plain = embeddings(siamese(), rows())
    method = siamese().to(memory_format=torch.channels_last)
    last = Rows([view.contiguous(memory_format=torch.channels_last) for view in rows().views], rows().known)
    torch.testing.assert_close(embeddings(method, last), plain)


@pytest.mark.parametrize(
    ("network", "got"),
    [
        (nn.Conv2d(3, 6, 3), r"shape \(8, 6, 4, 4\)"),
        (nn.Flatten(0), r"shape \(864,\)"),
        (nn.Flatten(0, 1), r"shape \(24, 6, 6\)"),
        (nn.MultiheadAttention(6, 1), "tuple"),
    ],
)
def test_an_encoder_that_does_not_make_rows_of_features_is_refused(network: nn.Module, got: str) -> None:
    if isinstance(network, nn.MultiheadAttention):
        network.forward = lambda x: (x, x)  # type: ignore[assignment, method-assign]
    with pytest.raises(ValueError, match=rf"the encoder made {got}.*\(n, features\)"):
        siamese(network=network)(rows())


def test_no_views_and_unknown_batch_norm_are_refused() -> None:
    with pytest.raises(ValueError, match="no views"):
        siamese()(rows(0))
    with pytest.raises(ValueError, match="choose one of each_view, all_views"):
        siamese("both")


# --- Crops of two sizes ---------------------------------------------------------------------------------------------


def crops() -> Rows:
    """Two large views and three small ones, each of another scale."""
    generator = torch.Generator().manual_seed(1)
    sides = (6, 6, 4, 4, 4)
    views = [(k + 1) * torch.randn(8, 3, side, side, generator=generator) + k for k, side in enumerate(sides)]
    return Rows(views, {"ids": torch.arange(8)})


def of_section(**keys: Any) -> Method:
    return Siamese(projector=HEAD, **keys).build(lambda: (encoder(), 6), seed=0)


def test_the_encoder_takes_all_views_of_a_size_in_one_pass() -> None:
    method, views = of_section(passes="each_size"), crops().views
    found = method(crops()).features
    expected = encoder()
    large, small = expected(torch.cat(views[:2])), expected(torch.cat(views[2:]))
    torch.testing.assert_close(torch.cat(found[:2]), large)
    torch.testing.assert_close(torch.cat(found[2:]), small)
    assert method.encoder[1].num_batches_tracked == 2
    assert not torch.allclose(found[0], of_section()(crops()).features[0], atol=0.05)


def test_views_of_one_size_need_not_lie_together() -> None:
    given = crops()
    order = [0, 2, 1, 3, 4]
    mixed = Rows([given.views[i] for i in order], given.known)
    found, expected = of_section(passes="each_size")(mixed).features, of_section(passes="each_size")(given).features
    for place, i in enumerate(order):
        if i < 2:  # the pass of the large ones has them in the same order
            torch.testing.assert_close(found[place], expected[i])
    assert [f.shape for f in found] == [(8, 6)] * 5


def test_only_pairs_with_a_large_view_are_compared() -> None:
    outputs = of_section(large=2)(crops())
    (everything,) = of_section()(crops()).groups
    pairs = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)]
    assert len(outputs.groups) == len(pairs)
    for group, (i, j) in zip(outputs.groups, pairs, strict=True):
        torch.testing.assert_close(group, (everything[i], everything[j]))


@pytest.mark.parametrize(("keys", "message"), [({"large": 0}, "large is 0"), ({"passes": "all"}, "passes is 'all'")])
def test_sizes_that_cannot_be_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_section(**keys)
    with pytest.raises(ValueError, match="needs 2 views"):
        of_section(large=1)(rows(1))
