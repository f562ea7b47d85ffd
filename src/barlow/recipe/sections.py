"""The sections of a recipe whose keys are the same for every method. Units are in the names of the keys.

Keys that came later have defaults with which an older file means what it meant.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from barlow.data.stored import MOST_BANDS, checked_range
from barlow.limits import TEXT_BYTES
from barlow.optim import schedules
from barlow.optim.groups import GroupRule
from barlow.recipe.messages import NUMBER, TABLE, check_keys
from barlow.size import Size, size_of

Auto = Literal["auto"]

SMALLEST, LARGEST = 4, {"image_size": 2048, "centre_size": 2048, "working_size": 4096}
"""Limits of the sides of a size in pixels."""

MOST_WORKERS = 256
"""Threads or processes that read images."""

MOST_EPOCHS, MOST_MINUTES = 10_000_000, 10_000_000
MOST_MONITORED = 10_000
"""Of a run: twenty years of minutes."""

ONE_OF = {
    "train": (("epochs", "steps", "minutes"), ("checkpoint_minutes", "checkpoint_steps")),
    "schedule": (
        ("warmup_fraction", "warmup_epochs", "warmup_steps"),
        ("drops_at_fraction", "drops_at_epochs", "drops_at_steps"),
    ),
}
"""Keys of a section that are units of the same thing: at most one of each tuple is given."""


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, and nothing changes once it is checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceSection(Section):
    """Where the recipe comes from, and how it differs from there."""

    paper: str
    code: str
    differs: list[str]


class DataSection(Section):
    """Which images, and how they are held."""

    sources: list[str]
    split: str
    image_size: Size | Auto
    """Of the views: the side of squares, or [height, width]."""
    centre_size: Size | Auto | None = None
    """Of the centre views that the finished encoder takes; null: that of the views."""
    channels: Annotated[int, Field(ge=1, le=MOST_BANDS)] | Auto
    executor: Literal["in_memory", "streaming", "auto"]
    working_size: Size | Auto
    """At which images are held in memory, as of the views."""
    mean: list[float] | Auto
    std: list[Annotated[float, Field(gt=0)]] | Auto
    max_bad: Annotated[float, Field(ge=0, le=1)]
    max_pixels: Annotated[int, Field(ge=1)]
    workers: Annotated[int, Field(ge=0, le=MOST_WORKERS)] | Auto
    value_range: tuple[float, float] | Auto | None = None
    """The numbers that are black and white in images of more than 8 bits, which are then held in 16; null: 8 bits."""

    @field_validator("sources")
    @classmethod
    def _not_too_many(cls, sources: list[str]) -> list[str]:
        if sum(map(len, sources)) > TEXT_BYTES // 2:
            raise ValueError(
                f"data.sources names {len(sources):,} folders: give a folder that holds them all (links in it will do)"
            )
        return sources

    @field_validator("value_range", mode="before")
    @classmethod
    def _a_range(cls, given: Any) -> Any:
        if given is None or given == "auto":
            return given
        if not isinstance(given, list | tuple) or not all(isinstance(end, int | float) for end in given):
            raise ValueError(f"data.value_range is {given!r}: give [low, high], auto, or null for images of 8 bits")
        try:
            return checked_range(given)
        except ValueError as error:
            raise ValueError(f"data.{error}") from None

    @field_validator(*LARGEST, mode="before")
    @classmethod
    def _a_size(cls, given: Any, info: ValidationInfo) -> Size | Auto | None:
        if given == "auto" or (given is None and info.field_name == "centre_size"):
            return given
        most = LARGEST[str(info.field_name)]
        return size_of(given, f"data.{info.field_name}", least=SMALLEST, most=most, otherwise=", or auto")


class EncoderSection(Section):
    """The network that the run keeps: any timm name, or `custom:CLASS` for a module given in Python."""

    name: str
    stem: Literal[
        "as_is",
        "small",
        "small_padded",
        "small_pooled",
        "strided",
        "plain",
        "small_lightness",
        "strided_lightness",
        "plain_lightness",
        "auto",
    ]
    zero_init_last: bool
    options: dict[str, Any]
    init: str | None
    frozen_stages: Annotated[int, Field(ge=0)] = 0
    """The first so many stages are not trained: for given weights, whose early stages are good for any images."""
    fixed_norms: bool = False
    """Whether batch norm keeps the statistics of the given weights, in training too."""
    stages: Literal["last", "all"] = "last"
    """Whether the features that are handed out are those of the last stage, or of all stages side by side."""
    whiten: Annotated[float, Field(ge=0, le=1)] | None = None
    """Shrinkage of a last layer that whitens the features after training (`barlow.nets.handed_out`); null: none."""

    @property
    def built(self) -> dict[str, Any]:
        """What `build_encoder` takes of it, beside the name."""
        return {"stem": self.stem, "zero_init_last": self.zero_init_last, "options": self.options}

    @model_validator(mode="after")
    def _kept_of_given_weights(self) -> "EncoderSection":
        kept = "frozen_stages" if self.frozen_stages else "fixed_norms" if self.fixed_norms else None
        if kept is not None and self.init is None:
            raise ValueError(
                f"encoder.{kept} keeps a part of given weights as it is, and encoder.init is null: give --init, or "
                f"leave {kept} out, as a random start would never be trained there"
            )
        return self


_Rate = Annotated[float, Field(gt=0)]
_Rates = Annotated[dict[Annotated[int, Field(ge=2)], _Rate], Field(min_length=1)]
_RateOrRates = Annotated[
    Annotated[_Rate, Tag(NUMBER)] | Annotated[_Rates, Tag(TABLE)],
    Discriminator(lambda given: TABLE if isinstance(given, Mapping) else NUMBER),
]


class OptimSection(Section):
    """AdamW, Adam, SGD or LARS, and its rates, which are per 256 images: peak = lr_per_256 × batch_size / 256."""

    kind: Literal["adamw", "adam", "sgd", "lars"]
    lr_per_256: _RateOrRates
    """A number, or the rates that were tuned for some batch sizes: {256: 0.4, 512: 0.3}; see `rate_per_256`."""
    vectors_lr_per_256: _RateOrRates | None = None
    """Of the parameters of one dimension (biases, scales and shifts of norms), as `lr_per_256`; null: that of the
    rest."""
    weight_decay: Annotated[float, Field(ge=0)]
    exclude_1d: bool
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    trust: Annotated[float, Field(gt=0)] = 0.001
    """LARS's trust coefficient."""
    clip: bool = False
    """Whether LARS's trust ratio is clipped."""
    rate_in_momentum: bool = False
    """Whether LARS has the rate inside of its momentum, as SimCLR's code has it, or outside, as all others here."""
    loss_weight: Annotated[float, Field(gt=0)] = 1.0
    """The gradient's factor: for reference code that divides the gradient by the number of GPUs, 1/16 for 16."""
    groups: list[GroupRule] = []
    """Rules for some of the parameters, by their names; the first that fits a parameter holds."""

    @field_validator("groups", mode="before")
    @classmethod
    def _known_rules(cls, rules: Any) -> Any:
        for i, rule in enumerate(rules if isinstance(rules, list) else []):
            if isinstance(rule, Mapping):
                check_keys(GroupRule, rule, f"optim.groups.{i}", "a rule")
        return rules

    def rate_per_256(self, batch_size: int) -> float:
        """The rate for 256 images at a batch size.

        Convention: that of the table at its batch sizes, between two of them linear in log₂ of the batch size, outside
        that of the nearest.
        """
        return _at(self.lr_per_256, batch_size)

    def vectors_rate_per_256(self, batch_size: int) -> float | None:
        """The same for the parameters of one dimension; None: as for the rest."""
        return None if self.vectors_lr_per_256 is None else _at(self.vectors_lr_per_256, batch_size)

    def why_rate(self, batch_size: int) -> str | None:
        """Where the rate for 256 images comes from, if neither the recipe nor its table has it as it is."""
        if not isinstance(self.lr_per_256, Mapping) or batch_size in self.lr_per_256:
            return None
        (below, low), (above, high) = _neighbours(self.lr_per_256, batch_size)
        if below == above:
            return f"that of batch {below}, the nearest for which the recipe has one"
        return f"between the recipe's {low:g} for batch {below} and {high:g} for {above}"

    def peak(self, batch_size: int) -> float:
        """The peak rate of a run with this batch size."""
        return self.rate_per_256(batch_size) * batch_size / 256

    def vectors_peak(self, batch_size: int) -> float | None:
        """The peak rate of the parameters of one dimension; None: that of the rest."""
        rate = self.vectors_rate_per_256(batch_size)
        return None if rate is None else rate * batch_size / 256


