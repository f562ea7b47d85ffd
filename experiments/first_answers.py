"""Measures how long `import barlow` and the commands' first answers take, and appends the medians to results.

    python experiments/first_answers.py

Wanted: `import barlow` within 0.1 s beyond Python's own start, `barlow --help` and `barlow list` within 0.3 s, the
`--help` of any verb within 3 s.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import results_line

BARLOW = str(Path(sys.executable).with_name("barlow"))
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "import barlow": [sys.executable, "-c", "import barlow"],
    "barlow --help": [BARLOW, "--help"],
    "barlow list recipes": [BARLOW, "list", "recipes"],
    "barlow list objectives": [BARLOW, "list", "objectives"],
    "barlow list encoders": [BARLOW, "list", "encoders"],
    "barlow list datasets": [BARLOW, "list", "datasets"],
    "barlow pretrain --help": [BARLOW, "pretrain", "--help"],
    "barlow evaluate --help": [BARLOW, "evaluate", "--help"],
}


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-record", action="store_true", help="write no line to results/results.jsonl")
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(arguments.repeats):  # in turn, so that a busy minute falls on all of them
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{value:6.3f} s  {name}")
    if not arguments.no_record:
        measured = {"seconds": medians, "repeats": arguments.repeats}
        results_line.append(results_line.assembled("startup", "experiments/first_answers.py", measured))


if __name__ == "__main__":
    main()
