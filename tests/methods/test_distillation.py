"""The online network and its target: who gets a gradient, how the target moves, and what is compared with what."""

import math
from typing import Any

import pytest
import torch
from oracles.vectors import formula_batch
from torch import Tensor, nn

from barlow.methods._networks import Method
from barlow.methods.distillation import Distillation
from barlow.nets.heads import Head
from barlow.objectives.barlow_twins import BarlowTwins
from barlow.objectives.byol import BYOL
from barlow.types import Rows

HEAD = Head(widths=[5, 4], hidden_bias=True, last_bias=True, batch_norm=False)


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 6))


def distillation(**keys: Any) -> Method:
    section = Distillation(**({"projector": HEAD, "predictor": HEAD} | keys))
    return section.build(lambda: (encoder(), 6), seed=0).double()


def rows(views: int = 2) -> Rows:
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(8, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(views)]
    return Rows(images, {"ids": torch.arange(8)})


class OneWeight(nn.Module):
    """A network of a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :1] * self.weight


def target_after(sources: list[float], steps: int, **keys: Any) -> list[float]:
    """The target's number after each update, if the online network's number is each of these in turn."""
    section = Distillation(projector=Head(widths=[1], hidden_bias=False, last_bias=False), **keys)
    method: Any = section.build(lambda: (OneWeight(), 1), seed=0)
    found = []
    for step, source in enumerate(sources):
        with torch.no_grad():
            method.encoder.weight.fill_(source)
        method.after_step(step / steps)
        found.append(method.target["encoder"].weight.item())
    return found


def test_a_constant_momentum_moves_the_target_as_the_vector_says() -> None:
    found = target_after([2, 4, 8], 3, momentum=0.9, momentum_schedule="constant")
    assert found == pytest.approx([1.1, 1.39, 2.051], rel=1e-12)


def test_a_cosine_momentum_moves_the_target_as_the_vector_says() -> None:
    found = target_after([2, 4, 8], 10, momentum=0.99)
    assert found == pytest.approx([1.01, 1.03916829492, 1.10212960917], rel=1e-11)


@pytest.mark.parametrize(
    ("k", "expected"), [(0, 0.99), (1, 0.990244717419), (2, 0.990954915028), (3, 0.992061073739), (4, 0.993454915028)]
)
def test_the_momentum_rises_from_the_given_one_with_a_cosine(k: int, expected: float) -> None:
    section = Distillation(projector=HEAD, momentum=0.99)
    method: Any = section.build(lambda: (OneWeight(), 1), seed=0)
    with torch.no_grad():
        method.encoder.weight.fill_(2.0)
    method.after_step(k / 10)
    assert 2 - method.target["encoder"].weight.item() == pytest.approx(expected, rel=1e-10)
    assert 1 - 0.01 * (1 + math.cos(math.pi * k / 10)) / 2 == pytest.approx(expected, rel=1e-10)


def test_the_target_starts_as_a_copy_and_gets_no_gradient() -> None:
    method: Any = distillation()
    copied = {
        **dict(method.target["encoder"].named_parameters()),
        **dict(method.target["projector"].named_parameters()),
    }
    online = {**dict(method.encoder.named_parameters()), **dict(method.projector.named_parameters())}
    assert copied.keys() == online.keys()
    assert all(copied[name].equal(online[name]) for name in copied)
    groups = method(rows()).groups
    sum(BYOL()(*group)["distance"] for group in groups).backward()
    assert all(p.grad is None and not p.requires_grad for p in copied.values())
    assert all(p.grad is not None and bool(p.grad.any()) for p in online.values())


def test_the_target_of_another_view_is_what_a_view_predicts() -> None:
    method: Any = distillation()
    outputs = method(rows(3))
    views = rows(3).views
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    assert len(outputs.groups) == 6
    for (p, t), (i, j) in zip(outputs.groups, pairs, strict=True):
        torch.testing.assert_close(p, method.predictor(method.projector(method.encoder(views[i]))))
        torch.testing.assert_close(t, method.target["projector"](method.target["encoder"](views[j])))
        assert p.requires_grad
        assert not t.requires_grad


def test_in_one_direction_the_target_sees_the_second_view_alone() -> None:
    method: Any = distillation(predictor=None, symmetric=False)
    outputs = method(rows())
    ((q, k),) = outputs.groups
    torch.testing.assert_close(q, method.projector(method.encoder(rows().views[0])))
    torch.testing.assert_close(k, method.target["projector"](method.target["encoder"](rows().views[1])))
    assert len(outputs.features) == 1


@pytest.mark.parametrize("symmetric", [True, False])
def test_without_a_momentum_the_target_is_the_online_network_behind_a_stop_gradient(symmetric: bool) -> None:
    method: Any = distillation(momentum=None, symmetric=symmetric)
    assert method.target is None
    outputs = method(rows())
    _, t = outputs.groups[0]
    torch.testing.assert_close(t, method.projector(method.encoder(rows().views[1])))
    assert not t.requires_grad
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.after_step(0.5)
    assert all(value.equal(before[name]) for name, value in method.state_dict().items())


def test_batch_norm_of_the_target_collects_statistics_of_its_own() -> None:
    normed = Head(widths=[5, 4], hidden_bias=True, last_bias=True)
    method: Any = distillation(projector=normed, predictor=None)
    method(rows())
    method.after_step(0.0)
    online, target = method.projector.norm0, method.target["projector"].norm0
    assert online.num_batches_tracked == target.num_batches_tracked == 2
    torch.testing.assert_close(online.running_mean, target.running_mean)  # the same weights have seen the same views
    with torch.no_grad():
        method.projector.linear0.weight.mul_(2)
    method(rows())
    before = target.running_mean.clone()
    method.after_step(0.0)
    assert target.running_mean.equal(before), "running statistics are not averaged"
    assert not torch.allclose(online.running_mean, target.running_mean)


def test_networks_whose_groups_of_batch_norm_are_apart_are_online_and_target() -> None:
    method: Any = distillation()
    networks = method.apart()
    assert networks.keys() == {"online", "target"}
    online = {id(p) for p in networks["online"].parameters()}
    target = {id(p) for p in networks["target"].parameters()}
    assert online.isdisjoint(target)
    assert len(online) + len(target) == len(list(method.parameters()))
    assert distillation(momentum=None).apart().keys() == {"online"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"momentum": 1.0}, r"momentum is 1.0: give a number in \[0, 1\)"),
        ({"momentum": -0.1}, r"momentum is -0.1"),
        ({"momentum_schedule": "linear"}, "choose one of cosine, constant"),
        ({"batch_norm_rows": 1}, "batch_norm_rows is 1: give 2 or more"),
        ({"batch_norm_rows": 8, "momentum": None}, "batch_norm_rows is 8 and momentum null: .*there is one"),
    ],
)
def test_what_makes_no_sense_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distillation(projector=HEAD, **keys)


def test_one_view_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1 view was given, and the method distillation needs 2 views or more"):
        distillation()(rows(1))


# --- Variants of ablations ------------------------------------------------------------------------------------------


def test_without_a_stop_gradient_the_target_is_the_embedding_itself_with_its_gradient() -> None:
    method = distillation(momentum=None, predictor=None, stop_gradient=False)
    (p1, t2), (p2, t1) = method(rows()).groups
    assert p1 is t1
    assert p2 is t2
    stopped = distillation(momentum=None, predictor=None)
    (q1, s2), _ = stopped(rows()).groups
    assert torch.equal(t2, s2)
    assert torch.equal(p1, q1)
    assert not s2.requires_grad
    assert t2.requires_grad


def test_a_slow_target_without_a_stop_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stop_gradient is false and momentum 0\.9: a slow copy has no gradient"):
        distillation(momentum=0.9, stop_gradient=False)


def test_with_embeddings_each_group_has_what_the_prediction_was_made_from() -> None:
    method = distillation(with_embeddings=True)
    assert Distillation(projector=HEAD, with_embeddings=True).gives == "triples"
    for p, t, z in method(rows(3)).groups:
        torch.testing.assert_close(method.predictor(z), p)  # type: ignore[operator]
        assert z.requires_grad
        assert not t.requires_grad
    assert Distillation(projector=HEAD, with_embeddings=True).widths(2) == [(4, 4, 4)] * 2
    assert Distillation(projector=HEAD).widths(2) == [(4, 4)] * 2


def test_barlow_twins_behind_a_stop_gradient_has_the_published_loss_and_gradients() -> None:
    """The loss of two views is the same; so is its gradient with respect to the one, and the other gets none."""
    a, b = (z.requires_grad_() for z in formula_batch(8, 4))
    loss = sum(BarlowTwins()(a, b).values())
    to_a, to_b = torch.autograd.grad(loss, (a, b))
    assert loss.item() == pytest.approx(0.018605341319, rel=1e-9)
    assert float(to_a.norm()) == pytest.approx(0.0064603351016, rel=1e-8)
    assert float(to_b.norm()) == pytest.approx(0.00819868470642, rel=1e-8)
    stopped = sum(BarlowTwins()(a, b.detach()).values())
    assert stopped.item() == loss.item()
    torch.testing.assert_close(torch.autograd.grad(stopped, a)[0], to_a, rtol=1e-10, atol=0)
    predictor = torch.eye(4, dtype=torch.float64)
    predictor[0, 1], predictor[2, 3] = 0.5, -0.3
    predicted = sum(BarlowTwins()(a @ predictor, b.detach()).values())
    assert predicted.item() == pytest.approx(0.027769744345, rel=1e-9)
    assert float(torch.autograd.grad(predicted, a)[0].norm()) == pytest.approx(0.0348069450491, rel=1e-8)
