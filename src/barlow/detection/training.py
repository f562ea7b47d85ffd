"""Training a detector: batches from keys, one update after the other, saved on the way, and the same when resumed."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from barlow import checkpoints, exits
from barlow.data.resizing import resized
from barlow.detection.annotations import AnnotatedSet
from barlow.detection.average_precision import Found
from barlow.detection.detectors import Detector
from barlow.detection.schedules import Schedule
from barlow.exits import UnusableData
from barlow.nets.seeding import seeded
from barlow.optim.optimizers import load_state, state_tensors
from barlow.size import HeightWidth
from barlow.stopping import Interrupted, Requests
from barlow.telling import Say
from barlow.views.keys import Keys, permutation

SAVE_SECONDS = 60.0
"""Between two checkpoints. What is between the last one and a crash is trained again."""

VIEW = 1 << 33
"""The number of the view in the keys of what is drawn for a detector; no other part of barlow has it."""

Example = tuple[Tensor, dict[str, Tensor]]


def trained(
    detector: Detector,
    images: AnnotatedSet,
    schedule: Schedule,
    *,
    seed: int,
    device: torch.device,
    home: Path,
    requests: Requests,
    say: Say,
    told: Callable[[int, Mapping[str, float]], None] = lambda step, terms: None,
) -> Detector:
    """Trains a detector, from its newest checkpoint on if there is one.

    Step s sees the same images, in the same views, with the same draws, whenever it is made: resumed or not, results
    are the same.

    Args:
        detector: as it was built; changed in place.
        images: what it learns. Images without an object are left out, as in detectron2.
        schedule: how.
        seed: of the order of images, of flips and sizes, and of what is drawn inside of the detector.
        device: that it is trained on.
        home: a folder for its checkpoints.
        requests: what signals have asked for; answered after the step that is under way, which is then saved.
        say: told where it goes on.
        told: after each step, with the number of steps that were made and the terms of the loss; of a training that
            was complete before, once, with its last.

    Raises:
        Interrupted: it was asked to stop.
        Diverged: a loss was not a number, or a gradient.
        UnusableData: no image has an object, or an image cannot be read.
    """
    kept = [i for i, image in enumerate(images.images) if (~image.ignored).any()]
    if not kept:
        raise UnusableData(f"no image of {images.name} has an object to learn from")
    images = images.chosen(kept)
    detector.to(device).train()
    optimizer = schedule.optimizer_of(detector)
    start, last = _resumed(detector, optimizer, home, say)
    if start >= schedule.steps and last:
        told(start, last)
    saved = time.monotonic()
    with requests.finished_first():  # what was trained is saved before it stops
        for step, batch in _ahead(lambda step: _batch(images, schedule, seed, step), range(start, schedule.steps)):
            terms = _updated(detector, optimizer, batch, schedule, seed, step, device)
            made = step + 1
            told(made, terms)
            asked = requests.asked  # once: a request that comes while it is saved is answered after the next step
            if asked or time.monotonic() - saved > SAVE_SECONDS or made == schedule.steps:
                _save(detector, optimizer, home, made, terms, say)
                saved = time.monotonic()
            if asked and made < schedule.steps:
                raise Interrupted(
                    f"stopped at step {made} of {schedule.steps}, saved; the same command goes on from there"
                )
    return detector


def _ahead(make: Callable[[int], list[Example]], steps: range) -> Iterator[tuple[int, list[Example]]]:
    """Steps with their batches; each is made while the one before it is trained on."""
    with ThreadPoolExecutor(1, thread_name_prefix="detection") as pool:
        coming = [pool.submit(make, step) for step in steps[:1]]
        for step in steps:
            batch = coming.pop().result()
            coming += [pool.submit(make, step + 1)] if step + 1 in steps else []
            yield step, batch


def _updated(
    detector: Detector,
    optimizer: torch.optim.Optimizer,
    batch: list[Example],
    schedule: Schedule,
    seed: int,
    step: int,
    device: torch.device,
) -> dict[str, float]:
    """Makes one update; returns the terms of the loss, already weighted."""
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate_at(step)
    images = [image.to(device) for image, _ in batch]
    targets = [{name: value.to(device) for name, value in target.items()} for _, target in batch]
    with seeded(seed, f"detection step {step}", device):  # proposals and boxes are sampled
        terms = detector.losses(images, targets)
    weighted = {
        name: term * (schedule.rpn_weight if name in ("loss_objectness", "loss_rpn_box_reg") else 1.0)
        for name, term in terms.items()
    }
    loss = torch.stack(list(weighted.values())).sum()
    values = {name: float(term.detach()) for name, term in weighted.items()}
    if not np.isfinite(list(values.values())).all():
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        raise exits.Diverged(f"step {step} of the detector: the loss is not finite ({shown}); lower the rate")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return values


def _resumed(
    detector: Detector, optimizer: torch.optim.Optimizer, home: Path, say: Say
) -> tuple[int, dict[str, float]]:
    """Puts the newest checkpoint back; returns its step, 0 if there is none, and the terms of that step's loss."""
    checkpoint, notes = checkpoints.newest(home)
    for note in notes:
        say(note)
    if checkpoint is None:
        return 0, {}
    parts: dict[str, dict[str, Tensor]] = {"detector": {}, "optimizer": {}}
    for name, value in checkpoint.tensors.items():
        part, _, inner = name.partition("/")
        parts.setdefault(part, {})[inner] = value
    try:
        detector.load_state_dict(parts["detector"], strict=True)
        load_state(optimizer, _parameters(detector), parts["optimizer"], checkpoint.state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        if exits.out_of_memory(error):
            raise
        raise UnusableData(f"the checkpoint in {home} is of another detector: remove that folder") from error
    say(f"detector: goes on from step {checkpoint.step}")
    return checkpoint.step, dict(checkpoint.state.get("terms", {}))


def _save(
    detector: Detector, optimizer: torch.optim.Optimizer, home: Path, step: int, terms: Mapping[str, float], say: Say
) -> None:
    tensors, rest = state_tensors(optimizer, _parameters(detector))
    named = {f"optimizer/{name}": value for name, value in tensors.items()}
    named |= {f"detector/{name}": value for name, value in detector.state_dict().items()}
    checkpoints.save(home, step, named, {"optimizer": rest, "terms": dict(terms)}, say)


def _parameters(detector: Detector) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in detector.named_parameters() if parameter.requires_grad]


