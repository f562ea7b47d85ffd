"""The published recipes of OBoW and PCL hold the published numbers, beside rates and decays (`families/`)."""

import pytest

from barlow.recipe import files, schema
from barlow.recipe.schema import Recipe


def published(name: str) -> Recipe:
    return schema.check(files.read(name))


def kinds(view: list[dict[str, object]]) -> list[object]:
    return [op["kind"] for op in view]


def test_obow_sees_the_whole_image_two_crops_with_blur_and_five_patches_without() -> None:
    first, *crops = published("imagenet/obow").views
    assert kinds(first) == ["random_resized_crop", "horizontal_flip"]
    assert (first[0]["size"], list(first[0]["scale"]), first[1]["p"]) == ("auto", [1.0, 1.0], 0.5)
    assert [(view[0]["size"], list(view[0]["scale"])) for view in crops] == [(160, [0.08, 0.6])] * 2 + [
        (96, [0.6, 1.0])
    ] * 5
    assert ["gaussian_blur" in kinds(view) for view in crops] == [True] * 2 + [False] * 5
    for view in crops:
        jitter = next(op for op in view if op["kind"] == "color_jitter")
        assert tuple(jitter[key] for key in ("p", "brightness", "contrast", "saturation", "hue")) == (
            0.8,
            0.4,
            0.4,
            0.4,
            0.1,
        )
        assert next(op for op in view if op["kind"] == "grayscale")["p"] == 0.2
    patches = [view[0] for view in crops[2:]]
    assert all((patch["whole"], patch["grid"], patch["jitter"]) == (256, 3, 24) for patch in patches)


def test_obow_has_two_lists_of_8192_words_and_a_cosine_for_the_slow_copy() -> None:
    chosen = published("imagenet/obow")
    objective, method = chosen.build_objective(), chosen.build_method()
    assert (objective.words, objective.inverse_temperature, objective.kappa) == (8192, 15.0, 8.0)
    assert (objective.hidden, objective.window, objective.memory, objective.crops) == (4096, 3, 0.99, [2, 5])
    assert (method.levels, method.border, method.passes) == (2, 1, "each_size")
    assert (method.momentum, method.momentum_schedule) == (0.99, "cosine")
    assert sum(objective.crops) == len(chosen.views) - 1


@pytest.mark.parametrize("name", ["imagenet/pcl_v1", "imagenet/pcl_v2"])
def test_pcl_is_moco_of_its_version_with_three_clusterings_after_twenty_epochs(name: str) -> None:
    chosen, moco = published(name), published(name.replace("pcl", "moco"))
    objective = chosen.build_objective()
    assert (objective.queue, objective.negatives, objective.temperature) == (16384, 16384, 0.2)
    assert objective.clusters == (25000, 50000, 100000)
    assert (objective.warmup * chosen.train.epochs, objective.iterations, objective.restarts) == (20, 20, 5)
    assert chosen.method == moco.method
    assert chosen.views == moco.views
    assert chosen.schedule == moco.schedule
    assert chosen.method["symmetric"] is False
    assert objective.negatives <= min(objective.clusters) - chosen.train.batch_size
