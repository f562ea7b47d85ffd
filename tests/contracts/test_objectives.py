"""Every file in barlow/objectives, found on disk, keeps the contract written at `barlow.objectives.Objective`.

So do the variants of it that papers' ablations need, named here.
"""

import ast
import dataclasses
import doctest
import importlib
import inspect
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
import torch
from oracles.gradients import loss_and_gradients, relative_error
from oracles.vectors import STATES, batch_in

import barlow
from barlow import objectives

KINDS = objectives.kinds()
FOLDER = Path(inspect.getfile(objectives)).parent
# Twice as many rows as features suit every default: a batch that is one slice may be permuted as a whole.
N, D = 16, 8

INDIFFERENT = "barlow_twins off-diagonal only"
"""The one variant that does not ask the views to agree: it compares no feature with itself."""

VARIANTS = {
    "barlow_twins diagonal only": ("barlow_twins", {"redundancy": 0.0}),
    INDIFFERENT: ("barlow_twins", {"invariance": 0.0}),
    "barlow_twins samples": ("barlow_twins", {"normalization": "samples"}),
    "barlow_twins none": ("barlow_twins", {"normalization": "none"}),
    "vicreg algorithm_1": ("vicreg", {"convention": "algorithm_1"}),
    "vicreg equations": ("vicreg", {"convention": "equations"}),
    "w_mse zca": ("w_mse", {"whitening": "zca"}),
    "w_mse euclidean": ("w_mse", {"distance": "euclidean"}),
    "w_mse zca euclidean": ("w_mse", {"whitening": "zca", "distance": "euclidean"}),
    "w_mse slicings": ("w_mse", {"slicings": 3}),
    "w_mse shrinkage": ("w_mse", {"shrinkage": 1e-3}),
}
CHECKED = {kind: (kind, {}) for kind in KINDS} | VARIANTS


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=CHECKED)
def objective(request: pytest.FixtureRequest) -> objectives.Objective:
    kind, parameters = CHECKED[request.param]
    return objectives.load(kind)(**parameters)


def test_every_file_of_the_folder_is_found() -> None:
    assert sorted(p.stem for p in FOLDER.glob("[!_]*.py")) == KINDS
    assert {"barlow_twins", "vicreg", "w_mse"} <= set(KINDS)


def test_listing_the_objectives_does_not_import_torch() -> None:
    program = "import sys; from barlow import objectives; assert objectives.kinds(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_unknown_kind_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"'vicrge'.*'vicreg'"):
        objectives.load("vicrge")


def test_the_class_is_found_by_name_in_the_package(kind: str) -> None:
    loaded = objectives.load(kind)
    assert getattr(objectives, loaded.__name__) is loaded
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = objectives.Nonsense


@pytest.mark.parametrize("name", ["BarlowTwins", "VICReg", "WMSE"])
def test_the_three_are_importable_from_barlow(name: str) -> None:
    assert getattr(barlow, name) is getattr(objectives, name)


def test_a_choice_that_there_is_not_is_refused_with_those_there_are(kind: str) -> None:
    for field in dataclasses.fields(objectives.load(kind)):
        if isinstance(field.default, str):
            with pytest.raises(ValueError, match=rf"{field.name} is 'nonsense': choose one of {field.default}, "):
                objectives.load(kind)(**{field.name: "nonsense"})


def test_hyper_parameters_are_keywords_with_defaults_of_an_immutable_dataclass(kind: str) -> None:
    loaded = objectives.load(kind)
    for field in dataclasses.fields(loaded):
        assert field.kw_only, field.name
        assert field.default is not dataclasses.MISSING, field.name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(loaded(), dataclasses.fields(loaded)[0].name, 1)


