"""Messages name flags to who types a command, and arguments to who calls a function."""

import dataclasses
import doctest
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from torch import nn

import barlow
from barlow import cli, wording
from barlow.evaluation import evaluate
from barlow.pretraining import Result, pretrain
from barlow.recipe.flags import FLAGS
from barlow.storage import StorageError
from barlow.wording import as_arguments


def test_the_example_runs() -> None:
    assert doctest.testmod(wording).attempted >= 2
    assert doctest.testmod(wording).failed == 0


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("use --batch-size 64", "use batch_size=64"),
        ("(--max-bad 0.07)", "(max_bad=0.07)"),
        ("--steps and --minutes are given; keep one", "steps and minutes are given; keep one"),
        ("use --resume to go on, --overwrite to replace it", "use resume=True to go on, overwrite=True to replace it"),
        ("--train and --test not given", "train and test not given"),
        ("set --method.kind", "set method.kind (in overrides)"),
        ("use --optim.clip true", "use overrides={'optim.clip': True}"),
        ("at most 2 --devices, see --help", "at most 2 --devices, see --help"),
        (
            "`barlow pretrain --resume --out runs/a`; lower --steps",
            "`barlow pretrain --resume --out runs/a`; lower steps",
        ),
        ("no folder photos--old/--x", "no folder photos--old/--x"),
        ("add --encoder NAME", "add encoder NAME"),
        ("1 - 2 -- 3", "1 - 2 -- 3"),
        ("-c small_w_mse in place of yours", "recipe='small_w_mse' in place of yours"),
        ("barlow pretrain -c runs/a/recipe.yaml", "barlow pretrain -c runs/a/recipe.yaml"),
    ],
)
def test_flags_become_arguments(flags: str, arguments: str) -> None:
    assert as_arguments(flags) == arguments
    assert as_arguments(arguments) == arguments or "--" in arguments or "-c" in arguments


def test_every_flag_is_an_argument_of_its_name() -> None:
    named = {"data", "out", "recipe", "resume", "overwrite", "objective", "encoder"}
    for flag in FLAGS:
        assert as_arguments(flag.option) == flag.name
    assert named <= set(inspect.signature(pretrain).parameters)
    for action in cli._verb(cli._parser(), "evaluate")._actions:
        # These are of `named`, of `write_table`, and of `train_supervised`.
        if action.dest not in ("help", "debug", "encoders", "table", "overwrite", "supervised"):
            assert action.dest in inspect.signature(evaluate).parameters


def test_the_same_mistake_is_told_in_the_words_of_the_caller(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = tiny.images(tmp_path / "photos", 20)
    with pytest.raises(ValueError, match=r"20 usable images are fewer than a batch of 64: use batch_size=16$"):
        pretrain(photos, "run", recipe="small_vicreg", batch_size=64, progress=False)
    assert cli.main(["pretrain", str(photos), "-c", "small_vicreg", "--batch-size", "64"]) != 0
    assert "fewer than a batch of 64: use --batch-size 16\n" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^out full is not empty; use resume=True to go on"):
        pretrain(photos, "full")
    with pytest.raises(ValueError, match="steps and minutes are given; keep one"):
        pretrain(photos, steps=3, minutes=1)
    with pytest.raises(ValueError, match=r"protocols names only knn"):
        evaluate("run", augment=True, protocols=["knn"])


@dataclasses.dataclass(frozen=True)
class Said:
    advice: list[str]


@wording.in_arguments
def speaking(tell: Callable[[str], None] | None = None, fail: bool = False) -> Said:
    if tell is not None:
        tell("a larger --steps goes on from \x1b[2J there")
    if fail:
        raise StorageError("cannot write runs: the disk is full; choose another --out")
    return Said(["another rate: --optim.lr_per_256 0.004, or -c small_vicreg"])


def test_what_is_told_and_advised_is_in_the_words_of_the_caller_too() -> None:
    said: list[str] = []
    result = speaking(tell=said.append)
    assert said == ["a larger steps goes on from \\x1b[2J there"]
    assert result.advice == ["another rate: overrides={'optim.lr_per_256': 0.004}, or recipe='small_vicreg'"]
    assert speaking().advice == result.advice
    with pytest.raises(StorageError, match=r"choose another out$"):
        speaking(fail=True)
    said.clear()
    assert wording.in_flags(speaking)(tell=said.append).advice[0].endswith("-c small_vicreg")
    assert said == ["a larger --steps goes on from \x1b[2J there"], "the command line has its own way to a terminal"


def test_a_run_that_is_through_names_arguments_to_who_calls_it_again(tmp_path: Path) -> None:
    photos, said = tiny.images(tmp_path / "photos", 20), []
    changes = tiny.SMALL | {"train.steps": 1}
    pretrain(photos, tmp_path / "run", overrides=changes, progress=False)
    again = pretrain(photos, tmp_path / "run", resume=True, progress=False, tell=said.append)
    assert "finished at step 1 already; a larger steps, epochs or minutes goes on from there" in said
    assert not [line for line in [*said, *again.advice] if "--" in line]


def test_a_result_is_shown_without_its_network(tmp_path: Path) -> None:
    shown = repr(Result(nn.Linear(2, 2), tmp_path, {"loss": 1.0}))
    assert "Linear" not in shown
    assert re.match(r"Result\(run_folder=.*metrics={'loss': 1\.0}", shown)


def test_the_public_functions_keep_their_signatures() -> None:
    assert list(inspect.signature(barlow.pretrain).parameters)[:2] == ["data", "out"]
    assert barlow.pretrain.__doc__ is not None
    assert list(inspect.signature(barlow.load_encoder).parameters) == ["folder", "module"]
