"""LARS: each weight moves by a fixed part of its own length."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step has, for a weight p with gradient g, a length set by ‖p‖ instead of ‖g‖.

    With η = `trust`, μ = `momentum`, λ = `weight_decay`:

        g ← g + λp,   q = η‖p‖ / ‖g‖ (1 where a norm is 0),   m ← μm + qg,   p ← p − lr · m.

    Parameters of one dimension (biases, scales and shifts of norms) are neither decayed nor adapted: m ← μm + g.
    A group with `adapt=False` is plain SGD with momentum, and decays whatever is in it.

    With `rate_in_momentum` the rate is inside of the buffer: m ← μm + lr · qg, p ← p − m. The two differ once the rate
    changes: then a change acts on what is added from there on, and not on the momentum that is there.

    With `clip`, q = min(η‖p‖ / (‖g‖ · lr), 1), so that a weight's rate lr · q is the smaller of its trust ratio and lr.
    At rate 0 that is q = 1.

    Source: You et al., arXiv 1708.03888; the code released with Barlow Twins and VICReg (`LARS`), which this follows.
    `clip` is the LARC of NVIDIA Apex, which solo-learn uses for CIFAR with η = 0.02.
    `rate_in_momentum` is the form of google-research/simclr at 383d414, lars_optimizer.py.

    Convention: ‖g‖ is taken after the decay was added. No ε, no Nesterov, no dampening. lr is outside of the buffer
    unless it is asked for otherwise, so a change of rate acts at once on all of the momentum.

    Deviation: none from the released code. solo-learn's q is η‖p‖ / (‖g‖ + λ‖p‖ + 1e-8) with the norm of g before the
    decay, then min(q / lr, 1) if clipped, and it does not decay a weight while that weight's or its gradient's norm is
    0 (Apex likewise). Unclipped, its q is never above ours, equal but for the ε where g points along p, and below by at
    most the part 2λ‖p‖ / ‖g‖. timm's `Lars` has solo-learn's q, adapts a group only if it decays (or with
    `always_adapt`), does not look at dimensions, and clips the 1 of a zero norm too where lr is above 1.

    Parameters of 16 bits: g + λp, both norms and qg are formed in float32 and rounded once, into the buffer.

    Args:
        params: parameters, named parameters, or groups of them; a group may have its own of all that follows.
        lr: rate.
        momentum: μ, in [0, 1).
        weight_decay: λ, from 0.
        trust: η, above 0.
        adapt: whether the group's weights get the trust ratio.
        clip: LARC's clipping.
        rate_in_momentum: whether lr multiplies what goes into the buffer, in place of what comes out.
        foreach: many tensors in one call, or one; None: one on a CPU, many elsewhere. For speed; no part of the state.

    Raises:
        ValueError: a value out of its range; in `step`, a sparse gradient, before anything has changed.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        adapt: bool = True,
        clip: bool = False,
        rate_in_momentum: bool = False,
        foreach: bool | None = None,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(
            params, defaults | {"adapt": adapt, "clip": clip, "rate_in_momentum": rate_in_momentum, "foreach": foreach}
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        values = self.defaults | param_group
        for name, good, allowed in (
            ("lr", 0 <= values["lr"] < math.inf, "a number from 0"),
            ("momentum", 0 <= values["momentum"] < 1, "a number in [0, 1)"),
            ("weight_decay", 0 <= values["weight_decay"] < math.inf, "a number from 0"),
            ("trust", 0 < values["trust"] < math.inf, "a number above 0"),
        ):
            if not good:
                raise ValueError(f"{name} of LARS is {values[name]}; give {allowed}")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        batches = [(group, *batch) for group in self.param_groups for batch in _batches(group)]
        for group, adapt, parameters, gradients in batches:
            self._update(group, adapt, parameters, gradients)
        return loss

    def _update(self, group: dict[str, Any], adapt: bool, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        wide = torch.promote_types(parameters[0].dtype, torch.float32)
        updates = [g.to(wide) for g in gradients]
        if group["weight_decay"] and (adapt or not group["adapt"]):
            updates = list(torch._foreach_add(updates, parameters, alpha=group["weight_decay"]))
        torch._foreach_mul_(buffers, group["momentum"])
        inside, outside = (group["lr"], 1.0) if group["rate_in_momentum"] else (1.0, group["lr"])
        if adapt:
            q = _trust_ratios(parameters, updates, group["trust"], group["lr"] if group["clip"] else None)
            torch._foreach_addcmul_(buffers, updates, (q if inside == 1 else inside * q).unbind())
        else:
            torch._foreach_add_(buffers, updates, alpha=inside)
        torch._foreach_add_(parameters, buffers, alpha=-outside)


def _batches(group: dict[str, Any]) -> list[tuple[bool, list[Tensor], list[Tensor]]]:
    """What one call of each kernel takes: (adapted, parameters, gradients), of one device and dtype.

    On a CPU there is no launch to save, and the copies of all gradients at once would neither stay in a cache nor be
    allocated for nothing: there a batch is one tensor.
    """
    batches: dict[tuple[Any, ...], tuple[bool, list[Tensor], list[Tensor]]] = {}
    for i, p in enumerate(group["params"]):
        if p.grad is None:
            continue
        if p.grad.is_sparse:
            raise ValueError(
                f"LARS takes dense gradients; that of a parameter of shape {tuple(p.shape)} is sparse: "
                "build its layer with sparse=False"
            )
        adapt = group["adapt"] and p.ndim != 1
        many = p.device.type != "cpu" if group["foreach"] is None else group["foreach"]
        key = (adapt, p.device, p.dtype, None if many else i)
        _, parameters, gradients = batches.setdefault(key, (adapt, [], []))
        parameters.append(p)
        gradients.append(p.grad)
    return list(batches.values())


def _trust_ratios(parameters: list[Tensor], updates: list[Tensor], trust: float, ceiling: float | None) -> Tensor:
    """q of every tensor, where they are: Python looks at no value, for which it would have to wait for the device."""
    p = torch.stack(torch._foreach_norm(parameters, 2, updates[0].dtype))
    g = torch.stack(torch._foreach_norm(updates, 2))
    q = trust * p / g
    if ceiling is not None:
        q = (q / ceiling).clamp(max=1.0)
    return torch.where((p > 0) & (g > 0), q, torch.ones_like(q))
