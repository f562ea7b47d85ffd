"""The published recipes of DeepCluster v1 and v2 and of SeLa hold the published numbers, worked out by hand."""

import pytest
import torch

from barlow.optim.groups import GroupRule
from barlow.recipe import files, schema
from barlow.recipe.schema import Recipe

IMAGENET, CIFAR = 1_281_167, 50_000

# (images, updates of an epoch, epochs, batch, optimizer, weight decay, {update: rate})
PUBLISHED: dict[str, tuple[int, int, int, int, str, float, dict[int, float]]] = {
    "imagenet/deepcluster_v2": (  # ten epochs of warm-up from 0.3 to 4.8, and down to 0.0048
        IMAGENET,
        312,
        800,
        4096,
        "lars",
        1e-6,
        {0: 0.3, 1_560: 2.55, 3_120: 4.8, 249_599: 0.0048},
    ),
    "cifar10/deepcluster_v2": (  # solo-learn's 0.6, from 3e-5 in eleven epochs of warm-up, to 0.0006
        CIFAR,
        195,
        1000,
        256,
        "lars",
        1e-6,
        {0: 3e-5, 11 * 195: 0.6, 194_999: 0.0006},
    ),
    "imagenet/sela": (  # 0.05, ÷ 10 after epochs 150, 300 and 350 of 400
        IMAGENET,
        5004,
        400,
        256,
        "sgd",
        1e-5,
        {0: 0.05, 750_599: 0.05, 750_600: 0.005, 1_501_200: 0.0005, 1_751_400: 0.00005},
    ),
    "imagenet/deepcluster_v1": (IMAGENET, 5004, 200, 256, "sgd", 1e-5, {0: 0.05}),
}


def published(name: str) -> Recipe:
    return schema.check(files.read(name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_rates_sizes_and_decay_are_the_published_ones(name: str) -> None:
    images, epoch, epochs, batch, kind, decay, golden = PUBLISHED[name]
    chosen = published(name)
    assert (chosen.train.epochs, chosen.train.batch_size, images // batch) == (epochs, batch, epoch)
    assert chosen.data.image_size == (32 if name.startswith("cifar10") else 224)
    assert (chosen.encoder.name, chosen.encoder.stem, chosen.encoder.zero_init_last) == (
        ("resnet18", "small", False) if name.startswith("cifar10") else ("resnet50", "as_is", False)
    )
    schedule = chosen.schedule.build(epochs * epoch, epoch)
    for step, rate in golden.items():
        assert chosen.optim.peak(batch) * schedule(step, epochs * epoch) == pytest.approx(rate, rel=1e-5, abs=1e-10)
    assert (chosen.optim.kind, chosen.optim.momentum, chosen.optim.weight_decay) == (kind, 0.9, decay)
    assert chosen.optim.vectors_lr_per_256 is None


def test_deepcluster_v2_has_the_published_heads_and_swavs_crops() -> None:
    for name in ("imagenet/deepcluster_v2", "cifar10/deepcluster_v2"):
        deepcluster, swav = published(name), published(name.replace("deepcluster_v2", "swav"))
        assert deepcluster.objective == {
            "kind": "deepcluster_v2",
            "clusters": 3000,
            "heads": 3,
            "temperature": 0.1,
            "iterations": 10,
            "kept": 2,
        }
        assert (deepcluster.views, deepcluster.method) == (swav.views, swav.method)
        assert deepcluster.optim.groups == [], "centroids are not trained"
    assert published("imagenet/deepcluster_v2").method["projector"]["widths"] == [2048, 128]


def test_deepcluster_v1_has_the_published_clusters_and_a_top_layer_without_momentum_at_a_constant_rate() -> None:
    chosen = published("imagenet/deepcluster_v1")
    assert chosen.objective == {
        "kind": "deepcluster_v1",
        "clusters": 10_000,
        "whitened": 256,
        "iterations": 20,
        "balance": 1.0,
    }
    assert chosen.optim.groups == [
        GroupRule(parameters="objective.*", constant_rate=True, momentum=False),
        GroupRule(parameters="*", constant_rate=True),
    ]
    (view,) = chosen.views
    assert [op["kind"] for op in view] == ["random_resized_crop", "horizontal_flip"]
    assert list(view[0]["scale"]) == [0.08, 1.0]


def test_sela_has_the_published_classifiers_and_npids_views() -> None:
    chosen = published("imagenet/sela")
    assert chosen.objective == {
        "kind": "sela",
        "clusters": 3000,
        "heads": 10,
        "sharpness": 25.0,
        "updates": 100,
        "tolerance": 0.1,
    }
    (view,) = chosen.views
    assert [op["kind"] for op in view] == ["random_resized_crop", "grayscale", "color_jitter", "horizontal_flip"]
    assert (list(view[0]["scale"]), view[1]["p"]) == ([0.2, 1.0], 0.2)
    assert [view[2][key] for key in ("p", "brightness", "contrast", "saturation", "hue")] == [1.0, 0.4, 0.4, 0.4, 0.4]


@pytest.mark.parametrize("name", ["imagenet/deepcluster_v1", "imagenet/sela"])
def test_a_linear_layer_stands_between_the_features_and_the_classifiers(name: str) -> None:
    with torch.device("meta"):
        head = published(name).build_method().head.build(2048, 0, "head")
    assert sum(p.numel() for p in head.parameters()) == 2048 * 2048 + 2048
