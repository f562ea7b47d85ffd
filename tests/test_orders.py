"""Orders of tiles: their numbers, and the sets of those that are far apart."""

import itertools

import numpy as np
import pytest

from barlow.orders import chosen_orders, distances, orders_of, ranks_of


@pytest.mark.parametrize("tiles", [1, 2, 3, 4, 6])
def test_the_rank_of_an_order_is_its_place_in_the_list_of_all(tiles: int) -> None:
    every = np.array(list(itertools.permutations(range(tiles))))
    assert np.array_equal(ranks_of(every), np.arange(len(every)))
    assert np.array_equal(orders_of(np.arange(len(every)), tiles), every)


def test_ranks_of_twenty_tiles_fit_and_come_back() -> None:
    rng = np.random.default_rng(0)
    orders = np.stack([rng.permutation(20) for _ in range(50)])
    orders[0], orders[1] = np.arange(20), np.arange(20)[::-1]
    ranks = ranks_of(orders)
    assert ranks[0] == 0
    assert ranks[1] == 2_432_902_008_176_640_000 - 1
    assert np.array_equal(orders_of(ranks, 20), orders)


@pytest.mark.parametrize(("distance", "least", "mean"), [("mean", 2, 8.08), ("min", 6, 8.03)])
def test_a_hundred_orders_of_nine_tiles_are_as_far_apart_as_published(distance: str, least: int, mean: float) -> None:
    found = distances(chosen_orders(9, 100, distance))
    assert found[0] == least
    assert round(found[1], 2) == mean


@pytest.mark.parametrize("distance", ["mean", "min"])
def test_nine_orders_of_nine_tiles_have_no_tile_in_one_place_twice(distance: str) -> None:
    assert distances(chosen_orders(9, 9, distance)) == (9, 9.0)


@pytest.mark.parametrize("distance", ["mean", "min"])
@pytest.mark.parametrize(("tiles", "count"), [(4, 23), (4, 8), (2, 1 + 0), (6, 40)])
def test_a_set_has_different_orders_by_rank_and_never_that_in_which_nothing_moves(
    tiles: int, count: int, distance: str
) -> None:
    if tiles == 2:
        with pytest.raises(ValueError, match=r"a set of 1 orders of 2 tiles: give 2 to 1"):
            chosen_orders(tiles, count, distance)
        return
    orders = chosen_orders(tiles, count, distance)
    ranks = ranks_of(orders)
    assert orders.shape == (count, tiles)
    assert ranks[0] > 0
    assert (np.diff(ranks) > 0).all()
    assert not orders.flags.writeable


def test_the_order_that_is_taken_is_the_furthest_from_those_before_it() -> None:
    """Greedily, by the definition, for orders of four tiles."""
    every = np.array(list(itertools.permutations(range(4))))[1:]
    for distance in ("mean", "min"):
        taken = [every[-1]]
        while len(taken) < 7:
            best: tuple[float, float] | None = None
            for order in every:
                apart = [int((order != other).sum()) for other in taken]
                if min(apart) == 0:
                    continue
                score = (sum(apart) if distance == "mean" else min(apart), 0 if distance == "mean" else -sum(apart))
                if best is None or score > best:
                    best, furthest = score, order
            taken.append(furthest)
        found = chosen_orders(4, 7, distance)
        assert set(map(tuple, taken)) == set(map(tuple, found.tolist()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 24, "mean"), r"24 orders of 4 tiles: give 2 to 23"),
        ((16, 100, "mean"), r"orders of 16 tiles: give 2 to 9 tiles"),
        ((9, 100, "max"), r"distance is 'max': choose one of mean, min"),
    ],
)
def test_a_set_that_there_is_not_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen_orders(*arguments)
