"""Writes docs/objectives.md and docs/methods.md from docstrings, and the table of diagnostics of docs/reading-a-run.md
(`--check` only compares).

python experiments/kinds_pages.py
"""

import ast
import inspect
import re
import sys
from pathlib import Path

import yaml
from generated import ROOT, markdown, put_between, write_or_check

from barlow.diagnostics.catalogue import Shape, fitting

PACKAGE, DOCS = ROOT / "src" / "barlow", ROOT / "docs"

INTRODUCTIONS = {
    "objectives": """# Objectives

*Written from the docstrings of `src/barlow/objectives` by `experiments/kinds_pages.py`.*

An objective is what mixes the images of a batch: it compares their embeddings, and its value is the loss. Each is a
kind: `barlow pretrain photos/ --objective KIND` trains with it.
""",
    "methods": """# Methods

*Written from the docstrings of `src/barlow/methods` by `experiments/kinds_pages.py`.*

A method is the topology: which networks see which views, and which of their outputs [an objective](objectives.md)
compares. A published method is a method and an objective, and a recipe names both. Each is a kind, the key
`method.kind` of a recipe.
""",
}

HEADINGS = ("Terms", "Source", "Convention", "Deviation", "Args", "Raises", "Example")
FORMULA = re.compile(r"(\S+|loss[^=,]*) = ")
SECTION = re.compile(rf"^({'|'.join(HEADINGS)}):", re.MULTILINE)


def files(folder: str) -> list[Path]:
    """Those of the kinds, in alphabetical order."""
    return sorted((PACKAGE / folder).glob("[!_]*.py"))


def recipes(section: str) -> dict[str, list[str]]:
    """The shipped recipes that have each kind in a section, the small ones first."""
    found: dict[str, list[str]] = {}
    for path in sorted((PACKAGE / "recipes").rglob("*.yaml"), key=lambda p: (p.parent.name != "recipes", p.as_posix())):
        kind = yaml.safe_load(path.read_text(encoding="utf-8"))[section]["kind"]
        found.setdefault(kind, []).append(path.relative_to(PACKAGE / "recipes").with_suffix("").as_posix())
    return found


def section(path: Path, of_kind: list[str]) -> str:
    """What the page says of one file: its first line, its class's docstring, its hyper-parameters and recipes."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    (named,) = (
        node for node in module.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    (name,) = ast.literal_eval(named.value)
    (cls,) = (node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name)
    about, *sections = SECTION.split((ast.get_docstring(cls) or "").replace("``", "`"))
    said = dict(zip(sections[::2], sections[1::2], strict=True))
    parts = [f"## {path.stem}", one_line(ast.get_docstring(module) or ""), with_formulas(about.strip())]
    parts += [f"**{heading}.** {one_line(said[heading])}" for heading in HEADINGS[:4] if heading in said]
    if "Args" in said:
        parts.append(hyper_parameters(said["Args"], cls))
    parts.append(f"**Recipes.** {', '.join(f'`{recipe}`' for recipe in of_kind) or 'None of its own.'}")
    if "Example" in said:
        parts.append(f"```pycon\n{inspect.cleandoc(said['Example'])}\n```")
    return "\n\n".join(parts)


def hyper_parameters(text: str, cls: ast.ClassDef) -> str:
    """A table of them with their defaults."""
    defaults = {
        ast.unparse(field.target): ast.unparse(field.value)
        for field in cls.body
        if isinstance(field, ast.AnnAssign) and field.value is not None
    }
    entries = re.split(r"^(\w+): ", inspect.cleandoc(text), flags=re.MULTILINE)[1:]
    rows = (
        [f"`{n}`", f"`{defaults[n]}`" if n in defaults else "", one_line(what)]
        for n, what in zip(entries[::2], entries[1::2], strict=True)
    )
    return markdown(["hyper-parameter", "default", "what"], rows)


def one_line(text: str) -> str:
    """A text without its line breaks, as the cell of a table needs it."""
    return " ".join(text.replace("|", "\\|").split())


def with_formulas(text: str) -> str:
    """Paragraphs as they are, but what follows the first line of a formula in one (``c = …``) in a block of its own."""

    def paragraph(lines: list[str]) -> str:
        first = next((i for i, line in enumerate(lines) if FORMULA.match(line)), len(lines))
        said, formula = "\n".join(lines[:first]), "\n".join(["```text", *lines[first:], "```"])
        return "\n\n".join([said] * (first > 0) + [formula] * (first < len(lines)))

    return "\n\n".join(paragraph(part.split("\n")) for part in text.split("\n\n"))


def page(folder: str) -> str:
    of_kinds = recipes(folder.removesuffix("s"))
    sections = (section(path, of_kinds.get(path.stem, [])) for path in files(folder))
    return "\n\n".join([INTRODUCTIONS[folder].strip(), *sections]) + "\n"


SHAPE = Shape(500, 2, 512)
"""Images, views of each, and width, of which the page shows floors and ceilings."""


def diagnostics(text: str) -> str:
    """The page on runs with the table of all diagnostics in it."""
    rows = [
        (f"`{each.name}`", each.what, *(f"{end:.3g}".replace("inf", "–") for end in each.bounds(SHAPE)))
        for each in fitting(SHAPE)
    ]
    ends = [f"{end} for {SHAPE.n} × {SHAPE.d}" for end in ("floor", "ceiling")]
    begin, end = "<!-- diagnostics: written by experiments/kinds_pages.py -->", "<!-- end of diagnostics -->"
    return put_between(text, begin, end, markdown(("name", "what", *ends), rows))


def main() -> int:
    pages = [
        write_or_check(__doc__ or "", DOCS / f"{folder}.md", [], lambda text, lines, folder=folder: page(folder))
        for folder in INTRODUCTIONS
    ]
    return max(*pages, write_or_check(__doc__ or "", DOCS / "reading-a-run.md", [], lambda text, _: diagnostics(text)))


if __name__ == "__main__":
    sys.exit(main())
