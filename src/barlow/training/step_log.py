"""A file of lines by step, such as metrics.jsonl: sealed one by one, and rewound where a run is gone on with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from barlow import storage
from barlow.seals import sealed


@dataclass
class StepLog:
    """A log that can fail: a line that cannot be written is told once, and training goes on without it.

    Args:
        path: of the file.
        warn: told what went wrong.
        since: the step from which on the run is about to be made again; later lines go before the next is written.
    """

    path: Path
    warn: Callable[[str], None]
    since: int | None = None
    _failed: bool = field(default=False, init=False)

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds a line, which has its `step`."""
        self._try(lambda: storage.append_line(self.path, sealed(line)))

    def rewind(self) -> None:
        """Forgets the lines of steps that are about to be run again. Where that fails, the next line tries it again."""
        self._try(lambda: None)

    def _try(self, then: Callable[[], None]) -> None:
        try:
            if self.since is not None:
                if bad := rewind(self.path, self.since):
                    lines = "a line that is" if bad == 1 else f"{bad} lines that are"
                    self.warn(f"{self.path} had {lines} damaged or cut short, now in {self.path.name}.bad")
                self.since = None
            then()
        except storage.StorageError as error:  # a log is worth less than a step
            if not self._failed:
                self.warn(f"{error}; training goes on without these lines")
            self._failed = True


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, oldest first. What is damaged, or no line of one, is left out."""
    return [row for row in storage.read_lines(path) if isinstance(row.get("step"), int)]


def rewind(path: Path, step: int) -> int:
    """Forgets the lines of steps after `step`. Lines that are no lines of a log, or were changed since, are set aside
    in a file beside it; returns how many."""
    if bad := storage.bad_lines(path):
        aside = path.with_name(path.name + ".bad")
        before = storage.read_bytes(aside) if aside.exists() else b""
        storage.write_bytes(aside, before + b"".join(line + b"\n" for line in bad))
    if path.exists():
        storage.write_lines(path, [sealed(row) for row in lines(path) if row["step"] <= step])
    return len(bad)
