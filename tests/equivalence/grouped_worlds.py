"""Training with grouped batch norm by one process or by this one's share of several: `grouped_worlds.py FOLDER`.

A query network is trained towards the outputs of a key network, each with groups of its own, which lie across the
processes. `found(world)` is the same in the test's own process, with a World of one.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from worlds import ROWS, SIDE, Encoder

from barlow.distributed import World, joined
from barlow.nets.grouped_norms import Grouping, grouped
from barlow.nets.heads import Head
from barlow.nets.norms import synchronized

STEPS, WIDTH = 3, 4


class Pair(nn.Module):
    """Two networks: both views of a step go through the first, and the second view through the second as well."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        head = Head(widths=[16, WIDTH], hidden_bias=True, last_bias=True, last_batch_norm="scale")
        self.query = nn.Sequential(Encoder(batch_norm=True), head.build(6, 0, "query"))
        self.key = nn.Sequential(Encoder(batch_norm=True), head.build(6, 0, "key"))
        self.key.requires_grad_(False)
        self.double().train()

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            key = self.key(views[1])
        return [self.query(view) for view in views] + [key]


def views(step: int) -> list[Tensor]:
    """Every row another, and not alike in scale, so that groups and shards have other statistics."""
    generator = torch.Generator().manual_seed(step)
    scale = torch.linspace(0.2, 3, ROWS).view(-1, 1, 1, 1)
    return list(scale * torch.randn(2, ROWS, 3, SIDE, SIDE, generator=generator, dtype=torch.float64))


def found(world: World, rows: int) -> dict[str, Tensor]:
    """Gradients, weights, buffers and outputs of a few steps."""
    pair, block = Pair(), world.block(ROWS)
    query, key = (Grouping(rows=rows, seed=0, network=name) for name in ("query", "key"))
    result: dict[str, Tensor] = {}
    with grouped(pair.query, world, query) as first, grouped(pair.key, world, key) as second, synchronized(pair, world):
        network = world.wrap(pair)
        for step in range(STEPS):
            for groups in (first, second):
                groups.draw(step, ROWS)
            za, zb, k = world.gather(network([view[block] for view in views(step)]))
            ((za - k).square().mean() + (zb * k.roll(1, 0)).mean() + za.pow(3).mean()).backward()
            for name, p in pair.query.named_parameters():
                result[f"gradient of {name}, step {step}"] = p.grad.clone()  # type: ignore[union-attr]
                with torch.no_grad():
                    p -= 0.05 * p.grad  # type: ignore[operator]
                p.grad = None
            result[f"outputs of step {step}"] = torch.cat([za, zb, k]).detach()
    result |= {f"buffer {name}": buffer for name, buffer in pair.named_buffers()}
    return result | {f"weight {name}": p.detach() for name, p in pair.query.named_parameters()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined("cpu") as world:
        torch.save({rows: found(world, rows) for rows in (2, 8, ROWS)}, Path(sys.argv[1]) / f"{world.rank}.pt")
