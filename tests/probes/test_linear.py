import math

import numpy as np
import pytest
import torch
from oracles import linear_sgd as oracle
from torch import nn

from barlow.probes import FeatureSet, measure
from barlow.probes.metrics import best_epoch
from barlow.protocols.linear_adam import LinearAdam
from barlow.protocols.linear_sgd import LinearSGD
from barlow.views.keys import permutation


def clouds(n, seed, classes=3, width=5, apart=1.0):
    centres = np.random.default_rng(7).normal(size=(classes, width))
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    features = torch.tensor(apart * centres[labels] + rng.normal(size=(n, width)), dtype=torch.float32)
    return FeatureSet(features, labels, np.arange(n))


def tagged(n, seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < 0.4).astype(np.uint8)
    features = torch.tensor(np.concatenate([labels, labels], axis=1) + rng.normal(size=(n, 6)), dtype=torch.float32)
    return FeatureSet(features, labels, np.arange(n))


def scaled(features, scale):
    return FeatureSet(features.features * scale, features.labels, features.ids)


def first_weights(seed, classes, width):
    return 0.01 * torch.randn((classes, width), generator=torch.Generator().manual_seed(seed))


def by_loops(probe, train, test, targets, several=False):
    """The oracle's logits of the test rows after each epoch."""
    weights = first_weights(probe.seed, targets.shape[1], train.features.shape[1]).double().tolist()
    after = oracle.linear_sgd(
        train.features.double().tolist(),
        targets.tolist(),
        weights,
        [0.0] * targets.shape[1],
        [permutation(probe.seed, epoch, len(train)).tolist() for epoch in range(probe.epochs)],
        batch=probe.batch_size,
        lr=probe.lr,
        momentum=probe.momentum,
        weight_decay=probe.weight_decay,
        several=several,
    )
    return [[oracle.logits(w, b, x) for x in test.features.double().tolist()] for w, b in after]


@pytest.mark.parametrize(
    "settings",
    [{}, {"weight_decay": 0.1}, {"momentum": 0.0}, {"lr": 0.02, "seed": 3}, {"batch_size": 64}],
    ids=str,
)
def test_scores_and_the_answers_of_every_epoch_are_those_of_the_protocol_by_loops(settings):
    train, test = clouds(23, 0), clouds(11, 1)
    probe = LinearSGD(**{"epochs": 4, "batch_size": 8, **settings})  # 23 = 8 + 8 + 7: the last batch is short
    predicted = probe.predict(train, test.features)
    expected = by_loops(probe, train, test, np.eye(3)[train.labels])
    np.testing.assert_allclose(predicted.scores, [oracle.softmax(row) for row in expected[-1]], atol=1e-5)
    np.testing.assert_array_equal(predicted.by_epoch, np.array(expected).argmax(axis=2))


def test_several_labels_are_trained_by_binary_cross_entropy():
    train, test = tagged(23, 0), tagged(11, 1)
    probe = LinearSGD(epochs=3, batch_size=8, weight_decay=0.01)
    predicted = probe.predict(train, test.features)
    expected = by_loops(probe, train, test, train.labels.astype(float), several=True)
    np.testing.assert_allclose(predicted.scores, [oracle.sigmoid(row) for row in expected[-1]], atol=1e-5)
    assert predicted.by_epoch is None


def test_the_rate_is_the_papers():
    probe = LinearSGD()
    assert (probe.epochs, probe.batch_size, probe.lr, probe.momentum, probe.weight_decay) == (100, 256, 0.3, 0.9, 1e-6)
    assert [probe.rate(e) for e in range(100)] == pytest.approx(oracle.rates(0.3, 100))
    assert probe.rate(0) == 0.3
    assert probe.rate(50) == pytest.approx(0.15)
    assert 0 < probe.rate(99) < 1e-4
    assert LinearSGD(batch_size=32).rate(0) == 0.3, "it does not depend on the batch"
    adam = LinearAdam()
    assert adam.rate(0) == 1e-2
    assert adam.rate(250) == pytest.approx(1e-4)
    assert adam.rate(500) == pytest.approx(1e-6)


