"""Files and functions are short enough to be read in one go, or say why they are not."""

import ast
import re
from pathlib import Path

from source_code import PACKAGE, ROOT, SOURCES, broken, place, tree

FILE_LINES, FUNCTION_LINES = 400, 80

# This set must be empty. These files are too long, or have a function that is, and are about to be split.
TO_BE_SPLIT = {}


def has_reason(docstring: str | None) -> bool:
    """Whether a sentence of the docstring starts "Long because" and goes on to say why."""
    return bool(re.search(r"(^|[.:!?)`\"] )Long because( \S+){3,}", " ".join((docstring or "").split())))


def too_long(path: Path, text: ast.Module, lines: int) -> list[str]:
    """A line on the file, if it is too long without a reason, and on each such function in it."""
    wrong = []
    if lines > FILE_LINES and not has_reason(ast.get_docstring(text)):
        wrong.append(f"{path.relative_to(ROOT)} has {lines} lines")
    for node in ast.walk(text):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            length = (node.end_lineno or first) - first + 1
            if length > FUNCTION_LINES and not has_reason(ast.get_docstring(node)):
                wrong.append(f"{place(path, first)} has a function {node.name} of {length} lines")
    return wrong


def of_file(path: Path) -> list[str]:
    return too_long(path, tree(path), len(path.read_text(encoding="utf-8").splitlines()))


def test_files_and_functions_are_short_or_say_why_they_are_not() -> None:
    others = [path for path in SOURCES if path.relative_to(PACKAGE).as_posix() not in TO_BE_SPLIT]
    wrong = [line for path in others for line in of_file(path)]
    assert not wrong, broken("Sizes", wrong)


def test_a_file_that_has_been_split_is_no_longer_excused() -> None:
    done = [name for name in sorted(TO_BE_SPLIT) if not (PACKAGE / name).is_file() or not of_file(PACKAGE / name)]
    assert not done, f"these fit by now, or are gone: take them out of TO_BE_SPLIT in {Path(__file__).name}: {done}"


def test_what_is_too_long_is_found_and_a_reason_excuses_it() -> None:
    def found(docstring: str, lines: int) -> list[str]:
        body = f'def long():\n    """{docstring}"""\n' + "    x = 1\n" * (lines - 2)
        return too_long(PACKAGE / "some.py", ast.parse(body), 10)

    assert found("What it does.", FUNCTION_LINES) == []
    assert found("What it does.", FUNCTION_LINES + 1) == ["src/barlow/some.py:1 has a function long of 81 lines"]
    assert found("What it does. Long because a table of\n    kernels belongs together.", 200) == []
    assert found("What it does. Long because.", 200), "that is no reason"
    assert found("Not so Long because it is not a sentence.", 200)

    def of_lines(docstring: str, lines: int) -> list[str]:
        return too_long(PACKAGE / "some.py", ast.parse(f'"""{docstring}"""'), lines)

    assert of_lines("What is here.", FILE_LINES) == []
    assert of_lines("What is here.", FILE_LINES + 1) == ["src/barlow/some.py has 401 lines"]
    assert of_lines("Long because the draws of all ops share a table.", FILE_LINES + 1) == []
