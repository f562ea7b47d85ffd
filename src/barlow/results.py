"""Where the numbers of an evaluation are kept: a file for each question that was asked, and a line for each time."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from barlow import ownership, storage
from barlow.printable import one_line
from barlow.seals import digest_of, sealed
from barlow.telling import Say, silent

HOME = "evaluation"
"""In a run folder, and in the names of what another folder gets."""

NEWEST, HISTORY = "results.json", "history.jsonl"
FEATURES, OUTCOMES = "features", "outcomes"
"""Folders beside them: what encoders made of the images, and what protocols found in that."""

CAUSES = ("encoder_identity", "preprocessing", "classes")
"""What a report says of where its numbers come from, beside the images and the question."""

LEFT_OVER_SECONDS = 3600.0
"""Unfinished files of a killed evaluation are removed when they are this old: younger ones may be another's."""


def prepare_home(run: Path | None, out: Path | None, say: Say = silent) -> Path:
    """The folder of an evaluation, ready to be written to: known before hours of work, and not after.

    Args:
        run: the run folder, whose `evaluation` it is by default.
        out: another folder that was asked for; needed where there is no run. It may be a link, and what barlow writes
            below it may not.
        say: told of what looks like a leftover of barlow's, and is not.

    Raises:
        CannotCreate: nothing can be written there.
    """
    if out is not None:
        home = out
        ownership.check_real(home, HOME)
    else:
        assert run is not None
        home = run / HOME
        ownership.check_real(run)
    try:
        for part in ("", FEATURES, OUTCOMES):
            folder, place = home / part, f"{HOME}/{part}" if part else HOME
            storage.make_folder(folder)
            ownership.remove_leftovers(folder, place, LEFT_OVER_SECONDS, say)
        storage.check_writable(home)
    except storage.StorageError as error:
        raise storage.CannotCreate(f"{error}. The results can go elsewhere: --out FOLDER") from error
    return home


def keep(home: Path, report: Mapping[str, Any], asked: Mapping[str, Any], say: Say = silent) -> dict[str, Any]:
    """Writes the numbers, and returns them with how often these test images have been looked at for the same question.

    The file's name is a digest of all that the numbers follow from: the encoder, both sets (pixels, labels, classes),
    how their images are prepared, and what was asked. So no result takes the place of one that is about something else.

    Args:
        home: the folder of the evaluation.
        report: the numbers.
        asked: what else the question was, beside the images: the probes, the step.
        say: told of earlier results that are damaged.
    """
    causes = {**{key: report[key] for key in CAUSES}, "images": _of_images(report, "fingerprint", "labels")}
    named = home / f"results-{digest_of({**causes, 'asked': asked})[:8]}.json"
    full = {**report, "asked": dict(asked), "times_measured": _times(home, _looked(report, asked), say) + 1}
    storage.write_sealed(named, full)
    storage.write_sealed(home / NEWEST, full)
    scores = {
        features: {
            f"{probe}.{metric}": score["value"]
            for probe, outcome in probes.items()
            for metric, score in outcome["metrics"].items()
        }
        for features, probes in report["sets"].items()
    }
    line = {
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "file": named.name,
        "encoder": report["encoder"],
        "encoder_sha256": report["encoder_sha256"],
    }
    if bad := storage.bad_lines(home / HISTORY):
        say(f"{home / HISTORY} has damaged lines ({len(bad)}), which those who read it leave out")
    storage.append_line(home / HISTORY, sealed({**line, **asked, "scores": scores}))
    return full


def _of_images(report: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """What a report says of its two sets."""
    return {name: [part[key] for key in keys] for name, part in report["images"].items()}


def _looked(report: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """A digest of what is looked at, and how. Which encoder it is for, and what its classes are called, is left out:
    whoever compares encoders by the same test images, looks at them each time."""
    return digest_of([_of_images(report, "fingerprint"), {key: asked[key] for key in asked if key != "step"}])


def _times(home: Path, looked: str, say: Say) -> int:
    """How often the same was looked at before. A file that was damaged since does not stand in the way."""
    times = 0
    for path in sorted(home.glob("results-*.json")):
        try:
            before = storage.read_sealed(path)
            if _looked(before, before["asked"]) == looked:
                times = max(times, int(before["times_measured"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            say(f"{one_line(error)}: {path.name} is left out of how often this was measured")
    return times
