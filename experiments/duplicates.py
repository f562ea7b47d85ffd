"""How many planted copies `barlow duplicates` finds, and how many pairs it takes for copies that are not.

    python experiments/duplicates.py --data ../shared/data   # plants, searches, and writes a line and docs/search.md
    python experiments/duplicates.py --data ../shared/data --seed 1 --pixels   # other draws, which are only printed
    python experiments/duplicates.py --write                 # the table alone, from the line that is there
    python experiments/duplicates.py --check                 # exits with 1 if the page is not up to date

Of 600 images of a set, drawn at random, 400 get a copy each: 80 made smaller, 80 recompressed, 80 brightened, 80
cropped to 90 % of their area at a random place, 80 mirrored. The folder of these 1,000 files is searched as a user
would search it: photos of Imagenette-96 by thumbnails alone and with an encoder, aerial images (among which are many
look-alikes) and CIFAR-10 by thumbnails. A pair is false if two images of different originals are in one group. The sets
have pairs of their own that are near-duplicates; none is excused.

The alterations are made here by Pillow, with other sizes, qualities, factors and places than those by which the
thresholds are calibrated. No image is kept or shown. Lines go to results/duplicates.jsonl.
"""

import argparse
import io
import json
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import results_line
from generated import ROOT, markdown, put_between
from PIL import Image, ImageEnhance

from barlow import storage
from barlow.features.copy_finding import duplicates
from barlow.probes.intervals import wilson

PROGRAM = "experiments/duplicates.py"
RESULTS = ROOT / "results" / "duplicates.jsonl"
PAGE = ROOT / "docs" / "search.md"
MARKERS = "<!-- planted: written by experiments/duplicates.py -->", "<!-- end of planted -->"
SETS = {
    "imagenette": ("imagenette-96.tar", "imagenette-96/val/"),
    "aerial": ("aerial-96.tar", "aerial-96/train/"),
    "cifar10": ("cifar10.tar", "cifar10/test/"),
}
ORIGINALS, EACH, SEED = 600, 80, 0
ENCODER = "packaged:efficientnet_lite0"


def smaller(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.BICUBIC)


