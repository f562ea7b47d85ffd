"""Parameter groups: which parameters an optimizer treats alike, and how it is told to treat some in another way."""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn


@dataclass(frozen=True, kw_only=True)
class GroupRule:
    """What is different for the parameters whose names match a pattern.

    Source: SimSiam (arXiv 2011.10566) trains its predictor at a constant learning rate. SwAV (arXiv 2006.09882, code)
    leaves its prototypes as they are for the first steps. DeepCluster (arXiv 1807.05520, code) trains its top layer
    without momentum.

    Args:
        parameters: a shell pattern over the names, such as `predictor.*` or `*.bias`.
        rate: a factor of the learning rate, 0 or more. 0.1 trains an encoder from given weights at a tenth of the rate
            of its new head.
        constant_rate: whether the learning rate stays at its peak for the whole run, without warm-up and decay.
        weight_decay: False takes the decay away. True leaves it as it is for all, so biases and norms that the
            optimizer does not decay stay without it.
        trust_ratio: False takes LARS's trust ratio away; these parameters are then trained as by SGD with momentum.
            Other optimizers have none.
        momentum: False takes the momentum of SGD and LARS away.
        frozen_until: the share of the run, from 0 to 1, in whose steps the parameters do not move at all. 0.1 leaves
            them out of the first tenth, 1 out of all of it.

    Raises:
        ValueError: an empty pattern, a negative rate, or a share outside of [0, 1].
    """

    parameters: str
    rate: float = 1.0
    constant_rate: bool = False
    weight_decay: bool = True
    trust_ratio: bool = True
    momentum: bool = True
    frozen_until: float = 0.0

    def __post_init__(self) -> None:
        if not self.parameters:
            raise ValueError("a rule for parameters has an empty pattern; give one such as 'predictor.*'")
        if not 0 <= self.rate < math.inf:
            raise ValueError(f"rate {self.rate} of {self.parameters!r}: give a factor of the learning rate, 0 or more")
        if not 0 <= self.frozen_until <= 1:
            raise ValueError(
                f"frozen_until {self.frozen_until} of {self.parameters!r}: give a share of the run, from 0 to 1"
            )


def parameter_groups(
    named: Mapping[str, nn.Parameter],
    rules: Sequence[GroupRule],
    *,
    lr: float,
    vectors_lr: float,
    weight_decay: float,
    exclude_1d: bool,
    adapts: bool,
    gathers: bool = True,
) -> list[dict[str, Any]]:
    """The groups of an optimizer, as torch takes them: for the parameters without a rule, and then for each rule.

    A parameter belongs to the first rule that matches its name. Each rule, and what is left, has up to two groups:
    `matrices`, and `vectors` (parameters of one dimension: biases, and scales and shifts of norms). The names of a
    rule's groups begin with its pattern, as in `predictor.* matrices`.

    Everything in a group but its parameters is a plain JSON value. What only rules ask for (`schedule`, `frozen_until`)
    is only in the groups for which it is asked, so that an optimizer without rules has the state it always had.

    Args:
        named: the parameters by name.
        rules: in the order in which they are tried.
        lr: learning rate at the peak of the schedule.
        vectors_lr: the same for `vectors`.
        weight_decay: of all groups that have one.
        exclude_1d: whether `vectors` have none.
        adapts: whether the optimizer is LARS, whose groups say if they get the trust ratio (`adapt`).
        gathers: whether it is one with a momentum that can be taken away.

    Raises:
        ValueError: a rule matches no parameter that the rules before it leave, or takes away a momentum that the
            optimizer does not have.
    """

    def pair(rule: GroupRule, prefix: str, members: Mapping[str, nn.Parameter]) -> Iterator[dict[str, Any]]:
        for vectors in (False, True):
            group: dict[str, Any] = {
                "params": [(name, p) for name, p in members.items() if (p.ndim == 1) == vectors],
                "name": prefix + ("vectors" if vectors else "matrices"),
                "weight_decay": weight_decay if rule.weight_decay and not (vectors and exclude_1d) else 0.0,
                "lr": rule.rate * (vectors_lr if vectors else lr),
                "lr_scale": rule.rate * (1.0 if not vectors or vectors_lr == lr else vectors_lr / lr),
            }
            if adapts:
                group["adapt"] = not vectors and rule.trust_ratio
            if not rule.momentum:
                group["momentum"] = 0.0
            if rule.constant_rate:
                group["schedule"] = "constant"
            if rule.frozen_until > 0:
                group["frozen_until"] = rule.frozen_until
            if group["params"]:
                yield group

    rest = dict(named)
    of_rules: list[dict[str, Any]] = []
    for rule in rules:
        if not (rule.momentum or gathers):
            raise ValueError(
                f"the rule for {rule.parameters!r} takes the momentum away, and Adam's averages are none: leave it "
                "out, or use sgd or lars"
            )
        members = {name: p for name, p in rest.items() if fnmatchcase(name, rule.parameters)}
        if not members:
            raise ValueError(_nothing_matches(rule, list(named)))
        of_rules += pair(rule, f"{rule.parameters} ", members)
        rest = {name: p for name, p in rest.items() if name not in members}
    return [*pair(GroupRule(parameters="*"), "", rest), *of_rules]


def _nothing_matches(rule: GroupRule, names: list[str]) -> str:
    if matched := [name for name in names if fnmatchcase(name, rule.parameters)]:
        return (
            f"the rule for {rule.parameters!r} comes after rules that take all it matches, {matched[0]} first; put it "
            "before them"
        )
    near = difflib.get_close_matches(rule.parameters, names, n=3, cutoff=0.0)
    return f"no trained parameter matches {rule.parameters!r}; nearest: {', '.join(near)}"
