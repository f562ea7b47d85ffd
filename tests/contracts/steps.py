"""Six steps of a learner, of every method and objective there is: in this process, or in one of several.

`python steps.py FOLDER` is one of the processes that a test starts. It takes its own rows of each batch, and writes
what it found to FOLDER/RANK.pt.
"""

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from contracts.prototypes import Prototypes
from contracts.toys.clusters import Clusters
from torch import Tensor, nn

from barlow import methods, objectives
from barlow.data.loader import Batch
from barlow.distributed import World, joined
from barlow.nets.heads import Head
from barlow.optim.optimizers import build_optimizer
from barlow.orders import chosen_orders, ranks_of
from barlow.training.learner import Learner, named_parameters
from barlow.types import Rows

SINGLE = World(torch.device("cpu"))
ROWS, IMAGES, WIDTH, CLASSES, WORDS = 12, 36, 3, 4, 11
ORDERS = torch.from_numpy(ranks_of(chosen_orders(4, CLASSES, "mean")))
STEPS, EPOCH = 6, 3
"""Three batches of twelve are an epoch of 36 images."""


@dataclass(frozen=True)
class Case:
    """A method, an objective, and what they are asked to do."""

    method: str
    objective: Any
    """The dataclass."""
    sides: tuple[int, ...] = (6, 6)
    """Of the views."""
    keys: dict[str, Any] = field(default_factory=dict)
    """Of the method's section, beside its heads."""


OPTIONS: dict[str, dict[str, Any]] = {
    "infomin": {"queue": 48},
    "jigsaw": {"permutations": 4, "tiles": 4},
    "cpc": {"width": 2, "scale": 1.0},
    "moco": {"queue": 48},
    "pcl": {"queue": 48, "clusters": (16, 20), "negatives": 4, "warmup": 0.4, "iterations": 3, "restarts": 2},
    "cmc": {"negatives": 10},
    "npid": {"negatives": 10},
    "pirl": {"negatives": 10},
    "obow": {"words": 72, "hidden": 5},
    "deepcluster_v1": {"clusters": 4},
    "deepcluster_v2": {"clusters": 4, "heads": 2},
    "sela": {"clusters": 4, "heads": 2, "updates": 5},
    "swav": {"prototypes": 5, "queue": 24, "queue_from": 0.3},
}
"""What an objective needs for batches this small."""


def objective(kind: str) -> Any:
    return objectives.load(kind)(**OPTIONS.get(kind, {}))


