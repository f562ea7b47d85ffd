"""Objectives that break a rule of the contract each: the checks must name it, or the contract is worth nothing."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import test_objectives as for_all
import test_objectives_with_state as with_state
import torch
from contracts.calls import Case
from torch import Tensor, nn

from barlow.objectives._directions import directions
from barlow.objectives._inputs import full_precision
from barlow.types import Embedding, Terms


class _Queue(nn.Module):
    """A queue of 32 keys; each objective below changes one thing about it."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        self.register_buffer("queue", directions(self.random(width, seed)))

    def random(self, width: int, seed: int) -> Tensor:
        return torch.randn(32, width, generator=torch.Generator().manual_seed(seed))

    def forward(self, groups: list[tuple[Embedding, Embedding]]) -> Terms:
        with full_precision([z for group in groups for z in group]) as flat:
            keys = self.prepared(flat[1::2])
            terms = self.terms(
                [directions(q) for q in flat[::2]], keys, self.get_buffer("queue").to(flat[0].dtype, copy=True)
            )
            self.enqueue(torch.cat(keys))
            return terms

    def prepared(self, keys: list[Embedding]) -> list[Embedding]:
        return [directions(k.detach()) for k in keys]

    def terms(self, queries: list[Embedding], keys: list[Embedding], queue: Embedding) -> Terms:
        right = [q @ queue.T.detach() for q in queries]
        losses = [s.logsumexp(dim=1) - (q * k).sum(dim=1) for s, q, k in zip(right, queries, keys, strict=True)]
        return {"contrast": torch.cat(losses).mean() + 1}

    @torch.no_grad()
    def enqueue(self, keys: Embedding) -> None:
        queue = self.get_buffer("queue")
        queue.copy_(torch.cat([keys.to(queue.dtype), queue])[: len(queue)])


class _EnqueuesFirst(_Queue):
    def terms(self, queries: list[Embedding], keys: list[Embedding], queue: Embedding) -> Terms:
        self.enqueue(torch.cat(keys))
        return super().terms(queries, keys, self.get_buffer("queue").to(queue.dtype, copy=True))


class _EnqueuesBetweenTheGroups(_Queue):
    def terms(self, queries: list[Embedding], keys: list[Embedding], queue: Embedding) -> Terms:
        terms = []
        for q, k in zip(queries, keys, strict=True):
            terms.append(super().terms([q], [k], self.get_buffer("queue").to(queue.dtype, copy=True))["contrast"])
            self.enqueue(k)
        return {"contrast": torch.stack(terms).mean()}


class _ReplacesItsQueue(_Queue):
    @torch.no_grad()
    def enqueue(self, keys: Embedding) -> None:
        queue = self.get_buffer("queue")
        self.queue = torch.cat([keys.to(queue.dtype), queue])[: len(queue)].clone()


class _CountsOutsideOfItsBuffers(_Queue):
    steps = 0

    def terms(self, queries: list[Embedding], keys: list[Embedding], queue: Embedding) -> Terms:
        self.steps += 1
        return {name: term / self.steps for name, term in super().terms(queries, keys, queue).items()}


class _KeepsABareTensor(_Queue):
    def enqueue(self, keys: Embedding) -> None:
        super().enqueue(keys)
        self.last = keys


class _DragsTheGraphAlong(_Queue):
    def prepared(self, keys: list[Embedding]) -> list[Embedding]:
        return [directions(k) for k in keys]


class _IsDrawnFromAmbientNumbers(_Queue):
    def random(self, width: int, seed: int) -> Tensor:
        return torch.randn(32, width)


class _DrawsAsItGoes(_Queue):
    def terms(self, queries: list[Embedding], keys: list[Embedding], queue: Embedding) -> Terms:
        return super().terms([q + 0.1 * torch.randn_like(q) for q in queries], keys, queue)


class _ScalesItsInputs(_Queue):
    def forward(self, groups: list[tuple[Embedding, Embedding]]) -> Terms:
        with torch.no_grad():
            for group in groups:
                group[1].mul_(2)
        return super().forward(groups)


class _HasAnIdleParameter(_Queue):
    def __init__(self, width: int, seed: int) -> None:
        super().__init__(width, seed)
        self.scale = nn.Parameter(torch.ones(()))


@dataclass(frozen=True, kw_only=True)
class Broken:
    """Builds one of them."""

    module: type[_Queue] = _Queue

    def build(self, *, width: int, seed: int) -> nn.Module:
        return self.module(width, seed)


@dataclass(frozen=True, kw_only=True)
class _AsksForTheBatch:
    def build(self, *, width: int, batch_size: int) -> nn.Module:
        return _Queue(width, batch_size)


@dataclass(frozen=True, kw_only=True)
class _NeedsAnArgument:
    weight: float

    def __call__(self, *z: Embedding) -> Terms:
        return {"distance": self.weight * (z[0] - z[1]).square().mean()}


@dataclass(frozen=True)
class _HasAPositionalOne:
    weight: float = 1.0

    def __call__(self, *z: Embedding) -> Terms:
        return {"distance": self.weight * (z[0] - z[1]).square().mean()}


@dataclass(frozen=True, kw_only=True)
class _TrainsItsTarget:
    def __call__(self, p: Embedding, t: Embedding) -> Terms:
        return {"distance": (p - t).square().mean()}


