import math
import time

import pytest
import torch

from barlow.diagnostics import embedding_statistics, healthy_ranges

SIZES = [(256, 1024), (256, 512), (512, 64), (64, 2048), (16, 8), (700, 32), (256, 256)]


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def outside(z: torch.Tensor) -> set[str]:
    """The statistics that are out of their healthy range."""
    ranges = healthy_ranges(*z.shape)
    return {name for name, value in embedding_statistics(z).items() if not ranges[name][0] <= value <= ranges[name][1]}


@pytest.mark.parametrize("size", SIZES)
def test_independent_features_are_within_every_range(size: tuple[int, int]) -> None:
    ranges = healthy_ranges(*size)
    for z in (gaussian(*size), gaussian(*size).relu(), 3 + gaussian(*size) * 2, 1e-20 * gaussian(*size)):
        statistics = embedding_statistics(z)
        assert statistics.keys() == ranges.keys()
        assert outside(z) == set()
    chance = math.sqrt(2 / (math.pi * (min(size[0], 512) - 1)))
    assert embedding_statistics(gaussian(*size))["mean_abs_correlation"] == pytest.approx(chance, rel=0.15)
    assert embedding_statistics(gaussian(*size))["std"] == pytest.approx(1, abs=0.05)


def test_effective_rank_of_noise_is_nearly_all_there_can_be() -> None:
    assert embedding_statistics(gaussian(256, 1024))["effective_rank"] > 0.95 * 255
    assert embedding_statistics(gaussian(512, 32))["effective_rank"] > 0.95 * 32


def test_constant_embeddings_have_no_spread() -> None:
    for z in (torch.zeros(256, 64), torch.full((256, 64), 0.3), 1 + 1e-3 * gaussian(256, 64)):
        assert "std" in outside(z)
    assert embedding_statistics(torch.full((256, 64), 0.3)) == {
        "std": 0,
        "dead": 1,
        "effective_rank": 0,
        "mean_abs_correlation": 0,
    }


def test_one_direction_is_a_dimensional_collapse_with_full_correlation() -> None:
    z = gaussian(256, 1) @ gaussian(1, 512, seed=1)
    statistics = embedding_statistics(z)
    assert statistics["effective_rank"] == pytest.approx(1, abs=0.01)
    assert statistics["mean_abs_correlation"] == pytest.approx(1, abs=1e-4)
    assert outside(z) == {"effective_rank", "mean_abs_correlation"}


def test_few_directions_among_many_features_are_noticed() -> None:
    z = gaussian(256, 8) @ gaussian(8, 512, seed=1) + 1e-3 * gaussian(256, 512, seed=2)
    assert "effective_rank" in outside(z)


def test_half_dead_features_are_noticed_and_do_not_spoil_the_correlation() -> None:
    z = gaussian(256, 512)
    z[:, ::2] = 0.7
    statistics = embedding_statistics(z)
    assert statistics["dead"] == 0.5
    assert statistics["mean_abs_correlation"] == pytest.approx(math.sqrt(2 / (math.pi * 255)), rel=0.05)
    assert outside(z) == {"dead"}


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_scale_does_not_matter(scale: float) -> None:
    expected = embedding_statistics(gaussian(64, 32).relu())
    for name, value in embedding_statistics(scale * gaussian(64, 32).relu()).items():
        assert value == pytest.approx(expected[name], rel=1e-3)


def test_a_wide_embedding_is_sampled_and_its_statistics_are_those_of_the_whole() -> None:
    # Correlated features: the mean over 512 of them stands for the mean over all.
    z = 0.6 * gaussian(256, 1) + gaussian(256, 1500, seed=1)
    correlation = torch.corrcoef(z.T)
    whole = float((correlation.abs().sum() - 1500) / (1500 * 1499))
    assert embedding_statistics(z)["mean_abs_correlation"] == pytest.approx(whole, rel=0.03)


def test_what_is_not_finite_is_in_no_range() -> None:
    z = gaussian(32, 8)
    z[3, 3] = float("inf")
    assert {"std", "effective_rank", "mean_abs_correlation"} <= outside(z)


def test_half_precision_and_gradients_do_not_matter() -> None:
    z = gaussian(128, 64)
    expected = embedding_statistics(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = embedding_statistics(z.bfloat16().requires_grad_())
    for name, value in inside.items():
        assert value == pytest.approx(expected[name], rel=0.02)


@pytest.mark.parametrize("size", [(2, 1), (2, 8), (3, 1), (3, 500), (5, 2)])
def test_tiny_batches_have_statistics_and_ranges_that_admit_noise(size: tuple[int, int]) -> None:
    z = gaussian(*size, seed=5)
    assert not any(math.isnan(value) for value in embedding_statistics(z).values())
    assert not {"effective_rank", "mean_abs_correlation"} & outside(z)


@pytest.mark.parametrize("z", [torch.zeros(1, 4), torch.zeros(4), torch.zeros(4, 0), torch.zeros(4, 4).long()])
def test_what_is_no_batch_is_refused(z: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="two rows"):
        embedding_statistics(z)


def test_a_training_batch_costs_tens_of_milliseconds() -> None:
    z = gaussian(256, 1024)
    times = []
    for _ in range(5):
        start = time.process_time()
        embedding_statistics(z)
        times.append(time.process_time() - start)
    assert min(times) < 0.3, "about 0.04 s on one core; the margin is for a slow machine"
