"""The published recipes of colorization hold the published numbers, worked out by hand beside each."""

import pytest

from barlow.recipe import files, schema
from barlow.recipe.schema import Recipe

NAME = "imagenet/colorization"


def recipe() -> Recipe:
    return schema.check(files.read(NAME))


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
