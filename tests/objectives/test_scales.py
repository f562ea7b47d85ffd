"""Embeddings of any size, and broken ones: an objective gives the value, or NaN or infinity; never a finite lie.

A training run stops at a loss that is not finite. A loss of 0 where a variance has overflowed would let it go on.
"""

import math

import pytest
from contracts.calls import CASES, Case
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nightly_cases import nightly_but
from torch import Tensor

SHAPES = ((32, 8), (64, 32), (32, 96))
"""Rows and features: few features are computed in float64, more in float32, and more than rows by Gram matrices."""


def finite(loss: float, gradients: list[Tensor]) -> bool:
    return math.isfinite(loss) and all(bool(g.isfinite().all()) for g in gradients)


def outcome(case: Case, group: list[Tensor]) -> tuple[float, list[Tensor]] | None:
    """Loss and gradients; None where the objective refuses the batch."""
    try:
        return case.loss_and_gradients(*group)
    except ValueError:
        return None


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(exponent=st.floats(-3, 37), shape=st.sampled_from(SHAPES))
@example(exponent=18.5, shape=(64, 32))  # squares of some features overflow
@example(exponent=19.0, shape=(64, 32))
@example(exponent=30.0, shape=(32, 96))
def test_a_float32_batch_of_any_scale_has_the_loss_of_float64_or_none(
    name: str, exponent: float, shape: tuple[int, int]
) -> None:
    case = CASES[name]
    group = [(z * 10.0**exponent).float() for z in case.inputs("healthy", *shape)]
    found, exact = outcome(case, group), outcome(case, [z.double() for z in group])
    if found is None or not finite(*found):
        return
    assert exact is not None, "refused in float64 alone"
    assert found[0] == pytest.approx(exact[0], rel=1e-3, abs=1e-6)
    for gradient, right in zip(found[1], exact[1], strict=True):
        # Below 1e-37 float32 has no digits for a gradient.
        assert float((gradient - right).abs().max()) <= 1e-2 * float(right.abs().max()) + 1e-37


@pytest.mark.parametrize("value", nightly_but([math.nan, math.inf, -math.inf], math.isnan))
@pytest.mark.parametrize("name", CASES)
def test_a_row_that_is_no_number_is_seen(name: str, value: float) -> None:
    case = CASES[name]
    if case.takes == "one" and math.isinf(value):
        pytest.skip("a logit may be infinite: the probability of that class is 0 or 1")
    for n, d in SHAPES:
        for view in range(len(case.inputs("healthy", n, d))):
            for cells in (slice(None), slice(1, 2)):
                group = [z.float() for z in case.inputs("healthy", n, d)]
                group[view][n // 2, cells] = value
                found = outcome(case, group)
                assert found is None or not math.isfinite(found[0]), f"view {view} of {n} × {d}: loss {found[0]}"
