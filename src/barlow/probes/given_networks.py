"""What a network does that was given in Python, as a digest: its tensors do not show it, and no description does.

Two such networks may have the same tensors and be different functions: one pools by the mean and the other by the
maximum, or an attribute, a buffer that is not saved or a line of code differs. So all of these are part of the digest,
and beside them, for what cannot be looked into, how the network answers two batches of fixed noise.

Convention: the digest must be the same in the next process, or what was kept is never found again. Answers are compared
coarsely, as their last bits differ between machines and numbers of threads. What the network itself changes when it
answers (counts, caches) is left out. A digest that differs by mistake costs time; one that agrees by mistake would give
one network the numbers of another. So the byte code of classes and functions is in it, although it differs between
versions of Python. That of installed packages is not: they differ between their versions, and not within a process.
"""

import copy
import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from barlow.nets.modes import in_eval_mode
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.seeding import seeded
from barlow.nets.weights import as_described, description_of
from barlow.seals import digest_of, sha256
from barlow.size import height_width

IMAGES = 2
"""Of each batch of noise."""

STEPS = 64
"""A number of an answer is told in 64ths of the answers' root mean square. So a last bit rarely changes what is told,
and another function nearly always does."""

SUMS = 4
"""Random sums of an answer that are told, beside its root mean square."""

MOST = 10_000
"""Objects that are looked into, at most, of those that hang on a network."""

_OWN = ("description", "preprocessing", "preprocess", "num_features", "built_as")
"""What barlow itself adds to a network."""

_ORIGINS = ("pretrained_cfg", "default_cfg")
"""Where timm's networks have their weights from; it does not say what they do."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")

_TORCHS = frozenset(vars(nn.Module())) - set(_HOOKS)
"""What every module has: its tensors and parts, which are told by themselves, and what is for training."""


def what_it_does(network: nn.Module) -> str:
    """A digest of what tells a network from others with the same tensors.

    Args:
        network: anywhere. It is asked on the CPU, in eval mode, and is then as it was; nothing is drawn from the
            generators of the process.
    """
    of_noise, before = _answer(network, 0), _attributes(network)
    of_blocks, after = _answer(network, 1), _attributes(network)
    settings = {place: value for place, value in after.items() if before.get(place) == value}
    return digest_of([_shown(network), settings, of_noise, of_blocks])


def is_as_described(network: nn.Module) -> bool:
    """Whether a network that barlow loaded still is what its description says, but for its tensors. If somebody has
    changed a part of it, it is one given in Python."""
    config = description_of(network)
    if config["kind"] == "custom":
        return True  # which says nothing of it anyway
    built = as_described(config)
    return [_shown(network), _attributes(network)] == [_shown(built), _attributes(built)]


def _shown(network: nn.Module) -> str:
    """What it prints, without the places of objects in memory."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(network))


# --- Answers ----------------------------------------------------------------------------------------------------------


def _answer(network: nn.Module, number: int) -> Any:
    """What a network says of a batch of noise, coarsely; None if nobody knows what images it takes."""
    expected = getattr(network, "preprocessing", None)
    if not isinstance(expected, Preprocessing):
        return None
    try:
        if any(tensor.device.type != "cpu" for tensor in network.state_dict().values()):
            network = copy.deepcopy(network).cpu()
        with in_eval_mode(network), torch.no_grad(), seeded(0, "answer"):
            found = network(_noise(expected, number).to(memory_format=torch.channels_last))
        return _coarse(found.detach().double().cpu().numpy().ravel())
    except Exception as error:  # whatever a stranger's network does; what it looks like is told all the same
        return type(error).__name__