def _at(rates: float | Mapping[int, float], batch_size: int) -> float:
    """A rate, or that of a table at a batch size."""
    if not isinstance(rates, Mapping):
        return rates
    (below, low), (above, high) = _neighbours(rates, batch_size)
    if low == high:
        return low
    part = math.log2(batch_size / below) / math.log2(above / below)
    return round(low + (high - low) * part, 6)


def _neighbours(table: Mapping[int, float], batch_size: int) -> list[tuple[int, float]]:
    """The batch sizes of a table that are next to one, with their rates; twice the same where it has that one."""
    below = max((batch for batch in table if batch <= batch_size), default=min(table))
    above = min((batch for batch in table if batch >= batch_size), default=max(table))
    return [(below, table[below]), (above, table[above])]


class ScheduleSection(Section):
    """The rate over the run: a linear warm-up, then a cosine to `floor` × peak, or drops. One unit of warm-up only."""

    kind: Literal["warmup_cosine", "step_drops"]
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] | None = None
    warmup_epochs: Annotated[float, Field(ge=0)] | None = None
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    warmup_from: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Rate of the first update as a part of the peak, of a warmup_cosine."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    drops_at_fraction: list[Annotated[float, Field(gt=0, lt=1)]] | None = None
    drops_at_epochs: list[Annotated[float, Field(gt=0)]] | None = None
    drops_at_steps: list[Annotated[int, Field(gt=0)]] | None = None
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.2
    steps: Annotated[int, Field(ge=1)] | None = None
    """The steps that the schedule is for, where the run makes more: the rate then stays as it ends. null: the run's."""

    @model_validator(mode="after")
    def _one_unit(self) -> "ScheduleSection":
        for group in ONE_OF["schedule"]:
            units = [name for name in group if getattr(self, name) is not None]
            if len(units) > 1:
                raise ValueError(f"{' and '.join(units)} are given; keep one")
        if self.kind == "step_drops" and not (self.drops_at_fraction or self.drops_at_epochs or self.drops_at_steps):
            raise ValueError("step_drops needs one of drops_at_fraction, drops_at_epochs, drops_at_steps")
        return self

    def build(self, steps: int, steps_per_epoch: int) -> Callable[[int, int], float]:
        """The schedule as a function of (step, total), its units turned into steps.

        A warm-up that is longer than the run is cut to all of it but the last step.
        """
        warmup = min(self.warmup(steps, steps_per_epoch), max(steps - 1, 0))
        if self.kind == "warmup_cosine":
            return schedules.WarmupCosine(warmup_steps=warmup, floor=self.floor, start=self.warmup_from)
        drops = list(self.drops_at_steps or [])
        drops += [round(f * steps) for f in self.drops_at_fraction or []]
        drops += [round(e * steps_per_epoch) for e in self.drops_at_epochs or []]
        return schedules.StepDrops(warmup_steps=warmup, drops_at=tuple(drops), factor=self.factor)

    def warmup(self, steps: int, steps_per_epoch: int) -> int:
        """Steps of warm-up, as the recipe has it."""
        if self.warmup_fraction is not None:
            return round(self.warmup_fraction * steps)
        if self.warmup_epochs is not None:
            return round(self.warmup_epochs * steps_per_epoch)
        return self.warmup_steps or 0


