"""The table of docs/reliability.md: what it shows of lines that faults have left."""

import json
from pathlib import Path

import pytest
from injections import record
from programs import program


def test_a_line_is_kept_where_a_file_is_named_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.jsonl"
    monkeypatch.delenv("BARLOW_RELIABILITY_LOG", raising=False)
    record("nothing", 1, 0)
    monkeypatch.setenv("BARLOW_RELIABILITY_LOG", str(log))
    record("a kill", 3, 1)
    record("a flip", 2, 0)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    found = [(line["what"], line["injections"], line["failures"]) for line in lines]
    assert found == [("a kill", 3, 1), ("a flip", 2, 0)]
    assert {"commit", "processor", "cores", "torch"} <= lines[0].keys()


def test_the_page_sums_up_what_was_done_at_the_last_commit() -> None:
    page = program("experiments/reliability.py")
    at = {"processor": "P", "cores": 2, "torch": "2"}
    lines = [
        {"what": "a kill", "injections": 7, "failures": 7, "commit": "old", **at},
        {"what": "a kill", "injections": 3, "failures": 1, "commit": "0123456789", **at},
        {"what": "a flip", "injections": 1000, "failures": 0, "commit": "old", **at},
        {"what": "a kill", "injections": 2, "failures": 0, "commit": "0123456789", **at},
    ]
    text = page.page_with(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", lines)
    assert "| a kill | 5 | 1 | 0123456, 2 cores of P, torch 2 |" in text
    assert "| a flip | 1,000 | 0 | old, 2 cores of P, torch 2 |" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
