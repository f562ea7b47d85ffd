"""Whitened features: the map against its definition, the layer in timm's networks, one process against two."""

import copy

import pytest
import torch
from small_encoders import SMALL

from barlow.distributed import World
from barlow.nets.building import build_encoder
from barlow.nets.encoder_table import TESTED
from barlow.nets.whitening import whiten_encoder, whiten_features, whitening, with_last_layer

ONE = World(torch.device("cpu"))


def features(n: int = 400, d: int = 6, seed: int = 0) -> torch.Tensor:
    """Features whose directions vary by factors of 1 to 100, far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    scales = torch.logspace(0, 2, d, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * scales @ mix + 50


def covariance(x: torch.Tensor) -> torch.Tensor:
    return torch.cov(x.T, correction=0)


def test_without_shrinkage_all_directions_vary_alike_and_the_mean_is_zero() -> None:
    x = features()
    weight, bias = whitening(x.mean(0), covariance(x), 0.0)
    white = x @ weight.T + bias
    torch.testing.assert_close(covariance(white), torch.eye(6, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(white.mean(0), torch.zeros(6, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(weight, weight.T)  # the symmetric root, and not some rotation of it


@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 1.0])
def test_the_map_is_the_inverse_root_of_the_shrunken_covariance(shrinkage: float) -> None:
    x = features()
    sigma = covariance(x)
    weight, _ = whitening(x.mean(0), sigma, shrinkage)
    shrunken = (1 - shrinkage) * sigma + shrinkage * sigma.trace() / 6 * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(weight @ shrunken @ weight, torch.eye(6, dtype=torch.float64), atol=1e-9, rtol=0)
    # With shrinkage 1 nothing but the scale changes.
    if shrinkage == 1:
        torch.testing.assert_close(weight / weight[0, 0], torch.eye(6, dtype=torch.float64), atol=1e-9, rtol=0)


def test_the_scale_of_the_features_does_not_matter() -> None:
    x = features()
    (one,), (other,) = whiten_features(x, 0.1), whiten_features(1000 * x, 0.1)
    torch.testing.assert_close(one, other)


def test_a_feature_that_never_varies_stays_finite() -> None:
    x = features()
    x[:, 2] = 3.0
    for shrinkage in (0.0, 0.1):
        (white,) = whiten_features(x, shrinkage)
        assert white.isfinite().all()
        assert white[:, 2].abs().max() < 1e-6


def test_features_are_whitened_by_the_statistics_of_the_first() -> None:
    x, other = features(seed=0), features(seed=1)
    weight, bias = whitening(x.mean(0), covariance(x), 0.1)
    torch.testing.assert_close(whiten_features(x, 0.1, other)[1], other @ weight.T + bias)


@pytest.mark.parametrize("name", TESTED)
def test_the_last_layer_of_every_family_whitens_its_features(name: str) -> None:
    size = 32
    options = {"patch_size": 8} if name.startswith("vit") else {}
    plain = build_encoder(name, image_size=size, options=options).eval()
    whitened = copy.deepcopy(plain)
    views = [torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    whiten_encoder(whitened, views, 0.1, ONE)
    with torch.no_grad():
        raw, white = (torch.cat([net(view) for view in views]) for net in (plain, whitened))
    (expected,) = whiten_features(raw, 0.1)
    torch.testing.assert_close(white, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
    built = build_encoder(name, image_size=size, options=options, whitened=True)
    assert built.state_dict().keys() == whitened.state_dict().keys()
    assert built.num_features == plain.num_features


def test_a_plain_timm_network_takes_the_weights() -> None:
    import timm

    encoder = build_encoder("resnet18", image_size=32, options=SMALL).eval()
    views = [torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))]
    whiten_encoder(encoder, views, 0.1, ONE)
    theirs = timm.create_model("resnet18", num_classes=64, **SMALL).eval()
    theirs.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(theirs(views[0]), encoder(views[0]))


def test_the_layer_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    with_last_layer(build_encoder("resnet18", image_size=32, options=SMALL), 64)
    assert torch.equal(torch.get_rng_state(), before)


class Two:
    """One of two processes: what the other one has to say is known."""

    size, device = 2, torch.device("cpu")

    def __init__(self, other: torch.Tensor | None = None) -> None:
        self.other = other
        self.own: list[torch.Tensor] = []

    def collect(self, own: torch.Tensor) -> torch.Tensor:
        self.own.append(own)
        return torch.stack([own, own if self.other is None else self.other])


def test_two_processes_whiten_with_the_images_of_both() -> None:
    encoder = build_encoder("resnet18", image_size=32, options=SMALL).eval()
    views = [torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(i)) * (1 + i) for i in range(2)]
    second = Two()
    whiten_encoder(copy.deepcopy(encoder), views[1:], 0.1, second)  # type: ignore[arg-type]
    alone, first = copy.deepcopy(encoder), copy.deepcopy(encoder)
    whiten_encoder(alone, views, 0.1, ONE)
    whiten_encoder(first, views[:1], 0.1, Two(second.own[0]))  # type: ignore[arg-type]
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(first.state_dict()[name], value, msg=name)
