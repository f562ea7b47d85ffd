import math

import pytest
import torch
from oracles import moco as oracle
from oracles.gradients import relative_error
from oracles.vectors import STATES, batch_in

from barlow.objectives.moco import KeyQueue, MoCo


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def unit(z: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(z, dim=1)


Q, K = unit(rows([1, 0], [1, 2])), unit(rows([4, 3], [-1, 3]))
QUEUE = rows([1, 0], [0, 1], [-0.6, 0.8], [0.8, -0.6])
PUBLISHED = {
    0.07: (2.96587695305, 2.74571700291, 2.85579697798),
    0.2: (1.55551154388, 1.41307435683, 1.48429295035),
}
IF_ENQUEUED_FIRST = 1.77712356241


def holding(queue: torch.Tensor, temperature: float = 0.07) -> KeyQueue:
    """An objective in float64 whose queue holds these keys."""
    module = MoCo(queue=len(queue), temperature=temperature).build(width=queue.shape[1], seed=0).double()
    module.queue.copy_(queue)
    return module


def contrast(module: KeyQueue, *groups: tuple[torch.Tensor, torch.Tensor]) -> float:
    return float(module(list(groups))["contrast"])


def groups_of(state: str, n: int, d: int, groups: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Queries of each view with keys of the other, those a momentum encoder's: not quite the queries' embeddings."""
    views, keys = batch_in(state, n, d), [batch_in(state, n, d, seed=1)[0], batch_in(state, n, d, seed=2)[0]]
    keys = [0.9 * z + 0.1 * k for z, k in zip(views, keys, strict=True)]
    return [(views[0], keys[1]), (views[1], keys[0])][:groups]


@pytest.mark.parametrize("temperature", PUBLISHED)
def test_published_values(temperature: float) -> None:
    first, second, mean = PUBLISHED[temperature]
    assert contrast(holding(QUEUE, temperature), (Q[:1], K[:1])) == pytest.approx(first, abs=1e-11)
    assert contrast(holding(QUEUE, temperature), (Q[1:], K[1:])) == pytest.approx(second, abs=1e-11)
    assert contrast(holding(QUEUE, temperature), (Q, K)) == pytest.approx(mean, abs=1e-11)


def test_the_published_value_of_keys_that_come_in_before_the_loss_is_another() -> None:
    enqueued = QUEUE.clone()
    enqueued[2:] = K
    assert contrast(holding(enqueued, 0.2), (Q, K)) == pytest.approx(IF_ENQUEUED_FIRST, abs=1e-11)
    assert contrast(holding(QUEUE, 0.2), (Q, K)) == pytest.approx(PUBLISHED[0.2][2], abs=1e-11)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("state", STATES)
def test_three_steps_equal_the_loops_in_value_gradient_and_queue(state: str, groups: int) -> None:
    n, d = 4, 6
    module = MoCo(queue=16).build(width=d, seed=3).double()
    queue = list(module.queue.clone())
    for step in range(3):
        pairs = [(q.roll(step, 1), k.roll(step, 1)) for q, k in groups_of(state, n, d, groups)]
        leaves = [q.clone().requires_grad_() for q, _ in pairs]
        found = module([(leaf, k) for leaf, (_, k) in zip(leaves, pairs, strict=True)])["contrast"]
        others = [q.clone().requires_grad_() for q, _ in pairs]
        expected, queue = oracle.moco([(leaf, k) for leaf, (_, k) in zip(others, pairs, strict=True)], queue)
        assert found.item() == pytest.approx(expected.item(), rel=1e-9)
        assert relative_error(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, others)) < 1e-9
        order = (int(module.oldest) + torch.arange(16)) % 16
        assert torch.allclose(module.queue[order], torch.stack(queue), rtol=0, atol=1e-14)


def test_in_float32_the_value_and_the_gradient_are_those_of_the_loops() -> None:
    n, d = 4, 6
    ((q, k),) = ((q.float(), k.float()) for q, k in groups_of("healthy", n, d, 1))
    module = MoCo(queue=16).build(width=d, seed=3)
    assert module.queue.dtype == torch.float32
    queue = [key.double() for key in module.queue]
    q.requires_grad_()
    found = module([(q, k)])["contrast"]
    reference = q.detach().double().requires_grad_()
    expected, _ = oracle.moco([(reference, k.double())], queue)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    to_q = torch.autograd.grad(found, q)[0].double()
    assert relative_error([to_q], list(torch.autograd.grad(expected, reference))) < 1e-4


def test_both_groups_meet_the_queue_that_the_step_before_has_left() -> None:
    one, other = groups_of("healthy", 4, 6, 2)
    queue = unit(batch_in("healthy", 16, 6, seed=5)[0])
    both = contrast(holding(queue), one, other)
    apart = contrast(holding(queue), one) + contrast(holding(queue), other)
    assert both == pytest.approx(apart, rel=1e-12)
    in_turn = holding(queue)
    assert both != pytest.approx(contrast(in_turn, one) + contrast(in_turn, other), rel=1e-3)


def test_all_keys_of_a_step_take_the_places_of_the_oldest_and_the_queue_wraps() -> None:
    module = MoCo(queue=12).build(width=3, seed=0).double()
    start = module.queue.clone()
    made = [groups_of("healthy", 2, 3, 2) for _ in range(4)]
    for step, groups in enumerate(made):
        groups = [(q, k.roll(step, 1)) for q, k in groups]
        module(groups)
        keys = unit(torch.cat([k for _, k in groups]))
        places = slice(4 * step % 12, 4 * step % 12 + 4)
        assert torch.allclose(module.queue[places], keys, rtol=0, atol=1e-15)
        assert int(module.oldest) == 4 * (step + 1) % 12
        if step < 2:
            assert module.queue[4 * (step + 1) :].equal(start[4 * (step + 1) :]), "the others stay"


def test_keys_are_constants_and_the_queue_has_no_gradient() -> None:
    q, k = (z.requires_grad_() for z in batch_in("healthy", 4, 6))
    module = MoCo(queue=16).build(width=6, seed=0).double()
    term = module([(q, k)])["contrast"]
    to_q, to_k = torch.autograd.grad(term, (q, k), allow_unused=True)
    assert float(to_q.norm()) > 0.1
    assert to_k is None
    assert not module.queue.requires_grad
    assert list(module.parameters()) == []
    assert set(module.state_dict()) == {"queue", "oldest"}


def test_the_queue_starts_with_directions_drawn_from_the_seed() -> None:
    queue = MoCo(queue=4096).build(width=32, seed=0).queue
    assert queue.shape == (4096, 32)
    assert torch.allclose(queue.norm(dim=1), torch.ones(4096), atol=1e-6)
    assert float(queue.mean(dim=0).norm()) < 0.05, "in no direction more than in others"
    assert queue.equal(MoCo(queue=4096).build(width=32, seed=0).queue)
    assert not queue.equal(MoCo(queue=4096).build(width=32, seed=1).queue)


def test_equal_similarities_cost_the_logarithm_of_their_number() -> None:
    z = torch.ones(2, 5)
    module = MoCo(queue=1024).build(width=5, seed=0)
    module.queue.copy_(torch.full((1024, 5), 5**-0.5))
    assert contrast(module, (z, z)) == pytest.approx(math.log(1025), rel=1e-6)


def test_scales_of_rows_change_nothing_but_rows_that_do_not_belong_together_cost_more() -> None:
    ((q, k),) = groups_of("healthy", 8, 6, 1)
    queue = unit(batch_in("healthy", 16, 6, seed=5)[0])
    scale = torch.linspace(0.1, 9, 8, dtype=torch.float64)[:, None]
    value = contrast(holding(queue), (q, k))
    assert contrast(holding(queue), (scale * q, k / scale)) == pytest.approx(value, rel=1e-12)
    assert contrast(holding(queue), (q, k.roll(1, 0))) > 2 * value


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-13])
def test_a_row_without_direction_is_like_nothing_and_gets_no_gradient(length: float) -> None:
    q, k = (z.float() for z in batch_in("healthy", 4, 6))
    q[1] = length / 2
    k[2] = length / 2
    q.requires_grad_()
    module = MoCo(queue=16).build(width=6, seed=0)
    term = module([(q, k)])["contrast"]
    (gradient,) = torch.autograd.grad(term, q)
    assert term.isfinite()
    assert gradient.isfinite().all()
    assert float(gradient[1].norm()) == 0
    assert float(gradient[2].norm()) > 0
    assert module.queue.isfinite().all()


def test_a_queue_that_is_no_multiple_of_a_steps_keys_is_refused_with_one_that_is() -> None:
    one, other = groups_of("healthy", 6, 4, 2)
    module = MoCo(queue=66).build(width=4, seed=0).double()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    contrast(module, one)
    module.load_state_dict(before)
    with pytest.raises(ValueError, match=r"step of 12 keys .* queue of 66: .* a queue of 72, a multiple of 12"):
        contrast(module, one, other)
    with pytest.raises(ValueError, match=r"step of 6 keys .* queue of 4: .* a queue of 6, a multiple of 6"):
        contrast(MoCo(queue=4).build(width=4, seed=0).double(), one)
    assert all(value.equal(before[name]) for name, value in module.state_dict().items()), "a refusal changes nothing"


def test_embeddings_of_another_width_and_groups_that_are_no_pairs_are_refused() -> None:
    q, k = batch_in("healthy", 4, 6)
    with pytest.raises(ValueError, match=r"embeddings of 6 features, and a queue built for 8"):
        MoCo(queue=16).build(width=8, seed=0)([(q, k)])
    for groups in ([(q, k, k)], [(q,)], [(q, k), (q,)], []):
        with pytest.raises(ValueError, match=r"give \[\(q, k\)\] or"):
            MoCo(queue=16).build(width=6, seed=0)(groups)


@pytest.mark.parametrize("bad", [{"queue": 0}, {"temperature": 0.0}, {"temperature": float("nan")}])
def test_hyper_parameters_out_of_range_are_refused_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        MoCo(**bad)
