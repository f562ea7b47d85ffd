"""The objectives that there are, each as a function of tensors whatever its signature asks for.

So one test serves all of them. Found are the files of barlow/objectives and the toys beside this file, which ask for
what no objective asks for yet.
"""

import importlib
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from contracts.own_groups import OWN_GROUPS, OwnGroup
from oracles.vectors import batch_in
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from barlow import objectives
from barlow.orders import chosen_orders, ranks_of

Takes = Literal["views", "a prediction and its target", "a prediction, its target and its embedding", "one"]

IMAGES = 256
"""Images of the data set, of which a batch is a part, or all."""

CLASSES = {"labels": 5, "rotation": 4, "position": 8, "permutation": 6}
"""What may be known of each image besides its id, with the number of classes that there are."""

TOLD = {"permutation": torch.from_numpy(ranks_of(chosen_orders(4, CLASSES["permutation"], "mean")))}
"""What is told of each class, where that is not its number."""


@dataclass(frozen=True)
class Case:
    """An objective's dataclass, called as a run would call it."""

    section: Any

    @property
    def has_state(self) -> bool:
        return objectives.has_state(self.section)

    @property
    def below_zero(self) -> float:
        """How far below 0 a term may be."""
        return 1.0 if getattr(self.section, "convention", None) == "simsiam" else 0.0

    @property
    def takes(self) -> Takes:
        """What a group is."""
        sizes: list[Any]
        if self.has_state:
            hints = typing.get_type_hints(type(self.built(4)).forward)
            (group,) = typing.get_args(hints["groups"])
            sizes = ["any" if kind is ... else kind for kind in typing.get_args(group)]
        else:
            kinds = _positional(self.section)
            sizes = ["any"] if "VAR_POSITIONAL" in kinds else list(kinds)
        if "any" in sizes:
            return "views"
        assert 1 <= len(sizes) <= 3, f"what a group is: *z, (p, t, z), (p, t) or (logits), not {len(sizes)} parameters"
        return ("one", "a prediction and its target", "a prediction, its target and its embedding")[len(sizes) - 1]

    @property
    def own_group(self) -> OwnGroup | None:
        """How its groups are made, where their members are of several widths."""
        return OWN_GROUPS.get(type(self.section).__module__.rpartition(".")[2])

    def built(self, width: int, *, seed: int = 0) -> Any:
        """What a run calls."""
        return objectives.built(self.section, width=width, images=IMAGES, classes=CLASSES["labels"], seed=seed)

    def asks(self) -> list[str]:
        return objectives.asks(self.built(4))

    def known(self, n: int, progress: float = 0.25, step: int = 0) -> dict[str, Any]:
        """What the objective asks for: of n different images, in no order."""
        ids = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(n + 1000 * step))[:n]
        of_rows = {name: ids * 7 % classes for name, classes in CLASSES.items()}
        of_rows |= {name: told[of_rows[name]] for name, told in TOLD.items()}
        known = of_rows | {"ids": ids, "progress": progress}
        unknown = set(self.asks()) - set(known)
        assert not unknown, f"it asks for {', '.join(sorted(unknown))}; a step knows {', '.join(known)}"
        return {name: known[name] for name in self.asks()}

    def inputs(self, state: str, n: int, d: int, *, seed: int = 0) -> list[Tensor]:
        """A group in float64, exact in float32. Logits have a width of their own, and say what is right."""
        if self.own_group is not None:
            return self.own_group.inputs(state, n, d, seed)
        if self.takes == "a prediction, its target and its embedding":
            return [*batch_in(state, n, d, seed), batch_in(state, n, d, seed + 100)[0]]
        if self.takes != "one":
            return list(batch_in(state, n, d, seed))
        asked = next((name for name in self.asks() if name in CLASSES), None)
        if asked is None:
            return [batch_in(state, n, d, seed)[0]]
        logits, _ = batch_in(state, n, CLASSES[asked], seed)
        right = self.known(n)[asked]
        right = torch.searchsorted(TOLD[asked], right) if asked in TOLD else right
        return [logits + 3 * nn.functional.one_hot(right, CLASSES[asked])]

    def paired_wrongly(self, group: list[Tensor]) -> list[Tensor]:
        """The same with one view, or the target, of other images."""
        place = 1 if self.takes.startswith("a prediction") else -1
        wrong = list(group)
        wrong[place] = wrong[place].roll(1, 0)
        return wrong

    def differentiable(self, group: list[Tensor]) -> list[Tensor]:
        """Those that get a gradient: all, but for a target, unless it is trained."""
        if getattr(self.section, "trains_targets", False):
            return group
        return [z for place, z in enumerate(group) if not (place == 1 and self.takes.startswith("a prediction"))]

    def __call__(self, *group: Tensor, rows: Tensor | slice = slice(None)) -> dict[str, Tensor]:
        """The terms of a group, from the state at the start; `rows`: which the group's rows are of those known."""
        known = self.known(len(group[0]) if group else 0)
        known = {name: value[rows] if isinstance(value, Tensor) else value for name, value in known.items()}
        if not self.has_state:
            return self.section(*group, **known)
        width = group[0].shape[-1] if group else 4
        return self.built(width).to(_widest(group))([group], **known)

    def loss_and_gradients(self, *group: Tensor, **options: Any) -> tuple[float, list[Tensor]]:
        """The loss and its gradients, in float64, with respect to all that get one."""
        leaves = [z.detach().clone().requires_grad_() for z in group]
        loss = sum(self(*leaves, **options).values())
        return loss.item(), [g.double() for g in torch.autograd.grad(loss, self.differentiable(leaves))]