def test_the_docstring_states_source_and_convention_and_its_example_runs(kind: str) -> None:
    module = importlib.import_module(f"barlow.objectives.{kind}")
    for heading in ("Source:", "Convention:", "Deviation:", "Args:", "Raises:", "Example:"):
        assert heading in objectives.load(kind).__doc__, heading
    assert doctest.testmod(module).attempted >= 1
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("size", [(N, D), (N + 2, N // 2 + 1)])
def test_terms_are_finite_scalars_in_full_precision(objective: objectives.Objective, size: tuple[int, int]) -> None:
    for precision in (torch.float32, torch.float64):
        terms = objective(*(z.to(precision) for z in batch_in("healthy", *size)))
        assert terms
        for name, term in terms.items():
            assert isinstance(name, str)
            assert term.shape == ()
            assert term.dtype == precision
            assert term.isfinite()
            assert float(term) >= 0


@pytest.mark.parametrize("state", STATES)
def test_gradients_are_finite_and_reach_every_view(objective: objectives.Objective, state: str) -> None:
    _, gradients = loss_and_gradients(objective, *(z.float() for z in batch_in(state, 2 * N, D)))
    assert all(g.isfinite().all() for g in gradients)
    assert all(float(g.norm()) > 0 for g in gradients)


@pytest.mark.parametrize("size", [(6, 3), (8, 4)])
def test_the_gradient_equals_finite_differences(objective: objectives.Objective, size: tuple[int, int]) -> None:
    views = [z.requires_grad_() for z in batch_in("healthy", *size)]
    assert torch.autograd.gradcheck(lambda *z: sum(objective(*z).values()), views, eps=1e-5, rtol=1e-6)


def test_inputs_are_left_as_they_were_and_two_calls_agree_to_the_bit(objective: objectives.Objective) -> None:
    views = batch_in("healthy", N, D)
    copies = [z.clone() for z in views]
    state = torch.get_rng_state()
    first = loss_and_gradients(objective, *views)
    torch.manual_seed(1)
    second = loss_and_gradients(objective, *views)
    torch.set_rng_state(state)
    assert all(z.equal(copy) for z, copy in zip(views, copies, strict=True))
    assert first[0] == second[0]
    assert all(g.equal(h) for g, h in zip(first[1], second[1], strict=True))


def test_ambient_random_numbers_are_not_consumed(objective: objectives.Objective) -> None:
    state = torch.get_rng_state()
    loss_and_gradients(objective, *batch_in("healthy", N, D))
    assert torch.get_rng_state().equal(state)


def test_nothing_but_tensors_is_known(kind: str) -> None:
    allowed = {"dataclasses", "itertools", "functools", "math", "typing", "collections", "torch", "numpy", "jaxtyping"}
    allowed |= {"barlow.linalg", "barlow.types", "barlow.objectives._inputs"}
    allowed |= {f"barlow.objectives._{gradient}" for gradient in ("cross_correlation", "covariance", "whitening")}
    for node in ast.walk(ast.parse((FOLDER / f"{kind}.py").read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.module in allowed, node.module
        elif isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= allowed


def test_permuting_the_rows_of_all_views_together_changes_only_rounding(objective: objectives.Objective) -> None:
    views = batch_in("healthy", N, D)
    rows = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    loss, gradients = loss_and_gradients(objective, *views)
    permuted_loss, permuted = loss_and_gradients(objective, *(z[rows] for z in views))
    assert permuted_loss == pytest.approx(loss, rel=1e-12)
    assert relative_error(permuted, [g[rows] for g in gradients]) < 1e-10


@pytest.mark.parametrize("objective", [name for name in CHECKED if name != INDIFFERENT], indirect=True)
def test_pairing_rows_wrongly_costs_more(objective: objectives.Objective) -> None:
    # Of unit variance: an objective that does not normalise charges other scales, whatever the pairs.
    a, b = ((z - z.mean(dim=0)) / z.std(dim=0) for z in batch_in("healthy", N, D))
    assert sum(objective(a, b.roll(1, 0)).values()) > 1.5 * sum(objective(a, b).values())


def test_three_views_give_the_mean_over_their_pairs(objective: objectives.Objective) -> None:
    views = [*batch_in("healthy", N, D), batch_in("healthy", N, D, seed=1)[0]]
    pairs = [loss_and_gradients(objective, *pair)[0] for pair in combinations(views, 2)]
    loss, gradients = loss_and_gradients(objective, *views)
    assert loss == pytest.approx(sum(pairs) / 3, rel=1e-12)
    _, (first, _) = loss_and_gradients(objective, views[0], views[1])
    _, (second, _) = loss_and_gradients(objective, views[0], views[2])
    assert relative_error([gradients[0]], [(first + second) / 3]) < 1e-10


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_computed_in_float32(objective: objectives.Objective, precision: torch.dtype) -> None:
    # Far from 0 and large: in float16 squares overflow (65504).
    a, b = (300 * z.to(precision) for z in batch_in("healthy", 2 * N, D))
    loss, gradients = loss_and_gradients(objective, a.float(), b.float())
    half_loss, half_gradients = loss_and_gradients(objective, a, b)
    assert half_loss == loss
    for half, full in zip(half_gradients, gradients, strict=True):
        assert half.equal(full.to(precision).double()), "rounded once, on its way into half precision"


def test_autocast_changes_nothing(objective: objectives.Objective) -> None:
    views = [z.float().requires_grad_() for z in batch_in("healthy", 2 * N, D)]
    loss = sum(objective(*views).values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = sum(objective(*views).values())
        assert (views[0] @ views[1].T).dtype == torch.bfloat16, "autocast is on again after the objective"
    assert inside.equal(loss)
    assert all(g.equal(h) for g, h in zip(*(torch.autograd.grad(x, views) for x in (inside, loss)), strict=True))


def test_views_of_two_precisions_are_computed_in_the_wider(objective: objectives.Objective) -> None:
    a, b = batch_in("healthy", N, D)
    assert all(term.dtype == torch.float64 for term in objective(a.float(), b).values())


def test_inputs_that_are_no_aligned_batches_are_refused_with_the_remedy(objective: objectives.Objective) -> None:
    a, b = (z.float() for z in batch_in("healthy", N, D))
    for views, remedy in (
        ((a,), r"objective\(za, zb\)"),
        ((), r"objective\(za, zb\)"),
        ((a, b[:-1]), "one shape"),
        ((a, b[:, :-1]), "one shape"),
        ((a[:1], b[:1]), "larger batch"),
        ((a[:0], b[:0]), "larger batch"),
        ((a[0], b[0]), r"\(n, d\)"),
        ((a[None], b[None]), r"\(n, d\)"),
        ((a[:, :0], b[:, :0]), r"\(n, d\)"),
        ((a.long(), b.long()), r"\.float\(\)"),
        ((a, b.long()), r"\.float\(\)"),
        ((a.bool(), b.bool()), r"\.float\(\)"),
    ):
        with pytest.raises(ValueError, match=remedy):
            objective(*views)


def test_a_batch_of_two_rows_works_or_is_refused(objective: objectives.Objective) -> None:
    a, b = (z.float() for z in batch_in("healthy", 2, 4))
    outcome = "finite gradients"
    try:
        _, gradients = loss_and_gradients(objective, a, b)
        assert all(g.isfinite().all() for g in gradients)
    except ValueError as refusal:
        outcome = str(refusal)
    assert outcome == "finite gradients" or "use a batch of" in outcome
