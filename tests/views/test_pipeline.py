"""Two ways to make the views, one table of keys."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from barlow.views.keys import Keys
from barlow.views.ops import (
    ColorJitter,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Normalize,
    Op,
    RandomResizedCrop,
    RandomRotate90,
    Solarize,
    as_images,
)
from barlow.views.pipeline import ViewPipeline

Pictures = Callable[..., Tensor]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def asymmetric(size: int) -> list[list[Op]]:
    """Barlow Twins' pair."""
    shared: list[Op] = [RandomResizedCrop(size), HorizontalFlip(), ColorJitter(), Grayscale()]
    return [[*shared, GaussianBlur(1.0), Solarize(0.0)], [*shared, GaussianBlur(0.1), Solarize(0.2)]]


def small_image(size: int) -> list[list[Op]]:
    """W-MSE's pair: colour before the crop."""
    ops: list[Op] = [
        ColorJitter(0.8, 0.4, 0.4, 0.4, 0.1),
        Grayscale(0.1),
        RandomResizedCrop(size, scale=(0.2, 1.0)),
        HorizontalFlip(),
    ]
    return [ops, ops]


PAIRS = pytest.mark.parametrize("pair", [asymmetric, small_image])


def views_in_workers(p: ViewPipeline, pixels: Tensor, ids: np.ndarray, seed: int, epoch: int) -> list[Tensor]:
    crops = [p.crop_one(image.numpy(), int(i), seed, epoch) for image, i in zip(pixels, ids, strict=True)]
    return p.finish([torch.from_numpy(np.stack(view)) for view in zip(*crops, strict=True)], ids, seed, epoch)


@PAIRS
@pytest.mark.parametrize(("side", "size"), [(32, 32), (64, 48), (40, 64)])
def test_memory_and_workers_make_the_same_views(pictures: Pictures, pair: Callable, side: int, size: int) -> None:
    pixels, ids = pictures(48, side), np.arange(500, 548)
    p = ViewPipeline(pair(size), (0.0,) * 3, (1.0,) * 3)
    for memory, workers in zip(
        p.from_memory(pixels, None, ids, 3, 7), views_in_workers(p, pixels, ids, 3, 7), strict=True
    ):
        error = (memory - workers).abs()
        assert error.mean() <= 1 / 255
        # A pixel on solarisation's threshold may fall on either side of it: a few may differ by a lot.
        assert np.quantile(error.numpy(), 0.99) <= 6 / 255


def test_the_views_are_those_of_the_ops_one_by_one_each_with_its_position_as_key(pictures: Pictures) -> None:
    pixels, ids = pictures(20, 32), np.arange(20)
    views = ViewPipeline(asymmetric(32), MEAN, STD).from_memory(pixels, None, ids, 5, 1)
    for number, ops in enumerate(asymmetric(32)):
        x = as_images(pixels)
        for position, op in enumerate(ops):
            x = op(x, Keys(5, 1, ids, number, position))
        assert torch.equal(views[number], Normalize(MEAN, STD)(x))


@PAIRS
def test_neither_batch_nor_order_nor_resumption_changes_a_view(pictures: Pictures, pair: Callable) -> None:
    pixels, ids = pictures(30, 32), np.arange(1000, 1030)
    whole = ViewPipeline(pair(32), MEAN, STD).from_memory(pixels, None, ids, 0, 4)
    order = np.random.default_rng(0).permutation(30)
    again = ViewPipeline(pair(32), MEAN, STD)  # as after a resumption: nothing ran before
    for part in (order[:7], order[7:8], order[8:]):
        for a, b in zip(again.from_memory(pixels[part], None, ids[part], 0, 4), whole, strict=True):
            assert torch.equal(a, b[torch.from_numpy(part)])


