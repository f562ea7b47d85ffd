"""The centre view: one view of each image without any draw, for passes that embed all images."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from barlow.views.keys import Keys
from barlow.views.ops import ColorJitter, HorizontalFlip, Normalize, Op, RandomResizedCrop, as_images
from barlow.views.pipeline import ViewPipeline

Pictures = Callable[..., Tensor]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = (0.0,) * 3, (1.0,) * 3


def pipeline(size: int, mean: tuple[float, ...] = PLAIN[0], std: tuple[float, ...] = PLAIN[1]) -> ViewPipeline:
    first: list[Op] = [ColorJitter(), RandomResizedCrop(size), HorizontalFlip()]
    return ViewPipeline([first, [RandomResizedCrop(16)]], mean, std)


def from_workers(p: ViewPipeline, images: list[np.ndarray]) -> Tensor:
    return p.finish_centre(torch.from_numpy(np.stack([p.centre_crop(image) for image in images])))


@pytest.mark.parametrize(("height", "width", "size"), [(60, 60, 24), (61, 90, 24), (90, 48, 64), (33, 33, 33)])
def test_it_is_the_central_square_as_torchvision_cuts_and_resizes_it(
    pictures: Pictures, height: int, width: int, size: int
) -> None:
    pixels, side = pictures(8, height, width), min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    reference = F.resized_crop(pixels, top, left, side, side, [size] * 2, InterpolationMode.BICUBIC, antialias=True)
    p = pipeline(size, MEAN, STD)
    ours = from_workers(p, [image.numpy() for image in pixels])
    assert torch.equal(ours, Normalize(MEAN, STD)(as_images(reference)))
    assert ours.shape == (8, 3, size, size)


@pytest.mark.parametrize(("side", "size"), [(32, 32), (64, 48), (40, 64)])
def test_memory_and_workers_make_the_same_centre_view(pictures: Pictures, side: int, size: int) -> None:
    pixels, p = pictures(48, side), pipeline(size)
    memory, workers = p.centre_from_memory(pixels, None), from_workers(p, [image.numpy() for image in pixels])
    error = (memory - workers).abs()
    assert error.mean() <= 1 / 255
    assert error.max() <= 3 / 255  # the rounding of the worker's kernel: its weights to 16 bits, its passes to 8


def test_it_is_resampled_to_the_bit_as_a_random_crop_of_the_same_box(pictures: Pictures) -> None:
    pixels, p = pictures(10, 40), pipeline(24)
    crop = RandomResizedCrop(24, scale=(1.0, 1.0), ratio=(1.0, 1.0))  # its box is the whole image
    assert crop.boxes(np.full(10, 40), np.full(10, 40), Keys(0, 0, np.arange(10), 0)).tolist() == [[0, 0, 40, 40]] * 10
    assert torch.equal(p.centre_from_memory(pixels, None), crop(as_images(pixels), Keys(0, 0, np.arange(10), 0)))


@pytest.mark.parametrize(("height", "width"), [(120, 180), (180, 120), (121, 160)])
def test_an_image_held_at_a_square_gives_the_centre_of_the_original(
    pictures: Pictures, height: int, width: int
) -> None:
    # Resized from smooth pictures of a tenth of the size, so that what is held has all that is seen of the original.
    smooth = pictures(16, height // 10, width // 10).float()
    originals = torch.nn.functional.interpolate(smooth, (height, width), mode="bicubic").clamp(0, 255)
    held = torch.nn.functional.interpolate(originals, (64, 64), mode="bicubic", antialias=True).clamp(0, 255)
    held, p = held.round().byte(), pipeline(32)
    workers = from_workers(p, [image.round().byte().numpy() for image in originals])
    memory = p.centre_from_memory(held, torch.tensor([[height, width]] * 16))
    assert (memory - workers).abs().mean() < 2 / 255
    assert (p.centre_from_memory(held, None) - workers).abs().mean() > 4 / 255, "the whole image, squashed"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_neither_batch_nor_draws_change_it(pictures: Pictures, channels: int) -> None:
    pixels, sizes = pictures(30, 32, channels=channels), np.random.default_rng(0).integers(20, 90, (30, 2))
    p = pipeline(24, (0.4,) * channels, (0.2,) * channels)
    whole = p.centre_from_memory(pixels, sizes)
    assert torch.equal(p.centre_from_memory(pixels, sizes), whole)
    for part in (slice(0, 1), slice(1, 12), slice(12, 30)):
        assert torch.equal(p.centre_from_memory(pixels[part], torch.from_numpy(sizes[part])), whole[part])
    crops = torch.from_numpy(np.stack([p.centre_crop(image.numpy()) for image in pixels]))
    finished = p.finish_centre(crops)
    for part in (slice(0, 1), slice(1, 30)):
        assert torch.equal(p.finish_centre(crops[part]), finished[part])


def test_a_worker_takes_an_image_of_any_layout_and_of_any_shape() -> None:
    p = pipeline(24)
    for height, width in ((1, 400), (400, 1), (3, 2), (50, 77)):
        planar = np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8)
        interleaved = np.ascontiguousarray(planar.transpose(1, 2, 0)).transpose(2, 0, 1)
        one, other = p.centre_crop(planar), p.centre_crop(interleaved)
        assert one.shape == (3, 24, 24)
        assert np.array_equal(one, other)


def test_inputs_that_do_not_fit_are_refused(pictures: Pictures) -> None:
    p, pixels = pipeline(24), pictures(4, 32)
    with pytest.raises(ValueError, match=r"torch\.float32; give uint8"):
        p.centre_from_memory(as_images(pixels), None)
    with pytest.raises(ValueError, match=r"4 images and sizes \(3, 2\)"):
        p.centre_from_memory(pixels, np.ones((3, 2)))
    with pytest.raises(ValueError, match="float64; give uint8"):
        p.centre_crop(np.zeros((3, 8, 8)))
    with pytest.raises(ValueError, match=r"torch\.float32; give uint8"):
        p.finish_centre(as_images(pixels))
    with pytest.raises(ValueError, match="images of 1 channels and means of 3"):
        p.centre_from_memory(pixels[:, :1], None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_centre_view_made_on_a_gpu_is_that_made_on_the_cpu(pictures: Pictures) -> None:
    pixels, p = pictures(32, 48), pipeline(32)
    on_gpu = p.centre_from_memory(pixels.cuda(), None)
    assert on_gpu.is_cuda
    assert (p.centre_from_memory(pixels, None) - on_gpu.cpu()).abs().mean() < 1 / 255
