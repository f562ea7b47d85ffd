"""The published recipes hold the published numbers: rates, sizes, views, losses; worked out by hand beside each."""

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
import yaml

import barlow
from barlow.distributed import World
from barlow.nets.building import build_encoder
from barlow.planning import facts
from barlow.planning import plan as plans
from barlow.pretraining import pretrain
from barlow.recipe import files, schema
from barlow.recipe.changes import override
from barlow.recipe.schema import Recipe
from barlow.training.assembly import build_learner

FAMILIES = [
    importlib.import_module(f"recipes.families.{path.stem}")
    for path in sorted((Path(__file__).parent / "families").glob("*.py"))
]
"""Families of other methods have their `RATES`, `DECAYS` and `SIZES` (epochs and batch) in files of their own, and are
found there."""
BESIDE = "".join(
    path.read_text(encoding="utf-8")
    for path in Path(__file__).parent.glob("test_*.py")
    if path.name != "test_published.py"
)
RECIPES = Path(barlow.__file__).parent / "recipes"
OTHERS = [
    *(
        f"{images}/{kind}"
        for images in ("cifar10", "imagenet")
        for kind in ("moco_v1", "moco_v2", "moco_v3", "simsiam", "supervised", "swav")
    ),
    *(f"cifar10/{kind}" for kind in ("byol", "rotation", "simclr")),
    "imagenet/swav_256",
    "imagenet/counting",
]
"""Of methods that the three papers are compared with."""
OTHERS += [name for family in FAMILIES for name in family.RATES]
NAMES = [name for name in files.names() if "/" in name and (name in OTHERS or f'"{name}"' not in BESIDE)]
"""All but those that a file beside this one names alone: they are tested there."""
PAPERS = [name for name in NAMES if name not in OTHERS]
"""Of Barlow Twins, VICReg and W-MSE."""

ZERO_INIT = [name for family in FAMILIES for name in getattr(family, "ZERO_INIT", [])]

IMAGENET, CIFAR, STL10, TINY_IMAGENET = 1_281_167, 50_000, 105_000, 100_000
IMAGENET100 = 128_000
"""About as many as 100 classes of ImageNet have; a round number of batches."""


@functools.cache
def published(name: str) -> Recipe:
    return schema.check(files.read(name))


# --- Rates --------------------------------------------------------------------------------------------------------

