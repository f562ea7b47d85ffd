"""What a run hands out: the whitening against its definition, stages of every family, one process against two."""

import copy

import pytest
import torch
import torch.nn.functional as F
from small_encoders import SMALL
from torch import nn

from barlow.distributed import World
from barlow.nets.building import build_encoder
from barlow.nets.encoder_table import TESTED
from barlow.nets.handed_out import (
    HandedOut,
    earlier_stages,
    enough_shrinkage,
    freeze_stages,
    handed_out,
    whiten_features,
    whitening,
)

ONE = World(torch.device("cpu"))


def features(n: int = 400, d: int = 6, seed: int = 0) -> torch.Tensor:
    """Features whose directions vary by factors of 1 to 100, far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    scales = torch.logspace(0, 2, d, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * scales @ mix + 50


def covariance(x: torch.Tensor) -> torch.Tensor:
    return torch.cov(x.T, correction=0)


def white(x: torch.Tensor, shrinkage: float, widths: list[int]) -> torch.Tensor:
    weight, bias = whitening(x.mean(0), covariance(x), shrinkage, widths)
    return x @ weight.T + bias


def test_without_shrinkage_all_directions_vary_alike_and_the_mean_is_zero() -> None:
    made = white(features(), 0.0, [2, 4])
    torch.testing.assert_close(covariance(made), torch.eye(6, dtype=torch.float64), atol=1e-8, rtol=0)
    torch.testing.assert_close(made.mean(0), torch.zeros(6, dtype=torch.float64), atol=1e-8, rtol=0)


@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 1.0])
def test_the_map_equals_its_definition_step_by_step(shrinkage: float) -> None:
    x = features()
    # Every feature varies alike, and a stage of four as much as a stage of two.
    scaled = (x - x.mean(0)) / x.std(0, correction=0) / torch.tensor([2, 2, 4, 4, 4, 4], dtype=torch.float64).sqrt()
    sigma = covariance(scaled)
    shrunken = (1 - shrinkage) * sigma + shrinkage * sigma.trace() / 6 * torch.eye(6, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(shrunken)
    expected = scaled @ (vectors / values.sqrt()) @ vectors.T
    torch.testing.assert_close(white(x, shrinkage, [2, 4]), expected)


def test_the_scale_of_a_feature_does_not_matter() -> None:
    x = features()
    scales = torch.tensor([1, 10, 1e-3, 5, 1e3, 7], dtype=torch.float64)
    torch.testing.assert_close(white(x, 0.1, [6]), white(scales * x, 0.1, [6]))


def test_the_shrinkage_grows_where_images_are_few() -> None:
    assert enough_shrinkage(0.1, 512, 10**9) == 0.1
    assert enough_shrinkage(0.1, 500, 5_000) == 0.1, "1 / 11 is less"
    assert enough_shrinkage(0.1, 500, 500) == 0.5
    assert enough_shrinkage(0.9, 500, 500) == 0.9


def test_few_images_do_not_make_noise_of_full_size() -> None:
    """Thirty images vary in 29 directions of 200. New ones are then about as near to them as they were before."""
    g = torch.Generator().manual_seed(0)
    kinds = torch.randn(3, 200, generator=g).repeat(20, 1)
    features = kinds + torch.randn(60, 200, generator=g)
    known, new = whiten_features(features[:30], 0.1, features[30:])
    nearest = (F.normalize(new) @ F.normalize(known).T).argmax(1) % 3
    assert float((nearest == torch.arange(30) % 3).float().mean()) > 0.9


def test_with_much_shrinkage_every_stage_counts_alike() -> None:
    made = white(features(d=12), 1.0, [2, 10]).square().sum(0)
    assert float(made[:2].sum()) == pytest.approx(float(made[2:].sum()))


def test_a_feature_that_never_varies_is_left_out() -> None:
    x = features()
    x[:, 2] = 3.0
    for shrinkage in (0.0, 0.1):
        made = white(x, shrinkage, [6])
        assert made.isfinite().all()
        assert made[:, 2].abs().max() < 1e-6


def test_features_are_whitened_by_the_statistics_of_the_first() -> None:
    x, other = features(seed=0), features(seed=1)
    weight, bias = whitening(x.mean(0), covariance(x), 0.1, [6])
    torch.testing.assert_close(whiten_features(x, 0.1, other)[1], other @ weight.T + bias)


def network(name: str) -> nn.Module:
    options = {"patch_size": 8} if name.startswith("vit") else {}
    return build_encoder(name, image_size=32, options=options).eval()


def batches(count: int = 3) -> list[torch.Tensor]:
    return [torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(count)]


FAMILIES = [*TESTED, "tf_efficientnet_lite0"]


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_of_every_family_are_the_means_of_its_maps_and_its_own_features(name: str) -> None:
    plain = network(name)
    made = HandedOut(plain, "all", whitened=False)
    (view,) = batches(1)
    with torch.no_grad():
        together, own = made(view), plain(view)
        maps = plain.forward_intermediates(view, indices=made.indices, intermediates_only=True)
    assert len(maps) >= 3
    assert together.shape[1] == sum(made.widths) == made.num_features
    expected = torch.cat([*(each.flatten(2).mean(2) for each in maps), own], 1)
    torch.testing.assert_close(together, expected)


def test_a_stage_is_the_last_map_of_its_resolution() -> None:
    assert earlier_stages(network("resnet18")) == [0, 1, 2, 3]
    assert earlier_stages(network("vit_tiny_patch16_224")) == [2, 5, 8], "blocks at a quarter, half, three quarters"


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "resnet50"])  # 3,904 features take a minute
def test_the_last_layer_whitens_what_the_stages_give(name: str) -> None:
    made = HandedOut(network(name), "all", whitened=True)
    made.fit(batches(), 0.1, ONE)
    with torch.no_grad():
        raw = torch.cat([torch.cat(made.parts(view), 1) for view in batches()])
        whitened = torch.cat([made(view) for view in batches()])
    shrunk = raw.shape[1] / (raw.shape[1] + len(raw))  # more than 0.1: there are fewer images than features
    expected = white(raw.double(), shrunk, made.widths).float()
    torch.testing.assert_close(whitened, expected, rtol=1e-2, atol=1e-2 * float(expected.std()))


def test_nothing_is_wrapped_where_nothing_is_asked_for() -> None:
    plain = network("resnet18")
    assert handed_out(plain, "last", None) is plain
    whitened = handed_out(plain, "last", 0.1)
    assert isinstance(whitened, HandedOut)
    assert whitened.widths == [512]
    assert whitened.network is plain


def test_making_it_draws_nothing_and_leaves_the_network_as_it_was() -> None:
    plain = build_encoder("resnet18", image_size=32, options=SMALL).train()
    before, state = torch.get_rng_state(), copy.deepcopy(plain.state_dict())
    HandedOut(plain, "all", whitened=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    assert all(module.training for module in plain.modules())


class Two:
    """One of two processes: what the other one has to say is known."""

    size, device = 2, torch.device("cpu")

    def __init__(self, other: torch.Tensor | None = None) -> None:
        self.other = other
        self.own: list[torch.Tensor] = []

    def collect(self, own: torch.Tensor) -> torch.Tensor:
        self.own.append(own)
        return torch.stack([own, own if self.other is None else self.other])


def test_two_processes_whiten_by_the_images_of_both() -> None:
    views = batches(2)
    alone, first, second = (HandedOut(network("resnet18"), "all", whitened=True) for _ in range(3))
    other = Two()
    second.fit(views[1:], 0.1, other)  # type: ignore[arg-type]
    first.fit(views[:1], 0.1, Two(other.own[0]))  # type: ignore[arg-type]
    alone.fit(views, 0.1, ONE)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(first.state_dict()[name], value, msg=name)


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("resnet18", 1, "layer1."),
        ("resnet18", 3, "layer3."),
        ("tf_efficientnet_lite0", 3, "blocks.3."),
        ("convnext_atto", 2, "stages.2."),
        ("vit_tiny_patch16_224", 4, "blocks.4."),
    ],
)
def test_the_first_stages_are_frozen_and_no_others(name: str, count: int, first: str) -> None:
    net = network(name)
    frozen = freeze_stages(net, count)
    named = list(net.named_parameters())
    assert 0 < frozen < len(named)
    assert [p.requires_grad for _, p in named] == [False] * frozen + [True] * (len(named) - frozen)
    assert named[frozen][0].startswith(first)
    net.train()
    net(batches(1)[0]).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for _, p in named if p.requires_grad or p.grad is None)
    assert not [name for name, p in named[:frozen] if p.grad is not None]


def test_nothing_is_frozen_unless_it_is_asked_for_and_never_all() -> None:
    net = network("resnet18")
    assert freeze_stages(net, 0) == 0
    assert all(p.requires_grad for p in net.parameters())
    with pytest.raises(ValueError, match=r"frozen_stages is 5: ResNet has 5, of which one has to be trained"):
        freeze_stages(net, 5)
    with pytest.raises(ValueError, match=r"Sequential does not say what its stages are"):
        freeze_stages(nn.Sequential(nn.Flatten()), 1)
