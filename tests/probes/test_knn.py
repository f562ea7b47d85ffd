import math

import numpy as np
import pytest
import torch

from barlow.probes import FeatureSet, knn
from barlow.probes.knn import EuclideanKNN, WeightedKNN, most_similar, nearest


def rows(n, seed, width=8, classes=4):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=g).numpy()
    return FeatureSet(torch.randn(n, width, generator=g), labels, np.arange(n))


def loop_votes(train, test, k, temperature, classes):
    """The definition, in float64, one pair at a time."""
    result = []
    for a in test.double().tolist():
        cosines = []
        for b, label in zip(train.features.double().tolist(), train.labels, strict=True):
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            cosines.append((dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b)), label))
        share = [0.0] * classes
        for cosine, label in sorted(cosines, reverse=True)[:k]:
            share[label] += math.exp(cosine / temperature)
        result.append([s / sum(share) for s in share])
    return np.array(result)


@pytest.mark.parametrize(("k", "temperature"), [(20, 0.07), (1, 0.07), (7, 1.0)])
def test_weighted_votes_equal_the_definition(k, temperature):
    train, test = rows(60, 0), rows(25, 1)
    predicted = WeightedKNN(k, temperature).predict(train, test.features)
    np.testing.assert_allclose(predicted.scores, loop_votes(train, test.features, k, temperature, 4), atol=2e-5)


def test_majority_equals_the_definition():
    train, test = rows(60, 0), rows(25, 1)
    predicted = EuclideanKNN().predict(train, test.features)
    for a, share in zip(test.features.double(), predicted.scores, strict=True):
        order = sorted(range(60), key=lambda i, a=a: float(((a - train.features[i].double()) ** 2).sum()))
        counts = np.bincount(train.labels[order[:5]], minlength=4)
        np.testing.assert_allclose(share, counts / 5, atol=1e-12)


def test_a_tied_majority_goes_to_the_smallest_label():
    train = FeatureSet(torch.tensor([[0.0], [0.1], [5.0], [5.1]]), np.array([3, 1, 2, 0]), np.arange(4))
    assert EuclideanKNN(k=2).predict(train, torch.tensor([[0.02], [5.0]])).predictions.tolist() == [1, 0]


def test_the_nearer_neighbour_outvotes_two_that_are_far_at_a_small_temperature():
    train = FeatureSet(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]]), np.array([1, 0, 0]), np.arange(3))
    test = torch.tensor([[1.0, 0.1]])
    assert WeightedKNN(3, temperature=0.07).predict(train, test).predictions.tolist() == [1]
    assert WeightedKNN(3, temperature=100.0).predict(train, test).predictions.tolist() == [0]


@pytest.mark.parametrize("probe", [WeightedKNN(k=1), EuclideanKNN(k=1)])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_training_features_queried_with_one_neighbour_are_all_right(probe, offset):
    train = rows(500, 3, width=32, classes=10)
    train = FeatureSet(train.features + offset, train.labels, train.ids)
    assert probe(train, train)["top1"].value == 1.0


def test_blocks_change_nothing(monkeypatch):
    train, test = rows(300, 0), rows(100, 1)
    whole = nearest(train.features, test.features, 7)
    monkeypatch.setattr(knn, "BLOCK", 1)  # 16 rows at a time
    parts = nearest(train.features, test.features, 7)
    assert torch.equal(whole[1], parts[1])
    torch.testing.assert_close(whole[0], parts[0])


def test_distances_survive_a_common_offset():
    # ‖a‖² − 2ab + ‖b‖² in float32 at an offset of 1000 would be off by more than the distances are.
    train, test = rows(200, 0).features.double(), rows(50, 1).features.double()
    exact = torch.cdist(test, train, compute_mode="donot_use_mm_for_euclid_dist").square().topk(5, largest=False)
    shifted = ((train + 1000).float(), (test + 1000).float())
    distances, positions = nearest(*shifted, 5)
    assert (positions == exact.indices).float().mean() > 0.99
    torch.testing.assert_close(distances.double(), exact.values, rtol=1e-2, atol=1e-3)


def test_cosines_are_those_of_torch():
    train, test = rows(200, 0).features * 1e-3, rows(50, 1).features * 1e6
    cosines, positions = most_similar(train, test, 20)
    expected = torch.nn.functional.cosine_similarity(test[:, None].double(), train[None].double(), dim=2).topk(20)
    assert torch.equal(positions, expected.indices)
    torch.testing.assert_close(cosines.double(), expected.values, atol=1e-6, rtol=0)


def test_lengths_do_not_count_for_cosines_and_do_for_distances():
    train, test = rows(100, 0), rows(50, 1)
    lengths = torch.linspace(0.01, 100, 50)[:, None]
    same = WeightedKNN().predict(train, test.features * lengths).scores
    np.testing.assert_allclose(same, WeightedKNN().predict(train, test.features).scores, atol=1e-5)
    moved = EuclideanKNN().predict(train, test.features * lengths).scores
    assert np.abs(moved - EuclideanKNN().predict(train, test.features).scores).max() > 0.1


def test_a_row_of_zeros_has_cosine_zero_with_everything():
    train = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.1]])
    cosines, positions = most_similar(train, torch.tensor([[2.0, 0.0], [0.0, 0.0]]), 3)
    assert positions[0].tolist() == [1, 0, 2]
    torch.testing.assert_close(cosines, torch.tensor([[1.0, 0.0, -0.9950], [0.0, 0.0, 0.0]]), atol=1e-4, rtol=0)


def test_several_labels_are_averaged_with_the_weights():
    labels = np.array([[1, 0], [1, 1], [0, 1]], np.uint8)
    train = FeatureSet(torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]]), labels, np.arange(3))
    predicted = WeightedKNN(k=2, temperature=0.5).predict(train, torch.tensor([[1.0, 0.0]]))
    w = np.exp(np.array([1.0, 0.8]) / 0.5)
    np.testing.assert_allclose(predicted.scores, [[1.0, w[1] / w.sum()]], atol=1e-6)


def test_fewer_training_images_than_neighbours_are_all_asked():
    predicted = WeightedKNN(k=20).predict(rows(6, 0), rows(3, 1).features)
    assert predicted.notes["k"] == 6


@pytest.mark.parametrize(
    "make", [lambda: WeightedKNN(k=0), lambda: WeightedKNN(temperature=0), lambda: EuclideanKNN(k=0)]
)
def test_senseless_settings_are_refused(make):
    with pytest.raises(ValueError, match="use "):
        make()
