"""Each objective says what its loss is for unrelated views, and what its floor is: against draws and descent."""

import math

import pytest
import torch
from contracts.calls import CLASSES, IMAGES, Case
from nightly_cases import nightly_but

from barlow import objectives
from barlow.objectives import BarlowTwins, VICReg

KINDS = objectives.kinds()
QUICK = {
    "deepcluster_v1": {"clusters": 64},
    "deepcluster_v2": {"clusters": 64},
    "jigsaw": {"permutations": CLASSES["permutation"], "tiles": 4},
    "infomin": {"queue": 4096},
    "moco": {"queue": 4096},
    "obow": {"words": 256, "hidden": 16},
    "pcl": {"queue": 4096, "clusters": (300,), "negatives": 8},
    "sela": {"clusters": 64},
    "swav": {"prototypes": 512},
}
QUICK |= {kind: {"negatives": 1024} for kind in ("cmc", "npid", "pirl")}
"""Sizes of queues and prototypes that a test can afford."""

UNKNOWN = {"cpc", "exemplar", "obow", "pcl"}
"""Those for whose unrelated views no formula is known."""

OWN_STATE = {"cmc", "deepcluster_v2", "exemplar", "npid", "pirl", "swav"}
"""Those whose floor asks for a state that training makes."""


def case_of(kind: str, **options: object) -> Case:
    return Case(objectives.load(kind)(**QUICK.get(kind, {}), **options))


def drawn(case: Case, n: int, d: int, seed: int) -> list[torch.Tensor]:
    """A group of which no two members have anything in common; logits say nothing."""
    if case.own_group is not None:
        return case.own_group.unrelated(n, d, seed)
    if case.takes == "one":
        classes = [CLASSES[name] for name in case.asks() if name in CLASSES] or [d]
        return [torch.zeros(min(n, IMAGES), classes[0])]
    count = 3 if case.takes.endswith("embedding") else 2
    generator = torch.Generator().manual_seed(seed)
    n = min(n, IMAGES) if "ids" in case.asks() else n
    return [torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNKNOWN])
@pytest.mark.parametrize("size", [(256, 64), (128, 256)])
def test_unrelated_views_have_the_loss_that_is_said(kind: str, size: tuple[int, int]) -> None:
    case = case_of(kind, **({"slice_rows": 128, "shrinkage": 0.5} if kind == "w_mse" and size[1] > 64 else {}))
    groups = [drawn(case, *size, seed) for seed in range(3)]
    losses = [float(sum(case(*group).values()).detach()) for group in groups]
    levels = case.section.levels(len(groups[0][0]), groups[0][0].shape[1])
    assert sum(losses) / 3 == pytest.approx(levels.unrelated, rel=0.04, abs=0.04)
    assert levels.floor <= levels.unrelated


@pytest.mark.parametrize("convention", ["code", "algorithm_1", "equations"])
def test_every_convention_of_vicreg_has_its_own(convention: str) -> None:
    case = case_of("vicreg", convention=convention)
    loss = float(sum(case(*drawn(case, 128, 256, 0)).values()))
    assert loss == pytest.approx(case.section.levels(128, 256).unrelated, rel=0.02)


def test_halves_of_a_loss_have_halves_of_its_levels() -> None:
    code, paper = (case_of("simclr", convention=convention).section.levels(64, 32) for convention in ("code", "paper"))
    assert (code.unrelated, code.floor) == pytest.approx((2 * paper.unrelated, 2 * paper.floor))
    both = case_of("moco").section.levels(64, 32, groups=2)
    assert both.unrelated == pytest.approx(2 * case_of("moco").section.levels(64, 32).unrelated)


def lowest(case: Case, n: int, d: int, *, steps: int = 600) -> float:
    """The least loss of two views that begin as one, found by descent on the embeddings themselves."""
    start = torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    views = [start.clone().requires_grad_(), (start + 1e-3 * start.roll(1, 0)).requires_grad_()]
    optimizer = torch.optim.Adam(views, lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    least = math.inf
    for _ in range(steps):
        loss = sum(case(*views).values())
        least = min(least, float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return least


@pytest.mark.parametrize("kind", [kind for kind in KINDS if case_of(kind).takes == "views" and kind not in OWN_STATE])
@pytest.mark.parametrize(("rows", "width"), nightly_but([(20, 5), (6, 16)], lambda size: size == (6, 16)))
def test_descent_does_not_come_below_the_floor_and_comes_near_it(kind: str, rows: int, width: int) -> None:
    size = rows, width
    options = {"w_mse": {"slice_rows": size[0], "shrinkage": 0.1 if size[0] < size[1] else 0.0}}.get(kind, {})
    case = case_of(kind, **options)
    floor, found = case.section.levels(*size).floor, lowest(case, *size)
    assert found >= floor - 1e-6
    # So many rows cannot all have cosines of -1 / (n - 1), and so few features cannot all be uncorrelated.
    loose = {"simclr": size[0] > size[1] + 1, "barlow_twins_cross_entropy": size[0] <= size[1]}
    if not loose.get(kind, False):
        assert found == pytest.approx(floor, rel=0.02, abs=0.02)


@pytest.mark.parametrize("redundancy", [0.005, 0.1, 1.0])
def test_barlow_twins_floor_of_few_rows_is_reached(redundancy: float) -> None:
    case = Case(BarlowTwins(redundancy=redundancy, eps=0.0))
    assert lowest(case, 8, 24) == pytest.approx(case.section.levels(8, 24).floor, rel=0.02)


@pytest.mark.parametrize("weights", [{}, {"covariance": 25.0}, {"variance": 1.0}])
def test_vicreg_floor_of_few_rows_is_reached(weights: dict[str, float]) -> None:
    case = Case(VICReg(**weights, eps=0.0))
    assert lowest(case, 6, 30) == pytest.approx(case.section.levels(6, 30).floor, rel=0.03)


def test_floors_are_those_of_the_reference() -> None:
    assert BarlowTwins().levels(2048, 8192).floor == pytest.approx(123.5, abs=0.05)
    assert BarlowTwins().levels(256, 8192).floor == pytest.approx(1122, abs=1)
    off = BarlowTwins(invariance=0.0, redundancy=1.0).levels(2048, 8192).unrelated
    assert off == pytest.approx(32_780, rel=1e-3)


OF_ONE_WIDTH = [
    kind for kind in KINDS if case_of(kind).takes.startswith("a prediction") and not case_of(kind).own_group
]


@pytest.mark.parametrize("kind", OF_ONE_WIDTH)
def test_a_prediction_that_is_its_target_is_not_below_the_floor(kind: str) -> None:
    case = case_of(kind)
    for seed in range(3):
        group = drawn(case, 64, 16, seed)
        group[1] = group[0].clone()
        assert float(sum(case(*group).values()).detach()) >= case.section.levels(64, 16).floor - 1e-9


def test_what_has_no_formula_says_so() -> None:
    levels = BarlowTwins(normalization="none").levels(64, 16)
    assert (levels.unrelated, levels.floor) == (None, None)
    assert all(case_of(kind).section.levels(64, 16).unrelated is None for kind in UNKNOWN)
