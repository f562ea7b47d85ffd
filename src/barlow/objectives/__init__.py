"""One file, one objective; the file's name is the objective's kind in a recipe.

A new objective is a new file here: a frozen dataclass, named in its file's ``__all__``. Files whose name begins with an
underscore are not objectives. Nothing here imports torch until an objective is asked for.
"""

import difflib
import importlib
import pkgutil
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from barlow.types import Embedding, Terms


class Objective(Protocol):
    """Two or more aligned batches of embeddings in, named terms out. The loss is the sum of the terms.

    Contract (tests/contracts/test_objectives.py puts every file of the folder under it):
      1. row i of every argument comes from the same image; all are the global batch; called exactly once per step;
      2. every term is a scalar, already weighted; nothing else contributes to the loss;
      3. constructible without arguments; every hyper-parameter is a keyword with the paper's value;
      4. inputs are not modified; no ambient randomness, device, process group, environment or clock;
      5. permuting the rows of all inputs together changes nothing but rounding (sliced objectives: within a slice);
      6. gradients are finite wherever the documented preconditions hold, else ValueError says which failed.
    """

    def __call__(self, *z: "Embedding") -> "Terms": ...


def kinds() -> list[str]:
    """The objectives there are, in alphabetical order."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg and not m.name.startswith("_"))


def load(kind: str) -> type[Objective]:
    """The objective's class.

    Raises:
        ValueError: no objective is called that.
    """
    if kind not in kinds():
        near = difflib.get_close_matches(kind, kinds(), n=1)
        suggestion = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no objective {kind!r}: {suggestion}There are {', '.join(kinds())}")
    module = importlib.import_module(f"{__name__}.{kind}")
    (name,) = module.__all__
    objective: type[Objective] = getattr(module, name)
    return objective


def __getattr__(name: str) -> type[Objective]:
    if not name.startswith("_"):
        for kind in kinds():
            objective = load(kind)
            if objective.__name__ == name:
                return objective
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
