"""What the contract of `barlow.objectives.Objective` says of those that keep a queue, prototypes or a memory bank.

Found are the objectives that have `build`, and a toy with every kind of state.
"""

import copy
from typing import Any

import pytest
import torch
from contracts.calls import CASES, CONSTANT, IMAGES, Case, OrderOfWrites
from torch import Tensor, nn

from barlow import objectives

N, D = 16, 8

WITH_STATE = [name for name, case in CASES.items() if case.has_state]
FEW_IMAGES = {"Exemplar": 16_000}
"""Objectives that refuse many images: a class for each would be too many."""


@pytest.fixture(params=WITH_STATE)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def groups_of_two_views(case: Case, step: int = 0) -> list[tuple[Tensor, ...]]:
    """A step's groups, as many as two views give: one of views, else two. Other numbers in each step."""
    count = 1 if case.takes == "views" else 2
    return [tuple(case.inputs("healthy", N, D, seed=2 * step + number)) for number in range(count)]


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(value.equal(other[name]) for name, value in one.items())


def step(case: Case, module: Any, number: int) -> list[Tensor]:
    """A step of training: terms, then gradients of the inputs and of the parameters, which move along theirs."""
    groups = [tuple(z.requires_grad_() for z in group) for group in groups_of_two_views(case, number)]
    terms = module(groups, **case.known(N, progress=number / 4, step=number))
    parameters = list(module.parameters())
    leaves = [z for group in groups for z in case.differentiable(list(group))] + parameters
    gradients = torch.autograd.grad(sum(terms.values()), leaves)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients[len(leaves) - len(parameters) :], strict=True):
            parameter.sub_(0.1 * gradient)
    return [*(term.detach() for term in terms.values()), *gradients]


def begin(case: Case, module: Any) -> None:
    """What comes before a run, if anything does."""
    if hasattr(module, "before_run"):
        module.before_run(lambda: iter([groups_of_two_views(case, step) for step in range(2)]))


def look(case: Case, module: Any, progress: float) -> None:
    """A look at all images, before an epoch and before a step, if the objective has any."""
    if not (hasattr(module, "before_epoch") or hasattr(module, "before_step")):
        return
    embeddings = case.inputs("healthy", IMAGES, D, seed=9)[0]

    def embed(member: int = 0, *, augmented: bool = False, training: bool = False) -> tuple[Tensor, Tensor]:
        return torch.arange(IMAGES), embeddings + 0.1 * member + 0.2 * augmented + 0.3 * training

    if hasattr(module, "before_epoch"):
        told = {"progress": progress} if "progress" in objectives.asks(module.before_epoch) else {}
        check_renewed(module, module.before_epoch(embed, **told))
    if hasattr(module, "before_step") and module.due(progress):
        check_renewed(module, module.before_step(embed, progress=progress))
        assert not module.due(progress), "a look that was had is not due again"


def check_renewed(module: nn.Module, renewed: Any) -> None:
    own = list(module.parameters())
    assert all(any(one is p for p in own) for one in renewed or ()), "a hook returns parameters of its module, or None"


def train(case: Case, module: Any, numbers: range) -> list[Tensor]:
    found = []
    if numbers.start == 0:
        begin(case, module)
    for number in numbers:
        if number % 2 == 0:
            look(case, module, number / 4)
        found += step(case, module, number)
    return found


def test_it_builds_a_module_from_what_a_run_knows(case: Case) -> None:
    wanted = set(objectives.asks(case.section.build))
    known = {"width", "maps", "images", "classes", "seed"}
    assert wanted <= known, f"rule 3: build asks for {wanted - known}; a run gives {', '.join(sorted(known))}"
    assert isinstance(case.built(D), nn.Module)
    default = type(case.section)()
    published = FEW_IMAGES.get(type(case.section).__name__, 200_000)  # enough for the default of every method
    assert isinstance(objectives.built(default, width=4, images=published, classes=5, seed=0), nn.Module)


def test_initial_values_are_drawn_from_the_seed_alone(case: Case) -> None:
    first = state(case.built(D, seed=5))
    ambient = torch.get_rng_state()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    second = state(case.built(D, seed=5))
    after = torch.get_rng_state()
    torch.set_rng_state(ambient)
    assert equal(first, second), "rule 4: two modules built from one seed differ: give their values a torch.Generator"
    assert after.equal(before), "rule 4: building it draws ambient random numbers: use a torch.Generator of its own"


def test_all_state_is_in_parameters_and_buffers(case: Case) -> None:
    module = case.built(D)
    train(case, module.double(), range(2))
    for part in module.modules():
        bare = [name for name, value in vars(part).items() if isinstance(value, Tensor)]
        assert not bare, f"rule 7: {', '.join(bare)} would be neither trained, saved nor moved: use register_buffer"
    assert set(module.state_dict()) == {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}
    for name, buffer in module.named_buffers():
        assert not buffer.requires_grad, f"rule 7: {name} drags the graph of its step along: detach what goes into it"
        assert buffer.isfinite().all(), f"rule 7: {name} is not finite"


