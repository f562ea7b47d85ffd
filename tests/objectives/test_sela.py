"""SeLa: its classifiers, its labels of equal masses, and when these are made."""

import math
from typing import Any

import pytest
import torch
from oracles import clusters as oracle
from oracles.gradients import loss_and_gradients, relative_error
from oracles.vectors import STATES, batch_in
from torch import Tensor

from barlow.objectives import _equal_masses
from barlow.objectives._equal_masses import equal_masses, labels_of_equal_masses
from barlow.objectives.sela import SeLa, SelfLabels

IMAGES, WIDTH = 40, 6
P = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.55, 0.45]], dtype=torch.float64)


def built(**changes: Any) -> SelfLabels:
    section = SeLa(**({"clusters": 5, "heads": 2, "updates": 4} | changes))
    return section.build(width=WIDTH, images=IMAGES, seed=0).double()


def images(seed: int = 0, count: int = IMAGES) -> Any:
    z = batch_in("healthy", IMAGES, WIDTH, seed=seed)[0][:count]

    def embed(member: int = 0, *, augmented: bool, training: bool = False) -> tuple[Tensor, Tensor]:
        assert (member, augmented, training) == (0, True, False)
        return torch.arange(count), z

    return embed


def test_published_assignment_and_labels() -> None:
    found = equal_masses(10 * P.log(), tolerance=1e-13)[:, 0].tolist()
    assert found == pytest.approx((0.995735961154, 0.737872071492, 4.65538124969e-8, 0.2663919208), rel=1e-9)
    assert labels_of_equal_masses(10 * P.log(), tolerance=0.1).tolist() == [0, 0, 1, 1]
    assert P.argmax(dim=1).tolist() == [0, 0, 1, 0]


def test_the_assignment_equals_the_loops_and_fills_all_clusters_equally() -> None:
    p = torch.softmax(batch_in("healthy", 12, 4)[0], dim=1)
    found = equal_masses(2 * p.log(), tolerance=1e-13)
    expected = torch.tensor(oracle.equal_masses(p.tolist(), 2, 500), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.sum(1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(found.sum(0), torch.full((4,), 3.0, dtype=torch.float64))


def test_no_power_is_too_high_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    p = torch.softmax(40 * batch_in("healthy", 30, 5)[0], dim=1).clamp_min(1e-30)
    found = equal_masses(25 * p.log(), tolerance=0.1)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(1), torch.ones(30, dtype=torch.float64))
    monkeypatch.setattr(_equal_masses, "LARGEST", 1.0)  # so that factors go into the matrix at every turn
    assert equal_masses(25 * p.log(), tolerance=0.1).argmax(dim=1).equal(found.argmax(dim=1))


def test_it_ends_where_it_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_equal_masses, "MOST_ITERATIONS", 3)
    assert equal_masses(10 * P.log(), tolerance=1e-300).isfinite().all()


@pytest.mark.parametrize("state", STATES)
def test_value_and_gradients_equal_the_loops(state: str) -> None:
    module = built()
    module.before_step(images(), progress=0.0)
    views, ids = batch_in(state, 7, WIDTH), torch.tensor([3, 39, 0, 1, 20, 29, 4])
    labels = module.labels[:, ids].tolist()
    parameters = [module.weight.detach().clone(), module.bias.detach().clone()]

    def ours(a: Tensor, b: Tensor, w: Tensor, bias: Tensor) -> dict[str, Tensor]:
        return torch.func.functional_call(module, {"weight": w, "bias": bias}, ([(a,), (b,)],), {"ids": ids})

    found = loss_and_gradients(ours, *views, *parameters)
    expected = loss_and_gradients(
        lambda a, b, w, bias: {"l": oracle.sela([a, b], w, bias, labels)}, *views, *parameters
    )
    assert found[0] == pytest.approx(expected[0], rel=1e-9)
    for one, other in zip(found[1], expected[1], strict=True):
        assert relative_error([one], [other]) < 1e-9


def test_labels_are_those_of_the_probabilities_to_a_power_for_each_head() -> None:
    module = built(sharpness=4.0)
    module.before_step(images(), progress=0.0)
    _, z = images()(augmented=True)
    for head in range(2):
        p = torch.softmax(z @ module.weight[head].T + module.bias[head], dim=1).detach()
        q = torch.tensor(oracle.equal_masses(p.tolist(), 4.0, 300))
        assert module.labels[head].equal(q.argmax(dim=1))
    assert not module.labels[0].equal(module.labels[1])


def test_before_the_first_update_clusters_are_filled_equally_at_random() -> None:
    labels = built().labels
    assert [labels[head].bincount().tolist() for head in range(2)] == [[8] * 5] * 2
    assert not labels[0].equal(torch.arange(IMAGES) % 5)
    assert not labels[0].equal(labels[1])


def test_updates_come_at_the_squares_of_equal_shares_of_the_run() -> None:
    module, steps = built(), 100
    due = []
    for step in range(steps):
        if module.due(step / steps):
            module.before_step(images(), progress=step / steps)
            due.append(step)
    assert due == [0, 7, 25, 57], "(i / 4)² of 100, rounded up"
    assert int(module.updated) == 4
    assert not module.due(1.0)


def test_updates_that_are_due_at_once_are_made_once() -> None:
    module = built(updates=100)
    assert module.due(0.0)
    module.before_step(images(), progress=0.5)
    assert not module.due(0.5)
    assert int(module.updated) == math.floor(100 * math.sqrt(0.5)) + 1


def test_a_state_that_is_loaded_says_how_many_updates_were_made() -> None:
    done, other = built(), built()
    done.before_step(images(), progress=0.3)
    assert other.due(0.3)
    other.load_state_dict(done.state_dict())
    assert not other.due(0.3)
    assert other.due(0.6)


def test_images_that_could_not_be_read_have_no_label_and_are_left_out() -> None:
    module = built()
    module.before_step(images(count=30), progress=0.0)
    assert (module.labels[:, 30:] == -1).all()
    z = batch_in("healthy", 4, WIDTH)[0]
    both = module([(z[:3],)], ids=torch.tensor([1, 2, 35]))["clusters"]
    assert both.item() == pytest.approx(module([(z[:2],)], ids=torch.arange(1, 3))["clusters"].item(), rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clusters": 1}, r"clusters is 1: give a whole number from 2 to"),
        ({"heads": 0}, r"heads is 0"),
        ({"updates": 0}, r"updates is 0"),
        ({"sharpness": 0.0}, r"sharpness is 0.0: give a finite number above 0"),
        ({"tolerance": -1.0}, r"tolerance is -1.0"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SeLa(**changes)


def test_more_clusters_than_images_are_refused_with_the_number_that_fits() -> None:
    with pytest.raises(ValueError, match=r"clusters is 3,000, and there are 96 images: give at most 96"):
        SeLa().build(width=4, images=96, seed=0)
    with pytest.raises(ValueError, match=r"clusters is 5, and there are 3 images: give at most 3"):
        built().before_step(images(count=3), progress=0.0)


def test_what_it_cannot_use_is_refused() -> None:
    z = batch_in("healthy", 4, WIDTH)[0]
    with pytest.raises(ValueError, match=r"embeddings of 3 features, and state built for 6"):
        built()([(z[:, :3],)], ids=torch.arange(4))
    with pytest.raises(ValueError, match=r"ids is torch.int64 of shape \(3,\)"):
        built()([(z,)], ids=torch.arange(3))
