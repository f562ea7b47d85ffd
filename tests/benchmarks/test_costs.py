"""What guards and monitors cost: the functions that the benchmark has a clock around are those that a run calls."""

import functools
import importlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import costs

from barlow import pretraining
from barlow.cli import main

PLACES = sorted({*(name for one in costs.COSTS for name in one.functions), *costs.PER_STEP, *costs.PER_CHECKPOINT})


def counted(place: str, calls: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, path = place.partition(":")
    *outer, name = path.split(".")
    home: Any = functools.reduce(getattr, outer, importlib.import_module(module))
    function = getattr(home, name)

    @functools.wraps(function)
    def with_a_count(*arguments: Any, **named: Any) -> Any:
        calls[place] += 1
        return function(*arguments, **named)

    monkeypatch.setattr(home, name, with_a_count)


def test_a_run_calls_every_function_that_has_a_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not called any more costs nothing, and so a guard would look cheap."""
    photos = tiny.images(tmp_path / "photos", 24)
    calls: Counter[str] = Counter()
    for name, value in costs.TERMINAL.items():
        monkeypatch.setenv(name, value)
    watching = pretraining.watching  # whose thread looks every half second then, and not once in a second
    monkeypatch.setattr(pretraining, "watching", lambda world, folder, tell, limit: watching(world, folder, tell, 10.0))
    for place in PLACES:
        counted(place, calls, monkeypatch)
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(["pretrain", str(photos), "--out", str(tmp_path / "run"), *tiny.words(train__steps=30)]))
    assert ended.value.code == 0
    assert [place for place in PLACES if not calls[place]] == []
