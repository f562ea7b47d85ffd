"""Where an encoder can go: one file for each target, found by its name (`barlow export RUN --to NAME`).

A target turns an encoder into the files of another library, and says how that library reads them. What it says is a few
lines of Python that stand in the model card, and the same lines are run in a fresh process before the folder gets its
name: the features that they give on real images must be those of the encoder (`barlow.exporting`).

`_protocol.py` has what a target gets and what it has to say. Listing the names imports none of the files, nor torch.
"""

from typing import TYPE_CHECKING

from barlow import kinds

if TYPE_CHECKING:
    from barlow.exports._protocol import Material, Target

__all__ = ["found", "load", "names"]


def names() -> list[str]:
    """The targets as the command line calls them."""
    return [kind.replace("_", "-") for kind in kinds.kinds(__path__)]


def load(name: str) -> "Target":
    """The target of a name.

    Raises:
        ValueError: there is none; the message has them all.
    """
    if name not in names():
        raise ValueError(f"--to {name}: there is no such form; there are {', '.join(names())}")
    target: Target = kinds.load(__name__, __path__, name.replace("-", "_"))()
    return target


def found(material: "Material") -> list[str]:
    """The targets that an encoder can go to."""
    return [name for name in names() if load(name).refuses(material) is None]
