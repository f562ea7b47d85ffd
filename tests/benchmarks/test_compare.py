"""An old tree against a new one, both made up: what the verdicts are, what is left out, which package is measured."""

import json
import sys
import textwrap
import types
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import compare

PROGRAM = """
    import os
    import barlow
    import measure
    from clock import Cost

    def rows(smoke):
        def ours(name):
            with open(os.environ["ORDER"], "a") as order:
                order.write(barlow.NAME[0])
            if barlow.SECONDS[name] < 0:
                os._exit(3)
            return Cost(barlow.SECONDS[name], barlow.SECONDS[name])

        def row(name):
            return measure.Row(name=name, what=f"{name} work", ours=lambda: ours(name), warmups=0, work=(10, "images"))

        return [row("step"), row("views")] + [
            measure.Row(name="memory", what="no time", memory_gb=lambda: 1.0),
            measure.Part(name="guard", what="", piece=lambda: 1 / 0, whole_name="", at_most=1.0),
        ]
"""


@pytest.fixture
def trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages that say what their work takes, a program that asks them, and nothing else."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("ORDER", str(tmp_path / "order"))
    (tmp_path / "made_up.py").write_text(textwrap.dedent(PROGRAM))
    monkeypatch.setattr(compare, "NEW", tmp_path / "new")
    monkeypatch.setattr(compare.measure, "gc", types.SimpleNamespace(collect=lambda: 0))  # nothing is timed here
    monkeypatch.setattr(compare, "RESULTS", tmp_path / "comparisons.jsonl")
    return tmp_path


def package(trees: Path, name: str, **seconds: float) -> Path:
    home = trees / name / "src" / "barlow"
    home.mkdir(parents=True)
    (home / "__init__.py").write_text(f"NAME, SECONDS = {name!r}, {seconds!r}\n")
    return trees / name


def test_only_a_row_that_takes_over_five_percent_more_is_worse(trees: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = package(trees, "old", step=1.0, views=1.0)
    package(trees, "new", step=1.04, views=1.06)
    assert compare.compared(["made_up"], old, None, smoke=False, record=False) == 1
    printed = capsys.readouterr()
    assert "step: step work" in printed.out
    assert "  ratio 0.962 (0.962 to 0.962), by processor seconds 0.962 (0.962 to 0.962); 8 rounds" in printed.out
    assert printed.err == "worse: views\n"
    assert compare.compared(["made_up"], old, ["step"], smoke=False, record=False) == 0


def test_the_trees_take_turns(trees: Path) -> None:
    old = package(trees, "old", step=1.0)
    package(trees, "new", step=1.0)
    assert compare.compared(["made_up"], old, ["step"], smoke=False, record=False) == 0
    assert (trees / "order").read_text() == "o" + "noon" * 4  # the old one is asked first whether it can


def test_what_the_old_tree_cannot_run_is_left_out_by_name(trees: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = package(trees, "old", step=1.0)
    package(trees, "new", step=1.0, views=1.0)
    assert compare.compared(["made_up"], old, None, smoke=True, record=False) == 0
    assert "the old tree cannot run:\n  views (KeyError: 'views')" in capsys.readouterr().err
    assert compare.compared(["made_up"], old, ["views"], smoke=True, record=False) == 2, "nothing was compared"


def test_a_process_that_ends_in_the_middle_of_a_row_costs_no_other_row(
    trees: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = package(trees, "old", step=1.0, views=1.0)
    package(trees, "new", step=-1.0, views=1.0)
    assert compare.compared(["made_up"], old, None, smoke=True, record=False) == 2
    printed = capsys.readouterr()
    assert "a process ended in the middle of:\n  step (" in printed.err
    assert "views: views work" in printed.out


def test_a_row_that_does_not_exist_is_refused(trees: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = package(trees, "old", step=1.0)
    package(trees, "new", step=1.0)
    assert compare.compared(["made_up"], old, ["guard"], smoke=True, record=False) == 2
    assert "no row 'guard'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        compare.main([str(trees / "nowhere")])
    assert "give a checkout" in capsys.readouterr().err


def test_a_tree_whose_package_is_not_the_one_imported_is_refused(trees: Path) -> None:
    package(trees, "new", step=1.0)
    (trees / "empty" / "src").mkdir(parents=True)
    with pytest.raises(compare.WorkerFailed, match=r"the package of .*empty was asked for, and .* is imported"):
        compare.Tree(trees / "empty", "made_up", smoke=True).ask(do="list")


def test_lines_have_both_commits_and_a_file_of_their_own(trees: Path) -> None:
    old = package(trees, "old", step=1.0)
    package(trees, "new", step=0.5)
    assert compare.compared(["made_up"], old, ["step"], smoke=False, record=True) == 0
    (line,) = [json.loads(text) for text in compare.RESULTS.read_text().splitlines()]
    assert line["program"] == "benchmarks/compare.py"
    assert (line["name"], line["ratio"], line["verdict"]) == ("step", 2.0, "better")
    assert line["promised"] == {"ratio": 1.0}
    assert line["old"] is None, "no checkout"
    assert line["commit"]
    assert line["ours"]["images_per_second"] == 20
