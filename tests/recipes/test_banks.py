"""The published recipes of methods with a memory bank, and of InfoMin, hold the published numbers."""

import pytest
import torch

from barlow.recipe import files, schema
from barlow.recipe.schema import Recipe

IMAGENET, CIFAR = 1_281_167, 50_000

# (images, updates of an epoch, epochs, batch, weight decay, {update: rate})
PUBLISHED: dict[str, tuple[int, int, int, int, float, dict[int, float]]] = {
    "cifar10/npid": (  # 0.03 at batch 128, ÷ 10 after epochs 120 and 160 of 200
        CIFAR,
        390,
        200,
        128,
        5e-4,
        {0: 0.03, 46_799: 0.03, 46_800: 0.003, 62_400: 0.0003, 77_999: 0.0003},
    ),
    "imagenet/npid": (  # 0.03 at batch 256, ÷ 10 after epochs 120 and 160 of 200
        IMAGENET,
        5004,
        200,
        256,
        1e-4,
        {0: 0.03, 600_479: 0.03, 600_480: 0.003, 800_640: 0.0003},
    ),
    "imagenet/cmc": (  # 0.03 at batch 128, ÷ 10 after epochs 120, 160 and 200 of 240
        IMAGENET,
        10_009,
        240,
        128,
        1e-4,
        {0: 0.03, 1_201_079: 0.03, 1_201_080: 0.003, 1_601_440: 0.0003, 2_001_800: 0.00003},
    ),
    "imagenet/pirl": (  # 0.12 at batch 1024, a cosine to 0.00012
        IMAGENET,
        1251,
        800,
        1024,
        1e-4,
        {0: 0.12, 500_400: 0.06006, 1_000_799: 0.00012},
    ),
    "imagenet/infomin": (  # 0.03 at batch 256, a cosine to 0.00003
        IMAGENET,
        5004,
        200,
        256,
        1e-4,
        {0: 0.03, 500_400: 0.015015, 1_000_799: 0.00003},
    ),
}


