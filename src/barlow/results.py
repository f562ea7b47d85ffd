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
LEFT_OVER_SECONDS = 3600.0
"""Unfinished files of a killed evaluation are removed when they are this old: younger ones may be another's."""


def prepare_home(run: Path, out: Path | None, say: Say = silent) -> Path:
    """The folder of an evaluation, ready to be written to: known before hours of work, and not after.

    Args:
        run: the run folder, whose `evaluation` it is by default.
        out: another folder that was asked for. It may be a link, and what barlow writes below it may not.
        say: told of what looks like a leftover of barlow's, and is not.

    Raises:
        CannotCreate: nothing can be written there.
    """
    home = out or run / HOME
    if out is None:
        ownership.check_real(run)
    else:
        ownership.check_real(home, HOME)
    try:
        for folder, place in ((home, HOME), (home / "features", f"{HOME}/features")):
            storage.make_folder(folder)
            ownership.remove_leftovers(folder, place, LEFT_OVER_SECONDS, say)
        storage.check_writable(home)
    except storage.StorageError as error:
        raise storage.CannotCreate(f"{error}. The results can go elsewhere: --out FOLDER") from error
    return home


def keep(home: Path, report: Mapping[str, Any], asked: Mapping[str, Any], say: Say = silent) -> dict[str, Any]:
    """Writes the numbers, and returns them with how often these test images have been looked at for the same question.

    Args:
        home: the folder of the evaluation.
        report: the numbers.
        asked: what else the question was, beside the images: the probes, the step.
        say: told of earlier results that are damaged.
    """
    images = {name: part["fingerprint"] for name, part in report["images"].items()}
    named = home / f"results-{digest_of({'images': images, **asked})[:8]}.json"
    full = {**report, "asked": dict(asked), "times_measured": _times(named, say) + 1}
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
    line = {"date": time.strftime("%Y-%m-%d %H:%M:%S"), "file": named.name, "encoder_sha256": report["encoder_sha256"]}
    if bad := storage.bad_lines(home / HISTORY):
        say(f"{home / HISTORY} has damaged lines ({len(bad)}), which those who read it leave out")
    storage.append_line(home / HISTORY, sealed({**line, **asked, "scores": scores}))
    return full


def _times(path: Path, say: Say) -> int:
    """How often a question was asked before; a file that was damaged since does not stand in the way of a new one."""
    try:
        return int(storage.read_sealed(path)["times_measured"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"{one_line(error)}: it is written anew, and how often this was measured is counted from one again")
        return 0
