"""A network that a user has in a Python file of their own: `FILE.py:NAME`.

The file is run, as `python FILE.py` would run it. So this happens for a name that says so, and for no other: files of
weights are read without running anything in them.
"""

import hashlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from barlow import exits
from barlow.printable import one_line, printable


@dataclass(frozen=True)
class GivenModule:
    """What a name in a Python file stands for.

    Args:
        module: the network.
        sha256: of the file. Two files may build networks with the same tensors that do different things with them.
        name: in the file.
    """

    module: nn.Module
    sha256: str
    name: str


def is_named(text: str) -> bool:
    """Whether a text is of the form `FILE.py:NAME`."""
    file, colon, name = text.rpartition(":")
    return bool(colon) and file.endswith(".py") and name.isidentifier()


def module_in(text: str) -> GivenModule:
    """The network that `FILE.py:NAME` stands for: a module, or what a function or class of that name returns.

    A function gets no arguments. It is the place to load weights, and to set `.preprocessing`. While the file is run,
    modules that lie beside it can be imported.

    Raises:
        NoInput: there is no such file.
        ValueError: it cannot be run, has no such name, or the name is no network's.

    Example:
        # mine.py, for `barlow evaluate mine.py:backbone`
        def backbone():
            return timm.create_model("resnet18", pretrained=True, num_classes=0)
    """
    place, _, name = text.rpartition(":")
    file = Path(place)
    if not file.is_file():
        raise exits.NoInput(f"no file {printable(place)}, in {printable(text)}; give FILE.py:NAME")
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    spec = importlib.util.spec_from_file_location(f"barlow_given_{digest[:16]}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{printable(place)} cannot be run as Python")
    own = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = own  # classes find their module there, for example to be pickled
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(own)
        found = getattr(own, name, None)
        made = found if isinstance(found, nn.Module) or not callable(found) else found()
    except Exception as error:
        raise ValueError(
            f"{printable(text)} could not be built: {type(error).__name__}: {one_line(error)} (--debug shows where)"
        ) from error
    finally:
        sys.path.remove(str(file.resolve().parent))
    if found is None:
        raise ValueError(f"{printable(place)} has no {name}; it has {_networks_of(own)}")
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"{printable(text)} is a {type(made).__name__}; it has to be a torch module, or a function that returns "
            "one and needs no arguments"
        )
    return GivenModule(made, digest, name)


def _networks_of(own: object) -> str:
    """What a file offers that may be meant, for a message."""
    names = [
        name
        for name, value in vars(own).items()
        if not name.startswith("_")
        and (isinstance(value, nn.Module) or (callable(value) and inspect.getmodule(value) is own))
    ]
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "") if names else "no functions, classes or modules"