def test_the_same_inputs_from_the_same_state_give_the_same_to_the_bit(case: Case) -> None:
    module = case.built(D).double()
    train(case, module, range(2))
    other = copy.deepcopy(module)
    first, second = train(case, module, range(2, 3)), train(case, other, range(2, 3))
    assert all(a.equal(b) for a, b in zip(first, second, strict=True)), "rule 7: another loss from the same state"
    assert equal(state(module), state(other)), "rule 7: another new state from the same state"


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_resumed_from_its_state_it_goes_on_to_the_bit(case: Case, precision: torch.dtype) -> None:
    straight = case.built(D).to(precision)
    train(case, straight, range(2))
    resumed = case.built(D, seed=1).to(precision)
    resumed.load_state_dict(state(straight))
    first, second = train(case, straight, range(2, 4)), train(case, resumed, range(2, 4))
    assert all(a.equal(b) for a, b in zip(first, second, strict=True)), "rule 7: state_dict does not hold all state"
    assert equal(state(straight), state(resumed)), "rule 7: state_dict does not hold all state"


def test_the_state_changes_in_place_and_only_after_the_last_term(case: Case) -> None:
    module = case.built(D).double()
    places = {name: buffer.data_ptr() for name, buffer in module.named_buffers()}
    groups = [tuple(z.requires_grad_() for z in group) for group in groups_of_two_views(case)]
    with OrderOfWrites(module) as order:
        terms = module(groups, **case.known(N))
    late = order.made_after_the_first_write(terms)
    assert not late, f"rule 7: {order.first_write} was changed before {', '.join(late)} was computed: change it last"
    for name, buffer in module.named_buffers():
        assert buffer.data_ptr() == places[name], f"rule 7: {name} was replaced: change it in place, as by copy_"


@pytest.mark.parametrize("case", [name for name in WITH_STATE if name not in CONSTANT], indirect=True)
def test_a_step_or_a_look_changes_the_state(case: Case) -> None:
    module = case.built(D).double()
    before = state(module)
    begin(case, module)
    module(groups_of_two_views(case), **case.known(N))
    parameters = dict(module.named_parameters())
    assert all(parameter.equal(before[name]) for name, parameter in parameters.items()), (
        "rule 7: parameters are the optimizer's to change"
    )
    look(case, module, 0.0)
    changed = [name for name, value in module.state_dict().items() if not value.equal(before[name])]
    assert changed or before.keys() == parameters.keys(), "it has buffers, and no step changes them"


def test_inputs_of_a_step_are_left_as_they_were_and_ambient_random_numbers_too(case: Case) -> None:
    module = case.built(D).double()
    groups, known = groups_of_two_views(case), case.known(N)
    copies = copy.deepcopy((groups, known))
    before = torch.get_rng_state()
    look(case, module, 0.25)
    module(groups, **known)
    assert torch.get_rng_state().equal(before), "rule 4: it draws from torch's ambient numbers"
    assert all(z.equal(c) for g, h in zip(groups, copies[0], strict=True) for z, c in zip(g, h, strict=True)), "rule 4"
    for name, value in known.items():
        assert not isinstance(value, Tensor) or value.equal(copies[1][name]), f"rule 4: it changes {name}"


def test_every_parameter_is_trained(case: Case) -> None:
    module = case.built(D).double()
    groups = [tuple(z.requires_grad_() for z in group) for group in groups_of_two_views(case)]
    terms = module(groups, **case.known(N))
    for name, parameter in module.named_parameters():
        (gradient,) = torch.autograd.grad(sum(terms.values()), parameter, retain_graph=True, allow_unused=True)
        assert gradient is not None, f"rule 7: {name} gets no gradient: what is not trained is a buffer"
        assert gradient.isfinite().all(), f"rule 6: the gradient of {name} is not finite"
        assert float(gradient.norm()) > 0, f"rule 7: {name} gets no gradient"


def test_embeddings_of_all_images_come_before_an_epoch_and_change_what_a_step_is_compared_with() -> None:
    case = CASES["toy clusters"]
    with_epoch, without = case.built(D).double(), case.built(D).double()
    asked = []
    embeddings = case.inputs("healthy", IMAGES, D, seed=9)[0]
    with_epoch.before_epoch(lambda: asked.append(1) or (torch.arange(IMAGES), embeddings))
    assert asked == [1]
    assert not with_epoch.cluster.equal(without.cluster)
    terms, before = (module(groups_of_two_views(case), **case.known(N)) for module in (with_epoch, without))
    assert not terms["clusters"].equal(before["clusters"])
    assert terms["images"].equal(before["images"])