def _positional(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.kind.name for p in parameters if p.kind.name not in ("KEYWORD_ONLY", "VAR_KEYWORD")]


def _widest(group: tuple[Tensor, ...]) -> torch.dtype:
    return torch.float64 if torch.float64 in [z.dtype for z in group] else torch.float32


def _toy(name: str) -> type:
    module = importlib.import_module(f"contracts.toys.{name}")
    (section,) = module.__all__
    return getattr(module, section)


TOYS = sorted(path.stem for path in (Path(__file__).parent / "toys").glob("*.py"))

SECTIONS: dict[str, type] = {kind: objectives.load(kind) for kind in objectives.kinds()}
SECTIONS |= {f"toy {name}": _toy(name) for name in TOYS}
"""Every file's dataclass."""

SMALLER: dict[str, dict[str, Any]] = {
    "infomin": {"queue": 288},
    "jigsaw": {"permutations": CLASSES["permutation"], "tiles": 4},
    "cpc": {"width": 8, "scale": 1.0},
    "moco": {"queue": 288},
    "pcl": {"queue": 288, "clusters": (40, 60), "negatives": 7, "warmup": 0.0, "iterations": 2, "restarts": 1},
    "cmc": {"negatives": 24},
    "npid": {"negatives": 24},
    "pirl": {"negatives": 24},
    "obow": {"words": 288, "hidden": 7},
    "deepcluster_v1": {"clusters": 6},
    "deepcluster_v2": {"clusters": 6},
    "sela": {"clusters": 6, "heads": 2},
    "moco_v3": {"temperature": 0.2},
    "swav": {"prototypes": 6, "queue": 288, "queue_from": 0.0},
    "vse": {"margin": 1.5},
}
"""What the defaults are too large for: 288 is a multiple of the keys of every batch here, and a temperature of 1 hardly
tells keys apart where there are few. With its own margin, a hinge is at rest where a batch has nearly converged."""

CONSTANT = {"jigsaw": "the set of orders, without which a checkpoint does not say what its classes are"}
"""Those whose buffers no step changes, and what they keep in them."""

OWN_TARGETS = {"cmc", "npid", "pirl", "swav", "swav without a queue"}
"""Those that make a target of the embeddings without a gradient: finite differences see it, and gradients do not.
That of NPID, PIRL and CMC is the constant that the first batch gives."""

WIDE = {"colorization", "cpc"}
"""Those with too many inputs for finite differences of each; their own tests have some of each."""

