"""`torch.compile` of an objective compiles it, or breaks the graph where it has to; it never dies inside the compiler.

Cholesky's pivots are looked at, and some gradients are written by hand: there Dynamo hands over to Python. Inside
`full_precision` it used to fail when it did. The backend traces and compiles nothing, which takes the least time.
"""

import logging
import warnings
from collections.abc import Iterator

import pytest
import torch
from contracts.calls import CASES, Case
from nightly_cases import nightly_but

N, D = 32, 8


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Dynamo warns of each break in the graph; which there are is no matter here."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch._dynamo.reset()
    logging.disable(level)


NAMES = [*(name for name in CASES if " " not in name), "barlow_twins samples", "barlow_twins none", "w_mse zca"]


ORDINARY = (("barlow_twins", True), *((name, False) for name in ("vicreg", "w_mse", "byol", "swav", "deepcluster_v2")))
"""One of each kind: products of all rows, Cholesky, a target, trained prototypes, a bank of labels. The others are
nightly, as the compiler takes seconds for each."""


@pytest.mark.parametrize(
    ("name", "autocast"),
    nightly_but([*((name, False) for name in NAMES), ("barlow_twins", True), ("w_mse", True)], ORDINARY.__contains__),
)
def test_a_compiled_objective_gives_the_same_loss_and_gradients(
    name: str, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A run builds its objective once, and what it compiles is the loss; first labels are drawn by NumPy.
    monkeypatch.setattr(Case, "built", torch.compiler.disable(Case.built))
    case = CASES[name]
    group = [z.float() for z in case.inputs("healthy", N, D)]

    def loss(*views: torch.Tensor) -> torch.Tensor:
        return sum(case(*views).values())

    found = []
    for function in (loss, torch.compile(loss, backend="eager")):
        leaves = [z.clone().requires_grad_() for z in group]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            value = function(*leaves)
        found.append([value.detach(), *torch.autograd.grad(value, case.differentiable(leaves))])
    for eager, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-6, atol=0)
