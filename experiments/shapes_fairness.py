"""Measures whether the embedded default set `shapes` is a fair demonstration; appends the numbers to results.

    python experiments/shapes_fairness.py --steps 800

Fair means: raw pixels do not know the classes (weighted kNN at most 0.40, with pixels in [0, 1] and normalised), a
supervised network of the recipe's own kind does (at least 0.95 on test images), so there is something to learn that the
network can learn; objects are in the crops (as much of them as one of the four covers, in at least 90 % of crops from
0.3 of the area up), so two views show the same kind of thing; and ground and brightness tell nothing of the class
(there is no colour; mean and standard deviation of an image's grey levels say little).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import results_line
import torch
from torch import nn
from torch.nn import functional as F

from barlow.data.loader import MemoryLoader, StreamingLoader
from barlow.data.shapes import SINGLE, ShapesSource
from barlow.distributed import World, has_native_bf16
from barlow.nets.building import build_encoder
from barlow.nets.norms import recalibrated
from barlow.planning.preparation import prepare
from barlow.probes.features import FeatureSet, embed
from barlow.protocols.knn import WeightedKNN
from barlow.protocols.logistic import Logistic
from barlow.recipe.request import chosen_recipe
from barlow.views.keys import Keys
from barlow.views.ops import RandomResizedCrop

CROP_SCALES = (0.2, 0.3, 0.4)
"""Smallest crops, as a part of the image's area, for which visibility is reported."""


def visibility(source: ShapesSource, smallest: float, draws: int = 5) -> float:
    """The part of random resized crops that hold as much of the objects as one of them covers on average."""
    covered = source.coverage.astype(np.int64)
    n, size, _ = covered.shape
    integral = np.zeros((n, size + 1, size + 1), np.int64)
    integral[:, 1:, 1:] = covered.cumsum(1).cumsum(2)
    objects = SINGLE.objects[0]
    crop, sides, image = RandomResizedCrop(size, scale=(smallest, 1.0)), np.full(n, size), np.arange(n)
    inside = []
    for epoch in range(draws):
        top, left, h, w = crop.boxes(sides, sides, Keys(seed=0, epoch=epoch, ids=image, view=0)).T
        part = integral[image, top + h, left + w] - integral[image, top, left + w]
        part += integral[image, top, left] - integral[image, top + h, left]
        inside.append(part >= integral[:, -1, -1] / objects)
    return float(np.mean(inside))


def top1(features: Sequence[torch.Tensor], labels: tuple[np.ndarray, np.ndarray], probe: Callable[..., Any]) -> float:
    """Of a probe, from the features of train and test images."""
    sets = (FeatureSet(f, y, np.arange(len(y))) for f, y in zip(features, labels, strict=True))
    return float(probe(*sets)["top1"].value)


class Told(dict[str, float]):
    """Numbers by name; each is printed to stderr when it is known, for the whole takes minutes."""

    def __setitem__(self, name: str, value: float) -> None:
        super().__setitem__(name, value)
        print(f"{name:28s} {value:.4f}", file=sys.stderr, flush=True)


def measure(steps: int, seed: int = 0, recipe: str = "small_barlow_twins") -> dict[str, float]:
    """All numbers, by name."""
    numbers = Told()
    train, test = ShapesSource("train"), ShapesSource("test")
    labels = (np.asarray(train.labels), np.asarray(test.labels))
    pixels = [torch.from_numpy(s.pixels)[:, None].float() / 255 for s in (train, test)]
    for smallest in CROP_SCALES:
        numbers[f"visible_{smallest}"] = visibility(test, smallest)

    chosen = chosen_recipe("shapes", recipe=recipe, steps=steps, seed=seed, device="cpu")
    prepared = prepare(chosen, World(torch.device("cpu")))
    plan = prepared.plan
    mean, std = float(np.mean(plan.mean)), float(np.mean(plan.std))
    normalised = [(x - mean) / std for x in pixels]
    flat = [[x.flatten(1) for x in both] for both in (pixels, normalised)]
    numbers["pixels_knn"] = top1(flat[0], labels, WeightedKNN())
    numbers["pixels_normalised_knn"] = top1(flat[1], labels, WeightedKNN())
    numbers["pixels_logistic"] = top1(flat[1], labels, Logistic())
    greys = [torch.cat([x.mean(1, keepdim=True), x.std(1, keepdim=True)], dim=1) for x in flat[1]]
    numbers["mean_and_contrast_logistic"] = top1(greys, labels, Logistic())

    images = [x.expand(-1, plan.channels, -1, -1) for x in normalised]
    encoder = build_encoder(
        plan.recipe.encoder.name,
        in_channels=plan.channels,
        image_size=train.size,
        stem=plan.stem,
        zero_init_last=plan.recipe.encoder.zero_init_last,
        seed=seed,
        options=plan.recipe.encoder.options,
    )
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub wants a device
    networks = {"untrained": encoder, "untrained_recalibrated": recalibrated(encoder, images[0][:4096].split(256))}
    for name, network in networks.items():
        features = [embed(network, x.split(500)) for x in images]
        numbers[f"{name}_knn"] = top1(features, labels, WeightedKNN())
        numbers[f"{name}_logistic"] = top1(features, labels, Logistic())

    started = time.process_time()
    classifier = supervised(encoder, prepared.loader, labels[0], steps, seed)
    numbers["supervised_cpu_seconds"] = time.process_time() - started
    scores = classifier(embed(encoder, images[1].split(500)))
    numbers["supervised"] = float((scores.argmax(1).numpy() == labels[1]).mean())
    return numbers


def supervised(
    encoder: Any, loader: MemoryLoader | StreamingLoader, labels: np.ndarray, steps: int, seed: int
) -> nn.Linear:
    """Trains the recipe's encoder on labels and the recipe's own views; returns the classifier on its features."""
    classifier = nn.Linear(int(encoder.num_features), len(np.unique(labels)))
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    parameters = [*encoder.parameters(), *classifier.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps, pct_start=0.1)
    truth = torch.from_numpy(labels)
    encoder.train()
    for batch in loader.stream(0, steps):
        loss = torch.zeros(())
        for view in batch.rows.views:
            with torch.autocast("cpu", torch.bfloat16, enabled=has_native_bf16(torch.device("cpu"))):
                features = encoder(view.to(memory_format=torch.channels_last))
            loss = loss + F.cross_entropy(classifier(features.float()), truth[batch.rows.known["ids"]])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return classifier.requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=800, help="of the supervised network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="small_barlow_twins")
    parser.add_argument("--no-record", action="store_true", help="write no line to results/results.jsonl")
    arguments = parser.parse_args()
    numbers = measure(arguments.steps, arguments.seed, arguments.recipe)
    rounded = {name: round(value, 4) for name, value in numbers.items()}
    print(json.dumps(rounded, indent=1))
    if not arguments.no_record:
        measured = {
            "recipe": arguments.recipe,
            "steps": arguments.steps,
            "seeds": [arguments.seed],
            "numbers": rounded,
        }
        results_line.append(results_line.assembled("shapes-fairness", "experiments/shapes_fairness.py", measured))


if __name__ == "__main__":
    main()
