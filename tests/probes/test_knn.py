import math

import numpy as np
import pytest
import torch

from barlow.probes import FeatureSet, neighbours
from barlow.probes.neighbours import most_similar, nearest
from barlow.probes.products import by_numpy, by_torch
from barlow.protocols.knn import WeightedKNN
from barlow.protocols.knn5_euclidean import EuclideanKNN


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
    monkeypatch.setattr(neighbours, "BLOCK", 1)  # 16 rows at a time
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


# ---------------------------------------------------------------------------------------- against float64, pair by pair


def exact_distances(train, test):
    return torch.stack([(test.double()[i] - train.double()).square().sum(dim=1) for i in range(len(test))])


def check_nearest(train, test, k):
    """The k distances are the k smallest, and each belongs to its row, up to float32's rounding."""
    distances, positions = nearest(train, test, k)
    exact = exact_distances(train, test)
    assert positions.shape == distances.shape == (len(test), k)
    assert all(len(set(row)) == k for row in positions.tolist()), "a row is found once"
    own = exact.gather(1, positions)
    torch.testing.assert_close(distances.double(), own, rtol=1e-5, atol=0)
    assert (distances.diff(dim=1) >= 0).all()
    # Rows that a product of centred rows in float32 can tell apart are told apart.
    centred = (train.double() - train.double().mean(dim=0)).norm(dim=1).max()
    queries = (test.double() - train.double().mean(dim=0)).norm(dim=1, keepdim=True)
    rounding = 2.0**-20 * centred * (centred + queries)
    best = exact.topk(k, largest=False).values
    assert ((own - best).abs() <= rounding + 1e-5 * best).all()


def drawn(n, width, seed):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def duplicates():
    return drawn(20, 24, 0).repeat(15, 1), drawn(40, 24, 1)


def tight_clusters_far_from_the_origin():
    centres = 1000 + 100 * drawn(6, 24, 0)
    train, test = centres.repeat(50, 1) + 1e-2 * drawn(300, 24, 1), centres.repeat(6, 1) + 1e-2 * drawn(36, 24, 2)
    return train, test


def constant_rows():
    return torch.linspace(-3, 3, 300)[:, None].expand(300, 24).contiguous(), torch.full((3, 24), 0.013)


def all_equal():
    return torch.full((300, 24), 0.7), torch.full((10, 24), 0.7)


def lengths_of_all_sizes():
    return drawn(300, 24, 0) * torch.logspace(-6, 6, 300)[:, None], drawn(40, 24, 1)


def queries_in_train():
    train = drawn(300, 24, 0) + 50
    return train, train[::7].clone()


def no_wider_than_one():
    return drawn(300, 1, 0), drawn(40, 1, 1)


ADVERSARIES = [
    duplicates,
    tight_clusters_far_from_the_origin,
    constant_rows,
    all_equal,
    lengths_of_all_sizes,
    queries_in_train,
    no_wider_than_one,
]


@pytest.fixture(params=["bf16", "float32", "NumPy's float32"])
def products(request, monkeypatch):
    """All ways whatever the machine: bfloat16 is only slower where the processor has none."""
    product = by_numpy if request.param.startswith("NumPy") else by_torch
    monkeypatch.setattr(neighbours, "_prefers_bf16", lambda device: request.param == "bf16")
    monkeypatch.setattr(neighbours, "product_for", lambda *work: product)
    return request.param


@pytest.fixture
def asked(monkeypatch):
    """In which precision how many rows were scored."""
    found = []
    shortlist = neighbours._shortlist

    def watched(train, test, queries, *rest):
        found.append((rest[-1], len(queries)))
        return shortlist(train, test, queries, *rest)

    monkeypatch.setattr(neighbours, "_shortlist", watched)
    return found


@pytest.mark.parametrize("k", [1, 5, 300])
@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_the_neighbours_are_the_nearest_whatever_the_features(products, adversary, k):
    check_nearest(*adversary(), k)


@pytest.mark.parametrize("block", [1, 1000, 2**14])
@pytest.mark.parametrize("n", [41, 301, 333])
def test_the_neighbours_are_the_nearest_whatever_the_blocks(products, monkeypatch, n, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "TRIAL", 7)
    check_nearest(drawn(n, 24, 0) + 3, drawn(90, 24, 1) + 3, 5)