@dataclass(frozen=True, kw_only=True)
class _AsksForTheWeather:
    def __call__(self, *z: Embedding, weather: Tensor) -> Terms:
        return {"distance": (z[0] - z[1]).square().mean() * weather.mean()}


@dataclass(frozen=True, kw_only=True)
class _CountsItsRows:
    def __call__(self, *z: Embedding) -> Terms:
        weights = torch.arange(len(z[0]), dtype=z[0].dtype)[:, None]
        return {"distance": (weights * (z[0] - z[1]).square()).mean()}


ORDER = with_state.test_the_state_changes_in_place_and_only_after_the_last_term
BROKEN: list[tuple[type, Callable[..., None], str]] = [
    (_EnqueuesFirst, ORDER, "rule 7: .*'queue'.* was changed before contrast was computed"),
    (_EnqueuesBetweenTheGroups, ORDER, "rule 7: .*'queue'.* was changed before contrast was computed"),
    (_ReplacesItsQueue, ORDER, "rule 7: queue was replaced: change it in place"),
    (_KeepsABareTensor, with_state.test_all_state_is_in_parameters_and_buffers, "rule 7: last would be neither"),
    (_IsDrawnFromAmbientNumbers, with_state.test_initial_values_are_drawn_from_the_seed_alone, "rule 4: two modules"),
    (
        _DrawsAsItGoes,
        with_state.test_inputs_of_a_step_are_left_as_they_were_and_ambient_random_numbers_too,
        "rule 4: it draws",
    ),
    (
        _DrawsAsItGoes,
        with_state.test_the_same_inputs_from_the_same_state_give_the_same_to_the_bit,
        "rule 7: another loss",
    ),
    (_DrawsAsItGoes, for_all.test_ambient_random_numbers_are_not_consumed, "rule 4: it draws"),
    (_ScalesItsInputs, with_state.test_inputs_of_a_step_are_left_as_they_were_and_ambient_random_numbers_too, "rule 4"),
    (_ScalesItsInputs, for_all.test_inputs_are_left_as_they_were_and_two_calls_agree_to_the_bit, "rule 4: it changes"),
    (_HasAnIdleParameter, with_state.test_every_parameter_is_trained, "rule 7: scale gets no gradient"),
    (_DragsTheGraphAlong, for_all.test_a_target_gets_no_gradient, "rule 6: a target gets a gradient"),
    (_TrainsItsTarget, for_all.test_a_target_gets_no_gradient, "rule 6: a target gets a gradient"),
    (_CountsItsRows, for_all.test_permuting_the_rows_of_all_views_together_changes_only_rounding, "rule 5"),
    (_AsksForTheWeather, for_all.test_autocast_changes_nothing, "it asks for weather; a step knows labels, rotation"),
]


def broken(module: type) -> Any:
    return Broken(module=module) if issubclass(module, nn.Module) else module()


@pytest.mark.parametrize(("kind", "check", "rule"), BROKEN)
def test_an_objective_that_breaks_a_rule_is_told_which(kind: type, check: Callable[..., None], rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check(Case(broken(kind)))


def test_state_outside_of_parameters_and_buffers_is_found_by_resuming() -> None:
    with pytest.raises(AssertionError, match="rule 7: state_dict does not hold all state"):
        with_state.test_resumed_from_its_state_it_goes_on_to_the_bit(
            Case(broken(_CountsOutsideOfItsBuffers)), torch.float64
        )


def test_a_build_that_asks_for_what_a_run_does_not_give_and_hyper_parameters_without_default_are_told() -> None:
    with pytest.raises(AssertionError, match=r"rule 3: build asks for {'batch_size'}; a run gives classes, images"):
        with_state.test_it_builds_a_module_from_what_a_run_knows(Case(_AsksForTheBatch()))
    of_a_dataclass = for_all.test_hyper_parameters_are_keywords_with_defaults_of_an_immutable_dataclass
    with pytest.raises(AssertionError, match="rule 3: weight has no default"):
        of_a_dataclass(_NeedsAnArgument)
    with pytest.raises(AssertionError, match="rule 3: weight is no keyword"):
        of_a_dataclass(_HasAPositionalOne)


def test_the_queue_that_they_change_breaks_no_rule() -> None:
    checks = {check for kind, check, _ in BROKEN if issubclass(kind, nn.Module)}
    for check in checks:
        check(Case(Broken()))
    with_state.test_resumed_from_its_state_it_goes_on_to_the_bit(Case(Broken()), torch.float64)


def test_an_import_that_an_objective_may_not_have_is_named_with_those_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clocked.py"
    monkeypatch.syspath_prepend(tmp_path)
    path.write_text("import time\nfrom torch.nn import functional as F\n\nclass Clocked: ...\n", encoding="utf-8")
    section = importlib.import_module("clocked").Clocked
    with pytest.raises(AssertionError, match=r"rule 4: .* clocked.py imports time\. Allowed are .*torch.nn.functional"):
        for_all.test_nothing_but_tensors_is_known(section)
    path.write_text(path.read_text(encoding="utf-8").replace("import time", ""), encoding="utf-8")
    for_all.test_nothing_but_tensors_is_known(section)
    del sys.modules["clocked"]
