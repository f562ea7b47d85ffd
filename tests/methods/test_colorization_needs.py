"""Colorization's network must not see the colours that it has to name, in training or afterwards."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from torch import Tensor, nn

import barlow
from barlow.colour_spaces import grey_of_lightness, lab
from barlow.methods._networks import Method, maps_of
from barlow.methods.colorization import Colorization
from barlow.nets.building import build_encoder
from barlow.nets.heads import Head
from barlow.objectives._colour_bins import BINS
from barlow.pretraining import pretrain
from barlow.recipe.messages import RecipeError
from barlow.types import Outputs, Rows

HEAD = Head(widths=[5], hidden_bias=True, last_bias=True, batch_norm=False)
NARROW = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
SIDE = 32
BINS_OF_A_PLACE = len(BINS)


class Local(nn.Module):
    """A map in which each place is the mean of 8 × 8 pixels."""

    def forward_features(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 8)

    def forward_head(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def built(encoder: nn.Module, width: int, **options: Any) -> Method:
    section = Colorization(head=HEAD, **({"fine": 2, "grid": 8} | options))
    return section.build(lambda *_, **__: (encoder, width), seed=0).eval()


def images(n: int = 3, side: int = SIDE) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def outputs(method: Method, view: Tensor) -> Outputs:
    with torch.no_grad():
        return method(Rows([view], {"ids": torch.arange(len(view))}))


@pytest.mark.parametrize("stem", ["strided", "strided_lightness"])
def test_an_image_and_its_grey_version_give_the_same_logits_and_other_targets(stem: str) -> None:
    encoder = build_encoder("resnet26", image_size=SIDE, stem=stem, options=NARROW)
    method, view = built(encoder, encoder.num_features), images()
    ((logits, ab),) = outputs(method, view).groups
    ((of_grey, no_colour),) = outputs(method, grey_of_lightness(view)).groups
    assert torch.allclose(logits, of_grey, atol=1e-4)
    assert no_colour.abs().max() < 0.1
    assert ab.abs().max() > 50


def test_the_targets_are_the_colours_of_every_fourth_pixel() -> None:
    view = images()
    ((_, ab),) = outputs(built(Local(), 3), view).groups
    assert ab.equal(lab(view)[:, 1:, ::4, ::4].flatten(1))


def test_the_logits_of_a_place_are_those_of_the_pixels_there() -> None:
    method, view = built(Local(), 3), images(1)
    changed = view.clone()
    changed[:, :, 8:16, 24:32] = 0.1
    before, after = (outputs(method, x).groups[0][0].view(BINS_OF_A_PLACE, 8, 8) for x in (view, changed))
    differ = (before != after).any(dim=0)
    assert differ[2:4, 6:8].all(), "the second row of the map, and its fourth column"
    assert int(differ.sum()) == 4


def test_logits_are_resampled_where_the_map_does_not_fit_the_grid() -> None:
    method = built(Local(), 3, grid=(6, 5))
    ((logits, ab),) = outputs(method, images()).groups
    assert logits.shape == (3, BINS_OF_A_PLACE * 30)
    assert ab.shape == (3, 60)


def test_a_quarter_of_the_views_side_is_the_grid_where_it_is_auto() -> None:
    section = Colorization(head=HEAD)
    assert section.resolved_for(32).grid == 8
    assert section.resolved_for((30, 48)).grid == (8, 12)
    assert section.resolved_for(1024).grid == 128, "no more, as an image has 313 logits for each place"
    assert Colorization(head=HEAD, grid=5).resolved_for(32).grid == 5
    with pytest.raises(ValueError, match="the grid is auto"):
        section.widths(1)


@pytest.mark.parametrize("view", [images() * 2, images() - 0.5, images()[:, :1].repeat(1, 4, 1, 1)])
def test_views_that_are_not_colours_are_refused_with_the_remedy(view: Tensor) -> None:
    with pytest.raises(ValueError, match=r"give RGB images, --data.mean '\[0, 0, 0\]' and --data.std '\[1, 1, 1\]'"):
        outputs(built(Local(), 3), view)


def test_an_encoder_without_a_map_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"Linear has no forward_features .* take a convolutional network"):
        maps_of(nn.Linear(2, 2), images())
    transformer = build_encoder("vit_tiny_patch16_224", image_size=SIDE, options={"depth": 1})
    with pytest.raises(ValueError, match=r"has to be \(n, c, h, w\): take a convolutional network"):
        maps_of(transformer, images())


@pytest.mark.parametrize("fine", [0, 21])
def test_places_out_of_range_are_refused(fine: int) -> None:
    with pytest.raises(ValueError, match=f"fine is {fine}: give places of the grid in one of the map, 1 to 20"):
        Colorization(head=HEAD, fine=fine)


CHANGES = tiny.of_recipe("small_colorization") | {"train.steps": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "photos", 40, classes=4)


def test_the_encoder_of_a_run_takes_colour_images_and_sees_their_lightness(data: Path, tmp_path: Path) -> None:
    pretrain(data, tmp_path / "run", recipe="small_colorization", overrides=CHANGES, progress=False)
    encoder = barlow.load_encoder(tmp_path / "run")
    assert (encoder.preprocessing.mean, encoder.preprocessing.std) == ((0.0,) * 3, (1.0,) * 3)
    view = images(side=16)
    with torch.no_grad():
        assert torch.allclose(encoder(view), encoder(grey_of_lightness(view)), atol=1e-5)
    classes = tiny.images(tmp_path / "labelled", 24, classes=2)
    scores = barlow.evaluate(tmp_path / "run", classes, classes, protocols=["knn"]).scores
    assert {"encoder", "untrained"} <= set(scores)


def test_a_run_keeps_the_prior_that_it_found_in_the_images(data: Path, tmp_path: Path) -> None:
    changes = CHANGES | {"train.checkpoint_steps": 1, "train.checkpoint_minutes": None}
    pretrain(data, tmp_path / "run", recipe="small_colorization", overrides=changes, progress=False)
    from barlow import checkpoints

    prior = checkpoints.read(checkpoints.whole(tmp_path / "run")).tensors["objective/prior"]
    assert float(prior.sum()) == pytest.approx(1, abs=1e-5)
    assert not torch.allclose(prior, torch.full_like(prior, 1 / len(BINS)))


def test_colours_are_read_from_images_that_are_not_normalised(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the stem strided_lightness reads colours from images between 0 and 1, and"):
        pretrain(
            data,
            tmp_path / "no",
            recipe="small_colorization",
            overrides=CHANGES | {"data.std": [0.5] * 3},
            progress=False,
        )
    changes = CHANGES | {"data.mean": [0.5] * 3, "encoder.stem": "strided"}
    with pytest.raises(RecipeError, match="the method colorization reads colours from images between 0 and 1"):
        pretrain(data, tmp_path / "no", recipe="small_colorization", overrides=changes, progress=False)
    changes = CHANGES | {"data.mean": "auto", "data.std": "auto", "train.steps": 1}
    pretrain(data, tmp_path / "run", recipe="small_colorization", overrides=changes, progress=False)
    written = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8"))
    assert (written["data"]["mean"], written["data"]["std"]) == ([0.0] * 3, [1.0] * 3)
    assert written["method"]["grid"] == 4
