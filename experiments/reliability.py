"""Injects faults, keeps what became of them, and writes the table of docs/reliability.md (`--check` compares).

    python experiments/reliability.py run         # an hour or so: every test below, and the table
    python experiments/reliability.py repeat 20   # two hours: those that every change must pass, again and again
    python experiments/reliability.py             # the table alone, from results/reliability.jsonl

A test that injects faults calls `record` of tests/injections.py, and its file or folder is named in TESTS.

A fault test that fails once in twenty times is worth nothing, and nobody believes it when it fails for a reason. So
`repeat` runs them in two processes, as `make test` does, and counts the rounds in which one failed. The rounds need not
be made in one sitting: those at one commit are added up.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from generated import ROOT, markdown, put_between, write_or_check

sys.path.insert(0, str(ROOT / "tests"))
from nightly_log import here

LOG, PAGE = ROOT / "results" / "reliability.jsonl", ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- injections -->", "<!-- end -->"

TESTS = (
    "tests/faults",
    "tests/data/test_hostile.py",
    "tests/data/test_reading_processes.py",
    "tests/equivalence/test_resume.py",
)
"""Nightly ones among them are run, too, but for `repeat`."""
REPEATED = "rounds of all the tests that every change must pass (a fault: one that fails)"

Line = Mapping[str, Any]


def run(log: Path, tests: Sequence[str] = TESTS) -> int:
    """Runs the tests, each of which appends a line; the exit status is pytest's."""
    words = [sys.executable, "-m", "pytest", "-n", "0", "-m", "not learning", *tests]
    environment = os.environ | {"BARLOW_RELIABILITY_LOG": str(log)}
    return subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode


def repeat(log: Path, times: int) -> int:
    """Rounds of the tests that every change must pass, each of which appends a line; how many of them failed."""
    words = [sys.executable, "-m", "pytest", "-n", "2", *TESTS]
    failed = 0
    for number in range(1, times + 1):
        began = time.monotonic()
        code = subprocess.run(words, cwd=ROOT, check=False).returncode
        minutes = (time.monotonic() - began) / 60
        print(f"round {number} of {times}: {'failed' if code else 'passed'} in {minutes:.1f} minutes", flush=True)
        failed += code != 0
        line = {"what": REPEATED, "injections": 1, "failures": int(code != 0), "minutes": round(minutes, 2), **here()}
        with open(log, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
    return failed


def newest(lines: Sequence[Line]) -> list[Line]:
    """One line for each kind of fault: the sums over the commit at which it was injected last."""
    last = {line["what"]: line for line in lines}
    sums: list[Line] = []
    for what, line in last.items():
        same = [one for one in lines if (one["what"], one["commit"]) == (what, line["commit"])]
        sums.append({**line, **{name: sum(one[name] for one in same) for name in ("injections", "failures")}})
    return sums


def table(lines: Sequence[Line]) -> str:
    rows = [
        (
            line["what"],
            f"{line['injections']:,}",
            f"{line['failures']:,}",
            f"{str(line['commit'])[:7]}, {line['cores']} cores of {line['processor']}, torch {line['torch']}",
        )
        for line in newest(lines)
    ]
    return markdown(("what", "injections", "not as promised", "at"), rows)


def page_with(text: str, lines: Sequence[Line]) -> str:
    return put_between(text, BEGIN, END, table(lines))


def main() -> int:
    code = 0
    if sys.argv[1:2] == ["run"]:
        code = run(LOG)
        del sys.argv[1]
    elif sys.argv[1:2] == ["repeat"]:
        code = repeat(LOG, int(sys.argv[2]))
        del sys.argv[1:3]
    return write_or_check(__doc__, PAGE, [LOG], page_with) or code


if __name__ == "__main__":
    sys.exit(main())
