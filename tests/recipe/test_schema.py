"""A recipe says what is wrong with it in one line: the key, what was given, what is allowed."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from barlow.objectives.vicreg import VICReg
from barlow.objectives.w_mse import WMSE
from barlow.recipe import files, schema
from barlow.recipe.changes import override
from barlow.recipe.messages import RecipeError

VICREG = files.read("small_vicreg")


def checked(**changes: Any) -> schema.Recipe:
    return schema.check(override(VICREG, {key.replace("__", "."): value for key, value in changes.items()}))


# --- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("sede", "seed"),
        ("optm.kind", "optim"),
        ("source.papre", "paper"),
        ("data.image_sise", "image_size"),
        ("views.0.0.scael", "scale"),
        ("views.1.4.treshold", "threshold"),
        ("encoder.nam", "name"),
        ("method.knd", "kind"),
        ("method.projector.width", "widths"),
        ("objective.varience", "variance"),
        ("optim.weight_decy", "weight_decay"),
        ("schedule.warmup_fracton", "warmup_fraction"),
        ("train.epoch", "epochs"),
    ],
)
def test_an_unknown_key_anywhere_is_refused_with_the_nearest_one(key: str, nearest: str) -> None:
    with pytest.raises(RecipeError, match=rf"unknown key {key}.*did you mean '{nearest}'\?") as caught:
        checked(**{key: 1})
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_a_file_is_refused_as_one_in_a_flag_is() -> None:
    for section in ("data", "encoder", "method", "objective", "optim", "schedule", "train", "source"):
        content = copy.deepcopy(VICREG)
        content[section]["nonsense"] = 1
        with pytest.raises(RecipeError, match=rf"unknown key {section}\.nonsense"):
            schema.check(content)
    with pytest.raises(RecipeError, match=r"unknown key x; allowed here: data, "):
        schema.check(VICREG | {"x": 1})


@pytest.mark.parametrize(
    ("section", "misspelt"),
    [("optim", "optm"), ("views", "veiws"), ("schedule", "shedule"), ("train", "trian"), ("seed", "sed")],
)
def test_a_misspelt_section_of_a_file_is_named_rather_than_the_one_that_is_missing(section: str, misspelt: str) -> None:
    content = {misspelt if key == section else key: value for key, value in VICREG.items()}
    with pytest.raises(RecipeError, match=rf"^unknown key {misspelt} \(did you mean '{section}'\?\); allowed here: "):
        schema.check(content)
    content = copy.deepcopy(VICREG)
    content["data"]["splt"] = content["data"].pop("split")
    with pytest.raises(RecipeError, match=r"^unknown key data\.splt \(did you mean 'split'\?\)"):
        schema.check(content)


@pytest.mark.parametrize("section", [name for name in schema.Recipe.model_fields if name != "seed"])
def test_a_recipe_without_one_of_its_sections_is_refused(section: str) -> None:
    with pytest.raises(RecipeError, match=f"{section} is missing"):
        schema.check({key: value for key, value in VICREG.items() if key != section})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", "x", r"seed is 'x'; input should be a valid integer"),
        ("seed", -1, r"seed is -1; .*greater than or equal to 0"),
        ("data.sources", "photos", r"data\.sources is 'photos'; .*list"),
        ("data.image_size", "big", r"data\.image_size is 'big'; .*integer.*, or auto"),
        ("data.image_size", 2, r"data\.image_size is 2; .*or auto"),
        ("data.image_size", 2049, r"data\.image_size is 2049; .*from 4 to 2048, or auto"),
        ("data.image_size", [32, 2], r"data\.image_size is \[32, 2\]; give the side .* height x width .*from 4"),
        ("data.image_size", [32, 64, 3], r"data\.image_size is \[32, 64, 3\]; give .*\[32, 128\]"),
        ("data.image_size", [], r"data\.image_size is \[\]; give"),
        ("data.image_size", [32.0, 64], r"data\.image_size is \[32\.0, 64\]; give .*integers"),
        ("data.image_size", 32.5, r"data\.image_size is 32\.5; give .*integers"),
        ("data.image_size", True, r"data\.image_size is True; give"),
        ("data.image_size", None, r"data\.image_size is None; give"),
        ("data.working_size", "32x5000", r"data\.working_size is '32x5000'; .*from 4 to 4096, or auto"),
        ("views.0.0.size", "32x", r"views\.0\.0\.size is '32x'; .*at least 1, or auto"),
        ("views.0.0.size", [32, 0], r"views\.0\.0\.size is \[32, 0\]; .*at least 1, or auto"),
        ("views.0.1.size", 32, r"unknown key views\.0\.1\.size"),
        ("data.mean", ["a"], r"data\.mean\.0 is 'a'; .*number"),
        ("data.std", [0.0], r"data\.std\.0 is 0\.0; .*greater than 0"),
        ("data.max_bad", 1.5, r"data\.max_bad is 1\.5"),
        ("data.executor", "fast", r"data\.executor is 'fast'; .*'in_memory', 'streaming' or 'auto'"),
        ("views", [], r"views is \[\]; .*at least 1"),
        ("views.0", "crop", r"views\.0 is 'crop'; .*list"),
        ("views.0.1.p", "often", r"views\.0\.1\.p is 'often'; .*number"),
        ("views.0.1.p", 2, r"views\.0\.1: .*p=2"),
        ("views.0.0.scale", "small", r"views\.0\.0\.scale is 'small'"),
        ("views.0.1.kind", "flip", r"views\.0\.1\.kind is 'flip'; allowed: .*horizontal_flip"),
        ("encoder.stem", "tiny", r"encoder\.stem is 'tiny'; .*'small'"),
        ("method.projector.widths", [], r"method\.projector: head with widths \[\]"),
        ("method.projector.widths.1", "wide", r"method\.projector\.widths\.1 is 'wide'; .*integer"),
        ("objective", 3, r"objective is 3"),
        ("objective.kind", "vicrge", r"objective\.kind is 'vicrge'; .*did you mean 'vicreg'\?"),
        ("objective.variance", "much", r"objective\.variance is 'much'; .*number"),
        ("objective.variance", -1, r"objective: variance is -1"),
        ("optim.kind", "lion", r"optim\.kind is 'lion'; .*'adamw', 'adam', 'sgd' or 'lars'"),
        ("optim.lr_per_256", 0, r"optim\.lr_per_256 is 0; .*greater than 0"),
        ("optim.lr_per_256", "fast", r"optim\.lr_per_256 is 'fast'; .*number, or a table of rates by batch size$"),
        ("optim.lr_per_256", None, r"optim\.lr_per_256 is None; .*number, or a table of rates by batch size$"),
        ("optim.lr_per_256", {256: "fast"}, r"optim\.lr_per_256\.256 is 'fast'; .*number"),
        ("optim.lr_per_256", {256: 0}, r"optim\.lr_per_256\.256 is 0; .*greater than 0"),
        ("optim.lr_per_256", {"large": 0.1}, r"optim\.lr_per_256\.large is 'large'; .*integer"),
        ("optim.lr_per_256", {1: 0.1}, r"optim\.lr_per_256\.1 is 1; .*greater than or equal to 2"),
        ("optim.lr_per_256", {}, r"optim\.lr_per_256 is \{\}; .*at least 1"),
        ("optim.vectors_lr_per_256", 0, r"optim\.vectors_lr_per_256 is 0; .*greater than 0"),
        ("optim.trust", 0, r"optim\.trust is 0; .*greater than 0"),
        ("optim.clip", "often", r"optim\.clip is 'often'; .*boolean"),
        ("optim.loss_weight", 0, r"optim\.loss_weight is 0; .*greater than 0"),
        ("method.projector.batch_norm", 3, r"method\.projector\.batch_norm is 3; .*boolean"),
        ("schedule.warmup_from", 1.5, r"schedule\.warmup_from is 1\.5; .*less than or equal to 1"),
        ("train.rows_in_memory", 1, r"train\.rows_in_memory is 1; .*greater than or equal to 2"),
        ("optim.betas", [0.9], r"optim\.betas\.1 is missing"),
        ("schedule.kind", "step_drops", r"schedule: step_drops needs one of drops_at_fraction"),
        ("train.batch_size", 1, r"train\.batch_size is 1; .*or auto"),
        ("train.batch_size", 2.5, r"train\.batch_size is 2\.5; .*fractional"),
        ("train.precision", "fp16", r"train\.precision is 'fp16'; .*'bf16', 'float32' or 'auto'"),
        ("train.minutes", None, r"train: give one of epochs, steps, minutes; given: none"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(key: str, value: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        checked(**{key: value})
    assert "\n" not in str(caught.value)
    assert "constrained" not in str(caught.value), "pydantic's own words stay inside"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("views.9.0.p", "a number from 0 to 1 in place of '9'"),
        ("views.².0.p", "a number from 0 to 1 in place of '²'"),
        ("views.first.0.p", "a number from 0 to 1 in place of 'first'"),
        ("views.0.9.p", "a number from 0 to 3 in place of '9'"),
        ("data.sources.0", "the list is empty"),
        ("seed.x", "seed is a value, not a section"),
        ("seed.x.y", "is a value, not a section"),
    ],
)
def test_a_key_that_leads_nowhere_is_refused(key: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        checked(**{key: 1})


def test_two_budgets_and_two_units_of_warm_up_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"train\.epochs and train\.steps are given; keep one"):
        checked(train__epochs=3, train__steps=4)
    content = copy.deepcopy(VICREG)
    content["train"]["epochs"] = 3
    with pytest.raises(RecipeError, match=r"give one of epochs, steps, minutes; given: epochs, minutes"):
        schema.check(content)
    content = copy.deepcopy(VICREG)
    content["schedule"]["warmup_steps"] = 3
    with pytest.raises(RecipeError, match=r"warmup_fraction and warmup_steps are given; keep one"):
        schema.check(content)


def test_two_ways_to_save_the_same_memory_are_refused() -> None:
    both = {"train__rows_in_memory": 64, "train__activation_checkpointing": True}
    with pytest.raises(RecipeError, match=r"train: rows_in_memory 64 and activation_checkpointing .*; keep one"):
        checked(**both)
    assert checked(train__rows_in_memory=64).train.rows_in_memory == 64
    assert checked(train__activation_checkpointing=True).train.activation_checkpointing


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n", "is not valid YAML"),
        ("- a\n", "holds no recipe"),
        ("7\n", "holds no recipe"),
        ("", "holds no recipe"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        files.read(str(tmp_path / "mine.yaml"))


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "mine.yaml").write_text(f"seed: !!python/object/apply:os.mkdir ['{canary}']\n")
    with pytest.raises(RecipeError, match="is not valid YAML"):
        files.read(str(tmp_path / "mine.yaml"))
    assert not canary.exists()


def test_an_unknown_recipe_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match=r"unknown recipe 'small_vicerg' \(did you mean 'small_vicreg'\?\)"):
        files.read("small_vicerg")
    with pytest.raises(RecipeError, match=r"'imagenet/barlow_twin' \(did you mean 'imagenet/barlow_twins'\?\)"):
        files.read("imagenet/barlow_twin")
    with pytest.raises(RecipeError, match=r"unknown recipe 'imagenet'.*`barlow list recipes`.*, or the path"):
        files.read("imagenet")


def test_recipes_in_folders_have_the_folder_in_their_name() -> None:
    assert "imagenet/barlow_twins" in files.names()
    assert files.read("imagenet/barlow_twins")["train"]["epochs"] == 1000
    assert files.names()[:2] == ["continue_barlow_twins", "continue_vicreg"], "those without a folder come first"
    assert all("\\" not in name and name.count("/") <= 1 for name in files.names())


@pytest.mark.parametrize("key", ["frozen_stages", "fixed_norms"])
def test_nothing_of_a_random_start_is_kept_as_it_is(key: str) -> None:
    content = files.read("small_vicreg")
    with pytest.raises(RecipeError, match=rf"encoder\.{key} keeps a part of given weights .*give --init"):
        schema.check(override(content, {f"encoder.{key}": 1 if key == "frozen_stages" else True}))


# --- Overrides ----------------------------------------------------------------------------------------------------


def test_overrides_reach_into_sections_and_lists_and_leave_the_rest() -> None:
    before = copy.deepcopy(VICREG)
    changed = override(VICREG, {"objective.gamma": 2.0, "views.0.1.p": 0.25, "method.projector.widths.0": 7})
    assert before == VICREG, "the given content is not touched"
    assert changed["objective"]["gamma"] == 2.0
    assert changed["views"][0][1]["p"] == 0.25
    assert changed["views"][1] == VICREG["views"][1]
    assert changed["method"]["projector"]["widths"] == [7, *VICREG["method"]["projector"]["widths"][1:]]
    changed["objective"]["gamma"], changed["views"][0][1]["p"] = 1.0, 0.5
    changed["method"]["projector"]["widths"][0] = VICREG["method"]["projector"]["widths"][0]
    assert changed == VICREG


def test_another_objective_drops_the_parameters_of_the_old_one() -> None:
    for changes in (
        {"objective.kind": "w_mse", "objective.slice_rows": 12},
        {"objective.slice_rows": 12, "objective.kind": "w_mse"},
    ):
        objective = schema.check(override(VICREG, changes)).objective
        assert objective == {"kind": "w_mse", **dataclasses.asdict(WMSE(slice_rows=12))}


def test_the_same_objective_keeps_its_parameters() -> None:
    content = override(VICREG, {"objective.gamma": 2.0})
    assert override(content, {"objective.kind": "vicreg"}) == content


def test_a_budget_replaces_the_other_budgets() -> None:
    assert VICREG["train"]["minutes"] is not None
    for unit in ("epochs", "steps", "minutes"):
        train = checked(**{f"train.{unit}": 3}).train
        assert [name for name in ("epochs", "steps", "minutes") if getattr(train, name) is not None] == [unit]


def test_a_unit_of_warm_up_replaces_the_other_units() -> None:
    schedule = checked(schedule__warmup_steps=3).schedule
    assert (schedule.warmup_steps, schedule.warmup_fraction, schedule.warmup_epochs) == (3, None, None)


def test_a_rate_replaces_the_table_of_rates_and_one_of_the_table_only_that_one() -> None:
    table = {"optim__lr_per_256": {128: 0.8, 256: 0.5}}
    assert checked(**table).optim.lr_per_256 == {128: 0.8, 256: 0.5}
    content = override(VICREG, {"optim.lr_per_256": {128: 0.8, 256: 0.5}})
    assert schema.check(override(content, {"optim.lr_per_256": 0.3})).optim.lr_per_256 == 0.3
    assert schema.check(override(content, {"optim.lr_per_256.256": 0.4})).optim.lr_per_256 == {
        128: 0.8, 256: 0.4,
    }  # fmt: skip
    with pytest.raises(RecipeError, match=r"unknown key optim\.lr_per_256\.256: optim\.lr_per_256 is a value"):
        override(VICREG, {"optim.lr_per_256.256": 0.4})


def test_numbers_that_yaml_takes_for_text_are_numbers() -> None:
    assert isinstance(yaml.safe_load("1e-3"), str)
    assert checked(optim__lr_per_256="1e-3").optim.lr_per_256 == 0.001
    assert checked(objective__eps="1e-3").objective["eps"] == 0.001


# --- From data to objects -----------------------------------------------------------------------------------------


def test_an_objective_that_is_not_spelled_out_gets_the_papers_values() -> None:
    recipe = checked(objective={"kind": "vicreg", "gamma": 2})
    assert recipe.objective == {
        "kind": "vicreg", "invariance": 25.0, "variance": 25.0, "covariance": 1.0, "gamma": 2.0, "eps": 1e-4,
        "convention": "code",
    }  # fmt: skip
    assert recipe.build_objective() == VICReg(gamma=2.0)


def test_views_become_ops_in_the_order_written() -> None:
    recipe = checked(views__0__0__size=16, views__1__0__size=16)
    built = recipe.build_views()
    assert [[type(op).__name__ for op in view] for view in built] == [
        ["RandomResizedCrop", "HorizontalFlip", "ColorJitter", "Grayscale"],
        ["RandomResizedCrop", "HorizontalFlip", "ColorJitter", "Grayscale", "Solarize"],
    ]
    assert built[0][0].size == 16
    assert tuple(built[0][0].scale) == tuple(VICREG["views"][0][0]["scale"])


def test_units_of_the_schedule_become_steps() -> None:
    def rates(recipe: schema.Recipe, steps: int = 100, per_epoch: int = 10) -> list[float]:
        schedule = recipe.schedule.build(steps, per_epoch)
        return [schedule(step, steps) for step in range(steps)]

    by_fraction = rates(checked(schedule__warmup_fraction=0.2))
    assert by_fraction == rates(checked(schedule__warmup_epochs=2)) == rates(checked(schedule__warmup_steps=20))
    assert max(by_fraction) == pytest.approx(1, abs=1e-3)
    assert by_fraction.index(max(by_fraction)) in (19, 20)
    drops = {"schedule.kind": "step_drops", "schedule.factor": 0.5, "schedule.warmup_fraction": None}
    by_steps = rates(checked(**drops, **{"schedule.drops_at_steps": [50, 75]}))
    assert by_steps == rates(checked(**drops, **{"schedule.drops_at_fraction": [0.5, 0.75]}))
    assert by_steps == rates(checked(**drops, **{"schedule.drops_at_epochs": [5, 7.5]}))
    assert [by_steps[step] for step in (0, 49, 50, 74, 75, 99)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_warm_up_may_begin_at_a_part_of_the_peak() -> None:
    schedule = checked(schedule__warmup_steps=10, schedule__warmup_from=0.2).schedule.build(100, 10)
    assert [schedule(step, 100) for step in (0, 5, 10)] == pytest.approx([0.2, 0.6, 1])


def test_a_file_from_before_the_newer_keys_means_what_it_meant() -> None:
    newer = {
        "method": ("batch_norm",), "optim": ("vectors_lr_per_256", "trust", "clip", "loss_weight"),
        "schedule": ("warmup_from",), "train": ("rows_in_memory", "activation_checkpointing"),
    }  # fmt: skip
    content = copy.deepcopy(VICREG)
    for section, keys in newer.items():
        for key in keys:
            (content["method"]["projector"] if section == "method" else content[section]).pop(key, None)
    assert schema.check(content) == schema.check(VICREG)


def test_a_warm_up_longer_than_the_run_ends_with_it() -> None:
    schedule = checked(schedule__warmup_steps=50).schedule.build(3, 1)
    rates = [schedule(step, 3) for step in range(3)]
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[1] > 0


def test_a_recipe_survives_yaml_and_is_readable_there() -> None:
    recipe = checked(data__sources=["naïve × photos", "b"])
    text = files.as_yaml(recipe.as_dict(), "# above\n")
    assert text.startswith("# above\nsource:")
    assert "naïve × photos" in text
    assert schema.check(yaml.safe_load(text)) == recipe


def test_a_table_of_rates_survives_yaml_with_numbers_for_batch_sizes() -> None:
    recipe = checked(optim__lr_per_256={128: 0.8, 2048: 0.3})
    text = files.as_yaml(recipe.as_dict())
    assert "{128: 0.8, 2048: 0.3}" in text
    assert schema.check(yaml.safe_load(text)) == recipe


def test_an_objective_given_in_python_is_kept_as_its_name() -> None:
    recipe = checked(objective__kind="custom:Mine")
    assert recipe.objective == {"kind": "custom:Mine"}


def test_a_unit_set_to_null_leaves_the_other_unit_alone() -> None:
    content = {"train": {"checkpoint_minutes": 5, "checkpoint_steps": None}}
    changed = override(content, {"train.checkpoint_steps": 2, "train.checkpoint_minutes": None})
    assert changed["train"] == {"checkpoint_minutes": None, "checkpoint_steps": 2}
