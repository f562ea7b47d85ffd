"""What would fail in the first step, refused in one line before any network is built."""

import json
from collections.abc import Callable

import torch
from torch import Tensor

from barlow import objectives
from barlow.recipe.messages import RecipeError
from barlow.recipe.schema import Recipe
from barlow.training.comparison import Comparison, Objective
from barlow.training.global_gradient import chunks

NEEDS = {
    "pairs": "a prediction and its target",
    "triples": "a prediction, its target and the embedding that it was made from",
    "one": "one batch of logits",
    "views": "two or more views",
}


def check_sizes(recipe: Recipe, batch: int, own: slice, usable: int) -> None:
    """Refuses a batch that cannot be cut into the chunks or the groups that the recipe asks for.

    Args:
        recipe: resolved.
        batch: rows of the global batch.
        own: this process's rows of it.
        usable: images that can be read.

    Raises:
        ValueError: one line says what to use.
    """
    most, grouped = recipe.train.rows_in_memory, recipe.method.get("batch_norm_rows")
    rows = own.stop - own.start
    if usable < 2:
        raise ValueError(
            f"{usable} usable image in {', '.join(recipe.data.sources)}; training compares images with each other and "
            "needs at least 2 (hundreds, to learn anything)"
        )
    if most is not None and any(part.stop - part.start < 2 for part in chunks(rows, most)):
        raise ValueError(
            f"--rows-in-memory {most} leaves a chunk of one row of {rows}, and batch norm needs two; use {most + 1}"
        )
    if grouped is None:
        return
    if most is not None and most < rows:
        raise ValueError(
            f"--rows-in-memory {most} and method.batch_norm_rows {grouped}: groups of batch norm lie across the chunks;"
            " use --train.activation_checkpointing true in place of the first"
        )
    if batch % grouped or batch < 2 * grouped:
        fits = next((size for size in range(min(grouped, batch // 2), 1, -1) if batch % size == 0), None)
        instead = f"use --method.batch_norm_rows {fits}" if fits else f"use --batch-size {2 * grouped}"
        raise ValueError(
            f"a batch of {batch} rows does not divide into two groups or more of {grouped} (method.batch_norm_rows), "
            f"and in one group a query and its key share their batch statistics: {instead}"
        )


def check_asked(recipe: Recipe, objective: Objective, known: dict[str, Tensor], told: list[str]) -> None:
    """Refuses an objective that asks for what is not known, or is known of another view than it would be used for.

    Args:
        recipe: resolved.
        objective: as a step calls it.
        known: of the rows of a batch.
        told: what of it a view op tells.

    Raises:
        RecipeError: one line names what is asked for and what is known.
    """
    kind = recipe.objective["kind"]
    missing = [name for name in objectives.asks(objective, required=True) if name not in (*known, "progress")]
    if missing:
        hint = "train on folders of classes" if "labels" in missing else "add the view op that tells it"
        raise RecipeError(
            f"the objective {kind} asks for {missing[0]!r}, and what is known of a step is "
            f"{', '.join(known)}, progress: {hint}, or take another objective"
        )
    of_one_view = [name for name in objectives.asks(objective) if name in told]
    if of_one_view and _given(recipe) == "one" and len(recipe.views) > 1:
        raise RecipeError(
            f"the objective {kind} asks for {of_one_view[0]!r}, which one of {len(recipe.views)} views tells, and the "
            f"method {recipe.method['kind']} would hold every view to it: keep the view that tells it alone"
        )


def try_objective(
    recipe: Recipe,
    objective: Objective,
    widths: list[tuple[int, ...]],
    batch: int,
    known: Callable[[int], dict[str, Tensor]],
    usable: int,
) -> None:
    """Calls an objective once on the shapes that a step will have.

    Two views fit the signature of an objective of a prediction and its target by chance; that is refused. The other way
    round is allowed: VICReg's terms between predictions and targets are an ablation of its paper.

    An objective whose step takes long on a processor has a `check_sizes(rows, widths)`, which is called instead.

    Where the batch cannot be used, other batches of the images that there are have been tried before one is named. So
    no two messages send a user round in circles.

    Args:
        recipe: resolved.
        objective: to try; its state changes.
        widths: of the tensors of each group.
        batch: rows of each.
        known: gives what is known of so many rows.
        usable: images that can be read.

    Raises:
        ValueError: the objective cannot use them, or there are fewer images than a batch; one line says what to do.
    """
    kind, method = recipe.objective["kind"], recipe.method["kind"]
    taken, given = objectives.takes(objective), _given(recipe)
    if given != taken and (taken, given) != ("views", "pairs"):
        raise RecipeError(
            f"the objective {kind} takes {NEEDS[taken]}, and the method {method} gives {NEEDS[given]}: start from a "
            "recipe whose method fits (`barlow list recipes`), or set --method.kind"
        )

    def refused(rows: int) -> ValueError | None:
        if hasattr(objective, "check_sizes"):
            try:
                objective.check_sizes(rows, widths)
            except ValueError as error:
                return error
            return None
        generator = torch.Generator().manual_seed(0)
        groups = [tuple(torch.randn(rows, d, generator=generator) for d in group) for group in widths]
        try:
            Comparison(objective)(groups, {"progress": 0.0, **known(rows)})
        except ValueError as error:
            return error
        return None

    error = refused(batch) if batch <= usable else None  # a batch that cannot be had is not tried: it may be enormous
    if error is None and batch <= usable:
        return
    width, least = widths[0][0], getattr(objective, "least_rows", None)
    fitting = next((rows for rows in _other_batches(batch, usable) if refused(rows) is None), None)
    if fitting is None and least is not None and least(width) > usable:
        narrow = width
        while narrow > 1 and least(narrow) > usable:
            narrow //= 2
        projector = f"a projector that ends in {narrow} (--method.projector.widths), " if narrow > 1 else ""
        raise ValueError(
            f"{usable} usable images are too few for {kind} with embeddings of width {width}: give {least(width)} or "
            f"more, {projector}or another objective (--objective vicreg)"
        )
    if error is None:
        works = f"use --batch-size {fitting}" if fitting else "give more images"
        raise ValueError(f"{usable} usable images are fewer than a batch of {batch}: {works}")
    parameters = json.dumps({k: v for k, v in recipe.objective.items() if k != "kind"})
    raise ValueError(
        f"{kind} {parameters} cannot use --batch-size {batch}, {len(recipe.views)} views and embeddings of width "
        f"{width} from the method {method}: {error}" + (f"; --batch-size {fitting} would do" if fitting else "")
    ) from error


def _other_batches(batch: int, usable: int) -> list[int]:
    """Batches of the images that there are, in the order in which to try them: twice as many rows, and so on; then all
    images; then half as many, and so on."""
    powers = [2**k for k in range(1, usable.bit_length())]
    larger, smaller = [p for p in powers if p > batch], [p for p in powers if p < batch]
    return [*larger, *([] if batch > usable else [usable]), *reversed(smaller), *([usable] if batch > usable else [])]


def _given(recipe: Recipe) -> str:
    """What the groups of the recipe's method are: views, pairs or one."""
    given: str = recipe.build_method().gives
    return given
