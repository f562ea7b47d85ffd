"""What keeps a method from giving all images one embedding, and what happens without it, as the papers tell it.

Source: Bardes, Ponce, LeCun, VICReg (arXiv 2105.04906), tables 4 and 7: without the variance term it collapses; with
VICReg's terms SimSiam needs no predictor. Grill et al., BYOL (arXiv 2006.07733), table 5. What SimSiam and BYOL need
is in test_simsiam_needs.py and test_byol_needs.py.
"""

from pathlib import Path
from typing import Any

import pytest
import tiny
from nightly_cases import nightly_but
from torch import Tensor

from barlow.diagnostics.collapse import embedding_statistics
from barlow.objectives.byol_vicreg import BYOLVICReg
from barlow.objectives.simsiam import SimSiam
from barlow.objectives.vicreg import VICReg
from barlow.pretraining import pretrain

WITHOUT = "without: leave the key as it is"
TRAINED: dict[str, Any] = tiny.SMALL | {
    "train.steps": 200,
    "train.log_steps": 50,
    "schedule.floor": 1.0,
    "method.projector.widths": [32, 16],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data"), 64)


def last_embeddings(data: Path, out: Path, recipe: str, objective: Any, **changes: Any) -> Tensor:
    """What the objective saw in the last step: of a view, or of what the predictions were made from."""
    seen: list[Tensor] = []

    def views(*z: Tensor) -> dict[str, Tensor]:
        seen[:] = [z[-1].detach()]
        return objective(*z)  # type: ignore[no-any-return]

    def triples(p: Tensor, t: Tensor, z: Tensor) -> dict[str, Tensor]:
        return views(p, t, z)

    def pairs(p: Tensor, t: Tensor) -> dict[str, Tensor]:
        return views(p, t)

    call = {BYOLVICReg: triples, SimSiam: pairs}.get(type(objective), views)
    settings = {key: value for key, value in (TRAINED | changes).items() if value != WITHOUT}
    pretrain(data, out, recipe=recipe, objective=call, overrides=settings, progress=False)
    return seen[0]


@pytest.mark.nightly
@pytest.mark.parametrize(("variance", "collapses"), [(25.0, False), (0.0, True)])
def test_vicreg_collapses_without_its_variance_term(
    variance: float, collapses: bool, data: Path, tmp_path: Path
) -> None:
    """All images then get nearly one embedding: the standard deviation over them goes to 0 (with it, to 0.6)."""
    changes = {"optim.lr_per_256": 0.1}
    z = last_embeddings(data, tmp_path / "run", "small_vicreg", VICReg(variance=variance), **changes)
    std = float(z.std(dim=0).mean())
    assert std < 0.05 if collapses else std > 0.4


@pytest.mark.parametrize("rescued", nightly_but([False, True], bool))
def test_vicregs_terms_rescue_simsiam_without_a_predictor(rescued: bool, data: Path, tmp_path: Path) -> None:
    """Its loss knows no lengths, so what collapses are the directions."""
    changes = {
        "method.predictor": None,
        "method.predictor.widths": WITHOUT,
        "method.projector.last_batch_norm": "none",
        "method.with_embeddings": rescued,
        "optim.groups": [],
        "optim.lr_per_256": 0.1,
    }
    objective = BYOLVICReg(convention="simsiam") if rescued else SimSiam()
    z = last_embeddings(data, tmp_path / "run", "small_simsiam", objective, **changes)
    std = embedding_statistics(z)["std"]
    assert std > 0.2 if rescued else std < 0.1
