"""One bit of what a run stores is flipped: it is noticed, or it means nothing, and no number is silently another.

Flips are spread evenly over the files of a run, and not over its bytes, of which tensors are most. Each is followed by
what reads that file: the run is gone on with, its encoder is loaded or started from, or it is evaluated.
"""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import yaml
from injections import record

from barlow import cli, exits, load_text_encoder, storage
from barlow.data.decoding import UnreadableImage, decode
from barlow.pretraining import pretrain
from barlow.seals import sha256

NOTICED = re.compile(r"damaged|was changed|not what was written|differs from|cannot be read|not valid|not the file")


@dataclass
class Outcome:
    """What became of a run with a flipped bit, by what reads the file."""

    code: int
    said: str
    gave: Any = None
    """What must be the same as from the run as it was, whether the flip was noticed or not."""
    told: Any = None
    """What may be less, if that is said: lines of a log, how often a question was asked."""

    @property
    def noticed(self) -> bool:
        return NOTICED.search(self.said) is not None


@dataclass
class Stored:
    """A run that has everything that a run may store, and what reads it."""

    run: Path
    photos: Path
    labelled: Path
    sound: dict[str, Outcome] = field(default_factory=dict)
    """Of each reader, what it gives of the run as it is."""

    def read(self, reader: str, run: Path) -> Outcome:
        outcome: Outcome = (READERS | OF_CAPTIONS)[reader](self, run)
        return outcome

    def command(self, *words: object) -> Outcome:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = cli.main([str(word) for word in words])
        return Outcome(code, said.getvalue())

    def gone_on_with(self, run: Path) -> Outcome:
        """One more step, which takes recipe, run.json, data.json, the log and the newest checkpoint."""
        outcome = self.command("pretrain", "--resume", "--out", run, "--steps", 5)
        if outcome.code == exits.OK:
            outcome.gave = tiny.weights(run)
            timed = ("seconds", "images_per_second", "data_wait", "sha256")
            rows = storage.read_lines(run / "metrics.jsonl")
            # What is looked at while a run is monitored is a matter of time; what was, is kept.
            seen = [row for row in storage.read_lines(run / "monitor.jsonl") if row["step"] < 4]
            outcome.told = [{key: row[key] for key in row if key not in timed} for row in rows + seen]
        return outcome

    def evaluated(self, run: Path) -> Outcome:
        """Which takes the encoder, the weights that it started from, digests of images, and what protocols found."""
        given = ("--train", self.labelled, "--test", self.labelled, "--protocol", "knn")
        outcome = self.command("evaluate", run, *given)
        if outcome.code == exits.OK:
            report = storage.read_sealed(run / "evaluation" / "results.json")
            outcome.gave = report["sets"], report["encoder_sha256"], report["images"]
            history = storage.read_lines(run / "evaluation" / "history.jsonl")
            scores = [(row["scores"], row["file"], row["encoder_sha256"]) for row in history]
            outcome.told = report["times_measured"], report["warnings"], scores
        return outcome

    def probed(self, run: Path) -> Outcome:
        """The same where no protocol's outcome is kept, so that features are read."""
        shutil.rmtree(run / "evaluation" / "outcomes")
        return self.evaluated(run)

    def started_from(self, run: Path) -> Outcome:
        """Another run, whose first weights are this run's encoder."""
        return self._begun(run, str(run))

    def earlier_step(self, run: Path) -> Outcome:
        """Another run that starts from the checkpoint before the newest."""
        return self._begun(run, f"{run}@2")

    def _begun(self, run: Path, source: str) -> Outcome:
        out = run.with_name(run.name + "-next")
        outcome = self.command("pretrain", self.photos, "--out", out, *tiny.words(train__steps=1), "--init", source)
        if outcome.code == exits.OK:
            outcome.gave = sha256((out / "start" / "model.safetensors").read_bytes())
        shutil.rmtree(out, ignore_errors=True)
        return outcome

    def table(self, run: Path) -> Outcome:
        """The newest results, as whoever collects results reads them."""
        try:
            return Outcome(exits.OK, "", storage.read_sealed(run / "evaluation" / "results.json"))
        except ValueError as error:
            return Outcome(exits.code_of(error), str(error))

    def text(self, run: Path) -> Outcome:
        """The text network that was handed out."""
        return self._embedded(str(run))

    def text_of_a_step(self, run: Path) -> Outcome:
        """That of a checkpoint, which takes the run's own vocabulary."""
        return self._embedded(f"{run}@4")

    def _embedded(self, source: str) -> Outcome:
        try:
            made = load_text_encoder(source).texts(["noise of a blue kind", "something purple and unknown"])
            return Outcome(exits.OK, "", made.numpy().tobytes())
        except (ValueError, RuntimeError) as error:
            return Outcome(exits.code_of(error), str(error))

    def picture(self, run: Path) -> Outcome:
        try:
            return Outcome(exits.OK, "", decode((run / "views.png").read_bytes()).tobytes())
        except UnreadableImage as error:
            return Outcome(exits.DATA, f"damaged: {error.reason}")


