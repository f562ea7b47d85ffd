"""How exact the objectives are: every term and its gradient against float64 matrices, over shapes and states.

The claim: relative error at most 1e-9 for float64 embeddings and 1e-4 for float32 ones, term by term (a large term must
not hide a small one).

Relative means: of a value v against r, |v - r| / |r|; of a gradient, ‖g - r‖ / ‖r‖ over both views together, in which a
view that has next to no gradient is measured by the other. A term that is 0 must be 0. There is no floor: where a
gradient nearly vanishes (two rows, views that agree) the digits of what is left are asked for. The one exception is
the reference's own rounding, which matters to float64 alone: where it exceeds a tenth of the tolerance (the reference
on the same rows in another order shows it), the error may be ten times that rounding; the log counts such terms.
"""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nightly_cases import nightly_but
from nightly_log import record
from objective_cases import MORE, Case
from oracles import banks as bank_loops
from oracles import barlow_twins as bt_loops
from oracles import barlow_twins_cross_entropy as ce_loops
from oracles import byol as byol_loops
from oracles import classification as classification_loops
from oracles import clusters as cluster_loops
from oracles import counting as counting_loops
from oracles import moco as moco_loops
from oracles import moco_v3 as moco_v3_loops
from oracles import obow as obow_loops
from oracles import pcl as pcl_loops
from oracles import plain
from oracles import simclr as simclr_loops
from oracles import simsiam as simsiam_loops
from oracles import swav as swav_loops
from oracles import vicreg as vicreg_loops
from oracles import vse as vse_loops
from oracles import w_mse as w_mse_loops
from oracles.gradients import Loss, relative_error, terms_and_gradients
from oracles.vectors import STATES, batch_in

from barlow.objectives._classification import cross_entropy
from barlow.objectives._directions import directions
from barlow.objectives._prototypes import Prototypes
from barlow.objectives.barlow_twins import BarlowTwins
from barlow.objectives.barlow_twins_cross_entropy import BarlowTwinsCrossEntropy
from barlow.objectives.byol import BYOL
from barlow.objectives.byol_vicreg import BYOLVICReg
from barlow.objectives.counting import Counting
from barlow.objectives.deepcluster_v1 import DeepClusterV1
from barlow.objectives.deepcluster_v2 import DeepClusterV2
from barlow.objectives.moco import MoCo
from barlow.objectives.moco_v3 import MoCoV3
from barlow.objectives.npid import NPID
from barlow.objectives.obow import OBoW
from barlow.objectives.sela import SeLa
from barlow.objectives.simclr import SimCLR
from barlow.objectives.simsiam import SimSiam
from barlow.objectives.swav import SwAV
from barlow.objectives.vicreg import VICReg
from barlow.objectives.vse import VSE
from barlow.objectives.w_mse import WMSE

Size = tuple[int, int]
Terms = dict[str, tuple[float, list[torch.Tensor]]]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def _case(cls: type, plain_loss: Loss, loops: Loss, **changes: object) -> Case:
    return Case(cls(**changes), functools.partial(plain_loss, **changes), functools.partial(loops, **changes))


_bt = functools.partial(_case, BarlowTwins, plain.barlow_twins, bt_loops.barlow_twins)
_vicreg = functools.partial(_case, VICReg, plain.vicreg, vicreg_loops.vicreg)
_w_mse = functools.partial(_case, WMSE, plain.w_mse, w_mse_loops.w_mse)

SQUARES = {
    "barlow_twins": _bt(),
    "barlow_twins samples": _bt(normalization="samples"),
    "barlow_twins none": _bt(normalization="none"),
    "barlow_twins_cross_entropy": _case(
        BarlowTwinsCrossEntropy, plain.barlow_twins_cross_entropy, ce_loops.barlow_twins_cross_entropy
    ),
    "vicreg": _vicreg(),
}
WHITENING = {
    "w_mse": _w_mse(),
    "w_mse zca": _w_mse(whitening="zca"),
    "w_mse euclidean": _w_mse(distance="euclidean"),
    "w_mse zca euclidean": _w_mse(whitening="zca", distance="euclidean"),
    "w_mse shrinkage": _w_mse(shrinkage=1e-3),
    "w_mse zca shrinkage": _w_mse(shrinkage=1e-3, whitening="zca"),
}
# These differ from the cases above by a factor on a term: small sizes are enough.
FACTORS = {
    "barlow_twins diagonal only": _bt(redundancy=0.0),
    "barlow_twins off-diagonal only": _bt(invariance=0.0, redundancy=1.0),
    "vicreg algorithm_1": _vicreg(convention="algorithm_1"),
    "vicreg equations": _vicreg(convention="equations"),
}


