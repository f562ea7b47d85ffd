"""Combinations and variants hold the published settings, and are their method's recipe in all else."""

from typing import Any

import pytest
import torch
from torch import nn

from barlow.recipe import files, schema
from barlow.recipe.schema import Recipe

IMAGENET = "imagenet"
"""The names of the three papers' recipes are put together: one that stands in a test here is taken for tested by it."""

TABLE_6 = {"predictor": (True, False), "stop_gradient": (False, True), "predictor_stop_gradient": (True, True)}


def published(name: str) -> Recipe:
    return schema.check(files.read(name))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}


@pytest.mark.parametrize("kind", TABLE_6)
def test_barlow_twins_of_table_6_is_barlow_twins_but_for_what_the_table_changes(kind: str) -> None:
    chosen, base = published(f"imagenet/barlow_twins_{kind}"), published(f"{IMAGENET}/barlow_twins")
    with_predictor, stopped = TABLE_6[kind]
    of_both = ("source", "method", "train")
    assert without(chosen.as_dict(), *of_both) == without(base.as_dict(), *of_both)
    assert without(chosen.as_dict()["train"], "epochs") == without(base.as_dict()["train"], "epochs")
    method = chosen.build_method()
    assert (method.momentum, method.symmetric, method.stop_gradient) == (None, True, stopped)
    assert chosen.method["projector"] == base.method["projector"]
    assert (method.predictor is not None) == with_predictor
    if with_predictor:
        with torch.device("meta"):
            assert count(method.predictor.build(8192, 0, "predictor")) == 2 * 8192**2 + 2 * 8192


def test_vicregs_terms_have_weights_1_and_0_01_in_byol_and_simsiam() -> None:
    for name, convention in (("imagenet/byol_vicreg", "byol"), ("imagenet/simsiam_vicreg", "simsiam")):
        chosen = published(name)
        objective = chosen.objective
        assert [objective[key] for key in ("variance", "covariance", "gamma", "eps", "convention")] == [
            1.0, 0.01, 1.0, 1e-4, convention,
        ]  # fmt: skip
        assert chosen.method["with_embeddings"]
    byol = published("imagenet/byol_vicreg").build_method()
    assert (byol.momentum, byol.momentum_schedule, byol.symmetric) == (0.99, "cosine", True)
    with torch.device("meta"):
        assert count(byol.projector.build(2048, 0, "projector")) == 2049 * 4096 + 2 * 4096 + 4096 * 256
        assert count(byol.predictor.build(256, 0, "predictor")) == 257 * 4096 + 2 * 4096 + 4096 * 256
    assert published("imagenet/byol_vicreg").views == published(f"{IMAGENET}/barlow_twins").views, (
        "BYOL's, which BT took"
    )


def test_simsiam_with_the_terms_is_simsiam_at_batch_2048() -> None:
    chosen, base = (published(f"imagenet/{kind}").as_dict() for kind in ("simsiam_vicreg", "simsiam"))
    of_both = ("source", "objective", "method", "train")
    assert without(chosen, *of_both) == without(base, *of_both)
    assert without(chosen["method"], "with_embeddings") == without(base["method"], "with_embeddings")
    assert (chosen["train"]["batch_size"], base["train"]["batch_size"]) == (2048, 512)


def test_swav_with_two_crops_is_swav_but_for_its_crops() -> None:
    chosen, base = published("imagenet/swav_two_crops"), published("imagenet/swav")
    assert without(chosen.as_dict(), "source", "views") == without(base.as_dict(), "source", "views")
    assert [(view[0]["size"], list(view[0]["scale"])) for view in chosen.views] == [("auto", [0.08, 1.0])] * 2
    assert [view[1:] for view in chosen.views] == [view[1:] for view in base.views[:2]]
    assert chosen.objective["assigned"] == len(chosen.views)


def test_exemplar_has_eight_copies_triplets_of_margin_a_half_and_grey_for_two_in_three() -> None:
    chosen = published("imagenet/exemplar_triplets")
    assert len(chosen.views) == 8
    assert all(view == chosen.views[0] for view in chosen.views)
    grey, crop, flip, colours, last = chosen.views[0]
    assert [op["kind"] for op in chosen.views[0]] == [
        "grayscale", "random_resized_crop", "horizontal_flip", "color_jitter", "standardize",
    ]  # fmt: skip
    assert (grey["p"], list(crop["scale"]), flip["p"], last["reach"]) == (0.66, [0.05, 1.0], 0.5, 4.0)
    assert [colours[key] for key in ("p", "contrast", "saturation", "hue")] == [1.0, 0.0, 0.5, 0.0]
    assert colours["brightness"] == pytest.approx(32 / 255, abs=1e-5)
    assert chosen.objective == {"kind": "exemplar_triplets", "margin": 0.5}
    with torch.device("meta"):
        assert count(chosen.build_method().projector.build(2048, 0, "projector")) == 2049 * 1000


@pytest.mark.parametrize("kind", ["barlow_twins", "simclr", "vicreg"])
def test_two_networks_are_two_branches_of_which_the_second_is_a_transformer(kind: str) -> None:
    chosen, alike = (published(f"small_{kind}_two_{what}") for what in ("networks", "branches"))
    assert without(chosen.as_dict(), "source", "method") == without(alike.as_dict(), "source", "method")
    assert chosen.method["other"]["name"] == "vit_tiny_patch16_224"
    assert "resnet" in chosen.encoder.name, "which is what the run keeps"
    assert chosen.kept is not None
    assert "vit_tiny_patch16_224" in chosen.kept
    assert without(chosen.method, "other") == without(alike.method, "other")
