"""A pytest plugin for a copy with a fault in it: is it the copy that is tested, and which tests say what they should?

Loaded from the copy, with the copy as working directory; leaves `outcomes.json` there: how each test ended, by node id.
"""

import json
from collections.abc import Generator
from pathlib import Path

import pytest
from torch.autograd.gradcheck import GradcheckError

import barlow

COPY = Path.cwd()
if not Path(barlow.__file__).is_relative_to(COPY):
    raise pytest.UsageError(f"the package under test is {barlow.__file__}, not the one in {COPY}")

CHECKS = (AssertionError, GradcheckError, pytest.fail.Exception)
"""What a test raises that has compared and found a difference; anything else is a crash."""
outcomes: dict[str, str] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo is None:
        outcomes.setdefault(item.nodeid, report.outcome)
        return report
    # A process that a test has started may have crashed: what it said is then in the test's own message.
    compared = call.when == "call" and isinstance(call.excinfo.value, CHECKS) and "Traceback" not in str(call.excinfo)
    outcomes[item.nodeid] = "failed" if compared else f"crashed in {call.when}: {call.excinfo.exconly()[-2000:]}"
    return report


def pytest_sessionfinish() -> None:
    (COPY / "outcomes.json").write_text(json.dumps(outcomes), encoding="utf-8")
