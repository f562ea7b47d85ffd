"""PCL: published values, loops, what a clustering leaves, which negatives are drawn, and what is refused."""

import math

import pytest
import torch
from oracles import pcl as oracle
from oracles.gradients import relative_error
from oracles.vectors import STATES, batch_in

from barlow.kmeans import kmeans
from barlow.objectives._draws import drawn
from barlow.objectives._prototypes import Prototypes, concentrations
from barlow.objectives.moco import MoCo
from barlow.objectives.pcl import PCL, Prototypical


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


SQUARED = [[0.04, 0.09, 0.16], [0.25, 0.01], [0.36], [0.0025, 0.0049, 0.0064, 0.0081]]
PHI = [0.226703433141, 0.234005903288, 0.234005903288, 0.105284760283]
CENTROIDS = torch.nn.functional.normalize(rows([1, 0], [0, 1], [-1, 0], [1, 1]), dim=1)
LOST = [2.40128597994, 2.52831607256]

N, D, IMAGES = 4, 6, 40


def built(**options: object) -> Prototypical:
    options = {"queue": 16, "clusters": (8, 12), "negatives": 3, "warmup": 0.0, "restarts": 2} | options
    return PCL(**options).build(width=D, images=IMAGES, seed=3).double()


def embeddings(state: str = "healthy") -> torch.Tensor:
    return batch_in(state, IMAGES, D, seed=9)[0]


def clustered(module: Prototypical, z: torch.Tensor | None = None, progress: float = 0.5) -> Prototypical:
    z = embeddings() if z is None else z
    module.before_epoch(lambda member: (torch.arange(len(z)), z), progress=progress)
    return module


