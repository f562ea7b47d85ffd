"""Images and captions: captions of generated scenes are found far above chance, by a network that begins from nothing.

python -m pytest -m learning tests/learning/test_captions_learning.py
"""

from pathlib import Path

import pytest

import barlow
from barlow.probes.recalls import KS

pytestmark = [pytest.mark.learning, pytest.mark.nightly, pytest.mark.timeout(900)]

STEPS = {"small_simclr_captions": 200}
MARGINS = {"small_simclr_captions": 0.43}
"""Of recall at 10, text to image, over untrained heads: half of what one seed gave (docs/experiments.md)."""


@pytest.mark.parametrize("recipe", MARGINS)
def test_a_loss_between_images_and_captions_beats_untrained_heads(recipe: str, tmp_path: Path) -> None:
    barlow.pretrain(
        "shapes_captions", tmp_path, recipe=recipe, steps=STEPS[recipe], seed=0, batch_size=128, progress=False
    )
    (row,) = barlow.retrieve([tmp_path]).rows
    assert row.untrained is not None
    metric = f"t2i_recall@{KS[-1]}"
    assert row.recalls[metric].value - row.untrained[metric].value >= MARGINS[recipe], row.recalls
