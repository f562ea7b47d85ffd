"""A step of the learner: what is called with what, what is trained, what is saved, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from contracts import steps
from contracts.prototypes import Prototypes
from torch import Tensor, nn

from barlow.optim.optimizers import build_optimizer
from barlow.training.comparison import Comparison
from barlow.training.learner import Learner, named_parameters
from barlow.types import Embedding, Ids, Rows, Terms

MOCO = steps.Case("distillation", steps.objective("moco"))


def step(learner: Learner, case: steps.Case, number: int = 0, progress: float = 0.0) -> Any:
    with learner.training():
        return learner.step(steps.batch(number, case, steps.SINGLE), 0.05, progress)


class Remembering(nn.Module):
    """An objective that remembers what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, Any, Any]] = []

    def forward(
        self, groups: list[tuple[Embedding, ...]], *, ids: Ids, progress: float, absent: Ids | None = None
    ) -> Terms:
        assert absent is None
        self.calls.append((len(groups), ids, progress))
        return {"distance": sum((p - t).square().mean() for p, t in groups)}


def with_objective(case: steps.Case, objective: Any) -> Learner:
    made = steps.learner(case, steps.SINGLE, batch_norm=False)
    options = {"precision": "float32", "seed": 0, "all_rows": steps.all_rows(steps.SINGLE)}
    return Learner(made.method, objective, made.optimizer, steps.SINGLE, **options)


def test_an_objective_with_state_is_called_once_a_step_with_all_groups() -> None:
    objective = Remembering()
    learner = with_objective(MOCO, objective)
    step(learner, MOCO, 0, 0.25)
    assert [groups for groups, _, _ in objective.calls] == [2]
    _, ids, progress = objective.calls[0]
    assert progress == 0.25
    assert ids.equal(steps.batch(0, MOCO, steps.SINGLE).rows.known["ids"])


def test_an_objective_without_state_is_called_for_each_group_and_the_mean_is_taken() -> None:
    calls = []

    def distance(p: Tensor, t: Tensor) -> dict[str, Tensor]:
        calls.append((p - t).square().mean())
        return {"distance": calls[-1]}

    outcome = step(with_objective(MOCO, distance), MOCO)
    assert len(calls) == 2
    assert outcome.terms["distance"].equal(torch.stack(calls).mean())


def test_an_objective_with_parameters_is_trained_saved_and_loaded() -> None:
    case = steps.Case("siamese", Prototypes(frozen_until=0.0))
    learner = steps.learner(case, steps.SINGLE, batch_norm=False)
    before = {name: value.clone() for name, value in learner.state()[0].items()}
    step(learner, case)
    tensors, rest = learner.state()
    assert {"objective/prototypes", "objective/queue"} <= set(tensors)
    assert not tensors["objective/prototypes"].equal(before["objective/prototypes"])
    assert not tensors["objective/queue"].equal(before["objective/queue"])
    assert "optimizer/objective.prototypes/momentum_buffer" in tensors
    again = steps.learner(case, steps.SINGLE, batch_norm=False)
    again.load(tensors, rest)
    assert all(value.equal(tensors[name]) for name, value in again.state()[0].items())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("objective/queue"), "objective/queue is missing or unknown"),
        (lambda t: t.pop("method/encoder.first.weight"), "encoder.first.weight is missing or unknown"),
        (lambda t: t.update({"objective/more": torch.ones(1)}), "objective/more is missing or unknown"),
        (lambda t: t.update({"ema/x": torch.ones(1)}), "ema is missing or unknown"),
        (
            lambda t: t.update({"objective/queue": torch.ones(3, 3)}),
            r"objective/queue has shape \(3, 3\), and \(24, 3\)",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change: Callable[[dict[str, Tensor]], Any], named: str) -> None:
    case = steps.Case("siamese", Prototypes())
    learner = steps.learner(case, steps.SINGLE, batch_norm=False)
    tensors, rest = learner.state()
    change(tensors)
    with pytest.raises(ValueError, match=named):
        learner.load(tensors, rest)


def test_after_an_update_the_method_is_told_how_far_the_run_was() -> None:
    learner = steps.learner(MOCO, steps.SINGLE, batch_norm=False)
    told: list[tuple[float, bool]] = []
    before = learner.method.encoder.first.weight.clone()
    learner.method.after_step = lambda progress: told.append(  # type: ignore[method-assign]
        (progress, learner.method.encoder.first.weight.equal(before))
    )
    step(learner, MOCO, 0, 0.5)
    assert told == [(0.5, False)], "once, after the update"


