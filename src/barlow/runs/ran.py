"""What is known of a run beside its log: what advice depends on, and the doctor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from barlow import objectives
from barlow.data.epochs import epochs_of
from barlow.diagnostics.finding import About
from barlow.recipe.request import shipped_name
from barlow.size import height_width

FEW_STEPS = 100
"""A run from scratch of fewer updates is called short. The limit is a choice: on aerial images each doubling of the
steps, from 60 to 6,000, was worth two to three points (docs/choosing.md)."""

FEW_IMAGES = 1000
"""From scratch, so few images are seen again after every few updates."""


@dataclass(frozen=True)
class Ran:
    """What advice depends on, of a run."""

    recipe: str | None
    """The small recipe that it is of, as it is shipped; None for any other."""
    objective: str
    from_weights: bool
    steps: int
    epochs: float
    images: int
    view: int | None
    """Side of its views; None if they are not square."""
    short_side: int
    """Of the images themselves."""
    rate: float
    """The recipe's learning rate for a batch of 256."""
    peak: float = 0.0
    """The highest rate of its schedule."""
    width: int | None = None
    """Of the embeddings, where a projector makes them."""
    copies: int | None = None
    """How many of the images are copies of others; None of runs from before that was counted."""
    captions: bool = False
    """Whether it is trained on images and captions."""
    unweighted: tuple[tuple[str, str, float], ...] = ()
    """What its objective has at 0 that holds embeddings up (`barlow.objectives.unweighted`)."""
    seen: float | None = None
    """How often each image is seen in the mean, for the doctor: less than there are epochs (`epochs_of`), as an epoch
    leaves out the images that do not fill a batch."""

    @classmethod
    def of(cls, recipe: Mapping[str, Any], report: Mapping[str, Any]) -> "Ran":
        """From what recipe.yaml and data.json of a run hold.

        Raises:
            LookupError, TypeError, ValueError: they are not what this version writes.
        """
        steps, images, batch = int(recipe["train"]["steps"]), int(report["usable"]), int(recipe["train"]["batch_size"])
        height, width = height_width(recipe["data"]["image_size"])
        return cls(
            recipe=shipped_name(recipe),
            objective=str(recipe["objective"]["kind"]),
            from_weights=recipe["encoder"].get("init") is not None,
            steps=steps,
            epochs=epochs_of(steps, images - int(report.get("held_out", 0)), batch),
            images=images,
            view=height if height == width else None,
            short_side=min(report["median_height"], report["median_width"]),
            rate=float(recipe["optim"]["lr_per_256"]),
            peak=float(recipe["optim"]["lr_per_256"]) * batch / 256,
            width=_width(recipe["method"]),
            copies=None if report.get("copies") is None else int(report["copies"]),
            captions=recipe["method"]["kind"] == "image_text",
            unweighted=objectives.unweighted(recipe["objective"]),
            seen=steps * batch / images,
        )

    @property
    def about(self) -> About:
        """The same for the doctor, who so says the same while a run trains and afterwards."""
        return About(
            total=self.steps,
            peak=self.peak,
            images=self.images,
            width=self.width,
            epochs=self.epochs if self.seen is None else self.seen,
            copies=None if self.copies is None else self.copies / self.images,
            spreads_by=objectives.spreads_by(self.objective),
            unweighted=self.unweighted,
            moving_target=objectives.has_moving_target(self.objective),
            from_weights=self.from_weights,
        )

    @property
    def length(self) -> str:
        return f"{self.steps:,} steps, {self.epochs:.3g} epochs"

    @property
    def few(self) -> str | None:
        """What there is too little of for a start from scratch."""
        if self.from_weights:
            return None
        if self.images < FEW_IMAGES:
            return f"{self.images} images"
        return f"{self.steps} steps" if self.steps < FEW_STEPS else None


def _width(method: Mapping[str, Any]) -> int | None:
    """The features of a projector's embeddings, by a recipe's section."""
    projector = method.get("projector")
    widths = projector.get("widths") if isinstance(projector, Mapping) else None
    return int(widths[-1]) if widths else None
