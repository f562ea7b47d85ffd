"""What long runs measure, kept: one JSON object a line in the file that BARLOW_NIGHTLY_LOG names."""

import json
import os
from pathlib import Path

from barlow.machine import environment


def record(**facts: object) -> None:
    """Appends the facts as one line, the first after one on commit, machine and versions.

    Does nothing where BARLOW_NIGHTLY_LOG is not set.
    """
    if path := os.environ.get("BARLOW_NIGHTLY_LOG"):
        lines = [facts] if Path(path).exists() else [{"kind": "environment", **here()}, facts]
        with open(path, "a", encoding="utf-8") as log:
            log.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def here() -> dict[str, object]:
    """What the numbers depend on besides the program."""
    found = environment("cpu")
    return {
        "commit": found["commit"],
        "processor": found["hardware"]["processor"],
        "cores": found["hardware"]["cores"],
        "torch": found["versions"]["torch"],
    }
