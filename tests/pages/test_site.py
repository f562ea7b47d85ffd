"""The site of docs/ is built from the pages as they are, without a broken link, and no page is missing from it."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def named(entry: object) -> list[str]:
    """The pages of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in named(part)]  # type: ignore[attr-defined]


def test_every_page_has_its_place() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(named(site["nav"])) == sorted(path.name for path in DOCS.glob("*.md"))


def test_every_figure_that_a_page_shows_is_there_and_every_one_is_shown() -> None:
    shown = re.findall(r"\]\((figures/[\w.]+)\)", "".join(path.read_text("utf-8") for path in DOCS.glob("*.md")))
    assert sorted(set(shown)) == sorted(f"figures/{path.name}" for path in (DOCS / "figures").iterdir())


@pytest.mark.nightly
@pytest.mark.skipif(find_spec("material") is None, reason="mkdocs-material is not installed: pip install barlow[docs]")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    pages = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "site").glob("*.html"))
    assert "fonts.googleapis" not in pages
