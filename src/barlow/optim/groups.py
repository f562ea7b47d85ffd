from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GroupRule:
    parameters: str
    constant_rate: bool = False
    weight_decay: bool = True
    trust_ratio: bool = True
    frozen_until: float = 0.0


def set_rate(optimizer, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def freeze(optimizer, progress): ...
