"""A global batch in the memory of a few rows: the same gradient in chunks, and the same with activations made again."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import worlds
from nightly_log import record
from torch import Tensor, nn

from barlow.distributed import World
from barlow.methods._networks import Method
from barlow.nets.building import build_encoder
from barlow.nets.norms import statistics_kept
from barlow.nets.recompute import recomputed
from barlow.nets.seeding import seeded
from barlow.training.global_gradient import backward, chunks
from barlow.types import Outputs, Rows

SINGLE = World(torch.device("cpu"))


def worst(ours: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    return max(worlds.differences(ours, reference).values())


@pytest.mark.parametrize("kind", worlds.OBJECTIVES)
@pytest.mark.parametrize("rows_in_memory", [2, 5, 23])
def test_chunks_have_the_gradient_of_the_whole_batch(kind: str, rows_in_memory: int) -> None:
    whole = worlds.gradient(SINGLE, kind, batch_norm=False)
    chunked = worlds.gradient(SINGLE, kind, batch_norm=False, rows_in_memory=rows_in_memory)
    error = worst(chunked, whole)
    record(kind="chunks", name=kind, rows_in_memory=rows_in_memory, rows=worlds.ROWS, error=error, allowed=1e-10)
    assert error < 1e-10


def test_a_chunk_as_large_as_the_batch_is_the_ordinary_pass() -> None:
    whole = worlds.gradient(SINGLE, "vicreg", batch_norm=True)
    assert worst(worlds.gradient(SINGLE, "vicreg", batch_norm=True, rows_in_memory=worlds.ROWS), whole) == 0


def test_batch_norm_per_chunk_is_what_its_name_says() -> None:
    """The gradient is that of a network which normalises each chunk by itself, under the exact objective."""
    method = worlds.network(batch_norm=True)
    rows = Rows(worlds.batch(2), {"ids": torch.arange(worlds.ROWS)})
    made = [method(rows[part]).groups[0] for part in chunks(worlds.ROWS, 8)]
    z = [torch.cat(parts) for parts in zip(*made, strict=True)]
    sum(worlds.OBJECTIVES["barlow_twins"]()(*z).values()).backward()
    expected = {f"gradient of {name}": p.grad for name, p in method.named_parameters()}
    found = worlds.gradient(SINGLE, "barlow_twins", batch_norm=True, rows_in_memory=8)
    gradients = {name: value for name, value in found.items() if name in expected}
    assert worst(gradients, expected) < 1e-7, "batch norm's own division amplifies rounding"
    buffers = {f"buffer {name}": buffer for name, buffer in method.named_buffers()}
    assert worst({name: found[name] for name in buffers}, buffers) < 1e-12, "every row counted once, in chunks"


def test_chunks_are_few_and_alike() -> None:
    for rows in range(2, 40):
        for most in range(2, 40):
            sizes = [part.stop - part.start for part in chunks(rows, most)]
            assert sum(sizes) == rows
            assert max(sizes) <= most
            assert max(sizes) - min(sizes) <= 1
            assert len(sizes) == -(-rows // most)


class Dropping(Method):
    """A method with dropout, and a second network that the gradient does not reach."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.online = nn.Linear(5, 4).double()
        self.target = nn.Linear(5, 4).double().requires_grad_(False)

    def forward(self, rows: Rows) -> Outputs:
        f = [nn.functional.dropout(view.flatten(1)[:, :5], 0.5) for view in rows.views]
        return Outputs(f, [(self.online(f[0]), self.target(f[1]))])


def test_the_second_pass_of_a_chunk_draws_what_the_first_one_drew() -> None:
    rows = Rows(worlds.batch(2), {"ids": torch.arange(worlds.ROWS)})
    objective = worlds.OBJECTIVES["vicreg"]()

    @contextmanager
    def draws(chunk: int) -> Iterator[None]:
        with seeded(0, f"chunk {chunk}"):
            yield

    straight = Dropping()
    made = []
    for number, part in enumerate(chunks(worlds.ROWS, 7)):
        with draws(number):
            made.append(straight(rows[part]).groups[0])
    z = [torch.cat(parts) for parts in zip(*made, strict=True)]
    sum(objective(*z).values()).backward()
    chunked = Dropping()
    outputs, _ = backward(
        chunked,
        lambda groups: objective(*groups[0]),
        rows,
        world=SINGLE,
        precision="float32",
        draws=draws,
        rows_in_memory=7,
    )
    assert all(a.equal(b) for a, b in zip(outputs.groups[0], [v.detach() for v in z], strict=True))
    assert torch.allclose(chunked.online.weight.grad, straight.online.weight.grad, rtol=1e-12, atol=0)
    assert chunked.target.weight.grad is None