def test_large_batches_made_in_chunks_are_those_made_at_once(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, ids = pictures(25, 32), np.arange(25)
    p = ViewPipeline(asymmetric(32), MEAN, STD)
    at_once = p.from_memory(pixels, None, ids, 0, 0)
    finished = p.finish([pixels, pixels], ids, 0, 0)
    monkeypatch.setattr("barlow.views.pipeline.CHUNK", 4 * 3 * 32 * 32)
    assert all(torch.equal(a, b) for a, b in zip(p.from_memory(pixels, None, ids, 0, 0), at_once, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(p.finish([pixels, pixels], ids, 0, 0), finished, strict=True))


@pytest.mark.parametrize("keep", ["a view", "a part of one", "its pixels as an array"])
def test_memory_of_views_is_used_again_once_nobody_holds_them_and_not_before(pictures: Pictures, keep: str) -> None:
    p, pixels, ids = ViewPipeline(asymmetric(32), MEAN, STD), pictures(16, 32), np.arange(16)
    views = p.from_memory(pixels, None, ids, 0, 0)
    copies, places = [view.clone() for view in views], {view.data_ptr() for view in views}
    held = [{"a view": v, "a part of one": v[3:5, :, 1], "its pixels as an array": v.numpy()}[keep] for v in views]
    expected = [{"a view": v, "a part of one": v[3:5, :, 1], "its pixels as an array": v.numpy()}[keep] for v in copies]
    del views
    used = set()
    for epoch in range(1, 12):  # more than the batches whose memory is kept
        later = p.from_memory(pixels, None, ids, 0, epoch)
        used |= {view.data_ptr() for view in later}
    assert not places & used
    assert len(used) == 2 * 2  # while a batch is made, `later` still holds the one before
    for ours, before in zip(held, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(before))


def test_views_epochs_and_samples_differ(pictures: Pictures) -> None:
    # The same image under different keys: no two views may be equal (the failure of workers that share a seed).
    pixels = pictures(1, 32).expand(64, -1, -1, -1)
    p = ViewPipeline([[RandomResizedCrop(32), ColorJitter(1.0)]] * 3, MEAN, STD)
    views = [view for epoch in range(3) for view in p.from_memory(pixels, None, np.arange(64), 0, epoch)]
    flat = torch.cat(views).flatten(1)
    assert len(torch.unique(flat, dim=0)) == 64 * 9


def test_one_image_gives_a_worker_uint8_views_of_any_layout(pictures: Pictures) -> None:
    p = ViewPipeline(asymmetric(32), MEAN, STD)
    image = pictures(1, 60, 90)[0].numpy()
    interleaved = np.ascontiguousarray(image.transpose(1, 2, 0))
    interleaved.flags.writeable = False
    first = p.crop_one(image, 9, 0, 0)
    assert [view.shape for view in first] == [(3, 32, 32)] * 2
    assert all(view.dtype == np.uint8 for view in first)
    for a, b in zip(first, p.crop_one(interleaved.transpose(2, 0, 1), 9, 0, 0), strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1


@PAIRS
def test_a_batch_cropped_with_draws_made_at_once_is_that_of_each_image_alone(
    pictures: Pictures, pair: Callable
) -> None:
    p, ids = ViewPipeline(pair(32), MEAN, STD), np.array([7, 3, 1000])
    images = [pictures(1, height, width)[0].numpy() for height, width in ((40, 50), (90, 33), (32, 32))]
    crop = p.cropper(ids, 5, 2)
    for row, (image, id) in enumerate(zip(images, ids, strict=True)):
        for a, b in zip(crop(image, row), p.crop_one(image, int(id), 5, 2), strict=True):
            assert np.array_equal(a, b)


@pytest.mark.usefixtures("with_and_without_opencv")
def test_large_views_made_of_interleaved_crops_are_those_of_planar_ones(pictures: Pictures) -> None:
    p, pixels, ids = ViewPipeline(asymmetric(160), MEAN, STD), pictures(12, 160), np.arange(12)
    planar = p.finish([pixels, pixels], ids, 0, 0)
    kept = pixels.contiguous(memory_format=torch.channels_last)
    views = p.finish([kept, kept], ids, 0, 0)
    assert torch.equal(kept, pixels)
    for ours, expected in zip(views, planar, strict=True):
        assert ours.is_contiguous()
        assert expected.is_contiguous()
        torch.testing.assert_close(ours, expected, atol=4e-5, rtol=0)
    for part in (slice(0, 1), slice(1, 7), slice(1, 12, 2)):
        for a, b in zip(p.finish([kept[part]] * 2, ids[part], 0, 0), views, strict=True):
            assert torch.equal(a, b[part])


@pytest.mark.parametrize(("height", "width"), [(80, 1), (1, 80), (65, 64), (2, 66)])
def test_colour_before_the_crop_takes_images_of_any_shape(height: int, width: int) -> None:
    p = ViewPipeline(small_image(16), MEAN, STD)
    planar = np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8)
    interleaved = np.ascontiguousarray(planar.transpose(1, 2, 0)).transpose(2, 0, 1)
    for id in range(8):
        for a, b in zip(p.crop_one(planar, id, 0, 0), p.crop_one(interleaved, id, 0, 0), strict=True):
            assert np.abs(a.astype(int) - b).max() <= 1


def test_images_held_at_a_square_are_cropped_as_the_originals_are(pictures: Pictures) -> None:
    originals = torch.nn.functional.interpolate(pictures(16, 12, 18).float(), (120, 180), mode="bicubic").clamp(0, 255)
    held = torch.nn.functional.interpolate(originals, (64, 64), mode="bicubic", antialias=True).clamp(0, 255)
    originals, held = originals.round().byte(), held.round().byte()
    p = ViewPipeline([[RandomResizedCrop(32)]] * 2, (0.0,) * 3, (1.0,) * 3)
    ids, sizes = np.arange(16), np.tile([[120, 180]], (16, 1))
    memory = p.from_memory(held, torch.from_numpy(sizes), torch.from_numpy(ids), 0, 0)
    for a, b in zip(memory, views_in_workers(p, originals, ids, 0, 0), strict=True):
        assert (a - b).abs().mean() < 2 / 255
    square = p.from_memory(held, None, ids, 0, 0)
    assert (square[0] - memory[0]).abs().mean() > 4 / 255


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_images_of_any_number_of_channels_pass(pictures: Pictures, channels: int) -> None:
    pixels, ids = pictures(6, 40, channels=channels), np.arange(6)
    for pair in (asymmetric, small_image):
        p = ViewPipeline(pair(24), (0.5,) * channels, (0.25,) * channels)
        for view in (*p.from_memory(pixels, None, ids, 0, 0), *views_in_workers(p, pixels, ids, 0, 0)):
            assert view.shape == (6, channels, 24, 24)
            assert torch.isfinite(view).all()


def test_more_than_two_views_are_made_of_different_draws(pictures: Pictures) -> None:
    p = ViewPipeline(small_image(32) + small_image(32), MEAN, STD)
    views = p.from_memory(pictures(4, 32), None, np.arange(4), 0, 0)
    assert len(views) == 4
    assert len({tuple(view.flatten().tolist()) for view in views}) == 4


def multi_crop() -> list[list[Op]]:
    """Two large views and three small ones of a smaller part, as in SwAV."""
    large: list[Op] = [RandomResizedCrop(40, scale=(0.3, 1.0)), HorizontalFlip(), ColorJitter()]
    small: list[Op] = [RandomResizedCrop(16, scale=(0.05, 0.3)), HorizontalFlip(), ColorJitter()]
    return [large, large, small, small, small]


@pytest.mark.parametrize("views", [multi_crop(), asymmetric(24)[:1], small_image(80)[:1]], ids=["5", "1", "1 large"])
def test_there_may_be_any_number_of_views_each_of_its_own_size(pictures: Pictures, views: list[list[Op]]) -> None:
    p, ids = ViewPipeline(views, MEAN, STD), np.arange(70, 82)
    pixels = pictures(12, 48)
    assert p.sizes == tuple(op.size for ops in views for op in ops if isinstance(op, RandomResizedCrop))
    memory, workers = p.from_memory(pixels, None, ids, 1, 2), views_in_workers(p, pixels, ids, 1, 2)
    assert [view.shape for view in memory] == [(12, 3, size, size) for size in p.sizes]
    for a, b in zip(memory, workers, strict=True):
        assert (a - b).abs().mean() <= 1 / 255 / min(STD)
    for number, ops in enumerate(views):
        # A view does not depend on the views beside it: it has the keys of its own place.
        alone = as_images(pixels)
        for position, op in enumerate(ops):
            alone = op(alone, Keys(1, 2, ids, number, position))
        assert torch.equal(memory[number], Normalize(MEAN, STD)(alone))


def test_memory_of_views_of_different_sizes_is_used_again(pictures: Pictures) -> None:
    p, pixels, ids = ViewPipeline(multi_crop(), MEAN, STD), pictures(6, 48), np.arange(6)
    first = {view.data_ptr() for view in p.from_memory(pixels, None, ids, 0, 0)}
    assert {view.data_ptr() for view in p.from_memory(pixels, None, ids, 0, 1)} == first


CROP, TURN = RandomResizedCrop(32), RandomRotate90()


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ([], "got none; give the ops of one view or more"),
        ([[CROP], [HorizontalFlip()]], "view 2: got 0 random_resized_crop"),
        ([[CROP, CROP], [CROP]], "view 1: got 2 random_resized_crop"),
        ([[CROP, Normalize(MEAN, STD)], [CROP]], "view 1: got a normalize op"),
        ([[CROP], [TURN, CROP]], "view 2: got random_resized_crop after random_rotate90; put it before"),
        ([[CROP, TURN, ColorJitter(), HorizontalFlip()]], "view 1: got horizontal_flip after random_rotate90"),
        (
            [[CROP, TURN], [CROP, HorizontalFlip(), TURN]],
            "random_rotate90 of view 1 and random_rotate90 of view 2 both tell 'rotation'; keep one",
        ),
        ([[CROP, TURN, TURN]], "random_rotate90 of view 1 and random_rotate90 of view 1 both tell 'rotation'"),
    ],
)
def test_views_that_cannot_be_made_are_refused(views: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViewPipeline(views, MEAN, STD)


def test_inputs_that_do_not_fit_are_refused(pictures: Pictures) -> None:
    p, pixels = ViewPipeline(asymmetric(32), MEAN, STD), pictures(4, 32)
    with pytest.raises(ValueError, match=r"torch\.float32; give uint8"):
        p.from_memory(as_images(pixels), None, np.arange(4), 0, 0)
    with pytest.raises(ValueError, match=r"ids \(3,\)"):
        p.from_memory(pixels, None, np.arange(3), 0, 0)
    with pytest.raises(ValueError, match=r"sizes \(3, 2\)"):
        p.from_memory(pixels, np.ones((3, 2)), np.arange(4), 0, 0)
    with pytest.raises(ValueError, match="float64; give uint8"):
        p.crop_one(np.zeros((3, 8, 8)), 0, 0, 0)
    with pytest.raises(ValueError, match="got 1 views; give 2"):
        p.finish([pixels], np.arange(4), 0, 0)
    with pytest.raises(ValueError, match=r"4 crops.*ids \(3,\)"):
        p.finish([pixels, pixels], np.arange(3), 0, 0)
    with pytest.raises(ValueError, match="images of 1 channels and means of 3"):
        p.from_memory(pixels[:, :1], None, np.arange(4), 0, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_views_made_on_a_gpu_are_those_made_on_the_cpu(pictures: Pictures) -> None:
    pixels, ids = pictures(32, 48), np.arange(32)
    p = ViewPipeline(asymmetric(32), MEAN, STD)
    for a, b in zip(p.from_memory(pixels, None, ids, 0, 0), p.from_memory(pixels.cuda(), None, ids, 0, 0), strict=True):
        assert b.is_cuda
        assert (a - b.cpu()).abs().mean() < 1 / 255
