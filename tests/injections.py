"""What tests that inject faults have seen, kept: a line of JSON each in the file that BARLOW_RELIABILITY_LOG names."""

import json
import os

from nightly_log import here


def record(what: str, injections: int, failures: int) -> None:
    """Appends a line on some faults that were injected, and how many of them did not end as promised.

    Does nothing where BARLOW_RELIABILITY_LOG is not set.
    """
    if path := os.environ.get("BARLOW_RELIABILITY_LOG"):
        line = {"what": what, "injections": injections, "failures": failures, **here()}
        with open(path, "a", encoding="utf-8") as log:
            log.write(json.dumps(line, ensure_ascii=False) + "\n")
