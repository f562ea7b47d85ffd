"""Draws are uniform, unrelated between neighbours, and a function of the key alone."""

import numpy as np
import pytest
from scipy import stats

from barlow.views.keys import Keys, hashed, permutation

IDS = np.arange(100_000)
FROZEN_DRAWS = [0.9353430461869879, 0.2818451786003193]
FROZEN_ORDER = [2, 0, 7, 6, 1, 5, 3, 4]


def keys(**changes: object) -> Keys:
    arguments: dict = {"seed": 3, "epoch": 5, "ids": IDS, "view": 0, "op": 2}
    return Keys(**(arguments | changes))


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_draws_are_uniform_on_the_unit_interval(seed: int) -> None:
    u = keys(seed=seed).uniform(0)
    assert u.dtype == np.float64
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    for bins in (2, 10, 256):
        assert stats.chisquare(np.bincount((u * bins).astype(int), minlength=bins)).pvalue > 1e-3


def test_every_bit_of_a_hash_is_one_half_of_the_time() -> None:
    bits = np.unpackbits(hashed((1, 2, 3), IDS).view(np.uint8).reshape(-1, 8), axis=1).mean(0)
    assert np.abs(bits - 0.5).max() < 5 * 0.5 / np.sqrt(len(IDS))


@pytest.mark.parametrize(
    "neighbour",
    [
        {"seed": 4},
        {"epoch": 6},
        {"view": 1},
        {"op": 3},
        {"ids": IDS + 1},
        {"ids": IDS + 2**32},
        {"seed": 5, "epoch": 3},
    ],
    ids=str,
)
def test_neighbouring_keys_give_unrelated_draws(neighbour: dict) -> None:
    a, b = keys().uniform(0), keys(**neighbour).uniform(0)
    assert abs(stats.pearsonr(a, b).statistic) < 5 / np.sqrt(len(IDS))
    table = np.histogram2d(a, b, bins=16)[0]
    assert stats.chisquare(table.ravel()).pvalue > 1e-3
    assert not np.any(a == b)


def test_neighbouring_draws_of_a_key_are_unrelated() -> None:
    u = keys().uniforms(0, 8)
    correlation = np.corrcoef(u) - np.eye(8)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(IDS))
    lagged = [abs(np.corrcoef(u[0, :-lag], u[0, lag:])[0, 1]) for lag in (1, 2, 3, 64)]
    assert max(lagged) < 5 / np.sqrt(len(IDS))


def test_keys_that_share_their_words_in_another_order_share_no_draws() -> None:
    few = np.arange(6)
    draws = [Keys(s, e, few, v, o).uniform(d) for s in few for e in few for v in few for o in few for d in range(3)]
    everything = np.concatenate(draws)
    assert len(np.unique(everything)) == len(everything)


def test_a_sample_draws_the_same_whatever_the_batch_around_it() -> None:
    whole = keys().uniform(4)
    for chosen in (np.array([17]), np.array([99_999, 0, 5]), IDS[::-1]):
        assert np.array_equal(keys(ids=chosen).uniform(4), whole[chosen])
    assert np.array_equal(keys().rows(10, 20).uniform(4), whole[10:20])


def test_many_draws_at_once_are_those_drawn_one_by_one() -> None:
    together = keys().uniforms(3, 5)
    assert np.array_equal(together, np.stack([keys().uniform(d) for d in range(3, 8)]))


def test_for_op_changes_the_op_and_nothing_else() -> None:
    assert np.array_equal(keys(op=0).for_op(7).uniform(1), keys(op=7).uniform(1))


def test_draws_stay_what_they_are_from_version_to_version() -> None:
    # Frozen: a change here changes every run that is resumed across it.
    assert Keys(0, 0, np.array([0, 1]), 0).uniform(0).tolist() == FROZEN_DRAWS
    assert permutation(0, 0, 8).tolist() == FROZEN_ORDER


def test_integers_of_every_width_name_the_same_sample() -> None:
    expected = keys(ids=np.arange(5)).uniform(0)
    for dtype in (np.int32, np.uint8, np.uint64, np.int64):
        assert np.array_equal(keys(ids=np.arange(5, dtype=dtype)).uniform(0), expected)


@pytest.mark.parametrize("name", ["seed", "epoch", "view", "op"])
@pytest.mark.parametrize("bad", [-1, 2**64, 1.5, True, None, "7"])
def test_a_number_that_does_not_fit_is_refused_by_name(name: str, bad: object) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*integer from 0"):
        keys(**{name: bad})


@pytest.mark.parametrize("bad", [np.array([0, -1]), np.array([0.5]), np.array(["a"])], ids=str)
def test_ids_that_are_no_positions_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"ids.*give integers"):
        keys(ids=bad)
    with pytest.raises(ValueError, match=r"shape \(n,\)"):
        keys(ids=np.zeros((2, 2), dtype=int))


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_a_permutation_holds_every_sample_once(n: int) -> None:
    assert np.array_equal(np.sort(permutation(1, 2, n)), np.arange(n))


def test_the_sample_order_changes_with_seed_and_epoch_and_repeats_with_both() -> None:
    orders = {(s, e): tuple(permutation(s, e, 50)) for s in range(5) for e in range(5)}
    assert len(set(orders.values())) == 25
    assert tuple(permutation(4, 4, 50)) == orders[4, 4]


def test_permutations_are_uniform() -> None:
    orders = np.stack([permutation(0, e, 4) for e in range(12_000)])
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3
    long = permutation(9, 0, 20_000)
    assert abs(stats.spearmanr(np.arange(20_000), long).statistic) < 5 / np.sqrt(20_000)


def test_a_permutation_of_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="n: got -1"):
        permutation(0, 0, -1)