def test_the_objective_is_called_once_a_step_with_the_global_batch() -> None:
    calls = []

    def objective(groups: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
        calls.append([[z.shape for z in group] for group in groups])
        return worlds.OBJECTIVES["barlow_twins"]()(*groups[0])

    method = worlds.network(batch_norm=True)
    rows = Rows(worlds.batch(2), {"ids": torch.arange(worlds.ROWS)})
    draws = lambda chunk: torch.random.fork_rng(devices=[])  # noqa: E731
    backward(method, objective, rows, world=SINGLE, precision="float32", draws=draws, rows_in_memory=5)
    assert calls == [[[(worlds.ROWS, worlds.WIDTH)] * 2]]


# --- Activations made again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "blocks"),
    [
        ("resnet18", {"channels": [8, 8, 16, 16]}, 8),
        ("resnet50", {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "drop_path_rate": 0.3}, 4),
        ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 12, "depth": 3, "proj_drop_rate": 0.2}, 3),
        ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}, 6),
    ],
)
def test_recomputed_activations_give_the_same_gradients_and_buffers_to_the_bit(
    name: str, options: dict[str, object], blocks: int
) -> None:
    views = [torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(v)) for v in range(2)]

    def step(again: bool) -> dict[str, Tensor]:
        encoder = build_encoder(name, image_size=32, seed=0, options=options).train()
        with seeded(0, "step"):
            if again:
                with recomputed(encoder) as count:
                    assert count == blocks
                    sum(encoder(view).square().sum() for view in views).backward()
            else:
                sum(encoder(view).square().sum() for view in views).backward()
        assert "forward" not in vars(next(iter(encoder.modules())))
        found = {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}
        return found | dict(encoder.named_buffers())

    ordinary, again = step(False), step(True)
    assert ordinary.keys() == again.keys()
    different = [key for key in ordinary if not ordinary[key].equal(again[key])]
    assert different == []


def test_statistics_kept_changes_no_output_and_no_buffer() -> None:
    norm = nn.BatchNorm1d(4)
    x = torch.randn(8, 4)
    with statistics_kept(norm):
        kept = norm(x)
    assert int(norm.num_batches_tracked) == 0
    assert norm.running_mean.equal(torch.zeros(4))
    assert norm(x).equal(kept)
    assert int(norm.num_batches_tracked) == 1


def test_a_network_without_blocks_is_refused_with_the_other_way() -> None:
    with pytest.raises(ValueError, match="rows_in_memory"), recomputed(nn.Linear(2, 2)):
        pass


class Turned(nn.Module):
    """A block that a second pass would not repeat: it changes what the first one found."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.layer = what, nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(()))
        self.seen: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.what == "its input":
            x.mul_(2)
        elif self.what == "a buffer in place":
            self.seen += 1
        else:
            self.seen = self.seen + 1
        out: Tensor = self.layer(x)
        return out


@pytest.mark.parametrize("what", ["its input", "a buffer in place", "a buffer by assignment"])
def test_a_block_that_a_second_pass_would_not_repeat_is_refused(what: str) -> None:
    network = nn.Sequential(nn.Linear(4, 4), Turned(what))
    with pytest.raises(ValueError, match="Turned changes its input or a buffer"), recomputed(network):
        network(torch.randn(3, 4))


def test_blocks_that_take_lists_are_left_as_they_are() -> None:
    """HRNet's stages change the list they are given."""
    views = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def gradients(again: bool) -> list[Tensor]:
        encoder = build_encoder("hrnet_w18_small", image_size=32, seed=0).train()
        with recomputed(encoder) if again else seeded(0, "nothing"):
            encoder(views).square().sum().backward()
        return [p.grad for p in encoder.parameters() if p.grad is not None]

    assert all(a.equal(b) for a, b in zip(gradients(True), gradients(False), strict=True))


def test_recomputation_can_be_nested_and_gives_blocks_back_their_own_forward() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    own = network[1].forward = lambda x: x * 3
    with recomputed(network), recomputed(network):
        network(torch.ones(1, 2)).sum().backward()
    assert "forward" not in vars(network[0])
    assert network[1].forward is own


def test_a_block_that_is_called_with_keywords_is_left_as_it_is() -> None:
    class Scaled(nn.Linear):
        def forward(self, input: Tensor, scale: float = 1.0) -> Tensor:
            return super().forward(input) * scale

    blocks = nn.ModuleList([Scaled(2, 2)])
    with recomputed(nn.Sequential(blocks)):
        blocks[0](torch.ones(1, 2), scale=2.0).sum().backward()
    assert blocks[0].weight.grad.equal(torch.full((2, 2), 2.0))