def published(name: str) -> Recipe:
    return schema.check(files.read(name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_rates_sizes_and_decay_are_the_published_ones(name: str) -> None:
    images, epoch, epochs, batch, decay, golden = PUBLISHED[name]
    chosen = published(name)
    assert (chosen.train.epochs, chosen.train.batch_size, images // batch) == (epochs, batch, epoch)
    assert chosen.data.image_size == (32 if name.startswith("cifar10") else 224)
    schedule = chosen.schedule.build(epochs * epoch, epoch)
    for step, rate in golden.items():
        assert chosen.optim.peak(batch) * schedule(step, epochs * epoch) == pytest.approx(rate, rel=1e-5, abs=1e-10)
    assert (chosen.optim.kind, chosen.optim.momentum, chosen.optim.weight_decay) == ("sgd", 0.9, decay)
    assert (chosen.optim.vectors_lr_per_256, chosen.optim.groups) == (None, [])


def test_npid_has_the_published_bank_head_and_views() -> None:
    of_all = {"kind": "npid", "momentum": 0.5}
    assert published("cifar10/npid").objective == of_all | {
        "negatives": 0,
        "temperature": 0.1,
        "form": "cross_entropy",
    }
    assert published("imagenet/npid").objective == of_all | {"negatives": 4096, "temperature": 0.07, "form": "nce"}
    for name in ("cifar10/npid", "imagenet/npid"):
        chosen = published(name)
        assert not chosen.optim.exclude_1d
        with torch.device("meta"):
            head = chosen.build_method().projector.build(2048, 0, "projector")
        assert sum(p.numel() for p in head.parameters()) == 2048 * 128 + 128
        (view,) = chosen.views
        order = ["random_resized_crop", "grayscale", "color_jitter"]
        assert [op["kind"] for op in view] == order + ["horizontal_flip"] * name.startswith("imagenet")
        assert (list(view[0]["scale"]), view[1]["p"]) == ([0.2, 1.0], 0.2)
        assert [view[2][key] for key in ("p", "brightness", "contrast", "saturation", "hue")] == [
            1.0, 0.4, 0.4, 0.4, 0.4,
        ]  # fmt: skip


def test_cmc_has_the_published_halves_banks_and_views() -> None:
    chosen = published("imagenet/cmc")
    assert chosen.objective == {
        "kind": "cmc", "negatives": 16384, "temperature": 0.07, "form": "nce", "momentum": 0.5,
    }  # fmt: skip
    assert (chosen.encoder.name, chosen.encoder.stem, chosen.encoder.options) == ("lab_resnet50", "as_is", {})
    assert (chosen.data.channels, chosen.data.mean, chosen.data.std) == (3, [0, 0, 0], [1, 1, 1])
    assert chosen.method["kind"] == "halves"
    assert chosen.method["projector"]["widths"] == [128]
    (view,) = chosen.views
    assert [op["kind"] for op in view] == ["random_resized_crop", "horizontal_flip"]
    assert list(view[0]["scale"]) == [0.08, 1.0]


def tiles_of(name: str) -> list[dict[str, object]]:
    crop, tiles, *others = published(name).views[-1]
    assert (crop["size"], list(crop["scale"])) == (255, [0.6, 1.0]), "cells of 85 pixels"
    assert (tiles["kind"], tiles["grid"], tiles["side"], tiles["order"]) == ("tiles", 3, 64, "any")
    assert all(op["each_tile"] for op in others)
    jitter = others[0]
    assert [jitter[key] for key in ("brightness", "contrast", "saturation", "hue")] == [0.4, 0.4, 0.4, 0.2]
    return others


def test_pirl_has_the_published_bank_heads_and_tiles() -> None:
    chosen = published("imagenet/pirl")
    assert chosen.objective == {
        "kind": "pirl", "negatives": 32000, "temperature": 0.07, "form": "nce", "momentum": 0.5, "share": 0.5,
    }  # fmt: skip
    method = chosen.build_method()
    assert [head.widths for head in (method.projector, method.each, method.tiles)] == [[128]] * 3
    assert (method.tiling, method.momentum, method.batch_norm_rows) == ((3, 3), None, None)
    assert chosen.optim.exclude_1d, "no decay of batch norm and biases"
    others = tiles_of("imagenet/pirl")
    assert [op["kind"] for op in others] == ["color_jitter", "photometric", "grayscale", "horizontal_flip"]
    assert (others[1]["p"], others[2]["p"]) == (0.66, 0.2)
    assert list(published("imagenet/pirl").views[0][0]["scale"]) == [0.08, 1.0]


def test_infomin_has_the_published_queue_heads_and_views() -> None:
    chosen = published("imagenet/infomin")
    assert chosen.objective == {"kind": "infomin", "queue": 65536, "temperature": 0.15}
    method = chosen.build_method()
    assert [head.widths for head in (method.projector, method.each, method.tiles)] == [[2048, 128], [2048, 128], [128]]
    assert not method.projector.batch_norm
    assert not method.each.batch_norm
    assert (method.momentum, method.momentum_schedule, method.batch_norm_rows) == (0.999, "constant", 32)
    first, second, _ = chosen.views
    assert first == second
    order = ["random_resized_crop", "horizontal_flip", "color_jitter", "gaussian_blur", "rand_augment", "grayscale"]
    assert [op["kind"] for op in first] == order
    assert [first[2][key] for key in ("p", "brightness", "contrast", "saturation", "hue")] == [0.8, 0.8, 0.8, 0.8, 0.2]
    assert (list(first[0]["scale"]), first[3]["p"], first[5]["p"]) == ([0.2, 1.0], 0.5, 0.2)
    drawn = first[4]
    assert (drawn["layers"], drawn["magnitude"], drawn["spread"], len(drawn["ops"])) == (2, 10.0, 0.5, 15)
    assert [op["kind"] for op in tiles_of("imagenet/infomin")] == ["color_jitter", "grayscale", "horizontal_flip"]
