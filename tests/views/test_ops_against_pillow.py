"""Photometric ops and RandAugment against Pillow's own functions, on many draws."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from barlow.views.keys import Keys
from barlow.views.ops import Autocontrast, Equalize, Op, Photometric, Posterize, RandAugment, Sharpness, as_images

Pictures = Callable[..., Tensor]
Change = Callable[..., Image.Image]
MANY = 24_000
FILL = (124, 116, 104)


def keys(n: int) -> Keys:
    return Keys(seed=11, epoch=0, ids=np.arange(n), view=0, op=1)


def difficult(pictures: Pictures, n: int, height: int = 31, width: int = 40) -> Tensor:
    """Pictures, and among them one that is black, one of one colour, one with all levels, one of few."""
    pixels = pictures(n, height, width)
    pixels[0] = 0
    pixels[1] = torch.tensor([30, 200, 255], dtype=torch.uint8).view(3, 1, 1)
    pixels[2, :, :8, :32] = torch.arange(256, dtype=torch.uint8).view(8, 32)
    pixels[3] = pixels[3] // 64 * 20 + 7
    return pixels


def by_pillow(pixels: Tensor, change: Change, *drawn: np.ndarray) -> Tensor:
    """Each image changed by Pillow with its own row of what was drawn."""
    out = []
    for i, image in enumerate(pixels):
        made = change(Image.fromarray(image.permute(1, 2, 0).numpy()), *(values[i] for values in drawn))
        out.append(np.array(made))
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2)


def levels_apart(ours: Tensor, reference: Tensor) -> Tensor:
    return (ours * 255 - reference).abs()


# -------------------------------------------------------------------------------- single ops


@pytest.mark.usefixtures("with_and_without_opencv")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(31, 40), (80, 67)])
def test_posterize_and_equalize_are_exactly_pillows(
    pictures: Pictures, size: tuple[int, int], layout: torch.memory_format
) -> None:
    pixels = difficult(pictures, 40, *size)
    x = as_images(pixels).contiguous(memory_format=layout)
    op = Posterize(1.0, (0, 8))
    bits = op.draws(keys(40))[1]
    assert set(bits) == set(range(9))
    assert torch.equal(
        (op(x, keys(40)) * 255).round().byte(),
        by_pillow(pixels, lambda im, b: ImageOps.posterize(im, int(b)) if b else im.point(lambda _: 0), bits),
    )
    assert torch.equal((Equalize(1.0)(x, keys(40)) * 255).round().byte(), by_pillow(pixels, ImageOps.equalize))


@pytest.mark.parametrize("size", [(31, 40), (80, 67), (3, 3), (2, 9), (2, 2)])
def test_sharpness_is_torchvisions_and_pillows_but_for_rounding(pictures: Pictures, size: tuple[int, int]) -> None:
    pixels = pictures(60, *size)
    op = Sharpness(1.0, (0.1, 1.9))
    factors = op.draws(keys(60))[1]
    ours = op(as_images(pixels), keys(60))
    reference = [F.adjust_sharpness(one, f) for one, f in zip(as_images(pixels), factors, strict=True)]
    torch.testing.assert_close(ours, torch.stack(reference), atol=1e-5, rtol=0)
    if min(size) > 2:
        pillow = by_pillow(pixels, lambda im, f: ImageEnhance.Sharpness(im).enhance(float(f)), factors)
        assert levels_apart(ours, pillow).max() <= 2


def test_autocontrast_is_torchvisions_and_pillows_but_for_rounding(pictures: Pictures) -> None:
    pixels = difficult(pictures, 60)
    ours = Autocontrast(1.0)(as_images(pixels), keys(60))
    torch.testing.assert_close(ours, F.autocontrast(as_images(pixels)), atol=1e-5, rtol=0)
    assert levels_apart(ours, by_pillow(pixels, ImageOps.autocontrast)).max() <= 1 + 1e-4


def test_noise_that_eight_bits_do_not_hold_is_not_stretched() -> None:
    x = 0.4 + 1e-5 * torch.rand(4, 3, 9, 9)
    assert torch.equal(Autocontrast(1.0)(x, keys(4)), x)


def test_all_four_are_pillows_in_their_published_order_or_none_is(pictures: Pictures) -> None:
    def all_four(im: Image.Image, applies: bool, bits: int, factor: float, threshold: int) -> Image.Image:
        if not applies:
            return im
        im = ImageEnhance.Sharpness(ImageOps.posterize(im, int(bits))).enhance(float(factor))
        return ImageOps.autocontrast(ImageOps.solarize(im, int(threshold)))

    pixels, op = difficult(pictures, 200), Photometric()
    draws = op.draws(keys(200))
    reference = by_pillow(pixels, all_four, *draws)
    apart = levels_apart(op(as_images(pixels), keys(200)), reference)
    # Pillow rounds after each: a pixel at the threshold may fall on the other side of it.
    assert np.quantile(apart.numpy(), 0.98) <= 6
    assert apart.mean() < 2
    untouched = torch.from_numpy(~draws[0])
    assert torch.equal(op(as_images(pixels), keys(200))[untouched], as_images(pixels)[untouched])


def test_draws_are_uniform_with_both_ends_among_the_whole_numbers() -> None:
    applies, bits, factor, threshold = Photometric().draws(keys(MANY))
    assert stats.binomtest(int(applies.sum()), MANY, 0.66).pvalue > 1e-3
    assert stats.chisquare(np.bincount(bits)[4:]).pvalue > 1e-3
    assert set(bits) == {4, 5, 6, 7, 8}
    assert stats.kstest(factor, "uniform", args=(0.1, 1.8)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(threshold, minlength=257)).pvalue > 1e-3
    drawn = np.stack([applies, bits, factor, threshold])
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 5 / np.sqrt(MANY)


# -------------------------------------------------------------------------------- RandAugment


def solarize_add(im: Image.Image, amount: float) -> Image.Image:
    return im.point([min(255, i + int(amount)) if i < 128 else i for i in range(256)] * 3)


def moved(im: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return im.transform(im.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL)


PILLOW: dict[str, Callable[[Image.Image, float, float], Image.Image]] = {
    "auto_contrast": lambda im, part, sign: ImageOps.autocontrast(im),
    "equalize": lambda im, part, sign: ImageOps.equalize(im),
    "invert": lambda im, part, sign: ImageOps.invert(im),
    "identity": lambda im, part, sign: im,
    "rotate": lambda im, part, sign: im.rotate(sign * part * 30, Image.Resampling.BILINEAR, fillcolor=FILL),
    "posterize": lambda im, part, sign: (
        ImageOps.posterize(im, int(4 * part)) if part >= 0.25 else im.point(lambda _: 0)
    ),
    "solarize": lambda im, part, sign: ImageOps.solarize(im, int(256 * part)),
    "solarize_add": lambda im, part, sign: solarize_add(im, int(110 * part)),
    "color": lambda im, part, sign: ImageEnhance.Color(im).enhance(0.1 + 1.8 * part),
    "contrast": lambda im, part, sign: ImageEnhance.Contrast(im).enhance(0.1 + 1.8 * part),
    "brightness": lambda im, part, sign: ImageEnhance.Brightness(im).enhance(0.1 + 1.8 * part),
    "sharpness": lambda im, part, sign: ImageEnhance.Sharpness(im).enhance(0.1 + 1.8 * part),
    "shear_x": lambda im, part, sign: moved(im, (1, sign * 0.3 * part, 0, 0, 1, 0)),
    "shear_y": lambda im, part, sign: moved(im, (1, 0, 0, sign * 0.3 * part, 1, 0)),
    "translate_x": lambda im, part, sign: moved(im, (1, 0, sign * 0.45 * part * im.size[0], 0, 1, 0)),
    "translate_y": lambda im, part, sign: moved(im, (1, 0, 0, 0, 1, sign * 0.45 * part * im.size[1])),
}


@pytest.mark.usefixtures("with_and_without_opencv")
@pytest.mark.parametrize("size", [(31, 40), (80, 67)])
@pytest.mark.parametrize("name", PILLOW)
def test_each_op_of_randaugment_is_pillows(pictures: Pictures, name: str, size: tuple[int, int]) -> None:
    op = RandAugment(layers=1, magnitude=6.0, spread=3.0, p=1.0, ops=(name,), fill=tuple(v / 255 for v in FILL))  # type: ignore[arg-type]
    pixels = difficult(pictures, 24, *size)
    _, _, part, sign = (drawn[:, 0] for drawn in op.draws(keys(24)))
    x = as_images(pixels).contiguous(memory_format=torch.channels_last)
    apart = levels_apart(op(x, keys(24)), by_pillow(pixels, PILLOW[name], part, sign))
    # A place that lies on an edge of the image may count as inside for one and outside for the other.
    assert np.quantile(apart.numpy(), 0.999) <= 2
    assert apart.mean() < 0.6


def test_ops_of_randaugment_are_applied_one_after_the_other_as_drawn(pictures: Pictures) -> None:
    op = RandAugment(layers=3, fill=tuple(v / 255 for v in FILL))  # type: ignore[arg-type]
    pixels = pictures(120, 40, 36)
    draws = op.draws(keys(120))

    def all_layers(im: Image.Image, which: Any, applies: Any, part: Any, sign: Any) -> Image.Image:
        for layer in np.flatnonzero(applies):
            im = PILLOW[op.ops[which[layer]]](im, part[layer], sign[layer])
        return im

    apart = levels_apart(op(as_images(pixels), keys(120)), by_pillow(pixels, all_layers, *draws)).flatten(1)
    # Rounding to 8 bits in between is spread by a later equalize, or falls on the other side of a threshold.
    assert np.quantile(apart.mean(1).numpy(), 0.8) < 2
    assert apart.mean() < 4


def test_draws_of_randaugment_are_as_published() -> None:
    which, applies, part, sign = RandAugment(magnitude=5.0, spread=0.5).draws(keys(MANY))
    assert stats.chisquare(np.bincount(which.ravel(), minlength=15)).pvalue > 1e-3
    assert stats.binomtest(int(applies.sum()), applies.size, 0.5).pvalue > 1e-3
    assert stats.binomtest(int((sign > 0).sum()), sign.size, 0.5).pvalue > 1e-3
    assert stats.kstest(10 * part.ravel(), "norm", args=(5.0, 0.5)).pvalue > 1e-3
    columns = np.concatenate([which, applies, part, sign], axis=1).T
    assert np.abs(np.corrcoef(columns) - np.eye(8)).max() < 5 / np.sqrt(MANY)
    clipped = RandAugment().draws(keys(MANY))[2]
    assert clipped.max() == 1.0
    assert abs((clipped == 1.0).mean() - 0.5) < 0.02


def test_images_without_three_channels_keep_their_colour_and_are_moved(pictures: Pictures) -> None:
    x = as_images(pictures(8, 20, channels=4))
    assert torch.equal(RandAugment(p=1.0, ops=("color",))(x, keys(8)), x)
    out = RandAugment(layers=1, p=1.0, ops=("translate_x",), magnitude=10.0, spread=0.0)(x, keys(8))
    assert ((out - sum((0.485, 0.456, 0.406)) / 3).abs() < 1e-6).all(1).any(2).any(1).all()


# -------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Posterize(1.2), "p=1.2"),
        (
            lambda: Posterize(0.5, (5, 9)),
            r"posterize: bits: got \(5, 9\); give \(low, high\) with 0 <= low <= high <= 8",
        ),
        (lambda: Sharpness(0.5, (1.0, 0.5)), r"sharpness: factor: got \(1.0, 0.5\)"),
        (lambda: Autocontrast(-1), "p=-1"),
        (lambda: Equalize(2), "p=2"),
        (lambda: Photometric(threshold=(0, 300)), r"photometric: threshold: got \(0, 300\)"),
        (lambda: RandAugment(layers=0), "layers=0; give 1 to 16"),
        (lambda: RandAugment(magnitude=11), "magnitude=11, spread=0.5; give each from 0 to 10"),
        (lambda: RandAugment(ops=("turn",)), "ops: got 'turn'; give some of auto_contrast, brightness"),
        (lambda: RandAugment(ops=()), "ops: got none"),
        (lambda: RandAugment(fill=(0.5, 0.5, 2.0)), "three numbers from 0 to 1"),
    ],
)
def test_parameters_out_of_range_are_named(make: Callable[[], Op], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
