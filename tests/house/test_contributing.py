"""What CONTRIBUTING.md says to write works as it stands: its files are put into a copy of the package, and run.

The copy goes under every contract that a file of its folder goes under, and trains.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from mutations.test_mutations import copied

ROOT = Path(__file__).parents[2]
FILES = dict(
    re.findall(
        r"`src/barlow/(\w+/\w+\.py)`:\n\n```python\n(.*?)```",
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        re.S,
    )
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of package and tests, with the files of the page in it."""
    copy = copied(tmp_path_factory.mktemp("checkout"))
    for file, text in FILES.items():
        (copy / "tests" / "barlow" / file).write_text(text, encoding="utf-8")
    return copy


def python(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(checkout / "tests"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def test_the_page_has_an_objective_and_a_topology() -> None:
    assert sorted(FILES) == ["methods/one_sided.py", "objectives/agreement.py"], (
        "CONTRIBUTING.md: the path in backquotes, a colon, an empty line, and the file as a block of python"
    )


def test_the_files_of_the_page_keep_every_contract_of_their_folders(checkout: Path) -> None:
    files = [f"tests/contracts/{name}" for name in ("test_objectives.py", "test_methods.py")]
    chosen = "(agreement or one_sided) and not several"
    done = python(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", chosen)
    assert done.returncode == 0, f"CONTRIBUTING.md:\n{done.stdout[-3000:]}"
    assert re.search(r"\d+ passed", done.stdout) or "." in done.stdout, "something was selected"


def test_both_train_with_the_commands_that_the_page_gives(checkout: Path, tmp_path: Path) -> None:
    """In one process: Python takes most of the time for its imports."""
    data = tiny.images(tmp_path / "photos", 32)
    given = (["--objective", "agreement"], ["--objective", "byol", "--method.kind", "one_sided"])
    commands = []
    for words in given:
        changes = tiny.SMALL | {"train.steps": 2}
        if words[-1] == "one_sided":
            changes |= {"method.predictor.widths": [16, 4]}
        settings = [word for key, value in changes.items() for word in (f"--{key}", json.dumps(value))]
        commands.append(["pretrain", str(data), *words, *settings, "--out", str(tmp_path / words[-1])])
    program = "import json, sys; from barlow import cli; sys.exit(any([cli.main(w) for w in json.loads(sys.argv[1])]))"
    done = python(checkout, "-c", program, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    for words in given:
        source = (tmp_path / words[-1] / "recipe.yaml").read_text(encoding="utf-8")
        assert "none: no paper describes this run" in source, "it does not sign itself as another paper's"
