"""Counting's published recipe holds the paper's numbers, worked out by hand, and says what they are not sure of."""

import pytest
import torch

from barlow.recipe import files, schema

CHOSEN = schema.check(files.read("imagenet/counting"))


def test_the_head_has_the_parameters_of_alexnets_last_layers_on_2048_features() -> None:
    method = CHOSEN.build_method()
    assert (CHOSEN.method["kind"], method.rectified) == ("tile_sum", True)
    with torch.device("meta"):
        head = method.head.build(2048, 0, "head")
    assert sum(p.numel() for p in head.parameters()) == 2049 * 4096 + 4097 * 4096 + 4097 * 1000
    assert not any(isinstance(layer, torch.nn.BatchNorm1d) for layer in head)
    assert method.widths(1) == [(1000, 1000)]


def test_the_margin_is_the_papers() -> None:
    assert CHOSEN.objective == {"kind": "counting", "margin": 10.0}


def test_quarters_of_a_view_have_114_pixels_and_two_of_three_views_are_grey() -> None:
    assert CHOSEN.data.image_size == 2 * 114
    (view,) = CHOSEN.views
    assert [op["kind"] for op in view] == ["random_resized_crop", "horizontal_flip", "grayscale"]
    assert list(view[0]["ratio"]) == [1, 1]
    assert view[2]["p"] == pytest.approx(2 / 3, abs=1e-6)


def test_the_optimizer_is_sgd_with_momentum_over_about_200_thousand_updates() -> None:
    optim, train = CHOSEN.optim, CHOSEN.train
    assert (optim.kind, optim.momentum, optim.peak(512)) == ("sgd", 0.9, pytest.approx(1e-4))
    assert (optim.weight_decay, optim.exclude_1d) == (5e-4, False)
    updates = 1_281_167 // 512
    assert train.epochs is not None
    assert train.epochs * updates == pytest.approx(200_000, rel=0.001)
    drops = CHOSEN.schedule.drops_at_epochs
    assert len(drops) == 19
    assert [drop * updates for drop in drops] == pytest.approx([10_000 * k for k in range(1, 20)], rel=0.001)


def test_the_file_says_that_there_is_no_official_code_and_what_is_not_confirmed() -> None:
    source = CHOSEN.source
    assert source.code.startswith("clvrai/")
    assert "not by the paper's authors" in source.code
    assert any("not confirmed" in difference for difference in source.differs)
