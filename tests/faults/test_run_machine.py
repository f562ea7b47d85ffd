"""A run folder in the hands of everybody: whatever happens to it in whatever order, nothing that is whole gets lost.

Hypothesis draws the order. Between any two things that happen, the folder is compared with an undisturbed run: a
checkpoint of step k that is whole has that run's tensors, and a command that ends with 0 leaves its encoder. Everything
else that a command says is one line and a documented exit code, and it has changed nothing.
"""

import hashlib
import itertools
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import HealthCheck, Phase, assume, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from injections import record
from run_folders import wrong_in
from warm import Ended, Warm

from barlow import checkpoints, exits, ownership, storage
from barlow.pretraining import pretrain
from barlow.runs.run import Run

FIRST, LONGEST = 2, 6
"""Steps of the run when it begins, and after all extensions."""

POINTS = st.integers(1, 25) | st.integers(1, 90)
"""A change of the disk. A command that begins a run makes some sixty, one that finds it finished some twenty."""

REFUSED = (exits.USAGE, exits.DATA, exits.NO_INPUT, exits.CANNOT_CREATE)
NIGHTLY_SECONDS = 600


class Undisturbed:
    """A run that nothing happens to: the tensors of each of its steps, and the encoder of each of its lengths."""

    def __init__(self, photos: Path, home: Path) -> None:
        self.photos, self.tensors, self.encoders = photos, dict[int, str](), dict[int, str]()
        self.other = home / "other"
        shutil.copytree(photos, self.other)
        sorted(self.other.iterdir())[0].unlink()
        for steps in range(FIRST, LONGEST + 1):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(checkpoints, "KEPT", LONGEST + 1)
                begins = tiny.SMALL | {"train.checkpoint_steps": 1} if steps == FIRST else {}
                changes = begins | {"train.steps": steps}
                pretrain(photos, home / "run", resume=True, overrides=changes, progress=False)
            self.encoders[steps] = tiny.weights(home / "run")
        for step, folder in checkpoints.folders(home / "run").items():
            self.tensors[step] = _digest(folder / checkpoints.TENSORS)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def machine(undisturbed: Undisturbed, warm: Warm, home: Path) -> type[RuleBasedStateMachine]:
    """The machine of a place: hypothesis makes one of it for every example."""
    examples = itertools.count()

    class RunFolder(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.run = home / str(next(examples)) / "run"
            self.run.parent.mkdir()
            self.steps = FIRST
            self.gaps = False  # whether lines of the log may be missing, for want of space
            self.overwriting = False  # whether an overwriting was killed, so that the older run is half gone
            self.whole = set[int]()

        def teardown(self) -> None:
            shutil.rmtree(self.run.parent)

        # --- What happens ---

        def words(self, *more: object, **overrides: Any) -> list[object]:
            words = tiny.words(**{"train__steps": self.steps, "train__checkpoint_steps": 1} | overrides)
            return ["pretrain", undisturbed.photos, "--out", self.run, *(more or ["--resume"]), *words]

        def fault(self, how: str, at: int, lasting: int | None = None) -> dict[str, Any]:
            return {"home": str(self.run), "how": how, "at": at, "lasting": lasting}

        def give(self, words: list[object], **options: Any) -> Ended:
            ended = warm.run(words, **options)
            note(f"{ended.codes} {ended.told}")
            assert "Traceback" not in ended.output, ended.output
            assert all(len(line) < 700 for line in ended.told), ended.told
            assert len(ended.told) <= len(ended.codes), ended.output
            return ended

        def through(self, ended: Ended) -> None:
            """The command is through: everything is there, and as it must be."""
            assert ended.code == exits.OK, ended.output
            assert tiny.weights(self.run) == undisturbed.encoders[self.steps]
            assert wrong_in(self.run) == []
            assert max(self.there()) == self.steps
            assert len(checkpoints.folders(self.run)) <= checkpoints.KEPT
            logged = [row["step"] for row in Run(self.run).metrics()]
            assert logged == sorted(set(logged))
            assert self.gaps or logged == list(range(1, self.steps + 1))
            self.overwriting = False

        def refuses(self, ended: Ended, before: dict[str, Any], *codes: int) -> None:
            assert ended.code in (codes or REFUSED), ended.output
            assert len(ended.told) == 1, ended.output
            assert self.files() == before

        def files(self) -> dict[str, Any]:
            """What is there, damaged or not; a checkpoint that is set aside is there under its own name."""
            return {
                path.relative_to(self.run).as_posix().replace(".bad/", "/"): _digest(path)
                for path in self.run.rglob("*")
                if path.is_file() and path.name != ".lock" and not any(map(ownership.is_unfinished, path.parts))
            }

        def there(self) -> set[int]:
            """The steps whose checkpoints are whole."""
            return {k for k, path in checkpoints.folders(self.run).items() if checkpoints.damage_in(path) is None}

        def begun(self) -> bool:
            return Run(self.run).exists()

        @precondition(lambda self: not self.overwriting)
        @rule()
        def a_command_is_given(self) -> None:
            self.through(self.give(self.words()))

        @precondition(lambda self: not self.overwriting)
        @rule(at=POINTS)
        def it_is_killed(self, at: int) -> None:
            ended = self.give(self.words(), fault=self.fault("die", at))
            assert ended.killed or ended.code == exits.OK, ended.output

        @precondition(lambda self: not self.overwriting)
        @rule(at=POINTS)
        def it_is_asked_to_stop(self, at: int) -> None:
            ended = self.give(self.words(), fault=self.fault("stop", at))
            assert ended.code in (exits.STOPPED, exits.OK), ended.output

        @precondition(lambda self: not self.overwriting)
        @rule(at=POINTS, lasting=st.sampled_from([None, 1, 3, 20]))
        def the_disk_is_full(self, at: int, lasting: int | None) -> None:
            self.gaps = True
            ended = self.give(self.words(), fault=self.fault("full", at, lasting))
            assert ended.code in (exits.OK, exits.IO, exits.CANNOT_CREATE), ended.output
            assert ended.code == exits.OK or "disk is full" in ended.told[0]

        @precondition(lambda self: self.steps < LONGEST and self.begun() and not self.overwriting)
        @rule(by=st.integers(1, 2), at=st.none() | POINTS)
        def it_is_made_longer(self, by: int, at: int | None) -> None:
            self.steps = min(LONGEST, self.steps + by)
            ended = self.give(self.words(), fault=None if at is None else self.fault("die", at))
            if not ended.killed:
                self.through(ended)

        @rule(at=st.none() | POINTS)
        def it_is_overwritten(self, at: int | None) -> None:
            self.whole, self.gaps, self.steps = set(), False, FIRST
            words = self.words("--overwrite")
            ended = self.give(words, fault=None if at is None else self.fault("die", at))
            if ended.killed:
                self.overwriting = True
                self.whole = set()
            else:
                self.through(ended)

        @precondition(lambda self: self.overwriting)
        @rule()
        def a_killed_overwriting_is_gone_on_with(self) -> None:
            """By the command with --resume: it goes on, or says that --overwrite has to end what it began."""
            before = self.files()
            ended = self.give(self.words())
            if ended.code == exits.OK:  # the older run, if nothing of it was removed yet, or a new one
                self.steps = Run(self.run).metrics()[-1]["step"]
                self.through(ended)
            else:
                self.refuses(ended, before)
                assert "--overwrite" in ended.told[0]

        @precondition(lambda self: self.run.exists() and not self.overwriting)
        @rule()
        def somebody_else_is_at_it(self) -> None:
            before = self.files()
            with Run(self.run).locked():
                ended = self.give(self.words())
            self.refuses(ended, before, exits.CANNOT_CREATE)

        @precondition(lambda self: not self.overwriting)
        @rule()
        def it_is_given_twice_at_once(self) -> None:
            ended = self.give(self.words(), rivals=2)
            assert exits.OK in ended.codes, ended.output
            assert set(ended.codes) <= {exits.OK, exits.CANNOT_CREATE}, ended.output
            self.through(Ended([exits.OK], ended.output))

        @precondition(lambda self: self.begun() and not self.overwriting)
        @rule()
        def the_images_are_others(self) -> None:
            before = self.files()
            words = self.words()
            words[1] = undisturbed.other
            self.refuses(self.give(words), before, exits.DATA)

        @precondition(lambda self: self.begun() and not self.overwriting)
        @rule(changes=st.sampled_from([{"seed": 1}, {"optim.lr_per_256": 0.5}, {"train.batch_size": 8}]))
        def the_recipe_is_another(self, changes: dict[str, Any]) -> None:
            before = self.files()
            self.refuses(self.give(self.words(**changes)), before, exits.USAGE)

        @precondition(lambda self: len(self.there()) > 1 and not self.overwriting)
        @rule(name=st.sampled_from([checkpoints.TENSORS, checkpoints.STATE, storage.MANIFEST]), how=st.integers(0, 3))
        def the_newest_checkpoint_is_damaged(self, name: str, how: int) -> None:
            newest = checkpoints.folders(self.run)[max(self.there())]
            damage(newest / name, how, 0.5)
            self.whole = self.there()

        @precondition(lambda self: self.begun() and not self.overwriting)
        @rule(which=st.integers(0, 30), how=st.integers(0, 3), where=st.floats(0, 0.999))
        def a_file_is_damaged(self, which: int, how: int, where: float) -> None:
            """Any file. Where the command does not go on, it has changed nothing, and goes on once it is put back."""
            paths = sorted(path for path in self.run.rglob("*") if path.is_file() and path.name != ".lock")
            path = paths[which % len(paths)]
            assume(path.stat().st_size)
            note(f"{path.relative_to(self.run)} is damaged")
            aside = shutil.copytree(self.run, self.run.with_name("aside"))
            damage(path, how, where)
            before = self.files()
            ended = self.give(self.words())
            if ended.code == exits.OK:
                self.gaps = self.gaps or path.name == "metrics.jsonl"
                self.through(ended)
                if path.name == "images.json":  # is for evaluations, and no run reads it
                    shutil.copyfile(aside / path.name, path)
                shutil.rmtree(aside)
            else:
                self.refuses(ended, before)
                shutil.rmtree(self.run)
                aside.rename(self.run)
            self.whole = self.there()

        # --- What is always true ---

        @invariant()
        def no_whole_checkpoint_is_lost_but_by_rotation(self) -> None:
            there = self.there()
            lost = self.whole - there
            newest = sorted(there)[-checkpoints.KEPT :]
            assert all(len(newest) == checkpoints.KEPT and step < newest[0] for step in lost), (self.whole, there)
            self.whole = there if self.begun() else set()  # before that, step 0 is nothing to lose

        @invariant()
        def a_checkpoint_is_that_of_the_undisturbed_run(self) -> None:
            for step in self.there():
                tensors = checkpoints.folders(self.run)[step] / checkpoints.TENSORS
                assert _digest(tensors) == undisturbed.tensors[step]

        @invariant()
        def a_reader_sees_whole_files(self) -> None:
            if self.overwriting:
                return
            for name in ("run.json", "data.json", "images.json"):
                if (self.run / name).exists():
                    storage.read_sealed(self.run / name)

    return RunFolder


def damage(path: Path, how: int, where: float) -> None:
    """Flips a bit, cuts a file short, empties or removes it."""
    content = bytearray(path.read_bytes())
    at = int(where * len(content))
    if how == 0:
        content[at] ^= 1 << (at % 8)
    path.write_bytes([bytes(content), content[:at], b"", b""][how])
    if how == 3:
        path.unlink()


@pytest.fixture(scope="module")
def undisturbed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(photos, tmp_path_factory.mktemp("undisturbed"))


PLAIN: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "print_blob": False,
    "suppress_health_check": list(HealthCheck),
    "stateful_step_count": 8,
    "phases": [Phase.generate],
}
"""To shrink an example takes hundreds of commands; with eight steps at the most it can be read as it is."""


