import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from barlow.nets.preprocessing import Preprocessing


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def plain(size: int | tuple[int, int], crop_ratio: float = 1.0, channels: int = 3) -> Preprocessing:
    return Preprocessing(size, crop_ratio, "bicubic", (0.0,) * channels, (1.0,) * channels, channels)


def test_an_image_of_the_right_size_is_only_normalised() -> None:
    pixels = noise(8, 8, 3)
    x = Preprocessing(8, 1.0, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.25, 0.5), 3)(pixels)
    expected = (pixels.astype(np.float64) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.5]
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_the_centre_square_is_taken_and_the_ends_of_the_long_side_are_not_seen() -> None:
    pixels = noise(8, 20, 3)
    assert np.array_equal(plain(8).centre(pixels), pixels[:, 6:14])
    assert np.array_equal(plain(8).centre(pixels.swapaxes(0, 1)), pixels.swapaxes(0, 1)[6:14])


def test_resampling_is_pillows_antialiased_one() -> None:
    pixels = noise(64, 64, 3)
    expected = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(plain(16).centre(pixels), expected)


def test_a_crop_ratio_is_resize_then_centre_crop() -> None:
    smooth = np.asarray(Image.fromarray(noise(8, 8, 3)).resize((64, 64), Image.Resampling.BICUBIC))
    resized = np.asarray(Image.fromarray(smooth).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(plain(24, crop_ratio=0.75).centre(smooth), resized[4:28, 4:28])


@pytest.mark.parametrize(
    ("size", "height", "width", "box"),
    [
        ((4, 16), 20, 100, (10, 0, 90, 20)),  # the whole height, and 80 of 100 columns: left, top, right, bottom
        ((4, 16), 64, 64, (0, 24, 64, 40)),
        ((16, 4), 20, 100, (47.5, 0, 52.5, 20)),
        ((6, 9), 10, 10, (0, 10 / 6, 10, 50 / 6)),
        (8, 20, 100, (40, 0, 60, 20)),
    ],
)
def test_the_centre_box_is_the_largest_of_the_sizes_aspect_ratio(
    size: int | tuple[int, int], height: int, width: int, box: tuple[float, float, float, float]
) -> None:
    pixels = noise(height, width, 3)
    high, wide = (size, size) if isinstance(size, int) else size
    resized = Image.fromarray(pixels).resize((wide, high), Image.Resampling.BICUBIC, box)
    assert np.array_equal(plain(size).centre(pixels), np.asarray(resized))
    assert plain(size)([pixels, pixels]).shape == (2, 3, high, wide)
    left, top, right, bottom = box
    inner = (
        left + (right - left) / 4,
        top + (bottom - top) / 4,
        right - (right - left) / 4,
        bottom - (bottom - top) / 4,
    )
    half = Image.fromarray(pixels).resize((wide, high), Image.Resampling.BICUBIC, inner)
    assert np.abs(plain(size, crop_ratio=0.5).centre(pixels).astype(int) - np.asarray(half).astype(int)).max() <= 1


def test_an_image_of_the_right_height_and_width_is_left_as_it_is() -> None:
    for shape in ((30, 100), (100, 30), (7, 9)):
        pixels = noise(*shape, 3)
        assert plain(shape).centre(pixels) is pixels


def test_several_images_of_any_size_make_one_batch() -> None:
    x = plain(8)([noise(8, 8, 3), Image.fromarray(noise(30, 20, 3)), noise(9, 100, 3)])
    assert x.shape == (3, 3, 8, 8)
    assert torch.equal(x[1:2], plain(8)(noise(30, 20, 3)))


def test_any_number_of_channels_can_be_given_as_arrays() -> None:
    assert plain(8, channels=1)(noise(20, 10)).shape == (1, 1, 8, 8)
    assert plain(8, channels=5)(noise(20, 10, 5)).shape == (1, 5, 8, 8)


def test_grey_and_colour_pillow_images_are_converted_to_what_the_encoder_takes() -> None:
    grey = Image.fromarray(noise(8, 8))
    assert torch.equal(plain(8)(grey)[:, 2], plain(8, channels=1)(grey)[:, 0])
    assert plain(8, channels=1)(Image.fromarray(noise(8, 8, 3))).shape == (1, 1, 8, 8)


def test_a_path_is_decoded_as_in_training_with_its_orientation(tmp_path: Path) -> None:
    pixels = noise(6, 12, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = plain(6)(np.ascontiguousarray(np.rot90(pixels, -1)))
    assert torch.equal(plain(6)(tmp_path / "a.png"), upright)
    with Image.open(tmp_path / "a.png") as image:
        assert torch.equal(plain(6)(image), upright)


@pytest.mark.parametrize(
    "picture",
    [
        noise(8, 8, 3).astype(np.float32),
        noise(8, 8),
        noise(8, 8, 4),
        noise(0, 8, 3),
        Image.new("RGBA", (8, 8)),
        "no.png",
    ],
)
def test_what_is_not_such_an_image_is_refused(picture: object) -> None:
    with pytest.raises(ValueError, match=r"give|cannot read no\.png"):
        plain(8)(picture)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size is 0; give .*from 1 to 2048"),
        ({"crop_ratio": 1.5}, r"ratio in \(0, 1\]"),
        ({"interpolation": "cubic"}, "allowed: nearest, bilinear, bicubic, lanczos"),
        ({"mean": (0.5,)}, "one of each per channel"),
        ({"std": (1.0, 0.0, 1.0)}, "must be positive"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(**(plain(8).as_dict() | change))


def test_it_survives_json() -> None:
    preprocessing = Preprocessing(8, 0.875, "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 3)
    assert Preprocessing(**preprocessing.as_dict()) == preprocessing
    wide = Preprocessing((32, 128), 0.875, "bilinear", (0.1,), (0.4,), 1)
    assert Preprocessing(**json.loads(json.dumps(wide.as_dict()))) == wide
    assert wide.as_dict()["size"] == [32, 128]
