"""Writes docs/objectives.md, docs/methods.md and docs/protocols.md from docstrings, and the table of diagnostics of
docs/reading-a-run.md (`--check` only compares).

python experiments/kinds_pages.py
"""

import ast
import inspect
import re
import sys
from collections.abc import Callable
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
    "protocols": """# Protocols

*Written from the docstrings of `src/barlow/protocols` by `experiments/kinds_pages.py`.*

A protocol is a way of measuring an encoder with labelled images. `barlow evaluate` names them with commas between
them:

```
barlow evaluate runs/photos --train birds/train --test birds/test --protocol knn,linear,fewshot:1,5,10,svm,retrieval
barlow evaluate runs/photos --train VOC2007:trainval --test VOC2007:test --protocol svm,svm:8
barlow evaluate runs/photos --train birds/train --test birds/test --protocol semi:1,10
```

A number after the colon sets what the protocol says (`fewshot:5`: five images a class; `knn:200`: 200 neighbours;
`svm:8`: eight positive images a class; `semi:10`: 10 % of the labels; `linear_sgd:0.02`: a rate), and several
numbers are several protocols. Without one, `fewshot` is 1, 5 and 10, and `semi` is 1 and 10.

**What is chosen is chosen on a part of the training images**: rates, costs, penalties. Test labels reach no
protocol, which tests check for every file of the folder. What was chosen, and the score that it was chosen by
(`held_out_score`), is in the notes of `results.json`. A held-out score far above the test's is a sign that the test
images are of another kind.

**Labels** are the names of sub-folders, a column of a CSV file (`path,label`), or, several an image, a CSV file
(`path,labels`, with `;` between them), a folder in VOC's form (`FOLDER:SPLIT`) or a JSON file in COCO's. Where an
image may have several labels the metric is a mean average precision, of which there are three conventions with
three names: `map` (scikit-learn's: no interpolation), `map_envelope` (VOC from 2010 on, and VISSL, whose VOC07
numbers the papers print) and `map_11_point` (VOC 2007's own). For the ranking 1 0 1 1 0 0 1 0 they are 74.7, 76.8
and 76.9. Never set one beside another: tables call them mAP, env mAP and 11-pt mAP. Below the table is what a random
order would have by each: of the first exactly, (R − 1) / (n − 1) · (1 − H / n) + H / n for R right images of n, with
H = 1 + 1/2 + … + 1/n; of the others the mean of a few hundred random orders. Where images are few it is above the
share that has the label.

**Intervals** are of 95 %. They are over the test images (Wilson's for shares, a bootstrap for average precisions),
and for protocols that draw training images (`fewshot`, `semi`, `svm:8`) over the draws. Where all draws have one
value, as when a class has no more images than are drawn, those are over the test images too: draws that are alike
say nothing of how far a number can be trusted. Gains are paired: image by image, or draw by draw. Where the classes
of the test images are uneven (the largest has over one and a half times the images of the smallest), `by class` is
beside top-1: the mean over the classes of the share of each that is right.
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


def section(path: Path, of_kind: list[str] | None) -> str:
    """What the page says of one file: its first line, its class's docstring, its hyper-parameters and recipes, if what
    it is about can be in a recipe."""
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
    if of_kind is not None:
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
    of_kinds = None if folder == "protocols" else recipes(folder.removesuffix("s"))
    sections = (section(path, None if of_kinds is None else of_kinds.get(path.stem, [])) for path in files(folder))
    return "\n\n".join([INTRODUCTIONS[folder].strip(), *sections]) + "\n"


SHAPE = Shape(500, 2, 512)
"""Images, views of each, and width, of which the page shows floors and ceilings."""


def diagnostics(text: str) -> str:
    """The page on runs with the table of all diagnostics in it."""
    rows = [
        (f"`{each.name}`", each.what, each.better, *(f"{end:.3g}".replace("inf", "–") for end in each.bounds(SHAPE)))
        for each in fitting(SHAPE)
    ]
    ends = [f"{end} for {SHAPE.n} × {SHAPE.d}" for end in ("floor", "ceiling")]
    begin, end = "<!-- diagnostics: written by experiments/kinds_pages.py -->", "<!-- end of diagnostics -->"
    return put_between(text, begin, end, markdown(("name", "what", "which is good", *ends), rows))


def written(folder: str) -> Callable[[str, object], str]:
    """What makes the page of a folder. All of it is written: the text that is there does not matter."""
    return lambda text, lines: page(folder)


def main() -> int:
    pages = [write_or_check(__doc__ or "", DOCS / f"{folder}.md", [], written(folder)) for folder in INTRODUCTIONS]
    return max(*pages, write_or_check(__doc__ or "", DOCS / "reading-a-run.md", [], lambda text, _: diagnostics(text)))


if __name__ == "__main__":
    sys.exit(main())