def _moco(earlier: Callable[[torch.Tensor], torch.Tensor]) -> Case:
    """MoCo against a queue that is made from the keys' batch; its keys are exact in float32, as those in training are.

    Args:
        earlier: the embeddings that the queue holds, scaled to length 1.
    """

    def queue(k: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(earlier(k.detach().double()), dim=1).float()

    def objective(q: torch.Tensor, k: torch.Tensor) -> dict[str, torch.Tensor]:
        keys = queue(k)
        module = MoCo(queue=len(keys)).build(width=k.shape[1], seed=0).to(q.dtype)
        module.queue.copy_(keys)
        return module([(q, k)])

    def loops(q: torch.Tensor, k: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"contrast": moco_loops.moco([(q, k)], list(queue(k).double()))[0]}

    return Case(objective, lambda q, k: plain.moco(q, k, queue(k).double()), loops)


def _npid(negatives: int) -> Case:
    """NPID's first step against a bank of embeddings in the state of the batch; the rest of them are other images'."""

    def module(z: torch.Tensor, other: torch.Tensor) -> torch.nn.Module:
        found = NPID(negatives=negatives).build(width=z.shape[1], images=2 * len(z), seed=0).to(z.dtype)
        earlier = torch.cat([other.double(), _such(other.double())])
        found.bank.rows.copy_(torch.nn.functional.normalize(earlier, dim=1).float())
        return found

    def against(z: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        made = module(z, other)
        return made.bank.rows.double(), made.negatives(torch.arange(len(z)), 2 * len(z))

    def loops(z: torch.Tensor, other: torch.Tensor) -> dict[str, torch.Tensor]:
        (rows, drawn), ids = against(z.detach(), other.detach()), list(range(len(z)))
        if drawn is None:
            return {"instances": bank_loops.softmax(z, ids, None, list(rows), 0.07)}
        constant = bank_loops.constant(z, ids, drawn.tolist(), list(rows), 0.07)
        return {"instances": bank_loops.estimated(z, ids, drawn.tolist(), list(rows), 0.07, constant)}

    return Case(
        lambda z, other: module(z.detach(), other.detach())([(z,)], ids=torch.arange(len(z))),
        lambda z, other: plain.npid(z, *against(z.detach(), other.detach())),
        loops,
    )


def _random(k: torch.Tensor) -> torch.Tensor:
    return torch.randn(4 * len(k), k.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _such(k: torch.Tensor) -> torch.Tensor:
    """Other embeddings in the state of the batch, as a step before would have left them."""
    return k.roll(1, 0) + 0.3 * (k.roll(1, 0) - k.roll(2, 0))


def _classes(loss: Callable[..., torch.Tensor], **options: str) -> Loss:
    """The first view taken for logits, of which the other view's largest is the right one."""
    return lambda a, b: {"cross_entropy": loss(a, b.detach().argmax(dim=1), **options)}


def _swav() -> Case:
    """SwAV with five prototypes for embeddings of any width."""

    def module(z: torch.Tensor) -> torch.nn.Module:
        return SwAV(prototypes=5).build(width=z.shape[1], seed=0).to(z.dtype)

    def prototypes(z: torch.Tensor) -> torch.Tensor:
        return SwAV(prototypes=5).build(width=z.shape[1], seed=0).prototypes.detach().double()

    return Case(
        lambda a, b: module(a)([(a, b)], progress=0.0),
        lambda a, b: plain.swav(a, b, prototypes(a)),
        lambda a, b: {"swapped": swav_loops.swapped([a, b], prototypes(a))},
    )


CONCENTRATIONS = (0.11, 0.2, 0.34)


def _prototypes() -> Case:
    """PCL's second term, with rows in three of seven clusters and three others."""
    negatives = [3, 5, 6]
    bits = torch.tensor([9, 9, 9, 1, 9, 2, 0])

    def parts(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        prototype = torch.nn.functional.normalize(torch.randn(7, z.shape[1], generator=generator), dim=1)
        scale = torch.tensor([*CONCENTRATIONS, *CONCENTRATIONS, 0.2])
        return prototype, scale, torch.arange(len(z)) % 3

    def objective(q: torch.Tensor, k: torch.Tensor) -> dict[str, torch.Tensor]:
        made = Prototypes(7, q.shape[1], len(q))
        for name, value in zip(("prototype", "concentration", "cluster"), parts(q), strict=True):
            getattr(made, name).copy_(value)
        u = directions(q.double())
        return {"prototypes": made.loss(u, torch.arange(len(q)), bits, 3).to(q.dtype)}

    def loops(q: torch.Tensor, k: torch.Tensor) -> dict[str, torch.Tensor]:
        prototype, scale, labels = parts(q)
        lost = pcl_loops.prototypes(q, labels.tolist(), negatives, prototype.double(), scale.double().tolist())
        return {"prototypes": sum(lost) / len(lost)}

    def matrices(q: torch.Tensor, k: torch.Tensor) -> dict[str, torch.Tensor]:
        prototype, scale, labels = parts(q)
        return plain.prototypes(q, prototype.double(), scale.double(), labels, torch.tensor(negatives))

    return Case(objective, matrices, loops)


def _obow() -> Case:
    """OBoW with as many words as rows, and the target taken for a map of one position."""

    def module(z: torch.Tensor) -> torch.nn.Module:
        return OBoW(words=len(z), hidden=5).build(width=z.shape[1], seed=0)

    def level(z: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: value.detach().double() for name, value in module(z).levels[0].state_dict().items()}

    def loops(p: torch.Tensor, t: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"bags": obow_loops.obow([p], [t.detach()[:, None, None]], [level(p)], kinds=[1])[0]}

    return Case(
        lambda p, t: module(p).to(p.dtype)([(p, t)], ids=torch.arange(len(p))),
        lambda p, t: plain.bags(p, t, level(p)),
        loops,
    )


def _byol_vicreg_loops(p: torch.Tensor, t: torch.Tensor) -> dict[str, torch.Tensor]:
    terms = vicreg_loops.vicreg(t, t, variance=1.0, covariance=0.01)
    hinge = terms["variance"] + 0 * t.sum()  # of a batch whose features all vary enough it is a plain 0
    return byol_loops.byol(p, t) | {"variance": hinge, "covariance": terms["covariance"]}


def _clusters(kind: type, plain_loss: Callable[..., Terms], loops: Callable[..., torch.Tensor], **options: Any) -> Case:
    """An objective of clusters with up to five of them, and the labels that it begins with; rows are images 0, 1, ….

    Args:
        kind: the dataclass.
        plain_loss: of two views, what labels are compared with, and labels.
        loops: the same.
        options: of the dataclass, beside the number of clusters.
    """

    def module(z: torch.Tensor) -> torch.nn.Module:
        section = kind(clusters=min(5, len(z)), **options)
        return section.build(width=z.shape[1], images=len(z), seed=0).to(z.dtype)

    def known(z: torch.Tensor) -> list[torch.Tensor]:
        made = module(z.double())
        if hasattr(made, "centroids"):
            return [made.centroids, made.labels]
        return [made.weight.detach(), made.bias.detach(), made.labels]

    def objective(a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        made = module(a)
        return made([(a, b)] if hasattr(made, "centroids") else [(a,), (b,)], ids=torch.arange(len(a)))

    def by_loops(a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        *against, labels = known(a)
        return {"clusters": loops([a, b], *against, labels.tolist())}

    return Case(objective, lambda a, b: plain_loss([a, b], *known(a)), by_loops)


CONTRASTS = {
    "deepcluster_v2": _clusters(DeepClusterV2, plain.deepcluster_v2, cluster_loops.deepcluster_v2),
    "deepcluster_v1": _clusters(
        DeepClusterV1,
        plain.deepcluster_v1,
        lambda views, weight, bias, labels: cluster_loops.deepcluster_v1(
            views, weight, bias, labels, sizes=[1] * len(weight)
        ),
        balance=0.0,
    ),
    "sela": _clusters(SeLa, plain.sela, cluster_loops.sela, heads=2),
    "simclr": _case(SimCLR, plain.simclr, simclr_loops.simclr),
    "byol": Case(BYOL(), plain.byol, byol_loops.byol),
    "simsiam": Case(SimSiam(), plain.simsiam, simsiam_loops.simsiam),
    "byol_vicreg": Case(
        lambda p, t: BYOLVICReg()(p, t, t), lambda p, t: plain.byol_vicreg(p, t, t), _byol_vicreg_loops
    ),
    "swav": _swav(),
    "pcl, prototypes": _prototypes(),
    "obow": _obow(),
    "moco_v3": Case(MoCoV3(), plain.moco_v3, moco_v3_loops.moco_v3),
    "vse": _case(VSE, plain.vse, vse_loops.vse),
    "vse, all negatives": _case(VSE, plain.vse, vse_loops.vse, hinges="all"),
    "moco": _moco(_random),
    "moco, a queue of such keys": _moco(_such),
    "npid": _npid(6),
    "npid, full softmax": _npid(0),
    "counting": Case(lambda a, b: Counting()(a, b, ids=torch.arange(len(a))), plain.counting, counting_loops.counting),
    **MORE,
    "cross_entropy": Case(
        _classes(cross_entropy, name="labels"),
        _classes(plain.cross_entropy),
        _classes(classification_loops.cross_entropy),
    ),
}
"""Those that compare rows with rows. Their matrices are n × n: they are measured up to 1024 rows."""

# Both sides of the switch to Gram matrices and the switch itself: n = d/2 for a cross-correlation, n = d for a
# covariance. Both sides of the width (64) up to which products stay in float64.
SMALL = [(2, 2), (2, 65), (3, 3), (5, 66), (32, 64), (33, 64), (64, 3), (64, 64), (65, 64), (64, 66), (100, 100)]
FAST = [*SMALL, (64, 256), (128, 256), (129, 256), (256, 8), (256, 128), (256, 256), (257, 256)]
LARGE = [(2, 1024), (3, 512), (8, 1024), (64, 1024), (256, 512), (256, 1024), (257, 512), (512, 512), (512, 1024)]
LARGE += [(513, 1024), (1024, 2), (1024, 3), (1024, 8), (1024, 64), (1024, 256), (1024, 1024)]
LARGE += [(4096, 2), (4096, 3), (4096, 8), (4096, 64), (4096, 256), (2, 4096), (64, 4096)]

ROWS = [(n, d) for n, d in FAST + LARGE if max(n, d) <= 1024]

SMALL_SLICES = [(4, 2), (6, 3), (16, 8), (64, 8), (128, 64)]
FAST_SLICES = [*SMALL_SLICES, (256, 64)]
LARGE_SLICES = [(4096, 2), (4096, 8), (1024, 64), (4096, 64), (512, 256), (1024, 256), (1024, 512)]

# Seconds each: two states of the defaults (and of ZCA) up to 4M numbers, one beyond.
HUGE = [
    (name, state, size)
    for name, sizes in {
        "barlow_twins": [(4096, 1024), (1024, 4096), (2048, 4096), (4096, 4096)],
        "vicreg": [(4096, 1024), (1024, 4096), (2048, 4096), (4096, 4096)],
        "w_mse": [(2048, 1024), (4096, 1024)],
        "w_mse zca": [(2048, 1024)],
    }.items()
    for size in sizes
    for state in (["healthy", "nearly converged"] if math.prod(size) <= 2**22 else ["healthy"])
]


def _value_error(value: float, reference: float) -> float:
    if value == reference:
        return 0.0
    return abs(value - reference) / abs(reference) if reference else math.inf


def _errors(found: Terms, reference: Terms) -> dict[str, float]:
    assert found.keys() == reference.keys()
    errors = {}
    for name, (value, gradients) in found.items():
        both = _value_error(value, reference[name][0]), relative_error(gradients, reference[name][1])
        errors[name] = math.inf if any(map(math.isnan, both)) else max(both)
    return errors


def _rounding(loss: Loss, a: torch.Tensor, b: torch.Tensor, reference: Terms, rows_together: int) -> dict[str, float]:
    """How much the reference's terms change when it sees the same rows in another order."""
    order = torch.arange(len(a)).unflatten(0, (-1, rows_together)).flip(1).flatten()
    terms = terms_and_gradients(loss, a[order], b[order])
    back = {name: (value, [g[order.argsort()] for g in gradients]) for name, (value, gradients) in terms.items()}
    return _errors(back, reference)


def _check(name: str, case: Case, state: str, sizes: list[Size], *, log: bool = False) -> None:
    worst = {precision: (0.0, "") for precision in TOLERANCE}
    limited, failures = 0, []
    for n, d in sizes:
        a, b = batch_in(state, n, d)
        reference = terms_and_gradients(case.plain, a, b)
        for precision, tolerance in TOLERANCE.items():
            rounding: dict[str, float] = {}
            for term, error in _errors(
                terms_and_gradients(case.objective, a.to(precision), b.to(precision)), reference
            ).items():
                where = f"{term} at {n} x {d}"
                if error > tolerance and precision == torch.float64:
                    together = 2 * d if isinstance(case.objective, WMSE) else n
                    rounding = rounding or _rounding(case.plain, a, b, reference, together)
                    if 10 * rounding[term] > tolerance:
                        limited += 1
                        if error > 10 * rounding[term]:
                            failures.append(f"{where}: {error:.1e}, rounding {rounding[term]:.1e}")
                        continue
                if not error <= tolerance:
                    failures.append(f"{where}, {precision}: {error:.1e}")
                worst[precision] = max(worst[precision], (error, where))
    if log:
        for precision, (error, where) in worst.items():
            record(
                kind="precision",
                objective=name,
                precision=str(precision).removeprefix("torch."),
                state=state,
                worst_relative_error=error,
                at=where,
                sizes=len(sizes) if len(sizes) > 1 else str(sizes[0]),
                limited_by_reference=limited if precision == torch.float64 else 0,
            )
    assert not failures, f"{name}, {state}: " + "; ".join(failures)


@pytest.mark.parametrize("state", nightly_but(STATES, "healthy".__eq__))
@pytest.mark.parametrize("name", [*SQUARES, *WHITENING, *FACTORS, *CONTRASTS])
def test_the_matrices_that_serve_as_reference_equal_the_loops(name: str, state: str) -> None:
    case = (SQUARES | WHITENING | FACTORS | CONTRASTS)[name]
    for n, d in [(8, 4), (12, 3)] if name in WHITENING else [(2, 4), (6, 2), (12, 4), (5, 11)]:
        a, b = batch_in(state, n, d)
        # The loops whiten by the covariance, whose condition number is the square of the batch's.
        tolerance = 1e-8 if name in WHITENING and state == "nearly one direction" else 1e-10
        errors = _errors(terms_and_gradients(case.plain, a, b), terms_and_gradients(case.loops, a, b))
        assert all(error < tolerance for error in errors.values()), (n, d, errors)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", SQUARES | FACTORS | CONTRASTS)
def test_terms_and_gradients_are_exact(name: str, state: str) -> None:
    _check(name, (SQUARES | FACTORS | CONTRASTS)[name], state, FAST if name in ("barlow_twins", "vicreg") else SMALL)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", WHITENING)
def test_terms_and_gradients_through_whitening_are_exact(name: str, state: str) -> None:
    _check(name, WHITENING[name], state, FAST_SLICES)


def test_what_is_measured_is_logged_a_line_each_where_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.jsonl"
    monkeypatch.delenv("BARLOW_NIGHTLY_LOG", raising=False)
    record(kind="nowhere")
    monkeypatch.setenv("BARLOW_NIGHTLY_LOG", str(path))
    _check("vicreg", SQUARES["vicreg"], "healthy", [(8, 4)], log=True)
    here, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert here["kind"] == "environment"
    assert {"commit", "processor", "cores", "torch"} <= set(here)
    assert [line["precision"] for line in lines] == ["float64", "float32"]
    assert all(line["objective"] == "vicreg" and line["worst_relative_error"] < 1e-6 for line in lines)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", SQUARES | WHITENING)
def test_terms_and_gradients_are_exact_on_the_whole_grid(name: str, state: str) -> None:
    small, large = (FAST, LARGE) if name in SQUARES else (FAST_SLICES, LARGE_SLICES)
    if state == "far from the origin":  # an offset is taken away row by row, whatever the size
        large = large[-2:]
    _check(name, (SQUARES | WHITENING)[name], state, small + large, log=True)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", CONTRASTS)
def test_terms_and_gradients_of_contrasts_are_exact_on_the_whole_grid(name: str, state: str) -> None:
    _check(name, CONTRASTS[name], state, ROWS, log=True)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "state", "size"), HUGE)
def test_terms_and_gradients_are_exact_at_the_largest_sizes(name: str, state: str, size: Size) -> None:
    _check(name, (SQUARES | WHITENING)[name], state, [size], log=True)
