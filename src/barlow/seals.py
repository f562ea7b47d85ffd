"""Digests that a file carries of itself, so that one flipped bit, or a hand that edited it, is noticed.

A table of JSON has the SHA-256 of the rest under one more key, and tensors have it as one more tensor.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from barlow.exits import UnusableData

if TYPE_CHECKING:
    from torch import Tensor

SEAL = "sha256"
"""The key of the digest."""


class Damaged(UnusableData):
    """Bytes that are there are not those that were written."""


def sha256(data: bytes) -> str:
    """The SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def finite(content: Any) -> Any:
    """What JSON can hold of some content: not-a-number and infinities become null, and keys text."""
    if isinstance(content, float) and (content != content or content in (float("inf"), float("-inf"))):
        return None
    if isinstance(content, Mapping):
        return {str(key): finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return content


def digest_of(content: Any) -> str:
    """The SHA-256 of what JSON can hold, whatever its layout and the order of its keys."""
    return sha256(json.dumps(finite(content), sort_keys=True, separators=(",", ":")).encode())


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A table with the digest of itself."""
    plain = finite(content)
    assert SEAL not in plain
    return {**plain, SEAL: digest_of(plain)}


def unsealed(content: Any, place: object) -> dict[str, Any]:
    """A table without its seal, which is checked. One without a seal is taken as it is: older versions wrote none.

    Args:
        content: what JSON held.
        place: what messages call it.

    Raises:
        Damaged: it is no table, or not the one that was sealed.
    """
    if not isinstance(content, dict):
        raise Damaged(f"{place} is not a table of JSON; it may be damaged")
    rest = {key: value for key, value in content.items() if key != SEAL}
    if SEAL in content and content[SEAL] != digest_of(rest):
        raise Damaged(f"{place} was changed after it was written (its SHA-256 differs)")
    return rest


def sealed_tensors(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Tensors with the digest of them all: names, types, shapes and bytes."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        if value.numel():  # an empty tensor cannot be seen as bytes
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return {**tensors, SEAL: torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)}


def unsealed_tensors(tensors: "Mapping[str, Tensor]", place: object) -> "dict[str, Tensor]":
    """Tensors without their seal, which is checked.

    Raises:
        Damaged: they have none, or are not those that were sealed.
    """
    rest = {name: value for name, value in tensors.items() if name != SEAL}
    if SEAL not in tensors or not tensors[SEAL].equal(sealed_tensors(rest)[SEAL]):
        raise Damaged(f"{place} is not what was written (its SHA-256 differs)")
    return rest
