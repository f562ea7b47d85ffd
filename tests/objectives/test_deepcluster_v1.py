"""DeepCluster: its labels, the weights of its clusters, and the top layer that starts anew."""

import math
from typing import Any

import pytest
import torch
from oracles import clusters as oracle
from oracles.gradients import loss_and_gradients, relative_error
from oracles.vectors import STATES, batch_in
from torch import Tensor

from barlow.kmeans import kmeans, pca_whitened
from barlow.objectives._clusters import seed_of
from barlow.objectives.deepcluster_v1 import DeepClusterV1, TopLayer

IMAGES, WIDTH = 40, 6


def built(**changes: Any) -> TopLayer:
    section = DeepClusterV1(**({"clusters": 5, "whitened": 4} | changes))
    return section.build(width=WIDTH, images=IMAGES, seed=0).double()


def images(seed: int = 0, count: int = IMAGES) -> Any:
    z = batch_in("healthy", IMAGES, WIDTH, seed=seed)[0][:count]
    return lambda *_, **__: (torch.arange(count), z)


def with_weights(module: TopLayer, size: float = 3.0) -> TopLayer:
    """With logits that are not nearly 0."""
    with torch.no_grad():
        module.weight.copy_(size * torch.randn(module.weight.shape, generator=torch.Generator().manual_seed(1)))
        module.bias.copy_(torch.arange(len(module.bias)) / 3)
    return module


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_value_and_gradients_equal_the_loops(state: str, balance: float) -> None:
    module = built(balance=balance)
    module.before_epoch(images())
    with_weights(module, 0.05)
    ids = torch.tensor([3, 39, 0, 1, 20, 29, 4])
    with torch.no_grad():
        module.labels[20] = -1
    views = batch_in(state, 7, WIDTH)
    labels, sizes = module.labels[ids].tolist(), module.sizes.tolist()
    parameters = [module.weight.detach().clone(), module.bias.detach().clone()]

    def ours(a: Tensor, b: Tensor, w: Tensor, bias: Tensor) -> dict[str, Tensor]:
        called = torch.func.functional_call(module, {"weight": w, "bias": bias}, ([(a,), (b,)],), {"ids": ids})
        return called

    found = loss_and_gradients(ours, *views, *parameters)
    expected = loss_and_gradients(
        lambda a, b, w, bias: {"l": oracle.deepcluster_v1([a, b], w, bias, labels, sizes, balance)}, *views, *parameters
    )
    assert found[0] == pytest.approx(expected[0], rel=1e-9)
    for one, other in zip(found[1], expected[1], strict=True):
        assert relative_error([one], [other]) < 1e-9


def test_labels_are_clusters_of_whitened_directions_drawn_anew_each_epoch() -> None:
    module = built()
    for epoch in (1, 2):
        module.before_epoch(images())
        _, z = images()()
        white = torch.nn.functional.normalize(pca_whitened(z, 4), dim=1)
        expected = kmeans(white, 5, iterations=20, seed=seed_of(0, epoch, 1))
        assert module.labels.equal(expected.labels)
        assert module.sizes.equal(expected.sizes)


def test_the_top_layer_starts_anew_each_epoch_small_and_without_biases_and_says_so() -> None:
    module = with_weights(built())
    first = module.before_epoch(images())
    assert [p is q for p, q in zip(first, [module.weight, module.bias], strict=True)] == [True, True]
    one = module.weight.detach().clone()
    assert (module.bias == 0).all()
    with_weights(module)
    module.before_epoch(images())
    assert not module.weight.equal(one)
    large = DeepClusterV1(clusters=400).build(width=100, images=400, seed=0).weight.detach()
    assert float(large.std()) == pytest.approx(0.01, rel=0.02)
    assert float(large.mean()) == pytest.approx(0, abs=2e-4)


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_the_mean_weight_of_all_images_is_one_and_balanced_clusters_count_alike(balance: float) -> None:
    module = built(balance=balance)
    module.before_epoch(images())
    with torch.no_grad():
        module.labels.copy_(torch.tensor([0] * 20 + [1] * 15 + [2] * 5))
        module.sizes.copy_(torch.tensor([20, 15, 5, 0, 0]))
        module.weight.zero_()
    z = batch_in("healthy", IMAGES, WIDTH)[0]
    assert module([(z,)], ids=torch.arange(IMAGES))["clusters"].item() == pytest.approx(math.log(5), rel=1e-12)
    whole = [float(module._weights()[c] * module.sizes[c]) for c in range(3)]
    if balance == 1:
        assert whole == pytest.approx([40 / 3] * 3)
    else:
        assert whole[1] / whole[2] == pytest.approx(math.sqrt(15 / 5))
    assert (module._weights()[3:] == 0).all()


