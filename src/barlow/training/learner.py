"""The learner: everything that training changes. Its state is the checkpoint."""

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from barlow import exits
from barlow.data.loader import Batch
from barlow.diagnostics.evidence import parts_without_gradient
from barlow.distributed import World, fixed_shapes
from barlow.linalg import norms
from barlow.methods._networks import Method
from barlow.nets.grouped_norms import Grouping, Groups, grouped
from barlow.nets.modes import in_eval_mode
from barlow.nets.norms import synchronized
from barlow.nets.recompute import recomputed
from barlow.nets.seeding import seeded
from barlow.optim.optimizers import can_skip, freeze, load_state, set_rate, state_tensors, update_if
from barlow.training import looks
from barlow.training.comparison import Comparison, Objective
from barlow.training.global_gradient import backward
from barlow.training.looks import AllImages, AllRows
from barlow.types import Embedding, Ids, Images, Outputs, Rows


class NonFinite(exits.Diverged):
    """The loss or its gradient is not a number; nothing was updated with it."""

    images: Sequence[int] = ()
    """Ids of the images whose features are not finite, if that is where it began."""


@dataclass(frozen=True)
class Outcome:
    """What a step gave."""

    outputs: Outputs
    """What the networks made of this process's rows."""
    terms: Mapping[str, Tensor]
    """Of the global batch."""
    rate: float
    gradient_norm: Tensor
    without_gradient: Sequence[str] = ()
    """Parts of the networks that should be trained and got no gradient; looked for in the second step alone."""


@dataclass(frozen=True)
class Unread:
    """What a verdict on a step needs, which a GPU may give a step later. Only the features' memory is kept for it."""

    step: int
    terms: Mapping[str, Tensor]
    features: Sequence[Tensor]
    """Of this process's rows, a batch for each view."""
    ids: Tensor
    """Of its images."""
    layers: Sequence[str]
    """The parameters that have a gradient, by name, the nearest to the loss at the end."""
    norms: Tensor
    """Of their gradients."""

    @cached_property
    def norm(self) -> Tensor:
        """Of all gradients together."""
        return torch.linalg.vector_norm(self.norms)

    def check(self) -> None:
        """Refuses a loss or gradient that is not finite, and says where it began: in images whose features are not
        finite, or else in the layer nearest to the loss whose gradient is not.

        Raises:
            NonFinite: with that, and the values of the terms.
        """
        try:
            guard(self.step, self.terms, self.norm)
        except NonFinite as error:
            raise self._located(error) from None

    def _located(self, error: "NonFinite") -> "NonFinite":
        bad = ~torch.stack([features.isfinite().all(dim=1) for features in self.features]).all(dim=0)
        if bool(bad.any()):
            made = NonFinite(f"{error}. The features of {int(bad.sum())} of {len(bad)} images are not finite")
            made.images = self.ids.to(bad.device)[bad].tolist()
            return made
        broken = [name for name, norm in zip(self.layers, self.norms.tolist(), strict=True) if not math.isfinite(norm)]
        return NonFinite(f"{error}. It began with the gradient of {broken[-1]}") if broken else error


