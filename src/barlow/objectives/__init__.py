"""One file, one objective; the file's name is the objective's kind in a recipe.

A new objective is a new file here: a frozen dataclass, named in its file's ``__all__``, whose fields are the recipe's
section. Files whose name begins with an underscore are not objectives. `Objective` says how one without state is
called; `ObjectiveWithState` says how one with a queue, prototypes or a memory bank is built and called. Nothing here
imports torch until an objective is asked for.
"""

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from barlow import kinds as _kinds

if TYPE_CHECKING:
    from torch import nn

    from barlow.types import MapSizes, Terms


class Objective(Protocol):
    """A group of aligned embeddings in, named terms out. The loss is the sum of the terms.

    A step's embeddings come in groups: those of a group are compared with each other. An objective without state is
    called once for each group, and the mean over the groups is taken of each term. Its positional parameters say what a
    group is:
      - ``*z``: two or more views, each to be compared with each;
      - ``(p, t)``: a prediction and its target. They may be of several widths, as the logits of colours and the colours
        are; and where the dataclass says `trains_targets`, the target gets a gradient, too;
      - ``(p, t, z)``: these, and the embedding that the prediction was made from;
      - ``(logits)``: what a classifier says of each row.
    What it needs to know of the step it asks for by keyword-only parameters: ``ids``, ``labels`` and what a view op
    tells, such as ``rotation`` (int64 tensors of shape (n,), of the global batch), and ``progress`` (a float: the share
    of the run that is done before this step, 0 at the first). One that has a default is given where it is known.

    Contract (tests/contracts/test_objectives.py puts every file of the folder under it):
      1. Row i of every argument comes from the same image. All are the global batch. Half precision is widened to
         float32 on the way in, and autocast is off.
      2. Every term is a scalar in the precision of the embeddings, already weighted. Nothing else adds to the loss.
         It may be negative.
      3. It can be constructed without arguments: every hyper-parameter is a keyword with the paper's value. What
         depends on the run is asked for by ``build``: ``width``, ``maps``, ``images``, ``classes``, ``seed``.
      4. Tensors are all it knows: inputs are not modified; there is no ambient randomness, device, process group,
         environment or clock.
      5. Permuting the rows of all inputs together changes nothing but rounding (sliced objectives: within a slice).
      6. Gradients are finite wherever the documented preconditions hold, else a ValueError says which failed. Every
         view, prediction and logit gets one, unless a hinge is at rest; a target gets none.
      7. State is parameters (trained) and buffers (saved), nothing else. Buffers are changed in place, and only after
         the last term was computed: a key that came into the queue before would be a negative of its own query. From
         the same state, the same inputs give the same loss and the same new state, to the bit.
    """

    def __call__(self, *group: Any, **asked: Any) -> "Terms": ...


