"""The recipes of images and captions hold the numbers of their papers, worked out by hand beside each."""

import pytest

from barlow.recipe import files, schema

PUBLISHED = "coco/vse"
SMALL = {
    "small_vse": "vse",
    "small_vicreg_captions": "vicreg",
    "small_barlow_twins_captions": "barlow_twins",
    "small_simclr_captions": "simclr",
}
TRAINING_IMAGES = 113_287
"""Of COCO, with the part of its validation images that VSE++ trains on."""


def test_vse_on_coco_has_the_papers_rate_drop_batch_and_margin() -> None:
    chosen = schema.check(files.read(PUBLISHED))
    assert chosen.objective == {"kind": "vse", "margin": 0.2, "hinges": "hardest"}
    assert (chosen.train.batch_size, chosen.optim.kind, chosen.optim.weight_decay) == (128, "adam", 0.0)
    epoch = TRAINING_IMAGES // 128
    total = round(epoch * (chosen.train.epochs or 0))
    schedule = chosen.schedule.build(total, epoch)
    rates = [chosen.optim.peak(128) * schedule(step, total) for step in (0, 75 * epoch - 1, 75 * epoch, total - 1)]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-5, 2e-5])
    assert total == pytest.approx(30 * 5 * TRAINING_IMAGES / 128, rel=2e-3), "the updates of 30 epochs of five captions"


def test_vse_on_coco_has_the_papers_networks_and_views() -> None:
    chosen = schema.check(files.read(PUBLISHED))
    method = chosen.build_method()
    assert (method.embedding, method.init_range, method.hidden) == (300, 0.1, 1024)
    assert (method.projector.widths, method.text_projector) == ([1024], "none")
    assert (method.min_count, method.unit_features, method.frozen) == (4, True, True)
    assert (chosen.encoder.name, chosen.data.image_size) == ("resnet152", 224)
    assert [op["kind"] for op in chosen.views[0]] == ["random_resized_crop", "horizontal_flip"]


@pytest.mark.parametrize("name", SMALL)
def test_small_recipes_of_captions_differ_in_their_objective_alone(name: str) -> None:
    chosen, first = (schema.check(files.read(each)).as_dict() for each in (name, "small_vse"))
    assert chosen["objective"]["kind"] == SMALL[name]
    first["method"]["projector"]["last_bias"] = chosen["method"]["projector"]["last_bias"]
    for section in ("data", "views", "encoder", "method", "optim", "schedule", "train"):
        assert chosen[section] == first[section], section
    kinds = [op["kind"] for view in chosen["views"] for op in view]
    assert kinds == ["random_resized_crop"], "no flip: captions say what is left; no jitter: they say colours"
