"""What the pages tell people to type works: every command and every Python block, in order, in a folder like theirs.

Runs are made tiny, so that nothing waits: their budget, network and batch are replaced, and everything else stays as it
stands on the page. What cannot run here is named in NOT_HERE, with the reason.
"""

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tiny
import yaml

from barlow.recipe import files
from barlow.recipe.request import DEFAULT

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

NOT_HERE = {
    ".pth": "files of other projects; tests/nets/test_layouts.py makes such",
    "timm:": "timm fetches the weights",
    "cifar10/": "CIFAR-10 is downloaded",
    "--protocol detect": "boxes, and a detector to train: tests/detection does it",
    "--devices 8": "eight processes on two cores",
    "torchrun": "several machines",
    "pip install": "an installation is a test of its own (.ci/run)",
    "make ": "the README's own commands are what .ci/run calls",
    "git ": "not barlow's",
    "mkdocs": "test_site.py builds the site",
}

LIBRARIES = {"--to onnx": ("onnx", "onnxscript", "onnxruntime"), "--to hf": ("transformers",)}
"""What a command needs that not everybody installs (extra `export`). The nightly job that has them runs it."""

GIVEN = """
import numpy, torch
import barlow
za, zb = torch.randn(2, 64, 8)
numbers = numpy.load("field.npy")
"""
"""What a block takes for granted."""

BUDGET = re.compile(r"^--(epochs|minutes|steps|batch-size|rows-in-memory)$")


def blocks(page: str, kinds: tuple[str, ...]) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [body for kind, body in FENCE.findall(text) if kind in kinds]


def commands(page: str) -> list[str]:
    """The lines that call barlow, whole, without what is said beside them."""
    whole = "\n".join(blocks(page, ("", "sh", "bash", "console"))).replace("\\\n", " ")
    lines = (re.sub(r"\s+#\s.*$", "", line).strip().removeprefix("$ ") for line in whole.splitlines())
    return [line for line in lines if line.startswith("barlow ")]


def made_tiny(words: list[str]) -> list[str]:
    """A command with a budget of two steps, on a network that a test can afford."""
    if words[1] != "pretrain" or "--resume" in words or "--print-recipe" in words:
        return words
    kept, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if BUDGET.match(word):
            rest.pop(0)
        else:
            kept.append(word)
    named = [kept[i + 1] for i, word in enumerate(kept) if word in ("-c", "--recipe")]
    objective = [kept[i + 1] for i, word in enumerate(kept) if word == "--objective"]
    recipe = named[0] if named else f"small_{objective[0]}" if objective else DEFAULT
    changes = tiny.of_recipe(recipe) | {"train.steps": 2}
    if files.read(recipe)["encoder"]["init"] or "--init" in kept:
        changes = {key: value for key, value in changes.items() if not key.startswith("encoder.")}
    if "--image-size" in kept:
        changes.pop("data.image_size")
    given = {word.removeprefix("--") for word in kept if word.startswith("--")}
    return kept + [word for key, value in changes.items() if key not in given for word in (f"--{key}", flow(value))]


def flow(value: object) -> str:
    """A value as YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folders that the pages speak of."""
    for name in ("photos", "more"):
        tiny.images(tmp_path / name, 48, seed=len(name))
    tiny.images(tmp_path / "lines", 48, side=(32, 128))
    for name in ("train", "test"):
        tiny.images(tmp_path / "labelled" / name, 40, classes=4, seed=len(name))
    for seed, name in enumerate(("birds", "other_birds")):
        tiny.captioned(tmp_path / name, 40, seed=seed)
    (tmp_path / "fields").mkdir()
    for number in range(32):
        bands = np.random.default_rng(number).integers(0, 10_000, (24, 24, 12)).astype(np.uint16)
        np.save(tmp_path / "fields" / f"{number}.npy", bands)
    shutil.copy(tmp_path / "photos" / "000.png", tmp_path / "cat.jpg")
    tiny.images(tmp_path / "aerial" / "train" / "Stadium", 20)
    queries = tiny.images(tmp_path / "aerial" / "test" / "Stadium", 1, seed=1)
    (queries / "000.png").rename(queries / "00004.jpg")
    before = [sys.executable, "-m", "barlow.cli", "pretrain", "photos", "--out", "runs/before", *tiny.words()]
    subprocess.run(before, cwd=tmp_path, check=True, capture_output=True)
    shutil.copytree(tmp_path / "runs" / "before", tmp_path / "runs" / "aerial")
    return tmp_path


