"""From flags and dotted keys to a recipe, and what a recipe then says of where it comes from."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from barlow import cli, objectives
from barlow.recipe import files, schema
from barlow.recipe.changes import override
from barlow.recipe.flags import FLAGS, as_keys
from barlow.recipe.messages import RecipeError
from barlow.recipe.request import DEFAULT, chosen_recipe, requested, resumed_recipe


def options() -> dict[str, argparse.Action]:
    """The options of `barlow pretrain`, by their destination."""
    verb = cli._verb(cli._parser(), "pretrain")
    return {action.dest: action for action in verb._actions}


def test_every_flag_is_an_option_of_the_command_line_and_an_argument_in_python() -> None:
    found = options()
    for flag in FLAGS:
        assert flag.option in found[flag.name].option_strings
        assert found[flag.name].help == flag.help
    values = {flag.name: flag.type("1") if flag.type is not str else "x" for flag in FLAGS if flag.group != "budget"}
    changes = requested("photos", **values)
    assert {flag.key for flag in FLAGS if flag.group != "budget"} <= changes.keys()


def test_every_flag_stands_for_a_key_that_recipes_have() -> None:
    content = files.read("small_barlow_twins")
    for flag in FLAGS:
        place: Any = content
        for part in flag.key.split("."):
            assert part in place, flag.key
            place = place[part]


def test_what_is_not_given_changes_nothing() -> None:
    assert as_keys({flag.name: None for flag in FLAGS}) == {}
    assert requested(None) == {}


def test_an_unknown_argument_and_two_budgets_are_refused() -> None:
    with pytest.raises(TypeError, match=r"unknown argument 'batchsize'; allowed: .*batch_size"):
        chosen_recipe(batchsize=3)
    with pytest.raises(RecipeError, match="--steps and --minutes are given; keep one"):
        chosen_recipe(steps=3, minutes=1)


@pytest.mark.parametrize("kind", objectives.kinds())
def test_an_objective_alone_takes_its_small_recipe_or_says_that_nobody_published_this(kind: str) -> None:
    chosen = chosen_recipe("photos", objective=kind)
    assert chosen.objective["kind"] == kind
    small = {"moco": "small_moco_v2"}.get(kind, f"small_{kind}")
    if small in files.names():
        assert chosen.source.model_dump() == files.read(small)["source"]
    else:
        assert chosen.source.paper.startswith("none: no paper describes this run; it is the recipe small_barlow_twins")
        assert chosen.source.code == "none"
        assert chosen.source.differs[0] == f"objective: {kind}, in place of barlow_twins"
        assert "Zbontar" not in str(chosen.source)


def test_weights_of_imagenet_take_the_recipe_that_goes_on_from_weights() -> None:
    for init in ("packaged:efficientnet_lite0", "timm:resnet50.a1_in1k"):
        chosen = chosen_recipe("photos", init=init)
        assert chosen == chosen_recipe("photos", recipe="continue_barlow_twins", init=init)
        assert chosen.optim.groups[0].rate == 0.1
        vicreg = chosen_recipe("photos", init=init, objective="vicreg")
        assert vicreg == chosen_recipe("photos", recipe="continue_vicreg", init=init)
        byol = chosen_recipe("photos", init=init, objective="byol")  # its small recipe, their network
        assert (byol.objective["kind"], byol.encoder.name, byol.encoder.options) == ("byol", "auto", {})
        assert byol.source.model_dump() == files.read("small_byol")["source"]
    assert chosen_recipe("photos").encoder.init is None


def test_weights_of_a_run_take_the_default_recipe_and_bring_their_network(tmp_path: Path) -> None:
    chosen = chosen_recipe("photos", init=str(tmp_path))
    small = chosen_recipe("photos", recipe=DEFAULT)
    assert (chosen.objective, chosen.views, chosen.encoder.name) == (small.objective, small.views, "auto")
    assert chosen_recipe("photos", init=str(tmp_path), encoder="resnet18").encoder.name == "resnet18"
    file = chosen_recipe("photos", init=str(tmp_path / "model.safetensors"))
    assert file.encoder.name == "auto", "its shapes show it, or it is asked for"


def test_a_recipe_that_is_named_is_taken_as_it_is() -> None:
    assert chosen_recipe("photos", recipe=DEFAULT, init="packaged:efficientnet_lite0").encoder.name == "resnet18"
    changed = chosen_recipe("photos", recipe=DEFAULT, objective="vicreg")
    assert changed.source.paper.startswith("none: no paper describes this run; it is the recipe small_w_mse")


def test_a_key_of_another_objective_is_told_whose_it_is() -> None:
    with pytest.raises(RecipeError, match=r"unknown key objective\.redundancy; .*--objective barlow_twins\)"):
        chosen_recipe("photos", overrides={"objective.redundancy": 0.01})


def test_another_objective_on_a_named_recipe_or_by_a_dotted_key_is_nobodys_either() -> None:
    by_flag = chosen_recipe("photos", recipe="cifar10/barlow_twins", objective="vicreg")
    by_key = chosen_recipe("photos", recipe="cifar10/barlow_twins", overrides={"objective.kind": "vicreg"})
    assert by_flag == by_key
    assert "it is the recipe cifar10/barlow_twins with another objective" in by_flag.source.paper


def test_the_same_objective_or_another_value_leaves_the_source_as_it_is() -> None:
    source = files.read("small_vicreg")["source"]
    for changes in ({"objective.kind": "vicreg"}, {"objective.variance": 3.0}, {"seed": 3}):
        assert chosen_recipe("photos", recipe="small_vicreg", overrides=changes).source.model_dump() == source


def test_another_method_keeps_what_both_have_and_is_nobodys() -> None:
    changes = {"method.kind": "siamese", "objective.kind": "barlow_twins"}
    chosen = chosen_recipe("photos", recipe="small_byol", overrides=changes)
    assert chosen.method["projector"]["widths"] == files.read("small_byol")["method"]["projector"]["widths"]
    assert chosen.method.keys() == {"kind", "projector", "batch_norm_sees", "passes", "large"}
    assert chosen.source.paper.endswith("with another objective and method")


def test_a_run_is_gone_on_with_as_it_was() -> None:
    stored = chosen_recipe("photos", steps=5).as_dict()
    moved = resumed_recipe(stored, stored, None, {"data.workers": 3, "data.sources": ["moved"]})
    assert (moved.recipe.data.workers, moved.budget) == (3, {})
    with pytest.raises(RecipeError, match=r"where seed is 0; you gave 1\. Leave the flag out"):
        resumed_recipe(stored, stored, None, {"seed": 1})


def test_the_command_that_began_a_run_can_be_repeated() -> None:
    """What was `auto` has become a value meanwhile, and minutes have become steps."""
    changes = {"train.minutes": 15.0, "train.batch_size": "auto", "data.image_size": "auto", "objective.kind": "vicreg"}
    asked = chosen_recipe("photos", recipe="small_vicreg", overrides=changes)
    resolved = override(asked.as_dict(), {"train.steps": 900, "train.batch_size": 256, "data.image_size": 32})
    for name, again in (("small_vicreg", changes), (None, changes), (None, {})):
        resumed = resumed_recipe(asked.as_dict(), resolved, name, again)
        assert (resumed.recipe, resumed.budget) == (schema.check(resolved), {})
    same = resumed_recipe(asked.as_dict(), resolved, None, {"train.batch_size": 256})
    assert same.recipe == schema.check(resolved), "a value that was chosen may be said as well"
    with pytest.raises(RecipeError, match=r"objective\.kind is 'vicreg'; you gave 'w_mse'"):
        resumed_recipe(asked.as_dict(), resolved, "small_w_mse", {"train.minutes": 15.0})
    longer = resumed_recipe(asked.as_dict(), resolved, None, {"train.minutes": 30.0})
    assert (longer.recipe.train.steps, longer.budget) == (900, {"train.minutes": 30.0})


def test_keys_that_came_later_mean_in_an_older_file_what_it_meant() -> None:
    content = files.read("small_vicreg")
    for key in ("last_batch_norm", "init_std"):
        del content["method"]["projector"][key]
    del content["optim"]["groups"]
    assert schema.check(content) == schema.check(files.read("small_vicreg"))


@pytest.mark.parametrize("asked", [{}, {"steps": 5}, {"objective": "barlow_twins"}])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "objective: {kind: vicreg}",
            r"part.yaml has no source, seed, data, .*: a recipe is complete in itself",
        ),
        ("objectve: {kind: vicreg}", r"part.yaml has 'objectve' \(did you mean 'objective'\?\) and no source, "),
        ("- a", r"part.yaml holds no recipe: expected sections such as data"),
    ],
)
def test_a_part_of_a_recipe_is_told_what_it_lacks_whatever_else_is_asked_for(
    text: str, message: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "part.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        chosen_recipe("photos", recipe=str(tmp_path / "part.yaml"), **asked)


def test_a_key_that_is_missing_is_named_where_a_flag_finds_no_place(tmp_path: Path) -> None:
    content = files.read("small_w_mse")
    del content["method"]["projector"]
    (tmp_path / "mine.yaml").write_text(files.as_yaml(content))
    for overrides in ({}, {"method.projector.widths": [16, 4]}):
        with pytest.raises(RecipeError, match=r"method\.projector is missing; a recipe is complete in itself"):
            chosen_recipe("photos", recipe=str(tmp_path / "mine.yaml"), overrides=overrides)


def test_more_folders_than_a_recipe_can_hold_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"names 2,000 folders: give a folder that holds them all"):
        chosen_recipe([f"/data/photographs/of/the/year/{i}" for i in range(2_000)])
