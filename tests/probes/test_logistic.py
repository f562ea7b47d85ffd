import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from barlow.probes import FeatureSet
from barlow.probes.splits import split, subset
from barlow.protocols import logistic
from barlow.protocols.logistic import Logistic


def clouds(n, seed, classes=3, width=4, apart=1.0):
    centres = np.random.default_rng(7).normal(size=(classes, width))
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    features = torch.tensor(apart * centres[labels] + rng.normal(size=(n, width)), dtype=torch.float32)
    return FeatureSet(features, labels, np.arange(n))


def loop_fit(x, y, z, c, classes):
    """Minimises C · Σ cross-entropy + ‖W‖²/2 with scipy from the formula, in float64, on standardised features."""
    mean = x.mean(axis=0)
    std = np.sqrt(((x - mean) ** 2).mean(axis=0))
    x, z = (x - mean) / std, (z - mean) / std
    width = x.shape[1]

    def loss(parameters):
        w, b = parameters[: classes * width].reshape(classes, width), parameters[classes * width :]
        total = 0.5 * (w**2).sum()
        for row, label in zip(x, y, strict=True):
            logits = w @ row + b
            total += c * (np.log(np.exp(logits).sum()) - logits[label])
        return total

    best = minimize(loss, np.zeros(classes * width + classes), method="L-BFGS-B", tol=1e-12).x
    logits = z @ best[: classes * width].reshape(classes, width).T + best[classes * width :]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("c", [1e-3, 1e-1, 10.0])
def test_probabilities_are_those_of_the_formula(c):
    train, test = clouds(45, 0), clouds(20, 1)
    predicted = Logistic(strengths=(c,), tolerance=1e-7).predict(train, test.features)
    expected = loop_fit(train.features.double().numpy(), train.labels, test.features.double().numpy(), c, 3)
    np.testing.assert_allclose(predicted.scores, expected, atol=2e-3)


def test_the_default_tolerance_is_tight_enough():
    train, test = clouds(600, 0, classes=10, width=64), clouds(300, 1, classes=10, width=64)
    for c in (1e-4, 1e-2, 1.0):
        loose = Logistic(strengths=(c,)).predict(train, test.features)
        tight = Logistic(strengths=(c,), tolerance=1e-6, max_iterations=5000).predict(train, test.features)
        assert (loose.predictions == tight.predictions).mean() > 0.985


def test_scale_and_offset_of_each_feature_do_not_count():
    train, test = clouds(200, 0), clouds(100, 1)
    scale, offset = torch.tensor([1e-3, 1.0, 50.0, 1e4]), torch.tensor([0.1, -30.0, 0.0, 1e4])
    moved = FeatureSet(train.features * scale + offset, train.labels, train.ids)
    a = Logistic().predict(train, test.features)
    b = Logistic().predict(moved, test.features * scale + offset)
    assert a.notes["C"] == b.notes["C"]
    np.testing.assert_allclose(a.scores, b.scores, atol=5e-3)


def test_strength_is_chosen_on_a_part_of_train_whatever_the_test_labels():
    train, test = clouds(300, 0, width=40), clouds(100, 1, width=40)
    probe = Logistic()
    chosen = probe.predict(train, test.features).notes
    probe(train, FeatureSet(test.features, (test.labels + 1) % 3, test.ids))
    garbage = FeatureSet(torch.randn(100, 40, generator=torch.Generator().manual_seed(0)), test.labels, test.ids)
    assert probe.predict(train, test.features).notes == chosen
    assert probe.predict(train, garbage.features).notes == chosen


def test_noisy_features_get_a_stronger_penalty_than_clear_ones():
    # 200 features, 120 images: without a penalty the noise is learned by heart.
    noisy = Logistic().predict(clouds(120, 0, width=200, apart=0.15), torch.zeros(1, 200)).notes["C"]
    plenty = Logistic().predict(clouds(3000, 0, width=4, apart=0.7), torch.zeros(1, 4)).notes["C"]
    assert noisy <= plenty
    assert noisy < 0.1


def test_the_chosen_strength_is_the_best_on_the_held_out_part():
    train = clouds(400, 0, width=60, apart=0.3)
    probe = Logistic(strengths=(1e-5, 1e-3, 1e-1, 10.0))
    rng = np.random.default_rng(probe.seed)
    fit, held = split(train.labels, 0.2, rng)

    def held_out(c):
        part = FeatureSet(train.features[fit], train.labels[fit], fit)
        return (Logistic(strengths=(c,)).predict(part, train.features[held]).predictions == train.labels[held]).mean()

    scores = {c: held_out(c) for c in probe.strengths}
    assert scores[probe.predict(train, train.features[:1]).notes["C"]] >= max(scores.values()) - 0.03


