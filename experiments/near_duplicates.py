"""What thumbnails tell of two images, on real ones: why they only propose pairs, and why they are weighted.

    python experiments/near_duplicates.py --data ../shared/data   # a line for each set, and docs/checking.md's tables
    python experiments/near_duplicates.py --write                 # the tables alone, from the lines that are there

Three questions, for each set:

- What is found again? `CHANGED` images are changed in some way, and the thumbnail of the changed image is compared with
  that of its own original.
- How much is flagged? Of each image the most similar other one of the set is looked for, mirrored ones included. Images
  of two different classes are hardly ever copies of each other. So the share of images whose most similar one is of
  another class says how often the threshold errs: where a threshold errs by chance, nearly all of these pairs are of
  different classes, as nine in ten pairs of CIFAR-10's images are.

- Is there something simpler? Plain correlation of the same thumbnails, in grey or in colour, is set beside the weighted
  transform of the package, each at its own threshold: that at which one in `ERRS` images has an image of another class
  above it.

No image is kept or shown. Lines go to results/near_duplicates.jsonl.
"""

import argparse
import io
import json
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import results_line
import torch
from generated import ROOT, markdown, put_between
from PIL import Image, ImageEnhance

from barlow import storage
from barlow.data.near_duplicates import Thumbnails, flat, in_grey, join, most_alike, small

PROGRAM = "experiments/near_duplicates.py"
RESULTS = ROOT / "results" / "near_duplicates.jsonl"
PAGE = ROOT / "docs" / "checking.md"
FOUND = "<!-- found again: written by experiments/near_duplicates.py -->", "<!-- end of found again -->"
COMPARISON = "<!-- measures: written by experiments/near_duplicates.py -->", "<!-- end of measures -->"
FLAGGED = "<!-- flagged: written by experiments/near_duplicates.py -->", "<!-- end of flagged -->"

SETS = {
    "imagenette": ("imagenette-96.tar", "imagenette-96/train"),
    "aerial": ("aerial-96.tar", "aerial-96/train"),
    "mri": ("mri-128.tar", "mri-128/train"),
    "cifar10": ("cifar10.tar", "cifar10/train"),
}
THRESHOLDS = (0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.96, 0.98)
ALIKE = 0.92
"""The table of what is found again is for this one."""
CHANGED = 1000
"""Images of each set that are changed."""
ERRS, COMPARED = 1000, 10_000
"""Measures are compared at a threshold that errs for one in so many images, on so many images of each set."""


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


def recompressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def cropped(area: float) -> Callable[[Image.Image], Image.Image]:
    """The middle of an image, with so much of its area."""

    def crop(image: Image.Image) -> Image.Image:
        wide, high = image.width * area**0.5, image.height * area**0.5
        left, top = (image.width - wide) / 2, (image.height - high) / 2
        return image.resize(image.size, Image.Resampling.BICUBIC, (left, top, left + wide, top + high))

    return crop


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half the size": half,
    "JPEG quality 40": recompressed,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "brightness × 1.2": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "contrast × 0.7": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "in grey": lambda image: image.convert("L").convert("RGB"),
    "98 % of the area": cropped(0.98),
    "95 % of the area": cropped(0.95),
    "90 % of the area": cropped(0.9),
    "turned by 2°": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
    "turned by 90°": lambda image: image.transpose(Image.Transpose.ROTATE_90),
}


def thumbnail_of(image: Image.Image) -> np.ndarray:
    """In colour."""
    return small(np.asarray(image.convert("RGB")))


def grey(thumbnails: np.ndarray) -> Thumbnails:
    return np.stack([in_grey(each) for each in thumbnails])


