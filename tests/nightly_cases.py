"""Cases of a test that only `make nightly` runs."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def nightly_but(cases: Iterable[Any], ordinary: Callable[[Any], bool]) -> list[Any]:
    """All cases for `pytest.mark.parametrize`; those that are not ordinary are marked nightly.

    Args:
        cases: a value each, or a tuple of values.
        ordinary: whether `make test` runs a case. It should be few, each standing for a kind.
    """
    marked = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marked.append(pytest.param(*values, marks=() if ordinary(case) else pytest.mark.nightly))
    return marked
