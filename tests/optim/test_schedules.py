from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from barlow.optim.optimizers import build_optimizer
from barlow.optim.schedules import StepDrops, WarmupCosine


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        # worked out by hand: 0.001 + 0.999 · ½(1 + cos(π (step − 10) / 100)), with cos 45° = 0.7071067812
        (0, 0.0),
        (1, 0.1),
        (5, 0.5),
        (10, 1.0),
        (35, 0.8536998373),
        (60, 0.5005),
        (85, 0.1473001627),
        (109, 0.0012464731),  # 1 − cos 1.8° = 4.9343963e-4
        (110, 0.001),
    ],
)
def test_warmup_cosine_has_the_values_worked_out_by_hand(step: int, rate: float) -> None:
    assert WarmupCosine(warmup_steps=10, floor=0.001)(step, 110) == pytest.approx(rate, abs=1e-9)


def test_the_last_update_is_slightly_above_the_floor_and_the_rate_falls_all_the_way() -> None:
    schedule = WarmupCosine(warmup_steps=3, floor=0.1)
    rates = [schedule(step, 50) for step in range(50)]
    assert rates[3] == 1.0 == max(rates)
    assert all(a > b for a, b in pairwise(rates[3:]))
    assert 0.1 < rates[-1] < 0.103


def test_warmup_cosine_without_warmup_starts_at_the_peak() -> None:
    assert WarmupCosine(0, 0.0)(0, 10) == 1.0


def test_a_run_no_longer_than_its_warmup_only_warms_up() -> None:
    assert [WarmupCosine(4, 0.0)(step, 4) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1.0]


def test_a_warmup_may_start_above_zero_and_keeps_its_end() -> None:
    schedule = WarmupCosine(warmup_steps=10, floor=0.0, start=0.2)
    rates = [schedule(step, 30) for step in range(31)]
    assert rates[:11] == pytest.approx([0.2, 0.28, 0.36, 0.44, 0.52, 0.6, 0.68, 0.76, 0.84, 0.92, 1.0], rel=1e-15)
    assert rates[10:] == [WarmupCosine(10, 0.0)(step, 30) for step in range(10, 31)]
    assert WarmupCosine(0, 0.0, start=0.2)(0, 30) == 1.0
    assert {WarmupCosine(4, 1.0, start=1.0)(step, 9) for step in range(10)} == {1.0}


def test_a_warmup_from_zero_is_bit_for_bit_the_step_over_their_number() -> None:
    for warmup in (1, 3, 10, 49, 6250):
        assert all(WarmupCosine(warmup, 0.001)(step, 2 * warmup) == step / warmup for step in range(warmup))


@pytest.mark.parametrize("start", [-0.1, 1.5, float("nan")])
def test_a_start_that_is_no_part_of_the_peak_is_refused(start: float) -> None:
    with pytest.raises(ValueError, match=r"part of the peak rate; give a number in \[0, 1\]"):
        WarmupCosine(10, 0.0, start)


# --- The published runs ---------------------------------------------------------------------------------------------
# Worked out by hand. Near its end a cosine is ½(1 + cos(π − x)) = x² / 4 with x = π / (total − warmup).

Schedule = Callable[[int, int], float]


def group_rates(schedule: Schedule, step: int, total: int, lr: float, vectors_lr: float | None) -> tuple[float, float]:
    """The rates of weights and vectors as the loop sets them: schedule × peak × the group's scale."""
    named = {"w": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(2))}
    matrices, vectors = build_optimizer(named, "lars", lr=lr, vectors_lr=vectors_lr).param_groups
    rate = schedule(step, total) * lr
    return rate * matrices["lr_scale"], rate * vectors["lr_scale"]


BARLOW_TWINS = [
    (0, 0.0, 0.0),
    (1, 2.56e-4, 6.144e-6),  # 1.6 / 6250
    (3125, 0.8, 0.0192),
    (6250, 1.6, 0.0384),
    (312_500, 0.8134800783, 0.01952352188),  # 49/99 of the way down: ½(1 + sin(π / 198)) = 0.5079329819
    (315_625, 0.8008, 0.0192192),  # half of the way: 0.001 + 0.999 / 2 = 0.5005
    (624_999, 1.6e-3 + 1.0301e-11, 3.84e-5 + 2.4723e-13),  # x = π / 618,750: 0.999 x² / 4 = 6.4384e-12 of the peak
]
"""N 2048, 625 steps an epoch, 1000 epochs, 10 of warm-up: (step, rate of weights, rate of vectors)."""


