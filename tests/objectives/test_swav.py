import math

import pytest
import torch
from oracles import swav as oracle
from oracles.gradients import relative_error
from oracles.vectors import STATES, batch_in

from barlow.objectives._sinkhorn import sinkhorn
from barlow.objectives.swav import Swapping, SwAV


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def unit(z: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(z, dim=1)


SCORES = rows([0.9, 0.1], [0.3, 0.7], [0.6, 0.2])
QUEUE = rows([0.3, 0.6], [0.8, 0.2])
CODES = {
    (0.05, 3): (0.999977218705, 1.65707975269e-6, 0.936407068931),
    (0.25, 3): (0.879702173958, 0.0567654485541, 0.596189499709),
    (0.25, 1): (0.906626399278, 0.0739952679228, 0.66220182947),
}
SMALL = {"prototypes": 5}


def built(width: int = 6, **changes: object) -> Swapping:
    return SwAV(**(SMALL | changes)).build(width=width, seed=0).double()  # type: ignore[arg-type]


def views_in(state: str, n: int, d: int, count: int, step: int = 0) -> list[torch.Tensor]:
    found = [z for pair in range(count) for z in batch_in(state, n, d, seed=10 * step + pair)]
    return found[:count]


@pytest.mark.parametrize("epsilon", [0.05, 0.25])
@pytest.mark.parametrize("iterations", [1, 3])
def test_published_codes(epsilon: float, iterations: int) -> None:
    if (epsilon, iterations) not in CODES:
        pytest.skip("not published")
    found = sinkhorn(SCORES, epsilon, iterations)
    assert found[:, 0].tolist() == pytest.approx(CODES[epsilon, iterations], rel=1e-10)


def test_published_codes_with_a_queue_in_front() -> None:
    found = sinkhorn(torch.cat([QUEUE, SCORES]), 0.25, 3)[2:, 0]
    assert found.tolist() == pytest.approx((0.90158892131, 0.0701104010241, 0.649081728902), rel=1e-10)


def test_codes_equal_the_loops_and_each_row_is_shared_out_whole() -> None:
    scores, _ = batch_in("healthy", 7, 4)
    scores = scores / scores.abs().max()
    found = sinkhorn(scores, 0.05, 3)
    expected = torch.tensor(oracle.sinkhorn(scores.tolist(), 0.05, 3), dtype=torch.float64)
    assert float((found - expected).abs().max()) < 1e-13
    assert torch.allclose(found.sum(1), torch.ones(7, dtype=torch.float64), rtol=0, atol=1e-15)
    many = sinkhorn(scores, 0.05, 500)
    assert torch.allclose(many.sum(0), torch.full((4,), 7 / 4, dtype=torch.float64), atol=1e-6)


def test_a_number_added_to_a_prototypes_scores_changes_no_code_and_one_added_to_a_rows_does() -> None:
    scores = SCORES
    for added in (torch.tensor(3.0), torch.tensor([1.0, -2.0])):
        assert torch.allclose(sinkhorn(scores + added, 0.05, 3), sinkhorn(scores, 0.05, 3), rtol=0, atol=1e-14)
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(sinkhorn(scores[order], 0.05, 3), sinkhorn(scores, 0.05, 3)[order], rtol=0, atol=1e-15)


def test_no_epsilon_is_too_small_for_the_exponential() -> None:
    found = sinkhorn(SCORES.float(), 1e-4, 3)
    assert found.isfinite().all()
    assert torch.allclose(found.sum(1), torch.ones(3))


def of_scores(*scores: torch.Tensor, **changes: object) -> float:
    """The loss of views with these scores: embeddings in three dimensions, of which two are the prototypes."""
    module = built(3, prototypes=2, **changes)
    with torch.no_grad():
        module.prototypes.copy_(torch.eye(3, dtype=torch.float64)[:2])
    views = [torch.cat([s, (1 - s.square().sum(1, keepdim=True)).sqrt()], dim=1) for s in scores]
    return module([tuple(views)], progress=0.0)["swapped"].item()


S, T, SMALL_CROP = (
    rows([0.9, 0.1], [0.3, 0.7], [0.6, 0.2]),
    rows([0.7, 0.3], [0.1, 0.6], [0.2, 0.5]),
    rows([0.6, 0.2], [0.3, 0.5], [0.4, 0.4]),
)


def test_published_losses() -> None:
    # The codes of one view alone: with one assigned, its codes are predicted by the others.
    assert of_scores(S, T, assigned=1) == pytest.approx(0.960924415117, rel=1e-10)
    assert of_scores(T, S, assigned=1) == pytest.approx(1.34499069782, rel=1e-10)
    assert of_scores(S, T) == pytest.approx(1.15295755647, rel=1e-10)
    assert of_scores(S, T, SMALL_CROP) == pytest.approx(0.716376395304, rel=1e-10)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("state", STATES)
def test_three_steps_equal_the_loops_in_value_gradients_and_queue(state: str, count: int) -> None:
    n, d, length = 4, 6, 8
    module = built(d, queue=length, queue_from=0.0)
    queues: list[list[torch.Tensor]] = [[], []]
    for step in range(4):
        views = views_in(state, n, d, count, step)
        leaves = [z.clone().requires_grad_() for z in views]
        found = module([tuple(leaves)], progress=0.0)["swapped"]
        others = [z.clone().requires_grad_() for z in views]
        prototypes = module.prototypes.detach().clone().requires_grad_()
        in_use = [queue[:length] for queue in queues] if len(queues[0]) >= length else None
        expected = oracle.swapped(others, prototypes, in_use)
        assert found.item() == pytest.approx(expected.item(), rel=1e-9)
        ours = torch.autograd.grad(found, [*leaves, module.prototypes])
        assert relative_error(ours, torch.autograd.grad(expected, [*others, prototypes])) < 1e-9
        queues = [[*unit(view), *queue][:length] for view, queue in zip(views, queues, strict=False)]
        for buffer, queue in zip(module.queue, queues, strict=True):
            assert torch.allclose(buffer[: len(queue)], torch.stack(queue), rtol=0, atol=1e-14)
            assert not buffer[len(queue) :].any()


def test_in_float32_the_value_and_the_gradients_are_those_of_the_loops() -> None:
    views = views_in("healthy", 5, 6, 3)
    module = SwAV(**SMALL).build(width=6, seed=0)  # type: ignore[arg-type]
    leaves = [z.float().requires_grad_() for z in views]
    found = module([tuple(leaves)], progress=0.0)["swapped"]
    others = [z.clone().requires_grad_() for z in views]
    prototypes = module.prototypes.detach().double().requires_grad_()
    expected = oracle.swapped(others, prototypes)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    ours = [g.double() for g in torch.autograd.grad(found, [*leaves, module.prototypes])]
    assert relative_error(ours, torch.autograd.grad(expected, [*others, prototypes])) < 1e-4


def test_prototypes_start_with_length_1_and_have_it_again_after_every_update() -> None:
    module = built()
    lengths = module.prototypes.norm(dim=1)
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-7)
    before = module.prototypes.detach().clone()
    with torch.no_grad():
        module.prototypes.mul_(3).add_(0.1)
    expected = unit(3 * before + 0.1)
    module.after_step()
    assert torch.allclose(module.prototypes, expected, rtol=0, atol=1e-12)


