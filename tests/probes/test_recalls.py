"""Recall at k between images and captions, against loops; chance; and which captions count."""

import numpy as np
import pytest

from barlow.probes.recalls import KS, Places, chance, places


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    z = rng.standard_normal((n, d))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def by_loops(images: np.ndarray, captions: np.ndarray, owner: np.ndarray) -> dict[str, float]:
    found = {}
    for k in KS:
        hits = 0
        for i, image in enumerate(images):
            first = sorted(range(len(captions)), key=lambda j: -float(image @ captions[j]))[:k]
            hits += any(owner[j] == i for j in first)
        found[f"i2t_recall@{k}"] = hits / len(images)
        hits = 0
        for j, caption in enumerate(captions):
            first = sorted(range(len(images)), key=lambda i: -float(images[i] @ caption))[:k]
            hits += int(owner[j]) in first
        found[f"t2i_recall@{k}"] = hits / len(captions)
    return found


def test_recalls_are_those_of_loops_with_any_number_of_captions() -> None:
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(40), 1 + np.arange(40) % 4)
    images = unit(rng, 40, 6)
    captions = images[owner] + 0.5 * unit(rng, len(owner), 6)
    captions /= np.linalg.norm(captions, axis=1, keepdims=True)
    found = places(images, captions, owner).recalls()
    assert {name: score.value for name, score in found.items()} == pytest.approx(by_loops(images, captions, owner))
    assert all(score.low <= score.value <= score.high and score.n == 40 for score in found.values())
    assert 0.2 < found["t2i_recall@1"].value < found["t2i_recall@10"].value


def test_any_of_the_own_captions_is_a_hit_of_an_image() -> None:
    images, owner = np.eye(2), np.array([0, 0, 1])
    captions = np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    found = places(images, captions, owner)
    assert found.of_images.tolist() == [0, 1]
    assert found.of_captions.tolist() == [1, 0, 0]


def test_of_equal_cosines_the_earlier_answer_comes_first() -> None:
    same = np.ones((4, 1))
    found = places(same, same, np.arange(4))
    assert found.of_images.tolist() == found.of_captions.tolist() == [0, 1, 2, 3]


def test_an_interval_of_captions_draws_images_and_not_captions() -> None:
    owner = np.repeat(np.arange(50), 5)
    together = Places(np.zeros(50, np.int64), np.where(owner < 25, 0, 99), owner)
    apart = Places(np.zeros(50, np.int64), np.where(np.arange(250) % 2 == 0, 0, 99), owner)
    wide, narrow = (each.recalls()["t2i_recall@1"] for each in (together, apart))
    assert wide.value == narrow.value == 0.5
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_chance_is_what_random_orders_reach() -> None:
    rng, counts = np.random.default_rng(0), [1, 2, 5, 1, 3, 2] * 4
    owner = np.repeat(np.arange(24), counts)
    drawn = [
        {
            name: score.value
            for name, score in places(unit(rng, 24, 8), unit(rng, len(owner), 8), owner).recalls().items()
        }
        for _ in range(150)
    ]
    for name, expected in chance(counts).items():
        assert np.mean([values[name] for values in drawn]) == pytest.approx(expected, abs=0.025), name
    assert chance([5] * 200)["t2i_recall@5"] == 0.025