class ObjectiveWithState(Protocol):
    """An objective with prototypes, a queue or a memory bank: a recipe's section that builds a module.

    Recipes are checked without it; a run builds it once the width of the embeddings and the images are known.

    The module is called exactly once a step, with all groups: ``forward(self, groups, *, ids, progress, …) -> Terms``.
    The annotation of ``groups`` says what a group is, as positional parameters do without state:
    ``list[tuple[Embedding, ...]]`` views, ``list[tuple[Embedding, Embedding]]`` predictions and targets,
    ``list[tuple[Embedding]]`` one each. It takes the mean over the groups, or their sum, itself. Its keyword-only
    parameters ask for the same as those of an `Objective`.

    Three optional hooks look at all images. Two are for clusterings. ``before_epoch(self, embed)`` is called before
    every epoch. (One that asks for ``progress``, by a keyword-only parameter, is told it.) ``before_step(self, embed,
    *, progress)`` is called before each step for which ``due(self, progress)`` is true; an objective with the one has
    the other. A hook may return parameters that it has given new values: the optimizer then forgets what it remembered
    of these (momentum, averages).

    ``embed()`` gives ``(ids, embeddings)`` of all images that can be read, in the order of their ids and alike in every
    process, in float32. Nothing is changed by it. By default they are the first embeddings of the first group of what
    the method makes of the images' centres, in eval mode: batch norm uses its running statistics. It can be asked for
    others:
      - ``embed(1)``: the second embedding in place of the first, counted through all groups: for a method of two
        networks that of the slow one, where views are compared that of the second view;
      - ``embed(augmented=True)``: of views, drawn anew for every look, in place of the centres;
      - ``embed(training=True)``: with the networks as they are trained, so that batch norm takes the statistics of each
        batch. Ask for it with ``augmented``: the centres come in the order of their ids, class after class.

    A third, ``before_run(self, groups)``, is called once, before the first step of a run and not where one is resumed.
    ``groups()`` gives the groups that the method makes of the centres of all images, a batch at a time, each image
    once, alike in every process: for what is counted over the set, which need not be held in memory for it.

    An optional ``after_step(self)`` is called after every update, for what an update takes from the parameters: the
    length of prototypes, for example. An optional ``check_sizes(self, rows, widths)`` raises a ValueError for groups
    that a step could not use: a step calls it, and so does the trial before training, which would else make a step.
    """

    build: "Callable[..., nn.Module]"
    """Makes the module. Its keyword-only parameters ask for what it needs of the run: ``width`` (of the embeddings),
    ``maps`` (height, width and channels of each feature map that a target is made of, where the method gives maps),
    ``images`` (how many there are: every id is below it), ``classes`` (how many labels there are) and ``seed``, from
    which initial values are drawn by a generator of its own."""


def kinds() -> list[str]:
    """The objectives there are, in alphabetical order."""
    return _kinds.kinds(__path__)


def load(kind: str) -> type[Objective] | type[ObjectiveWithState]:
    """The objective's dataclass.

    Raises:
        ValueError: no objective is called that.
    """
    found: type[Objective] | type[ObjectiveWithState] = _kinds.load(__name__, __path__, kind)
    return found


def has_state(objective: Any) -> bool:
    """Whether the dataclass builds a module, which is trained and saved; else it is called itself."""
    return hasattr(objective, "build")


def has_moving_target(kind: str) -> bool:
    """Whether a kind compares with a target that moves, so that its loss may rise while the encoder gets better.

    Such an objective says so in its class: ``moving_target: ClassVar[bool] = True``.
    """
    return kind in kinds() and bool(getattr(load(kind), "moving_target", False))


def spreads_by(kind: str) -> str | None:
    """How a kind keeps embeddings in many directions: by "decorrelation" of their features, or by "contrast" of images.

    None where it does not, or where its healthy runs have not been looked at: then few directions say nothing. An
    objective says it in its class: ``spreads_by: ClassVar[str] = "contrast"``.
    """
    return getattr(load(kind), "spreads_by", None) if kind in kinds() else None


def defaults(kind: str) -> dict[str, Any]:
    """The settings of a kind that have a default, with that; none of what is no kind."""
    if kind not in kinds():
        return {}
    found = {name: parameter.default for name, parameter in inspect.signature(load(kind)).parameters.items()}
    return {name: value for name, value in found.items() if value is not inspect.Parameter.empty}


def unweighted(section: Mapping[str, Any]) -> tuple[tuple[str, str, float], ...]:
    """The settings of an objective that are 0 and by default are not, of those that hold embeddings up: each by its key
    in a recipe, with what it keeps, "spread" or "directions", and its default.

    An objective names those of which 0 alone explains a collapse: ``keeps: ClassVar[Mapping[str, str]] = {"variance":
    "spread"}``.

    Args:
        section: the objective's section of a recipe.
    """
    if (kind := section.get("kind")) not in kinds():
        return ()
    usual = defaults(kind)
    return tuple(
        (f"objective.{name}", kept, float(usual[name]))
        for name, kept in getattr(load(kind), "keeps", {}).items()
        if section.get(name) == 0 and usual[name] != 0
    )


