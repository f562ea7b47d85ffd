"""Every file in barlow/objectives, found on disk, keeps the contract written at `barlow.objectives.Objective`.

The rules that are named where a check fails are that docstring's. What holds of objectives with state alone is in
test_objectives_with_state.py, which also has objectives that break a rule.
"""

import ast
import dataclasses
import doctest
import importlib
import inspect
import random
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.calls import CASES, INDIFFERENT, ONE_VIEW, OWN_TARGETS, SECTIONS, TOGETHER, WIDE, Case
from oracles.gradients import relative_error
from oracles.vectors import STATES

import barlow
from barlow import objectives
from barlow.recipe import files

KINDS = objectives.kinds()
FOLDER = Path(inspect.getfile(objectives)).parent
# Twice as many rows as features suit every default: a batch that is one slice may be permuted as a whole.
N, D = 16, 8

VIEWS = [name for name, case in CASES.items() if case.takes == "views"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=SECTIONS)
def section(request: pytest.FixtureRequest) -> type:
    return SECTIONS[request.param]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_every_file_of_the_folder_is_found() -> None:
    assert sorted(p.stem for p in FOLDER.glob("[!_]*.py")) == KINDS
    assert {"barlow_twins", "byol", "moco", "rotation", "simclr", "simsiam", "vicreg", "w_mse"} <= set(KINDS)
    takes = {(case.takes, case.has_state) for case in CASES.values()}
    assert takes >= {("views", False), ("a prediction and its target", False), ("one", False)}
    assert takes >= {("views", True), ("a prediction and its target", True)}


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


@pytest.mark.parametrize("kind", sorted({files.read(name)["objective"]["kind"] for name in files.names()}))
def test_the_objective_of_every_recipe_is_importable_from_barlow(kind: str) -> None:
    cls = objectives.load(kind)
    assert cls.__name__ in barlow.__all__, "src/barlow/__init__.py names it three times"
    assert getattr(barlow, cls.__name__) is cls


def test_a_choice_that_there_is_not_is_refused_with_those_there_are(section: type) -> None:
    for field in dataclasses.fields(section):
        if isinstance(field.default, str):
            with pytest.raises(ValueError, match=rf"{field.name} is 'nonsense': choose one of {field.default}, "):
                section(**{field.name: "nonsense"})


def test_hyper_parameters_are_keywords_with_defaults_of_an_immutable_dataclass(section: type) -> None:
    for field in dataclasses.fields(section):
        assert field.kw_only, f"rule 3: {field.name} is no keyword: @dataclass(frozen=True, kw_only=True)"
        assert field.default is not dataclasses.MISSING, f"rule 3: {field.name} has no default: give the paper's value"
    with pytest.raises(dataclasses.FrozenInstanceError):
        section().anything = 1


def test_it_is_called_or_builds_what_is_called_and_not_both(section: type) -> None:
    state = objectives.has_state(section())
    assert state is not callable(section()), "rule 7: with state it has build, and __call__ without, never both"
    assert section.__dataclass_params__.frozen, "rule 7: state is the module's, the dataclass is frozen"


