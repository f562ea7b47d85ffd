"""How many faults a test has injected, and after how many of them something was wrong, kept where that is asked for."""

import json
import os

import nightly_log


def record(what: str, injections: int, failures: int) -> None:
    """Appends a line of JSON to the file that BARLOW_RELIABILITY_LOG names; does nothing where that is not set.

    `make nightly` has the counts in its own log, too.

    Args:
        what: the kind of fault, and where it was injected.
        injections: how many there were.
        failures: after how many of them the promise was not kept. Record them before they are asserted to be none.
    """
    nightly_log.record(kind="faults", what=what, injections=injections, failures=failures)
    if path := os.environ.get("BARLOW_RELIABILITY_LOG"):
        line = {"what": what, "injections": injections, "failures": failures, **nightly_log.here()}
        with open(path, "a", encoding="utf-8") as log:
            log.write(json.dumps(line, ensure_ascii=False) + "\n")
