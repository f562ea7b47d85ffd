from itertools import pairwise

import pytest

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