def test_the_two_networks_of_a_method_have_groups_of_their_own() -> None:
    case = steps.Case("distillation", steps.objective("moco"), keys={"batch_norm_rows": 4})
    learner = steps.learner(case, steps.SINGLE, batch_norm=True)
    with learner.training():
        learner.step(steps.batch(0, case, steps.SINGLE), 0.05, 0.0)
        online, target = (groups._drawn.group for groups in learner._groups)
        assert not online.equal(target), "a query and its key would share their batch statistics"
        learner.step(steps.batch(1, case, steps.SINGLE), 0.05, 0.2)
        assert not learner._groups[0]._drawn.group.equal(online), "drawn anew in each step"


def test_labels_and_told_draws_reach_the_objective_in_the_order_of_the_rows() -> None:
    found: dict[str, Tensor] = {}

    def remember(logits: Tensor, *, labels: Tensor, rotation: Tensor) -> dict[str, Tensor]:
        found.update(labels=labels, rotation=rotation)
        return {"loss": logits.square().mean()}

    case = steps.Case("classifier", None, (6,))
    step(with_objective(steps.Case("classifier", steps.objective("rotation"), (6,)), remember), case)
    known = steps.batch(0, case, steps.SINGLE).rows.known
    assert found["labels"].equal(known["labels"])
    assert found["rotation"].equal(known["rotation"])


class Pairwise(nn.Module):
    """As other libraries write their losses: a module that takes two embeddings."""

    def forward(self, za: Tensor, zb: Tensor) -> dict[str, Tensor]:
        return {"distance": (za - zb).square().mean()}


class Remembered(Pairwise):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("queue", torch.zeros(3))


def test_a_module_without_state_is_called_like_any_other_and_one_with_state_must_take_all_groups() -> None:
    pairs = [(torch.ones(2, 3), torch.zeros(2, 3))] * 2
    assert Comparison(Pairwise())(pairs, {})["distance"] == 1
    asked = {"ids": torch.arange(2), "progress": 0.5}
    assert Comparison(Remembering())(pairs, asked)["distance"] == 2, "once, with both groups"
    with pytest.raises(
        ValueError, match=r"Remembered has state \(queue\) and its forward takes za, zb: let it take `groups`"
    ):
        Comparison(Remembered())


def test_a_clustering_gets_every_image_once_in_the_order_of_the_ids() -> None:
    learner = steps.learner(MOCO, steps.SINGLE, batch_norm=True)
    before = {name: value.clone() for name, value in learner.state()[0].items()}
    learner.method.train()
    ids, z = learner.embed(views=2)
    assert ids.tolist() == list(range(steps.IMAGES))
    assert learner.method.training, "the mode is what it was"
    assert all(value.equal(before[name]) for name, value in learner.state()[0].items()), "nothing was changed"
    learner.method.eval()
    centres = steps.images(ids, 0, 6, 99)
    with torch.no_grad():
        expected = learner.method.predictor(learner.method.projector(learner.method.encoder(centres)))  # type: ignore[operator]
    torch.testing.assert_close(z, expected.float())


def test_an_image_that_stands_in_for_another_comes_once_and_the_ids_are_in_order() -> None:
    learner = steps.learner(MOCO, steps.SINGLE, batch_norm=False)
    ids = torch.tensor([3, 1, 1, 2])
    learner.all_rows = lambda: [Rows([steps.images(part, 0, 6, 99)], {"ids": part}) for part in ids.split(2)]
    found, z = learner.embed(views=2)
    assert found.tolist() == [1, 2, 3]
    learner.all_rows = lambda: [Rows([steps.images(found, 0, 6, 99)], {"ids": found})]
    torch.testing.assert_close(z, learner.embed(views=2)[1])


def test_all_images_are_embedded_by_the_network_that_is_asked_for() -> None:
    learner = steps.learner(MOCO, steps.SINGLE, batch_norm=True)
    _, query = learner.embed(views=2)
    _, key = learner.embed(2, 0, 1)
    learner.method.eval()
    with torch.no_grad():
        centres = steps.images(torch.arange(steps.IMAGES), 0, 6, 99)
        (online, target), _ = learner.method(Rows([centres] * 2, {"ids": torch.arange(steps.IMAGES)})).groups
    torch.testing.assert_close(query, online.float())
    torch.testing.assert_close(key, target.float())
    assert not key.equal(query)


SIAMESE = steps.Case("siamese", steps.objective("vicreg"), (6, 4))


def test_all_images_are_embedded_in_views_that_are_drawn_anew_for_each_step() -> None:
    learner = steps.learner(SIAMESE, steps.SINGLE, batch_norm=True)
    ids, second = learner.embed(2, 7, 1, augmented=True)
    assert ids.tolist() == list(range(steps.IMAGES))
    learner.method.eval()
    with torch.no_grad():
        small = steps.images(ids, 1, 4, 107)
        torch.testing.assert_close(second, learner.method.projector(learner.method.encoder(small)).float())
    assert second.equal(learner.embed(2, 7, 1, augmented=True)[1])
    assert not second.equal(learner.embed(2, 8, 1, augmented=True)[1])