class TrainSection(Section):
    """The budget (one of epochs, steps, minutes) and how it is spent."""

    batch_size: Annotated[int, Field(ge=2)] | Auto
    epochs: Annotated[float, Field(gt=0, le=MOST_EPOCHS)] | None
    steps: Annotated[int, Field(ge=1)] | None
    minutes: Annotated[float, Field(gt=0, le=MOST_MINUTES)] | None
    device: str
    precision: Literal["bf16", "float32", "auto"]
    channels_last: bool
    checkpoint_minutes: Annotated[float, Field(gt=0, le=MOST_MINUTES)] | None
    checkpoint_steps: Annotated[int, Field(ge=1)] | None
    log_steps: Annotated[int, Field(ge=1)]
    rows_in_memory: Annotated[int, Field(ge=2)] | None = None
    """Images of the batch whose activations are kept at a time; null: all."""
    activation_checkpointing: bool = False
    """Whether activations are computed again for the backward pass, in place of being kept."""
    monitor_images: Annotated[int, Field(ge=0, le=MOST_MONITORED)] = 500
    """Images whose fixed views are looked at now and then (monitor.jsonl); 0: none. It changes nothing of the run."""
    monitor_held_out: bool = False
    """Whether some images are kept from training for the monitor, a fiftieth and 500 at most: it then looks at images
    that the network has never seen. A run that trains on fewer has other numbers."""
    stop_if_collapsed: bool = False
    """Whether a run ends, saved and with exit code 69, once its log has said `collapsed` five times in a row."""

    tensorboard: bool = False
    """Whether the log is also written as TensorBoard's events, into RUN/tensorboard (extra `tensorboard`)."""

    @model_validator(mode="after")
    def _one_budget(self) -> "TrainSection":
        given = [name for name in ("epochs", "steps", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of epochs, steps, minutes; given: {', '.join(given) or 'none'}")
        if self.rows_in_memory is not None and self.activation_checkpointing:
            raise ValueError(
                f"rows_in_memory {self.rows_in_memory} and activation_checkpointing are given, two ways to save "
                "the same memory; keep one (the other is null, or false)"
            )
        return self