def test_adam_is_that_of_torch_in_float64():
    train, test = clouds(23, 0), clouds(11, 1)
    probe = LinearAdam(epochs=4, batch_size=8, weight_decay=0.05)
    draws = torch.Generator().manual_seed(0)
    layer = nn.Linear(5, 3, dtype=torch.float64)
    with torch.no_grad():
        for parameter in (layer.weight, layer.bias):
            parameter.copy_((2 * torch.rand(parameter.shape, generator=draws) - 1) / math.sqrt(5))
    optimizer = torch.optim.Adam(layer.parameters(), weight_decay=0.05)
    for epoch in range(4):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1e-6 / 1e-2) ** (epoch / 4)
        for rows in torch.from_numpy(permutation(0, epoch, 23)).split(8):
            logits = layer(train.features.double()[rows])
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, torch.from_numpy(train.labels)[rows]).backward()
            optimizer.step()
    expected = layer(test.features.double()).softmax(dim=1).detach().numpy()
    predicted = probe.predict(train, test.features)
    np.testing.assert_allclose(predicted.scores, expected, atol=1e-5)
    assert predicted.by_epoch is None, "the paper's number is the last epoch's"


@pytest.mark.parametrize("probe", [LinearSGD, LinearAdam])
def test_a_seed_is_one_result_and_another_is_another(probe):
    train, test = clouds(100, 0), clouds(50, 1)
    a, b, c = (probe(epochs=3, seed=seed).predict(train, test.features).scores for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-4


def test_the_number_of_threads_changes_nothing_and_is_left_as_it_was():
    train, test = clouds(600, 0, width=64), clouds(50, 1, width=64)
    before, scores = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            scores.append(LinearSGD(epochs=3).predict(train, test.features).scores)
            assert torch.get_num_threads() == threads
        with pytest.raises(ValueError, match="diverged"):
            LinearSGD().predict(scaled(train, 1e30), test.features)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*scores)


def test_the_number_is_the_last_epochs_and_the_best_one_stands_apart():
    train, test = clouds(60, 0, apart=0.5), clouds(200, 1, apart=0.5)
    predicted = LinearSGD(epochs=20, batch_size=16, lr=3.0).predict(train, test.features)
    each = [(answers == test.labels).mean() for answers in predicted.by_epoch]
    scores = measure(predicted, test.labels)
    assert scores["top1"].value == pytest.approx(each[-1])
    assert scores["best_epoch_top1"].value == pytest.approx(max(each))
    assert scores["best_epoch_top1"].value > scores["top1"].value, "this rate makes the epochs differ"
    assert best_epoch(predicted, test.labels) == 1 + each.index(max(each))


def test_an_epoch_is_read_after_it_and_not_before():
    train, test = clouds(90, 0), clouds(50, 1)
    whole = LinearSGD(epochs=1).predict(train, test.features)
    np.testing.assert_array_equal(whole.by_epoch[0], whole.predictions)
    assert whole.by_epoch.shape == (1, 50)
    assert LinearSGD(epochs=7).predict(train, test.features).by_epoch.shape == (7, 50)


def test_features_that_are_the_same_in_every_epoch_are_the_same_as_features_given_once():
    train, test = clouds(70, 0), clouds(50, 1)
    once = LinearSGD(epochs=5).predict(train, test.features)
    asked = []
    anew = LinearSGD(epochs=5).predict(lambda epoch: asked.append(epoch) or train, test.features)
    assert asked == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(anew.scores, once.scores)
    np.testing.assert_array_equal(anew.by_epoch, once.by_epoch)
    assert (once.notes["embedded"], anew.notes["embedded"]) == ("once", "each epoch")


def test_each_epoch_trains_on_its_own_features_and_labels():
    epochs, test = [clouds(23, seed, apart=8.0) for seed in range(3)], clouds(11, 9, apart=8.0)
    epochs[1:] = [FeatureSet(s.features.flip(0), s.labels[::-1], s.ids[::-1]) for s in epochs[1:]]
    predicted = LinearSGD(epochs=3, batch_size=8).predict(epochs.__getitem__, test.features)
    assert (predicted.predictions == test.labels).all(), "each row with its own label"
    first = LinearSGD(epochs=3, batch_size=8).predict(epochs[0], test.features)
    np.testing.assert_array_equal(predicted.by_epoch[0], first.by_epoch[0])
    assert np.abs(predicted.scores - first.scores).max() > 1e-3


