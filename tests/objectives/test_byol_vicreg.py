import pytest
import torch
from oracles import byol as byol_oracle
from oracles import vicreg as vicreg_oracle
from oracles.directions import cosine
from oracles.gradients import relative_error
from oracles.vectors import STATES, batch_in

from barlow.objectives.byol_vicreg import BYOLVICReg


def expected(p: torch.Tensor, t: torch.Tensor, z: torch.Tensor, convention: str) -> torch.Tensor:
    terms = vicreg_oracle.vicreg(z, z, invariance=0, variance=1, covariance=0.01)
    if convention == "byol":
        distance = byol_oracle.byol(p, t)["distance"]
    else:
        cosines = [cosine(one, other) for one, other in zip(p, t.detach(), strict=True)]
        distance = -torch.stack(cosines).mean()
    return distance + terms["variance"] + terms["covariance"]


@pytest.mark.parametrize("convention", ["byol", "simsiam"])
@pytest.mark.parametrize("state", STATES)
def test_value_and_gradients_equal_the_loops_in_both_precisions(state: str, convention: str) -> None:
    (p, t), (z, _) = batch_in(state, 5, 6), batch_in(state, 5, 6, seed=1)
    leaves = [x.clone().requires_grad_() for x in (p, z)]
    reference = expected(leaves[0], t, leaves[1], convention)
    gradients = torch.autograd.grad(reference, leaves)
    for precision, error in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        given = [x.to(precision).requires_grad_() for x in (p, z)]
        found = sum(BYOLVICReg(convention=convention)(given[0], t.to(precision), given[1]).values())  # type: ignore[arg-type]
        assert found.item() == pytest.approx(reference.item(), rel=error)
        ours = [g.double() for g in torch.autograd.grad(found, given)]
        assert relative_error(ours, gradients) < error


def test_the_target_gets_no_gradient() -> None:
    (p, t), (z, _) = batch_in("healthy", 5, 6), batch_in("healthy", 5, 6, seed=1)
    t.requires_grad_()
    loss = sum(BYOLVICReg()(p.requires_grad_(), t, z.requires_grad_()).values())
    assert torch.autograd.grad(loss, t, allow_unused=True)[0] is None


def test_hyper_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="variance is -1"):
        BYOLVICReg(variance=-1)
    with pytest.raises(ValueError, match="gamma is 0"):
        BYOLVICReg(gamma=0)
    with pytest.raises(ValueError, match="convention is 'moco': choose one of byol, simsiam"):
        BYOLVICReg(convention="moco")  # type: ignore[arg-type]