def group_taken(section: Any) -> str:
    """What an objective compares: "views", "pair", "triple" or "one", as its signature says."""
    if objectives.has_state(section):
        module = objectives.built(section, width=WIDTH, images=IMAGES, classes=CLASSES, seed=0)
        (inner,) = typing.get_args(typing.get_type_hints(module.forward)["groups"])
        arguments = typing.get_args(inner)
        return "views" if Ellipsis in arguments else SIZES[len(arguments)]
    positional = [p for p in inspect.signature(section).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    if any(p.kind is p.VAR_POSITIONAL for p in positional):
        return "views"
    return SIZES[len(positional)]


SIZES = {3: "triple", 2: "pair", 1: "one"}
NATURAL_METHOD = {"views": "siamese", "pair": "distillation", "triple": "distillation", "one": "classifier"}
OWN_METHOD = {"colorization": "colorization", "cpc": "cpc", "obow": "slow_maps"}
"""Objectives whose groups one method makes, and no other."""
METHOD_KEYS: dict[str, dict[str, Any]] = {
    "colorization": {"fine": 1, "grid": 3},
    "cpc": {"grid": 3, "patch": 4, "ahead": (1, 2), "width": 2, "hidden": 3, "blocks": 1},
    "image_and_tiles": {"tiling": (2, 2)},
    "image_text": {"words": WORDS, "embedding": 4, "hidden": 5},
    "slow_maps": {"features": 4, "maps": [(2, 2, 5), (1, 1, 4)]},
    "tiles": {"tiling": (2, 2)},
}
"""What a method's section needs to be known, or to be small, beside its heads. The maps are those of the encoder's
stages for views of six pixels: 4 × 4 and 3 × 3 positions, without a border of one."""

NATURAL_KEYS = {"triple": {"with_embeddings": True}}

SIDES = {"image_and_tiles": 8, "tile_sum": 8, "tiles": 8}
"""Of the views of a method that cannot do with six pixels."""

CLASSIFIERS = {"classifier", "tiles"}

WITHOUT_BATCH_NORM = {"cpc"}
"""Methods that refuse an encoder in which rows see each other."""

WIDTHS = {"ContextPrediction": 8}
"""Logits of a row, where an objective has other classes than `CLASSES`."""


def natural_case(method: str, objective: Any = None, views: int = 2) -> Case:
    """A method with so many views."""
    return Case(method, objective, (SIDES.get(method, 6),) * views)


def natural_objective(method: str) -> Any:
    """One that takes the groups that the method makes."""
    if method in OWN_METHOD.values():
        return objective(next(kind for kind, own in OWN_METHOD.items() if own == method))
    gives = section(natural_case(method), batch_norm=False).gives
    return objective({"views": "barlow_twins", "pairs": "byol", "triples": "byol_vicreg", "one": "rotation"}[gives])


def cases() -> dict[str, Case]:
    """Every file found, in a natural pair; and pairs that ask more of the shape."""
    found = {f"method {kind}": natural_case(kind, natural_objective(kind)) for kind in methods.kinds()}
    for kind in objectives.kinds():
        made = objective(kind)
        taken = group_taken(made)
        if kind not in OWN_METHOD:  # that pair is the method's, too
            found[f"objective {kind}"] = Case(NATURAL_METHOD[taken], made, keys=NATURAL_KEYS.get(taken, {}))
    return found | {
        "byol, three views of two sizes": Case("distillation", objective("byol"), (6, 6, 4)),
        "byol, stop-gradient alone": Case("distillation", objective("byol"), keys={"momentum": None}),
        "simsiam, stop-gradient alone": Case("distillation", objective("simsiam"), keys={"momentum": None}),
        "byol, constant momentum": Case("distillation", objective("byol"), keys={"momentum_schedule": "constant"}),
        "moco, one direction": Case("distillation", objective("moco"), keys={"symmetric": False, "predictor": None}),
        "vicreg on predictions and targets": Case("distillation", objective("vicreg")),
        "w_mse, four views, one pass": Case(
            "siamese", objective("w_mse"), (6,) * 4, keys={"batch_norm_sees": "all_views"}
        ),
        "swav, crops of two sizes": Case(
            "siamese", objective("swav"), (6, 6, 4, 4), keys={"batch_norm_sees": "all_views", "passes": "each_size"}
        ),
        "barlow_twins, crops of two sizes": Case(
            "siamese", objective("barlow_twins"), (6, 6, 4), keys={"passes": "each_size", "large": 2}
        ),
        "barlow_twins, predictor and stop-gradient": Case(
            "distillation", objective("barlow_twins"), keys={"momentum": None}
        ),
        "barlow_twins, predictor": Case(
            "distillation", objective("barlow_twins"), keys={"momentum": None, "stop_gradient": False}
        ),
        "simsiam with vicreg's terms, no predictor": Case(
            "distillation",
            objective("byol_vicreg"),
            keys={"momentum": None, "predictor": None, "with_embeddings": True},
        ),
        "vse, frozen images": Case("image_text", objective("vse"), (6,), keys={"frozen": True}),
        "vicreg, two views and a caption": Case("image_text", objective("vicreg"), keys={"unit_features": False}),
        "counting": Case("tile_sum", objective("counting"), (8,)),
        "rotation, one view": Case("classifier", objective("rotation"), (6,)),
        "cmc, halves of one view": Case("halves", objective("cmc"), (6,)),
        "pirl, tiles in one pass": natural_case("image_and_tiles", objective("pirl")),
        "infomin, a slow copy": dataclasses.replace(
            slow := natural_case("image_and_tiles", objective("infomin"), 3), keys=slow.keys | {"momentum": 0.9}
        ),
        "npid, one view": Case("siamese", objective("npid"), (6,)),
        "npid, full softmax": Case("siamese", objectives.load("npid")(negatives=0), (6,)),
        "jigsaw, one view of tiles": natural_case("tiles", objective("jigsaw"), 1),
        "obow, maps of one stage, crops of two sizes": Case(
            "slow_maps",
            objectives.load("obow")(words=72, hidden=5, window=2, crops=[2, 1]),
            (6, 6, 6, 4),
            keys={"levels": 1, "border": 0, "maps": [(3, 3, 4)]},
        ),
        "deepcluster_v2, crops of two sizes": Case(
            "siamese",
            objective("deepcluster_v2"),
            (6, 6, 4),
            keys={"batch_norm_sees": "all_views", "passes": "each_size"},
        ),
        "sela, one view": Case("classifier", objective("sela"), (6,)),
        "prototypes, views of two sizes": Case("siamese", Prototypes(), (6, 6, 4)),
        "a bank by id, and clusters before an epoch": Case("siamese", Clusters()),
    }


class Encoder(nn.Module):
    """Two convolutions of the kinds that encoders have, with batch norm or without."""

    def __init__(self, batch_norm: bool) -> None:
        super().__init__()
        from timm.layers import BatchNormAct2d

        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 5, 3, bias=not batch_norm)
        self.norm: nn.Module = nn.BatchNorm2d(5) if batch_norm else nn.Identity()
        self.second = nn.Conv2d(5, 4, 2, bias=not batch_norm)
        self.norm_act: nn.Module = BatchNormAct2d(4, act_layer=nn.Tanh) if batch_norm else nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.first(x)))
        places: Tensor = self.norm_act(self.second(x))
        return places

    def forward_head(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)

    def halves(self) -> tuple[slice, slice]:
        """By this it may stand for two networks, as the method `halves` asks: which features are whose."""
        return slice(0, 2), slice(2, 4)

    feature_info: ClassVar = [{"module": "norm", "reduction": 1}, {"module": "norm_act", "reduction": 2}]

    def forward_intermediates(self, x: Tensor, indices: list[int], intermediates_only: bool) -> list[Tensor]:
        """The maps of its two stages, as timm's networks give theirs."""
        assert intermediates_only
        first = torch.tanh(self.norm(self.first(x)))
        return [[first, self.norm_act(self.second(first))][i] for i in indices]