def test_penalties_under_which_all_images_get_one_class_do_not_end_the_search(monkeypatch):
    """So strong a penalty leaves the bias alone, and the class with the most images is the answer to everything."""
    classes = np.repeat(np.arange(5), [60, 45, 45, 45, 45])
    rng = np.random.default_rng(0)
    features = torch.tensor(rng.normal(size=(5, 30))[classes] * 0.5 + rng.normal(size=(240, 30)), dtype=torch.float32)
    train = FeatureSet(features, classes, np.arange(240))
    notes = Logistic().predict(train, features).notes
    monkeypatch.setattr(logistic, "PATIENCE", 99)
    assert notes == Logistic().predict(train, features).notes, "the whole grid chooses the same"
    assert 1e-4 < notes["C"] < 100
    assert not notes["at_edge"]


def test_the_search_ends_where_weaker_penalties_are_surely_worse(monkeypatch):
    tried = []
    fit = logistic._Classifiers.fit
    monkeypatch.setattr(logistic._Classifiers, "fit", lambda self, x, y, c: (tried.append(c), fit(self, x, y, c))[1])
    Logistic().predict(clouds(4000, 0, width=400, apart=0.1), torch.zeros(1, 400))
    assert max(tried[:-1]) < logistic.STRENGTHS[-1]


def test_the_last_fit_uses_all_training_images():
    # With one strength to choose from, the size of the held-out part must leave no trace.
    train = clouds(60, 0)
    predicted = Logistic(strengths=(1.0,)).predict(train, train.features)
    part = Logistic(strengths=(1.0,), held_out=0.9).predict(train, train.features)
    np.testing.assert_allclose(predicted.scores, part.scores, atol=5e-3)


def test_not_converging_is_said_and_not_warned():
    notes = Logistic(strengths=(100.0,), max_iterations=2).predict(clouds(200, 0), torch.zeros(1, 4)).notes
    assert notes["converged"] is False
    assert Logistic(strengths=(1e-3,)).predict(clouds(200, 0), torch.zeros(1, 4)).notes["converged"] is True


def test_a_constant_feature_is_left_out_and_rounding_is_not_amplified():
    train, test = clouds(200, 0), clouds(100, 1)
    rng = np.random.default_rng(3)
    wide = [
        torch.cat(
            [f, torch.full((len(f), 1), 5.0), torch.tensor(3 + 1e-6 * rng.normal(size=(len(f), 1))).float()], dim=1
        )
        for f in (train.features, test.features)
    ]
    wide[1][:, 4] = 9.0  # constant on train, something else on test
    with_constant = Logistic().predict(FeatureSet(wide[0], train.labels, train.ids), wide[1])
    np.testing.assert_array_equal(with_constant.scores, Logistic().predict(train, test.features).scores)


def test_too_few_images_to_hold_any_out_is_said():
    notes = Logistic().predict(clouds(3, 0), torch.zeros(1, 4)).notes
    assert notes["held_out_images"] == 0
    assert notes["C"] == 1.0


def test_split_is_stratified_and_complete():
    labels = np.repeat([0, 1, 2, 3], [1, 2, 50, 500])
    fit, held = split(labels, 0.2, np.random.default_rng(0))
    assert sorted([*fit, *held]) == list(range(553))
    assert np.bincount(labels[held], minlength=4).tolist() == [0, 1, 10, 100]
    assert np.bincount(labels[fit], minlength=4).tolist() == [1, 1, 40, 400]


def test_a_subset_keeps_shares_and_every_class():
    labels = np.repeat([0, 1, 2], [1, 1000, 3000])
    kept = subset(labels, 400, np.random.default_rng(0))
    assert len(set(kept)) == len(kept)
    assert np.bincount(labels[kept]).tolist() == [1, 100, 300]
    assert len(subset(labels, 5000, np.random.default_rng(0))) == 4001


def test_a_large_training_set_chooses_on_a_subset():
    train, test = clouds(900, 0, apart=2), clouds(100, 1, apart=2)
    predicted = Logistic(selection_rows=90).predict(train, test.features)
    assert predicted.notes["held_out_images"] == 18
    assert (predicted.predictions == test.labels).mean() > 0.8


@pytest.mark.parametrize(
    "settings", [{"strengths": ()}, {"strengths": (1.0, 0.1)}, {"strengths": (0.0,)}, {"held_out": 1.0}]
)
def test_senseless_settings_are_refused(settings):
    with pytest.raises(ValueError, match="use "):
        Logistic(**settings)
