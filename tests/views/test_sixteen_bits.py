"""Images held in 16 bits, of any number of channels: the views are those of 8 bits where the pixels are the same."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from barlow.levels import white
from barlow.types import taken
from barlow.views.keys import Keys
from barlow.views.ops import (
    ChannelDropout,
    ChannelJitter,
    ColorJitter,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Op,
    RandomResizedCrop,
    Solarize,
    as_images,
)
from barlow.views.pipeline import ViewPipeline
from barlow.views.sheet import view_sheet

Pictures = Callable[..., Tensor]


def deep(pixels: Tensor, seed: int = 0) -> Tensor:
    """The same pictures in 16 bits, with a low byte of their own: 8 bits do not hold them."""
    low = np.random.default_rng(seed).integers(0, 256, pixels.shape, np.uint16)
    return torch.from_numpy(pixels.numpy().astype(np.uint16) * np.uint16(256) + low)


def pair(channels: int, size: int, *, colour_first: bool = False) -> ViewPipeline:
    colour: list[Op] = [ColorJitter(), Grayscale()]
    if channels not in (1, 3):
        colour = [ChannelJitter(channels), ChannelDropout(channels)]
    crop: list[Op] = [RandomResizedCrop(size, scale=(0.2, 1.0)), HorizontalFlip()]
    ops = [*colour, *crop] if colour_first else [*crop, *colour]
    return ViewPipeline([[*ops, GaussianBlur(0.5), Solarize(0.2)], ops], (0.0,) * channels, (1.0,) * channels)


def in_workers(p: ViewPipeline, pixels: Tensor, ids: np.ndarray) -> list[Tensor]:
    crops = [p.crop_one(image.numpy(), int(i), 3, 7) for image, i in zip(pixels, ids, strict=True)]
    return p.finish([torch.from_numpy(np.stack(view)) for view in zip(*crops, strict=True)], ids, 3, 7)


CHANNELS = pytest.mark.parametrize("channels", [1, 2, 3, 12])


@CHANNELS
@pytest.mark.parametrize("colour_first", [False, True])
def test_the_same_pixels_in_16_bits_give_the_views_of_8(pictures: Pictures, channels: int, colour_first: bool) -> None:
    pixels, ids = pictures(16, 40, channels=channels), np.arange(500, 516)
    p = pair(channels, 24, colour_first=colour_first)
    wide = torch.from_numpy(pixels.numpy().astype(np.uint16) * np.uint16(257))
    for eight, sixteen in zip(
        p.from_memory(pixels, None, ids, 3, 7), p.from_memory(wide, None, ids, 3, 7), strict=True
    ):
        # A pixel at the threshold of solarisation can fall on either side of it.
        assert ((eight - sixteen).abs() > 1e-5).float().mean() < 1e-3


@CHANNELS
@pytest.mark.parametrize("colour_first", [False, True])
@pytest.mark.parametrize(("side", "size"), [(40, 24), (80, 70), (30, 48)])
def test_memory_and_workers_make_the_same_views_to_a_rounding_of_16_bits(
    pictures: Pictures, channels: int, colour_first: bool, side: int, size: int
) -> None:
    pixels, ids = deep(pictures(8, side, channels=channels)), np.arange(8)
    p = pair(channels, size, colour_first=colour_first)
    for memory, workers in zip(p.from_memory(pixels, None, ids, 3, 7), in_workers(p, pixels, ids), strict=True):
        close = (memory - workers).abs() < 8 / 65_535
        assert close.float().mean() > 0.995, "all but where solarisation or the hue of near-grey tells a rounding"


def test_more_than_256_levels_reach_the_network(pictures: Pictures) -> None:
    ramp = torch.arange(4_096, dtype=torch.int32).to(torch.uint16).view(1, 1, 64, 64)
    p = ViewPipeline([[RandomResizedCrop(64, scale=(1.0, 1.0), ratio=(1.0, 1.0))]], (0.0,), (1.0,))
    for view in (p.from_memory(ramp, None, np.array([0]), 0, 0)[0], in_workers(p, ramp, np.array([0]))[0]):
        assert len(view.unique()) == 4_096
    view = p.centre_from_memory(ramp, None)
    assert torch.equal(view, p.finish_centre(torch.from_numpy(p.centre_crop(ramp[0].numpy())[None])))


@pytest.mark.usefixtures("with_and_without_opencv")
def test_large_colour_images_of_16_bits_take_the_same_way(pictures: Pictures) -> None:
    pixels = deep(pictures(4, 90))
    interleaved = pixels.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    p, ids = pair(3, 80), np.arange(4)
    for planar, other in zip(
        p.finish([pixels, pixels], ids, 3, 7), p.finish([interleaved, interleaved], ids, 3, 7), strict=True
    ):
        assert ((planar - other).abs() > 1e-5).float().mean() < 1e-3


def test_pixels_are_floats_from_0_to_1_at_both_depths() -> None:
    for kind in (torch.uint8, torch.uint16):
        ends = torch.tensor([[[[0, white(torch.empty(0, dtype=kind))]]]]).to(kind)
        assert as_images(ends).flatten().tolist() == [0.0, 1.0]


def test_rows_are_taken_at_both_depths(pictures: Pictures) -> None:
    rows, pixels = torch.tensor([3, 0, 3]), pictures(4, 8)
    for held in (pixels, deep(pixels)):
        assert torch.equal(taken(held, rows), torch.stack([held[3], held[0], held[3]]))
        assert taken(held, rows).dtype == held.dtype


def test_deep_originals_are_shown_in_the_sheet(pictures: Pictures) -> None:
    original = pictures(1, 96, channels=5)[0].permute(1, 2, 0).numpy()
    shown = [view_sheet([o], [[torch.zeros(1, 5, 8, 8)]]) for o in (original, original.astype(np.uint16) * 257)]
    assert np.array_equal(*shown)


# --- Ops of single channels -------------------------------------------------------------------------------------------


def keys(n: int) -> Keys:
    return Keys(1, 2, np.arange(n), 0, 3)


def test_channel_jitter_changes_channels_against_each_other_around_their_own_means() -> None:
    x = torch.rand(64, 5, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.3
    op = ChannelJitter(5, p=1.0, brightness=0.0, contrast=0.0, each=0.2)
    ratio = op(x, keys(64)) / x
    factors = ratio.mean((2, 3))
    torch.testing.assert_close(ratio, factors[:, :, None, None].expand_as(ratio))
    assert 0.8 <= factors.min() < 0.83
    assert 1.17 < factors.max() <= 1.2
    assert (factors.std(1) > 0.01).all(), "each channel has a factor of its own"
    op = ChannelJitter(5, p=1.0, brightness=0.0, contrast=0.5, each=0.0)
    torch.testing.assert_close(op(x, keys(64)).mean((2, 3)), x.mean((2, 3)))


def test_channel_jitter_is_colour_jitter_where_channels_have_no_factor_of_their_own() -> None:
    x = torch.rand(32, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(ChannelJitter(4, p=1.0, each=0.0)(x, keys(32)), x)
    assert torch.equal(ChannelJitter(4, p=0.0)(x, keys(32)), x)
    once = ChannelJitter(4, p=1.0, brightness=0.4, contrast=0.0, each=0.0)(x * 0.5, keys(32)) / (x * 0.5)
    torch.testing.assert_close(once, once[:, :1, :1, :1].expand_as(once))


@pytest.mark.parametrize(("channels", "lost"), [(2, 1), (3, 1), (4, 2), (12, 6), (13, 6)])
def test_channel_dropout_gives_half_of_the_channels_their_mean(channels: int, lost: int) -> None:
    x = torch.rand(200, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    out = ChannelDropout(channels, p=0.5)(x, keys(200))
    torch.testing.assert_close(out.mean((2, 3)), x.mean((2, 3)))
    flat = (out - out.mean((2, 3), keepdim=True)).abs().amax((2, 3)) < 1e-6
    assert set(flat.sum(1).tolist()) == {0, lost}
    assert 0.4 < (flat.sum(1) > 0).float().mean() < 0.6
    assert (flat.float().mean(0) > 0.05).all(), "any of the channels"
    assert torch.equal(out[~flat], x[~flat])


def test_images_of_other_channels_and_odd_arguments_are_refused() -> None:
    x = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match="got images of 3 channels and channels=12"):
        ChannelJitter(12)(x, keys(2))
    with pytest.raises(ValueError, match="got images of 3 channels and channels=12"):
        ChannelDropout(12)(x, keys(2))
    with pytest.raises(ValueError, match="channels=0"):
        ChannelJitter(0)
    with pytest.raises(ValueError, match=r"share=1.0; give a share above 0 and below 1"):
        ChannelDropout(3, share=1.0)
    with pytest.raises(ValueError, match=r"each=-0.1"):
        ChannelJitter(3, each=-0.1)