def test_the_docstring_states_source_and_convention_and_its_example_runs(kind: str) -> None:
    module = importlib.import_module(f"barlow.objectives.{kind}")
    headings = ["Source:", "Convention:", "Deviation:", "Raises:", "Example:"]
    for heading in [*headings, *(["Args:"] if dataclasses.fields(objectives.load(kind)) else [])]:
        assert heading in objectives.load(kind).__doc__, heading
    assert doctest.testmod(module).attempted >= 1
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("size", [(N, D), (N + 2, N // 2 + 1)])
def test_terms_are_finite_scalars_in_full_precision(case: Case, size: tuple[int, int]) -> None:
    for precision in (torch.float32, torch.float64):
        terms = case(*(z.to(precision) for z in case.inputs("healthy", *size)))
        assert terms, "rule 2: there are no terms"
        for name, term in terms.items():
            assert isinstance(name, str), "rule 2: terms have names"
            assert term.shape == (), f"rule 2: {name} is no scalar"
            assert term.dtype == precision, f"rule 2: {name} is {term.dtype}, the embeddings are {precision}"
            assert term.isfinite(), f"rule 6: {name} is {term}"


@pytest.mark.parametrize("state", STATES)
def test_gradients_are_finite_and_reach_every_view(case: Case, state: str) -> None:
    _, gradients = case.loss_and_gradients(*(z.float() for z in case.inputs(state, 2 * N, D)))
    assert all(g.isfinite().all() for g in gradients), "rule 6: a gradient is not finite"
    assert all(float(g.norm()) > 0 for g in gradients), "rule 6: a view, prediction or logit gets no gradient"


def test_a_target_gets_no_gradient(case: Case) -> None:
    group = [z.requires_grad_() for z in case.inputs("healthy", N, D)]
    loss = sum(case(*group).values())
    constants = [z for z in group if not any(z is one for one in case.differentiable(group))]
    gradients = torch.autograd.grad(loss, constants, allow_unused=True) if constants else []
    assert all(g is None or float(g.norm()) == 0 for g in gradients), "rule 6: a target gets a gradient: detach it"


@pytest.mark.parametrize("size", [(6, 3), (8, 4)])
@pytest.mark.parametrize("case", [name for name in CASES if name not in OWN_TARGETS | WIDE], indirect=True)
def test_the_gradient_equals_finite_differences(case: Case, size: tuple[int, int]) -> None:
    group = case.inputs("healthy", *size)
    leaves = [z.requires_grad_() for z in case.differentiable(group)]

    def loss(*given: torch.Tensor) -> torch.Tensor:
        left = list(given)
        return sum(case(*(left.pop(0) if any(z is leaf for leaf in leaves) else z for z in group)).values())

    assert torch.autograd.gradcheck(loss, leaves, eps=1e-5, rtol=1e-6)


def test_inputs_are_left_as_they_were_and_two_calls_agree_to_the_bit(case: Case) -> None:
    group = case.inputs("healthy", N, D)
    copies = [z.clone() for z in group]
    state = torch.get_rng_state()
    first = case.loss_and_gradients(*group)
    torch.manual_seed(1)
    second = case.loss_and_gradients(*group)
    torch.set_rng_state(state)
    case(*group)  # not on leaves made from them
    assert all(z.equal(copy) for z, copy in zip(group, copies, strict=True)), "rule 4: it changes its inputs"
    assert first[0] == second[0], "rule 4: the same inputs give another loss"
    assert all(g.equal(h) for g, h in zip(first[1], second[1], strict=True)), "rule 4: they give another gradient"


def test_ambient_random_numbers_are_not_consumed(case: Case) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    case.loss_and_gradients(*case.inputs("healthy", N, D))
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert after[0].equal(before[0]), "rule 4: it draws from torch's ambient numbers: use a torch.Generator of its own"
    assert after[1:] == before[1:], "rule 4: it draws from numpy's or Python's ambient numbers"


ALLOWED = {"dataclasses", "itertools", "functools", "math", "typing", "collections", "collections.abc"}
ALLOWED |= {"torch", "torch.nn", "torch.nn.functional", "torch.autograd.function", "numpy", "jaxtyping"}
ALLOWED |= {"barlow.objectives.moco"}  # PCL is its loss and another, and InfoMin has its queue
ALLOWED |= {"barlow.linalg", "barlow.kmeans", "barlow.orders", "barlow.types"}


def test_nothing_but_tensors_is_known(section: type) -> None:
    path = Path(inspect.getfile(section))
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    private = {name for name in imported if name.startswith("barlow.objectives._")}
    assert imported <= ALLOWED | private, (
        f"rule 4: tensors are all that an objective knows; {path.name} imports "
        f"{', '.join(sorted(imported - ALLOWED - private))}. Allowed are {', '.join(sorted(ALLOWED))} and the private "
        "files of barlow.objectives"
    )


def test_permuting_the_rows_of_all_views_together_changes_only_rounding(case: Case) -> None:
    group = case.inputs("healthy", N, D)
    rows = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    loss, gradients = case.loss_and_gradients(*group)
    permuted_loss, permuted = case.loss_and_gradients(*(z[rows] for z in group), rows=rows)
    assert permuted_loss == pytest.approx(loss, rel=1e-12), "rule 5: the order of the rows changes the loss"
    assert relative_error(permuted, [g[rows] for g in gradients]) < 1e-10, "rule 5: it changes the gradient"


@pytest.mark.parametrize("case", [name for name in CASES if name not in INDIFFERENT], indirect=True)
def test_pairing_rows_wrongly_costs_more(case: Case) -> None:
    group = case.inputs("healthy", N, D)
    if case.takes != "one" and case.own_group is None:
        # Of unit variance: an objective that does not normalise charges other scales, whatever the pairs.
        group = [(z - z.mean(dim=0)) / z.std(dim=0) for z in group]
    # From the least that there can be: the negative cosine of SimSiam begins at -1.
    right, wrong = (sum(case(*one).values()) + case.below_zero for one in (group, case.paired_wrongly(group)))
    assert wrong > 1.5 * right, "rule 1: row i of all comes from one image"


@pytest.mark.parametrize("case", [name for name in VIEWS if name not in OWN_TARGETS | TOGETHER], indirect=True)
def test_three_views_give_the_mean_over_their_pairs(case: Case) -> None:
    views = [*case.inputs("healthy", N, D), case.inputs("healthy", N, D, seed=1)[0]]
    pairs = [case.loss_and_gradients(*pair)[0] for pair in combinations(views, 2)]
    loss, gradients = case.loss_and_gradients(*views)
    assert loss == pytest.approx(sum(pairs) / 3, rel=1e-12)
    _, (first, _) = case.loss_and_gradients(views[0], views[1])
    _, (second, _) = case.loss_and_gradients(views[0], views[2])
    assert relative_error([gradients[0]], [(first + second) / 3]) < 1e-10


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_computed_in_float32(case: Case, precision: torch.dtype) -> None:
    # Far from 0 and large: in float16 squares overflow (65504).
    group = [300 * z.to(precision) for z in case.inputs("healthy", 2 * N, D)]
    loss, gradients = case.loss_and_gradients(*(z.float() for z in group))
    half_loss, half_gradients = case.loss_and_gradients(*group)
    assert half_loss == loss, "rule 1: half precision is widened to float32 on the way in"
    for half, full in zip(half_gradients, gradients, strict=True):
        assert half.equal(full.to(precision).double()), "rounded once, on its way into half precision"


def test_autocast_changes_nothing(case: Case) -> None:
    group = [z.float().requires_grad_() for z in case.inputs("healthy", 2 * N, D)]
    leaves = case.differentiable(group)
    loss = sum(case(*group).values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = sum(case(*group).values())
        assert (group[0] @ group[0].T).dtype == torch.bfloat16, "autocast is on again after the objective"
    assert inside.equal(loss), "rule 1: autocast is off inside an objective"
    assert all(g.equal(h) for g, h in zip(*(torch.autograd.grad(x, leaves) for x in (inside, loss)), strict=True))


def test_views_of_two_precisions_are_computed_in_the_wider(case: Case) -> None:
    *others, last = case.inputs("healthy", N, D)
    terms = case(*(z.float() for z in others), last)
    assert all(term.dtype == torch.float64 for term in terms.values())


def test_inputs_that_are_no_aligned_batches_are_refused_with_the_remedy(case: Case) -> None:
    group = [z.float() for z in case.inputs("healthy", N, D)]
    wrong = [
        ([z[:0] for z in group], "larger batch"),
        ([z[0] for z in group], r"\(n, d\)"),
        ([z[None] for z in group], r"\(n, d\)"),
        ([z[:, :0] for z in group], r"\(n, d\)"),
        ([z.long() for z in group], r"\.float\(\)"),
        ([z.bool() for z in group], r"\.float\(\)"),
    ]
    if case.takes != "one":
        a, b, *_ = group
        rest = group[2:]
        wrong += [([a, b[:-1], *rest], "one shape"), ([a, b[:, :-1], *rest], "one shape")]
        wrong += [([a, b.long(), *rest], r"\.float\(\)")]
    if case.takes == "views" and not any(case is CASES[name] for name in ONE_VIEW):
        wrong += [([a], r"objective\(za, zb\)"), ([], r"objective\(za, zb\)"), ([a[:1], b[:1]], "larger batch")]
    for inputs, remedy in wrong:
        with pytest.raises(ValueError, match=remedy):
            case(*inputs)


def test_a_batch_of_two_rows_works_or_is_refused(case: Case) -> None:
    group = [z.float() for z in case.inputs("healthy", 2, 4)]
    outcome = "finite gradients"
    try:
        _, gradients = case.loss_and_gradients(*group)
        assert all(g.isfinite().all() for g in gradients)
    except ValueError as refusal:
        outcome = str(refusal)
    assert outcome == "finite gradients" or "use a batch of" in outcome
