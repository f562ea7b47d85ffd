"""Every op against torchvision's reference on the same draws, and the draws against torchvision's distributions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from barlow.views.keys import Keys
from barlow.views.ops import (
    ColorJitter,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Normalize,
    RandomResizedCrop,
    Solarize,
    as_images,
)
from barlow.views.ops.crop import resampling_weights

Pictures = Callable[..., Tensor]
BICUBIC = v2.InterpolationMode.BICUBIC


def keys(n: int, epoch: int = 0, op: int = 0) -> Keys:
    return Keys(seed=11, epoch=epoch, ids=np.arange(n), view=0, op=op)


def assert_close(ours: Tensor, reference: Tensor) -> None:
    """The bounds every resampled or recoloured image must keep: mean error 1/255, 99th percentile 6/255."""
    error = (ours - reference).abs()
    assert error.mean() <= 1 / 255
    assert np.quantile(error.numpy(), 0.99) <= 6 / 255


# ---------------------------------------------------------------------------------------------------------------- exact


def test_flip_is_exactly_torchvisions(pictures: Pictures) -> None:
    x = as_images(pictures(64, 31, 40))
    flipped = keys(64).uniform(0) < 0.5
    assert 0 < flipped.sum() < 64
    expected = torch.stack([F.horizontal_flip(one) if f else one for one, f in zip(x, flipped, strict=True)])
    assert torch.equal(HorizontalFlip(0.5)(x, keys(64)), expected)


def test_grayscale_is_exactly_torchvisions(pictures: Pictures) -> None:
    x = as_images(pictures(64, 31, 40))
    greyed = keys(64).uniform(0) < 0.2
    assert 0 < greyed.sum() < 64
    expected = torch.stack([F.rgb_to_grayscale(one, 3) if f else one for one, f in zip(x, greyed, strict=True)])
    assert torch.equal(Grayscale(0.2)(x, keys(64)), expected)


@pytest.mark.parametrize("threshold", [0, 100, 128, 256])
def test_solarize_is_exactly_torchvisions_and_pillows(pictures: Pictures, threshold: int) -> None:
    pixels = pictures(16, 31, 40)
    pixels[0, 0, :8, :32] = torch.arange(256, dtype=torch.uint8).view(8, 32)
    ours = Solarize(1.0, threshold)(as_images(pixels), keys(16))
    if threshold <= 255:  # torchvision refuses more
        assert torch.equal(ours, F.solarize(as_images(pixels), threshold / 255))
    pillow = [np.array(ImageOps.solarize(Image.fromarray(p.permute(1, 2, 0).numpy()), threshold)) for p in pixels]
    assert torch.equal((ours * 255).round().byte(), torch.from_numpy(np.stack(pillow)).permute(0, 3, 1, 2))


def test_normalize_is_exactly_torchvisions(pictures: Pictures) -> None:
    x = as_images(pictures(8, 31))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert torch.equal(Normalize(mean, std)(x), F.normalize(x, list(mean), list(std)))


# ----------------------------------------------------------------------------------------------------------------- crop


def crop_both_ways(pixels: Tensor, size: int, scale: tuple[float, float] = (0.08, 1.0)) -> tuple[Tensor, Tensor]:
    crop = RandomResizedCrop(size, scale)
    n, _, h, w = pixels.shape
    boxes = crop.boxes(np.full(n, h), np.full(n, w), keys(n))
    reference = [
        F.resized_crop(one, *map(int, box), [size, size], BICUBIC, antialias=True)
        for one, box in zip(pixels, boxes, strict=True)
    ]
    return crop(as_images(pixels), keys(n)), as_images(torch.stack(reference))


@pytest.mark.parametrize(
    ("height", "width", "size"), [(32, 32, 32), (128, 128, 32), (32, 32, 96), (50, 91, 64), (96, 96, 96), (300, 40, 24)]
)
def test_crop_is_torchvisions_resized_crop(pictures: Pictures, height: int, width: int, size: int) -> None:
    ours, reference = crop_both_ways(pictures(48, height, width), size)
    assert_close(ours, reference)
    # What is left is the reference's rounding: its weights to 16 bits, its rows and then its pixels to 8.
    assert (ours - reference).abs().max() <= 3 / 255


def test_crop_of_photographs_is_torchvisions(photos: Tensor) -> None:
    for size in (32, 96, 160):
        assert_close(*crop_both_ways(photos, size))


def test_crop_is_torchs_float_resampling_but_for_rounding(pictures: Pictures) -> None:
    x = as_images(pictures(32, 70, 45)) * 0.5 + 0.25  # far from 0 and 1: nothing is clipped
    crop = RandomResizedCrop(28)
    boxes = crop.boxes(np.full(32, 70), np.full(32, 45), keys(32))
    reference = [
        F.resized_crop(one, *map(int, box), [28, 28], BICUBIC, antialias=True)
        for one, box in zip(x, boxes, strict=True)
    ]
    torch.testing.assert_close(crop(x, keys(32)), torch.stack(reference), atol=2e-5, rtol=0)


def test_crop_of_one_image_is_torchvisions_on_its_pixels(pictures: Pictures) -> None:
    crop = RandomResizedCrop(40)
    for channels in (1, 3, 4, 13):
        image = pictures(1, 120, 77, channels=channels)[0]
        box = crop.boxes(np.array([120]), np.array([77]), keys(1, epoch=channels))[0]
        reference = F.resized_crop(image, *map(int, box), [40, 40], BICUBIC, antialias=True)
        assert np.array_equal(crop.resample_one(image.numpy(), box), reference.numpy())


def test_an_image_held_at_a_square_is_cropped_in_its_original_coordinates() -> None:
    # A smooth slope: squeezing it and cropping the squeezed box gives what cropping the original gives.
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 160), torch.linspace(0, 1, 80), indexing="ij")
    original = torch.stack([rows, columns, (rows + columns) / 2])[None].expand(32, -1, -1, -1)
    held = torch.nn.functional.interpolate(original, (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    crop = RandomResizedCrop(32)
    sizes = np.tile([[160, 80]], (32, 1))
    assert (crop(held, keys(32), sizes) - crop(original, keys(32))).abs().max() < 0.01
    assert (crop(held, keys(32)) - crop(original, keys(32))).abs().max() > 0.1


def test_a_box_thinner_than_a_held_pixel_still_gives_its_pixel() -> None:
    starts, lengths = torch.tensor([3.25, 0.0, 7.9]), torch.tensor([0.1, 0.05, 0.1])
    weights = resampling_weights(starts, lengths, side=8, size=4)
    assert torch.equal(weights.argmax(-1), torch.tensor([[3] * 4, [0] * 4, [7] * 4]))
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4))


# ------------------------------------------------------------------------------------------------------ blur and colour


@pytest.mark.usefixtures("with_and_without_opencv")
@pytest.mark.parametrize(("height", "width"), [(32, 32), (12, 12), (33, 32), (96, 70), (70, 97), (224, 224)])
def test_blur_is_torchvisions_with_byols_kernel(pictures: Pictures, height: int, width: int) -> None:
    n = 8
    x = as_images(pictures(n, height, width))
    sigmas = 0.1 + 1.9 * keys(n).uniform(1)
    reference = torch.stack([F.gaussian_blur(one, [23, 23], [s, s]) for one, s in zip(x, sigmas, strict=True)])
    ours = GaussianBlur(1.0)(x, keys(n))
    assert_close(ours, reference)
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("with_and_without_opencv")
def test_blur_of_images_in_any_layout_is_the_same(pictures: Pictures) -> None:
    x = as_images(pictures(3, 96, 80))
    expected = GaussianBlur(1.0)(x, keys(3))
    for other in (x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
        assert not other.is_contiguous()
        torch.testing.assert_close(GaussianBlur(1.0)(other, keys(3)), expected, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("with_and_without_opencv")
@pytest.mark.parametrize(("height", "width"), [(300, 5), (2, 90), (2, 65), (5, 8)])
def test_blur_of_thin_images_is_its_definition(pictures: Pictures, height: int, width: int) -> None:
    # torchvision cannot reflect 11 pixels deep there. Rows and columns have each their own kernel.
    def weights(sigma: float, side: int) -> Tensor:
        radius = min(11, side - 1)
        at = torch.arange(-radius, radius + 1)
        taps = torch.exp(-0.5 * (at / sigma) ** 2).double()
        taps /= taps.sum()
        matrix = torch.zeros(side, side, dtype=torch.float64)
        for row in range(side):
            for offset, tap in zip(at.tolist(), taps, strict=True):
                column = abs(row + offset)
                matrix[row, 2 * (side - 1) - column if column >= side else column] += tap
        return matrix

    x = as_images(pictures(8, height, width))
    sigmas = 0.1 + 1.9 * keys(len(x)).uniform(1)
    reference = [
        weights(s, x.shape[2]) @ one.double() @ weights(s, x.shape[3]).T for one, s in zip(x, sigmas, strict=True)
    ]
    torch.testing.assert_close(GaussianBlur(1.0)(x, keys(len(x))), torch.stack(reference).float(), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("with_and_without_opencv")
def test_blur_keeps_its_mean_on_images_smaller_than_its_kernel() -> None:
    for side in (1, 2, 8, 11):
        ones = torch.ones(4, 1, side, side)
        torch.testing.assert_close(GaussianBlur(1.0)(ones, keys(4)), ones)


def test_blur_of_photographs_is_near_pillows(photos: Tensor) -> None:
    sigmas = 0.1 + 1.9 * keys(len(photos)).uniform(1)
    pillow = [
        np.array(Image.fromarray(p.permute(1, 2, 0).numpy()).filter(ImageFilter.GaussianBlur(float(s))))
        for p, s in zip(photos, sigmas, strict=True)
    ]
    reference = as_images(torch.from_numpy(np.stack(pillow)).permute(0, 3, 1, 2))
    # Pillow approximates the Gaussian by repeated box blurs, so this is looser than the bound against the formula.
    assert (GaussianBlur(1.0)(as_images(photos), keys(len(photos))) - reference).abs().mean() <= 2 / 255


JITTERS = {
    "brightness": (ColorJitter(1.0, 0.4, 0, 0, 0), F.adjust_brightness, 0),
    "contrast": (ColorJitter(1.0, 0, 0.4, 0, 0), F.adjust_contrast, 1),
    "saturation": (ColorJitter(1.0, 0, 0, 0.4, 0), F.adjust_saturation, 2),
    "hue": (ColorJitter(1.0, 0, 0, 0, 0.5), F.adjust_hue, 3),
}


@pytest.mark.parametrize("part", JITTERS)
def test_each_part_of_the_jitter_is_torchvisions(pictures: Pictures, part: str) -> None:
    jitter, reference_op, column = JITTERS[part]
    pixels = pictures(64, 30, 41)
    pixels[0] = 0
    pixels[1] = 255
    pixels[2, :] = pixels[2, :1]  # grey: no hue
    pixels[3] = torch.randint(0, 2, pixels[3].shape, generator=torch.Generator().manual_seed(0)) * 255
    x = as_images(pixels)
    factors = jitter.draws(keys(64))[1][:, column]
    reference = torch.stack([reference_op(one, f) for one, f in zip(x, factors, strict=True)])
    ours = jitter(x, keys(64))
    assert_close(ours, reference)
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=0)


def jittered_by_torchvision(x: Tensor, jitter: ColorJitter, at: Keys) -> Tensor:
    steps = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    out = []
    for one, applies, factors, order in zip(x, *jitter.draws(at), strict=True):
        for kind in order if applies else ():
            one = steps[kind](one, factors[kind])
        out.append(one)
    return torch.stack(out)


def test_the_whole_jitter_is_torchvisions_in_each_samples_own_order(pictures: Pictures) -> None:
    x = as_images(pictures(256, 16, 20))
    jitter = ColorJitter()
    ours = jitter(x, keys(256))
    reference = jittered_by_torchvision(x, jitter, keys(256))
    assert_close(ours, reference)
    torch.testing.assert_close(ours, reference, atol=1e-4, rtol=0)


def test_the_order_of_the_jitter_matters_so_that_a_fixed_one_would_be_seen(pictures: Pictures) -> None:
    class InOneOrder(ColorJitter):
        def draws(self, keys: Keys) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            applies, factors, order = super().draws(keys)
            return applies, factors, np.tile(np.arange(4), (len(order), 1))

    x = as_images(pictures(256, 16, 20))
    assert (InOneOrder()(x, keys(256)) - jittered_by_torchvision(x, ColorJitter(), keys(256))).abs().max() > 0.01


def test_jitter_of_photographs_is_torchvisions(photos: Tensor) -> None:
    x, jitter = as_images(photos), ColorJitter(1.0, 0.8, 0.8, 0.8, 0.2)
    assert_close(jitter(x, keys(len(x))), jittered_by_torchvision(x, jitter, keys(len(x))))


def test_contrast_of_other_images_pulls_towards_the_mean_of_all_channels(pictures: Pictures) -> None:
    for channels in (1, 2, 4, 13):
        x = as_images(pictures(8, 20, channels=channels))
        jitter = ColorJitter(1.0, 0, 0.4, 0.4, 0.2)  # saturation and hue must do nothing here
        factors = torch.from_numpy(jitter.draws(keys(8))[1][:, 1]).float().view(-1, 1, 1, 1)
        mean = x.mean((1, 2, 3), keepdim=True)
        torch.testing.assert_close(jitter(x, keys(8)), (factors * x + (1 - factors) * mean).clamp(0, 1))


# ---------------------------------------------------------------------------------------------- distributions of draws

MANY = 24_000


@pytest.mark.parametrize(("height", "width"), [(32, 32), (375, 500), (600, 100)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.2, 1.0)])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int, scale: tuple[float, float]) -> None:
    ours = RandomResizedCrop(32, scale).boxes(np.full(MANY, height), np.full(MANY, width), keys(MANY))
    reference_op = v2.RandomResizedCrop(32, scale)
    blank = torch.empty(1, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [reference_op.make_params([blank]) for _ in range(2000)]
    reference = np.array([[p["top"], p["left"], p["height"], p["width"]] for p in drawn])
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], reference[:, column]).pvalue > 1e-3
    place = ours[:, 0] / np.maximum(height - ours[:, 2], 1)
    reference_place = reference[:, 0] / np.maximum(height - reference[:, 2], 1)
    assert stats.ks_2samp(place, reference_place).pvalue > 1e-3
    assert stats.ks_2samp(ours[:, 2] * ours[:, 3], reference[:, 2] * reference[:, 3]).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 400), (400, 1), (2, 9), (5000, 3), (64, 64)])
def test_boxes_lie_inside_the_image_and_fall_back_to_torchvisions_centre(height: int, width: int) -> None:
    boxes = RandomResizedCrop(8).boxes(np.full(2000, height), np.full(2000, width), keys(2000))
    top, left, h, w = boxes.T
    assert min(top.min(), left.min()) >= 0
    assert min(h.min(), w.min()) >= 1
    assert (top + h).max() <= height
    assert (left + w).max() <= width
    never_fits = RandomResizedCrop(8, scale=(4.0, 5.0))
    expected = v2.RandomResizedCrop(8, (4.0, 5.0)).make_params([torch.empty(1, height, width)])
    box = never_fits.boxes(np.array([height]), np.array([width]), keys(1))[0]
    assert box.tolist() == [expected["top"], expected["left"], expected["height"], expected["width"]]


def test_the_box_of_one_image_is_the_one_it_has_among_others() -> None:
    n, rng = 2_000, np.random.default_rng(0)
    heights, widths = rng.integers(1, 700, n), rng.integers(1, 700, n)
    heights[:40], widths[20:60] = 1, 3  # some take the central box
    crop = RandomResizedCrop(32)
    (uniforms,) = crop.draws(keys(n))
    shares, ratios = crop.shapes(uniforms)
    one_by_one = [
        crop.box_of_one(int(h), int(w), shares[i].tolist(), ratios[i].tolist(), uniforms[i])
        for i, (h, w) in enumerate(zip(heights, widths, strict=True))
    ]
    assert np.array_equal(one_by_one, crop.boxes(heights, widths, keys(n)))


def test_boxes_of_different_images_are_those_of_each_alone() -> None:
    rng = np.random.default_rng(0)
    heights, widths = rng.integers(1, 600, 300), rng.integers(1, 600, 300)
    crop = RandomResizedCrop(32)
    together = crop.boxes(heights, widths, keys(300))
    alone = [crop.boxes(heights[i : i + 1], widths[i : i + 1], keys(300).rows(i, i + 1))[0] for i in range(300)]
    assert np.array_equal(together, np.stack(alone))


def test_jitter_draws_follow_torchvisions_distributions() -> None:
    applies, factors, order = ColorJitter(0.8, 0.4, 0.4, 0.2, 0.1).draws(keys(MANY))
    assert stats.binomtest(int(applies.sum()), MANY, 0.8).pvalue > 1e-3
    ranges = [(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]
    for column, (low, high) in enumerate(ranges):
        assert stats.kstest(factors[:, column], "uniform", args=(low, high - low)).pvalue > 1e-3
    orders, counts = np.unique(order, axis=0, return_counts=True)
    assert len(orders) == 24
    assert stats.chisquare(counts).pvalue > 1e-3
    correlation = np.corrcoef(np.column_stack([applies, factors, order[:, :3]]).T)[:5]
    assert np.abs(correlation - np.eye(5, 8)).max() < 5 / np.sqrt(MANY)


def test_a_strength_above_one_never_turns_an_image_negative() -> None:
    factors = ColorJitter(1.0, brightness=1.5).draws(keys(MANY))[1][:, 0]
    assert factors.min() >= 0
    assert stats.kstest(factors, "uniform", args=(0, 2.5)).pvalue > 1e-3


@pytest.mark.parametrize("op", [HorizontalFlip(0.3), Solarize(0.3, 0), GaussianBlur(0.3), Grayscale(0.3)], ids=repr)
def test_an_op_strikes_as_often_as_its_probability_says(op: Callable[..., Tensor]) -> None:
    x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).expand(MANY, -1, -1, -1)
    struck = int((op(x, keys(MANY)) != x).flatten(1).any(1).sum())
    # A blur of sigma below about 0.13 changes nothing in float32: it may miss as much.
    slack = 0.3 * 0.02 if isinstance(op, GaussianBlur) else 0
    assert abs(struck / MANY - 0.3) < slack + 4 * np.sqrt(0.3 * 0.7 / MANY)


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop(0), "size is 0"),
        (lambda: RandomResizedCrop(32.0), "size is 32.0"),  # type: ignore[arg-type]
        (lambda: RandomResizedCrop(32, scale=(0.5, 0.1)), "scale"),
        (lambda: RandomResizedCrop(32, ratio=(0.0, 1.0)), "ratio"),
        (lambda: RandomResizedCrop(32, interpolation="nearest"), "only 'bicubic'"),
        (lambda: HorizontalFlip(1.2), "p=1.2"),
        (lambda: Grayscale(-0.1), "p=-0.1"),
        (lambda: ColorJitter(brightness=-1), "brightness=-1"),
        (lambda: ColorJitter(hue=0.6), "hue=0.6"),
        (lambda: GaussianBlur(0.5, sigma=(0.0, 1.0)), "sigma"),
        (lambda: Solarize(0.5, threshold=300), "threshold=300"),
        (lambda: Normalize((0.5,), (0.5, 0.5)), "1 means and 2 stds"),
        (lambda: Normalize((0.5,), (0.0,)), "above 0"),
        (lambda: Normalize((0.5,), (0.5,))(torch.zeros(1, 3, 2, 2)), "images of 3 channels"),
    ],
)
def test_parameters_out_of_range_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
