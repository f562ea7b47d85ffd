"""Remarks of decoders are kept from the screen, and shown if the process dies while it decodes."""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from damaged import encode, photograph

from barlow.data import last_words


def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *words], capture_output=True, text=True, check=False, env=paths
    )


def test_remarks_are_not_seen_and_what_we_say_is() -> None:
    done = run("""
        import os, sys
        from barlow.data.last_words import kept_from_the_screen
        with kept_from_the_screen():
            os.write(2, b"remark of a library\\n" * 20_000)
            print("from us", file=sys.stderr)
        os.write(2, b"afterwards\\n")
        print("from us again", file=sys.stderr)
    """)
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["from us", "afterwards", "from us again"]


@pytest.mark.parametrize("end", ["os.abort()", "os.kill(os.getpid(), 9)", "os._exit(3)"])
def test_a_process_that_dies_leaves_the_last_remarks_and_the_images(end: str, tmp_path: Path) -> None:
    (tmp_path / "guilty\n.png").write_bytes(encode(photograph(0), "PNG"))
    done = run(
        f"""
        import os, sys
        from barlow.data.folder import FolderSource
        from barlow.data.last_words import kept_from_the_screen
        source = FolderSource([sys.argv[1]])
        with kept_from_the_screen():
            source.read(0)
            for number in range(9_999):
                os.write(2, b"remark %d\\x1b[2J\\n" % number)
            {end}
        """,
        str(tmp_path),
    )
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "Fatal Python error" not in line]
    assert lines[0] == "barlow: the process was killed, or died, while it read images"
    assert lines[1] == f"it was at these: {tmp_path}/guilty\\n.png"
    assert lines[-1] == "last words of the decoders: remark 9998\\x1b[2J"
    assert len(lines) <= 5


def test_an_error_of_ours_is_no_death() -> None:
    done = run("""
        from barlow.data.last_words import kept_from_the_screen
        with kept_from_the_screen():
            raise SystemExit("stopped")
    """)
    assert done.stderr.splitlines() == ["stopped"]


@pytest.mark.skipif(os.name != "posix", reason="a second process that is told of images")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_request_to_stop_that_comes_at_any_line_is_no_death(capfd: pytest.CaptureFixture[str]) -> None:
    """A signal's handler raises between any two lines: here at the first of them, the second, and so on to the last."""

    class Asked(KeyboardInterrupt):
        pass

    def interrupted_at(line: int) -> bool:
        left = line

        def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
            nonlocal left
            if frame.f_code.co_filename != last_words.__file__:
                return None
            left -= event == "line"
            if left == 0:
                left = -1
                raise Asked
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with last_words.kept_from_the_screen():
                os.write(2, b"remark")
        except Asked:
            return True
        finally:
            sys.settrace(before)
        return left < 0

    stderr, lines = sys.stderr, 0
    while interrupted_at(lines + 1):
        lines += 1
        assert sys.stderr is stderr
        os.write(2, b"afterwards %d\n" % lines)
    time.sleep(0.2)  # for a second process that would speak
    assert lines > 30
    assert capfd.readouterr().err.splitlines() == [f"afterwards {line}" for line in range(1, lines + 1)]


def test_without_a_second_process_remarks_are_still_not_seen(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(last_words.subprocess, "Popen", refused)
    with last_words.kept_from_the_screen():
        os.write(2, b"remark")
    os.write(2, b"afterwards")
    assert capfd.readouterr().err == "afterwards"


@pytest.mark.skipif(os.name != "posix", reason="closing a descriptor before a program starts is POSIX's")
def test_a_closed_screen_is_no_file_of_ours(tmp_path: Path) -> None:
    program = """
        import os, sys
        from barlow.data.last_words import kept_from_the_screen
        with kept_from_the_screen():
            os.write(2, b"remark")
        with open(sys.argv[1], "wb") as file:
            os.write(2, b"remark")
            file.write(b"ours")
    """
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    words = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "file")]
    assert subprocess.run(words, check=False, env=paths, preexec_fn=lambda: os.close(2)).returncode == 0
    assert (tmp_path / "file").read_bytes() == b"ours"