def counted(made: type[RuleBasedStateMachine], happened: Callable[[], None]) -> type[RuleBasedStateMachine]:
    """The same machine; says each time that something has happened to a folder."""

    class Counted(made):  # type: ignore[misc, valid-type]
        def give(self, *given: Any, **more: Any) -> Ended:
            happened()
            return super().give(*given, **more)

    return Counted


@pytest.mark.timeout(900)  # half a minute on a machine that does nothing else
def test_nothing_that_happens_to_a_run_folder_loses_anything(
    undisturbed: Undisturbed, warm: Warm, tmp_path: Path
) -> None:
    made = machine(undisturbed, warm, tmp_path)
    run_state_machine_as_test(made, settings=settings(max_examples=6, derandomize=True, **PLAIN))


@pytest.mark.nightly
@pytest.mark.timeout(2 * NIGHTLY_SECONDS)
def test_ten_minutes_of_what_happens_to_a_run_folder_lose_nothing(
    undisturbed: Undisturbed, warm: Warm, tmp_path: Path
) -> None:
    given = itertools.count()
    made = counted(machine(undisturbed, warm, tmp_path), lambda: next(given))
    ends, number = time.monotonic() + NIGHTLY_SECONDS, int(time.time())
    try:
        while time.monotonic() < ends:
            run_state_machine_as_test(seed(number)(made), settings=settings(max_examples=10, **PLAIN))
            number += 1
    except BaseException as error:
        error.add_note(f"seed {number}")
        record("commands in a state machine over a run folder", next(given), 1)
        raise
    record("commands in a state machine over a run folder", next(given), 0)
