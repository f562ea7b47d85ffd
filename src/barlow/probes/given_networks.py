"""What a network does that was given in Python, as a digest: its tensors do not show it, and no description does.

Two such networks may have the same tensors and be different functions: one pools by the mean and the other by the
maximum, or an attribute or a buffer that is not saved differs. So the digest has what the network prints, the plain
attributes of its parts, and how it answers two batches of fixed noise.

Convention: the digest must be the same in the next process, or what was kept is never found again. Answers are compared
coarsely, as their last bits differ between machines and numbers of threads. What the network itself changes when it
answers (counts, caches) is left out.
"""

import copy
import functools
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
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

STEPS = 1024
"""A number of an answer is told in so many parts of the answers' root mean square. So a last bit rarely changes what is
told, and another function nearly always does."""

SUMS = 4
"""Random sums of an answer that are told, beside its root mean square."""

_OWN = ("description", "preprocessing", "preprocess", "num_features", "built_as", "pretrained_cfg", "default_cfg")
"""What barlow itself adds to a network, and where timm's networks have their weights from."""

_TORCHS = frozenset(vars(nn.Module()))
"""What every module has: its tensors and parts, which are told by themselves, and what is for training."""

_PLAIN = (bool, int, float, complex, str, bytes, np.generic, Enum, PurePath, torch.dtype, torch.device)
"""What shows all that it is."""


def what_it_does(network: nn.Module) -> str:
    """A digest of what tells a network from others with the same tensors.

    Args:
        network: anywhere. It is asked on the CPU, in eval mode, and is then as it was; nothing is drawn from the
            generators of the process.
    """
    of_noise, before = _answer(network, 0), _settings(network)
    of_blocks, after = _answer(network, 1), _settings(network)
    kept = {place: told for place, told in after.items() if before.get(place) == told}
    return digest_of([_shown(network), kept, of_noise, of_blocks])


def is_as_described(network: nn.Module) -> bool:
    """Whether a network that barlow loaded still is what its description says, but for its tensors. If somebody has
    changed a part of it, it is one given in Python."""
    config = description_of(network)
    if config["kind"] == "custom":
        return True  # which says nothing of it anyway
    built = as_described(config)
    return [_shown(network), _settings(network)] == [_shown(built), _settings(built)]


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


# --- Settings ---------------------------------------------------------------------------------------------------------


def _settings(network: nn.Module) -> dict[str, Any]:
    """Of every part of a network its class, its attributes, and its buffers that are not saved."""
    found: dict[str, Any] = {}
    for name, part in network.named_modules():
        found[name] = _name_of(type(part))
        found |= {f"{name}.{key}": _told(value) for key, value in vars(part).items() if key not in (*_TORCHS, *_OWN)}
        found[f"{name} hooks"] = len(part._forward_hooks) + len(part._forward_pre_hooks)
        unsaved = getattr(part, "_non_persistent_buffers_set", ())  # a traced part has none
        found |= {f"{name}.{key}": _told(part._buffers.get(key)) for key in unsaved}
    return found


def _told(thing: Any) -> Any:
    """What an attribute is, as texts that are the same in another process. Of an object that is not plain, its class:
    what it does shows in the answers."""
    if thing is None or isinstance(thing, _PLAIN):
        return repr(thing)
    if isinstance(thing, Tensor | np.ndarray):
        array = thing.detach().cpu().contiguous().numpy() if isinstance(thing, Tensor) else np.ascontiguousarray(thing)
        return [str(array.dtype), list(array.shape), sha256(array.tobytes())]
    if isinstance(thing, list | tuple):
        return [_told(each) for each in thing]
    if isinstance(thing, set | frozenset):
        return sorted(repr(_told(each)) for each in thing)  # whose order differs between processes
    if isinstance(thing, Mapping):
        return [[repr(_told(key)), _told(value)] for key, value in thing.items()]
    if isinstance(thing, functools.partial):
        return [_told(each) for each in (thing.func, thing.args, thing.keywords)]
    return _name_of(thing if hasattr(thing, "__qualname__") else type(thing))


def _name_of(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"
