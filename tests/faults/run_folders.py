"""What a run folder says, so that two of them can be compared, and what must be true of every one."""

import hashlib
import json
from pathlib import Path
from typing import Any

from barlow import checkpoints, ownership, results, storage
from barlow.runs.run import Run

OF_ONE_START = ("run", "starts", "date", "command", "times_measured")
"""Keys of what differs between two runs that are otherwise the same."""


def meaning(run: Path) -> dict[str, Any]:
    """The content of every file of a run by its name, without ids, clocks and how often it was started.

    Of JSON it is the content; of everything else a digest. A file that is there in one folder and not in the other is a
    difference, and so is a step that was logged twice. Not looked at are metrics.jsonl.bad and monitor.jsonl.bad, where
    half a line goes, as a killed process leaves it.
    """
    return {
        name: _content(path)
        for name, path in ownership.contents(run)
        if path.is_file() and path.suffix != ".bad" and path.name not in (".lock", storage.MANIFEST)
    }


def _content(path: Path) -> Any:
    if path.name == "metrics.jsonl":
        return [(row["step"], row["loss"]) for row in Run(path.parent).metrics()]
    if path.name == "monitor.jsonl":
        clock = ("seconds", "took")
        return [{key: value for key, value in row.items() if key not in clock} for row in Run(path.parent).monitored()]
    if path.name == results.HISTORY:
        # A line for each time that it was asked: a command that is given again asks for its first encoder again.
        rows = [_lasting(row) for row in storage.read_lines(path)]
        return [row for i, row in enumerate(rows) if row not in rows[:i]]
    if path.suffix == ".json":
        return _lasting(json.loads(path.read_bytes()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lasting(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in (*OF_ONE_START, "sha256")}


def wrong_in(run: Path) -> list[str]:
    """What is not as it must be in the folder of a run that no process works in, a line each."""
    wrong = [f"{name} is not a path of a run" for name in ownership.foreign(run)]
    wrong += [f"{name} was left over" for name, path in ownership.contents(run) if ownership.is_unfinished(path.name)]
    for folder in list(checkpoints.folders(run).values())[-1:]:  # whether an older one is, is looked at in need only
        if damage := checkpoints.damage_in(folder):
            wrong.append(f"{folder.name} is damaged: {damage}")
    for log in ("metrics.jsonl", "monitor.jsonl"):
        for bad in storage.bad_lines(run / log):
            wrong.append(f"{log} has a line that is none: {bad[:50]!r}")
    return wrong
