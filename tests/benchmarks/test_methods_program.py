"""What experiments/methods.py runs: each method with the shared network and what it asks of its own, whatever fails."""

import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from programs import program

import barlow
from barlow.exits import Diverged, UnusableData
from barlow.nets.building import build_encoder
from barlow.nets.norms import _BatchNorm
from barlow.recipe import files
from barlow.recipe.request import DEFAULT, chosen_recipe

methods = program("experiments/methods.py")
protocols = program("experiments/protocols.py")
SHARED = files.read(DEFAULT)["encoder"]

FREE = ("encoder.name", "encoder.options", "encoder.stages", "encoder.whiten", "data.centre_size")
"""What the comparison sets for all methods, beside the rate, the size of a batch and the number of steps."""


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


@pytest.fixture(autouse=True, scope="module")
def every_file_is_read_once() -> Iterator[None]:
    """A case's key asks for its recipe anew, of which most is the time to read YAML."""
    read = functools.cache(files.read)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "read", lambda name: copy.deepcopy(read(name)))
        yield


ALL = {(case.recipe, case.images): case for case in methods.tries(everything=True)}


@pytest.mark.parametrize(("recipe", "images"), ALL)
def test_a_method_keeps_all_that_the_comparison_does_not_share(recipe: str, images: str) -> None:
    own, compared = chosen_recipe(recipe=recipe).as_dict(), chosen_recipe(**ALL[recipe, images].asked).as_dict()
    set_for_all = {*FREE, "optim.lr_per_256", "train.batch_size", "train.steps", "train.minutes"}
    before, after = flat(own), flat(compared)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert {key for key in changed if not key.startswith("encoder.options.")} <= set_for_all
    assert {key for key in changed if key.startswith("encoder.options.")} <= {
        "encoder.options.layers",
        "encoder.options.channels",
    }


@pytest.mark.parametrize(("recipe", "images"), ALL)
def test_a_network_of_halves_stays_one_and_the_others_are_the_shared_one(recipe: str, images: str) -> None:
    encoder, own = chosen_recipe(**ALL[recipe, images].asked).as_dict()["encoder"], files.read(recipe)["encoder"]
    halves = own["name"].startswith("lab_")
    assert encoder["name"] == ("lab_" if halves else "") + SHARED["name"]
    assert encoder["options"]["layers"] == SHARED["options"]["layers"]
    assert [width * (1 + halves) for width in encoder["options"]["channels"]] == SHARED["options"]["channels"]


def test_the_methods_with_networks_of_their_own_are_these() -> None:
    plain = ("layers", "channels")
    asking = {
        recipe
        for recipe, _ in methods.pairs(everything=True)
        for own in [files.read(recipe)["encoder"]]
        if own["name"].startswith("lab_") or set(own["options"]) - set(plain)
    }
    assert asking == {"small_cmc", "small_cpc"}


def test_cmc_and_cpc_have_as_many_features_as_the_others_and_cpc_no_batch_norm() -> None:
    def built(recipe: str) -> Any:
        section = chosen_recipe(**ALL[recipe, methods.COMPARED[recipe].images].asked).encoder
        return build_encoder(section.name, image_size=48, **section.built | {"stem": "strided"})

    cmc, cpc, shared = (built(recipe) for recipe in ("small_cmc", "small_cpc", "small_byol"))
    assert cmc.num_features == cpc.num_features == shared.num_features
    assert not any(isinstance(module, _BatchNorm) for module in cpc.modules())
    assert [seen for _, seen in cmc.halves()] == [1, 2]


# --- What fails -------------------------------------------------------------------------------------------------------


def line_of(case: Any, score: float | None) -> dict[str, Any]:
    line = {"program": methods.PROGRAM, "key": case.key, "recipe": case.recipe, "images": case.images}
    if score is None:
        return line | {"failed": "NonFinite: the loss is nan"}
    return line | {"scores": {"encoder": dict.fromkeys(methods.PROBES, score)}}


def tries_of(recipe: str, scores: dict[float, float | None]) -> list[dict[str, Any]]:
    return [line_of(methods.case_of(recipe, factor, 0, final=False), score) for factor, score in scores.items()]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "methods.jsonl"
    monkeypatch.setattr(methods, "RESULTS", path)
    return path


