"""k-means and whitening: published numbers, and that nothing but their arguments counts."""

import math

import pytest
import torch
from oracles.kmeans import assigned, lloyd, squared_distances
from torch import Tensor

from barlow import kmeans as module
from barlow.kmeans import Clustering, kmeans, nearest, pca_whitened


def rows(count: int, width: int, *, centres: int = 5, seed: int = 0) -> Tensor:
    """Some heaps of rows, far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    heaps = 3 * torch.randn(centres, width, generator=generator, dtype=torch.float64)
    drawn = torch.randint(centres, (count,), generator=generator)
    return heaps[drawn] + torch.randn(count, width, generator=generator, dtype=torch.float64) + 10


def unit(rows: list[list[float]]) -> Tensor:
    z = torch.tensor(rows, dtype=torch.float64)
    return z / z.norm(dim=1, keepdim=True)


def test_published_labels_and_one_move_of_the_centroids_of_which_an_empty_one_stays() -> None:
    e, c = unit([[1, 0.1], [1, -0.2], [0.2, 1]]), unit([[1, 0], [0, 1], [-1, -1]])
    assert nearest(e, c, spherical=True)[0].tolist() == [0, 0, 1]
    found = kmeans(e, 3, iterations=1, seed=0, spherical=True, empty="keep", start=c)
    expected = torch.tensor([[0.998806418962, -0.0488440113014], [0.196116135138, 0.980580675691]], dtype=torch.float64)
    torch.testing.assert_close(found.centroids[:2], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.centroids[2], c[2])


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("empty", ["keep", "split"])
def test_it_is_lloyds_algorithm_in_loops(spherical: bool, empty: str) -> None:
    z = rows(60, 4)
    start = z[:7]
    found = kmeans(z, 7, iterations=4, seed=0, spherical=spherical, empty=empty, start=start)
    labels, centroids = lloyd(z.tolist(), start.tolist(), 4, spherical)
    assert found.labels.tolist() == labels
    torch.testing.assert_close(found.centroids, torch.tensor(centroids, dtype=torch.float64), rtol=1e-10, atol=1e-10)
    distances = [squared_distances(row, found.centroids.tolist(), spherical) for row in z.tolist()]
    least = torch.tensor([min(found) for found in distances], dtype=torch.float64)
    torch.testing.assert_close(found.distances, least, rtol=1e-8, atol=1e-10)
    assert found.sizes.tolist() == [labels.count(k) for k in range(7)]


def test_labels_are_the_nearest_centroids_far_from_the_origin_in_float32_too() -> None:
    z = (rows(300, 6) + 3000).float()
    found = kmeans(z, 12, iterations=5, seed=1)
    assert found.labels.tolist() == assigned(z.tolist(), found.centroids.tolist(), spherical=False)


def test_of_equal_distances_the_first_centroid_counts() -> None:
    z = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    assert nearest(z, torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]))[0].tolist() == [0, 0]


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    z = rows(200, 5)
    whole, white = kmeans(z, 9, iterations=6, seed=2), pca_whitened(z, 3)
    monkeypatch.setattr(module, "BLOCK", 70)
    blocks = kmeans(z, 9, iterations=6, seed=2)
    assert blocks.labels.equal(whole.labels)
    torch.testing.assert_close(blocks.centroids, whole.centroids, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(pca_whitened(z, 3), white, rtol=1e-9, atol=1e-9)


def test_it_depends_on_its_seed_and_on_nothing_drawn_before() -> None:
    z = rows(200, 5)

    def found(seed: int) -> Clustering:
        torch.rand(3)
        return kmeans(z, 9, iterations=2, seed=seed)

    before = torch.get_rng_state()
    kmeans(z, 9, iterations=2, seed=0)
    assert torch.get_rng_state().equal(before)
    assert found(0).labels.equal(found(0).labels)
    assert found(0).centroids.equal(found(0).centroids)
    assert not found(0).labels.equal(found(1).labels)


def test_an_empty_cluster_takes_half_of_another() -> None:
    z = torch.cat([rows(100, 3), rows(100, 3).new_tensor([[40.0, 0, 0]]).expand(2, 3)])
    start = torch.cat([z[:2], torch.full((3, 3), -1000.0, dtype=torch.float64)])
    split = kmeans(z, 5, iterations=8, seed=0, start=start)
    kept = kmeans(z, 5, iterations=8, seed=0, start=start, empty="keep")
    assert (split.sizes > 0).all()
    assert kept.sizes[2:].tolist() == [0, 0, 0]
    assert kept.centroids[2:].equal(start[2:])
    assert float(split.distances.sum()) < float(kept.distances.sum())


def test_rows_that_are_all_alike_leave_clusters_empty_and_end() -> None:
    found = kmeans(torch.ones(6, 2), 3, iterations=5, seed=0)
    assert found.centroids.isfinite().all()
    assert float(found.distances.max()) < 1e-5
    spherical = kmeans(torch.zeros(6, 2), 3, iterations=5, seed=0, spherical=True, empty="keep")
    assert spherical.centroids.isfinite().all()


def test_as_many_clusters_as_rows_have_one_row_each() -> None:
    z = rows(12, 3)
    found = kmeans(z, 12, iterations=3, seed=0)
    assert found.sizes.tolist() == [1] * 12
    assert float(found.distances.max()) < 1e-20


def test_sums_by_segments_are_those_in_blocks_with_empty_clusters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two, a GPU takes the first; here both can be tried."""
    z, labels = rows(50, 5).float(), torch.randint(7, (50,), generator=torch.Generator().manual_seed(0))
    labels[labels == 3] = 2
    monkeypatch.setattr(module, "BLOCK", 100)
    blocks = module._Space(z, torch.zeros(5), False).sums(labels, 9)
    torch.testing.assert_close(module._sums_by_segments(z, labels, 9), blocks)
    assert (blocks[[3, 7, 8]] == 0).all()


