"""InfoMin's loss beside MoCo's: a mean over its queries, whose keys are the same and come into the queue once."""

import pytest
import torch
from oracles import moco as oracle
from oracles.gradients import relative_error
from oracles.vectors import STATES, batch_in

from barlow.objectives.infomin import InfoMin, SharedKeys
from barlow.objectives.moco import MoCo

N, D = 4, 6


def holding(queue: torch.Tensor, temperature: float = 0.15) -> SharedKeys:
    module = InfoMin(queue=len(queue), temperature=temperature).build(width=queue.shape[1], seed=0).double()
    module.queue.copy_(queue)
    return module


def unit(z: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(z, dim=1)


def test_published_values_of_one_query_are_those_of_mocos_queue_and_stay_if_it_comes_twice() -> None:
    q, k = (unit(torch.tensor(z, dtype=torch.float64)) for z in ([[1.0, 0], [1, 2]], [[4.0, 3], [-1, 3]]))
    queue = torch.tensor([[1, 0], [0, 1], [-0.6, 0.8], [0.8, -0.6]], dtype=torch.float64)
    for groups in ([(q, k)], [(q, k), (q, k)]):
        found = holding(queue, 0.2)(groups)["contrast"]
        assert float(found) == pytest.approx(1.48429295035, abs=1e-11)


@pytest.mark.parametrize("state", STATES)
def test_three_steps_equal_the_loops_in_value_gradient_and_queue(state: str) -> None:
    module = InfoMin(queue=16).build(width=D, seed=3).double()
    queue = list(module.queue.clone())
    for step in range(3):
        q, k = batch_in(state, N, D, seed=step)
        tiles = 0.9 * q + 0.1 * batch_in(state, N, D, seed=step + 50)[0]
        leaves, others = ([z.clone().requires_grad_() for z in (q, tiles)] for _ in range(2))
        found = module([(leaf, k) for leaf in leaves])["contrast"]
        losses = [oracle.contrast(other, k, queue, 0.15) for other in others]
        expected = (losses[0] + losses[1]) / 2
        queue = [*queue, *(key / oracle.dot(key, key) ** 0.5 for key in k)][N:]
        assert found.item() == pytest.approx(expected.item(), rel=1e-9)
        assert relative_error(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, others)) < 1e-9
        order = (int(module.oldest) + torch.arange(16)) % 16
        assert torch.allclose(module.queue[order], torch.stack(queue), rtol=0, atol=1e-14)


def test_it_is_half_of_mocos_sum_over_the_same_groups() -> None:
    q, k = batch_in("healthy", N, D)
    queue = unit(batch_in("healthy", 16, D, seed=5)[0])
    moco = MoCo(queue=16, temperature=0.15).build(width=D, seed=0).double()
    moco.queue.copy_(queue)
    groups = [(q, k), (q.roll(1, 1), k)]
    assert float(holding(queue)(groups)["contrast"]) == pytest.approx(float(moco(groups)["contrast"]) / 2, rel=1e-12)


def test_a_queue_is_a_multiple_of_the_rows_whatever_the_number_of_queries() -> None:
    q, k = batch_in("healthy", N, D)
    InfoMin(queue=4).build(width=D, seed=0).double()([(q, k), (q, k), (q, k)])
    with pytest.raises(ValueError, match=r"a step of 4 keys .* a queue of 6: .* a queue of 8"):
        InfoMin(queue=6).build(width=D, seed=0).double()([(q, k), (q, k)])
    with pytest.raises(ValueError, match=r"InfoMin compares queries with their keys"):
        InfoMin(queue=4).build(width=D, seed=0)([(q, k, k)])


@pytest.mark.parametrize("bad", [{"queue": 0}, {"temperature": 0.0}])
def test_hyper_parameters_out_of_range_are_refused_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        InfoMin(**bad)