def encoder(method: str, batch_norm: bool) -> Encoder:
    """The network that a method is tried with. Where batch norm is refused, its other networks alone have it."""
    return Encoder(batch_norm and method not in WITHOUT_BATCH_NORM)


def section(case: Case, batch_norm: bool) -> Any:
    """The method's dataclass with a small head wherever it has one."""
    cls = methods.load(case.method)
    logits = WIDTHS.get(type(case.objective).__name__, CLASSES)
    width = logits if case.method in CLASSIFIERS else WIDTH
    head = Head(widths=[6, width], hidden_bias=True, last_bias=True, batch_norm=batch_norm)
    hints = typing.get_type_hints(cls)
    heads = {f.name: head for f in dataclasses.fields(cls) if Head in (hints[f.name], *typing.get_args(hints[f.name]))}
    heads.pop("other_projector", None)  # one like the first
    return cls(**heads | METHOD_KEYS.get(case.method, {}) | case.keys)


def takes_pixels(case: Case) -> bool:
    return bool(getattr(methods.load(case.method), "takes_pixels", False))


def batch(step: int, case: Case, world: World) -> Batch:
    """This process's block of a batch. Every row is another, and not alike in scale: shards have other statistics."""
    epoch, place = divmod(step, EPOCH)
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(1000 + epoch))
    ids = order[place * ROWS : (place + 1) * ROWS][world.block(ROWS)]
    views = [images(ids, view, side, epoch) for view, side in enumerate(case.sides)]
    told = (ids // 2 + epoch) % CLASSES
    views = [view.sigmoid() for view in views] if takes_pixels(case) else views
    known = {"ids": ids, "labels": ids % CLASSES, "rotation": told, "position": 2 * told + ids % 2}
    known |= {"permutation": ORDERS[told], "caption": tokens(ids, epoch)}
    return Batch(step, epoch, Rows(views, known), [], begins_epoch=place == 0)


def tokens(ids: Tensor, epoch: int) -> Tensor:
    """A caption of each image, of three to six numbers and zeros behind them."""
    places = torch.arange(6)
    words = (ids[:, None] * 5 + places * (ids[:, None] + 1 + epoch)) % (WORDS - 1) + 1
    return words * (places < 3 + ids[:, None] % 4)


def images(ids: Tensor, view: int, side: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(epoch)
    scale = torch.linspace(0.2, 3, IMAGES, dtype=torch.float64).view(-1, 1, 1, 1)
    of_whole = (IMAGES, 3, max(6, side), max(6, side))
    whole = torch.randn(of_whole, generator=torch.Generator().manual_seed(7), dtype=torch.float64) * scale
    noise = torch.randn(9, *of_whole, generator=generator, dtype=torch.float64)
    return (whole + 0.3 * noise[view])[ids, :, :side, :side]


def all_rows(
    world: World, sides: tuple[int, ...] = (6, 6), *, pixels: bool = False
) -> Callable[[int | None], Iterator[Rows]]:
    def rows(drawn: int | None = None) -> Iterator[Rows]:
        order = torch.arange(IMAGES)
        if drawn is not None:
            order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(2000 + drawn))
        for start in range(0, IMAGES, 24):  # the second is filled up with its last row
            ids = order[torch.arange(start, start + 24).clamp(max=IMAGES - 1)][world.block(24)]
            views = [images(ids, view, side, 100 + (drawn or 0)) for view, side in enumerate(sides)]
            views = [images(ids, 0, 6, 99)] if drawn is None else views
            yield Rows([view.sigmoid() for view in views] if pixels else views, {"ids": ids})

    return rows


def learner(case: Case, world: World, batch_norm: bool, **options: Any) -> Learner:
    """Ready for its first step, in float64, with LARS: what it does to a parameter depends on all of its gradient."""
    method = section(case, batch_norm).build(lambda *_, **__: (encoder(case.method, batch_norm), 4), seed=1).double()
    width = section(case, batch_norm).widths(len(case.sides))[0][0]
    known = {"maps": getattr(section(case, batch_norm), "maps", None)}
    compared = objectives.built(case.objective, width=width, images=IMAGES, classes=CLASSES, seed=2, **known)
    if isinstance(compared, nn.Module):
        compared.double()
    optimizer = build_optimizer(
        named_parameters(method, compared), kind="lars", lr=1.0, weight_decay=1e-3, momentum=0.9, trust=0.02
    )
    rows = all_rows(world, case.sides, pixels=takes_pixels(case))
    return Learner(method, compared, optimizer, world, precision="float32", seed=3, all_rows=rows, **options)


def stepped(made: Learner, case: Case, start: int, stop: int) -> list[Tensor]:
    """The losses of some steps."""
    losses = []
    with made.training():
        for step in range(start, stop):
            outcome = made.step(batch(step, case, made.world), 0.05, step / STEPS)
            losses.append(torch.stack(list(outcome.terms.values())).sum().detach())
    return losses


def run(
    case: Case, world: World = SINGLE, *, batch_norm: bool, resume_at: int | None = None, **options: Any
) -> dict[str, Tensor]:
    """The losses of all steps, and the state after the last."""
    made = learner(case, world, batch_norm, **options)
    losses = stepped(made, case, 0, resume_at or STEPS)
    if resume_at is not None:
        tensors, rest = made.state()
        kept = {name: value.clone() for name, value in tensors.items()}
        made = learner(case, world, batch_norm, **options)
        made.load(kept, rest)
        losses += stepped(made, case, resume_at, STEPS)
    tensors, _ = made.state()
    return {f"loss {number}": loss for number, loss in enumerate(losses)} | {n: t.clone() for n, t in tensors.items()}


def found(world: World, *, all_cases: bool = True) -> dict[str, dict[str, Tensor]]:
    """What `run` gives of the cases; or of every sixth of them, which takes a sixth of the time."""
    everything = {}
    for name, case in [*cases().items()][:: 1 if all_cases else 6]:
        for batch_norm in (False, True):
            everything[f"{name}, {'with' if batch_norm else 'without'} batch norm"] = run(
                case, world, batch_norm=batch_norm
            )
        has_groups = "batch_norm_rows" in {f.name for f in dataclasses.fields(methods.load(case.method))}
        if has_groups and section(case, batch_norm=True).momentum is not None:  # groups are for two networks
            grouped = dataclasses.replace(case, keys=case.keys | {"batch_norm_rows": 4})
            everything[f"{name}, with grouped batch norm"] = run(grouped, world, batch_norm=True)
    return everything


def difference(ours: dict[str, Tensor], reference: dict[str, Tensor]) -> dict[str, float]:
    """The largest difference of each tensor, relative to its own largest entry.

    Some parameters have a gradient of nothing but rounding: a bias before a norm, or the last bias under an objective
    that no shift changes. What is below 1e-9 of the largest entry of its part (method, objective, optimizer) is
    compared with that entry instead.
    """
    assert ours.keys() == reference.keys()
    sizes = {name: float(value.abs().max()) for name, value in reference.items() if value.numel()}
    largest: dict[str, float] = {}
    for name, size in sizes.items():
        part = name.partition("/")[0]
        largest[part] = max(size, largest.get(part, 0.0))
    errors = {}
    for name, size in sizes.items():
        most = largest[name.partition("/")[0]]
        scale = most if size < 1e-9 * most else size
        errors[name] = float((ours[name].double() - reference[name].double()).abs().max()) / (scale or 1.0)
    return errors


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined("cpu") as world:
        torch.save(found(world, all_cases=sys.argv[2] == "all"), Path(sys.argv[1]) / f"{world.rank}.pt")