READERS: dict[str, Callable[[Stored, Path], Outcome]] = {
    "gone on with": Stored.gone_on_with,
    "evaluated": Stored.evaluated,
    "probed": Stored.probed,
    "started from": Stored.started_from,
    "earlier step": Stored.earlier_step,
    "table": Stored.table,
    "picture": Stored.picture,
}
OF_CAPTIONS: dict[str, Callable[[Stored, Path], Outcome]] = {
    "text": Stored.text,
    "text of a step": Stored.text_of_a_step,
}
"""Of what only a run on images and captions has."""


def readers_of(name: str) -> tuple[str, ...]:
    """What reads a file of a run."""
    if name.startswith("checkpoints/step-000002"):
        return ("earlier step",)
    if name.startswith("encoder/"):
        return "evaluated", "started from"
    if name == "evaluation/results.json":
        return ("table",)
    if name.startswith("evaluation/features/"):
        return ("probed",)
    if name.startswith(("start/", "evaluation/")) or name == "images.json":
        return ("evaluated",)
    if name.startswith("text_encoder/"):
        return ("text",)
    if name == "vocabulary.json":
        return ("text of a step",)
    return ("picture",) if name == "views.png" else ("gone on with",)


def means_the_same(name: str, before: bytes, after: bytes) -> bool:
    """Whether a file with a flipped bit says what it said: a space, a comment, the name of its seal."""
    try:
        if name.endswith(".yaml"):
            return bool(yaml.safe_load(after) == yaml.safe_load(before))
        if name.endswith((".json", ".jsonl")):
            split = (lambda data: [data]) if name.endswith(".json") else (lambda data: data.split(b"\n"))
            rows = [[json.loads(part) for part in split(data) if part.strip()] for data in (before, after)]
            return len(rows[0]) == len(rows[1]) and all(map(_says_as_much, *rows))
        if name.startswith(("evaluation/features/", "evaluation/outcomes/")):
            return bool(_tensors(before) == _tensors(after))
    except Exception:
        return False
    return False


def _says_as_much(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return all(after.get(key) == value for key, value in before.items() if key != "sha256")


def _tensors(data: bytes) -> dict[str, bytes]:
    found = storage.tensors_of(data, Path("features"))
    return {name: value.numpy().tobytes() for name, value in found.items()}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, photos: Path, labelled: Path) -> Stored:
    home = tmp_path_factory.mktemp("flips")
    made = Stored(home / "run", photos, labelled)
    given = tiny.words(train__steps=4, train__checkpoint_steps=2, train__monitor_images=16)
    words = ["pretrain", photos, *given]
    assert made.command(*words, "--out", home / "first").code == exits.OK
    assert made.command(*words, "--out", made.run, "--init", home / "first").code == exits.OK
    for _ in range(2):
        assert made.evaluated(made.run).code == exits.OK
    return with_sound(made, READERS)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """A run on images and captions, of which only what others have not is looked at."""
    home = tmp_path_factory.mktemp("spoken")
    listed = tiny.captioned(home / "data", 40)
    changes = {"method.hidden": 8, "method.embedding": 8, "method.min_count": 1, "train.steps": 4}
    pretrain(listed, home / "run", recipe="small_vse", overrides=tiny.of_recipe("small_vse") | changes, progress=False)
    return with_sound(Stored(home / "run", listed, listed), OF_CAPTIONS)


def with_sound(made: Stored, readers: Iterable[str]) -> Stored:
    for reader in readers:
        made.sound[reader] = made.read(reader, Path(shutil.copytree(made.run, made.run.with_name(f"sound {reader}"))))
        assert (made.sound[reader].code, made.sound[reader].noticed) == (exits.OK, False), made.sound[reader].said
    return made


def files_of(run: Path) -> list[str]:
    names = sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    return [name for name in names if name != ".lock"]


