"""The linear layer whose rate is chosen: each rate is `linear_sgd` at that rate."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from barlow.probes import FeatureSet
from barlow.probes.splits import split
from barlow.protocols.linear import Linear
from barlow.protocols.linear_sgd import LinearSGD


def clouds(n: int, seed: int, scale: float = 1.0) -> FeatureSet:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(5, 10))
    labels = rng.permutation(np.arange(n) % 5)
    features = scale * (0.7 * centres[labels] + rng.normal(size=(n, 10)))
    return FeatureSet(torch.tensor(features, dtype=torch.float32), labels, np.arange(n))


def test_the_rate_is_the_one_that_is_best_on_held_out_training_images() -> None:
    train, test = clouds(200, 0, 0.05), clouds(100, 1, 0.05)
    protocol = Linear(rates=(0.001, 0.1, 10.0), epochs=20)
    predicted = protocol.predict(train, test.features)
    generator = np.random.default_rng(0)
    fit, held = split(train.labels, 0.2, generator)
    part = FeatureSet(train.features[fit], train.labels[fit], fit)
    scores = [
        (LinearSGD(epochs=20, lr=rate).predict(part, train.features[held]).predictions == train.labels[held]).mean()
        for rate in protocol.rates
    ]
    best = protocol.rates[int(np.argmax(scores))]
    assert predicted.notes["lr"] == best == 0.1
    assert predicted.notes["held_out_score"] == max(scores)
    assert not predicted.notes["at_edge"]
    alone = LinearSGD(epochs=20, lr=best).predict(train, test.features)
    np.testing.assert_array_equal(predicted.scores, alone.scores)
    np.testing.assert_array_equal(predicted.by_epoch, alone.by_epoch)


@pytest.mark.parametrize("several", [False, True])
def test_all_rates_in_one_pass_are_each_rate_by_itself(several: bool) -> None:
    """Also beside one that diverges, which the others must not notice."""
    train, test = clouds(300, 0), clouds(100, 1)
    if several:
        train, test = (replace(each, labels=np.eye(5, dtype=np.int8)[each.labels]) for each in (train, test))
    rates = (0.01, 0.3, 1e30, 3.0)
    protocol = LinearSGD(epochs=6, batch_size=32, weight_decay=1e-3)
    together = protocol.scores_at(rates, train, test.features)
    for rate, scores in zip(rates, together, strict=True):
        if rate == 1e30:
            assert scores is None
            continue
        alone = replace(protocol, lr=rate).predict(train, test.features).scores
        assert scores is not None
        found = scores if several else torch.tensor(scores).softmax(dim=1).numpy()
        np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-6)


def test_a_rate_at_which_training_diverges_is_left_out() -> None:
    train, test = clouds(100, 0, 1e18), clouds(40, 1, 1e18)
    found = Linear(rates=(1e-37, 1e3), epochs=5).predict(train, test.features)
    assert found.notes["lr"] == 1e-37
    with pytest.raises(ValueError, match="training diverges at every rate of 1000"):
        Linear(rates=(1e3,), epochs=5).predict(train, test.features)


def test_with_one_image_a_class_there_is_nothing_to_choose_by() -> None:
    train = clouds(5, 0)
    notes = Linear(epochs=3).predict(train, clouds(20, 1).features).notes
    assert "held_out_score" not in notes
    assert notes["lr"] == 0.1