def test_a_queue_is_filled_from_its_time_on_and_used_once_it_is_full() -> None:
    n, d = 4, 6
    with_queue, without = built(queue=8, queue_from=0.5), built()
    views = [views_in("healthy", n, d, 2, step) for step in range(4)]

    def loss(module: Swapping, step: int, progress: float) -> float:
        return module([tuple(views[step])], progress=progress)["swapped"].item()

    assert loss(with_queue, 0, 0.4) == loss(without, 0, 0.4)
    assert not with_queue.queue.any()
    for step in (0, 1):  # half full, then full
        assert loss(with_queue, step, 0.5) == loss(without, step, 0.5)
    assert loss(with_queue, 2, 0.5) != pytest.approx(loss(without, 2, 0.5), rel=1e-6)


def test_equal_embeddings_have_uniform_codes_and_cost_the_logarithm_of_the_prototypes() -> None:
    module = SwAV(prototypes=3000).build(width=2, seed=0)
    z = torch.ones(8, 2)
    with torch.no_grad():
        module.prototypes.copy_(module.prototypes[:1].expand(3000, 2))
    assert module([(z, z)], progress=0.0)["swapped"].item() == pytest.approx(math.log(3000), rel=1e-6)


def test_scales_of_rows_change_nothing() -> None:
    a, b = views_in("healthy", 6, 6, 2)
    module = built()
    scaled = a * torch.linspace(0.1, 30, 6, dtype=torch.float64)[:, None]
    assert module([(scaled, b)], progress=0.0)["swapped"].item() == pytest.approx(
        module([(a, b)], progress=0.0)["swapped"].item(), rel=1e-12
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prototypes": 1}, "prototypes is 1: give a whole number from 2"),
        ({"epsilon": 0.0}, "epsilon is 0.0: give a finite number above 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"assigned": 0}, "assigned is 0"),
        ({"queue": -1}, "queue is -1"),
        ({"queue_from": 1.5}, "queue_from is 1.5: give a share of the run"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SwAV(**changes)  # type: ignore[arg-type]


def test_what_it_cannot_use_is_refused_with_what_to_do() -> None:
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double()
    with pytest.raises(ValueError, match=r"2 groups: SwAV compares all views of a step"):
        built()([(z, z), (z, z)], progress=0.0)
    with pytest.raises(ValueError, match="2 views, and assigned is 3"):
        built(assigned=3)([(z, z)], progress=0.0)
    with pytest.raises(ValueError, match="embeddings of 6 features, and prototypes built for 5"):
        built(5)([(z, z)], progress=0.0)
    with pytest.raises(ValueError, match=r"a batch of 4 does not divide a queue of 10: .* or a queue of 8, a multiple"):
        built(queue=10)([(z, z)], progress=0.0)
