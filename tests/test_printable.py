"""Nothing that files or folders are called, and nothing that files say, is obeyed by a terminal."""

import ast
import inspect
import json
import os
import shutil
from pathlib import Path

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from barlow import cli
from barlow.commands import terminal
from barlow.printable import printable, printable_lines
from barlow.runs.finishing import load_encoder
from barlow.wording import in_arguments

EVIL = "\x1b[2J\x1b]0;owned\x07\u202egnp.\r\x9b31m"
"""Clears the screen, sets the window's title, turns the direction of writing, goes back to the line's start."""


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.text() | st.binary(max_size=40))
def test_whatever_comes_out_is_printable_utf_8_and_stays_as_it_is(text: str | bytes) -> None:
    shown = printable(text.replace("\0", "") if isinstance(text, str) else text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert printable(shown) == shown
    assert printable_lines(f"{shown}\n{shown}") == f"{shown}\n{shown}"


def test_what_people_write_is_left_alone() -> None:
    for name in ("photos/été/猫 1.jpg", "loss ‖p‖² × 0.1 – 3 °", "run's [best] #1"):
        assert printable(name) == name


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=60))
def test_every_error_that_python_gets_can_be_printed(text: str) -> None:
    @in_arguments
    def fails() -> None:
        raise ValueError(f"no folder {text}: use --batch-size 3")

    with pytest.raises(ValueError, match="no folder") as caught:
        fails()
    assert all(line.isprintable() for line in str(caught.value).split("\n"))


def test_the_command_line_prints_by_two_functions_and_both_make_it_printable() -> None:
    tree = ast.parse(inspect.getsource(terminal))
    printing = {}
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "print":
                printing[function.name] = ast.unparse(call)
    assert set(printing) <= {"_print_error", "put"}
    assert "printable(" in printing["_print_error"]
    assert "printable_lines(" in printing["put"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled images whose folder, classes and files have such names; one of them cannot be read."""
    root = tmp_path_factory.mktemp("hostile") / f"set{EVIL}"
    plain = tiny.images(root / "plain", 40, classes=2)
    for i, folder in enumerate(sorted(plain.iterdir())):
        shutil.move(folder, root / f"class{i}{EVIL}")
    plain.rmdir()
    first = root / f"class0{EVIL}"
    (first / f"bad{EVIL}.png").write_bytes(b"not an image")
    return root


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    text = out + err
    assert [c for c in text.replace("\n", "") if not c.isprintable()] == []
    return text


def test_names_of_folders_classes_and_files_never_reach_the_terminal(
    hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = tiny.words(train__steps=1)
    assert cli.main(["pretrain", str(hostile), "--out", f"run{EVIL}", *words]) != 0, "a bad file is over the limit"
    assert "\\x1b[2J" in said(capsys)
    assert cli.main(["pretrain", str(hostile), "--out", f"run{EVIL}", "--max-bad", "0.1", *words]) == 0
    assert "\\x1b[2J" in said(capsys)
    labelled = ["--train", str(hostile), "--test", str(hostile), "--max-bad", "0.1", "--protocol", "knn"]
    assert cli.main(["evaluate", f"run{EVIL}", *labelled]) == 0
    assert "\\x1b[2J" in said(capsys)
    (tmp_path / "other" / f"cat{EVIL}").mkdir(parents=True)
    (tmp_path / "other" / f"dog{EVIL}").mkdir()
    for name in ("cat", "dog"):
        shutil.copy(next(hostile.glob("*/0*.png")), tmp_path / "other" / f"{name}{EVIL}")
    assert cli.main(["evaluate", f"run{EVIL}", "--train", str(hostile), "--test", "other", "--max-bad", "0.1"]) != 0
    assert "cat\\x1b[2J" in said(capsys)


@pytest.mark.parametrize("key", ["name", "kind", "barlow", "stem", "stages", "interpolation", "options"])
def test_what_a_config_says_never_reaches_the_terminal(key: str, tmp_path: Path, hostile: Path) -> None:
    config = {
        "format": 99 if key == "barlow" else 2,
        "barlow": "9",
        "kind": "timm",
        "name": "resnet18",
        "in_channels": 3,
        "image_size": 16,
        "stem": "as_is",
        "zero_init_last": True,
        "options": {},
        "seed": 0,
        "stages": "last",
        "whiten": None,
        "num_features": 512,
        "preprocessing": {
            "size": 16,
            "crop_ratio": 1.0,
            "interpolation": "bicubic",
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "channels": 3,
        },
    }
    (config if key in config else config["preprocessing"])[key] = {EVIL: 1} if key == "options" else EVIL  # type: ignore[index]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_encoder(tmp_path)
    assert str(caught.value).isprintable()
    assert os.linesep not in str(caught.value)
