"""One step in two processes, in seconds: what `test_processes.py` finds at length, on a network of a few weights.

`python test_one_step.py FOLDER` is one of the two.
"""

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import worlds
from torch import Tensor, nn

from barlow.distributed import World, joined
from barlow.methods._networks import Method
from barlow.nets.norms import synchronized
from barlow.training.global_gradient import backward
from barlow.types import Outputs, Rows

OBJECTIVES = ("barlow_twins", "vicreg", "w_mse")


class Plain(Method):
    """An encoder and a projector of two layers each."""

    def __init__(self, encoder: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, projector

    def forward(self, rows: Rows) -> Outputs:
        features = [self.encoder(view) for view in rows.views]
        return Outputs(features, [tuple(self.projector(f) for f in features)])


def step(world: World, kind: str, rows_in_memory: int | None) -> dict[str, Tensor]:
    """Loss, gradient of every parameter, and buffers; no batch norm where there are chunks: it sees one at a time.

    Three embedding dimensions: W-MSE's slices of 6 rows are then slices of each process's 12 rows too.
    """
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(6), nn.BatchNorm1d(8)] if rows_in_memory is None else [nn.Identity(), nn.Identity()]
    encoder = nn.Sequential(nn.Conv2d(3, 6, 3), norms[0], nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    projector = nn.Sequential(nn.Linear(6, 8), norms[1], nn.Tanh(), nn.Linear(8, 3))
    method = Plain(encoder, projector).double().train()
    block = world.block(worlds.ROWS)
    with synchronized(method, world):
        _, terms = backward(
            world.wrap(method),
            lambda groups: worlds.OBJECTIVES[kind]()(*groups[0]),
            Rows([view[block] for view in worlds.batch(2)], {"ids": torch.arange(worlds.ROWS)[block]}),
            world=world,
            precision="float32",
            draws=lambda chunk: nullcontext(),
            rows_in_memory=rows_in_memory,
        )
    found = {f"gradient of {name}": p.grad for name, p in method.named_parameters() if p.grad is not None}
    found |= {f"buffer {name}": buffer for name, buffer in method.named_buffers()}
    return found | {"loss": torch.stack(list(terms.values())).sum().detach()}


def steps(world: World) -> dict[str, dict[str, Tensor]]:
    found = {f"{kind}, with batch norm": step(world, kind, None) for kind in OBJECTIVES}
    return found | {f"{kind}, in chunks": step(world, kind, 5) for kind in OBJECTIVES}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("found")
    for done in worlds.start([__file__, str(folder)], 2):
        assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.nightly
@pytest.mark.parametrize("how", ["with batch norm", "in chunks"])
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_two_processes_with_different_rows_take_the_step_of_one(
    kind: str, how: str, shared: list[dict[str, dict[str, Tensor]]]
) -> None:
    case = f"{kind}, {how}"
    alone = step(World(torch.device("cpu")), kind, None if how == "with batch norm" else 5)
    for rank, found in enumerate(shared):
        wrong = {name: error for name, error in worlds.differences(found[case], alone).items() if error > 1e-8}
        assert wrong == {}, f"process {rank}"
        assert all(found[case][name].equal(value) for name, value in shared[0][case].items())


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined("cpu") as world:
        torch.save(steps(world), Path(sys.argv[1]) / f"{world.rank}.pt")