def written(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_a_try_that_failed_does_not_win_and_where_all_failed_there_is_no_rate() -> None:
    best = methods.best_factor
    assert best("small_byol", tries_of("small_byol", {1.0: None, 1 / 3: 0.2, 3.0: 0.4})) == 3.0
    assert best("small_byol", tries_of("small_byol", {1.0: None, 1 / 3: None, 3.0: None})) is None
    with pytest.raises(SystemExit, match="not tried at 3 times"):
        best("small_byol", tries_of("small_byol", {1.0: 0.5, 1 / 3: None}))


def test_a_run_that_fails_gets_a_line_that_says_why_and_what_the_machine_does_is_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    case = methods.case_of("small_byol", 1.0, 0, final=False)

    def failing(error: Exception) -> dict[str, Any]:
        def measured(*_: Any, **__: Any) -> dict[str, Any]:
            raise error

        monkeypatch.setattr(methods, "measured", measured)
        return methods.tried_or_failed(case, tmp_path, tmp_path, baselines=False)

    line = failing(Diverged("the loss is nan at step 7"))
    assert (line["key"], line["failed"]) == (case.key, "Diverged: the loss is nan at step 7")
    assert failing(ValueError("too small"))["failed"] == "ValueError: too small"
    for error in (OSError("no space left"), UnusableData("no image can be read")):
        with pytest.raises(type(error)):
            failing(error)


def test_after_a_failure_the_next_run_begins_and_nothing_is_run_twice(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def measured(case: Any, *_: Any, **__: Any) -> dict[str, Any]:
        seen.append(case.recipe)
        if case.recipe == "small_vicreg":
            raise Diverged("the loss is nan")
        return line_of(case, 0.5)

    monkeypatch.setattr(methods, "measured", measured)
    command = ["methods.py", "--data", "x", "--tries", "--recipes", "small_vicreg", "small_byol"]
    monkeypatch.setattr("sys.argv", command)
    methods.main()
    methods.main()
    assert seen == ["small_vicreg", "small_byol"] * 3
    assert "failed, Diverged: the loss is nan" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [word for word in command if word != "--tries"])
    methods.main()
    assert seen[6:] == ["small_byol"] * 3, "three seeds, and none of what failed at every rate"


def test_a_recipe_that_was_not_asked_for_is_not_waited_for(results: Path) -> None:
    written(results, tries_of("small_byol", {1.0: 0.5, 1 / 3: 0.2, 3.0: 0.4}))
    for everything in (False, True):
        cases = list(methods.finals(everything=everything, asked=["small_byol"]))
        assert [(case.recipe, case.seed) for case in cases] == [("small_byol", seed) for seed in (0, 1, 2)]
    with pytest.raises(SystemExit, match="small_vicreg was not tried"):
        list(methods.finals(everything=False, asked=["small_byol", "small_vicreg"]))


def test_the_best_are_known_once_all_have_been_run_or_have_failed() -> None:
    names = ["small_byol", "small_simclr", "small_rotation"]
    tries = [line for name in names for line in tries_of(name, dict.fromkeys(methods.factors(name, "cifar10"), 0.5))]
    ends = [
        line_of(methods.case_of(name, 1.0, 0, final=True), score)
        for name, score in zip(names, (0.2, 0.6, None), strict=True)
    ]
    assert methods.best_of(names, tries) == methods.best_of(names, [*tries, *ends[:2]]) == []
    assert methods.best_of(names, [*tries, *ends]) == ["small_simclr", "small_byol"]
    assert methods.best_of(names, ends) == [], "without tries nobody knows whose they are"


def test_failed_runs_are_named_below_the_table_and_are_in_no_row() -> None:
    compared = program("experiments/compared.py")
    case = methods.case_of("small_byol", 1.0, 0, final=True)
    failed = {
        **line_of(case, None),
        "overrides": dict(case.changes),
        "minutes": case.minutes,
        "seed": 0,
        "part": "test",
        "recipe_sha256": case.recipe_sha256,
    }
    assert "| BYOL | `small_byol` | – | – | – | 0 |" in compared.content([failed])
    assert "- Failed: `small_byol` on CIFAR-10" in compared.content([failed])
    assert "NonFinite: the loss is nan" in compared.content([failed])
    assert "Failed" not in compared.content([failed | {"recipe_sha256": "earlier"}])
    assert "| BYOL | `small_byol` | – | – | – | – | 0 |" in program("experiments/table.py").methods_table([failed])


# --- Protocols --------------------------------------------------------------------------------------------------------


def test_protocols_take_a_factor_that_is_given_and_wait_for_tries_only_without_one() -> None:
    assert protocols.chosen_factor("small_byol", 1.0, []) == 1.0
    with pytest.raises(SystemExit, match="small_byol was not tried"):
        protocols.chosen_factor("small_byol", None, [])
    lines = tries_of("small_barlow_twins", {1.0: 0.1, 1 / 3: 0.2, 3.0: 0.4})
    assert protocols.chosen_factor("untrained", None, lines) == 3.0
    assert protocols.rate_said(1.0, 1.0) == {"factor": 1.0, "factor_from": "the command line"}
    assert protocols.rate_said(3.0, None) == {"factor": 3.0, "factor_from": "held-out images"}


def test_a_line_of_protocols_is_of_one_factor_and_the_untrained_network_of_none() -> None:
    there = [{"encoder": "small_byol", "factor": 1.0}, {"encoder": "untrained", "factor": 1.0}]
    assert protocols.is_known("small_byol", 1.0, there)
    assert not protocols.is_known("small_byol", 3.0, there)
    assert protocols.is_known("untrained", 3.0, there)


def test_the_table_of_protocols_names_the_encoders_whose_rate_nobody_chose() -> None:
    table = program("experiments/table.py")
    score = {"knn.top1": {"value": 0.5, "low": 0.4, "high": 0.6}}
    line = {"program": protocols.PROGRAM, "encoder": "small_byol", "scores": score, "factor": 1.0}
    given = line | {"factor_from": "the command line"}
    assert "At the recipe's own rate, without a choice by held-out images: BYOL.*" in table.protocols_table([given])
    tripled = table.protocols_table([given | {"factor": 3.0}])
    assert "that was given, not chosen: BYOL (3 times).*" in tripled
    for lines in ([line | {"factor_from": "held-out images"}], [given, line | {"factor_from": "held-out images"}]):
        assert "rate" not in table.protocols_table(lines)


def test_the_untrained_network_is_that_of_the_run_before_its_first_step(tmp_path: Path) -> None:
    data = tiny.images(tmp_path / "data", 24)
    changes = tiny.SMALL | {"encoder.stages": "last", "encoder.whiten": None}
    barlow.pretrain(data, tmp_path / "run", recipe="small_w_mse", overrides=changes, steps=2, progress=False)
    fresh, trained = protocols.untrained_like(tmp_path / "run"), barlow.load_encoder(tmp_path / "run")
    assert fresh.preprocessing == trained.preprocessing
    assert fresh.state_dict().keys() == trained.state_dict().keys()
    assert not all(fresh.state_dict()[name].equal(value) for name, value in trained.state_dict().items())