# (images, updates of an epoch, {update: (rate of weights, rate of vectors)}).
# Cosine: W updates of warm-up, T in all; half-way between them the rate is (peak + floor) / 2, at the last it is the
# floor (to π² / 4 (T − W)² of the peak).
# Drops: update u of a warm-up of 500 is made at (u + 1) / 500 of the peak.
RATES: dict[str, tuple[int, int, dict[int, tuple[float, float]]]] = {
    "imagenet/barlow_twins": (  # 0.2 and 0.0048 × 2048 / 256
        IMAGENET,
        625,
        {
            0: (0, 0),
            3_125: (0.8, 0.0192),
            10 * 625: (1.6, 0.0384),
            6_250 + (625_000 - 6_250) // 2: (0.8008, 0.0192192),
            624_999: (0.0016, 0.0000384),
        },
    ),
    "imagenet/vicreg": (  # 0.2 × 2048 / 256
        IMAGENET,
        625,
        {
            0: (0, 0),
            3_125: (0.8, 0.8),
            10 * 625: (1.6, 1.6),
            6_250 + (625_000 - 6_250) // 2: (0.8008, 0.8008),
            624_999: (0.0016, 0.0016),
        },
    ),
    "imagenet/vicreg_100ep": (  # 0.3 × 2048 / 256
        IMAGENET,
        625,
        {
            0: (0, 0),
            3_125: (1.2, 1.2),
            10 * 625: (2.4, 2.4),
            6_250 + (62_500 - 6_250) // 2: (1.2012, 1.2012),
            62_499: (0.0024, 0.0024),
        },
    ),
    **{  # 0.3 × 256 / 256, from 3e-5 in the warm-up, whose middle is (3e-5 + 0.3) / 2, to 0
        f"{images}/{kind}": (
            CIFAR,
            195,
            {
                0: (3e-5, 3e-5),
                975: (0.150015, 0.150015),
                10 * 195: (0.3, 0.3),
                1_950 + (195_000 - 1_950) // 2: (0.15, 0.15),
                194_999: (0, 0),
            },
        )
        for images in ("cifar10", "cifar100")
        for kind in ("barlow_twins", "vicreg")
    },
    **{  # 0.003; × 0.2 after epochs 950 and 975
        f"{images}/w_mse_{views}": (
            CIFAR,
            epoch,
            {
                0: (0.000006, 0.000006),
                249: (0.0015, 0.0015),
                499: (0.003, 0.003),
                500: (0.003, 0.003),
                950 * epoch - 1: (0.003, 0.003),
                950 * epoch: (0.0006, 0.0006),
                975 * epoch - 1: (0.0006, 0.0006),
                975 * epoch: (0.00012, 0.00012),
                1000 * epoch - 1: (0.00012, 0.00012),
            },
        )
        for images in ("cifar10", "cifar100")
        for views, epoch in ((2, 97), (4, 195))
    },
    **{  # 0.002; × 0.2 at 50 and 25 epochs before the end
        f"{images}/w_mse_{views}": (
            count,
            epoch,
            {
                0: (0.000004, 0.000004),
                249: (0.001, 0.001),
                499: (0.002, 0.002),
                (epochs - 50) * epoch - 1: (0.002, 0.002),
                (epochs - 50) * epoch: (0.0004, 0.0004),
                (epochs - 25) * epoch - 1: (0.0004, 0.0004),
                (epochs - 25) * epoch: (0.00008, 0.00008),
                epochs * epoch - 1: (0.00008, 0.00008),
            },
        )
        for images, count, epochs, by_views in (
            ("stl10", STL10, 2000, {2: 205, 4: 410}),
            ("tiny_imagenet", TINY_IMAGENET, 1000, {2: 195, 4: 390}),
            ("imagenet100", IMAGENET100, 240, {2: 250, 4: 500}),
        )
        for views, epoch in by_views.items()
    },
    "cifar10/simclr": (  # 1.0 × 512 / 256, to 0
        CIFAR,
        97,
        {0: (0, 0), 485: (1.0, 1.0), 970: (2.0, 2.0), 970 + (97_000 - 970) // 2: (1.0, 1.0)},
    ),
    "cifar10/byol": (  # 1.0 × 256 / 256, from 3e-5 in the warm-up, to 0
        CIFAR,
        195,
        {
            0: (3e-5, 3e-5),
            975: (0.500015, 0.500015),
            10 * 195: (1.0, 1.0),
            1_950 + (195_000 - 1_950) // 2: (0.5, 0.5),
            194_999: (0, 0),
        },
    ),
    "cifar10/moco_v2": (CIFAR, 97, {0: (0.06, 0.06), 9_700: (0.03, 0.03)}),  # 0.06 at batch 512, a cosine to 0
    "cifar10/moco_v1": (CIFAR, 97, {0: (0.06, 0.06), 9_700: (0.03, 0.03)}),
    "cifar10/moco_v3": (CIFAR, 195, {0: (3e-5, 3e-5), 1_950: (0.3, 0.3), 194_999: (0, 0)}),  # solo-learn's 0.3
    "cifar10/supervised": (CIFAR, 390, {0: (0.1, 0.1), 39_000: (0.05, 0.05), 77_999: (0, 0)}),
    "cifar10/swav": (CIFAR, 195, {0: (3e-5, 3e-5), 1_950: (0.6, 0.6), 194_999: (0, 0)}),  # solo-learn's 0.6
    "imagenet/moco_v1": (  # 0.03, ÷ 10 after epochs 120 and 160 of 200
        IMAGENET,
        5004,
        {0: (0.03, 0.03), 600_479: (0.03, 0.03), 600_480: (0.003, 0.003), 800_640: (0.0003, 0.0003)},
    ),
    "imagenet/moco_v2": (IMAGENET, 5004, {0: (0.03, 0.03), 500_400: (0.015, 0.015), 1_000_799: (0, 0)}),
    "imagenet/moco_v3": (  # 0.3 × 4096 / 256, ten epochs of warm-up from 0
        IMAGENET,
        312,
        {0: (0, 0), 1_560: (2.4, 2.4), 3_120: (4.8, 4.8), 93_599: (1.44669e-9, 1.44669e-9)},
    ),
    "imagenet/supervised": (  # 0.1, ÷ 10 after epochs 30 and 60 of 90
        IMAGENET,
        5004,
        {0: (0.1, 0.1), 150_119: (0.1, 0.1), 150_120: (0.01, 0.01), 300_240: (0.001, 0.001)},
    ),
    "imagenet/swav": (  # ten epochs of warm-up from 0.3 to 4.8, and down to 0.0048
        IMAGENET,
        312,
        {0: (0.3, 0.3), 1_560: (2.55, 2.55), 3_120: (4.8, 4.8), 249_599: (0.0048, 0.0048)},
    ),
    "imagenet/swav_256": (IMAGENET, 5004, {0: (0.6, 0.6), 2_001_599: (0.0006, 0.0006)}),  # no warm-up
    "cifar10/simsiam": (CIFAR, 97, {0: (0.06, 0.06), 38_800: (0.03, 0.03), 77_599: (0, 0)}),  # 0.03 × 512 / 256, to 0
    "imagenet/simsiam": (IMAGENET, 2502, {0: (0.1, 0.1), 125_100: (0.05, 0.05), 250_199: (0, 0)}),  # 0.05 × 512 / 256
    "imagenet/counting": (  # 1e-4 at batch 512, × 0.7 every four epochs of 80
        IMAGENET,
        2502,
        {0: (1e-4, 1e-4), 10_007: (1e-4, 1e-4), 10_008: (7e-5, 7e-5), 200_159: (1.139890e-7, 1.139890e-7)},
    ),
    "cifar10/rotation": (  # 0.1 at batch 128, × 0.2 after epochs 60, 120 and 160 of 200
        CIFAR,
        390,
        {
            0: (0.1, 0.1),
            60 * 390 - 1: (0.1, 0.1),
            60 * 390: (0.02, 0.02),
            120 * 390: (0.004, 0.004),
            160 * 390: (0.0008, 0.0008),
            200 * 390 - 1: (0.0008, 0.0008),
        },
    ),
}

RATES |= {name: rates for family in FAMILIES for name, rates in family.RATES.items()}


def groups_of(chosen: Recipe) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parameter groups that a run would have, of networks of a few weights."""
    small: dict[str, Any] = {"encoder.options": {"layers": [1, 1, 1, 1], "channels": [2, 2, 2, 2]}}
    small |= {f"method.{name}.widths": [4, 2] for name, head in chosen.method.items() if isinstance(head, dict)}
    if chosen.method.get("head") == "auto":  # of as many classes as the images have
        small["method.head"] = {"widths": [2], "hidden_bias": True, "last_bias": True}
    if chosen.method.get("maps") == "auto":
        small |= {"method.features": 8, "method.maps": [[1, 1, 8]] * chosen.method["levels"]}
    chosen = schema.check(override(chosen.as_dict(), small | {"data.image_size": 32}))
    plan = plans.resolved(
        chosen,
        facts.Machine(torch.device("cpu"), processes=1, cores=1, memory=1 << 30, half=False),
        usable=100_000,
        candidates=100_000,
        channels=3,
        image_size=32,
        centre_size=32,
        working_size=32,
        executor="in_memory",
        workers=1,
        mean_and_std=([0.5] * 3, [0.5] * 3),
    )
    images: Any = SimpleNamespace(all_rows=lambda drawn=None: [])  # for those that look at all of them
    optimizer = build_learner(plan, World(torch.device("cpu")), images).optimizer
    yield from ((group["name"], group) for group in optimizer.param_groups)


def test_every_published_recipe_has_its_rates_here() -> None:
    assert sorted(RATES) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_rates_are_the_published_ones(name: str) -> None:
    images, epoch, golden = RATES[name]
    chosen = published(name)
    batch, epochs = int(chosen.train.batch_size), chosen.train.epochs
    assert images // batch == epoch
    assert epochs is not None
    total = round(epochs * epoch)
    schedule = chosen.schedule.build(total, epoch)
    groups = dict(groups_of(chosen))
    assert list(groups)[:2] == ["matrices", "vectors"]
    falling = [group for name, group in groups.items() if group.get("schedule") != "constant" and "." not in name]
    assert len(falling) == 2
    for step, expected in golden.items():
        rate = chosen.optim.peak(batch) * schedule(step, total)
        rates = [rate * group["lr_scale"] for group in falling]
        assert rates == pytest.approx(expected, rel=1e-5, abs=1e-10), step


@pytest.mark.parametrize(
    ("name", "decays"),
    [
        ("cifar10/simclr", [1e-4, 0.0]),
        ("cifar10/byol", [1e-5, 0.0]),
        ("cifar10/moco_v2", [5e-4, 5e-4]),
        ("cifar10/rotation", [5e-4, 5e-4]),
        ("cifar10/moco_v1", [5e-4, 5e-4]),
        ("cifar10/moco_v3", [1e-6, 0.0]),
        ("cifar10/supervised", [5e-4, 5e-4]),
        ("cifar10/swav", [1e-6, 0.0]),
        ("imagenet/moco_v1", [1e-4, 1e-4]),
        ("imagenet/moco_v2", [1e-4, 1e-4]),
        ("imagenet/moco_v3", [1e-6, 0.0]),
        ("imagenet/supervised", [1e-4, 1e-4]),
        ("imagenet/swav", [1e-6, 1e-6]),
        ("imagenet/swav_256", [1e-6, 1e-6]),
        ("cifar10/simsiam", [5e-4, 5e-4]),
        ("imagenet/simsiam", [1e-4, 1e-4]),
        *((name, decays) for family in FAMILIES for name, decays in family.DECAYS.items()),
    ],
)
def test_weight_decay_of_other_methods_is_the_published_one(name: str, decays: list[float]) -> None:
    groups = dict(groups_of(published(name)))
    assert [groups[group]["weight_decay"] for group in ("matrices", "vectors")] == decays


@pytest.mark.parametrize(("name", "peak", "decay"), [("cifar10/simsiam", 0.06, 5e-4), ("imagenet/simsiam", 0.1, 1e-4)])
def test_simsiams_predictor_keeps_the_peak_rate_and_is_decayed(name: str, peak: float, decay: float) -> None:
    groups = dict(groups_of(published(name)))
    assert list(groups) == ["matrices", "vectors", "predictor.* matrices", "predictor.* vectors"]
    for group in list(groups.values())[2:]:
        assert group["schedule"] == "constant"
        assert group["lr"] == pytest.approx(peak)
        assert group["weight_decay"] == decay


@pytest.mark.parametrize("name", PAPERS)
def test_weight_decay_is_of_weights_alone_except_for_w_mse(name: str) -> None:
    groups = dict(groups_of(published(name)))
    decays = [groups[group]["weight_decay"] for group in ("matrices", "vectors")]
    if "w_mse" in name:
        assert decays == [1e-6, 1e-6]
    else:
        assert decays == [1e-6 if "imagenet" in name else 1e-4, 0.0]
        assert [groups[group]["trust"] for group in groups] == [0.001 if "imagenet" in name else 0.02] * 2
        assert [groups[group]["adapt"] for group in groups] == [True, False]
        assert [groups[group]["clip"] for group in groups] == ["cifar" in name] * 2


# --- Rates by batch size --------------------------------------------------------------------------------------------

TABLES = {
    "imagenet/barlow_twins": {128: 0.7, 256: 0.4, 512: 0.3, 1024: 0.25, 2048: 0.2, 4096: 0.2},
    "imagenet/vicreg_100ep": {128: 0.8, 256: 0.5, 512: 0.4, 1024: 0.3, 2048: 0.3},
}
OF_VECTORS = {128: 0.0168, 256: 0.0096, 512: 0.0072, 1024: 0.006, 2048: 0.0048, 4096: 0.0048}
"""Barlow Twins' rates times 0.024, the loss scale of the command for batch 256 in issue 7 of the authors' code. One
rate was given there. The scaled loss moved the biases, which LARS leaves alone, at 0.024 of it."""


@pytest.mark.parametrize("name", TABLES)
def test_a_batch_size_of_the_table_takes_its_tuned_rate(name: str) -> None:
    optim = published(name).optim
    assert optim.lr_per_256 == TABLES[name]
    for batch, rate in TABLES[name].items():
        assert optim.rate_per_256(batch) == rate
        assert optim.peak(batch) == pytest.approx(rate * batch / 256)
        assert optim.why_rate(batch) is None


def test_biases_of_barlow_twins_move_at_the_rate_that_issue_7_gives_for_each_batch_size() -> None:
    optim = published("imagenet/barlow_twins").optim
    for batch, rate in OF_VECTORS.items():
        assert optim.vectors_rate_per_256(batch) == rate == pytest.approx(0.024 * optim.rate_per_256(batch))
        assert optim.vectors_peak(batch) == pytest.approx(rate * batch / 256)
    assert published("imagenet/vicreg").optim.vectors_peak(256) is None, "one rate for all"


def test_between_two_batch_sizes_the_rate_is_linear_in_the_logarithm_and_outside_the_nearest() -> None:
    optim = published("imagenet/barlow_twins").optim
    # log₂(384 / 256) = 0.5849625 of the way from 0.4 to 0.3; log₂(181.0193 / 128) = ½
    assert optim.rate_per_256(384) == 0.341504
    assert optim.rate_per_256(181) == pytest.approx(0.55, abs=1e-4)
    assert optim.rate_per_256(3000) == 0.2
    assert [optim.rate_per_256(batch) for batch in (2, 64, 8192)] == [0.7, 0.7, 0.2]
    assert optim.why_rate(384) == "between the recipe's 0.4 for batch 256 and 0.3 for 512"
    assert optim.why_rate(64) == "that of batch 128, the nearest for which the recipe has one"
    assert optim.why_rate(8192) == "that of batch 4096, the nearest for which the recipe has one"
    rates = [optim.rate_per_256(batch) for batch in range(100, 4500)]
    assert rates == sorted(rates, reverse=True), "without a jump upwards"


def test_a_run_writes_the_rate_of_its_batch_size_as_a_number_and_says_where_it_comes_from(tmp_path: Path) -> None:
    said: list[str] = []
    changes = tiny.SMALL | {"data.executor": "in_memory", "train.steps": 1, "train.batch_size": 24}
    run = tmp_path / "run"
    pretrain(
        tiny.images(tmp_path / "data", 40),
        run,
        recipe="imagenet/barlow_twins",
        overrides=changes | {"optim.lr_per_256": {16: 0.6, 64: 0.4}},
        progress=False,
        tell=said.append,
    )
    optim = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))["optim"]
    assert optim["lr_per_256"] == 0.541504, "0.6 − 0.2 × log₄(24 / 16)"
    assert optim["vectors_lr_per_256"] == 0.0168, "that of batch 128, the nearest"
    assert "rate     0.542 for 256 images: between the recipe's 0.6 for batch 16 and 0.4 for 64" in said
    (line,) = [line for line in said if line.startswith("batch")]
    assert f"peak rate {0.541504 * 24 / 256:.3g} = 0.542 × 24/256 (lars)" in line
    assert any(f"{0.0168 * 24 / 256:.3g}" in line for line in said if "biases" in line)


# --- Networks -----------------------------------------------------------------------------------------------------

# Linear: in × out weights. Batch norm: a scale and a shift for each of its channels.
BARLOW_TWINS = 2048 * 8192 + 2 * 8192**2 + 2 * (2 * 8192)
PROJECTORS = {
    "imagenet/barlow_twins": BARLOW_TWINS,
    "imagenet/vicreg": BARLOW_TWINS + 2 * 8192,
    "imagenet/vicreg_100ep": BARLOW_TWINS + 2 * 8192,
    **{
        f"{images}/{kind}": 512 * 2048 + 2 * 2048**2 + 3 * 2048 + 2 * (2 * 2048)
        for images in ("cifar10", "cifar100")
        for kind in ("barlow_twins", "vicreg")
    },
    **{
        f"{images}/w_mse_{views}": 512 * 1024 + 1024 + 2 * 1024 + 1024 * width + width
        for images, width in (
            ("cifar10", 64),
            ("cifar100", 64),
            ("stl10", 128),
            ("tiny_imagenet", 128),
            ("imagenet100", 128),
        )
        for views in (2, 4)
    },
}
RESNET18, RESNET50 = 11_176_512, 23_508_032
"""torchvision's, without the classifier: 11,689,512 − 513 × 1000 and 25,557,032 − 2049 × 1000."""
ENCODERS = {
    "as_is": RESNET18,
    "small": RESNET18 - 7 * 7 * 3 * 64 + 3 * 3 * 3 * 64,
    "small_pooled": RESNET18 - 7 * 7 * 3 * 64 + 3 * 3 * 3 * 64,
}
FEATURES = {"resnet18": 512, "resnet50": 2048}


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", PAPERS)
def test_the_projector_has_the_published_number_of_parameters(name: str) -> None:
    chosen = published(name)
    with torch.device("meta"):
        projector = chosen.build_method().projector.build(FEATURES[chosen.encoder.name], 0, "projector")
    assert count(projector) == PROJECTORS[name]
    if name == "imagenet/barlow_twins":
        assert sum(p.numel() for p in projector.parameters() if p.ndim == 2) == 150_994_944
        assert sum(p.ndim == 1 for p in projector.parameters()) == 4, "two batch norms, no biases of linear layers"


@pytest.mark.parametrize(
    ("name", "head", "parameters"),
    [
        ("cifar10/simclr", "projector", 512 * 512 + 2 * 512 + 512 * 512 + 2 * 512 + 512 * 128 + 128),
        ("cifar10/byol", "projector", 513 * 4096 + 2 * 4096 + 4097 * 256),
        ("cifar10/byol", "predictor", 257 * 4096 + 2 * 4096 + 4097 * 256),
        ("cifar10/moco_v2", "projector", 513 * 512 + 513 * 128),
        ("cifar10/rotation", "head", 513 * 4),
        ("cifar10/moco_v1", "projector", 513 * 128),
        ("cifar10/moco_v3", "projector", 512 * 4096 + 2 * 4096 + 4096 * 256),
        ("cifar10/moco_v3", "predictor", 256 * 4096 + 2 * 4096 + 4096 * 256),
        ("cifar10/swav", "projector", 513 * 2048 + 2 * 2048 + 2049 * 128),
        ("imagenet/moco_v1", "projector", 2049 * 128),
        ("imagenet/moco_v2", "projector", 2049 * 2048 + 2049 * 128),
        ("imagenet/moco_v3", "projector", 2048 * 4096 + 2 * 4096 + 4096 * 256),
        ("imagenet/moco_v3", "predictor", 256 * 4096 + 2 * 4096 + 4096 * 256),
        ("imagenet/swav", "projector", 2049 * 2048 + 2 * 2048 + 2049 * 128),
        ("cifar10/simsiam", "projector", 512 * 2048 + 2 * 2048 + 2048 * 2048),
        ("cifar10/simsiam", "predictor", 2048 * 512 + 2 * 512 + 513 * 2048),
        ("imagenet/simsiam", "projector", 3 * 2048 * 2048 + 2 * 2 * 2048),
        ("imagenet/simsiam", "predictor", 2048 * 512 + 2 * 512 + 513 * 2048),
    ],
)
def test_the_heads_of_other_methods_have_the_published_number_of_parameters(
    name: str, head: str, parameters: int
) -> None:
    method = published(name).build_method()
    features = FEATURES[published(name).encoder.name]
    width = method.projector.widths[-1] if head == "predictor" else features
    with torch.device("meta"):
        assert count(getattr(method, head).build(width, 0, head)) == parameters


def test_the_small_images_encoders_have_the_published_number_of_parameters() -> None:
    stems = {published(name).encoder.stem: published(name) for name in NAMES if "w_mse" in name}
    assert set(stems) == set(ENCODERS)
    for stem, chosen in stems.items():
        encoder = build_encoder(chosen.encoder.name, image_size=32, stem=stem, zero_init_last=False)
        assert count(encoder) == ENCODERS[stem]
        assert encoder.num_features == 512
        assert all(bool(norm.weight.all()) for norm in encoder.modules() if isinstance(norm, torch.nn.BatchNorm2d))


def test_the_imagenet_encoder_has_the_published_number_of_parameters() -> None:
    for name in ("imagenet/barlow_twins", "imagenet/vicreg", "imagenet/vicreg_100ep"):
        encoder = published(name).encoder
        assert (encoder.name, encoder.stem, encoder.zero_init_last) == ("resnet50", "as_is", True)
    with torch.device("meta"):
        assert count(build_encoder("resnet50", image_size=32)) == RESNET50


def test_stems_are_those_of_the_sets() -> None:
    wanted = {"cifar10": "small", "cifar100": "small", "stl10": "small_pooled", "tiny_imagenet": "small_pooled"}
    for name in NAMES:
        encoder = published(name).encoder
        assert encoder.stem == wanted.get(name.split("/")[0], "as_is")
        assert encoder.name == ("resnet50" if name.startswith("imagenet/") else "resnet18")
        of_papers = name.startswith("imagenet/") and (name in PAPERS or "moco_v3" in name or name in ZERO_INIT)
        assert encoder.zero_init_last == (of_papers or "simsiam" in name)


# Of each W-MSE set, as htdt/self-supervised has them (datasets/*.py at d9662c8).
MEAN_AND_STD = {
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    "cifar100": ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]),
    "stl10": ([0.43, 0.42, 0.39], [0.27, 0.26, 0.27]),
    "tiny_imagenet": ([0.480, 0.448, 0.398], [0.277, 0.269, 0.282]),
    "imagenet100": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}