def wrong_with(stored: Stored, run: Path, name: str, before: bytes, after: bytes) -> str | None:
    """What is wrong with how a flipped bit was met; None if it was met as promised."""
    met = [(reader, stored.read(reader, run)) for reader in readers_of(name)]
    for reader, outcome in met:
        sound = stored.sound[reader]
        if outcome.code not in (exits.OK, exits.DATA) or "--debug shows where" in outcome.said:
            return f"{reader}: exit code {outcome.code}, {outcome.said[-300:]}"
        if outcome.code == exits.OK and outcome.gave != sound.gave:
            return f"{reader}: other weights, features or numbers. {outcome.said[-300:]}"
        if outcome.code == exits.OK and outcome.told != sound.told and not outcome.noticed:
            return f"{reader}: silently other lines"
        if outcome.code and len([line for line in outcome.said.splitlines() if line.startswith("barlow: ")]) > 1:
            return f"{reader}: more than one line, {outcome.said[-300:]}"
    if not any(outcome.code or outcome.noticed for _, outcome in met) and not healed(stored, run, name):
        return None if means_the_same(name, before, after) else "not noticed"
    return None


def healed(stored: Stored, run: Path, name: str) -> bool:
    """Whether a file is by now what it is after the same was done to the run as it was: it was written anew."""
    sound = stored.run.with_name(f"sound {readers_of(name)[0]}")
    return (run / name).exists() and (run / name).read_bytes() == (sound / name).read_bytes()


def flips(stored: Stored, count: int, seed: int, tmp_path: Path) -> list[str]:
    """Flips so many bits, one at a time, and returns what was wrong."""
    names, wrong = [name for name in files_of(stored.run) if set(readers_of(name)) <= stored.sound.keys()], []
    for k in range(count):
        name, draws = names[k % len(names)], np.random.default_rng((seed, k))
        run = Path(shutil.copytree(stored.run, tmp_path / f"run{k}"))
        before = (run / name).read_bytes()
        at, bit = int(draws.integers(len(before))), int(draws.integers(8))
        after = before[:at] + bytes([before[at] ^ 1 << bit]) + before[at + 1 :]
        (run / name).write_bytes(after)
        if what := wrong_with(stored, run, name, before, after):
            wrong.append(f"{name}, byte {at}, bit {bit}: {what}")
        shutil.rmtree(run)
    return wrong


def test_a_run_has_everything_that_may_be_stored(stored: Stored) -> None:
    names = " ".join(files_of(stored.run))
    for part in ("checkpoints/step-000002/MANIFEST.json", "checkpoints/step-000004/state.json", "encoder/config.json",
                 "start/model.safetensors", "evaluation/features/", "evaluation/outcomes/", "evaluation/results-",
                 "evaluation/history.jsonl", "recipe.yaml", "run.json", "data.json", "images.json", "metrics.jsonl",
                 "monitor.jsonl", "views.png"):  # fmt: skip
        assert part in names


def test_a_flipped_bit_of_whatever_is_stored_is_noticed_or_means_nothing(stored: Stored, tmp_path: Path) -> None:
    count = 54
    wrong = flips(stored, count, 0, tmp_path)
    record("single bits flipped in what a run stores", count, len(wrong))
    assert not wrong, "\n".join(wrong)


def test_a_flipped_bit_of_what_a_run_on_captions_stores_is_noticed_or_means_nothing(
    spoken: Stored, tmp_path: Path
) -> None:
    looked_at = {name for name in files_of(spoken.run) if set(readers_of(name)) <= OF_CAPTIONS.keys()}
    parts = {f"text_encoder/{name}" for name in ("config.json", "model.safetensors", "vocabulary.json")}
    assert looked_at == parts | {"vocabulary.json"}
    count = 12
    wrong = flips(spoken, count, 0, tmp_path)
    record("single bits flipped in what a run on captions stores", count, len(wrong))
    assert not wrong, "\n".join(wrong)


@pytest.mark.nightly
def test_a_hundred_flipped_bits_of_what_a_run_on_captions_stores_are_noticed_or_mean_nothing(
    spoken: Stored, tmp_path: Path
) -> None:
    count = 100
    wrong = flips(spoken, count, 1, tmp_path)
    record("single bits flipped in what a run on captions stores", count, len(wrong))
    assert not wrong, "\n".join(wrong)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_three_hundred_flipped_bits_are_noticed_or_mean_nothing(stored: Stored, tmp_path: Path) -> None:
    count = 300
    wrong = flips(stored, count, 1, tmp_path)
    record("single bits flipped in what a run stores", count, len(wrong))
    assert not wrong, "\n".join(wrong)
