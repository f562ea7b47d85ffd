"""What long runs measure, kept: one JSON object a line in the file that BARLOW_NIGHTLY_LOG names."""

import json
import os


def record(**facts: object) -> None:
    """Appends the facts as one line; does nothing where BARLOW_NIGHTLY_LOG is not set."""
    if path := os.environ.get("BARLOW_NIGHTLY_LOG"):
        with open(path, "a", encoding="utf-8") as log:
            log.write(json.dumps(facts, ensure_ascii=False) + "\n")