@pytest.mark.parametrize("name", [name for name in NAMES if "w_mse" in name])
def test_w_mse_normalises_each_set_by_the_numbers_of_the_authors_code(name: str) -> None:
    data = published(name).data
    assert (data.mean, data.std) == MEAN_AND_STD[name.split("/")[0]]


# --- Losses, views, budgets -----------------------------------------------------------------------------------------


def test_the_objectives_of_other_methods_are_the_published_ones() -> None:
    assert published("cifar10/simclr").objective == {"kind": "simclr", "temperature": 0.5, "convention": "code"}
    assert published("cifar10/moco_v2").objective == {"kind": "moco", "queue": 4096, "temperature": 0.1}
    byol, moco = published("cifar10/byol").method, published("cifar10/moco_v2").method
    assert (byol["momentum"], byol["momentum_schedule"], byol["symmetric"]) == (0.99, "cosine", True)
    assert (moco["momentum"], moco["momentum_schedule"], moco["symmetric"]) == (0.99, "constant", False)
    assert published("cifar10/moco_v2").train.batch_size == 8 * moco["batch_norm_rows"], "eight groups"
    assert [op["kind"] for op in published("cifar10/rotation").views[0]][-1] == "random_rotate90"
    for name in ("cifar10/simsiam", "imagenet/simsiam"):
        assert published(name).objective == {"kind": "simsiam"}
        simsiam = published(name).method
        assert (simsiam["kind"], simsiam["momentum"], simsiam["symmetric"]) == ("distillation", None, True)
        assert (simsiam["projector"]["last_batch_norm"], simsiam["predictor"]["last_batch_norm"]) == ("plain", "none")