@pytest.mark.parametrize("group", [1, 2, 16])
def test_the_highest_scores_are_found_by_way_of_groups(monkeypatch, group):
    monkeypatch.setattr(neighbours, "GROUP", group)
    scores = drawn(50, 640, 0).bfloat16()  # with ties
    values, columns = neighbours._highest(scores, 9, torch.full((50, 1), neighbours.PAD))
    assert torch.equal(values, scores.topk(9).values)
    assert torch.equal(scores.gather(1, columns), values)
    assert all(len(set(row)) == 9 for row in columns.tolist())


@pytest.mark.parametrize("group", [1, 2, 16])
@pytest.mark.parametrize("rank", [0, 3, 8, 200])
def test_all_that_is_above_a_floor_is_among_the_highest(monkeypatch, group, rank):
    """Each row has the floor at another of its scores, and the last row has nothing above it."""
    monkeypatch.setattr(neighbours, "GROUP", group)
    scores = drawn(50, 640, 0).bfloat16()
    ordered = scores.sort(dim=1, descending=True).values
    floor = ordered.gather(1, (torch.arange(50) % (rank + 1))[:, None]).float()
    floor[-1] = 10.0
    values, columns = neighbours._highest(scores, 9, floor)
    assert torch.equal(scores.gather(1, columns), values)
    above = ordered[:, :9] > floor
    for found, best, counts in zip(values, ordered, above, strict=True):
        assert torch.equal(found[: int(counts.sum())], best[:9][counts])


def test_nothing_above_the_floor_is_nothing_at_all(monkeypatch):
    values, columns = neighbours._highest(drawn(5, 640, 0), 9, torch.full((5, 1), 10.0))
    assert values.shape == columns.shape == (5, 0)


def test_rows_that_bfloat16_cannot_tell_apart_are_scored_in_float32(monkeypatch, asked):
    monkeypatch.setattr(neighbours, "_prefers_bf16", lambda device: True)
    monkeypatch.setattr(neighbours, "TRIAL", 10**6)
    far = drawn(200, 32, 0)
    near = 5 + 1e-3 * drawn(200, 32, 1)  # 200 rows within a rounding of each other, and the others apart
    train, test = torch.cat([far, near]), torch.cat([far[:30] + 0.01 * drawn(30, 32, 2), near[:12] + 1e-4])
    check_nearest(train, test, 5)
    (first, all_of_them), (second, some) = asked
    assert (first, all_of_them, second) == (torch.bfloat16, 42, torch.float32)
    assert 12 <= some < 42


def test_bfloat16_alone_settles_features_that_are_spread_out(monkeypatch, asked):
    monkeypatch.setattr(neighbours, "_prefers_bf16", lambda device: True)
    check_nearest(drawn(2000, 64, 0), drawn(100, 64, 1), 20)
    assert {dtype for dtype, _ in asked} == {torch.bfloat16}


def test_where_bfloat16_settles_little_the_rest_is_spared_it(monkeypatch, asked):
    monkeypatch.setattr(neighbours, "_prefers_bf16", lambda device: True)
    monkeypatch.setattr(neighbours, "TRIAL", 10)
    check_nearest(*tight_clusters_far_from_the_origin(), 5)
    assert asked == [(torch.bfloat16, 12), (torch.float32, 36)]


def test_the_bound_holds_where_rounding_is_at_its_worst(monkeypatch):
    """Every coordinate of every row lies as far from its bfloat16 as it can, all to the same side."""
    monkeypatch.setattr(neighbours, "_prefers_bf16", lambda device: True)
    signs = drawn(400, 64, 0).sign()
    train = torch.cat([signs, -signs]) * (1 + 2.0**-8 - 2.0**-20 * drawn(800, 64, 1).abs())
    test = signs[:50] * (1 + 2.0**-8 + 2.0**-20)
    flipped = test.clone()
    flipped[:, :8] *= -1
    check_nearest(train, torch.cat([test, flipped]), 5)


@pytest.mark.parametrize("width", [1, 3, 257])
def test_the_bound_is_above_the_largest_error_and_not_far_above(width):
    """Rows that lose 2⁻⁸ of every coordinate, in one direction, and (at width 257) a product halfway to the next."""
    lost = 2.0**-8 - 2.0**-20
    x = torch.full((1, width), 1 + lost)
    rounded = torch.empty(1, width + 3, dtype=torch.bfloat16)
    size, off = neighbours._factors(x, None, rounded)
    score = (rounded[:, :width] @ rounded[:, :width].T).float()
    bound = float(neighbours._off(score, (size, off), (size, off), width))
    error = abs(width * (1 + lost) ** 2 - float(score))
    assert error <= bound
    assert width < 257 or bound < 1.1 * error