def test_the_device_is_where_it_trains_and_the_cpu_by_default():
    train, test = clouds(60, 0), clouds(50, 1)
    here, there = (LinearSGD(epochs=2, device=device).predict(train, test.features) for device in (None, "cpu"))
    np.testing.assert_array_equal(here.scores, there.scores)
    # A device without numbers: a whole step runs there, with nothing left behind on the CPU, before one is asked for.
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta tensors"):
        LinearSGD(epochs=1, device="meta").predict(train, test.features)


@pytest.mark.parametrize("probe", [LinearSGD(), LinearAdam()])
def test_features_of_another_type_are_trained_on_as_float32(probe):
    train, test = clouds(60, 0), clouds(50, 1)
    doubled = FeatureSet(train.features.double(), train.labels, train.ids)
    np.testing.assert_array_equal(
        probe.predict(doubled, test.features.double()).scores, probe.predict(train, test.features).scores
    )


def test_what_is_not_finite_is_an_error_that_names_the_remedy():
    train, test = clouds(60, 0), clouds(20, 1)
    with pytest.raises(ValueError, match=r"after epoch \d, at lr 0.3 on features of root mean square .*e\+30.*smaller"):
        LinearSGD().predict(scaled(train, 1e30), test.features)
    with pytest.raises(ValueError, match="scores of the test images are not finite"):
        LinearSGD().predict(train, test.features * 1e38)


def test_a_rate_that_does_not_suit_the_features_is_noted():
    train, test = clouds(300, 0, apart=0.5, width=40), clouds(20, 1, width=40)
    assert LinearSGD(epochs=10).predict(train, test.features).notes["worse_than_class_frequencies"] is False
    wild = LinearSGD(epochs=10).predict(scaled(train, 1000), test.features).notes
    assert wild["worse_than_class_frequencies"] is True
    assert wild["train_loss"] > math.log(3)


@pytest.mark.parametrize("make", [clouds, tagged])
def test_features_that_say_nothing_reach_the_class_frequencies(make):
    train = make(600, 0)
    for features in (
        torch.full_like(train.features, 0.7),
        torch.randn(train.features.shape, generator=torch.Generator().manual_seed(0)),
    ):
        notes = LinearSGD().predict(FeatureSet(features, train.labels, train.ids), features[:3]).notes
        assert notes["worse_than_class_frequencies"] is False
    p = train.labels.mean(axis=0)
    entropy = math.log(3) if train.labels.ndim == 1 else -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum()
    constant = FeatureSet(torch.full_like(train.features, 0.7), train.labels, train.ids)
    assert LinearSGD().predict(constant, constant.features).notes["train_loss"] == pytest.approx(entropy, rel=1e-3)


def test_wild_logits_keep_their_order_for_top5():
    train, test = clouds(400, 0, classes=12, width=20), clouds(120, 1, classes=12, width=20)
    predicted = LinearSGD(epochs=3).predict(scaled(train, 1e4), test.features * 1e4)
    assert (predicted.scores > 0).all(), "a class with score 0 would not count"
    np.testing.assert_allclose(predicted.scores.sum(axis=1), 1)
    np.testing.assert_array_equal(predicted.by_epoch[-1], predicted.predictions)


@pytest.mark.parametrize(
    ("probe", "settings"),
    [
        (LinearSGD, {"epochs": 0}),
        (LinearSGD, {"batch_size": 0}),
        (LinearSGD, {"lr": 0.0}),
        (LinearSGD, {"lr": math.nan}),
        (LinearSGD, {"momentum": 1.0}),
        (LinearSGD, {"weight_decay": -1e-6}),
        (LinearAdam, {"last_lr": 0.0}),
        (LinearAdam, {"epochs": 0}),
    ],
)
def test_senseless_settings_are_refused(probe, settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))}.*use"):
        probe(**settings)
