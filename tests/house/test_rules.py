"""Every house rule is written in docs/architecture.md, and enforced by a test that quotes it."""

import re
from collections import Counter
from pathlib import Path

import pytest
from source_code import ARCHITECTURE, broken, rule


def test_every_house_rule_is_quoted_by_a_test() -> None:
    _, _, written = ARCHITECTURE.read_text(encoding="utf-8").partition("\n## House rules\n")
    names = re.findall(r"^- \*\*(.+?)\*\*: ", written.partition("\n## ")[0], re.MULTILINE)
    assert len(names) >= 12, 'docs/architecture.md, "House rules" is not read whole'
    others = [path for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name]
    tests = "".join(path.read_text(encoding="utf-8") for path in others)
    unused = [name for name in names if not re.search(rf'(broken\(|: \()"{name}"', tests)]
    assert not unused, f'these are among the "House rules" of docs/architecture.md, and no test enforces them: {unused}'


def test_a_broken_rule_is_quoted_with_where_it_is_written_and_where_it_is_broken() -> None:
    said = broken("Layers", ["src/barlow/linalg.py:3 imports barlow.training.train"])
    assert said.startswith('docs/architecture.md, "House rules", Layers: a module imports from its own or lower layers')
    assert said.endswith("\n  src/barlow/linalg.py:3 imports barlow.training.train")
    assert "\n" not in rule("Sizes"), "a rule that is written on two lines is quoted in one"
    assert rule("Sizes").endswith('"Long because".')


def test_a_rule_that_is_not_written_is_said() -> None:
    with pytest.raises(AssertionError, match=r"docs/architecture\.md has no rule \*\*Tidiness\*\*"):
        rule("Tidiness")


def test_no_two_test_files_have_one_name() -> None:
    """pytest, and our helpers beside the tests, import files by their names alone: the second of two cannot be read."""
    files = sorted(Path(__file__).parents[1].rglob("test_*.py"))
    names = Counter(path.name for path in files)
    assert [str(path) for path in files if names[path.name] > 1] == []
