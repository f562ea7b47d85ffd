"""A step of every method with a bank, clusters, words, patches or a made-up label, against its bare step (step.py).

    python benchmarks/step_methods.py                     # two cores, about a quarter of an hour
    python benchmarks/step_methods.py --only step_npid

Each is the small recipe with a ResNet-18 in place of its few blocks, so that a step is mostly networks. Objectives that
look at all images do so before the first step of a piece at most; kmeans.py measures what a clustering costs. Of the
losses between images and captions there is no row: their networks are those of SimCLR, and a GRU.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bare_steps
import measure
from step import Case, distillation, multi_crop, row, siamese

RESNET18: dict[str, Any] = {"encoder.name": "resnet18", "encoder.options": {}}
ON_32 = {"data.image_size": 32, "encoder.stem": "small"}
ON_96 = {"data.image_size": 96, "encoder.stem": "strided"}


def of_method(kind: str, bare: Any, *, batch: int = 64, large: bool = False, note: str = "", **changes: Any) -> Case:
    """The case of a small recipe: on 32 pixels, or on 96 where an image is cut."""
    side = 96 if large else 32
    overrides = RESNET18 | (ON_96 if large else ON_32)
    overrides |= {key.replace("__", "."): value for key, value in changes.items()}
    what = f"ResNet-18, {side} px, batch {batch}{note}"
    images, at_least = 1024 if large else 4096, 1 / 1.15
    return Case(kind, what, f"small_{kind}", batch, (side, side), images, 1, at_least, overrides, bare)


GROUPS = ", batch norm over groups of rows (bare: over all)"
OF_METHODS = [
    of_method("npid", siamese),
    of_method("pirl", bare_steps.image_and_tiles, batch=32, large=True),
    of_method("cmc", bare_steps.halves, encoder__name="lab_resnet18"),
    of_method("infomin", bare_steps.image_and_tiles, batch=32, large=True, note=GROUPS),
    of_method("deepcluster_v1", bare_steps.classifier),
    of_method("deepcluster_v2", multi_crop),
    of_method("sela", bare_steps.classifier),
    of_method("pcl", distillation, note=GROUPS),
    of_method("obow", bare_steps.slow_maps),
    of_method("cpc", bare_steps.patches, batch=32, large=True, encoder__options={"norm_layer": "groupnorm1"}),
    of_method("context_prediction", bare_steps.tiles, batch=32, large=True),
    of_method("jigsaw", bare_steps.tiles, batch=32, large=True, data__image_size=72),
    of_method("colorization", bare_steps.colorization, encoder__stem="small_lightness"),
    of_method("exemplar", siamese),
    of_method("exemplar_triplets", siamese),
    of_method("counting", bare_steps.tile_sum, batch=32, large=True),
]


def rows(smoke: bool) -> Sequence[measure.Row]:
    """A quick look takes one of a bank, with the recipe's own few blocks."""
    quick = Case("npid", "32 px, batch 128", "small_npid", 128, (32, 32), 1024, 5, None)
    return [row(case) for case in ([quick] if smoke else OF_METHODS)]


def small(case: Case, **changes: Any) -> Case:
    """The case with other settings, for tests."""
    return replace(case, overrides=case.overrides | changes)


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
