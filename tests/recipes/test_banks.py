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