class Learner:
    """Everything that training changes: the method's networks, the objective's own state, the optimizer.

    Args:
        method: the networks.
        objective: a callable without state, called once for each group; or an `nn.Module` with state, called once with
            all groups (`barlow.objectives.Objective` has the contract).
        optimizer: over `named_parameters(method, objective)`.
        world: the processes that train together.
        precision: of the forward passes, bf16 or float32.
        seed: of the layers that draw (dropout, stochastic depth) and of grouped batch norm.
        loss_weight: factor of the gradient.
        rows_in_memory: images whose activations are kept at a time; None: all of the batch.
        activation_checkpointing: whether the encoder's activations are computed again in the backward pass.
        all_rows: for objectives with a hook that looks at all images, and for methods that hold their features.

    Raises:
        ValueError: the objective needs all images before an epoch, and `all_rows` is not given; or it has state that
            would not be saved.
    """

    def __init__(
        self,
        method: Method,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        world: World,
        *,
        precision: str,
        seed: int,
        loss_weight: float = 1.0,
        rows_in_memory: int | None = None,
        activation_checkpointing: bool = False,
        all_rows: AllRows | None = None,
    ) -> None:
        self.method, self.objective, self.optimizer, self.world = method, objective, optimizer, world
        self.precision, self.seed, self.loss_weight = precision, seed, loss_weight
        self.rows_in_memory, self.activation_checkpointing = rows_in_memory, activation_checkpointing
        self.all_rows = all_rows
        self.looking = True
        """Whether the objective gets its looks at all images (False: while the time of a step is measured)."""
        looks.check(objective, all_rows)
        self._comparison = Comparison(objective)
        self._trained = self.named_parameters()
        self._network: nn.Module = method
        self._groups: list[Groups] = []
        self._unread: deque[Unread] = deque()
        # Reading a value waits for the device. A GPU would then idle until it is given work: where the update can be
        # left to it, the verdict on a step is read when the next one is queued.
        self._late = 1 if world.queues and can_skip(optimizer) else 0

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Inside, steps can be made: networks in train mode, wrapped for several processes, with shared batch norm."""
        self.method.train()
        if isinstance(self.objective, nn.Module):  # one given in Python may have drawn its own values in each process
            self.world.make_alike(self.objective)
        self.hold_features()
        with contextlib.ExitStack() as held:
            if (rows := self.method.batch_norm_rows) is not None:
                for name, network in self.method.apart().items():
                    grouping = Grouping(rows=rows, seed=self.seed, network=name)
                    self._groups.append(held.enter_context(grouped(network, self.world, grouping)))
            held.enter_context(synchronized(self.method, self.world))
            held.enter_context(fixed_shapes(self.world.device))
            if self.activation_checkpointing:
                held.enter_context(recomputed(self.method.encoder))
            self._network = self.world.wrap(self.method)
            try:
                yield
            finally:
                self._network, self._groups = self.method, []

    def step(self, batch: Batch, rate: float, progress: float) -> Outcome:
        """One update. Loss, gradient and update are those of the global batch, however many processes and chunks.

        Args:
            batch: this process's block of it.
            rate: the learning rate of this update.
            progress: share of the run that is done before this step: 0 at the first.

        Raises:
            NonFinite: the loss or the gradient is not a number (on a GPU: of the step before).
        """
        if self.looking:  # a method that holds features is given no views
            self.look(batch.step, progress, max(len(batch.rows.views), 1), begins_epoch=batch.begins_epoch)
        set_rate(self.optimizer, rate)
        for groups in self._groups:
            groups.draw(batch.step, len(batch.rows) * self.world.size)
        outputs, terms = backward(
            self._network,
            lambda groups: self._compared(groups, batch, progress),
            batch.rows,
            world=self.world,
            precision=self.precision,
            draws=_draws(self.seed, batch.step, self.world),
            loss_weight=self.loss_weight,
            rows_in_memory=self.rows_in_memory,
        )
        self._share_gradients()
        gradients = {name: p.grad for name, p in self._trained if p.grad is not None}
        unread = Unread(
            batch.step,
            {name: value.detach() for name, value in terms.items()},
            [features.detach() for features in outputs.features],
            batch.rows.known["ids"],
            list(gradients),
            norms(list(gradients.values())),
        )
        self._unread.append(unread)
        self.settle(leave=self._late)
        norm = unread.norm
        idle = parts_without_gradient(self.named_parameters()) if batch.step == 1 else ()
        freeze(self.optimizer, progress)
        update_if(self.optimizer, finite(terms, norm)) if self._late else self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.after_step(progress)
        if hasattr(self.objective, "after_step"):
            self.objective.after_step()
        return Outcome(outputs, terms, rate, norm, idle)

    def looks(self, step: int, progress: float, *, begins_epoch: bool) -> bool:
        """Whether the objective looks at all images before a step."""
        return looks.due(self.objective, step, progress, begins_epoch=begins_epoch)

    def look(self, step: int, progress: float, views: int, *, begins_epoch: bool) -> None:
        """Lets an objective that is to look at all images before this step do so.

        Args:
            step: updates done.
            progress: share of the run that is done.
            views: how many the method is used to.
            begins_epoch: whether the step is the first of an epoch.
        """
        if self.looks(step, progress, begins_epoch=begins_epoch):
            images = self._all_images(views)
            for parameter in looks.had(self.objective, images, step, progress, begins_epoch=begins_epoch):
                self.optimizer.state.pop(parameter, None)

    def hold_features(self) -> None:
        """Gives a method whose encoder is never changed the features of all images (`Method.hold`).

        Raises:
            ValueError: it wants them, and there is no `all_rows`.
        """
        if not self.method.holds_features:
            return
        if self.all_rows is None:
            raise ValueError(f"{type(self.method).__name__} holds features, which needs all_rows; give it")
        self.method.hold(*self._all_images(1).features())

    def settle(self, leave: int = 0) -> None:
        """Raises what is wrong with the steps so far, all but the last `leave`.

        Raises:
            NonFinite: a loss or gradient of them was not a number.
        """
        while len(self._unread) > leave:
            self._unread.popleft().check()

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """What the optimizer may update."""
        return named_parameters(self.method, self.objective)

    def embed(self, views: int, step: int = 0, member: int = 0, **how: bool) -> tuple[Ids, Embedding]:
        """Embeddings of all images, as `barlow.AllImages` gives them.

        Args:
            views: how many the method is used to; it is given the centre so many times.
            step: whose look it is. Another step has other draws.
            member: which of the embeddings that `forward` gives.
            how: `augmented` and `training`.
        """
        return self._all_images(views).embedded(step, member, **how)

    def _all_images(self, views: int) -> AllImages:
        assert self.all_rows is not None
        return AllImages(self.method, self.all_rows, self.world, tuple(self._groups), views, self.precision, self.seed)

    @torch.no_grad()
    def outputs_of(self, view: Images, views: int) -> dict[str, Tensor]:
        """Features of a view, and embeddings if the method compares any: float32, on the CPU. Nothing is changed.

        Args:
            view: normalised images, in this process alone.
            views: how many the method is used to; it is given this one so many times.
        """
        known = {"ids": torch.zeros(len(view), dtype=torch.int64)}
        with in_eval_mode(self.method), self.world.autocast(self.precision):
            outputs = self.method(Rows([view] * views, known))
        return {name: z.float().cpu() for name, z in outputs.compared().items()}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors under method/…, objective/… and optimizer/…, and all else of the optimizer as plain values.

        The tensors are the live ones, not copies: write them before the next step.
        """
        optimizer, rest = state_tensors(self.optimizer, self.named_parameters())
        parts = {"method": self.method.state_dict(), "objective": _state_dict(self.objective), "optimizer": optimizer}
        tensors = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
        return tensors, {"optimizer": rest}

    def load(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Puts a state back, strictly.

        Raises:
            ValueError: a tensor is missing or unknown; the message names the first.
        """
        here = {"method": self.method.state_dict(), "objective": _state_dict(self.objective)}
        parts: dict[str, dict[str, Tensor]] = {"method": {}, "objective": {}, "optimizer": {}}
        for name, value in tensors.items():
            part, _, inner = name.partition("/")
            parts.setdefault(part, {})[inner] = value
        wrong = sorted(parts.keys() - {"method", "objective", "optimizer"})
        for part, values in here.items():  # torch itself would let a batch norm's missing counter pass
            wrong += [
                name if part == "method" else f"{part}/{name}" for name in sorted(values.keys() ^ parts[part].keys())
            ]
        if wrong:
            raise ValueError(f"the state is of another method or objective: {wrong[0]} is missing or unknown")
        for part, values in here.items():
            for name, value in values.items():
                if parts[part][name].shape != value.shape:
                    raise ValueError(
                        f"the state is of another method or objective: {part}/{name} has shape "
                        f"{tuple(parts[part][name].shape)}, and {tuple(value.shape)} here"
                    )
        if "optimizer" not in rest:
            raise exits.UnusableData("the state has no optimizer: it is incomplete or damaged")
        self.method.load_state_dict(parts["method"], strict=True)
        if isinstance(self.objective, nn.Module):
            self.objective.load_state_dict(parts["objective"], strict=True)
        load_state(self.optimizer, self.named_parameters(), parts["optimizer"], rest["optimizer"])

    def _compared(self, groups: list[tuple[Tensor, ...]], batch: Batch, progress: float) -> Mapping[str, Tensor]:
        """The terms of the global batch. A layer that draws, inside an objective, draws alike in every process."""
        known = batch.rows.known
        device = groups[0][0].device
        about: dict[str, Any] = {
            name: self.world.collect(known[name].to(device)).flatten(0, 1)
            for name in self._comparison.asks
            if name in known
        }
        draws = isinstance(self.objective, nn.Module)
        with seeded(self.seed, f"objective {batch.step}", device) if draws else contextlib.nullcontext():
            return self._comparison(groups, about | {"progress": progress})

    def _share_gradients(self) -> None:
        """The mean over the processes of the gradients of the objective's own parameters.

        Each process has computed the same loss of all rows, so they are the same but for what a device may round
        differently. The networks' gradients are averaged where they are wrapped.
        """
        if self.world.size > 1:
            for _, p in _parameters(self.objective):
                if p.grad is not None:
                    p.grad.copy_(self.world.total(p.grad) / self.world.size)


def named_parameters(method: nn.Module, objective: Objective) -> list[tuple[str, nn.Parameter]]:
    """The parameters that want a gradient: the method's by their own names, the objective's below `objective.`."""
    return [
        *((name, p) for name, p in method.named_parameters() if p.requires_grad),
        *((f"objective.{name}", p) for name, p in _parameters(objective) if p.requires_grad),
    ]


def _parameters(objective: Objective) -> Iterable[tuple[str, nn.Parameter]]:
    return objective.named_parameters() if isinstance(objective, nn.Module) else ()


def _state_dict(objective: Objective) -> dict[str, Tensor]:
    return objective.state_dict() if isinstance(objective, nn.Module) else {}


def _draws(seed: int, step: int, world: World) -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """Layers that draw do so by (seed, step, process, chunk): a resumed run goes on as it would have."""

    def draws(chunk: int) -> contextlib.AbstractContextManager[None]:
        names = (("step", step), ("process", world.rank), ("chunk", chunk))
        part = " ".join(f"{name} {number}" for name, number in names if number or name == "step")
        return seeded(seed, part, world.device)

    return draws


def finite(terms: Mapping[str, Tensor], gradient_norm: Tensor) -> Tensor:
    """Whether a loss and its gradient are numbers. Decided on the device, without waiting for it."""
    return torch.isfinite(torch.stack([*terms.values(), gradient_norm.to(next(iter(terms.values())).device)])).all()


def guard(step: int, terms: Mapping[str, Tensor], gradient_norm: Tensor) -> None:
    """Refuses a loss or gradient that is not finite, before anything is updated with it.

    Raises:
        NonFinite: with the terms' values.
    """
    if bool(finite(terms, gradient_norm)):
        return
    values = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.items())
    raise NonFinite(
        f"step {step}: the loss or its gradient is not finite ({values}, gradient norm {float(gradient_norm):.4g}); "
        "the weights were not updated. Lower --optim.lr_per_256, raise --schedule.warmup_fraction, "
        "or use --precision float32"
    )
