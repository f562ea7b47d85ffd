"""SimSiam needs its predictor and its stop-gradient: without either all images get one embedding, and the run says so.

Source: Chen and He, SimSiam (arXiv 2011.10566), figure 2 and table 1. Measured is what the figure shows: the standard
deviation over images of embeddings of length 1, times √d, so that it is 1 where nothing has collapsed.

The projector's last batch norm has a scale and a shift here. Without them, as in the released code, the embeddings of
a batch have mean 0 and variance 1 whatever happens: they cannot become one point, and collapse into one direction.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from nightly_cases import nightly_but
from torch import Tensor
from torch.nn.functional import cosine_similarity

from barlow.diagnostics.collapse import embedding_statistics
from barlow.methods import distillation
from barlow.objectives.simsiam import SimSiam
from barlow.pretraining import pretrain

TRAINED: dict[str, Any] = tiny.SMALL | {
    "train.steps": 200,
    "train.log_steps": 20,
    "optim.lr_per_256": 0.2,
    "schedule.floor": 1.0,
    "method.projector.widths": [32, 32, 16],
    "method.projector.last_batch_norm": "affine",
    "method.predictor.widths": [4, 16],
}
WITHOUT = "without: leave the key as it is"
WITHOUT_PREDICTOR = {
    "method.predictor": None,
    "method.predictor.widths": WITHOUT,
    "optim.groups": [],
    "train.steps": 300,  # at 200 the spread is at 0.1, on one processor below it and on another above
}
HEALTHY, COLLAPSED = 0.7, 0.1
"""Spread of the embeddings at the end."""
DIRECTIONS, ONE_DIRECTION = 2.0, 1.2
"""Effective ranks at the end. The images have eight colours and little else."""


def with_gradient(p: Tensor, t: Tensor) -> dict[str, Tensor]:
    """The loss without its stop-gradient."""
    return {"negative_cosine": -cosine_similarity(p, t).mean()}


def of_the_other_view(self: Any, view: Tensor, online: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The target with its graph, in place of `_target`."""
    return online[1]


def trained(
    data: Path, out: Path, loss: Callable[..., dict[str, Tensor]], changes: dict[str, Any]
) -> tuple[dict[str, float], float, list[str]]:
    """Of the embeddings in the last step, the statistics; the loss; and what the run said of a collapse."""
    said: list[str] = []
    seen: list[dict[str, float]] = []

    def watched(p: Tensor, t: Tensor) -> dict[str, Tensor]:
        seen[:] = [embedding_statistics(t.detach())]  # the log has those of the predictions
        return loss(p, t)

    settings = {key: value for key, value in (TRAINED | changes).items() if value != WITHOUT}
    result = pretrain(
        data, out, recipe="small_simsiam", objective=watched, overrides=settings, progress=False, tell=said.append
    )
    return seen[0], result.metrics["loss"], [line for line in said if ": collapsed: " in line]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data"), 64)


@pytest.mark.parametrize("norm", nightly_but(["plain", "affine"], "plain".__eq__))
def test_simsiam_does_not_collapse(norm: str, data: Path, tmp_path: Path) -> None:
    changes = {"method.projector.last_batch_norm": norm}
    embeddings, loss, said = trained(data, tmp_path / "run", SimSiam(), changes)
    assert embeddings["std"] > HEALTHY
    assert embeddings["effective_rank"] > DIRECTIONS
    assert loss < -0.5, "it learns to predict one view from the other"
    assert said == []


@pytest.mark.nightly  # the ordinary tests have BYOL's collapse (test_byol_needs.py)
def test_without_a_predictor_it_collapses_and_the_run_says_so(data: Path, tmp_path: Path) -> None:
    embeddings, loss, said = trained(data, tmp_path / "run", SimSiam(), WITHOUT_PREDICTOR)
    assert embeddings["std"] < COLLAPSED
    assert loss < -0.99, "the best loss there is, and the worst encoder"
    assert said


@pytest.mark.nightly
def test_without_a_stop_gradient_it_collapses_and_the_run_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The predictor is kept; the gradient flows into the other view's embedding, too."""
    monkeypatch.setattr(distillation._Distillation, "_target", of_the_other_view)
    embeddings, loss, said = trained(data, tmp_path / "run", with_gradient, {})
    assert embeddings["std"] < COLLAPSED
    assert loss < -0.99
    assert said


@pytest.mark.nightly
def test_in_the_released_form_it_then_collapses_into_one_direction(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch norm without scale and shift leaves some rows at one end of that direction, and the rest at the other."""
    monkeypatch.setattr(distillation._Distillation, "_target", of_the_other_view)
    changes = {"method.projector.last_batch_norm": "plain"}
    embeddings, loss, _ = trained(data, tmp_path / "run", with_gradient, changes)
    assert embeddings["effective_rank"] < ONE_DIRECTION
    assert embeddings["std"] > COLLAPSED
    assert loss < -0.8
