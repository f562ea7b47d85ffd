"""Every file of barlow/methods and barlow/objectives keeps the contract of a step, found on disk.

In chunks as whole, in several processes as in one, resumed as straight on: networks, targets, queues, prototypes.
`steps.py` says how a method is paired with an objective, and which pairs are tried beside those.
"""

import dataclasses
import inspect
from pathlib import Path

import pytest
import torch
from contracts import steps
from equivalence import worlds
from nightly_cases import nightly_but
from nightly_log import record
from torch import Tensor, nn

from barlow import methods, objectives
from barlow.training.global_gradient import chunks
from barlow.types import Outputs

CASES = steps.cases()
KINDS = methods.kinds()
FOLDER = Path(inspect.getfile(methods)).parent


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> steps.Case:
    return CASES[request.param]


def name_of(case: steps.Case) -> str:
    return next(name for name, other in CASES.items() if other is case)


def worst(ours: dict[str, Tensor], reference: dict[str, Tensor]) -> tuple[float, str]:
    return max((error, name) for name, error in steps.difference(ours, reference).items())


def test_every_file_of_the_folder_is_found_and_every_objective_has_a_method() -> None:
    assert sorted(p.stem for p in FOLDER.glob("[!_]*.py")) == KINDS
    assert {case.method for case in CASES.values()} == set(KINDS)
    tried = {type(case.objective) for case in CASES.values()}
    assert {objectives.load(kind) for kind in objectives.kinds()} <= tried


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_is_an_immutable_dataclass_of_keywords_that_says_its_source(kind: str) -> None:
    cls = methods.load(kind)
    assert dataclasses.is_dataclass(cls), f"methods/{kind}.py: the class in __all__ is a dataclass (rule: methods)"
    assert cls.__dataclass_params__.frozen, f"methods/{kind}.py: the recipe's section is frozen"
    assert all(field.kw_only for field in dataclasses.fields(cls)), f"methods/{kind}.py: every field is a keyword"
    for heading in ("Source:", "Args:"):
        assert heading in cls.__doc__, f"methods/{kind}.py: the docstring has no {heading!r} (CONTRIBUTING, Rules)"


@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_widths_that_a_method_promises_are_those_of_its_groups(kind: str, views: int) -> None:
    case = steps.natural_case(kind, views=views)
    section = steps.section(case, batch_norm=True)
    method = section.build(lambda *_, **__: (steps.encoder(kind, True), 4), seed=0).double()
    rows = steps.batch(0, case, steps.SINGLE).rows
    if not section.widths(views):
        with pytest.raises(ValueError, match=f"the method {kind} needs"):
            method(rows)
        return
    outputs = method(rows)
    assert [tuple(z.shape[1] for z in group) for group in outputs.groups] == section.widths(views)
    assert all(len(z) == steps.ROWS for group in outputs.groups for z in group)
    assert all(f.shape == (steps.ROWS, 4) for f in outputs.features)


