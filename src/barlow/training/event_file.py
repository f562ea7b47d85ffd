"""The log for TensorBoard: what `metrics.jsonl` has as numbers, in a file that TensorBoard reads.

It is a second form of the log, for those who watch all their runs in one place, and nothing of barlow reads it.
"""

import importlib.util
import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from barlow import storage
from barlow.training.watchers import MetricsLog, Moment

FOLDER = "tensorboard"
"""In a run's folder; `tensorboard --logdir RUNS` finds it."""

LEFT_OUT = ("step", "total", "healthy", "seconds")
"""Keys of a line that are no curves."""


def check_installed(wanted: bool) -> None:
    """What is asked for can be written.

    Raises:
        ValueError: the package is missing.
    """
    if wanted and importlib.util.find_spec("tensorboard") is None:
        raise ValueError("train.tensorboard needs the package tensorboard: pip install barlow[tensorboard]")


@dataclass
class EventFile:
    """Writes each line of the log as events. A line that cannot be written is told once, and training goes on.

    Every start of a run has a file of its own, which begins by saying from which step it counts: TensorBoard then
    forgets what an earlier file has of later steps, as the log does.

    Args:
        log: whose lines are written.
        run: the run's folder.
        since: the step that the start goes on from.
        warn: told what went wrong.
    """

    log: MetricsLog
    run: Path
    since: int
    warn: Callable[[str], None]
    _path: Path = field(init=False)
    _failed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._path = self.run / FOLDER / f"events.out.tfevents.{int(time.time()):010d}.barlow.{self.since}"

    def __call__(self, moment: Moment) -> None:
        line = self.log.latest
        if line.get("step") != moment.step:
            return
        try:
            if not self._path.exists():
                storage.make_folder(self._path.parent)
                storage.append_bytes(self._path, _beginning(self.since))
            storage.append_bytes(self._path, _record(step=moment.step, scalars=dict(_numbers(line))))
        except storage.StorageError as error:  # a log is worth less than a step
            if not self._failed:
                self.warn(f"{error}; training goes on without these events")
            self._failed = True


def _numbers(line: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a line, by their keys from the top, as in `terms/invariance`."""
    for key, value in line.items():
        if isinstance(value, Mapping) and key not in LEFT_OUT:
            yield from _numbers(value, f"{above}{key}/")
        elif isinstance(value, int | float) and key not in LEFT_OUT:
            yield f"{above}{key}", float(value)


def _beginning(since: int) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    started = Event(wall_time=time.time(), step=since + 1, session_log=SessionLog(status=SessionLog.START))
    return _framed(Event(wall_time=time.time(), file_version="brain.Event:2")) + _framed(started)


def _record(step: int, scalars: Mapping[str, float]) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
    return _framed(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))


def _framed(event: Any) -> bytes:
    """An event with its length and checksums, as files have it."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    framed = io.BytesIO()
    RecordWriter(framed).write(event.SerializeToString())
    return framed.getvalue()