def test_of_several_starts_the_best_is_kept() -> None:
    z = rows(300, 3, centres=8)
    left = [float(kmeans(z, 8, iterations=2, seed=0, restarts=starts).distances.sum()) for starts in range(1, 8)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < left[0]


def test_rows_that_move_no_centroid_have_labels_all_the_same() -> None:
    z = rows(300, 3)
    found = kmeans(z, 5, iterations=10, seed=0, most_rows=50)
    assert found.labels.shape == (300,)
    assert found.labels.tolist() == assigned(z.tolist(), found.centroids.tolist(), spherical=False)
    assert not found.centroids.equal(kmeans(z, 5, iterations=10, seed=0).centroids)


def test_whitened_rows_have_no_mean_and_the_identity_for_a_covariance() -> None:
    z = rows(400, 6) * torch.tensor([100, 10, 1, 1, 0.1, 0.01])
    white = pca_whitened(z, 4)
    assert white.shape == (400, 4)
    torch.testing.assert_close(white.T @ white / 400, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-8)
    assert float(white.mean(dim=0).abs().max()) < 1e-8
    kept = torch.linalg.svdvals(z - z.mean(dim=0))[:4]
    along = torch.linalg.lstsq(white, z - z.mean(dim=0)).solution.norm(dim=1) * math.sqrt(400)
    torch.testing.assert_close(along, kept, rtol=1e-8, atol=1e-8)


def test_a_direction_without_variance_is_left_out_of_whitened_rows() -> None:
    z = rows(50, 3)
    white = pca_whitened(torch.cat([z, z[:, :1]], dim=1), 9)
    assert white.shape == (50, 4)
    assert (white[:, 3] == 0).all()
    assert (pca_whitened(torch.ones(5, 2), 2) == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 7}, r"7 clusters of 6 rows: give from 1 to 6"),
        ({"clusters": 0}, r"0 clusters of 6 rows: give from 1 to 6"),
        ({"empty": "drop"}, r"empty is 'drop': choose one of keep, split"),
        ({"iterations": -1}, r"iterations is -1: give a whole number from 0 on"),
        ({"restarts": 0}, r"restarts is 0: give a whole number from 1 on"),
        ({"start": torch.zeros(3, 2)}, r"start has shape \(3, 2\): give 2 centroids of 2 features"),
        ({"z": torch.tensor([[1.0, float("nan")]] * 6)}, r"6 of 6 rows to cluster are not finite"),
        ({"z": torch.ones(6, 2, 2)}, r"a matrix of floats, got torch.float32 of shape \(6, 2, 2\)"),
    ],
)
def test_what_cannot_be_clustered_is_refused(options: dict[str, object], message: str) -> None:
    given = {"z": torch.ones(6, 2), "clusters": 2, "iterations": 1, "seed": 0} | options
    z, clusters = given.pop("z"), given.pop("clusters")
    with pytest.raises(ValueError, match=message):
        kmeans(z, clusters, **given)  # type: ignore[arg-type]


def test_no_direction_to_keep_is_refused() -> None:
    with pytest.raises(ValueError, match="width is 0: give the number of directions to keep"):
        pca_whitened(torch.ones(4, 2), 0)
