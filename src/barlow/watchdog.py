"""A thread beside a run that notices when nothing goes on any more, says what hangs, keeps what it can, and ends it.

A run hangs where a disk does not answer, where a kernel of a device never returns, or where one of several processes
has been stopped (SIGSTOP) and the others wait for it. Nothing raises an error then, and nothing is printed.

The main thread says what it begins (`Watch.doing`); that costs it less than a microsecond. What is begun has a limit,
or none where nobody can say how long it takes. Several processes write on a board (`World.post`) what each is doing, so
that the one that is waited for is named, and not the one that waits.
"""

import json
import statistics
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from barlow import ending, exits, storage
from barlow.data.counting import Counted
from barlow.distributed import PATIENCE, World
from barlow.telling import Say, silent

FACTOR = 20
"""A step may take so many times as long as the usual one, and in any case `machine.hang_seconds`."""

FIRST_STEP = 12
"""So many times `machine.hang_seconds` may the first step take: nobody knows yet how long a step is, and libraries are
loaded, kernels chosen, and processes connected."""

SAVING_SECONDS = PATIENCE.total_seconds()
"""How long a checkpoint may take: ending a run that writes to a slow disk would lose what it writes, each time."""

LAST_SAVE_SECONDS = 60.0
"""How long saving may take when a run that hangs is ended."""

FILE = "hang.txt"
"""In the run folder: what each thread was doing. Of the process of rank 1 it is `hang-1.txt`, and so on."""

GONE = "gone"
"""What a process writes last on the board: it is through."""

HANGS = "hangs"
"""What a process writes that ends because of a hang. The others end, too, and leave the saying to it.

They mostly learn it from their exchange with it, which breaks. But where one of them was stopped, that exchange may go
on waiting for a process that is gone (with gloo, about once in ten times).
"""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Doing:
    """What the main thread is at."""

    what: str
    limit: float | None
    """Seconds until it is taken to hang; None: nobody can say. Of a step, at least so many."""
    step: int = 0
    """Updates done, in training."""
    in_step: bool = False
    """Whether it is in a step, where it may be waiting for other processes."""
    since: float = field(default_factory=time.monotonic)


