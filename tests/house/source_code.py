"""The package's source code as the tests of this folder read it, and the rules that they hold it to."""

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import barlow

PACKAGE = Path(barlow.__file__).parent
ROOT = PACKAGE.parents[1]
SOURCES = sorted(PACKAGE.rglob("*.py"))
ARCHITECTURE = ROOT / "docs" / "architecture.md"


def module(path: Path) -> str:
    """`barlow.nets.encoders`, for a file of the package."""
    return ".".join(("barlow", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def rule(name: str) -> str:
    """A rule as it is written in docs/architecture.md, "House rules"."""
    _, _, written = ARCHITECTURE.read_text(encoding="utf-8").partition("\n## House rules\n")
    for item in re.split(r"\n(?=- )", written.partition("\n## ")[0]):
        if item.startswith(f"- **{name}**: "):
            return " ".join(item.replace("**", "").removeprefix("- ").split())
    raise AssertionError(f'docs/architecture.md has no rule **{name}** among its "House rules"')


def broken(name: str, places: Iterable[object]) -> str:
    """What a test says when a rule is broken: the rule, where it is written, and where it is broken."""
    found = "".join(f"\n  {entry}" for entry in places)
    return f'docs/architecture.md, "House rules", {rule(name)}\nIt is broken by:{found}'