@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_one_seed_are_equal_and_of_another_are_not(kind: str) -> None:
    section = steps.section(steps.natural_case(kind), batch_norm=True)

    def heads(seed: int) -> list[Tensor]:
        torch.rand(3)  # whatever else has drawn
        method = section.build(lambda *_, **__: (steps.encoder(kind, True), 4), seed=seed)
        return [p for name, p in method.named_parameters() if "encoder" not in name and p.ndim > 1]

    assert all(a.equal(b) for a, b in zip(heads(0), heads(0), strict=True))
    assert not any(a.equal(b) for a, b in zip(heads(0), heads(1), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_forward_changes_no_buffer_but_batch_norms_and_draws_nothing(kind: str) -> None:
    case = steps.natural_case(kind)
    method = (
        steps.section(case, batch_norm=True)
        .build(lambda *_, **__: (steps.encoder(kind, True), 4), seed=0)
        .double()
        .train()
    )
    norms = {name for name, m in method.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    before = {name: value.clone() for name, value in method.state_dict().items()}
    drawn = torch.get_rng_state()
    method(steps.batch(0, case, steps.SINGLE).rows)
    assert torch.get_rng_state().equal(drawn), f"methods/{kind}.py draws random numbers in forward (contract 1)"
    changed = [
        n for n, v in method.state_dict().items() if not v.equal(before[n]) and n.rpartition(".")[0] not in norms
    ]
    assert changed == [], f"methods/{kind}.py changes {changed} in forward (contract 2): move that to after_step"


def test_in_chunks_a_run_is_that_of_whole_batches(case: steps.Case) -> None:
    whole = steps.run(case, batch_norm=False)
    error, where = worst(steps.run(case, batch_norm=False, rows_in_memory=5), whole)
    record(kind="steps in chunks", name=name_of(case), rows_in_memory=5, error=error)
    assert error < 1e-10, where


def test_with_batch_norm_chunks_are_the_exact_objective_over_networks_that_see_a_chunk(case: steps.Case) -> None:
    """One step of the learner against the gradient of a network that embeds each chunk by itself, with a graph."""
    chunked = steps.learner(case, steps.SINGLE, True, rows_in_memory=5)
    plain = steps.learner(case, steps.SINGLE, True)
    batch = steps.batch(0, case, steps.SINGLE)
    plain.method.train()
    plain.hold_features()
    plain.look(0, 0.0, len(batch.rows.views), begins_epoch=True)
    made: list[Outputs] = [plain.method(batch.rows[part]) for part in chunks(steps.ROWS, 5)]
    groups = [
        tuple(torch.cat([outputs.groups[g][i] for outputs in made]) for i in range(len(made[0].groups[g])))
        for g in range(len(made[0].groups))
    ]
    terms = plain._compared(groups, batch, 0.0)
    torch.stack(list(terms.values())).sum().backward()
    expected = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    found: dict[str, Tensor] = {}
    update = chunked.optimizer.step

    def remember() -> None:
        found.update({name: p.grad.clone() for name, p in chunked.named_parameters() if p.grad is not None})
        update()

    chunked.optimizer.step = remember  # type: ignore[method-assign]
    with chunked.training():
        chunked.step(batch, 0.05, 0.0)
    largest = max(float(g.abs().max()) for g in expected.values())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) <= 1e-9 * largest, name
    running = {n: v for n, v in plain.method.state_dict().items() if "running" in n}
    assert running or case.method in steps.WITHOUT_BATCH_NORM
    assert all(torch.allclose(chunked.method.state_dict()[n], v, rtol=1e-12, atol=0) for n, v in running.items())


def test_a_resumed_run_goes_on_to_the_bit(case: steps.Case) -> None:
    straight = steps.run(case, batch_norm=True)
    for step in (1, 3):
        resumed = steps.run(case, batch_norm=True, resume_at=step)
        assert [name for name in straight if not straight[name].equal(resumed[name])] == []


@pytest.mark.parametrize(
    ("processes", "share"), nightly_but([(2, "a sixth"), (2, "all"), (3, "all")], lambda case: case == (2, "a sixth"))
)
def test_several_processes_with_different_rows_make_the_run_of_one(processes: int, share: str, tmp_path: Path) -> None:
    for done in worlds.start([steps.__file__, str(tmp_path), share], processes):
        assert done.returncode == 0, done.stderr
    several: list[dict[str, dict[str, Tensor]]] = [torch.load(tmp_path / f"{rank}.pt") for rank in range(processes)]
    alone = steps.found(steps.SINGLE, all_cases=share == "all")
    assert len(alone) >= 2 * len(CASES) // (1 if share == "all" else 6)
    wrong = {}
    for found in several:
        assert found.keys() == alone.keys()
        for name, run in found.items():
            assert all(run[n].equal(value) for n, value in several[0][name].items()), f"{name}: processes differ"
            error, where = worst(run, alone[name])
            record(kind="steps in processes", name=name, processes=len(several), error=error)
            if error > (1e-10 if name.endswith("without batch norm") else 1e-8):
                wrong[name] = (error, where)
    assert wrong == {}