def _batch(images: AnnotatedSet, schedule: Schedule, seed: int, step: int) -> list[Example]:
    first = step * schedule.batch_size
    return [_drawn(images, schedule, seed, number) for number in range(first, first + schedule.batch_size)]


def _drawn(images: AnnotatedSet, schedule: Schedule, seed: int, number: int) -> Example:
    """The image at a position in the order of all epochs, flipped half the time, at one of the sizes."""
    epoch, position = divmod(number, len(images))
    index = int(permutation(seed, epoch, len(images))[position])
    draws = Keys(seed, epoch, np.array([index]), VIEW).uniforms(0, 2)[:, 0]
    side = schedule.sides[int(draws[1] * len(schedule.sides))]
    known = images.images[index]
    size = _size(known.size, side, schedule.longest)
    pixels = _at(images.pixels(index), size)
    kept = ~known.ignored
    boxes = known.boxes[kept] * np.array([size[1] / known.size[1], size[0] / known.size[0]] * 2, np.float32)
    target = {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(known.labels[kept] + 1)}
    if images.has_masks:
        masks = torch.from_numpy(known.masks()[kept]).float()[None]
        target["masks"] = torch.nn.functional.interpolate(masks, size, mode="nearest-exact")[0].to(torch.uint8)
    if draws[0] < 0.5:
        return pixels, target
    flipped = target["boxes"].clone()
    flipped[:, [0, 2]] = size[1] - target["boxes"][:, [2, 0]]
    target["boxes"] = flipped
    if "masks" in target:
        target["masks"] = target["masks"].flip(-1)
    return pixels.flip(-1), target


def _size(size: HeightWidth, side: int, longest: int) -> HeightWidth:
    """The size that an image gets: its shorter side is `side`, unless its longer one would be above `longest`."""
    scale = min(side / min(size), longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _at(pixels: np.ndarray, size: HeightWidth) -> Tensor:
    """(3, h, w) in [0, 1], resized bilinearly with antialiasing."""
    made = pixels if pixels.shape[:2] == size else resized(pixels, size, Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(made)).permute(2, 0, 1).float().div(255)


def found_in(detector: Detector, images: AnnotatedSet, schedule: Schedule, device: torch.device) -> Iterator[Found]:
    """What a detector finds in each image of a set. Images come one at a time, so that none depends on another."""
    detector.to(device)
    for index, known in enumerate(images.images):
        pixels = _at(images.pixels(index), _size(known.size, schedule.test_side, schedule.longest)).to(device)
        yield detector.find([pixels], [known.size])[0]