KNOWN_OF = "it compares views with what is known of their image, not with each other"
INDIFFERENT = {
    "barlow_twins off-diagonal only": "it compares no feature with itself",
    "obow": "what predicts words of a view has learned nothing yet",
    "cmc": KNOWN_OF,
    "deepcluster_v1": KNOWN_OF,
    "deepcluster_v1 balance": KNOWN_OF,
    "deepcluster_v2": KNOWN_OF,
    "exemplar": KNOWN_OF,
    "npid": KNOWN_OF,
    "npid cross-entropy": KNOWN_OF,
    "npid full softmax": KNOWN_OF,
    "pirl": KNOWN_OF,
    "sela": KNOWN_OF,
    "toy clusters": KNOWN_OF,
}
"""Those that do not ask the views to agree, and why."""

ONE_VIEW = {"npid", "npid cross-entropy", "npid full softmax"}
"""Those that take one view as well, and one row: what each is compared with is their state."""

TOGETHER = {"exemplar_triplets"}
"""Those that compare all views of a step at once, so that three views are not the mean over their pairs."""

VARIANTS = {
    "barlow_twins diagonal only": ("barlow_twins", {"redundancy": 0.0}),
    "barlow_twins off-diagonal only": ("barlow_twins", {"invariance": 0.0}),
    "barlow_twins samples": ("barlow_twins", {"normalization": "samples"}),
    "barlow_twins none": ("barlow_twins", {"normalization": "none"}),
    "byol_vicreg simsiam": ("byol_vicreg", {"convention": "simsiam"}),
    "deepcluster_v1 balance": ("deepcluster_v1", {"clusters": 5, "whitened": 3, "balance": 0.5}),
    "npid cross-entropy": ("npid", {"negatives": 24, "form": "cross_entropy"}),
    "npid full softmax": ("npid", {"negatives": 0}),
    "swav without a queue": ("swav", {"prototypes": 6}),
    "simclr paper": ("simclr", {"convention": "paper", "temperature": 0.5}),
    "vse all negatives": ("vse", {"hinges": "all", "margin": 1.5}),
    "vicreg algorithm_1": ("vicreg", {"convention": "algorithm_1"}),
    "vicreg equations": ("vicreg", {"convention": "equations"}),
    "w_mse zca": ("w_mse", {"whitening": "zca"}),
    "w_mse euclidean": ("w_mse", {"distance": "euclidean"}),
    "w_mse zca euclidean": ("w_mse", {"whitening": "zca", "distance": "euclidean"}),
    "w_mse slicings": ("w_mse", {"slicings": 3}),
    "w_mse shrinkage": ("w_mse", {"shrinkage": 1e-3}),
}
"""Those that papers' ablations need."""

CASES = {name: Case(section(**SMALLER.get(name, {}))) for name, section in SECTIONS.items()}
CASES |= {name: Case(SECTIONS[kind](**parameters)) for name, (kind, parameters) in VARIANTS.items()}


class OrderOfWrites(TorchDispatchMode):
    """Numbers the operations inside: which was the last to make a tensor, which the first to write into the state."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.state = {_storage(buffer): name for name, buffer in module.named_buffers()}
        self.made: dict[int, int] = {}
        self.kept: list[Tensor] = []
        """All results: memory that is not given back cannot become another tensor's."""
        self.first_write: tuple[int, str] | None = None
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count += 1
        for parameter, value in zip(func._schema.arguments, args, strict=False):
            if parameter.alias_info is not None and parameter.alias_info.is_write:
                for tensor in tree_leaves(value):
                    self._written(_storage(tensor))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.kept.append(tensor)
                self.made.setdefault(_storage(tensor), self.count)
        return result

    def _written(self, storage: int) -> None:
        self.made[storage] = self.count
        if storage in self.state and self.first_write is None:
            self.first_write = self.count, self.state[storage]

    def made_after_the_first_write(self, terms: dict[str, Tensor]) -> list[str]:
        if self.first_write is None:
            return []
        return [name for name, term in terms.items() if self.made[_storage(term)] > self.first_write[0]]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
