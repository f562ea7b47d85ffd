"""Stems that see an image's lightness alone, as networks of colorization have them."""

import pytest
import torch
from torch import nn

from barlow.colour_spaces import grey_of_lightness, lightness
from barlow.nets.building import build_encoder
from barlow.nets.stems import STEMS, LightnessConv2d, sees_lightness

OF_LIGHTNESS = ["small_lightness", "strided_lightness", "plain_lightness"]
NARROW = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


def images(n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("stem", OF_LIGHTNESS)
def test_the_convolution_is_of_one_channel_which_is_the_lightness_from_minus_one_to_one(stem: str) -> None:
    encoder = build_encoder("resnet26", image_size=32, stem=stem, options=NARROW).eval()
    conv, twin = encoder.conv1, STEMS[stem.removesuffix("_lightness")]
    assert twin is not None
    assert (conv.in_channels, conv.kernel_size[0], conv.stride[0], conv.padding[0]) == (1, *twin[:3])
    assert isinstance(encoder.maxpool, nn.Identity) != twin.pooled
    plain = nn.functional.conv2d(lightness(images()) / 50 - 1, conv.weight, None, conv.stride, conv.padding)
    assert torch.equal(conv(images()), plain)
    assert torch.allclose(encoder(images()), encoder(grey_of_lightness(images())), atol=1e-5)


def test_black_is_minus_one_white_is_one_and_what_lies_outside_is_one_of_them() -> None:
    conv = LightnessConv2d(1, 1, 1, bias=False)
    nn.init.ones_(conv.weight)
    seen = conv(torch.tensor([0.0, 1.0, -3.0, 4.0]).view(4, 1, 1, 1).expand(4, 3, 1, 1))
    assert seen.flatten().tolist() == pytest.approx([-1, 1, -1, 1], abs=1e-5)


def test_images_without_three_channels_are_refused_with_the_stem_that_would_do() -> None:
    with pytest.raises(ValueError, match="these have 4 channels: give stem 'strided'"):
        build_encoder("resnet18", in_channels=4, image_size=32, stem="strided_lightness")


def test_a_gradient_reaches_the_weights_and_is_finite_at_black() -> None:
    conv = LightnessConv2d(1, 4, 3)
    conv(torch.zeros(1, 3, 8, 8)).sum().backward()
    assert conv.weight.grad.isfinite().all()
    assert conv.weight.grad.abs().sum() > 0


def test_they_are_told_from_the_others_by_their_name() -> None:
    assert [stem for stem in STEMS if sees_lightness(stem)] == OF_LIGHTNESS
    assert not sees_lightness("auto")
