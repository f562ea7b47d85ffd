"""What is found out before any network is built, from a recipe and the images."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from barlow.distributed import World
from barlow.planning import preparation
from barlow.recipe.messages import RecipeError
from barlow.recipe.request import chosen_recipe

SINGLE = World(torch.device("cpu"))
CROP = {"kind": "random_resized_crop", "size": "auto"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "photos", 40, classes=4)


def prepared(data: Path, objective: Any = None, **overrides: Any) -> preparation.Prepared:
    changes = tiny.SMALL | {"data.workers": 0} | {key.replace("__", "."): value for key, value in overrides.items()}
    widths = changes.pop("method.projector.widths")
    kind = changes.pop("recipe", "small_barlow_twins")
    if kind != "small_rotation":
        changes["method.projector.widths"] = widths
    return preparation.prepare(chosen_recipe(data, recipe=kind, overrides=changes), SINGLE, objective)


@pytest.mark.parametrize("executor", ["in_memory", "streaming"])
def test_told_draws_are_known_of_the_rows_and_labels_only_where_they_are_asked_for(executor: str, data: Path) -> None:
    loader = prepared(data, recipe="small_rotation", data__executor=executor).loader
    rows = next(iter(loader.stream(0, 1))).rows
    assert rows.known.keys() == {"ids", "rotation"}
    assert set(rows.known["rotation"].tolist()) <= {0, 1, 2, 3}

    def supervised(*z: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": z[0].mean()}

    loader = prepared(data, supervised, data__executor=executor).loader
    rows = next(iter(loader.stream(0, 1))).rows
    assert rows.known["labels"].tolist() == [label // 10 for label in rows.known["ids"].tolist()], "ten of each class"


@pytest.mark.parametrize("executor", ["in_memory", "streaming"])
def test_all_images_come_once_in_order_and_the_last_batch_is_filled_up(executor: str, data: Path) -> None:
    loader = prepared(data, data__executor=executor).loader
    rows = list(loader.all_rows())
    assert torch.cat([part.known["ids"] for part in rows]).tolist() == [*range(40), *[39] * 8]
    assert [view.shape for part in rows for view in part.views] == [(16, 3, 16, 16)] * 3


@pytest.mark.parametrize("executor", ["in_memory", "streaming"])
def test_all_images_come_as_views_that_no_step_has_in_a_random_order(executor: str, data: Path) -> None:
    loader = prepared(data, data__executor=executor).loader

    def found(drawn: int) -> tuple[list[int], list[torch.Tensor]]:
        rows = list(loader.all_rows(drawn))
        return torch.cat([part.known["ids"] for part in rows]).tolist(), [part.views[1] for part in rows]

    ids, views = found(0)
    assert sorted(ids[:40]) == list(range(40))
    assert ids[40:] == ids[:8]
    assert [view.shape for view in views] == [(16, 3, 16, 16)] * 3
    again, others = found(0), found(1)
    assert again[0] == ids
    assert all(a.equal(b) for a, b in zip(again[1], views, strict=True))
    assert others[0] != ids
    step = next(iter(loader.stream(0, 1))).rows
    one, where = int(step.known["ids"][0]), ids.index(int(step.known["ids"][0]))
    assert ids[where] == one
    assert not step.views[1][0].equal(views[where // 16][where % 16])


def test_several_processes_share_all_images(data: Path) -> None:
    chosen = chosen_recipe(data, overrides=tiny.SMALL | {"data.workers": 0})
    worlds = [World(torch.device("cpu"), rank, 2) for rank in range(2)]
    shares = [list(preparation.prepare(chosen, world).loader.all_rows()) for world in worlds]
    ids = [part.known["ids"] for pair in zip(*shares, strict=True) for part in pair]
    assert torch.cat(ids).tolist() == [*range(40), *[39] * 8]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"recipe": "small_rotation", "views": [[{"kind": "random_resized_crop", "size": "auto"}]]},
            r"objective rotation asks for 'rotation', and what is known of a step is ids, progress: add the view op",
        ),
        (
            {"views": [[{"kind": "random_resized_crop", "size": "auto"}]]},
            r"barlow_twins .*cannot use --batch-size 16, 1 views and embeddings of width 4 .*two views",
        ),
        ({"train__rows_in_memory": 3, "train__batch_size": 16}, None),
        (
            {"recipe": "small_byol", "views": [[{"kind": "random_resized_crop", "size": "auto"}]]},
            "the method distillation needs two views or more, and the recipe has 1",
        ),
        (
            {"objective__kind": "byol", "method__kind": "siamese"},
            "objective byol takes a prediction and its target, and the method siamese gives two or more views: start",
        ),
        ({"recipe": "small_byol", "objective__kind": "vicreg", "method__predictor__widths": [16, 4]}, None),
        ({"train__rows_in_memory": 2, "train__batch_size": 15}, r"--rows-in-memory 2 leaves a chunk of one row of 15"),
        (
            {
                "recipe": "small_moco_v2",
                "objective__queue": 64,
                "method__batch_norm_rows": 4,
                "train__rows_in_memory": 8,
            },
            r"--rows-in-memory 8 and method.batch_norm_rows 4: .*activation_checkpointing",
        ),
        (
            {"recipe": "small_moco_v2", "objective__queue": 64, "method__batch_norm_rows": 6},
            r"a batch of 16 rows does not divide into two groups or more of 6 .*use --method.batch_norm_rows 4",
        ),
        (
            {"recipe": "small_moco_v2", "objective__queue": 64, "method__batch_norm_rows": 16},
            r"in one group a query and its key share their batch statistics: use --method.batch_norm_rows 8",
        ),
        (
            {"recipe": "small_rotation", "views": [[CROP, {"kind": "random_rotate90"}], [CROP]]},
            r"rotation asks for 'rotation', which one of 2 views tells, .*keep the view that tells it alone",
        ),
        (
            {"recipe": "small_moco_v2", "objective__queue": 60, "method__batch_norm_rows": 8},
            r"moco .*cannot use --batch-size 16.*queue",
        ),
        (
            {"data__image_size": 24, "views__0__0__size": 16, "views__1__0__size": 16},
            r"data.image_size is 24 and the views",
        ),
        (
            {"data__image_size": [16, 24], "views__0__0__size": 16, "views__1__0__size": [24, 16]},
            r"data.image_size is 16x24 and the views are 16 and 24x16 px; set both, or the crops' size to auto",
        ),
        ({"data__image_size": [16, 24], "views__0__0__size": 16}, None),
    ],
)
def test_what_cannot_work_is_refused_before_a_network_is_built(
    overrides: dict[str, Any], message: str | None, data: Path
) -> None:
    if message is None:
        prepared(data, **overrides)
        return
    with pytest.raises((RecipeError, ValueError), match=message) as caught:
        prepared(data, **overrides)
    assert "\n" not in str(caught.value)


def test_an_objective_that_asks_for_labels_of_images_without_classes_is_refused(tmp_path: Path) -> None:
    def supervised(*z: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": z[0].mean()}

    with pytest.raises(
        RecipeError, match="asks for 'labels', and what is known of a step is ids, progress: train on folders"
    ):
        prepared(tiny.images(tmp_path / "flat", 20), supervised)


@dataclass(frozen=True, kw_only=True)
class Counting:
    """An objective that is built for the number of classes."""

    def build(self, *, width: int, classes: int) -> torch.nn.Module:
        return _Counting(width, classes)


class _Counting(torch.nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.scores = torch.nn.Linear(width, classes)

    def forward(self, groups: list[tuple[torch.Tensor, ...]], *, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": torch.nn.functional.cross_entropy(self.scores(groups[0][0]), labels)}


def test_an_objective_that_is_built_for_the_classes_is_told_how_many_there_are(data: Path) -> None:
    found = prepared(data, Counting())
    assert found.plan.classes == 4, "of all images, not of the first batch of a sorted folder"
    assert found.plan.new_objective(Counting()).scores.out_features == 4
    assert prepared(data).plan.classes is None


def test_a_plan_has_its_values_as_what_they_are(data: Path) -> None:
    plan = prepared(data).plan
    assert "auto" not in str(plan.recipe.as_dict())
    for name in ("channels", "image_size", "working_size", "executor", "workers", "mean", "std"):
        assert getattr(plan, name) == getattr(plan.recipe.data, name)
    assert (plan.batch_size, plan.precision) == (plan.recipe.train.batch_size, plan.recipe.train.precision)
    assert plan.stem == plan.recipe.encoder.stem
    assert plan.candidates == 40
    assert plan.peak == plan.recipe.optim.lr_per_256 * 16 / 256


def test_the_batch_of_a_small_set_is_one_that_the_objective_can_use(tmp_path: Path) -> None:
    hundred = tiny.images(tmp_path / "photos", 100)
    chosen = chosen_recipe(hundred, recipe="small_w_mse", overrides={"train.steps": 1, "data.workers": 0})
    assert preparation.prepare(chosen, SINGLE).plan.batch_size == 64, "two slices of 32 dimensions would not fit in 16"
    assert prepared(hundred, train__batch_size="auto").plan.batch_size == 16


@pytest.mark.parametrize("batch", ["auto", 16, 64])
@pytest.mark.parametrize("count", [3, 12, 17, 33, 40, 63, 64, 70])
def test_of_few_images_w_mse_takes_a_batch_that_it_can_use_or_one_that_a_message_names_works(
    count: int, batch: int | str, tmp_path: Path
) -> None:
    data = tiny.images(tmp_path / "photos", count)
    wide = {"recipe": "small_w_mse", "method__projector__widths": [64, 32], "data__executor": "in_memory"}
    try:
        chosen = prepared(data, train__batch_size=batch, **wide).plan.batch_size
        assert 32 < chosen <= count
    except ValueError as error:
        said = str(error)
        if count > 32:
            assert batch != "auto", said
            (named,) = re.findall(r"(?:: use |; )--batch-size (\d+)", said)
            assert prepared(data, train__batch_size=int(named), **wide).plan.batch_size == int(named)
        else:
            assert "--batch-size" not in said, "no batch would do, so none is named"
            assert f"{count} usable images are too few for w_mse with embeddings of width 32: give 64 or more" in said
            named = re.search(r"a projector that ends in (\d+) \(--method.projector.widths\)", said)
            assert (named is None) == (count < 4)
            if named:
                narrower = wide | {"method__projector__widths": [64, int(named[1])]}
                assert prepared(data, train__batch_size="auto", **narrower).plan.batch_size <= count


def test_images_that_would_not_fit_are_refused_where_the_recipe_wants_them_in_memory(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("barlow.planning.facts.available_memory", lambda: 10_000)
    with pytest.raises(RecipeError, match=r"in_memory, and 40 images at 24 px take .* 0\.0 GB are free: use --data"):
        prepared(data, data__executor="in_memory")
    assert prepared(data, data__executor="auto").plan.executor == "streaming"