def test_swav_has_the_published_prototypes_queue_and_crops() -> None:
    for name in ("cifar10/swav", "imagenet/swav", "imagenet/swav_256"):
        chosen = published(name)
        swav = chosen.objective
        assert [swav[key] for key in ("prototypes", "temperature", "epsilon", "iterations", "assigned")] == [
            3000, 0.1, 0.05, 3, 2,
        ]  # fmt: skip
        queue, epochs, total = {
            "cifar10/swav": (3840, 50, 1000),
            "imagenet/swav": (0, 30, 800),
            "imagenet/swav_256": (3840, 15, 400),
        }[name]
        assert (swav["queue"], swav["queue_from"]) == (queue, epochs / total)
        (rule,) = chosen.optim.groups
        assert rule.parameters == "objective.prototypes"
        assert rule.frozen_until == pytest.approx((2 if name == "cifar10/swav" else 1) / total)
    for name in ("imagenet/swav", "imagenet/swav_256"):
        crops = [(view[0]["size"], list(view[0]["scale"])) for view in published(name).views]
        assert crops == 2 * [("auto", [0.14, 1.0])] + 6 * [(96, [0.05, 0.14])]
        method = published(name).method
        assert (method["passes"], method["batch_norm_sees"], method["large"]) == ("each_size", "all_views", None)