def read(data: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Thumbnails in colour and labels of a set, which rows were changed, and the thumbnails that each change gave."""
    tar, folder = SETS[name]
    with tarfile.open(data / tar) as archive:
        members = sorted((m for m in archive if m.isfile() and m.name.startswith(f"{folder}/")), key=lambda m: m.name)
        rows = np.sort(np.random.default_rng(0).permutation(len(members))[:CHANGED])
        chosen = set(rows.tolist())
        thumbnails: list[np.ndarray] = []
        changed: dict[str, list[np.ndarray]] = {change: [] for change in CHANGES}
        for row, member in enumerate(members):
            file = archive.extractfile(member)
            assert file is not None
            with Image.open(file) as image:
                colour = image.convert("RGB")
            thumbnails.append(thumbnail_of(colour))
            if row in chosen:
                for change, make in CHANGES.items():
                    changed[change].append(thumbnail_of(make(colour)))
    labels = np.unique([member.name.split("/")[-2] for member in members], return_inverse=True)[1]
    return np.stack(thumbnails), labels, rows, {change: np.stack(made) for change, made in changed.items()}


# --- Measures ---------------------------------------------------------------------------------------------------------


def correlated(thumbnails: np.ndarray) -> torch.Tensor:
    """Rows whose products are the plain correlations of thumbnails."""
    x = torch.from_numpy(thumbnails.reshape(len(thumbnails), -1)).float()
    x -= x.mean(1, keepdim=True)
    return x / (x.norm(dim=1, keepdim=True) + 1e-6)


def plainly(queries: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The plain correlations of all pairs, straight or mirrored, whichever is higher."""
    b = correlated(among)
    straight, mirrored = correlated(queries) @ b.T, correlated(np.ascontiguousarray(queries[:, :, ::-1])) @ b.T
    return torch.maximum(straight, mirrored).numpy()


def weighted(queries: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The similarities of the package, of all pairs."""
    found = most_alike(queries, among, len(among))
    every = np.empty(found.similarity.shape, np.float32)
    np.put_along_axis(every, found.positions, found.similarity, 1)
    return every


Measure = tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]
MEASURES: dict[str, Measure] = {
    "weighted, grey": (weighted, grey),
    "plain, grey": (plainly, grey),
    "plain, colour": (plainly, lambda thumbnails: thumbnails),
}


def compared(thumbnails: np.ndarray, labels: np.ndarray, changed: dict[str, np.ndarray], rows: np.ndarray) -> Any:
    """What each measure finds at the threshold at which it errs for one in `ERRS` images."""
    others = np.setdiff1d(np.random.default_rng(1).permutation(len(labels))[: COMPARED - len(rows)], rows)
    chosen = np.concatenate([rows, others])
    found = {}
    for name, (measure, seen) in MEASURES.items():
        own, kinds = seen(thumbnails[chosen]), labels[chosen]
        nearest, nearest_of_another = np.empty((2, len(chosen)), np.float32)
        for start in range(0, len(chosen), 250):
            part = np.arange(start, min(start + 250, len(chosen)))
            similarity = measure(own[part], own)
            similarity[np.arange(len(part)), part] = -1
            nearest[part] = similarity.max(1)
            nearest_of_another[part] = np.where(kinds[part][:, None] == kinds, -1, similarity).max(1)
        threshold = float(np.quantile(nearest_of_another, 1 - 1 / ERRS))
        again = {}
        for change, made in changed.items():
            pairs = zip(seen(made), own[: len(rows)], strict=True)
            again[change] = float(np.mean([measure(one[None], other[None])[0, 0] > threshold for one, other in pairs]))
        found[name] = {"threshold": threshold, "flagged": float((nearest > threshold).mean()), "found_again": again}
    return found


def measured(data: Path, name: str) -> dict[str, Any]:
    """A set's line."""
    in_colour, labels, rows, changed = read(data, name)
    thumbnails = grey(in_colour)
    again = {}
    for change, made in changed.items():
        pairs = zip(grey(made), thumbnails[rows], strict=True)
        own = np.array([most_alike(one[None], original[None]).similarity[0, 0] for one, original in pairs])
        again[change] = {str(t): float((own > t).mean()) for t in THRESHOLDS}
    before = time.process_time()
    found = most_alike(thumbnails, thumbnails, leave_out=np.arange(len(thumbnails)))
    similarity, other = found.similarity[:, 0], labels[found.positions[:, 0]] != labels
    seconds = time.process_time() - before
    roots, alike = np.arange(len(thumbnails)), np.flatnonzero(similarity > ALIKE)
    join(roots, alike, found.positions[alike, 0])
    _, members = np.unique(roots, return_counts=True)
    return {
        "images": name,
        "count": len(thumbnails),
        "classes": int(labels.max()) + 1,
        "flat": int(flat(thumbnails).sum()),
        "changed": len(rows),
        "found_again": again,
        "flagged": {str(t): int((similarity > t).sum()) for t in THRESHOLDS},
        "flagged_mirrored": {str(t): int(((similarity > t) & found.mirrored[:, 0]).sum()) for t in THRESHOLDS},
        "flagged_of_another_class": {str(t): int(((similarity > t) & other).sum()) for t in THRESHOLDS},
        "clusters": {"alike": ALIKE, "count": int((members > 1).sum()), "largest": int(members.max())},
        "processor_seconds_of_most_alike": round(seconds, 2),
        "measures": compared(in_colour, labels, changed, rows),
    }


# --- The page ---------------------------------------------------------------------------------------------------------


def page_with(text: str, lines: Sequence[dict[str, Any]]) -> str:
    """The page with both tables, of the newest line of each set."""
    newest = [found for name in SETS if (found := {line["images"]: line for line in lines}.get(name)) is not None]
    for markers, table in ((FOUND, found_again), (FLAGGED, flagged), (COMPARISON, measures)):
        text = put_between(text, *markers, table(newest))
    return text


def found_again(lines: Sequence[dict[str, Any]]) -> str:
    rows = [
        [change, *(f"{line['found_again'][change][str(ALIKE)]:.1%}" for line in lines)] for change in CHANGES if lines
    ]
    return markdown(["changed", *(line["images"] for line in lines)], rows)


def flagged(lines: Sequence[dict[str, Any]]) -> str:
    rows = []
    for threshold in map(str, THRESHOLDS):
        shares = [
            [line[which][threshold] / line["count"] for which in ("flagged", "flagged_of_another_class")]
            for line in lines
        ]
        cells = [f"{every:.2%} ({of_another:.3%})" for every, of_another in shares]
        rows.append([f"**{threshold}**" if float(threshold) == ALIKE else threshold, *cells])
    return markdown(["similarity", *(f"{line['images']}, {line['count']:,}" for line in lines)], rows if lines else [])


def measures(lines: Sequence[dict[str, Any]]) -> str:
    rows = []
    for name in MEASURES if lines else ():
        cells = []
        for line in lines:
            found = line["measures"][name]
            again = (found["found_again"][change] for change in ("90 % of the area", "in grey"))
            cells.append(
                f"{found['flagged']:.2%}; {'; '.join(f'{share:.0%}' for share in again)} ({found['threshold']:.2f})"
            )
        rows.append([name, *cells])
    return markdown(["measure", *(line["images"] for line in lines)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="the folder that holds the tars")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--write", action="store_true", help="write the page from the lines that are there")
    parser.add_argument("--check", action="store_true", help="exit with 1 if the page is not up to date")
    arguments = parser.parse_args()
    if arguments.data is None and not (arguments.write or arguments.check):
        parser.error("give --data, the folder that holds the tars, or --write")
    for name in arguments.sets if arguments.data is not None else []:
        line = results_line.assembled(f"near-duplicates of {name}", PROGRAM, measured(arguments.data, name))
        storage.append_line(RESULTS, line)
        print(name, json.dumps(line["flagged"]), flush=True)
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    before = PAGE.read_text(encoding="utf-8")
    wanted = page_with(before, lines)
    if arguments.check:
        sys.exit(int(wanted != before))
    PAGE.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