def step_of(state: str = "healthy", groups: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    views, keys = batch_in(state, N, D), batch_in(state, N, D, seed=1)
    return [(views[0], keys[1]), (views[1], keys[0])][:groups]


IDS = torch.tensor([31, 4, 17, 5])


def negatives_of(module: Prototypical, step: int, ids: torch.Tensor = IDS) -> list[list[int]]:
    """Which negatives a step draws of each clustering, read off the gradient of the prototypes' scores."""
    found = []
    for number, clustering in enumerate(module.clusterings):
        bits = _bits(module, step, number)
        own = set(clustering.cluster[ids].tolist()) - {-1}
        free = sorted((int(b), c) for c, b in enumerate(bits) if c not in own)
        found.append(sorted(c for _, c in free[: module.section.negatives]))
    return found


def _bits(module: Prototypical, step: int, number: int) -> torch.Tensor:
    clusters = torch.arange(len(module.clusterings[number].prototype))
    return drawn(module.seed, "negatives among clusters", torch.tensor(step), clusters, part=number)


def test_published_concentrations() -> None:
    labels = torch.tensor([c for c, squared in enumerate(SQUARED) for _ in squared])
    squared = torch.tensor([d for one in SQUARED for d in one], dtype=torch.float64)
    found = concentrations(squared, labels, 4, 0.2)
    assert found.tolist() == pytest.approx(PHI, abs=1e-12)
    assert oracle.concentrations(SQUARED, 0.2) == pytest.approx(PHI, abs=1e-12)
    assert float(found.mean()) == pytest.approx(0.2, abs=1e-15)


def test_published_loss_of_two_queries() -> None:
    module = Prototypes(4, 2, 2).double()
    module.prototype.copy_(CENTROIDS)
    module.concentration.copy_(torch.tensor(PHI, dtype=torch.float64))
    module.cluster.copy_(torch.tensor([0, 1]))
    q = torch.eye(2, dtype=torch.float64)
    found = module.loss(q, torch.arange(2), torch.arange(4), 2)
    assert found.item() == pytest.approx(sum(LOST) / 2, abs=1e-10)
    each = oracle.prototypes(q, [0, 1], [2, 3], CENTROIDS, PHI)
    assert [float(one) for one in each] == pytest.approx(LOST, abs=1e-10)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("state", STATES)
def test_value_and_gradient_equal_the_loops_and_the_contrast_is_mocos(state: str, groups: int) -> None:
    module = clustered(built(), embeddings(state))
    moco = MoCo(queue=16, temperature=0.2).build(width=D, seed=3).double()
    leaves, others = ([q.clone().requires_grad_() for q, _ in step_of(state, groups)] for _ in range(2))
    keys = [k for _, k in step_of(state, groups)]
    found = module(list(zip(leaves, keys, strict=True)), ids=IDS)
    assert found["contrast"].equal(moco(list(zip(leaves, keys, strict=True)))["contrast"])
    expected = torch.zeros((), dtype=torch.float64)
    for q in others:
        for clustering, negatives in zip(module.clusterings, negatives_of(module, 0), strict=True):
            lost = oracle.prototypes(
                q,
                clustering.cluster[IDS].tolist(),
                negatives,
                clustering.prototype,
                clustering.concentration.tolist(),
            )
            expected = expected + sum(lost) / len(lost) / 2
    assert found["prototypes"].item() == pytest.approx(expected.item(), rel=1e-9)
    ours = torch.autograd.grad(found["prototypes"], leaves)
    assert relative_error(list(ours), list(torch.autograd.grad(expected, others))) < 1e-9


def test_in_float32_the_value_and_the_gradient_are_those_of_float64() -> None:
    found = []
    for kind in (torch.float32, torch.float64):
        module = built().to(kind)
        clustered(module, embeddings().float())
        q, k = (z.to(kind) for z in step_of()[0])
        term = module([(q.requires_grad_(), k)], ids=IDS)["prototypes"]
        assert term.dtype == kind
        found.append((term.item(), torch.autograd.grad(term, q)[0].double()))
    (value, gradient), (expected, reference) = found
    assert value == pytest.approx(expected, rel=1e-5)
    assert relative_error([gradient], [reference]) < 1e-5


def test_a_clustering_leaves_directions_of_centroids_their_concentrations_and_each_images_cluster() -> None:
    module = clustered(built())
    z = torch.nn.functional.normalize(embeddings(), dim=1)
    for number, clustering in enumerate(module.clusterings):
        k = len(clustering.prototype)
        found = kmeans(z, k, iterations=20, seed=3 + number, restarts=2)
        assert torch.allclose(clustering.prototype, torch.nn.functional.normalize(found.centroids, dim=1), atol=1e-12)
        assert clustering.cluster.equal(found.labels)
        groups = [found.distances[found.labels == c].tolist() for c in range(k)]
        assert clustering.concentration.tolist() == pytest.approx(oracle.concentrations(groups, 0.2), rel=1e-6)


def test_the_slow_networks_embeddings_are_clustered_and_their_lengths_do_not_matter() -> None:
    asked = []
    module = built()

    def embed(member: int) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(member)
        return torch.arange(IMAGES), embeddings() * torch.linspace(0.1, 9, IMAGES, dtype=torch.float64)[:, None]

    module.before_epoch(embed, progress=1.0)
    assert asked == [1]
    assert module.clusterings[0].cluster.equal(clustered(built()).clusterings[0].cluster)


def test_before_the_warm_up_is_over_nothing_is_clustered_and_the_loss_is_mocos() -> None:
    module = built(warmup=0.1)
    module.before_epoch(lambda member: pytest.fail("nobody needs embeddings"), progress=0.0999)
    assert set(module(step_of(), ids=IDS)) == {"contrast"}
    clustered(module, progress=0.1)
    assert set(module(step_of(), ids=IDS)) == {"contrast", "prototypes"}


def test_negatives_are_clusters_of_no_image_of_the_batch_drawn_anew_in_each_step_and_for_each_clustering() -> None:
    module = clustered(built(clusters=(20, 20), negatives=3))
    drawn = [negatives_of(module, step) for step in range(60)]
    own = [set(clustering.cluster[IDS].tolist()) for clustering in module.clusterings]
    for of_step in drawn:
        assert all(not set(negatives) & taken for negatives, taken in zip(of_step, own, strict=True))
    assert all(
        set(range(20)) - taken == {c for of_step in drawn for c in of_step[number]} for number, taken in enumerate(own)
    )
    assert sum(a == b for a, b in drawn) < 6


def test_another_step_has_other_negatives_and_the_same_from_the_same_state() -> None:
    module = clustered(built(clusters=(20,), negatives=3))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    first = module(step_of(), ids=IDS)["prototypes"]
    second = module(step_of(), ids=IDS)["prototypes"]
    assert not first.equal(second)
    resumed = PCL(queue=16, clusters=(20,), negatives=3).build(width=D, images=IMAGES, seed=99).double()
    resumed.load_state_dict(before)
    assert resumed(step_of(), ids=IDS)["prototypes"].equal(first)
    assert int(module.steps) == 2


def test_images_of_one_cluster_are_each_others_negatives() -> None:
    module = Prototypes(4, 2, 2).double()
    module.prototype.copy_(CENTROIDS)
    module.concentration.fill_(1.0)
    module.cluster.copy_(torch.tensor([0, 0]))
    q = torch.eye(2, dtype=torch.float64)[[0, 0]]
    found = module.loss(q, torch.arange(2), torch.tensor([9, 9, 9, 1]), 1)
    s = CENTROIDS[3] @ q[0]
    assert found.item() == pytest.approx(-math.log(math.e / (2 * math.e + math.exp(s))), rel=1e-12)


def test_images_without_a_cluster_have_no_part_and_get_no_gradient() -> None:
    module = built(clusters=(8,), negatives=2)
    z = embeddings()
    module.before_epoch(lambda member: (torch.arange(IMAGES - 10), z[: IMAGES - 10]), progress=1.0)
    q = step_of()[0][0].requires_grad_()
    clustering = module.clusterings[0]
    assert clustering.cluster[31] == -1
    term = module([(q, step_of()[0][1])], ids=IDS)["prototypes"]
    (gradient,) = torch.autograd.grad(term, q)
    lost = oracle.prototypes(
        q,
        clustering.cluster[IDS].tolist(),
        negatives_of(module, 0)[0],
        clustering.prototype,
        clustering.concentration.tolist(),
    )
    assert len(lost) == 3
    assert term.item() == pytest.approx((sum(lost) / 3).item(), rel=1e-10)
    assert float(gradient[0].norm()) == 0
    assert float(gradient[1].norm()) > 0
    nobody = module([(q, step_of()[0][1])], ids=torch.arange(IMAGES - 4, IMAGES))["prototypes"]
    assert nobody.item() == 0


def test_embeddings_that_are_all_one_have_one_temperature() -> None:
    squared, labels = torch.zeros(6), torch.tensor([0, 0, 1, 1, 2, 2])
    assert concentrations(squared, labels, 3, 0.2).tolist() == pytest.approx([0.2] * 3)
    assert concentrations(torch.ones(3), torch.arange(3), 3, 0.2).tolist() == pytest.approx([0.2] * 3)


def test_keys_are_constants_and_clusters_are_no_parameters() -> None:
    module = clustered(built())
    q, k = (z.clone().requires_grad_() for z in step_of()[0])
    term = module([(q, k)], ids=IDS)["prototypes"]
    assert torch.autograd.grad(term, k, allow_unused=True)[0] is None
    assert list(module.parameters()) == []
    buffers = {name.split(".")[-1] for name, _ in module.named_buffers()}
    assert buffers == {"queue", "oldest", "prototype", "concentration", "cluster", "clustered", "seed", "steps"}


def test_too_many_clusters_and_too_many_negatives_are_refused_with_numbers_that_fit() -> None:
    with pytest.raises(ValueError, match=r"there are 40 images: .* for example \[2, 2, 3\]"):
        built(clusters=(8, 41)).check_sizes(N, [(D, D)])
    with pytest.raises(ValueError, match=r"8 clusters less those of a batch of 4 are 4: give negatives of at most 4"):
        built(negatives=5).check_sizes(N, [(D, D)])
    with pytest.raises(ValueError, match=r"a batch of 8 are 0: give more than 8 clusters"):
        built().check_sizes(8, [(D, D)])
    with pytest.raises(ValueError, match=r"negatives is 5"):
        clustered(built(negatives=5))(step_of(), ids=IDS)
    with pytest.raises(ValueError, match=r"step of 6 keys"):
        built(clusters=(20,)).check_sizes(6, [(D, D)])
    built().check_sizes(N, [(D, D)])


@pytest.mark.parametrize(
    "bad",
    [
        {"queue": 0},
        {"temperature": 0.0},
        {"clusters": ()},
        {"clusters": (1,), "negatives": 1},
        {"negatives": 0},
        {"negatives": 25000},
        {"warmup": 1.1},
        {"iterations": 0},
        {"restarts": 0},
    ],
)
def test_hyper_parameters_out_of_range_are_refused_by_name(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        PCL(**bad)
