"""DeepCluster v2: its bank, its centroids and labels, and the loss between."""

from typing import Any

import pytest
import torch
from oracles import clusters as oracle
from oracles import kmeans as kmeans_loops
from oracles.gradients import loss_and_gradients, relative_error
from oracles.vectors import STATES, batch_in
from torch import Tensor

from barlow.kmeans import kmeans
from barlow.objectives._clusters import seed_of
from barlow.objectives.deepcluster_v2 import ClusterBank, DeepClusterV2

IMAGES, WIDTH = 30, 6


def unit(*rows: list[float]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float64), dim=1)


def built(images: int = IMAGES, width: int = WIDTH, **changes: Any) -> ClusterBank:
    return DeepClusterV2(**({"clusters": 5, "heads": 3} | changes)).build(width=width, images=images, seed=0).double()


class Images:
    """Embeddings of all images, which are counted as they are asked for."""

    def __init__(self, seed: int = 0, ids: Tensor | None = None) -> None:
        self.ids = torch.arange(IMAGES) if ids is None else ids
        self.z = batch_in("healthy", IMAGES, WIDTH, seed=seed)
        self.asked: list[tuple[int, bool, bool]] = []

    def __call__(self, member: int = 0, *, augmented: bool = False, training: bool = False) -> tuple[Tensor, Tensor]:
        self.asked.append((member, augmented, training))
        return self.ids, self.z[member][self.ids]


def test_published_cross_entropy_of_published_labels() -> None:
    e, c = unit([1, 0.1], [1, -0.2], [0.2, 1]), unit([1, 0], [0, 1], [-1, -1])
    module = built(images=3, width=2, clusters=3, heads=1, kept=1)
    with torch.no_grad():
        module.centroids[0] = kmeans(e, 3, iterations=1, seed=0, spherical=True, empty="keep", start=c).centroids
        module.labels[0] = torch.tensor([0, 0, 1])
    loss = module([(e, e)], ids=torch.arange(3))["clusters"]
    assert loss.item() == pytest.approx(0.000398782686628, rel=1e-10)


@pytest.mark.parametrize("state", STATES)
def test_value_and_gradients_equal_the_loops(state: str) -> None:
    module = built()
    module.before_epoch(Images())
    with torch.no_grad():
        module.labels[:, 3] = -1
    views = [*batch_in(state, 7, WIDTH), batch_in(state, 7, WIDTH, seed=1)[0]]
    ids = torch.tensor([3, 9, 0, 1, 20, 29, 4])
    centroids, labels = module.centroids.clone(), module.labels[:, ids].tolist()
    found = loss_and_gradients(lambda *z: module([z], ids=ids), *views)
    expected = loss_and_gradients(lambda *z: {"l": oracle.deepcluster_v2(list(z), centroids, labels)}, *views)
    assert found[0] == pytest.approx(expected[0], rel=1e-9)
    assert relative_error(found[1], expected[1]) < 1e-9


def test_the_first_bank_is_a_look_at_both_crops_in_training_and_the_next_epoch_needs_none() -> None:
    module, images = built(), Images()
    module.before_epoch(images)
    assert images.asked == [(0, True, True), (1, True, True)]
    module.before_epoch(images)
    assert len(images.asked) == 2
    for view in range(2):
        torch.testing.assert_close(module.bank[view], torch.nn.functional.normalize(images.z[view], dim=1))


def test_every_head_clusters_the_crop_whose_turn_it_is_and_labels_are_the_nearest_centroids() -> None:
    module, images = built(), Images()
    module.before_epoch(images)
    assert not module.labels[0].equal(module.labels[2]), "two heads of one crop have other first centroids"
    for head in range(3):
        rows = images.z[head % 2].tolist()
        assert module.labels[head].tolist() == kmeans_loops.assigned(rows, module.centroids[head].tolist(), True)
    torch.testing.assert_close(module.centroids.norm(dim=2), torch.ones(3, 5, dtype=torch.float64))


def test_an_epochs_embeddings_are_clustered_before_the_next_and_of_images_left_out_those_of_before() -> None:
    module, images = built(), Images()
    module.before_epoch(images)
    later = Images(seed=5)
    ids = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0))[:24]  # the short batch is dropped
    for part in ids.split(8):
        module([(later.z[0][part], later.z[1][part])], ids=part)
    module.before_epoch(images)
    rows = images.z[1].clone()
    rows[ids] = later.z[1][ids]
    expected = kmeans(rows, 5, iterations=10, seed=seed_of(0, 2, 1), spherical=True, empty="keep")
    assert module.labels[1].equal(expected.labels)
    torch.testing.assert_close(module.centroids[1], expected.centroids)