def test_it_is_in_expectation_what_drawing_images_uniformly_over_clusters_gives() -> None:
    """The gradient of all images, weighed, and the mean over clusters of the mean over their images."""
    module = built()
    module.before_epoch(images())
    with_weights(module, 0.3)
    z, ids = batch_in("healthy", IMAGES, WIDTH, seed=4)[0], torch.arange(IMAGES)
    (weighed,) = torch.autograd.grad(module([(z,)], ids=ids)["clusters"], module.weight)
    logits = z.relu() @ module.weight.T + module.bias
    each = torch.nn.functional.cross_entropy(logits, module.labels, reduction="none")
    filled = [c for c in range(5) if int(module.sizes[c])]
    drawn = torch.stack([each[module.labels == c].mean() for c in filled]).mean()
    torch.testing.assert_close(weighed, torch.autograd.grad(drawn, module.weight)[0], rtol=1e-10, atol=1e-14)


def test_images_that_could_not_be_read_have_no_label_and_are_left_out() -> None:
    module = built()
    module.before_epoch(images(count=30))
    assert (module.labels[30:] == -1).all()
    z = batch_in("healthy", 4, WIDTH)[0]
    both = module([(z[:3],)], ids=torch.tensor([1, 2, 35]))["clusters"]
    assert both.item() == pytest.approx(module([(z[:2],)], ids=torch.arange(1, 3))["clusters"].item(), rel=1e-12)
    assert module([(z,)], ids=torch.arange(32, 36))["clusters"].item() == 0


def test_only_what_the_last_relu_leaves_counts() -> None:
    module = with_weights(built())
    z, ids = batch_in("healthy", 6, WIDTH)[0], torch.arange(6)
    assert module([(z,)], ids=ids)["clusters"].equal(module([(z.clamp_min(0),)], ids=ids)["clusters"])


def test_labels_have_nothing_to_do_with_the_labels_of_the_last_epoch_so_that_losses_start_at_the_same_height() -> None:
    module = with_weights(built())
    module.before_epoch(images())
    z = batch_in("healthy", IMAGES, WIDTH)[0]
    assert module([(z,)], ids=torch.arange(IMAGES))["clusters"].item() == pytest.approx(math.log(5), rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clusters": 1}, r"clusters is 1: give a whole number from 2 to"),
        ({"whitened": 0}, r"whitened is 0"),
        ({"iterations": 0}, r"iterations is 0"),
        ({"balance": -1.0}, r"balance is -1.0: give a finite number of 0 or more"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepClusterV1(**changes)


def test_more_clusters_than_images_are_refused_with_the_number_that_fits() -> None:
    with pytest.raises(ValueError, match=r"clusters is 10,000, and there are 96 images: give at most 96"):
        DeepClusterV1().build(width=4, images=96, seed=0)
    with pytest.raises(ValueError, match=r"clusters is 5, and there are 3 images: give at most 3"):
        built().before_epoch(images(count=3))


def test_what_it_cannot_use_is_refused() -> None:
    z = batch_in("healthy", 4, WIDTH)[0]
    with pytest.raises(ValueError, match=r"embeddings of 3 features, and state built for 6"):
        built()([(z[:, :3],)], ids=torch.arange(4))
    with pytest.raises(ValueError, match=r"ids is torch.int64 of shape \(3,\)"):
        built()([(z,)], ids=torch.arange(3))