def recompressed(image: Image.Image, _: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def brighter(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.2)


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    wide, high = image.width * 0.9**0.5, image.height * 0.9**0.5
    left, top = rng.uniform(0, image.width - wide), rng.uniform(0, image.height - high)
    return image.resize(image.size, Image.Resampling.BICUBIC, (left, top, left + wide, top + high))


def mirrored(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


CROP = "90 % of the area"
OF_ALL = (("false, of all pairs", "false_pairs"),)
CHANGES = {
    "2/3 of the size": smaller,
    "JPEG quality 40": recompressed,
    "brightness × 1.2": brighter,
    CROP: cropped,
    "mirrored": mirrored,
}


def planted(data: Path, folder: Path, seed: int, images_of: str = "imagenette") -> list[str]:
    """Fills a folder with originals `a000.png` and copies `bKNNN.png`, of kind K and the original NNN; returns the
    kinds."""
    rng = np.random.default_rng(seed)
    tar, home = SETS[images_of]
    with tarfile.open(data / tar) as archive:
        members = sorted((m for m in archive if m.isfile() and m.name.startswith(home)), key=lambda m: m.name)
        images = []
        for row in np.sort(rng.permutation(len(members))[:ORIGINALS]):
            file = archive.extractfile(members[row])
            assert file is not None
            with Image.open(file) as opened:
                images.append(opened.convert("RGB"))
    for number, image in enumerate(images):
        image.save(folder / f"a{number:03}.png")
    chosen = rng.permutation(ORIGINALS)[: EACH * len(CHANGES)].reshape(len(CHANGES), EACH)
    for kind, (change, rows) in enumerate(zip(CHANGES.values(), chosen, strict=True)):
        for row in rows.tolist():
            change(images[row], rng).save(folder / f"b{kind}{row:03}.png")
    return list(CHANGES)


def searched(folder: Path, kinds: list[str], encoder: str | None) -> dict[str, Any]:
    """What was found, in a group with its own original, and which pairs of originals were put together."""
    before = time.process_time()
    found = duplicates(str(folder), encoder=encoder, device="cpu", tell=print)
    seconds = time.process_time() - before
    hits = dict.fromkeys(kinds, 0)
    false, false_of_originals = 0, 0
    for group in found.groups:
        names = [member.path.removesuffix(".png") for member in group.members]
        originals = {name[1:] for name in names if name[0] == "a"}
        for name in names:
            if name[0] == "b" and name[2:] in originals:
                hits[kinds[int(name[1])]] += 1
        sources = [name[-3:] for name in names]
        same = sum(sources.count(each) * (sources.count(each) - 1) // 2 for each in set(sources))
        false += len(names) * (len(names) - 1) // 2 - same
        false_of_originals += len(originals) * (len(originals) - 1) // 2
    return {
        "found": hits,
        "false_pairs": false,
        "false_pairs_of_originals": false_of_originals,
        "threshold": round(found.within.threshold, 4),
        "by_look_alikes": found.within.distinct and round(found.within.distinct, 4),
        "candidates": found.within.compared,
        "candidates_above": {each.name: round(each.above, 4) for each in found.within.measures},
        "promised": {each.name: {k: round(v, 3) for k, v in each.found.items()} for each in found.within.measures},
        "processor_seconds": round(seconds, 1),
    }


def measured(data: Path, seed: int, encoder: str | None) -> dict[str, Any]:
    """The line."""
    ways: dict[str, Any] = {}
    searches: list[tuple[str, str | None]] = [(images_of, None) for images_of in SETS]
    if encoder is not None:
        searches.append(("imagenette", encoder))
    for images_of, also in searches:
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home) / "planted"
            folder.mkdir()
            kinds = planted(data, folder, seed, images_of)
            name = images_of if also is None else f"{images_of}, pixels or {also}"
            ways[name] = searched(folder, kinds, also)
    pairs = ORIGINALS * (ORIGINALS - 1) // 2
    return {"originals": ORIGINALS, "pairs_of_originals": pairs, "plants_of_each": EACH, "seed": seed, "ways": ways}


def page_with(text: str, line: dict[str, Any]) -> str:
    """The page with the table of a line."""

    def shares(kinds: list[str]) -> list[str]:
        hits = [sum(way["found"][kind] for kind in kinds) for way in line["ways"].values()]
        scores = [wilson(each, line["plants_of_each"] * len(kinds)) for each in hits]
        return [f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})" for each in scores]

    rows = [[change, *shares([change])] for change in CHANGES]
    rows.append(["all but crops", *shares([change for change in CHANGES if change != CROP])])
    pairs = f"{line['pairs_of_originals']:,}"
    for words, key in ((f"false, of {pairs} pairs of originals", "false_pairs_of_originals"), *OF_ALL):
        rows.append([words, *(str(way[key]) for way in line["ways"].values())])
    return put_between(text, *MARKERS, markdown(["copy", *line["ways"]], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="the folder that holds the tars")
    parser.add_argument("--seed", type=int, default=SEED, help="of the draw; default: %(default)s, that of the page")
    parser.add_argument("--pixels", action="store_true", help="leave the encoder out; nothing is written then")
    parser.add_argument("--write", action="store_true", help="write the page from the line that is there")
    parser.add_argument("--check", action="store_true", help="exit with 1 if the page is not up to date")
    arguments = parser.parse_args()
    if arguments.data is None and not (arguments.write or arguments.check):
        parser.error("give --data, the folder that holds the tars, or --write")
    if arguments.data is not None:
        found = measured(arguments.data, arguments.seed, None if arguments.pixels else ENCODER)
        print(json.dumps(found["ways"], indent=1))
        if arguments.seed != SEED or arguments.pixels:
            return
        storage.append_line(RESULTS, results_line.assembled("planted copies", PROGRAM, found))
    newest = json.loads(RESULTS.read_text(encoding="utf-8").splitlines()[-1])
    before = PAGE.read_text(encoding="utf-8")
    wanted = page_with(before, newest)
    if arguments.check:
        sys.exit(int(wanted != before))
    PAGE.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
