"""Objectives under the autocast of the networks, at widths from which on matrices are multiplied in float32."""

import pytest
import torch
from contracts.calls import CASES
from oracles.vectors import batch_in

from barlow import objectives
from barlow.objectives._gradients import NARROW

COMPARE_VIEWS = [kind for kind in objectives.kinds() if CASES[kind].takes == "views" and not CASES[kind].has_state]


@pytest.mark.parametrize("kind", COMPARE_VIEWS)
@pytest.mark.parametrize("rows", [24, 384])
def test_wide_embeddings_are_compared_in_full_precision_under_autocast_too(kind: str, rows: int) -> None:
    d = NARROW + 32
    objective = objectives.load(kind)()
    if kind == "w_mse" and rows <= d:
        objective = objectives.load(kind)(slice_rows=rows, shrinkage=0.1)
    views = [z.float().requires_grad_() for z in batch_in("healthy", rows, d)]
    asked = {"ids": torch.arange(rows)} if "ids" in objectives.asks(objective) else {}
    outside = objective(*views, **asked)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = objective(*views, **asked)
    for name, term in outside.items():
        assert inside[name].dtype == torch.float32
        assert inside[name].equal(term), name
        pairs = zip(
            *(torch.autograd.grad(terms[name], views, retain_graph=True) for terms in (inside, outside)), strict=True
        )
        assert all(g.equal(h) for g, h in pairs), name