def not_here(line: str) -> bool:
    """Whether a command cannot run here."""
    lacking = [what for what, names in LIBRARIES.items() if any(find_spec(name) is None for name in names)]
    return any(what in line for what in (*NOT_HERE, *lacking))


def run_line(line: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """A command of a page, made tiny, in a folder like the reader's."""
    words = [sys.executable, "-m", "barlow.cli", *made_tiny(shlex.split(line))[1:]]
    return subprocess.run(words, cwd=home, capture_output=True, text=True, check=False)


def test_pages_with_commands_are_found() -> None:
    assert len(commands("README.md")) > 10
    assert commands("docs/ideas.md") == [
        "barlow pretrain shapes --objective vicreg --objective.variance 0 --steps 200 --out runs/collapsed"
    ]
    assert made_tiny(shlex.split("barlow pretrain photos --minutes 3 --seed 1"))[:5] == [
        "barlow", "pretrain", "photos", "--seed", "1"
    ]  # fmt: skip


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_of_a_page_works(page: str, home: Path) -> None:
    failed = []
    for line in commands(page):
        if not_here(line):
            continue
        if "--out" not in shlex.split(
            line
        ):  # people type one of these lines, each of which has a folder of the same name
            for earlier in home.glob("runs/photos-*"):
                shutil.rmtree(earlier)
        done = run_line(line, home)
        if done.returncode:
            failed.append(f"{line}\n  {done.returncode}: {done.stderr.splitlines()[-1:]}")
    assert not failed, "\n".join(failed)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, ("python",))])
def test_every_python_block_of_a_page_runs(page: str, home: Path) -> None:
    for name in ("photos", "fields"):
        first = [sys.executable, "-m", "barlow.cli", "pretrain", name, "--out", f"runs/{name}", *tiny.words()]
        subprocess.run(first, cwd=home, check=True, capture_output=True)
    if page == "README.md":
        for line in commands(page):
            if "plain" in line:  # what its two lines of timm read
                assert run_line(line, home).returncode == 0, line
    if page == "docs/captions.md":
        first = shlex.split("-m barlow.cli pretrain birds/captions.csv -c small_vse --out runs/birds")
        settings = [word for key, value in tiny.of_recipe("small_vse").items() for word in (f"--{key}", flow(value))]
        words = [sys.executable, *first, *settings, "--train.steps", "2"]
        subprocess.run(words, cwd=home, check=True, capture_output=True)
    shutil.copy(home / "fields" / "0.npy", home / "field.npy")
    for number, block in enumerate(blocks(page, ("python",))):
        shutil.rmtree(home / "runs" / "again", ignore_errors=True)
        short = re.sub(r'out="runs/photos"', 'out="runs/again"', re.sub(r"minutes=\d+", "steps=2", block))
        script = home / f"block{number}.py"
        script.write_text(GIVEN + short)
        done = subprocess.run([sys.executable, str(script)], cwd=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{page}:\n{block}\n{done.stderr[-800:]}"


def test_what_trains_in_a_script_has_its_main_guard_on_every_page() -> None:
    """On macOS and Windows the processes that read images import the script again (docs/reliability.md)."""
    training = {
        f"{page}: {body}": body for page in PAGES for body in blocks(page, ("python",)) if "barlow.pretrain(" in body
    }
    assert any(name.startswith("README.md") for name in training)
    without = [name for name, body in training.items() if 'if __name__ == "__main__":' not in body]
    assert without == []
