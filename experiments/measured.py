"""Writes what the package knows of runs elsewhere, src/barlow/measured.json, from the lines of own_folder.py.

    python experiments/measured.py

`--check` only compares. Taken are runs of one seed on a part of the training images that was held out, and means over
the seeds of those on the test images; of barlow's recipes as they are shipped, or with another size of the views, and
of the form that is shipped now. Imagenette's photos are among those that ImageNet's weights have seen, so runs from
weights on it are left out.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from generated import ROOT, write_or_check
from own_folder import SCREENED
from results_line import BUDGET, RESULTS, is_as_shipped, of_barlow, once_a_seed

PAGE = ROOT / "src" / "barlow" / "measured.json"
SEEN = "imagenette"
SIZE = "data.image_size"

Line = Mapping[str, Any]


def content(lines: Sequence[Line]) -> str:
    """The file's text: a line for each run, or for the mean of several seeds."""
    rows = ",\n".join(f"  {json.dumps(row)}" for row in rows_of(lines))
    return f"[\n{rows}\n]\n" if rows else "[]\n"


def rows_of(lines: Sequence[Line]) -> Iterator[dict[str, Any]]:
    of_one: dict[tuple[Any, ...], list[Line]] = {}
    own = [line for line in lines if line["program"] == "experiments/own_folder.py" and _counts(line)]
    for line in once_a_seed(own):
        what = (*(line[key] for key in ("images", "recipe", "minutes", "part")), line["overrides"].get(SIZE))
        of_one.setdefault(what, []).append(line)
    for (images, recipe, minutes, part, size), seeds in of_one.items():
        yield {
            "images": images,
            "recipe": recipe,
            "minutes": minutes,
            "steps": int(median(line["steps"] for line in seeds)),
            "view": seeds[0]["image_size"],
            "shipped": size is None,
            "part": part,
            "scores": _means([line["scores"]["encoder"] for line in seeds]),
            "gains": _means([{k: v["value"] for k, v in line["gain"].items()} for line in seeds])
            if all(line["gain"] for line in seeds)
            else None,
        }


def _means(of_seeds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {probe: round(fmean(scores[f"{probe}.top1"] for scores in of_seeds), 4) for probe in ("knn", "logistic")}


def _counts(line: Line) -> bool:
    if not of_barlow(line) or (line["images"] == SEEN and line["recipe"].startswith("continue_")):
        return False
    # Changes that the recipe has made its own since then are none any more.
    kept = {key: value for key, value in line["overrides"].items() if key in (SIZE, *BUDGET)}
    return is_as_shipped({**line, "overrides": kept})


def main() -> int:
    return write_or_check(__doc__ or "", PAGE, [RESULTS, SCREENED], lambda _, lines: content(lines))


if __name__ == "__main__":
    sys.exit(main())
