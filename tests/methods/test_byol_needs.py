"""BYOL needs its predictor and its stop-gradient: without either all images get one embedding, and the run says so.

Source: Grill et al., BYOL (arXiv 2006.07733), table 5: without predictor or target 0.2 to 0.3 % top-1; Chen and He,
SimSiam (arXiv 2011.10566), tables 1 and 2.
"""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from barlow.methods import distillation
from barlow.pretraining import pretrain
from barlow.runs.run import Run

WITHOUT = "without: leave the key as it is"
TRAINED: dict[str, Any] = tiny.SMALL | {
    "train.steps": 200,
    "train.log_steps": 20,
    "optim.lr_per_256": 0.02,
    "method.projector.widths": [32, 16],
    "method.predictor.widths": [32, 16],
    "method.momentum": 0.9,
}
COLLAPSED = 0.25
"""Standard deviation of embeddings of length √d below which the log speaks of collapse (docs of `healthy_ranges`)."""


class Attraction:
    """BYOL's distance with a gradient to both sides."""

    def __call__(self, p: Tensor, t: Tensor) -> dict[str, Tensor]:
        return {"distance": 2 * (2 - 2 * torch.nn.functional.cosine_similarity(p, t)).mean()}


def spread(data: Path, out: Path, objective: Any = None, **changes: Any) -> tuple[float, list[str]]:
    """Of the embeddings at the end, and what the run said of collapse."""
    said: list[str] = []
    settings = {key: value for key, value in (TRAINED | changes).items() if value != WITHOUT}
    result = pretrain(
        data, out, recipe="small_byol", objective=objective, overrides=settings, progress=False, tell=said.append
    )
    return Run(result.run_folder).metrics()[-1]["embeddings"]["std"], [line for line in said if "collapse" in line]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data"), 64)


@pytest.mark.nightly
def test_byol_does_not_collapse(data: Path, tmp_path: Path) -> None:
    std, said = spread(data, tmp_path / "run")
    assert std > COLLAPSED
    assert said == []


@pytest.mark.nightly
def test_without_a_predictor_it_collapses_and_the_run_says_so(data: Path, tmp_path: Path) -> None:
    changes = {"method.predictor": None, "method.predictor.widths": WITHOUT}
    std, said = spread(data, tmp_path / "run", **changes)
    assert std < COLLAPSED
    assert any(": collapsed: " in line for line in said)


def test_without_a_stop_gradient_it_collapses_and_the_run_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The predictor is kept; the target is the online network, and the gradient flows into it."""

    def with_gradient(self: Any, view: Tensor, online: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return online[1]

    monkeypatch.setattr(distillation._Distillation, "_target", with_gradient)
    std, said = spread(data, tmp_path / "run", Attraction(), **{"method.momentum": None})
    assert std < COLLAPSED
    assert any(": collapsed: " in line for line in said)
