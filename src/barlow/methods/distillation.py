"""An online network learns to predict a target network's embedding of another view: BYOL, MoCo, SimSiam."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from barlow.methods._networks import Method, checked_views, features_of
from barlow.methods._slow import Schedule, check_momentum, follow
from barlow.nets.heads import Head
from barlow.types import Images, Outputs, Rows

if TYPE_CHECKING:
    from barlow.methods import NewEncoder

__all__ = ["Distillation"]


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The online network has an encoder, a projector and perhaps a predictor; the target gives what it should predict.

    Each group is a pair (p, t): the online output of one view and the target's embedding of another. With two views the
    groups are (p₁, t₂) and (p₂, t₁); one direction only (`symmetric: false`) is (p₁, t₂).

    The target is a slow copy of the encoder and projector, over parameters. After every update:
    t ← τ t + (1 - τ) online. With a cosine, τ rises from `momentum` to 1; it is then
    1 - (1 - momentum) (1 + cos(π · progress)) / 2.

    Without a momentum (null) the target is the online network itself behind a stop-gradient, as in SimSiam; or without
    one (`stop_gradient: false`), where only the predictor makes the two sides differ, as in an ablation of Barlow
    Twins.

    For an objective that looks at the embeddings as well, `with_embeddings: true` makes each group (p, t, z), with z
    the online projector's embedding that p was made from.

    Source: Grill et al., BYOL (arXiv 2006.07733); google-deepmind/deepmind-research byol/ at 4822a45. He et al., MoCo
        (arXiv 1911.05722); facebookresearch/moco at 87e36d3. Chen and He, SimSiam (arXiv 2011.10566).
    Convention: the running statistics of the target's batch norm are not averaged: the target runs in train mode and
        collects its own, as in all of these. The first update is made with τ = `momentum`.
    Deviation: BYOL's released target starts from another seed than the online network; here it starts as a copy, as in
        MoCo and in all other implementations. MoCo moves its target in the forward pass, before the update of the step
        and with the weights of the last one; moved after that last update, the target is the same one.

    Args:
        projector: the head of the online network and of the target.
        predictor: the head that only the online network has (BYOL); null: none (MoCo).
        momentum: τ, in [0, 1); null: the target is the online network behind a stop-gradient.
        momentum_schedule: "cosine" (to 1 at the end, BYOL) or "constant" (MoCo).
        stop_gradient: whether no gradient reaches the target, where there is no momentum.
        with_embeddings: whether groups are (p, t, z) in place of (p, t).
        symmetric: whether every view is predicted from every other, or the second from the first alone (MoCo).
        batch_norm_rows: batch norm takes its statistics from groups of so many rows (grouped batch norm), drawn anew in
            each step and differently for the online network and the target; null: from the whole batch. MoCo needs it:
            a query that shares its batch statistics with its key is recognised by them. Groups of 32, for example, are
            what one GPU sees in MoCo's ImageNet setting.

    Raises:
        ValueError: a momentum outside [0, 1), an unknown schedule, groups of fewer than two rows, or groups without a
            momentum; a momentum without stop-gradient.
    """

    projector: Head
    predictor: Head | None = None
    momentum: float | None = 0.996
    momentum_schedule: Schedule = "cosine"
    symmetric: bool = True
    batch_norm_rows: int | None = None
    stop_gradient: bool = True
    with_embeddings: bool = False

    @property
    def gives(self) -> str:
        return "triples" if self.with_embeddings else "pairs"

    def __post_init__(self) -> None:
        if self.momentum is not None and not self.stop_gradient:
            raise ValueError(
                f"stop_gradient is false and momentum {self.momentum}: a slow copy has no gradient; give momentum null "
                "for a target that is the online network itself, or leave stop_gradient out"
            )
        check_momentum(0.0 if self.momentum is None else self.momentum, self.momentum_schedule)
        if self.batch_norm_rows is not None and self.batch_norm_rows < 2:
            raise ValueError(f"batch_norm_rows is {self.batch_norm_rows}: give 2 or more, or null for the whole batch")
        if self.batch_norm_rows is not None and self.momentum is None:
            raise ValueError(
                f"batch_norm_rows is {self.batch_norm_rows} and momentum null: groups are drawn apart for two networks,"
                " and there is one; give a momentum, or null for both"
            )

    def widths(self, views: int) -> list[tuple[int, ...]]:
        predicted = self.projector if self.predictor is None else self.predictor
        pair: tuple[int, ...] = (predicted.widths[-1], self.projector.widths[-1])
        if self.with_embeddings:
            pair = (*pair, self.projector.widths[-1])
        return [pair] * (views * (views - 1) if self.symmetric else min(views - 1, 1))

    def build(self, new_encoder: "NewEncoder", seed: int) -> Method:
        encoder, width = new_encoder()
        projector = self.projector.build(width, seed, "projector")
        predictor = None
        if self.predictor is not None:
            predictor = self.predictor.build(self.projector.widths[-1], seed, "predictor")
        return _Distillation(encoder, projector, predictor, self)


class _Distillation(Method):
    def __init__(
        self, encoder: nn.Module, projector: nn.Module, predictor: nn.Module | None, section: Distillation
    ) -> None:
        super().__init__()
        self.encoder, self.projector, self.predictor = encoder, projector, predictor
        self.momentum, self.schedule, self.symmetric = section.momentum, section.momentum_schedule, section.symmetric
        self.stop_gradient, self.with_embeddings = section.stop_gradient, section.with_embeddings
        self.batch_norm_rows = section.batch_norm_rows
        self.target = None
        if self.momentum is not None:
            self.target = nn.ModuleDict({"encoder": copy.deepcopy(encoder), "projector": copy.deepcopy(projector)})
            self.target.requires_grad_(False)

    def apart(self) -> dict[str, nn.Module]:
        online = {"encoder": self.encoder, "projector": self.projector}
        if self.predictor is not None:
            online["predictor"] = self.predictor
        networks: dict[str, nn.Module] = {"online": nn.ModuleDict(online)}
        return networks if self.target is None else networks | {"target": self.target}

    def forward(self, rows: Rows) -> Outputs:
        views = checked_views(rows, 2, "distillation")
        pairs = list(permutations(range(len(views)), 2)) if self.symmetric else [(0, 1)]
        online = {i: self._online(views[i]) for i in sorted({i for i, _ in pairs})}
        targets = {j: self._target(views[j], online.get(j)) for j in sorted({j for _, j in pairs})}
        groups: list[tuple[Tensor, ...]] = [(online[i][2], targets[j]) for i, j in pairs]
        if self.with_embeddings:
            groups = [(*group, online[i][1]) for group, (i, _) in zip(groups, pairs, strict=True)]
        return Outputs([f for f, _, _ in online.values()], groups)

    def _online(self, view: Images) -> tuple[Tensor, Tensor, Tensor]:
        """Features, embeddings and predictions of a view."""
        f = features_of(self.encoder, view)
        z = self.projector(f)
        return f, z, z if self.predictor is None else self.predictor(z)

    def _target(self, view: Images, online: tuple[Tensor, Tensor, Tensor] | None) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.stop_gradient):
            if self.target is not None:
                t: Tensor = self.target["projector"](self.target["encoder"](view))
                return t
            z = (self._online(view) if online is None else online)[1]
        return z.detach() if self.stop_gradient else z

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        if self.target is None or self.momentum is None:
            return
        follow(self.target.parameters(), self._copied(), self.momentum, self.schedule, progress)

    def _copied(self) -> Iterator[nn.Parameter]:
        yield from self.encoder.parameters()
        yield from self.projector.parameters()