def test_both_precisions_give_the_same_distances(monkeypatch):
    train, test, found = drawn(1000, 48, 0), drawn(60, 48, 1), []
    for coarse in (True, False):
        monkeypatch.setattr(neighbours, "_prefers_bf16", lambda device, coarse=coarse: coarse)
        found.append(nearest(train, test, 20) + most_similar(train, test, 20))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_both_libraries_give_the_same_distances(monkeypatch):
    train, test, found = drawn(3000, 48, 0) + 5, drawn(300, 48, 1) + 5, []
    monkeypatch.setattr(neighbours, "_prefers_bf16", lambda device: False)
    for product in (by_torch, by_numpy):
        monkeypatch.setattr(neighbours, "product_for", lambda *work, product=product: product)
        found.append(nearest(train, test, 20) + most_similar(train, test, 20))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_equal_rows_are_at_distance_zero(products):
    train, test = queries_in_train()
    distances, positions = nearest(train, test, 1)
    assert positions[:, 0].tolist() == list(range(0, 300, 7))
    assert (distances == 0).all()


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_cosines_of_very_short_and_very_long_rows(products, size):
    train, test = drawn(200, 8, 0), drawn(30, 8, 1)
    cosines, positions = most_similar(train * size, test / size, 5)
    expected = torch.nn.functional.cosine_similarity(test[:, None].double(), train[None].double(), dim=2).topk(5)
    assert torch.equal(positions, expected.indices)
    torch.testing.assert_close(cosines.double(), expected.values, atol=1e-6, rtol=0)


def test_no_queries_have_no_neighbours(products):
    distances, positions = nearest(drawn(50, 4, 0), torch.empty(0, 4), 3)
    assert distances.shape == positions.shape == (0, 3)


def test_the_number_of_threads_changes_nothing(products, monkeypatch):
    train, test, threads, found = drawn(1000, 48, 0), drawn(300, 48, 1), torch.get_num_threads(), []
    monkeypatch.setattr(neighbours, "BLOCK", 2**14)  # five parts for the threads to share
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(nearest(train, test, 10))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_an_error_in_every_thread_is_raised_and_none_waits_for_ever(products, monkeypatch):
    def without_memory(*given):
        raise RuntimeError("cannot allocate memory")

    monkeypatch.setattr(neighbours, "_highest", without_memory)
    monkeypatch.setattr(neighbours, "BLOCK", 2**14)  # five parts
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="cannot allocate memory"):
            nearest(drawn(1000, 48, 0), drawn(300, 48, 1), 10)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("offset", [1.7e9, 1.7e10, 1e12, 1e20])
def test_a_large_offset_that_rows_have_in_common_changes_nothing(products, offset):
    train, test = drawn(5000, 64, 0), drawn(100, 64, 1)
    train[:, 0] = test[:, 0] = offset
    _, positions = nearest(train, test, 5)
    exact = exact_distances(train, test).topk(5, largest=False)
    assert torch.equal(positions, exact.indices)


def test_features_that_ask_for_a_gradient_are_searched_as_others_are(products):
    train, test = drawn(100, 8, 0), drawn(10, 8, 1)
    for search in (nearest, most_similar):
        asked = search(train.clone().requires_grad_(), test.clone().requires_grad_(), 3)
        assert all(torch.equal(a, b) for a, b in zip(asked, search(train, test, 3), strict=True))


def test_where_there_are_fewer_parts_than_threads_torch_takes_all_of_them_for_one(monkeypatch):
    taken = []

    def product(a, b, out):
        taken.append(1)
        by_torch(a, b, out)

    monkeypatch.setattr(neighbours, "_prefers_bf16", lambda device: False)
    monkeypatch.setattr(neighbours, "product_for", lambda *work: product)
    threads = torch.get_num_threads()
    try:
        for number, parts in ((1, 1), (2, 0)):
            torch.set_num_threads(number)
            nearest(drawn(1000, 48, 0), drawn(100, 48, 1), 3)
            assert len(taken) == parts
            taken.clear()
    finally:
        torch.set_num_threads(threads)


def test_float64_and_half_precision_are_searched_as_they_are_and_in_float32():
    train, test = drawn(100, 8, 0).double() * 1e-200, drawn(10, 8, 1).double() * 1e-200
    assert most_similar(train, test, 3)[0].dtype == torch.float64
    assert torch.equal(most_similar(train, test, 3)[1], most_similar(train * 1e200, test * 1e200, 3)[1])
    assert nearest(train.half(), test.half(), 3)[0].dtype == torch.float32