def _noise(expected: Preprocessing, number: int) -> Tensor:
    """Batch 0 has a number of its own at every pixel, and batch 1 at every block of 8 × 8 pixels."""
    height, width = height_width(expected.size)
    side = 8 if number else 1
    shape = IMAGES, expected.channels, -(-height // side), -(-width // side)
    drawn = np.random.default_rng(number).random(shape, np.float32) * 4 - 2
    pixels = drawn.repeat(side, 2).repeat(side, 3)[:, :, :height, :width]
    return torch.from_numpy(np.ascontiguousarray(pixels))


def _coarse(answer: np.ndarray) -> list[int] | str:
    """A few numbers of many. Each is rounded at places that have nothing to do with simple answers, such as all 0."""
    size = float(np.sqrt(np.mean(answer**2))) if answer.size else 0.0
    if not np.isfinite(size) or size == 0:
        return f"{answer.size} numbers of {size}"
    signs = np.random.default_rng(2).random((SUMS, answer.size)) - 0.5
    sums = signs @ (answer / size) / np.sqrt(answer.size)
    return [answer.size, *(int(np.floor(STEPS * each + 0.3)) for each in (np.log2(size), *sums))]


# --- Attributes -------------------------------------------------------------------------------------------------------


def _attributes(network: nn.Module) -> dict[str, str]:
    """Of every part of a network its class, its attributes, its hooks and its buffers that are not saved, as digests.

    Each is told anew, so that one that changes has no part in how others are told.
    """
    found: dict[str, str] = {}
    classes: dict[type, str] = {}
    for name, part in network.named_modules():
        kind = type(part)
        if kind not in classes:
            classes[kind] = digest_of(_Told().of(kind))
        found[name] = classes[kind]
        left_out = (*_ORIGINS, *(_OWN if part is network else ()))
        for key, value in vars(part).items():
            if key not in _TORCHS and key not in left_out:
                held = list(value.values()) if key in _HOOKS else value
                found[f"{name}.{key}"] = digest_of(_Told().of(held))
        if isinstance(part, torch.jit.ScriptModule):
            found[f"{name} graph"] = str(getattr(part, "code", ""))
            continue
        for key in part._non_persistent_buffers_set:
            found[f"{name}.{key}"] = digest_of(_Told().of(part._buffers.get(key)))
    return found


_PLAIN = (int, float, complex, str, bytes, np.generic, Enum, PurePath, torch.dtype, torch.device)
"""What shows all that it is."""


class _Told:
    """Objects as lists of texts and numbers that are the same in another process."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._held: list[object] = []  # an object that is gone may leave its number to another one

    def of(self, thing: Any) -> Any:
        """What an object is and holds. Of one that has been told, which one it was."""
        if thing is None or isinstance(thing, _PLAIN):
            return repr(thing)
        if isinstance(thing, Tensor):
            return _of_tensor(thing)
        if isinstance(thing, np.ndarray) and thing.dtype != object:
            return ["array", str(thing.dtype), list(thing.shape), sha256(np.ascontiguousarray(thing).tobytes())]
        if isinstance(thing, ModuleType):
            return ["module", thing.__name__]
        if id(thing) in self._numbers:
            return ["told", self._numbers[id(thing)]]
        if len(self._held) >= MOST:
            return _name_of(type(thing))
        self._numbers[id(thing)] = len(self._held)
        self._held.append(thing)
        return [_name_of(type(thing)), self._inside(thing)]

    def _inside(self, thing: Any) -> Any:
        if isinstance(thing, Mapping):
            return sorted((repr(self.of(key)), self.of(value)) for key, value in list(thing.items()))
        if isinstance(thing, list | tuple):
            return [self.of(each) for each in thing]
        if isinstance(thing, set | frozenset):
            return sorted(repr(_Told().of(each)) for each in thing)  # whose order differs between processes
        if isinstance(thing, functools.partial):
            return [self.of(each) for each in (thing.func, thing.args, thing.keywords)]
        if isinstance(thing, MethodType):
            whose = thing.__self__
            return [self.of(thing.__func__), None if isinstance(whose, nn.Module) else self.of(whose)]
        if isinstance(thing, FunctionType):
            return self._of_function(thing)
        if isinstance(thing, BuiltinFunctionType):
            return _name_of(thing)
        if (functions := _functions_in(thing)) is not None:
            return [self.of(each) for each in functions]
        if isinstance(thing, type):
            return [[_name_of(each), self._of_class(each)] for each in thing.__mro__ if each is not object]
        if isinstance(thing, nn.Module):
            parts = [self.of({k: v for k, v in vars(thing).items() if k not in _TORCHS}), self.of(type(thing))]
            return [*parts, self.of(dict(thing.state_dict())), self.of(dict(thing.named_children())), _shown(thing)]
        if _installed(type(thing)) and not dataclasses.is_dataclass(thing):
            return None  # what such an object holds may be another thing in each process
        return [self.of(dict(_held_by(thing))), self.of(type(thing))]

    def _of_class(self, kind: type) -> Any:
        if _installed(kind):
            return None
        # Of what has two underscores, Python and its versions add much that says nothing of what a class does.
        plain = {k: v for k, v in vars(kind).items() if not k.startswith("__") or isinstance(v, FunctionType)}
        return [[key, self.of(value)] for key, value in sorted(plain.items())]

    def _of_function(self, function: FunctionType) -> Any:
        if _installed(function):
            return _name_of(function)
        cells = [_content(cell) for cell in function.__closure__ or ()]
        used = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
        rest = [function.__defaults__, function.__kwdefaults__, cells, used]
        return [_of_code(function.__code__), *map(self.of, rest)]


def _of_tensor(tensor: Tensor) -> list[Any]:
    plain = tensor.detach().cpu().contiguous()
    if plain.is_quantized or plain.layout != torch.strided:
        return ["tensor", str(plain)]
    data = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    return ["tensor", str(tensor.dtype), list(tensor.shape), sha256(data)]


def _functions_in(thing: Any) -> list[Any] | None:
    """The functions of a property, of a static method and of the like; None of what is no such thing."""
    if isinstance(thing, property):
        return [thing.fget, thing.fset]
    if isinstance(thing, staticmethod | classmethod):
        return [thing.__func__]
    if isinstance(thing, functools.cached_property):
        return [thing.func]
    if isinstance(thing, functools._lru_cache_wrapper):
        return [thing.__wrapped__]
    return None


def _held_by(thing: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(thing, "__dict__", {}).items()
    for kind in type(thing).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                yield name, getattr(thing, name)


def _of_code(code: CodeType) -> list[Any]:
    """What code does: its bytes, and what they speak of. Where it stands is no part of it."""
    constants = [_of_code(each) if isinstance(each, CodeType) else _Told().of(each) for each in code.co_consts]
    return [code.co_code.hex(), constants, list(code.co_names), list(code.co_varnames), list(code.co_freevars)]


def _names(code: CodeType) -> Iterator[str]:
    """What code may take from its file, in functions inside it too."""
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)


def _content(cell: CellType) -> Any:
    """What a function has of those around it; None of a name that is not given yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _name_of(thing: Callable[..., Any]) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"


def _installed(thing: Any) -> bool:
    """Whether a class or function is Python's, barlow's or an installed package's."""
    top = str(getattr(thing, "__module__", None) or "builtins").partition(".")[0]
    if top in sys.stdlib_module_names or top in ("barlow", "torch"):
        return True
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