_SIZES = {1: "one", 2: "pairs", 3: "triples"}


def takes(objective: Any) -> str:
    """What an objective's group is: "views" (two or more), "pairs" (a prediction and its target), "triples" (these and
    the embedding that the prediction was made from) or "one" (logits).

    The signature of the dataclass says it; of one with state, the annotation of its module's ``groups``.

    Args:
        objective: the dataclass, or the module that one has built.
    """
    if hasattr(objective, "forward"):
        hint = typing.get_type_hints(objective.forward).get("groups")
        (group,) = typing.get_args(hint) or (None,)
        members = typing.get_args(group)
        return "views" if not members or Ellipsis in members else _SIZES.get(len(members), "views")
    kinds = [p.kind for p in inspect.signature(objective).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return "views"
    return _SIZES.get(len(kinds), "views")


def asks(call: Any, *, required: bool = False) -> list[str]:
    """What is asked for by keyword: the keyword-only parameters of an objective, of its module, or of its `build`.

    Args:
        call: an objective (not its class), the module that one has built, or any function.
        required: only those without a default.
    """
    parameters = inspect.signature(getattr(call, "forward", call)).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and not (required and p.default is not p.empty)]


def expected(
    objective: Any, rows: int, width: int, groups: int, *, images: int | None = None
) -> tuple[float | None, float | None]:
    """Of an objective's loss, what it is for views that have nothing in common, and its floor (`_levels.py`).

    Args:
        objective: the dataclass; one that was given in Python may have no `levels`, and then nothing is known.
        rows: of the global batch.
        width: of the embeddings.
        groups: of a step.
        images: how many there are.
    """
    if not hasattr(objective, "levels") or rows < 2:
        return None, None
    about = {"groups": groups, "images": images}
    levels = objective.levels(rows, width, **{name: about[name] for name in asks(objective.levels) if name in about})
    return levels.unrelated, levels.floor


def built(
    objective: Any, *, width: int, images: int, classes: int | None, seed: int, maps: "MapSizes | None" = None
) -> "Objective | nn.Module":
    """What a run calls: the objective itself, or the module that it builds, given what it asks for and no more.

    Args:
        objective: the dataclass.
        width: of the embeddings.
        images: how many images there are.
        classes: how many classes the images have; None where they have no labels.
        seed: for initial values.
        maps: the sizes of the feature maps that targets are made of; None where the method gives embeddings alone.

    Raises:
        ValueError: the objective is a module already, or asks for what a run does not give.
    """
    name = type(objective).__name__
    if hasattr(objective, "forward"):
        raise ValueError(
            f"{name} is a module: give a dataclass whose build(self, *, width, seed) makes it, so that a run can build "
            "it from its seed, train it and save it"
        )
    if not has_state(objective):
        return objective
    given = {"width": width, "images": images, "classes": classes, "seed": seed, "maps": maps}
    wanted = asks(objective.build)
    parameters = inspect.signature(objective.build).parameters.values()
    if positional := [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]:
        raise ValueError(
            f"{name}.build takes {positional[0]} by position: write build(self, *, {', '.join(positional)})"
        )
    if unknown := [one for one in wanted if one not in given]:
        raise ValueError(f"{name}.build asks for {', '.join(unknown)}: a run gives {', '.join(given)}")
    if classes is None and "classes" in asks(objective.build, required=True):
        raise ValueError(f"{name} asks for the number of classes, and the images have no labels: give labelled ones")
    return objective.build(**{one: given[one] for one in wanted if given[one] is not None})


def __getattr__(name: str) -> type[Objective] | type[ObjectiveWithState]:
    if not name.startswith("_"):
        for kind in kinds():
            objective = load(kind)
            if objective.__name__ == name:
                return objective
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
