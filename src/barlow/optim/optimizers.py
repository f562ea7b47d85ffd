"""torch's optimizers and LARS over named parameters, and their state as named tensors."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from barlow.optim.groups import GroupRule, parameter_groups
from barlow.optim.lars import LARS

_KINDS: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "lars": LARS,
}

_MACHINE = ("foreach", "fused", "capturable", "differentiable")
"""Settings that say how an update is computed, not what it is. They depend on the device, so no state has them."""

Parameters = nn.Module | Mapping[str, nn.Parameter] | Iterable[tuple[str, nn.Parameter]]


def build_optimizer(
    parameters: Parameters,
    kind: str,
    *,
    lr: float,
    weight_decay: float = 0.0,
    exclude_1d: bool = True,
    momentum: float = 0.9,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    trust: float = 0.001,
    clip: bool = False,
    rate_in_momentum: bool = False,
    vectors_lr: float | None = None,
    rules: Sequence[GroupRule] = (),
    fused: bool | None = None,
) -> torch.optim.Optimizer:
    """AdamW, Adam, SGD or LARS over the parameters that want a gradient.

    There are two parameter groups, `matrices` and `vectors` (parameters of one dimension: biases, and the scales and
    shifts of norms), and up to two more for each rule. Each group has an `lr_scale`, which is 1 unless `vectors_lr` is
    given: the group's learning rate is the run's, times this scale (`set_rate`).

    Source: Barlow Twins, released code: LARS with lr 0.2 · N / 256, `vectors_lr` 0.0048 · N / 256 and decay 1e-6.
    VICReg's has one learning rate. W-MSE's is Adam with L2 on every parameter: `kind="adam", exclude_1d=False`.

    Convention: AdamW's decay is decoupled from the gradient. That of the others is L2: a part of the parameter is added
    to its gradient, in LARS before the gradient's norm is taken. LARS never gives `vectors` a trust ratio; with
    `exclude_1d=False` they are decayed as by SGD.

    Args:
        parameters: a module, or parameters by name. The names are the keys of the state.
        kind: adamw, adam, sgd or lars.
        lr: learning rate at the peak of the schedule.
        weight_decay: as the kind means it.
        exclude_1d: whether parameters of one dimension get no weight decay, as in Barlow Twins and VICReg.
        momentum: SGD's and LARS's.
        betas, eps: Adam's and AdamW's.
        trust, clip: LARS's trust coefficient, and whether its ratio is clipped to the learning rate.
        rate_in_momentum: whether LARS has the learning rate inside of its momentum, as SimCLR's code has it.
        vectors_lr: learning rate of `vectors` at the peak, for any kind; None: the same as lr.
        rules: what is different for some parameters. The first rule that matches a name counts.
        fused: whether one kernel makes the whole update; None leaves the choice to torch. Fused kernels address memory
            directly, so a gradient must be laid out in memory as its parameter is (autograd's are). LARS has none.

    Raises:
        ValueError: an unknown kind, nothing to train, vectors_lr beside an lr of 0, a rule that matches nothing, or a
            fused LARS.
    """
    if kind not in _KINDS:
        raise ValueError(f"unknown optimizer {kind!r}; allowed: {', '.join(_KINDS)}")
    named = [(name, p) for name, p in _named(parameters).items() if p.requires_grad]
    if not named:
        raise ValueError("no parameter wants a gradient; there is nothing to train")
    vectors_lr = lr if vectors_lr is None else vectors_lr
    if vectors_lr != lr and not (lr > 0 and vectors_lr >= 0):
        raise ValueError(f"vectors_lr {vectors_lr} with lr {lr}: give vectors_lr from 0 and lr above 0, or neither")
    groups = parameter_groups(
        dict(named),
        rules,
        lr=lr,
        vectors_lr=vectors_lr,
        weight_decay=weight_decay,
        exclude_1d=exclude_1d,
        adapts=kind == "lars",
        gathers=kind in ("sgd", "lars"),
    )
    options: dict[str, Any] = {"lr": lr, "fused": fused}
    if kind == "lars":
        if fused:
            raise ValueError("lars has no fused kernel; leave fused at None")
        options = {"lr": lr, "momentum": momentum, "trust": trust, "clip": clip, "rate_in_momentum": rate_in_momentum}
    elif kind == "sgd":
        options |= {"momentum": momentum}
    else:
        options |= {"betas": tuple(betas), "eps": eps}
    return _KINDS[kind](groups, **options)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Gives every group its learning rate: `rate` times the group's own scale.

    A group with a constant schedule keeps the learning rate it was built with, the peak times its scale.
    """
    for group in optimizer.param_groups:
        if group.get("schedule") != "constant":
            group["lr"] = rate * group.get("lr_scale", 1.0)


def freeze(optimizer: torch.optim.Optimizer, progress: float) -> None:
    """Takes the gradients away from parameters that are frozen in this step. Call it just before the update.

    No optimizer here touches a parameter without a gradient: it is not decayed and gathers no momentum.

    Args:
        optimizer: whose groups say until when they are frozen.
        progress: the share of the run that is done before this step, step / total. So of 100 steps `frozen_until: 0.1`
            freezes exactly the first ten.
    """
    for group in optimizer.param_groups:
        until = group.get("frozen_until")
        if until is not None and progress < until:
            for parameter in group["params"]:
                parameter.grad = None


def has_fused_kernels(kind: str, device: torch.device) -> bool | None:
    """What to give as `fused`: True where one kernel for the whole update exists and is faster, else torch's choice."""
    return True if kind != "lars" and device.type in ("cpu", "cuda") else None


def can_skip(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer works with `update_if`. It must be fused."""
    return bool(optimizer.defaults.get("fused"))


def update_if(optimizer: torch.optim.Optimizer, wanted: Tensor) -> None:
    """Makes an update, or none at all if `wanted` is False: then parameters and state stay as they are.

    The device decides, so that nobody waits for the value.

    Source: torch.amp's GradScaler, which gives fused optimizers the attribute `found_inf`.
    """
    assert can_skip(optimizer)
    optimizer.found_inf = (~wanted).float()  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]


def _named(parameters: Parameters) -> dict[str, nn.Parameter]:
    return dict(parameters.named_parameters() if isinstance(parameters, nn.Module) else parameters)


def state_tensors(optimizer: torch.optim.Optimizer, parameters: Parameters) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's state: its tensors under `PARAMETER/SLOT`, and everything else as plain JSON values.

    The tensors are the optimizer's own, not copies. Write them before the next step.

    Raises:
        ValueError: the optimizer holds a parameter that has no name in `parameters`.
    """
    names = _names_by_parameter(optimizer, parameters)
    tensors: dict[str, Tensor] = {}
    rest: dict[str, dict[str, Any]] = {}
    for parameter, slots in optimizer.state.items():
        name = names[parameter]
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{slot}"] = value.detach()
            else:
                rest.setdefault(name, {})[slot] = value
    groups = [
        {key: value for key, value in group.items() if key not in ("params", "param_names", *_MACHINE)}
        | {"parameters": [names[p] for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    return tensors, {
        "class": type(optimizer).__name__,
        "groups": groups,
        "slots": {names[parameter]: sorted(slots) for parameter, slots in optimizer.state.items()},
        "state": rest,
    }


def load_state(
    optimizer: torch.optim.Optimizer,
    parameters: Parameters,
    tensors: Mapping[str, Tensor],
    scalars: Mapping[str, Any],
) -> None:
    """Puts a state from `state_tensors` back, bit for bit. Unless all of it fits, nothing is changed.

    Raises:
        ValueError: the state is of another kind of optimizer, of other parameters or groups, or has a tensor of another
            shape.
    """
    names = _names_by_parameter(optimizer, parameters)
    if scalars["class"] != type(optimizer).__name__:
        raise ValueError(
            f"the state is of {scalars['class']}, the optimizer is {type(optimizer).__name__}; build the same kind"
        )
    stored_groups = scalars["groups"]
    here = [[names[p] for p in group["params"]] for group in optimizer.param_groups]
    stored = [list(group["parameters"]) for group in stored_groups]
    if here != stored:
        missing = sorted({n for g in here for n in g} - {n for g in stored for n in g})
        unexpected = sorted({n for g in stored for n in g} - {n for g in here for n in g})
        raise ValueError(
            "the state is of other parameters: "
            + (
                _listed("without state", missing) + _listed("unknown here", unexpected)
                or "the same names, grouped or ordered otherwise"
            )
        )
    by_name = {name: parameter for parameter, name in names.items()}
    slots: dict[str, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        name, _, slot = key.rpartition("/")
        if name not in by_name:
            raise ValueError(f"optimizer state {key!r} is of no parameter here")
        slots.setdefault(name, {})[slot] = _laid_out(tensor, by_name[name], key)
    for name, values in scalars["state"].items():
        if name not in by_name:
            raise ValueError(f"optimizer state of {name!r} is of no parameter here")
        slots.setdefault(name, {}).update(values)
    promised = {name: set(slot_names) for name, slot_names in scalars["slots"].items()}
    if wrong := [name for name in by_name if promised.get(name, set()) != set(slots.get(name, {}))]:
        raise ValueError(
            f"the optimizer state of {len(wrong)} parameters is not whole, of {wrong[0]} first: "
            f"{sorted(slots.get(wrong[0], {}))} instead of {sorted(promised.get(wrong[0], set()))}; "
            "the file may be damaged"
        )
    index = {name: i for i, name in enumerate(n for group in here for n in group)}
    groups = []
    for group, kept in zip(optimizer.param_groups, stored_groups, strict=True):
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in kept.items() if key != "parameters"}
        machine = {key: group[key] for key in _MACHINE if key in group}
        order = [names[p] for p in group["params"]]
        groups.append(values | machine | {"params": [index[n] for n in order], "param_names": order})
    optimizer.load_state_dict({"state": {index[n]: s for n, s in slots.items()}, "param_groups": groups})


def _laid_out(tensor: Tensor, parameter: nn.Parameter, key: str) -> Tensor:
    """A copy with the parameter's strides, because fused kernels read state and parameter in the order of memory."""
    if tensor.ndim == 0:
        return tensor.clone()
    if tensor.shape != parameter.shape:
        raise ValueError(
            f"optimizer state {key!r} has shape {tuple(tensor.shape)}, its parameter {tuple(parameter.shape)}"
        )
    return torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)


def _names_by_parameter(optimizer: torch.optim.Optimizer, parameters: Parameters) -> dict[Any, str]:
    names: dict[Any, str] = {parameter: name for name, parameter in _named(parameters).items()}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if unnamed := [tuple(p.shape) for p in held if p not in names]:
        raise ValueError(f"the optimizer holds {len(unnamed)} parameters without a name here, of shapes {unnamed[:3]}")
    return {p: names[p] for p in held}


def _listed(what: str, names: list[str]) -> str:
    return f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''}); " if names else ""
