"""Views that are not square, against float64 loops; and square ones, which stay what they were."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from nightly_cases import nightly_but
from oracles import crop as oracle
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from barlow.data.memory import hold
from barlow.data.sources import ArraySource
from barlow.views.keys import Keys
from barlow.views.ops import ColorJitter, GaussianBlur, HorizontalFlip, Op, RandomResizedCrop, RandomRotate90, as_images
from barlow.views.pipeline import ViewPipeline

Pictures = Callable[..., Tensor]
PLAIN = (0.0,) * 3, (1.0,) * 3
SIZES = pytest.mark.parametrize("size", [(32, 128), (48, 16), (20, 27), (1, 9)], ids=str)


def keys(n: int) -> Keys:
    return Keys(seed=11, epoch=0, ids=np.arange(n), view=0)


@SIZES
@pytest.mark.parametrize(("height", "width"), [(40, 600), (600, 40), (64, 64), (33, 90), (2, 500)])
@pytest.mark.parametrize(("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.9, 1.0), (1.0, 1.0))])
def test_boxes_are_those_of_a_slow_loop(
    size: tuple[int, int],
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> None:
    n, crop = 100, RandomResizedCrop(size, scale, ratio)
    uniforms = crop.draws(keys(n))[0]
    boxes = crop.boxes(np.full(n, height), np.full(n, width), keys(n))
    shares, ratios = crop.shapes(uniforms)
    for row in range(n):
        expected = oracle.box(height, width, uniforms[row].tolist(), size=size, scale=scale, ratio=ratio)
        assert tuple(boxes[row]) == expected
        assert crop.box_of_one(height, width, shares[row].tolist(), ratios[row].tolist(), uniforms[row]) == expected


def test_content_is_stretched_no_more_than_in_a_square_view() -> None:
    n, size = 2000, (32, 128)
    boxes = RandomResizedCrop(size, scale=(0.2, 0.4)).boxes(np.full(n, 1000), np.full(n, 4000), keys(n))
    stretched = (boxes[:, 3] / size[1]) / (boxes[:, 2] / size[0])
    assert 0.745 < stretched.min() < 0.76
    assert 1.32 < stretched.max() < 1.34
    square = RandomResizedCrop(64, scale=(0.2, 0.4)).boxes(np.full(n, 2000), np.full(n, 2000), keys(n))
    np.testing.assert_allclose(stretched, square[:, 3] / square[:, 2], rtol=5e-3)


@pytest.mark.parametrize(
    ("size", "height", "width"),
    nightly_but(
        [(size, *sides) for size in [(32, 128), (48, 16), (20, 27)] for sides in [(30, 200), (90, 25), (64, 64)]],
        lambda case: case in [((48, 16), 30, 200), ((20, 27), 90, 25)],
    ),
)
def test_pixels_are_those_of_a_slow_loop(pictures: Pictures, size: tuple[int, int], height: int, width: int) -> None:
    pixels, crop = pictures(4, height, width), RandomResizedCrop(size)
    boxes = crop.boxes(np.full(4, height), np.full(4, width), keys(4))
    ours = crop(as_images(pixels), keys(4))
    assert ours.shape == (4, 3, *size)
    for row in range(4):
        whole = crop.resample_one(pixels[row].numpy(), boxes[row])
        assert whole.shape == (3, *size)
        for channel in range(3):
            expected = oracle.view(pixels[row, channel].numpy() / 255, tuple(boxes[row].tolist()), size)
            assert np.abs(ours[row, channel].double().numpy() - expected).max() < 1e-4
            assert np.abs(whole[channel] / 255 - expected).max() <= 3 / 255  # rounded to 8 bits in each pass


def test_the_box_of_torchvisions_ratio_gives_torchvisions_view(pictures: Pictures) -> None:
    pixels, crop = pictures(16, 50, 300), RandomResizedCrop((24, 80))
    boxes = crop.boxes(np.full(16, 50), np.full(16, 300), keys(16))
    reference = [
        F.resized_crop(one, *map(int, box), [24, 80], InterpolationMode.BICUBIC, antialias=True)
        for one, box in zip(pixels, boxes, strict=True)
    ]
    assert (crop(as_images(pixels), keys(16)) - as_images(torch.stack(reference))).abs().max() <= 3 / 255


def test_two_equal_sides_are_a_square_to_the_bit(pictures: Pictures) -> None:
    x = as_images(pictures(12, 40, 70))
    assert RandomResizedCrop((24, 24)) == RandomResizedCrop(24)  # type: ignore[arg-type]
    assert torch.equal(RandomResizedCrop((24, 24))(x, keys(12)), RandomResizedCrop(24)(x, keys(12)))


# --- The pipeline -------------------------------------------------------------------------------------------------


def views(size: int | tuple[int, int]) -> list[list[Op]]:
    first: list[Op] = [RandomResizedCrop(size), HorizontalFlip(), ColorJitter(), GaussianBlur(0.5)]
    return [first, [ColorJitter(), RandomResizedCrop(size), HorizontalFlip()]]


def in_workers(p: ViewPipeline, pixels: Tensor, ids: np.ndarray) -> list[Tensor]:
    crops = [p.crop_one(image.numpy(), int(i), 3, 7) for image, i in zip(pixels, ids, strict=True)]
    return p.finish([torch.from_numpy(np.stack(view)) for view in zip(*crops, strict=True)], ids, 3, 7)


@pytest.mark.usefixtures("with_and_without_opencv")
@pytest.mark.parametrize(("height", "width", "size"), [(48, 96, (24, 80)), (100, 60, (96, 24)), (40, 40, (16, 48))])
def test_memory_and_workers_make_the_same_views(
    pictures: Pictures, height: int, width: int, size: tuple[int, int]
) -> None:
    pixels, ids = pictures(24, height, width), np.arange(500, 524)
    p = ViewPipeline(views(size), *PLAIN)
    assert p.sizes == (size, size)
    memory = p.from_memory(pixels, None, ids, 3, 7)
    for one, other in zip(memory, in_workers(p, pixels, ids), strict=True):
        assert one.shape == other.shape == (24, 3, *size)
        assert (one - other).abs().mean() <= 1 / 255
        assert np.quantile((one - other).abs().numpy(), 0.99) <= 6 / 255


@SIZES
@pytest.mark.parametrize(("height", "width"), [(40, 600), (90, 30), (2, 7), (64, 64)])
def test_the_centre_view_is_the_largest_central_box_of_its_aspect_ratio(
    pictures: Pictures, size: tuple[int, int], height: int, width: int
) -> None:
    pixels, p = pictures(3, height, width), ViewPipeline([[RandomResizedCrop(size)]], *PLAIN)
    top, left, h, w = (int(edge) for edge in oracle.central_box(height, width, size))
    reference = F.resized_crop(pixels, top, left, h, w, list(size), InterpolationMode.BICUBIC, antialias=True)
    workers = torch.from_numpy(np.stack([p.centre_crop(image.numpy()) for image in pixels]))
    assert torch.equal(workers, reference)
    assert (p.centre_from_memory(pixels, None) - p.finish_centre(workers)).abs().max() <= 3 / 255


def test_images_held_at_a_size_that_is_not_square_are_cropped_as_the_originals_are(pictures: Pictures) -> None:
    # Smooth, and enlarged from a tenth of the size, so that what is held has all that is seen of the original.
    smooth = torch.nn.functional.interpolate(pictures(16, 6, 40).float(), (60, 400), mode="bicubic").clamp(0, 255)
    originals = smooth.round().byte()
    _, held = hold(ArraySource("strips", originals.permute(0, 2, 3, 1).numpy()), (48, 192))
    assert held.pixels.shape == (16, 3, 48, 192)
    p, ids = ViewPipeline([[RandomResizedCrop((16, 64))]], *PLAIN), np.arange(16)
    (memory,), (workers,) = p.from_memory(held.pixels, held.sizes, ids, 3, 7), in_workers(p, originals, ids)
    assert (memory - workers).abs().mean() < 3 / 255
    (squashed,) = p.from_memory(held.pixels, None, ids, 3, 7)
    assert (squashed - workers).abs().mean() > 10 / 255


@pytest.mark.parametrize("ops", [[RandomResizedCrop((16, 32)), RandomRotate90()], [RandomRotate90(), HorizontalFlip()]])
def test_quarter_turns_of_views_that_are_not_square_are_refused(ops: list[Op]) -> None:
    ops = ops if isinstance(ops[0], RandomResizedCrop) else [RandomRotate90(), RandomResizedCrop((16, 32))]
    message = r"view 2: got random_rotate90 and a size of 16x32 \(height x width\); .* give one side \(16\), or leave"
    with pytest.raises(ValueError, match=message):
        ViewPipeline([[RandomResizedCrop(16)], ops], *PLAIN)
