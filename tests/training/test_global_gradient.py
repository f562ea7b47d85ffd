"""The weight of the loss, how often the processes exchange gradients, and state that a chunk changes and reads."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, distributed, nn

from barlow.distributed import World
from barlow.methods._networks import Method
from barlow.objectives.vicreg import VICReg
from barlow.training.global_gradient import backward, chunks, distinct
from barlow.types import Outputs, Rows

ROWS = 9
SINGLE = World(torch.device("cpu"))


def rows() -> Rows:
    views = torch.randn(2, ROWS, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Rows(list(views), {"ids": torch.arange(ROWS)})


class Plain(Method):
    """Two layers for every view."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.projector = nn.Linear(5, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 3))

    def forward(self, rows: Rows) -> Outputs:
        features = [self.encoder(view) for view in rows.views]
        return Outputs(features, [tuple(self.projector(f) for f in features)])


def method() -> Method:
    return Plain().double()


def gradient_and_terms(
    network: nn.Module, rows_in_memory: int | None, **options: float
) -> tuple[list[Tensor], dict[str, float]]:
    _, terms = backward(
        network,
        lambda groups: VICReg()(*groups[0]),
        rows(),
        world=SINGLE,
        precision="float32",
        draws=lambda chunk: nullcontext(),
        rows_in_memory=rows_in_memory,
        **options,
    )
    return [p.grad for p in network.parameters() if p.grad is not None], {k: v.item() for k, v in terms.items()}


@pytest.mark.parametrize("rows_in_memory", [None, 4])
def test_the_weight_of_the_loss_is_a_factor_of_the_gradient_and_not_of_the_terms(rows_in_memory: int | None) -> None:
    whole, terms = gradient_and_terms(method(), rows_in_memory)
    part, same_terms = gradient_and_terms(method(), rows_in_memory, loss_weight=0.125)
    assert part != []
    assert all(g.equal(0.125 * w) for g, w in zip(part, whole, strict=True)), "a power of 2 rounds nothing"
    assert same_terms == terms


@pytest.fixture
def group_of_one() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("rows_in_memory", [None, 4, 2])
@pytest.mark.usefixtures("group_of_one")
def test_gradients_are_exchanged_once_a_step_however_many_chunks_there_are(rows_in_memory: int | None) -> None:
    """As the mean of means is the mean, an exchange after every chunk costs time and would not be noticed."""
    network = nn.parallel.DistributedDataParallel(method())
    exchanged: list[Tensor] = []

    def exchange(state: None, bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:
        exchanged.append(bucket.buffer().clone())
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    network.register_comm_hook(None, exchange)
    found, _ = gradient_and_terms(network, rows_in_memory)
    alone, _ = gradient_and_terms(method(), rows_in_memory)
    assert len(exchanged) == 1
    assert exchanged[0].numel() == sum(g.numel() for g in alone)
    assert all(torch.allclose(g, a, rtol=1e-12, atol=0) for g, a in zip(found, alone, strict=True))


class Counting(nn.Module):
    """A method whose embeddings are multiplied by how many rows it has seen: state that a gradient depends on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(5, 3).double()
        self.register_buffer("seen", torch.ones((), dtype=torch.float64))
        self.seen: Tensor

    def forward(self, rows: Rows) -> Outputs:
        embeddings = tuple(self.layer(view) * self.seen.clone() for view in rows.views)
        self.seen += len(rows)
        return Outputs(rows.views, [embeddings])


def test_a_chunk_that_is_run_again_finds_the_state_that_it_found_first() -> None:
    straight, chunked = Counting(), Counting()
    made = [straight(rows()[part]).groups[0] for part in chunks(ROWS, 4)]
    z = [torch.cat(parts) for parts in zip(*made, strict=True)]
    sum(VICReg()(*z).values()).backward()
    gradients, _ = gradient_and_terms(chunked, 4)
    assert float(chunked.seen) == float(straight.seen) == 1 + ROWS
    for found, p in zip(gradients, straight.parameters(), strict=True):
        torch.testing.assert_close(found, p.grad, rtol=1e-12, atol=1e-13)


def test_a_tensor_of_two_groups_is_taken_once() -> None:
    a, b, c = (torch.zeros(2, 3) for _ in range(3))
    tensors, places = distinct([(a, b), (a, c), (c, b)])
    assert [id(z) for z in tensors] == [id(a), id(b), id(c)]
    assert places == [(0, 1), (0, 2), (2, 1)]