@pytest.mark.parametrize(("step", "weights", "vectors"), BARLOW_TWINS)
def test_barlow_twins_rates_are_those_of_the_paper(step: int, weights: float, vectors: float) -> None:
    lr, vectors_lr = 0.2 * 2048 / 256, 0.0048 * 2048 / 256
    rates = group_rates(WarmupCosine(6250, 0.001), step, 625_000, lr, vectors_lr)
    assert rates == (pytest.approx(weights, rel=1e-9), pytest.approx(vectors, rel=1e-9))
    if step == 624_999:
        assert [rates[0] - 1.6e-3, rates[1] - 3.84e-5] == pytest.approx([1.0301e-11, 2.4723e-13], rel=1e-4)


@pytest.mark.parametrize(("step", "weights", "vectors"), BARLOW_TWINS)
def test_vicreg_has_barlow_twins_rates_for_weights_and_the_same_for_vectors(
    step: int, weights: float, vectors: float
) -> None:
    rates = group_rates(WarmupCosine(6250, 0.001), step, 625_000, 1.6, None)
    assert rates == (pytest.approx(weights, rel=1e-9), pytest.approx(weights, rel=1e-9))


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 6e-6),  # 3e-3 · 1 / 500
        (249, 1.5e-3),
        (498, 2.994e-3),
        (499, 3e-3),
        (500, 3e-3),
        (92_149, 3e-3),  # the last of epoch 949: 950 · 97 = 92,150
        (92_150, 6e-4),
        (94_574, 6e-4),
        (94_575, 1.2e-4),  # 975 · 97
        (96_999, 1.2e-4),
    ],
)
def test_w_mse_rates_on_cifar10_are_those_of_its_code(step: int, rate: float) -> None:
    schedule = StepDrops(warmup_steps=500, drops_at=(950 * 97, 975 * 97), factor=0.2)
    assert group_rates(schedule, step, 1000 * 97, 3e-3, None) == (pytest.approx(rate, rel=1e-12),) * 2


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 3e-5),
        (975, 0.150015),  # half of the way from 3e-5 to 0.3
        (1949, 0.2998461692),  # 0.3 − 0.29997 / 1950
        (1950, 0.3),
        (98_475, 0.15),
        (130_650, 0.075),  # two thirds: cos 120° = −½
        (194_999, 1.98619e-11),  # x = π / 193,050: 0.3 x² / 4
    ],
)
def test_solo_learns_rates_on_cifar_start_above_zero(step: int, rate: float) -> None:
    schedule = WarmupCosine(warmup_steps=10 * 195, floor=0.0, start=3e-5 / 0.3)
    assert schedule(step, 1000 * 195) * 0.3 == pytest.approx(rate, rel=3e-6 if step == 194_999 else 1e-9)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.002), (249, 0.5), (499, 1.0), (500, 1.0), (949, 1.0), (950, 0.2), (974, 0.2), (975, 0.04), (999, 0.04)],
)
def test_step_drops_have_w_mse_values(step: int, rate: float) -> None:
    assert StepDrops(warmup_steps=500, drops_at=(950, 975), factor=0.2)(step, 1000) == pytest.approx(rate, rel=1e-12)


def test_drops_may_come_in_any_order_and_twice() -> None:
    assert StepDrops(0, (5, 2, 5), 0.5)(5, 10) == 0.125
    assert StepDrops(0, (), 0.5)(9, 10) == 1.0


def test_steps_outside_of_the_run_are_refused() -> None:
    for schedule in (WarmupCosine(1, 0.0), StepDrops(1, (), 0.5)):
        for step in (-1, 11):
            with pytest.raises(ValueError, match="give a step from 0 to 10"):
                schedule(step, 10)
    with pytest.raises(ValueError, match="negative"):
        WarmupCosine(-1, 0.0)(0, 10)
