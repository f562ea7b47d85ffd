"""A script that is imported again by each of its worker processes, as on macOS and Windows, and from Python 3.14 on.

There, processes are not copies of the one that starts them. Each imports the script anew, and whatever stands in it
without a guard is done again: a `barlow.pretrain(...)` would start another training in every process that reads images.
"""

import ast
import multiprocessing
import sys
from types import FrameType

from barlow import exits

ADVICE = "put what it does under `if __name__ == '__main__':`, with barlow.pretrain(...) indented below it"


class Unguarded(RuntimeError):
    """The script has no main guard; the message shows it."""

    exit_code = exits.USAGE


def stop_if_imported_again() -> None:
    """Ends a worker process that has imported the script of its parent, and with it has come to train once more.

    Raises:
        SystemExit: this is such a process. It prints its one line, and nothing else has been read or written.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(f"barlow: a process that reads images has run the whole script again: {ADVICE}")


def check_main_guard(executor: str, workers: int | str) -> None:
    """Refuses to start worker processes from a script that would start a training in each of them.

    Args:
        executor: a recipe's `data.executor`. No processes read what is held in memory; `auto` may come to need some.
        workers: its `data.workers`, which may be `auto`, too.

    Raises:
        Unguarded: the call that has led here stands in the script itself, outside of a guard.
    """
    if executor == "in_memory" or workers == 0:
        return
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    frame = _of_the_script()
    if method == "fork" or frame is None or _is_guarded(frame):
        return
    raise Unguarded(
        f"{frame.f_code.co_filename}, line {frame.f_lineno}: the processes that read images import this script again "
        f"(start method {method}), and each would train too: {ADVICE}, or give "
        "data.executor in_memory"
    )


def _of_the_script() -> FrameType | None:
    """The frame of the script's own lines; None where nothing is imported again, as in a notebook or of `python -c`."""
    main = sys.modules.get("__main__")
    if getattr(main, "__file__", None) is None:
        return None
    frame: FrameType | None = sys._getframe()
    while frame is not None and not (frame.f_code.co_name == "<module>" and frame.f_globals is vars(main)):
        frame = frame.f_back
    return frame


def _is_guarded(frame: FrameType) -> bool:
    """Whether the line that a script is at stands in an `if` that asks for `__name__`. What cannot be read is taken to
    be."""
    try:
        with open(frame.f_code.co_filename, encoding="utf-8") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return True
    guards = (node for node in ast.walk(tree) if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test))
    return any(node.lineno <= frame.f_lineno <= (node.end_lineno or node.lineno) for node in guards)
