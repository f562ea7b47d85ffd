"""The command line answers at once, parses keys as YAML, and says one line when something is wrong."""

import pkgutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import yaml

from barlow import __version__, cli, commands, objectives
from barlow.data.names import NAMED
from barlow.nets.encoder_table import TESTED
from barlow.recipe import files, schema

HEAVY = ("torch", "timm", "torchvision", "numpy", "sklearn", "PIL", "pydantic", "rich", "jaxtyping", "safetensors")


def imports_of(program: str) -> tuple[set[str], float, str]:
    """Modules loaded at the end of a program run in a fresh interpreter, its seconds, and its output."""
    tail = "\nimport sys; print('\\n'.join(sorted(sys.modules)), file=sys.stderr)"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program + tail], capture_output=True, text=True, check=True)
    return set(done.stderr.split()), time.monotonic() - start, done.stdout


@pytest.mark.parametrize(
    "words",
    ["", "--help", "--version", *(f"{verb} --help" for verb in commands.VERBS), "list"]
    + [f"list {what}" for what in ("recipes", "objectives", "encoders", "datasets")],
)
def test_help_and_lists_answer_without_importing_anything_heavy(words: str) -> None:
    program = f"from barlow.cli import main\ntry:\n    main({words.split()!r})\nexcept SystemExit:\n    pass"
    loaded, seconds, said = imports_of(program)
    assert said
    assert not loaded & set(HEAVY)
    assert seconds < 5, "0.3 s on a quiet machine"


def test_importing_barlow_imports_nothing_heavy() -> None:
    loaded, seconds, _ = imports_of("import barlow")
    assert not loaded & {*HEAVY, "yaml", "argparse"}
    assert "barlow.torchvision_guard" in loaded
    assert seconds < 5, "0.1 s on a quiet machine"


def test_the_public_names_are_there_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    import barlow

    assert set(dir(barlow)) == set(barlow.__all__)
    for name in barlow.__all__:
        assert getattr(barlow, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = barlow.nonsense


def test_no_public_name_is_that_of_a_module() -> None:
    """Importing `barlow.x` anywhere puts the module in the place of a function `x`, which then cannot be called."""
    import barlow

    modules = {found.name for found in pkgutil.iter_modules(barlow.__path__)}
    assert modules & set(barlow.__all__) == set()


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"barlow {__version__}\n"


@pytest.mark.parametrize("verb", ["", *commands.VERBS])
def test_help_fits_a_terminal_of_eighty_columns(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80" if not verb else "200")
    with pytest.raises(SystemExit):
        cli.main([*verb.split(), "--help"])
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


def test_without_a_verb_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    for verb in commands.VERBS:
        assert verb in out


# --- barlow list --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("recipes", files.names()),
        ("objectives", objectives.kinds()),
        ("encoders", TESTED),
        ("datasets", [*NAMED, "shapes_boxes"]),
    ],
)
def test_a_list_has_every_name_with_what_it_is(what: str, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    described = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[-1] for line in lines}
    for name in names:
        assert len(described[name]) > 10, name
    assert max(map(len, lines)) <= 100


def test_the_whole_list_has_all_four(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    for what in ("recipes:", "objectives:", "encoders:", "datasets:", "small_vicreg", "w_mse", "resnet18", "shapes"):
        assert what in out


def test_encoders_can_be_searched(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "encoders", "resnet1*"]) == 0
    assert "resnet18" in capsys.readouterr().out.split()


