"""Sets held in memory: squares at one size, original sizes beside them, each file decoded once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from barlow.data import memory
from barlow.data.folder import FolderSource
from barlow.data.memory import bytes_needed, hold
from barlow.data.sources import ArraySource, open_source


def gradient(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / (width - 1), 255 * y / (height - 1), 0 * x], axis=2).astype(np.uint8)


def test_small_squares_of_one_size_are_kept_bit_by_bit() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 12, 12, 3), dtype=np.uint8)
    inventory, held = hold(ArraySource("x", images), 32, max_bad=0.0)
    assert np.array_equal(held.pixels.numpy(), images.transpose(0, 3, 1, 2))
    assert held.pixels.dtype == torch.uint8
    assert held.sizes.tolist() == [[12, 12]] * 9
    assert held.ids.tolist() == inventory.ids.tolist() == list(range(9))
    assert held.ids.dtype == held.sizes.dtype == torch.int64


@pytest.mark.parametrize("form", ["png", "jpg"])
def test_others_are_squashed_and_their_original_sizes_are_kept(tmp_path: Path, form: str) -> None:
    for number, size in enumerate([(40, 80), (90, 60), (64, 64)]):
        Image.fromarray(gradient(*size)).save(tmp_path / f"{number}.{form}", quality=95)
    inventory, held = hold(FolderSource([tmp_path]), 32)
    assert held.pixels.shape == (3, 3, 32, 32)
    assert held.sizes.tolist() == [[40, 80], [90, 60], [64, 64]]
    assert inventory.median_size == (64, 64)
    ramp = (np.arange(32) + 0.5) / 32 * 255
    for pixels in held.pixels.numpy().astype(float):
        assert np.abs(pixels[0] - ramp[None, :]).mean() < 4  # the whole width is there, from left to right
        assert np.abs(pixels[1] - ramp[:, None]).mean() < 4


def test_an_early_stopped_jpeg_is_close_to_the_resized_whole(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    image = image.resize((1_024, 768), Image.Resampling.BICUBIC)
    image.save(tmp_path / "1.jpg", quality=95)
    image.save(tmp_path / "2.png")
    _, held = hold(FolderSource([tmp_path]), 64)
    assert (held.pixels[0].float() - held.pixels[1].float()).abs().mean() < 2


def test_images_are_not_enlarged_beyond_the_largest(tmp_path: Path) -> None:
    for number, size in enumerate([(10, 24), (20, 20)]):
        Image.fromarray(gradient(*size)).save(tmp_path / f"{number}.png")
    assert hold(FolderSource([tmp_path]), 128)[1].pixels.shape[-2:] == (24, 24)


def test_images_are_held_at_a_height_and_a_width_if_those_are_given(tmp_path: Path) -> None:
    for number, size in enumerate([(40, 80), (90, 60), (64, 64)]):
        Image.fromarray(gradient(*size)).save(tmp_path / f"{number}.jpg", quality=95)
    _, held = hold(FolderSource([tmp_path]), (16, 48))
    assert held.pixels.shape == (3, 3, 16, 48)
    assert held.sizes.tolist() == [[40, 80], [90, 60], [64, 64]]
    for pixels in held.pixels.numpy().astype(float):
        assert np.abs(pixels[0] - ((np.arange(48) + 0.5) / 48 * 255)[None, :]).mean() < 4
        assert np.abs(pixels[1] - ((np.arange(16) + 0.5) / 16 * 255)[:, None]).mean() < 4
    assert hold(FolderSource([tmp_path]), (16, 200))[1].pixels.shape[-2:] == (16, 80), "nothing is enlarged"
    assert hold(FolderSource([tmp_path]), (200, 90))[1].pixels.shape[-2:] == (90, 80)


def test_strips_of_the_size_held_keep_every_bit() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 10, 60, 3), dtype=np.uint8)
    assert np.array_equal(hold(ArraySource("x", images), (24, 60))[1].pixels.numpy(), images.transpose(0, 3, 1, 2))


def test_bad_files_leave_no_gap_and_ids_stay(tmp_path: Path) -> None:
    for number in range(20):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number:02d}.png")
    for number in (0, 7, 19):
        (tmp_path / f"{number:02d}.png").write_bytes(b"\x89PNG")
    inventory, held = hold(FolderSource([tmp_path]), 8, max_bad=0.2)
    usable = [k for k in range(20) if k not in (0, 7, 19)]
    assert held.ids.tolist() == usable
    assert held.pixels[:, 0, 3, 3].tolist() == usable
    assert [id for id, _, _ in inventory.skipped] == [0, 7, 19]
    with pytest.raises(ValueError, match="--max-bad"):
        hold(FolderSource([tmp_path]), 8, max_bad=0.01)
    with pytest.raises(ValueError, match="--max-bad"):
        hold(FolderSource([tmp_path]), 8, max_bad=0.14)


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    for number in range(50):
        Image.fromarray(gradient(20 + number, 30)).save(tmp_path / f"{number:02d}.jpg")
    one, three = (hold(FolderSource([tmp_path]), 16, workers=workers)[1] for workers in (1, 3))
    assert torch.equal(one.pixels, three.pixels)
    assert torch.equal(one.sizes, three.sizes)


def test_grey_sets_are_held_with_one_channel(tmp_path: Path) -> None:
    Image.fromarray(gradient(30, 30)).save(tmp_path / "1.png")
    inventory, held = hold(FolderSource([tmp_path], channels=1), 16)
    assert held.pixels.shape == (1, 1, 16, 16)
    assert inventory.grey
    assert hold(open_source("digits:test", channels=1), 32)[1].pixels.shape == (355, 1, 8, 8)


def test_no_readable_image_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"1 of 1 images .*1\.jpg: not an image.*readable images"):
        hold(FolderSource([tmp_path]), 32)


def test_the_memory_needed_is_known_before() -> None:
    source = ArraySource("x", np.zeros((10, 4, 4, 3), np.uint8))
    assert bytes_needed(source, 64) == 10 * 3 * 64 * 64
    assert bytes_needed(source, 64, channels=1) == 10 * 64 * 64
    assert bytes_needed(source, (32, 128)) == 10 * 3 * 32 * 128


def test_a_large_image_is_resized_by_channel_to_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    whole = memory._squash(image, (17, 23))
    monkeypatch.setattr("barlow.data.resizing.BLOCK_PIXELS", 100)
    assert np.array_equal(memory._squash(image, (17, 23)), whole)
    assert memory._squash(image[:, :, :1], (17, 23)).shape == (17, 23, 1)
