"""The outlines of COCO's files as masks, and masks as run lengths.

An outline is one of three things: polygons, run lengths as numbers, or run lengths as a string. Run lengths go down the
columns of an image, from left to right, and begin with those outside of the object.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

Mask = Bool[np.ndarray, "h w"]

LARGEST_POLYGON = 100_000
"""Numbers in the polygons of one object. COCO's longest has some thousands."""


def fault_of(outline: Any, height: int, width: int) -> str | None:
    """What is wrong with an outline, in a few words; None if it is one, and can be drawn without taking much memory."""
    if isinstance(outline, list):
        return _fault_of_polygons(outline, height, width)
    if not isinstance(outline, Mapping) or not {"size", "counts"} <= outline.keys():
        return "segmentation is neither polygons nor run lengths"
    if outline["size"] != [height, width]:
        return f"its run lengths are of an image of {str(outline['size'])[:30]}, and the image is {[height, width]}"
    try:
        runs = _runs(outline["counts"])
    except (ValueError, TypeError, UnicodeError):
        return "its run lengths cannot be read"
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        return f"its run lengths are for {sum(runs):,} pixels, and the image has {height * width:,}"
    return None


def _fault_of_polygons(outline: list[Any], height: int, width: int) -> str | None:
    if not outline:
        return "segmentation is an empty list"
    numbers = [number for polygon in outline if isinstance(polygon, list) for number in polygon]
    if len(numbers) > LARGEST_POLYGON:
        return f"its polygons have {len(numbers):,} numbers, and {LARGEST_POLYGON:,} are allowed"
    if any(not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 for polygon in outline):
        return "a polygon is a list of x, y, x, y, … of three points or more"
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        return "a polygon has something that is no number"
    side = max(height, width)
    if min(numbers) < -side or max(numbers) > 2 * side:
        return "a polygon lies far outside of the image"
    return None


def drawn(outline: Any, height: int, width: int) -> Mask:
    """An outline that has no fault as a mask.

    Convention: polygons are filled by pycocotools, as whoever publishes numbers on COCO does: at five times the size,
    and along the columns.
    """
    if isinstance(outline, list):
        from pycocotools import mask as coco  # extra `detection`

        return np.any([drawn(part, height, width) for part in coco.frPyObjects(outline, height, width)], axis=0)
    runs = _runs(outline["counts"])
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


def run_lengths(mask: Mask) -> dict[str, Any]:
    """A mask as run lengths: `drawn` is the way back."""
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [len(flat)]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if len(flat) and flat[0] else runs}


def _runs(counts: Any) -> list[int]:
    """Run lengths as numbers.

    As a string, each is in groups of five bits, the lowest first, as characters from "0" on; the sixth bit says that
    more follow, and the fifth of the last is the sign. From the fourth on it is the difference to the one two before.
    Source: the C code of COCO's own library (`rleToString`).
    """
    if isinstance(counts, list):
        if not all(type(run) is int for run in counts):
            raise ValueError("a run length is no integer")
        return counts
    text = counts.encode("ascii") if isinstance(counts, str) else bytes(counts)
    runs: list[int] = []
    value = shift = 0
    for character in text:
        group = character - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError("a character that run lengths do not have")
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the last run length is cut short")
    return runs
