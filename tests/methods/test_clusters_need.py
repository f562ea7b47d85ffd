"""DeepCluster and SeLa need what keeps their clusters apart: without it all images come to lie in one cluster."""

import torch
from oracles.vectors import batch_in
from torch import Tensor

from barlow.objectives._equal_masses import labels_of_equal_masses
from barlow.objectives.deepcluster_v1 import DeepClusterV1, TopLayer
from barlow.objectives.deepcluster_v2 import DeepClusterV2

IMAGES, WIDTH, CLUSTERS = 60, 6, 5


def nearly_alike() -> Tensor:
    """Embeddings of a network that has begun to collapse."""
    return batch_in("nearly one point", IMAGES, WIDTH)[0]


def test_sela_needs_equal_masses_or_all_images_are_most_likely_in_one_cluster() -> None:
    weight = torch.randn(WIDTH, CLUSTERS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logs = (nearly_alike() @ weight).log_softmax(dim=1)
    assert logs.argmax(dim=1).bincount(minlength=CLUSTERS).max() == IMAGES
    sizes = labels_of_equal_masses(25 * logs, tolerance=0.1).bincount(minlength=CLUSTERS)
    assert sizes.min() >= 5


def test_deepcluster_needs_to_be_whitened_or_the_offset_of_all_images_is_all_that_k_means_sees() -> None:
    """Rows of length 1 that all point the same way differ by less than float32 has digits for."""
    z = (1e4 + batch_in("healthy", IMAGES, WIDTH)[0]).float()
    module = DeepClusterV1(clusters=CLUSTERS, whitened=4).build(width=WIDTH, images=IMAGES, seed=0)
    module.before_epoch(lambda *_, **__: (torch.arange(IMAGES), z))
    assert module.sizes.min() >= 2
    assert module.sizes.max() <= IMAGES / 2


def gradient_of(module: TopLayer, labels: Tensor) -> Tensor:
    """How the biases of the clusters are pushed by all images."""
    with torch.no_grad():
        module.labels.copy_(labels)
        module.sizes.copy_(labels.bincount(minlength=CLUSTERS))
        module.weight.zero_()
    z = batch_in("healthy", IMAGES, WIDTH)[0].float()
    return torch.autograd.grad(module([(z,)], ids=torch.arange(IMAGES))["clusters"], module.bias)[0]


def test_deepcluster_needs_its_balance_or_the_classifier_learns_that_one_cluster_is_large() -> None:
    labels = torch.tensor([0] * (IMAGES - 8) + [1, 1, 2, 2, 3, 3, 4, 4])
    balanced, plain = (
        gradient_of(DeepClusterV1(clusters=CLUSTERS, balance=b).build(width=WIDTH, images=IMAGES, seed=0), labels)
        for b in (1.0, 0.0)
    )
    assert float(balanced.abs().max()) < 1e-6, "every cluster is as likely as any"
    assert float(plain[0]) < -0.5, "the large one becomes likelier, whatever the image"


def test_deepcluster_v2_needs_a_first_bank_or_its_first_epoch_has_no_labels() -> None:
    module = DeepClusterV2(clusters=CLUSTERS, heads=1).build(width=WIDTH, images=IMAGES, seed=0)
    a, b = batch_in("healthy", IMAGES, WIDTH)
    module.before_epoch(lambda member, **_: (torch.arange(IMAGES), (a, b)[member].float()))
    assert (module.labels >= 0).all()
    loss = module([(a, b)], ids=torch.arange(IMAGES))["clusters"]
    assert bool(loss.isfinite())
    assert loss.item() > 0