def test_a_batch_is_compared_with_the_clusters_of_its_epoch_whatever_it_writes_into_the_bank() -> None:
    module = built()
    module.before_epoch(Images())
    views, ids = batch_in("healthy", 7, WIDTH, seed=3), torch.arange(7)
    first = module([views], ids=ids)["clusters"]
    assert module([views], ids=ids)["clusters"].equal(first)


def test_of_an_image_that_stands_in_for_another_the_bank_keeps_the_first_row() -> None:
    module = built()
    a, b = batch_in("healthy", 4, WIDTH)
    module([(a, b)], ids=torch.tensor([7, 2, 7, 3]))
    torch.testing.assert_close(module.bank[0, 7], torch.nn.functional.normalize(a, dim=1)[0])
    torch.testing.assert_close(module.bank[1, [2, 3]], torch.nn.functional.normalize(b, dim=1)[[1, 3]])
    assert module.seen.nonzero()[:, 0].tolist() == [2, 3, 7]


def test_images_without_a_label_are_left_out_and_a_batch_of_nothing_else_moves_nothing() -> None:
    module = built()
    module.before_epoch(Images(ids=torch.arange(20)))
    assert (module.labels[:, 20:] == -1).all()
    assert (module.labels[:, :20] >= 0).all()
    a, b = batch_in("healthy", 4, WIDTH)
    ids = torch.tensor([3, 25, 4, 26])
    with_them = loss_and_gradients(lambda *z: module([z], ids=ids), a, b)
    without = loss_and_gradients(lambda *z: module([z], ids=ids[::2]), a[::2], b[::2])
    assert with_them[0] == pytest.approx(without[0], rel=1e-12)
    assert (with_them[1][0][1::2] == 0).all()
    value, gradients = loss_and_gradients(lambda *z: module([z], ids=torch.arange(24, 28)), a, b)
    assert value == 0
    assert all((g == 0).all() for g in gradients), "and no NaN"


def test_a_crop_that_is_not_kept_learns_all_the_same() -> None:
    module = built()
    module.before_epoch(Images())
    views = [*batch_in("healthy", 6, WIDTH), batch_in("healthy", 6, WIDTH, seed=1)[0]]
    _, gradients = loss_and_gradients(lambda *z: module([z], ids=torch.arange(6)), *views)
    assert float(gradients[2].norm()) > 0


@pytest.mark.parametrize("scale", [1e-3, 50.0])
def test_lengths_do_not_count(scale: float) -> None:
    module = built()
    a, b = batch_in("healthy", 6, WIDTH)
    ids = torch.arange(6)
    assert module([(scale * a, b)], ids=ids)["clusters"].item() == pytest.approx(
        module([(a, b)], ids=ids)["clusters"].item(), rel=1e-12
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clusters": 1}, r"clusters is 1: give a whole number from 2 to"),
        ({"heads": 0}, r"heads is 0: give a whole number from 1 to"),
        ({"iterations": 0}, r"iterations is 0"),
        ({"kept": 0}, r"kept is 0"),
        ({"temperature": 0.0}, r"temperature is 0.0: give a finite number above 0"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepClusterV2(**changes)


def test_more_clusters_than_images_are_refused_with_the_number_that_fits() -> None:
    with pytest.raises(ValueError, match=r"clusters is 3,000, and there are 96 images: give at most 96"):
        DeepClusterV2().build(width=4, images=96, seed=0)
    with pytest.raises(ValueError, match=r"clusters is 5, and there are 4 images: give at most 4"):
        built().before_epoch(Images(ids=torch.arange(4)))


def test_what_it_cannot_use_is_refused() -> None:
    a, b = batch_in("healthy", 4, WIDTH)
    ids = torch.arange(4)
    with pytest.raises(ValueError, match=r"2 groups: DeepCluster v2 takes all views of a step"):
        built()([(a, b), (a, b)], ids=ids)
    with pytest.raises(ValueError, match=r"embeddings of 3 features, and state built for 6"):
        built()([(a[:, :3], b[:, :3])], ids=ids)
    with pytest.raises(ValueError, match=r"2 views, and kept is 3"):
        built(kept=3)([(a, b)], ids=ids)
    with pytest.raises(ValueError, match=r"ids is torch.int64 of shape \(3,\)"):
        built()([(a, b)], ids=ids[:3])