# --- Words --------------------------------------------------------------------------------------------------------


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    assert cli.main(["pretrain", "photos", "--print-recipe", *words]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_the_printed_recipe_can_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    content = printed([], capsys)
    assert schema.check(content).as_dict() == content
    assert content["data"]["sources"] == ["photos"]
    assert content["objective"]["kind"] == "w_mse"


def test_short_flags_stand_for_keys(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--steps 7 -b 32 --seed 3 -j 1 --image-size 48 --precision float32 --device cpu --max-bad 0.2"
    content = printed([*words.split(), "--encoder", "resnet34", "--init", "timm:resnet34.a1_in1k"], capsys)
    assert (
        content["train"] | {"steps": 7, "minutes": None, "batch_size": 32, "precision": "float32"} == content["train"]
    )
    assert (content["seed"], content["data"]["workers"], content["data"]["image_size"]) == (3, 1, 48)
    assert content["data"]["max_bad"] == 0.2
    assert (
        content["encoder"] | {"name": "resnet34", "options": {}, "init": "timm:resnet34.a1_in1k"} == content["encoder"]
    )


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["--image-size", "32x128"], [32, 128]),
        (["--image-size=32X128"], [32, 128]),
        (["--image-size", "32×128"], [32, 128]),
        (["--image-size", "32x32"], 32),
        (["--image-size", "auto"], "auto"),
        (["--data.image_size", "[32, 128]"], [32, 128]),
        (["--data.image_size", "32x128"], [32, 128]),
        (["--data.image_size=[48, 48]"], 48),
    ],
)
def test_the_size_of_views_is_a_side_or_height_x_width(
    words: list[str], size: object, capsys: pytest.CaptureFixture[str]
) -> None:
    content = printed(words, capsys)
    assert content["data"]["image_size"] == size
    assert content == printed([], capsys) | {"data": content["data"]}, "a recipe has one spelling of a size"


@pytest.mark.parametrize(
    "words",
    [
        ["--objective.gamma", "2"],
        ["--objective.gamma=2"],
        ["objective.gamma=2"],
    ],
)
def test_any_key_can_be_set_in_three_spellings(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(["-c", "small_vicreg", *words], capsys)["objective"]["gamma"] == 2.0


def test_keys_take_yaml_and_index_lists(capsys: pytest.CaptureFixture[str]) -> None:
    content = printed(
        ["--views.0.2.scale", "[0.3, 1]", "--encoder.options", "{patch_size: 4}", "--optim.lr_per_256", "1e-3"], capsys
    )
    assert content["views"][0][2]["scale"] == [0.3, 1.0]
    assert content["encoder"]["options"] == {"patch_size": 4}
    assert content["optim"]["lr_per_256"] == 0.001


@pytest.mark.parametrize(
    "words", [["--objective", "vicreg"], ["--objective.kind", "vicreg"], ["objective.kind=vicreg"]]
)
def test_an_objective_alone_takes_its_small_recipe(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(words, capsys) == printed(["-c", "small_vicreg"], capsys)


def test_a_key_wins_over_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(["--seed", "3", "--train.batch_size", "64", "-b", "32"], capsys)["train"]["batch_size"] == 64


def test_folders_with_dots_and_equals_signs_are_folders(capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("my.photos", "a/b.c=d", "./x=y"):
        assert cli.main(["pretrain", folder, "--print-recipe"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["data"]["sources"] == [folder]


# --- A whole run --------------------------------------------------------------------------------------------------


def test_a_run_says_what_it_chose_and_where_the_results_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.images(tmp_path / "photos", 40)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["pretrain", "photos", *tiny.words(train__steps=2)]) == 0
    out, err = capsys.readouterr()
    for said in ("reading photos", "40 usable of 40", "2 of 16 px", "step 2/2", "loss"):
        assert said in err
    run = Path("runs/photos-w_mse")
    assert f"encoder  {run / 'encoder'}" in out
    assert f"barlow evaluate {run} --train" in out
    assert sorted(entry.name for entry in run.iterdir() if entry.name != ".lock") == [
        "checkpoints", "data.json", "encoder", "images.json", "metrics.jsonl", "recipe.yaml", "run.json", "views.png",
    ]  # fmt: skip
    assert sorted(entry.name for entry in (run / "checkpoints").iterdir()) == ["step-000000", "step-000002"]
