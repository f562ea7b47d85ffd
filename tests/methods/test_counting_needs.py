"""Counting needs its contrastive term: without it the encoder counts nothing in any image, and the run says so.

Source: Noroozi, Pirsiavash, Favaro, Representation Learning by Learning to Count (arXiv 1708.06734), section 3.2: zero
is a solution of the first term alone.
"""

from pathlib import Path
from typing import Any

import pytest
import tiny
from torch import Tensor

import barlow
from barlow.pretraining import pretrain

TRAINED: dict[str, Any] = {key: value for key, value in tiny.SMALL.items() if "projector" not in key} | {
    "train.steps": 150,
    "train.log_steps": 10,
    "optim.lr_per_256": 0.03,
    "schedule.floor": 1.0,
    "method.head.widths": [32, 16],
    "method.head.last_bias": True,
    "method.head.last_batch_norm": "none",  # as in the paper
}
APART, NOTHING = 0.2, 0.01
"""Mean squared distance of the wholes from their mean, and mean squared length, at the end."""


def trained(data: Path, out: Path, margin: float) -> tuple[float, float, dict[str, float], list[str]]:
    """Of the last step, the wholes' mean squared length, and that about their mean; the terms; what the run said."""
    said: list[str] = []
    seen: list[Tensor] = []
    found: dict[str, float] = {}

    def watched(*z: Tensor, ids: Tensor) -> dict[str, Tensor]:
        seen[:] = [z[0].detach()]
        terms: dict[str, Tensor] = barlow.Counting(margin=margin)(*z, ids=ids)
        found.update({name: float(term.detach()) for name, term in terms.items()})
        return terms

    pretrain(data, out, recipe="small_counting", objective=watched, overrides=TRAINED, progress=False, tell=said.append)
    (whole,) = seen
    squares = float(whole.square().sum(dim=1).mean())
    spread = float((whole - whole.mean(dim=0)).square().sum(dim=1).mean())
    return squares, spread, found, [line for line in said if ": collapsed: " in line]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data"), 64)


def test_it_counts_and_tells_images_apart(data: Path, tmp_path: Path) -> None:
    _, spread, terms, said = trained(data, tmp_path / "run", margin=10.0)
    assert spread > APART
    assert sum(terms.values()) < 9, "counting nothing costs ten"
    assert said == []


def test_without_the_contrast_it_counts_nothing_and_the_run_says_so(data: Path, tmp_path: Path) -> None:
    squares, _, terms, said = trained(data, tmp_path / "run", margin=0.0)
    assert squares < NOTHING
    assert terms["distance"] < NOTHING, "the best loss there is, and the worst encoder"
    assert said
