"""The notebooks run from the first cell to the last, and keep nothing of the machine on which they were written.

Their cells are plain Python, so they are run as that, one after the other in one namespace; no kernel is needed. The
cell that is tagged `parameters` says what is trained on and for how long. Here others are put in after it.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TINY = {"recipe": "small_barlow_twins", "overrides": tiny.SMALL}


def cells(path: Path) -> list[dict[str, Any]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    found: list[dict[str, Any]] = content["cells"]
    return found


def run(path: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Runs all cells; returns what they have named."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells(path)):
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        exec(compile(source, f"{path.name}, cell {number}", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            unknown = parameters.keys() - names.keys()
            assert not unknown, f"{path.name} has no {unknown}"
            names |= parameters
    return names


def test_there_are_two_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["few_labels", "quick_start"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_no_outputs_is_short_and_every_cell_is_python(path: Path) -> None:
    found = cells(path)
    assert len(found) <= 20
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in found) == 1
    for number, cell in enumerate(found):
        source = "".join(cell["source"])
        assert not re.search(r"(^|[\"' (])/(home|root|tmp|Users|work)/", source)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            compile(source, f"{path.name}, cell {number}", "exec")


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_the_quick_start_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(ROOT / "notebooks" / "quick_start.ipynb", {"IMAGES": "digits", "TRAINING": TINY})
    assert names["features"].shape == (1, names["encoder"].num_features)
    assert "knn" in names["evaluation"].table().lower()
    assert (tmp_path / "runs" / "quick-start" / "report.html").is_file()


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_few_labels_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.images(tmp_path / "photos", 64, seed=1)
    tiny.images(tmp_path / "labelled", 32, classes=4)
    names = run(ROOT / "notebooks" / "few_labels.ipynb", {"TRAINING": TINY})
    assert len(names["sure"]) == 64
    assert names["copies"].searched == 32
    said = capsys.readouterr().out
    assert "rank  similarity  path" in said
    assert len(re.findall(r"^0\.\d\d  \d+\.png$", said, re.MULTILINE)) == 5