def test_the_mocos_have_the_published_queues_keys_and_temperatures() -> None:
    wanted = {
        "cifar10/moco_v1": (4096, 0.1, 0.99, 64),
        "imagenet/moco_v1": (65536, 0.07, 0.999, 32),
        "imagenet/moco_v2": (65536, 0.2, 0.999, 32),
    }
    for name, (queue, temperature, momentum, rows) in wanted.items():
        chosen = published(name)
        assert chosen.objective == {"kind": "moco", "queue": queue, "temperature": temperature}
        assert (chosen.method["momentum"], chosen.method["batch_norm_rows"]) == (momentum, rows)
        assert (chosen.method["momentum_schedule"], chosen.method["symmetric"]) == ("constant", False)
    for name, temperature in (("cifar10/moco_v3", 0.2), ("imagenet/moco_v3", 1.0)):
        chosen = published(name)
        assert chosen.objective == {"kind": "moco_v3", "temperature": temperature}
        assert (chosen.method["momentum"], chosen.method["momentum_schedule"]) == (0.99, "cosine")
        assert [chosen.method[head]["last_batch_norm"] for head in ("projector", "predictor")] == ["plain", "none"]
    first = [op["kind"] for op in published("imagenet/moco_v1").views[0]]
    assert first == ["random_resized_crop", "grayscale", "color_jitter", "horizontal_flip"], "in the code's order"
    assert published("imagenet/moco_v1").views[0][2]["p"] == 1.0


