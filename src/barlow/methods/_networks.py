"""What every method is: a module that maps rows to outputs."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from barlow.types import Features, Ids, Images, Outputs, Rows

Passes = Literal["each_view", "each_size"]
"""Which views an encoder takes in one pass."""


class Method(nn.Module):
    """The networks of a run, as the loop uses them.

    Contract (tests/contracts/test_methods.py puts every file of the folder under it):
      1. `forward` treats every row on its own, batch norm aside: whole = in chunks;
      2. `forward` changes no buffer but batch norm's running statistics;
      3. what changes beside the gradient (a slow copy) changes in `after_step`, once a step;
      4. `state_dict()` holds all of it, and does not depend on the number of processes.
    """

    encoder: nn.Module
    """The network that the run keeps."""

    batch_norm_rows: int | None = None
    """Rows that batch norm takes its statistics from; None: all of the batch. See `barlow.nets.norms`."""

    holds_features: bool = False
    """Whether `hold` is to be called before the first step."""

    def forward(self, rows: Rows) -> Outputs:
        """What the networks make of some rows of the global batch."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Called after every update; `progress` is the share of the run that was done before it, 0 at the first."""

    def hold(self, ids: Ids, features: Features) -> None:
        """Takes the encoder's features of the centres of all images that can be read, in the order of their ids.

        For a method whose encoder is never changed (`holds_features`), so that they are computed once and not in every
        step. They are no part of the state: a run that is gone on with computes them again.
        """

    def apart(self) -> dict[str, nn.Module]:
        """The networks whose batch norm must not see the same groups of rows, by name. Read with `batch_norm_rows`."""
        return {"online": self}


def features_of(encoder: nn.Module, view: Images) -> Features:
    """The encoder's features of a view, checked.

    Raises:
        ValueError: the encoder's output is not (n, features).
    """
    features = encoder(view)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(view):
        got = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(
            f"the encoder made {got} of images of shape {tuple(view.shape)}; it must return one row of features "
            "per image, (n, features): pool over space, and flatten"
        )
    return features


def features_of_views(encoder: nn.Module, views: list[Images], passes: Passes) -> list[Features]:
    """The features of each view: of views in passes of their own, or of all views of a size in one (`each_size`).

    The difference is batch norm's: in one pass its statistics are those of all its views.
    """
    if passes == "each_view":
        return [features_of(encoder, view) for view in views]
    found: dict[int, Features] = {}
    for size in dict.fromkeys(view.shape[2:] for view in views):
        same = [i for i, view in enumerate(views) if view.shape[2:] == size]
        together = features_of(encoder, torch.cat([views[i] for i in same]))
        found |= dict(zip(same, together.split([len(views[i]) for i in same]), strict=True))
    return [found[i] for i in range(len(views))]


def maps_of(encoder: nn.Module, view: Images) -> tuple[Features, Float[Tensor, "n c h w"]]:
    """The encoder's features of a view, and the map that they are pooled from: a vector for each place of the image.

    Raises:
        ValueError: the encoder has no such map. timm's convolutional networks have one.
    """
    if not hasattr(encoder, "forward_features") or not hasattr(encoder, "forward_head"):
        raise ValueError(
            f"{type(encoder).__name__} has no forward_features and forward_head, which give the map that its features "
            "are pooled from: take a convolutional network of timm's, such as resnet18"
        )
    network: Any = encoder
    found = network.forward_features(view)
    if not isinstance(found, Tensor) or found.ndim != 4 or len(found) != len(view):
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"the encoder's map of images of shape {tuple(view.shape)} is a {got}, and has to be (n, c, h, w): take a "
            "convolutional network, such as resnet18"
        )
    return network.forward_head(found), found


def checked_views(rows: Rows, at_least: int, method: str) -> list[Images]:
    """The views of some rows.

    Raises:
        ValueError: there are fewer than the method needs.
    """
    if len(rows.views) < at_least:
        needs = "one view" if at_least == 1 else f"{at_least} views"
        given = "no views were given" if not rows.views else f"{len(rows.views)} view was given"
        raise ValueError(f"{given}, and the method {method} needs {needs} or more: add one to the recipe's views")
    return rows.views


def through(head: nn.Module, features: list[Tensor], together: bool) -> list[Tensor]:
    """Each view's features through a head: in a pass of its own, or all views in one pass (`together`).

    The difference is batch norm's: in one pass its statistics are those of all views.
    """
    if not together:
        return [head(f) for f in features]
    return list(head(torch.cat(features)).split([len(f) for f in features]))
