"""The published recipes of colorization and CPC hold the published numbers, worked out by hand beside each."""

import pytest

from barlow.recipe import files, schema
from barlow.recipe.schema import Recipe

NAMES = ("imagenet/colorization", "imagenet/cpc")


def recipe(name: str = "imagenet/colorization") -> Recipe:
    return schema.check(files.read(name))


def test_the_rate_is_the_published_one_and_falls_by_ten_twice() -> None:
    chosen = recipe()
    assert (chosen.train.batch_size, chosen.train.steps, chosen.train.epochs) == (40, 500_000, None)
    assert chosen.optim.peak(40) == pytest.approx(3e-5)
    rate = chosen.schedule.build(500_000, 1_281_167 // 40)
    found = [rate(step, 500_000) for step in (0, 224_999, 225_000, 449_999, 450_000, 499_999)]
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert (chosen.optim.kind, chosen.optim.betas, chosen.optim.weight_decay) == ("adam", (0.9, 0.99), 1e-3)


def test_views_are_crops_of_176_of_256_pixels_and_flips() -> None:
    chosen = recipe()
    ((crop, flip),) = chosen.views
    assert (chosen.data.image_size, flip["kind"], flip["p"]) == (176, "horizontal_flip", 0.5)
    assert list(crop["scale"]) == [(176 / 256) ** 2] * 2
    assert list(crop["ratio"]) == [1, 1]


def test_the_network_sees_lightness_and_predicts_at_a_quarter_of_the_views_side() -> None:
    chosen = recipe()
    assert (chosen.encoder.name, chosen.encoder.stem) == ("resnet50", "plain_lightness")
    method = chosen.build_method().resolved_for(176)
    assert (method.grid, method.fine) == (44, 8)
    assert method.widths(1) == [(313 * 44 * 44, 2 * 44 * 44)]


def test_the_objective_is_the_published_one() -> None:
    objective = recipe().objective
    assert objective == {
        "kind": "colorization", "uniform": 0.5, "convention": "paper", "smoothing": 5.0, "prior": None, "grey": 5.0,
    }  # fmt: skip


def test_the_names_are_those_of_the_folder() -> None:
    assert set(NAMES) <= set(files.names())


def test_cpc_has_the_published_rate_batch_and_epochs() -> None:
    chosen = recipe("imagenet/cpc")
    assert (chosen.train.batch_size, chosen.train.epochs) == (512, 200)
    assert chosen.optim.peak(512) == pytest.approx(4e-4)
    assert (chosen.optim.kind, chosen.optim.betas, chosen.optim.weight_decay) == ("adam", (0.8, 0.999), 1e-5)
    epoch = 1_281_167 // 512
    rate = chosen.schedule.build(200 * epoch, epoch)
    assert rate(0, 200 * epoch) == 0
    assert rate(10 * epoch, 200 * epoch) == pytest.approx(1)
    assert rate(105 * epoch, 200 * epoch) == pytest.approx(0.5, abs=1e-3), "half-way down the cosine"


def test_cpc_cuts_260_pixels_into_six_patches_of_80_every_36_pixels() -> None:
    chosen = recipe("imagenet/cpc")
    method = chosen.build_method()
    assert (chosen.data.image_size, method.grid, method.patch) == (260, 6, 80)
    assert (260 - 80) / 5 == 36
    assert (method.hidden, method.blocks, method.width) == (256, 5, 64)
    assert method.widths(1) == [((6 - ahead) * 6 * 64, 36 * 64) for ahead in (2, 3, 4)] * 4
    assert chosen.objective == {"kind": "cpc", "width": 64, "scale": 0.1}


def test_cpc_norms_a_patch_by_itself_and_drops_two_of_three_colours_in_most_images() -> None:
    chosen = recipe("imagenet/cpc")
    assert (chosen.encoder.name, chosen.encoder.options) == ("resnet50", {"norm_layer": "groupnorm1"})
    dropped = chosen.views[0][2]
    assert (dropped["kind"], dropped["p"], int(dropped["share"] * dropped["channels"])) == ("channel_dropout", 0.8, 2)
