"""`barlow evaluate RUN --supervised RUN2`: the same network, as long, trained with the labels."""

from pathlib import Path

import pytest
import tiny

import barlow
from barlow import cli, exits
from barlow.runs.run import Run, load_recipe_text


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "labelled", 64, classes=2)


@pytest.fixture(scope="module")
def run(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    barlow.pretrain(labelled, out, overrides=tiny.SMALL | {"train.steps": 3}, progress=False)
    return out


def evaluated(run: Path, labelled: Path, out: Path, *more: str) -> int:
    words = ["--train", str(labelled), "--test", str(labelled), "--protocol", "knn", "--supervised", str(out), *more]
    return cli.main(["evaluate", str(run), *words])


def test_it_has_the_network_and_the_budget_of_the_run_and_a_column_beside_it(
    run: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = tmp_path / "supervised"
    assert evaluated(run, labelled, beside) == exits.OK
    ours, theirs = (load_recipe_text(folder / "recipe.yaml") for folder in (run, beside))
    assert theirs["objective"]["kind"] == "supervised"
    assert theirs["encoder"] == ours["encoder"]
    for section, keys in {"train": ("steps", "batch_size"), "data": ("image_size", "centre_size", "channels")}.items():
        assert [theirs[section][key] for key in keys] == [ours[section][key] for key in keys]
    said = capsys.readouterr()
    assert "supervised" in said.out
    assert [each.name for each in beside.glob("evaluation")], "its results are its own"

    weights = tiny.weights(beside)
    assert evaluated(run, labelled, beside) == exits.OK, "what is there is taken"
    assert tiny.weights(beside) == weights
    assert len(Run(beside).metrics()) == len({row["step"] for row in Run(beside).metrics()})


def test_what_is_no_run_has_no_budget_and_a_reference_needs_labels(
    run: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(run), "--supervised", str(tmp_path / "s")]) == exits.USAGE
    assert "--supervised learns from the labels of --train" in capsys.readouterr().err
    for more, told in (
        (["--protocol", "knnn"], "knnn"),
        (["--table", "t.txt"], "t.txt"),
        (["--protocol", "detect"], "boxes"),
    ):
        assert evaluated(run, labelled, tmp_path / "s", *more) == exits.USAGE
        assert told in capsys.readouterr().err
    assert not (tmp_path / "s").exists(), "what is wrong is told before the training"
    assert evaluated(run / "encoder", labelled, tmp_path / "s", "--out", str(tmp_path / "o")) == exits.NO_INPUT
    assert "is no run, so it has no network and no number of steps" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
    assert evaluated(run, labelled, run) == exits.USAGE
    assert "is a run of another kind: name a new folder" in capsys.readouterr().err
