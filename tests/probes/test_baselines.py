from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from barlow.data.labelled import LabelledSet, read_labelled
from barlow.nets.preprocessing import Preprocessing
from barlow.probes import baselines
from barlow.probes.baselines import Compared, RawPixels, pixel_sides
from barlow.probes.features import embed


def images(n=64, size=16, seed=0):
    return 3 + 2 * torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_raw_pixels_are_the_pixels():
    x = images(4, 16)
    assert torch.equal(embed(RawPixels(32), [x]), x.flatten(1))


def test_large_views_are_made_small():
    x = torch.ones(2, 3, 96, 96)
    x[:, :, :, 48:] = -1.0
    small = embed(RawPixels(32), [x]).unflatten(1, (3, 32, 32))
    assert small.shape == (2, 3, 32, 32)
    torch.testing.assert_close(small[..., :14], torch.ones(2, 3, 32, 14))
    torch.testing.assert_close(small.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)


def labelled(folder: Path, side: int, view: int) -> LabelledSet:
    rng = np.random.default_rng(0)
    for i in range(4):
        path = folder / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(side, side, 3), dtype=np.uint8)).save(path)
    expected = Preprocessing(view, 1.0, "bicubic", (0.5,) * 3, (0.25,) * 3, 3)
    return read_labelled(folder, "train", expected, 0.0)


@pytest.mark.parametrize(
    ("side", "view", "sides"),
    [(96, 64, [16, 32, 64]), (32, 24, [16, 24, 32]), (96, 32, [16, 32]), (28, 28, [16, 28]), (8, 8, [8])],
)
def test_pixels_are_measured_at_several_sides_and_never_enlarged(
    tmp_path: Path, side: int, view: int, sides: list[int]
) -> None:
    assert pixel_sides(labelled(tmp_path, side, view)) == sides


def test_pixels_at_the_side_of_large_views_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = labelled(tmp_path, 96, 64)
    monkeypatch.setattr(baselines, "MOST_NUMBERS", 4 * 3 * 64 * 64 - 1)
    assert pixel_sides(images) == [16, 32]


def test_pixels_larger_than_the_encoders_views_come_from_the_images_themselves(tmp_path: Path) -> None:
    images = labelled(tmp_path, 32, 24)
    larger = Compared("pixels_32", RawPixels(32), 32).views_of(images)
    (batch,) = larger.views(4)
    decoded = [np.asarray(Image.open(p)) for p in sorted(tmp_path.rglob("*.png"))]
    expected = (torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    torch.testing.assert_close(batch, expected)
    assert Compared("encoder", RawPixels(24), 24).views_of(images) is images
