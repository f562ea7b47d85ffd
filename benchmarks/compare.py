"""An old tree against this one: the rows' own side, in two checkouts, in turn.

    git worktree add ../before d19bfb7
    python benchmarks/compare.py ../before                   # every row that both trees can run, about half an hour
    python benchmarks/compare.py ../before --only step_small views_in_memory

Each tree has a child process for each program of this folder (workers.py), which runs this checkout's program with that
tree's package. Only what is ours is measured, not the references. A row is worse if the new tree surely takes over 5 %
more time, and only that fails. A row that the old tree cannot run is named and left out.
"""

import argparse
import gc
import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import lines
import measure
from clock import Cost
from workers import Questions, Worker, WorkerFailed

PROGRAMS = (
    "views_from_jpeg",
    "views_in_memory",
    "objectives",
    "knn",
    "search",
    "logistic",
    "svm",
    "embedding",
    "startup",
    "checking",
    "step",
)
NEW = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "comparisons.jsonl"


class Tree:
    """A checkout and the child process that runs a program's rows with its package; started when it is first asked.

    Raises:
        WorkerFailed: on any question, if the child cannot do what is asked, or uses another package than the tree's.
    """

    def __init__(self, path: Path, program: str, smoke: bool) -> None:
        self.path = path.resolve()
        self._words = [__file__, "--serve", program, *(["--smoke"] if smoke else [])]
        self._child: Worker | None = None

    def ask(self, **question: Any) -> dict[str, Any]:
        if self._child is None:
            self._child = Worker(self._words, self.path)
            package = Path(self._child.ask(do="package")["package"])
            if not package.is_relative_to(self.path):
                self.end()
                raise WorkerFailed(f"the package of {self.path} was asked for, and {package} is imported")
        return self._child.ask(**question)

    def cost(self, row: str) -> Cost:
        told = self.ask(do="piece", row=row)
        return Cost(told["wall"], told["processor"])

    def end(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None


def serve(program: str, smoke: bool) -> None:
    """The child: the rows of a program, a piece of one at each question."""
    questions = Questions()
    import barlow

    rows: dict[str, measure.AnyRow] = {}
    for question in questions:
        try:
            if question["do"] == "package":
                questions.answer(package=str(Path(barlow.__file__).resolve()))
                continue
            if not rows:
                rows = {row.name: row for row in importlib.import_module(program).rows(smoke)}
            if question["do"] == "list":
                questions.answer(rows=[described(row) for row in rows.values() if has_a_piece(row)])
            elif question["do"] == "piece":
                row = rows[question["row"]]
                assert isinstance(row, measure.Row)
                assert row.ours is not None
                gc.collect()
                cost = row.ours()
                questions.answer(wall=cost.wall, processor=cost.processor)
            elif question["do"] == "close":
                rows[question["row"]].close()
                questions.answer()
        except Exception as error:  # whatever it is, the parent is to know which row of which tree it was
            questions.answer(error=f"{type(error).__name__}: {error}")
    for row in rows.values():
        row.close()


def has_a_piece(row: measure.AnyRow) -> bool:
    return isinstance(row, measure.Row) and row.ours is not None


def described(row: measure.AnyRow) -> dict[str, Any]:
    """What the parent, which imports no package, has to know of a row."""
    assert isinstance(row, measure.Row)
    return {"name": row.name, "what": row.what, "warmups": row.warmups, "work": row.work}


def row_of(told: dict[str, Any], old: Tree, new: Tree) -> measure.Row:
    """A row in which the reference is the old tree's own side."""
    name = told["name"]

    def close() -> None:
        for tree in (old, new):
            tree.ask(do="close", row=name)

    def restart() -> None:
        old.end()
        new.end()

    return measure.Row(
        name=name,
        what=told["what"],
        warmups=told["warmups"],
        work=tuple(told["work"]) if told["work"] else None,
        seconds=60,
        ours=lambda: new.cost(name),
        reference=lambda: old.cost(name),
        reference_name="the old tree",
        at_least=1.0,
        close=close,
        restart=restart,
    )


def compared(programs: Sequence[str], path: Path, only: Sequence[str] | None, smoke: bool, record: bool) -> int:
    """Runs the rows; 1 if one is worse, 2 if none could be compared or a process ended in the middle of one."""
    commit = _commit(path)

    def keep(line: dict[str, Any]) -> None:
        lines.record({"program": "benchmarks/compare.py", "old": commit, **line}, RESULTS, "cpu")

    left_out: list[str] = []
    ended: list[str] = []
    seen: set[str] = set()
    statuses: list[int] = []
    for program in programs:
        old, new = Tree(path, program, smoke), Tree(NEW, program, smoke)
        try:
            for told in new.ask(do="list")["rows"]:
                if only and told["name"] not in only:
                    continue
                seen.add(told["name"])
                try:
                    old.cost(told["name"])
                except WorkerFailed as error:
                    left_out.append(f"{told['name']} ({error})")
                    old.end()
                    continue
                rule = measure.SMOKE if smoke else measure.TREES
                try:
                    statuses.append(measure.run([row_of(told, old, new)], rule, keep if record and not smoke else None))
                except WorkerFailed as error:
                    ended.append(f"{told['name']} ({error})")
                    old.end()
                    new.end()
        finally:
            old.end()
            new.end()
        if only and seen >= set(only):
            break
    if unknown := set(only or ()) - seen:
        print(f"no row {min(unknown)!r}; rows: {', '.join(sorted(seen)) or 'none'}", file=sys.stderr)
        return 2
    if left_out:
        print("the old tree cannot run:", *left_out, sep="\n  ", file=sys.stderr)
    if ended:
        print("a process ended in the middle of:", *ended, sep="\n  ", file=sys.stderr)
        return 2
    return max(statuses, default=2)


def _commit(tree: Path) -> str | None:
    """The commit of a checkout; None of a folder that is not one."""
    words = ["git", "-C", str(tree), "rev-parse", "--show-toplevel", "HEAD"]
    told = subprocess.run(words, check=False, capture_output=True, text=True).stdout.split("\n")
    return told[1] if len(told) > 1 and Path(told[0]) == tree.resolve() else None


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("tree", type=Path, nargs="?", help="the old checkout")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="these rows alone")
    parser.add_argument("--smoke", action="store_true", help="a quick look with generous margins; nothing is recorded")
    parser.add_argument("--no-record", action="store_true", help=f"write no line to {RESULTS.name}")
    parser.add_argument("--serve", metavar="PROGRAM", help=argparse.SUPPRESS)
    chosen = parser.parse_args(words)
    if chosen.serve:
        serve(chosen.serve, chosen.smoke)
        return 0
    if chosen.tree is None or not (chosen.tree / "src" / "barlow").is_dir():
        parser.error(f"{chosen.tree or 'no tree'}: give a checkout, a folder with src/barlow in it")
    return compared(PROGRAMS, chosen.tree, chosen.only, chosen.smoke, not chosen.no_record)


if __name__ == "__main__":
    sys.exit(main())
