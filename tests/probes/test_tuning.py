"""Fine-tuning against stochastic gradient descent that is written out by hand."""

import math

import numpy as np
import pytest
import torch
from coloured import Small, coloured
from torch import nn

from barlow.nets.seeding import seeded
from barlow.probes.features import weights_hash
from barlow.probes.tuning import Diverged, Rates, Schedule, Tuned, _batches, tuned

CPU = torch.device("cpu")


def test_it_is_momentum_with_a_rate_for_each_part_and_a_cosine() -> None:
    images = coloured(20, 0)
    with seeded(1, "encoder"):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    rates, schedule = Rates(0.02, 0.3), Schedule(8, 7)
    model = tuned(encoder, images, images.labels, 4, rates, schedule, 5, CPU)

    with seeded(5, "head"):
        start = Tuned(encoder, 5, 4)
    parts = [start.encoder[1].weight, start.encoder[1].bias, start.head.weight, start.head.bias]
    w1, b1, w2, b2 = (part.detach().double().numpy().copy() for part in parts)
    speeds = [np.zeros_like(each) for each in (w1, b1, w2, b2)]
    for update, (views, rows) in enumerate(_batches(images, schedule, 5, CPU)):
        x, target = views.flatten(1).double().numpy(), np.eye(4)[images.labels[rows]]
        features = x @ w1.T + b1
        logits = features @ w2.T + b2
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        error = (shares - target) / len(rows)
        back = error @ w2
        share = (1 + math.cos(math.pi * update / 7)) / 2
        for weight, speed, gradient, rate in zip(
            (w1, b1, w2, b2),
            speeds,
            (back.T @ x, back.sum(axis=0), error.T @ features, error.sum(axis=0)),
            (0.02, 0.02, 0.3, 0.3),
            strict=True,
        ):
            speed *= 0.9
            speed += gradient
            weight -= rate * share * speed
    assert update == 6
    for part, expected in zip((model.encoder[1].weight, model.encoder[1].bias, model.head.weight, model.head.bias),
                              (w1, b1, w2, b2), strict=True):  # fmt: skip
        np.testing.assert_allclose(part.detach().numpy(), expected, atol=2e-5)


def test_every_image_is_seen_once_in_an_epoch_in_batches_of_about_one_size() -> None:
    images = coloured(25, 0)
    found = [rows for _, rows in _batches(images, Schedule(8, 12), 0, CPU)]
    assert [len(rows) for rows in found] == [7, 7, 7, 4] * 3
    for epoch in range(3):
        assert sorted(np.concatenate(found[4 * epoch : 4 * epoch + 4])) == list(range(25))
    assert not np.array_equal(found[0], found[4]), "another order in each epoch"


def test_a_batch_of_one_image_is_left_out() -> None:
    found = [len(rows) for _, rows in _batches(coloured(5, 0), Schedule(2, 6), 0, CPU)]
    assert found == [2] * 6


def test_the_encoder_is_not_changed_and_the_same_comes_out_again() -> None:
    images, encoder = coloured(16, 0), Small()
    before = weights_hash(encoder)
    first, second = (
        tuned(encoder, images, images.labels, 4, Rates(0.01, 0.1), Schedule(8, 5), seed, CPU) for seed in (0, 0)
    )
    assert weights_hash(encoder) == before
    assert weights_hash(first) == weights_hash(second)
    assert weights_hash(first.encoder) != before, "all of it is trained"
    other = tuned(encoder, images, images.labels, 4, Rates(0.01, 0.1), Schedule(8, 5), 1, CPU)
    assert weights_hash(other) != weights_hash(first)


def test_what_diverges_says_so() -> None:
    images = coloured(16, 0)
    with pytest.raises(Diverged, match=r"after \d+ updates at rates 1e\+30"):
        tuned(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), images, images.labels, 4, Rates(1e30, 1e30),
              Schedule(8, 9), 0, CPU)  # fmt: skip