def test_the_objectives_are_the_published_ones() -> None:
    for name in PAPERS:
        chosen = published(name)
        kind = name.split("/")[1]
        if kind == "barlow_twins":
            assert (chosen.objective["redundancy"], chosen.objective["eps"]) == (0.0051, 1e-5)
            assert chosen.optim.loss_weight == (1 / 16 if name == "imagenet/barlow_twins" else 0.1)
        elif kind.startswith("vicreg"):
            assert [chosen.objective[key] for key in ("invariance", "variance", "covariance")] == [25, 25, 1]
            assert (chosen.objective["gamma"], chosen.objective["eps"]) == (1, 1e-4)
            assert chosen.objective["convention"] == ("code" if name.startswith("imagenet/") else "algorithm_1")
            assert chosen.optim.loss_weight == 1
        else:
            assert chosen.objective["slice_rows"] == 2 * chosen.method["projector"]["widths"][-1], "the authors' rule"
            assert int(chosen.train.batch_size) % chosen.objective["slice_rows"] == 0
            slicings = 4 if name in ("stl10/w_mse_2", "tiny_imagenet/w_mse_2") else 1
            assert (chosen.objective["slicings"], chosen.objective["shrinkage"]) == (slicings, 0)
            assert chosen.train.precision == "float32"
        assert chosen.method["batch_norm_sees"] == ("all_views" if "w_mse" in name else "each_view")