def test_networks_that_embed_all_images_as_in_training_use_the_statistics_of_batches_and_keep_theirs() -> None:
    learner = steps.learner(SIAMESE, steps.SINGLE, batch_norm=True)
    before = {name: value.clone() for name, value in learner.state()[0].items()}
    with learner.training():
        _, z = learner.embed(2, 0, augmented=True, training=True)
        now = learner.state()[0]
        assert all(value.equal(before[name]) for name, value in now.items()), "nothing was changed"
        whole = list(learner.all_rows(0))
        with torch.no_grad():
            first = learner.method(whole[0]).groups[0][0]
        for name, buffer in learner.method.named_buffers():
            buffer.copy_(before[f"method/{name}"])
    torch.testing.assert_close(z[whole[0].known["ids"]], first.float())
    assert not z.equal(learner.embed(2, 0, augmented=True)[1])


@pytest.mark.parametrize("views", [2, 3])
def test_the_hook_embeds_with_as_many_views_as_the_method_is_used_to(views: int) -> None:
    case = steps.Case("distillation", steps.objective("byol"), (6,) * views)
    seen = []

    class Hooked(Remembering):
        def before_epoch(self, embed: Any) -> None:
            embed()

    learner = with_objective(case, Hooked())
    learner.method.register_forward_pre_hook(lambda method, given: seen.append(len(given[0].views)))
    step(learner, case)
    assert set(seen) == {views}


def test_groups_of_batch_norm_depend_on_the_seed() -> None:
    case = steps.Case("distillation", steps.objective("moco"), keys={"batch_norm_rows": 4})

    def drawn(seed: int) -> Tensor:
        learner = steps.learner(case, steps.SINGLE, batch_norm=True)
        learner.seed = seed
        with learner.training():
            learner.step(steps.batch(0, case, steps.SINGLE), 0.05, 0.0)
            return learner._groups[0]._drawn.group

    assert drawn(3).equal(drawn(3))
    assert not drawn(3).equal(drawn(4))


class Dropping(nn.Module):
    """An objective with a layer that draws."""

    def forward(self, groups: list[tuple[Embedding, ...]]) -> Terms:
        return {"loss": nn.functional.dropout(groups[0][0], 0.5).square().mean()}


def test_a_layer_that_draws_inside_an_objective_draws_by_seed_and_step() -> None:
    def losses(*numbers: int) -> list[float]:
        torch.rand(3)  # whatever else has drawn
        learner = with_objective(MOCO, Dropping())
        groups = [(torch.ones(8, 4), torch.ones(8, 4))]
        return [float(learner._compared(groups, steps.batch(n, MOCO, steps.SINGLE), 0.0)["loss"]) for n in numbers]

    assert losses(0, 1) == losses(0, 1)
    assert losses(0)[0] != losses(1)[0]


