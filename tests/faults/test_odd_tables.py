"""What a file or a flag holds that is of another kind than it should be is told in one line, with its own exit code."""

import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import tiny

from barlow import cli, exits, limits, storage
from barlow.exits import UnusableData
from barlow.pretraining import pretrain
from barlow.recipe.changes import override
from barlow.seals import Damaged


def test_a_number_of_thousands_of_digits_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(f'{{"a": {"9" * 5_000}}}')
    with pytest.raises(Damaged, match=r"run\.json is not valid JSON"):
        storage.read_json(path)


def test_a_chain_of_aliases_is_too_deep(tmp_path: Path) -> None:
    path = tmp_path / "rec.yaml"
    path.write_text("a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2_500)))
    with pytest.raises(limits.TooLarge, match=r"nested too deeply|expand"):
        limits.read_yaml(path)


def test_an_endless_side_of_a_tensor_is_damage(tmp_path: Path) -> None:
    header = b'{"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 4]}}'
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(UnusableData, match="not a valid safetensors file"):
        limits.tensors_in(path)


@pytest.mark.parametrize("flag", ["--epochs", "--minutes", "--train.checkpoint_minutes"])
@pytest.mark.parametrize("value", ["inf", "1e300", "nan"])
def test_a_budget_without_end_is_refused(
    flag: str, value: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert cli.main(["pretrain", str(photos), "--out", str(out), flag, value]) == exits.USAGE
    assert flag.split(".")[-1].strip("-") in capsys.readouterr().err
    assert not out.exists()


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("odd") / "run"
    return pretrain(photos, out, overrides=tiny.SMALL | {"train.steps": 2}, progress=False).run_folder


def rewritten(path: Path, **changes: Any) -> None:
    """Another table, with a seal and in the manifest of its folder, as its owner would write it."""
    content = override(storage.read_json(path), {key.replace("__", "."): value for key, value in changes.items()})
    content.pop("sha256", None)
    if path.name != "state.json":
        storage.write_sealed(path, content)
        return
    files = {each.name: each.read_bytes() for each in path.parent.iterdir() if each.name != storage.MANIFEST}
    shutil.rmtree(path.parent)
    storage.commit_folder(path.parent, files | {path.name: storage.json_bytes(content)})


STATE = "checkpoints/step-000002/state.json"
RESUME, EVALUATE, INIT = "resume", "evaluate", "init"


@pytest.mark.parametrize(
    ("file", "key", "value", "command"),
    [
        ("run.json", "starts", [5], RESUME),
        ("run.json", "recipe", 5, RESUME),
        ("run.json", "run", 5, RESUME),
        ("run.json", "folders", "abc", RESUME),
        ("run.json", "asked", [], RESUME),
        (STATE, "step", "x", RESUME),
        (STATE, "step", -5, RESUME),
        (STATE, "step", True, RESUME),
        (STATE, "optimizer", [], RESUME),
        (STATE, "recipe", [1], INIT),
        (STATE, "recipe", {"encoder": {"name": 5}}, INIT),
        ("data.json", "skipped", 5, RESUME),
        ("data.json", "usable", None, RESUME),
        ("encoder/config.json", "name", 5, EVALUATE),
        ("encoder/config.json", "name", None, INIT),
        ("encoder/config.json", "kind", "x", EVALUATE),
        ("encoder/config.json", "num_features", "abc", EVALUATE),
        ("encoder/config.json", "num_features", -1, EVALUATE),
        ("encoder/config.json", "format", True, EVALUATE),
        ("encoder/config.json", "seed", "x", EVALUATE),
        ("encoder/config.json", "preprocessing__mean", ["a", "b", "c"], EVALUATE),
    ],
)
def test_a_value_of_another_kind_is_named_with_its_file_and_key(
    file: str,
    key: str,
    value: Any,
    command: str,
    finished: Path,
    photos: Path,
    labelled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    rewritten(run / file, **{key: value})
    if command == INIT and file == STATE:
        shutil.rmtree(run / "encoder")
    given = {
        RESUME: ["pretrain", "--resume", "--out", run, "--steps", 3],
        EVALUATE: ["evaluate", run, "--train", labelled, "--test", labelled, "--protocol", "knn"],
        INIT: ["pretrain", photos, "--out", tmp_path / "next", *tiny.words(train__steps=1), "--init", run],
    }[command]
    assert cli.main([str(word) for word in given]) == exits.DATA
    said = capsys.readouterr().err
    assert Path(file).name in said
    assert key.split("__")[-1] in said


@pytest.mark.parametrize("text", ["{}\n", "data: {sources: 5}\n"])
def test_a_recipe_without_sources_is_named(
    text: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "run.json").unlink()
    (run / "recipe.yaml").write_text(text)
    assert cli.main(["evaluate", str(run)]) == exits.DATA
    assert "recipe.yaml" in capsys.readouterr().err


def test_a_state_without_an_optimizer_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    path = run / STATE
    state = storage.read_json(path)
    files = {each.name: each.read_bytes() for each in path.parent.iterdir() if each.name != storage.MANIFEST}
    shutil.rmtree(path.parent)
    storage.commit_folder(
        path.parent, files | {path.name: storage.json_bytes({k: v for k, v in state.items() if k != "optimizer"})}
    )
    assert cli.main(["pretrain", "--resume", "--out", str(run), "--steps", "3"]) == exits.DATA
    assert "optimizer" in capsys.readouterr().err
