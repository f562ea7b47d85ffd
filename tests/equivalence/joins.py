"""One of several processes that find each other, part, and find each other again, as in a program with several runs."""

import sys

import torch

from barlow.distributed import joined

if __name__ == "__main__":
    for number in range(3):
        with joined("cpu") as world:
            total = world.total(torch.tensor([world.rank + 1.0])).item()
            sys.stdout.write(f"{number} {total}\n")
            sys.stdout.flush()
