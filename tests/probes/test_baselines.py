from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from barlow.data.labelled import LabelledSet, read_labelled
from barlow.nets.preprocessing import Preprocessing
from barlow.probes import baselines
from barlow.probes.baselines import Compared, RawPixels, pixels
from barlow.probes.features import embed
from barlow.size import Size, height_width, size_of


def images(n=64, size=16, seed=0):
    return 3 + 2 * torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_raw_pixels_are_the_pixels():
    x = images(4, 16)
    assert torch.equal(embed(RawPixels(32 * 32), [x]), x.flatten(1))


def test_large_views_are_made_small():
    x = torch.ones(2, 3, 96, 96)
    x[:, :, :, 48:] = -1.0
    small = embed(RawPixels(32 * 32), [x]).unflatten(1, (3, 32, 32))
    assert small.shape == (2, 3, 32, 32)
    torch.testing.assert_close(small[..., :14], torch.ones(2, 3, 32, 14))
    torch.testing.assert_close(small.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)


def labelled(folder: Path, side: int, view: Size) -> LabelledSet:
    rng = np.random.default_rng(0)
    for i in range(4):
        path = folder / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(side, side, 3), dtype=np.uint8)).save(path)
    expected = Preprocessing(view, 1.0, "bicubic", (0.5,) * 3, (0.25,) * 3, 3)
    return read_labelled(folder, "train", expected, 0.0)


@pytest.mark.parametrize(
    ("side", "view", "names"),
    [
        (96, 64, ["16", "32", "64"]),
        (32, 24, ["16", "24", "32"]),
        (96, 32, ["16", "32"]),
        (28, 28, ["16", "28"]),
        (8, 8, ["8"]),
        (64, (16, 64), ["16", "16x64"]),
    ],
)
def test_pixels_are_measured_at_several_sides_and_never_enlarged(
    tmp_path: Path, side: int, view: Size, names: list[str]
) -> None:
    found = list(pixels(labelled(tmp_path, side, view)))
    assert [each.name for each in found] == [f"pixels_{name}" for name in names]
    for each in found:
        (batch,) = each.views_of(labelled(tmp_path, side, view)).views(4)
        features = each.network(batch)
        h, w = height_width(size_of(each.name.removeprefix("pixels_")))
        assert features.shape == (4, 3 * h * w)


def test_pixels_at_the_side_of_large_views_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = labelled(tmp_path, 96, 64)
    monkeypatch.setattr(baselines, "MOST_NUMBERS", 4 * 3 * 64 * 64 - 1)
    assert [each.name for each in pixels(images)] == ["pixels_16", "pixels_32"]


def test_pixels_larger_than_the_encoders_views_come_from_the_images_themselves(tmp_path: Path) -> None:
    images = labelled(tmp_path, 32, 24)
    larger = Compared("pixels_32", partial(RawPixels, 32 * 32), 32, "").views_of(images)
    (batch,) = larger.views(4)
    decoded = [np.asarray(Image.open(p)) for p in sorted(tmp_path.rglob("*.png"))]
    expected = (torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    torch.testing.assert_close(batch, expected)
    assert Compared("encoder", partial(RawPixels, 24 * 24), 24, "").views_of(images) is images


def test_views_that_are_not_square_keep_their_aspect_ratio_and_give_as_many_features():
    x = torch.ones(2, 3, 32, 128)
    x[..., 64:] = -1.0
    small = embed(RawPixels(32 * 32), [x]).unflatten(1, (3, 16, 64))
    torch.testing.assert_close(small[..., :28], torch.ones(2, 3, 16, 28))
    thin = images(2, 16)[:, :, :8, :]
    assert torch.equal(embed(RawPixels(32 * 32), [thin]), thin.flatten(1))
    assert embed(RawPixels(32 * 32), [torch.ones(1, 3, 1, 9000)]).shape == (1, 3 * 3036)