class Hidden(Remembering):
    """Its state would not be in a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(2), persistent=False)


class Extra(Remembering):
    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 1}


class Holding:
    """No module, and holds one."""

    def __init__(self) -> None:
        self.scores = nn.Linear(3, 3)

    def __call__(self, *z: Tensor) -> Terms:
        return {"loss": self.scores(z[0]).mean()}


class Positional(nn.Module):
    def forward(self, groups: list[tuple[Embedding, ...]], progress: float = 0.0) -> Terms:
        return {"loss": groups[0][0].mean() * progress}


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Hidden(), r"Hidden has state that a checkpoint would not hold \(seen\)"),
        (Extra(), r"Extra has state that a checkpoint would not hold \(_extra_state\)"),
        (Holding(), r"Holding holds a network \(scores\) and is no nn.Module"),
        (Positional(), r"asks for progress, which has to be keyword-only: write forward\(self, groups, \*, progress\)"),
    ],
)
def test_an_objective_that_would_be_trained_wrongly_is_refused(objective: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Comparison(objective)


@pytest.mark.parametrize("returned", [torch.ones(()), {}, {"loss": 1.0}, {"loss": torch.ones(2)}, None], ids=str)
def test_what_is_no_dictionary_of_scalars_is_refused(returned: Any) -> None:
    with pytest.raises(ValueError, match="it returns a dictionary of named scalar tensors"):
        Comparison(lambda *z: returned)([(torch.ones(2, 3), torch.ones(2, 3))], {})


def test_a_hook_before_an_epoch_needs_the_images() -> None:
    class Hooked(Remembering):
        def before_epoch(self, embed: Any) -> None: ...

    made = steps.learner(MOCO, steps.SINGLE, batch_norm=False)
    with pytest.raises(ValueError, match="Hooked has a before_epoch, which needs all_rows"):
        Learner(made.method, Hooked(), made.optimizer, steps.SINGLE, precision="float32", seed=0)


def test_a_hook_before_steps_says_when_it_is_called() -> None:
    class Hooked(Remembering):
        def before_step(self, embed: Any, *, progress: float) -> None: ...

    with pytest.raises(ValueError, match=r"Hooked has a before_step and no due: write due\(self, progress\)"):
        with_objective(MOCO, Hooked())


def test_the_hook_is_called_before_each_epoch_and_not_within_one() -> None:
    called = []

    class Hooked(Remembering):
        def before_epoch(self, embed: Any) -> None:
            called.append(len(self.calls))

    learner = with_objective(MOCO, Hooked())
    with learner.training():
        for number in range(2 * steps.EPOCH):
            learner.step(steps.batch(number, MOCO, steps.SINGLE), 0.05, 0.0)
    assert called == [0, steps.EPOCH]


def test_a_look_before_a_step_comes_when_it_is_due() -> None:
    called = []

    class Hooked(Remembering):
        def due(self, progress: float) -> bool:
            return progress >= 0.25 * (len(called) + 1)

        def before_step(self, embed: Any, *, progress: float) -> None:
            called.append((len(self.calls), progress))

    learner = with_objective(MOCO, Hooked())
    with learner.training():
        for number in range(6):
            assert learner.looks(number, number / 8, begins_epoch=True) is (number in (2, 4))
            learner.step(steps.batch(number, MOCO, steps.SINGLE), 0.05, number / 8)
    assert called == [(2, 0.25), (4, 0.5)]
    with learner.training():
        learner.looking = False
        learner.step(steps.batch(6, MOCO, steps.SINGLE), 0.05, 1.0)
    assert len(called) == 2


def test_what_the_optimizer_remembers_of_parameters_that_a_look_renews_is_forgotten() -> None:
    class Renewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.shift = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))

        def before_epoch(self, embed: Any) -> list[nn.Parameter]:
            return [self.scale]

        def forward(self, groups: list[tuple[Embedding, Embedding]]) -> Terms:
            return {"distance": sum((p * self.scale + self.shift - t).square().mean() for p, t in groups)}

    objective = Renewing()
    made = steps.learner(MOCO, steps.SINGLE, batch_norm=False)
    optimizer = build_optimizer(named_parameters(made.method, objective), kind="sgd", lr=0.1)
    options = {"precision": "float32", "seed": 0, "all_rows": steps.all_rows(steps.SINGLE)}
    learner = Learner(made.method, objective, optimizer, steps.SINGLE, **options)
    step(learner, MOCO, 1)
    kept = {name: optimizer.state[p]["momentum_buffer"].clone() for name, p in objective.named_parameters()}
    learner.look(3, 0.5, 2, begins_epoch=True)
    assert objective.scale not in optimizer.state
    assert optimizer.state[objective.shift]["momentum_buffer"].equal(kept["shift"])
    tensors, rest = learner.state()
    learner.load({name: value.clone() for name, value in tensors.items()}, rest)
    step(learner, MOCO, 4)
    assert "momentum_buffer" in optimizer.state[objective.scale]


def test_an_objective_in_two_networks_of_several_widths_is_gathered_apart() -> None:
    """One process; in several, tests/contracts/test_methods.py has predictions and targets of other widths."""
    groups = [(torch.ones(2, 3), torch.ones(2, 5))]
    assert [z.shape for z in steps.SINGLE.gather(groups[0])] == [(2, 3), (2, 5)]


def test_the_hook_before_a_run_gets_the_groups_of_each_image_once_and_not_where_a_run_is_resumed() -> None:
    seen: list[list[int]] = []

    class Hooked(Remembering):
        def before_run(self, groups: Any) -> None:
            seen.append([len(group[0][0]) for group in groups()])

    learner = with_objective(MOCO, Hooked())
    with learner.training():
        for number in range(steps.EPOCH + 1):
            learner.step(steps.batch(number, MOCO, steps.SINGLE), 0.05, 0.0)
    assert seen == [[24, steps.IMAGES - 24]], "the last batch is filled up with its last row"
    resumed = with_objective(MOCO, Hooked())
    with resumed.training():
        resumed.step(steps.batch(steps.EPOCH, MOCO, steps.SINGLE), 0.05, 0.0)
    assert len(seen) == 1


def test_a_hook_before_a_run_needs_the_images() -> None:
    class Hooked(Remembering):
        def before_run(self, groups: Any) -> None: ...

    made = steps.learner(MOCO, steps.SINGLE, batch_norm=False)
    with pytest.raises(ValueError, match="Hooked has a before_run, which needs all_rows"):
        Learner(made.method, Hooked(), made.optimizer, steps.SINGLE, precision="float32", seed=0)