def ops_of(name: str) -> list[list[str]]:
    return [[op["kind"] for op in view] for view in files.read(name)["views"]]


def test_imagenet_views_are_the_asymmetric_pair_of_the_released_code() -> None:
    for name in ("imagenet/barlow_twins", "imagenet/vicreg", "imagenet/vicreg_100ep"):
        common = ["random_resized_crop", "horizontal_flip", "color_jitter", "grayscale", "gaussian_blur"]
        assert ops_of(name) == [common, [*common, "solarize"]]
        first, second = published(name).views
        assert (first[4]["p"], second[4]["p"], second[5]["p"]) == (1.0, 0.1, 0.2)
        assert second[5]["threshold"] == 128
        for view in (first, second):
            assert list(view[4]["sigma"]) == [0.1, 2.0]
            assert list(view[0]["scale"]) == [0.08, 1.0]
            assert list(view[0]["ratio"]) == [3 / 4, 4 / 3]
            assert (view[1]["p"], view[3]["p"]) == (0.5, 0.2)
            assert [view[2][key] for key in ("p", "brightness", "contrast", "saturation", "hue")] == [
                0.8, 0.4, 0.4, 0.2, 0.1,
            ]  # fmt: skip


def test_cifar_views_are_solo_learns_flipped_last_and_never_blurred() -> None:
    for images in ("cifar10", "cifar100"):
        plain = ["random_resized_crop", "color_jitter", "grayscale", "horizontal_flip"]
        solarised = [*plain[:3], "solarize", "horizontal_flip"]
        assert ops_of(f"{images}/barlow_twins") == [plain, solarised]
        assert ops_of(f"{images}/vicreg") == [solarised, solarised]
        twins, vicreg = published(f"{images}/barlow_twins").views, published(f"{images}/vicreg").views
        assert [view[0]["scale"][0] for view in (*twins, *vicreg)] == [0.08, 0.08, 0.2, 0.2]
        assert [twins[1][3]["p"], vicreg[0][3]["p"], vicreg[1][3]["p"]] == [0.2, 0.1, 0.1]


