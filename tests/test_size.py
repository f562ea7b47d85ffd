"""Sizes of views, from what a user asks for to an encoder that is evaluated."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import barlow
from barlow.pretraining import Result, pretrain

NETWORK = {key: value for key, value in tiny.SMALL.items() if key != "data.image_size"}
"""A tiny run whose size of views is the recipe's `auto`."""


def trained(images: Path, out: Path, said: list[str] | None = None, **arguments: Any) -> Result:
    overrides = NETWORK | {"train.steps": 2} | arguments.pop("overrides", {})
    tell = None if said is None else said.append
    return pretrain(images, out, progress=False, overrides=overrides, tell=tell, **arguments)


# --- Small images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "view", "why"),
    [(28, 28, "the images' own shorter side"), (32, 24, "three quarters"), (19, 19, "the images' own shorter side")],
)
def test_small_images_keep_their_own_size_and_the_run_says_why(side: int, view: int, why: str, tmp_path: Path) -> None:
    said: list[str] = []
    result = trained(tiny.images(tmp_path / "images", 40, side=side), tmp_path / "run", said)
    (line,) = [line for line in said if line.startswith("size ")]
    assert line.startswith(f"size     {view} px: {why}")
    encoder = barlow.load_encoder(result.run_folder)
    assert encoder.preprocessing.size == view
    x = encoder.preprocess(tmp_path / "images" / "000.png")
    assert x.shape == (1, 3, view, view)
    assert torch.equal(encoder(x), result.encoder(x))


def test_a_size_that_was_given_needs_no_reason(tmp_path: Path) -> None:
    said: list[str] = []
    trained(tiny.images(tmp_path / "images", 40), tmp_path / "run", said, image_size=20)
    assert not [line for line in said if line.startswith("size ")]
