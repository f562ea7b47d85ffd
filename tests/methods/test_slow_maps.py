"""SlowMaps: which network sees which view, what a group is, how the slow copy moves, and what is refused."""

from typing import Any

import pytest
import torch
from nets.small_encoders import small_encoder
from torch import Tensor, nn

from barlow.methods._networks import Method
from barlow.methods.slow_maps import SlowMaps
from barlow.nets.maps import last_stages, maps_of, measured_maps, sizes_of_maps
from barlow.types import Rows


def slow_maps(**keys: Any) -> Method:
    section = SlowMaps(**({"border": 0, "features": 64, "maps": [(8, 8, 32), (4, 4, 64)]} | keys))
    return section.build(lambda: (small_encoder("strided"), 64), seed=0)


def rows(*sides: int) -> Rows:
    generator = torch.Generator().manual_seed(1)
    return Rows([torch.randn(4, 3, side, side, generator=generator) for side in sides], {"ids": torch.arange(4)})


def stages_by_hand(network: Any, x: Tensor) -> list[Tensor]:
    """What the last two stages of a ResNet make of images: layer by layer."""
    x = network.maxpool(network.act1(network.bn1(network.conv1(x))))
    third = network.layer3(network.layer2(network.layer1(x)))
    return [third, network.layer4(third)]


def test_the_copy_gives_maps_of_the_first_view_and_the_encoder_features_of_the_others() -> None:
    method = slow_maps().eval()
    with torch.no_grad():
        method.target["encoder"].conv1.weight.mul_(-1)  # two networks
    given = rows(64, 64, 32)
    outputs = method(given)
    for view, f, (p, _) in zip(given.views[1:], outputs.features, outputs.groups, strict=True):
        assert p is f
        assert torch.allclose(f, method.encoder(view), atol=1e-5)
    targets = [t for _, t in outputs.groups]
    assert all(t is targets[0] for t in targets)
    third, fourth = stages_by_hand(method.target["encoder"], given.views[0])
    by_position = [m.permute(0, 2, 3, 1).reshape(4, -1) for m in (third, fourth)]
    assert torch.allclose(targets[0], torch.cat(by_position, dim=1), atol=1e-5)
    assert targets[0].shape[1] == 8 * 8 * 32 + 4 * 4 * 64


def test_positions_at_the_edges_are_left_out() -> None:
    whole = slow_maps().eval()(rows(64, 64)).groups[0][1]
    inner = slow_maps(border=1, maps=[(6, 6, 32), (2, 2, 64)]).eval()(rows(64, 64)).groups[0][1]
    third, fourth = whole.split([8 * 8 * 32, 4 * 4 * 64], dim=1)
    expected = [m[:, 1:-1, 1:-1].flatten(1) for m in (third.view(4, 8, 8, 32), fourth.view(4, 4, 4, 64))]
    assert inner.equal(torch.cat(expected, dim=1))


def test_crops_of_one_size_take_one_pass_and_batch_norm_counts_it_once() -> None:
    together, apart = slow_maps(), slow_maps(passes="each_view")
    for method, passes in ((together, 2), (apart, 3)):
        method(rows(64, 32, 32, 64))
        assert int(method.encoder.bn1.num_batches_tracked) == passes
        assert int(method.target["encoder"].bn1.num_batches_tracked) == 1, "the copy collects statistics of its own"


def test_no_gradient_reaches_the_copy_which_follows_the_encoder_after_an_update() -> None:
    method = slow_maps(momentum=0.9, momentum_schedule="constant")
    outputs = method(rows(64, 64))
    outputs.groups[0][0].sum().backward()
    assert not outputs.groups[0][1].requires_grad
    assert all(p.grad is None for p in method.target.parameters())
    before = method.target["encoder"].conv1.weight.clone()
    with torch.no_grad():
        method.encoder.conv1.weight.add_(1)
    method.after_step(0.5)
    expected = 0.9 * before + 0.1 * method.encoder.conv1.weight
    assert torch.allclose(method.target["encoder"].conv1.weight, expected, atol=1e-6)


def test_on_a_cosine_the_copy_stops_following_at_the_end() -> None:
    method = slow_maps(momentum=0.0)
    with torch.no_grad():
        method.encoder.conv1.weight.add_(1)
    method.after_step(1.0)
    assert torch.allclose(method.target["encoder"].conv1.weight, method.encoder.conv1.weight - 1, atol=1e-6)
    method.after_step(0.0)
    assert method.target["encoder"].conv1.weight.equal(method.encoder.conv1.weight)


def test_what_is_auto_is_measured_and_what_is_given_stays() -> None:
    built = {"name": "resnet18", "stem": "strided", "options": {"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64]}}
    features, maps = measured_maps(built, 3, 64, 2, 1)
    assert (features, maps) == (64, [(6, 6, 32), (2, 2, 64)])
    section = SlowMaps().resolved(features, maps)
    assert section.widths(3) == [(64, 6 * 6 * 32 + 2 * 2 * 64)] * 2
    assert SlowMaps(features=7).resolved(features, maps).features == 7
    with pytest.raises(ValueError, match="features or maps are auto"):
        SlowMaps().widths(2)


def test_one_level_is_the_last_stage_and_a_transformer_has_maps_too() -> None:
    network = small_encoder("strided")
    assert last_stages(network, 1) == last_stages(network, 2)[1:]
    assert sizes_of_maps(network, 3, 64, 1, 0) == [(4, 4, 64)]
    built = {"name": "vit_tiny_patch16_224", "options": {"patch_size": 8, "embed_dim": 12, "depth": 4, "num_heads": 2}}
    assert measured_maps(built, 3, 32, 2, 1) == (12, [(2, 2, 12), (2, 2, 12)])


def test_channels_of_a_position_lie_side_by_side() -> None:
    network = small_encoder("strided").eval()
    x = rows(64).views[0]
    (m,) = maps_of(network, x, last_stages(network, 1))
    assert torch.allclose(m[:, 1, 2], stages_by_hand(network, x)[1][:, :, 1, 2], atol=1e-5)


def test_a_border_that_leaves_nothing_is_refused_with_one_that_leaves_something() -> None:
    with pytest.raises(ValueError, match=r"2 × 2 positions, of 32-pixel images, .* --method.border 0"):
        sizes_of_maps(small_encoder("strided"), 3, 32, 1, 1)


def test_an_encoder_without_maps_or_with_fewer_stages_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Flatten does not give the maps .* resnet18"):
        last_stages(nn.Flatten(), 1)
    with pytest.raises(ValueError, match="6 levels, and ResNet has 5 stages"):
        last_stages(small_encoder(), 6)


def test_another_number_of_features_than_the_encoders_is_refused() -> None:
    with pytest.raises(ValueError, match="features is 63, and the encoder gives 64"):
        slow_maps(features=63)


@pytest.mark.parametrize(
    "bad",
    [
        {"levels": 0},
        {"border": -1},
        {"momentum": 1.0},
        {"momentum_schedule": "linear"},
        {"passes": "all"},
        {"maps": [(1, 1, 4)]},
        {"maps": [(1, 1, 4), (0, 1, 4)]},
    ],
)
def test_keys_out_of_range_are_refused_by_name(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        SlowMaps(**bad)