@dataclass
class Watch:
    """Looks at a run from beside it. `watching` starts one."""

    world: World
    folder: Path
    tell: Say
    """Receives the line that says what hangs."""
    limit: float
    """Seconds, as `machine.hang_seconds` has them."""
    save: Callable[[], str] | None = None
    """Saves the state as it is between two steps, and says so; None where there is nothing to save."""
    go_on: Callable[[], str] = lambda: "give the same command again"
    """What to do afterwards."""
    now: Doing = field(default_factory=lambda: Doing("beginning", None))
    saving: bool = False
    """Whether a checkpoint is being written."""
    _steps: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    _heard: dict[int, tuple[str, float]] = field(default_factory=dict)
    """What the other processes wrote last, and when it was found."""
    _over: threading.Event = field(default_factory=threading.Event)
    _ended: bool = False
    _deserted: bool = False
    """Whether another process ends because of a hang."""

    # --- what the main thread says ------------------------------------------------------------------------------------

    def doing(self, what: str, limit: float | None = None) -> None:
        """The main thread begins something that may take so many seconds; without a limit it is not judged."""
        self.now = Doing(what, limit)

    @contextmanager
    def during(self, what: str, limit: float | None) -> Iterator[None]:
        """The same for the time of the body; what was done before goes on after it."""
        before = self.now
        self.now = Doing(what, limit, before.step)
        try:
            yield
        finally:
            self.now = Doing(before.what, before.limit, before.step, before.in_step)

    @contextmanager
    def saving_step(self, step: int) -> Iterator[None]:
        """A checkpoint is written in the body."""
        self.saving = True
        try:
            with self.during(f"saving step {step}", SAVING_SECONDS):
                yield
        finally:
            self.saving = False

    def counted(self, shown: Counted) -> Counted:
        """Takes every image that is read for a sign of life, and shows the count as before."""

        def counted(what: str, done: int, total: int | None) -> None:
            self.now = Doing("reading images", None if done == total else self.limit)
            shown(what, done, total)

        return counted

    def steps(
        self, batches: Iterable[Item], start: int, patience: float, unlimited: Callable[[Item], bool]
    ) -> Iterator[Item]:
        """The batches of a training. Waiting for one, and the step that is made of it, are each judged.

        Args:
            batches: of the steps `start`, `start` + 1, …
            start: updates done.
            patience: seconds more than usual that a batch may be waited for: processes that read and do not answer are
                replaced some times first.
            unlimited: whether nobody can say how long the step of a batch takes.
        """
        iterator = iter(batches)
        done, began = start, 0.0
        while True:
            self.now = waits = Doing(f"waiting for the images of step {done + 1}", self.limit + patience, done)
            if began:
                self._steps.append(waits.since - began)
            try:
                batch = next(iterator)
            except StopIteration:
                self.doing("finishing")
                return
            if self._ended:  # the state is being saved as it was before this step
                threading.Event().wait()
            limit = None if unlimited(batch) else self.limit
            self.now = Doing(f"in step {done + 1}", limit, done, in_step=True)
            began = self.now.since
            yield batch
            done += 1

    @property
    def usual(self) -> float:
        """The median of the last steps in seconds; 0 before there is one."""
        return statistics.median(list(self._steps)) if self._steps else 0.0

    def allowed(self, doing: Doing) -> float | None:
        """Seconds that something may take; None where nobody can say."""
        if doing.limit is None or not doing.in_step:
            return doing.limit
        return max(self.limit, FACTOR * self.usual) if self._steps else FIRST_STEP * self.limit

    # --- what the other thread does -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Looks on until the run is through."""
        tick = min(1.0, self.limit / 20)
        asleep = min(10.0, self.limit / 4)
        looked = time.monotonic()
        self._heard = {rank: ("", looked) for rank in range(self.world.size) if rank != self.world.rank}
        posted = 0.0
        while not self._over.wait(tick):
            now = time.monotonic()
            if now - looked > asleep:  # this process itself was stopped, perhaps with the others, and nothing hangs
                self.now = Doing(self.now.what, self.now.limit, self.now.step, self.now.in_step)
                self._heard = {rank: (text, now) for rank, (text, _) in self._heard.items()}
            looked = now
            if self.world.size > 1 and now - posted > 4 * tick:
                posted = now
                self.world.post(json.dumps([now, self.now.what, self.now.step, self.now.in_step]))
                self._listen(now)
                if self._deserted and ending.may_end():
                    if not self._over.wait(ending.SAYING_SECONDS):  # the main thread may know it, and end its own way
                        ending.end(exits.OUR_FAULT, "", silent)
                    return
            # Judged is the moment at which this process was seen to be awake: it may have been stopped since.
            if (found := self.verdict(now)) is not None:
                self._end(found)
                return

    def _listen(self, now: float) -> None:
        """Notes what the others have written since."""
        for rank, text in self.world.posted().items():
            if text in (GONE, HANGS):
                self._heard.pop(rank, None)
                self._deserted = self._deserted or text == HANGS
            elif rank in self._heard and text != self._heard[rank][0]:
                self._heard[rank] = (text, now)

    def verdict(self, now: float) -> str | None:
        """What hangs, if anything does."""
        for rank, (_, heard) in self._heard.items():
            if now - heard > self.limit:
                return (
                    f"process {rank} of {self.world.size} has given no sign of life for {now - heard:.0f} s, while "
                    f"this one was {self.now.what}: it was stopped, or its machine cannot be reached"
                )
        doing = self.now
        allowed = self.allowed(doing)
        if allowed is None or now - doing.since <= allowed:
            return None
        if doing.in_step and any(self._is_elsewhere(text, doing.step) for text, _ in self._heard.values()):
            return None  # it is waited for, and judges itself
        usual = f" (the usual step takes {self.usual:.3g} s)" if self._steps else ""
        who = f"process {self.world.rank} of {self.world.size}" if self.world.size > 1 else "this run"
        return f"{who} has been {doing.what} for {now - doing.since:.0f} s{usual}, which is taken to hang"

    @staticmethod
    def _is_elsewhere(text: str, step: int) -> bool:
        """Whether another process, by what it wrote, is not in this step: it reads or saves, or is still to come."""
        if not text:
            return False
        _, _, at, in_step = json.loads(text)
        return bool(not in_step or at < step)

    def _end(self, found: str) -> None:
        """Keeps what can be kept, says what was found, and ends the process; one that is not ours is only told."""
        self._ended = True
        if ending.may_end():
            self.world.post(HANGS)
        name = FILE if self.world.main else f"hang-{self.world.rank}.txt"
        path = self.folder / name
        text = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {found}\n\n{stacks()}"
        written = ending.in_time(ending.SAYING_SECONDS, lambda: storage.write_text(path, text))
        where = f". What each thread was doing is in {path}" if written else ""
        saved: list[str] = []
        if self.save is not None and not self.now.in_step and ending.may_end():
            save = self.save
            ending.in_time(LAST_SAVE_SECONDS, lambda: saved.append(save()))
        go_on: list[str] = []
        ending.in_time(ending.SAYING_SECONDS, lambda: go_on.append(self.go_on()))
        then = "".join(f". {line}" for line in (*saved, *go_on))
        if self._speaks():
            ending.end(exits.OUR_FAULT, f"{found}{where}{then}", self.tell)
        else:
            time.sleep(ending.SAYING_SECONDS)  # the one that speaks is not to be ended before it has
            ending.end(exits.OUR_FAULT, "", silent)
        self._ended = False

    def _speaks(self) -> bool:
        """Whether this process says what was found: all that wait find the same, and the first of them says it."""
        now = time.monotonic()
        alive = [rank for rank, (_, heard) in self._heard.items() if now - heard <= self.limit]
        return not self.now.in_step or self.world.rank < min(alive, default=self.world.size)


@contextmanager
def watching(world: World, folder: Path, tell: Say, limit: float) -> Iterator[Watch]:
    """A watch over what is done in the body.

    Args:
        world: the processes that train together.
        folder: of the run.
        tell: receives the line that says what hangs.
        limit: seconds without a step, as `machine.hang_seconds` has them.
    """
    watch = Watch(world, folder, tell, limit)
    thread = threading.Thread(target=watch.run, name="barlow watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch._over.set()
    thread.join(1.0)
    world.post(GONE)


def stacks() -> str:
    """What each thread of this process is at, the main thread first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sorted(sys._current_frames().items(), key=lambda item: item[0] != threading.main_thread().ident)
    return "\n".join(f"{names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}" for ident, frame in frames)