def test_simsiam_s_views_are_those_of_moco_v2_and_blurred_on_imagenet_alone() -> None:
    plain = ["random_resized_crop", "color_jitter", "grayscale", "horizontal_flip"]
    assert ops_of("cifar10/simsiam") == [plain, plain]
    blurred = [*plain[:3], "gaussian_blur", "horizontal_flip"]
    assert ops_of("imagenet/simsiam") == [blurred, blurred]
    for name in ("cifar10/simsiam", "imagenet/simsiam"):
        first, second = published(name).views
        assert first == second
        assert list(first[0]["scale"]) == [0.2, 1.0]
        assert [first[1][key] for key in ("p", "brightness", "contrast", "saturation", "hue")] == [
            0.8, 0.4, 0.4, 0.4, 0.1,
        ]  # fmt: skip
        assert (first[2]["p"], first[-1]["p"]) == (0.2, 0.5)
    assert (blur := published("imagenet/simsiam").views[0][3])["p"] == 0.5
    assert list(blur["sigma"]) == [0.1, 2.0]


def test_w_mse_changes_colours_before_it_crops_and_blurs_imagenet_alone() -> None:
    for name in (name for name in NAMES if "w_mse" in name):
        views = published(name).views
        assert len(views) == int(name[-1])
        assert all(view == views[0] for view in views)
        large = name.startswith("imagenet100")
        order = ["color_jitter", "grayscale", "random_resized_crop", "horizontal_flip"]
        assert [op["kind"] for op in views[0]] == order + ["gaussian_blur"] * large
        jitter, gray, crop = views[0][:3]
        assert [jitter[key] for key in ("p", "brightness", "contrast", "saturation", "hue")] == (
            [0.8, 0.8, 0.8, 0.8, 0.2] if large else [0.8, 0.4, 0.4, 0.4, 0.1]
        )
        assert (gray["p"], crop["scale"][0]) == ((0.2, 0.08) if large else (0.1, 0.2))
        assert not large or (views[0][4]["p"], list(views[0][4]["sigma"])) == (0.5, [0.1, 2.0])


def test_sizes_epochs_and_batches_are_the_published_ones() -> None:
    of_others = {"byol": (1000, 256), "moco_v2": (200, 512), "rotation": (200, 128), "simclr": (1000, 512)}
    of_others = {f"cifar10/{kind}": sizes for kind, sizes in of_others.items()}
    of_others |= {"cifar10/simsiam": (800, 512), "imagenet/simsiam": (100, 512)}
    of_others |= {"cifar10/moco_v1": (200, 512), "imagenet/moco_v1": (200, 256), "imagenet/moco_v2": (200, 256)}
    of_others |= {"cifar10/moco_v3": (1000, 256), "imagenet/moco_v3": (300, 4096)}
    of_others |= {"imagenet/counting": (80, 512)}
    of_others |= {"cifar10/supervised": (200, 128), "imagenet/supervised": (90, 256)}
    of_others |= {"cifar10/swav": (1000, 256), "imagenet/swav": (800, 4096), "imagenet/swav_256": (400, 256)}
    of_others |= {name: sizes for family in FAMILIES for name, sizes in family.SIZES.items()}
    for name in OTHERS:
        train = published(name).train
        assert (train.epochs, train.batch_size) == of_others[name]
    for name in PAPERS:
        images, kind = name.split("/")
        chosen = published(name)
        sides = {"cifar10": 32, "cifar100": 32, "stl10": 64, "tiny_imagenet": 64}
        assert chosen.data.image_size == sides.get(images, 224)
        epochs = {"vicreg_100ep": 100}.get(kind) or {"imagenet100": 240, "stl10": 2000}.get(images, 1000)
        assert chosen.train.epochs == epochs
        batch = {"w_mse_2": 512, "w_mse_4": 256}.get(kind) or {"imagenet": 2048}.get(images, 256)
        assert chosen.train.batch_size == batch
        assert chosen.data.sources == ([images] if images.startswith("cifar") else [])


def test_where_there_is_no_official_recipe_the_file_says_so() -> None:
    for images in ("cifar10", "cifar100"):
        for kind, method in (("barlow_twins", "Barlow Twins"), ("vicreg", "VICReg")):
            source = published(f"{images}/{kind}").source
            assert source.code.startswith("vturrisi/solo-learn@")
            assert "not by the paper's authors" in source.code
            file = RECIPES / images / f"{kind}.yaml"
            text = file.read_text(encoding="utf-8")
            assert f"# The authors of {method} published no recipe for CIFAR" in text
    simsiam = published("cifar10/simsiam").source
    assert simsiam.code.startswith("facebookresearch/simsiam@")
    assert "there is none for CIFAR-10" in simsiam.code
