"""Whether two images are the same file: a short digest of each, cheap enough to be taken of every image that is read.

A digest is of the size and of three blocks of a file (start, middle, end), so that a large file need not be read whole.
Copies have equal digests. So do other files that agree in size and in all three blocks, but compressed images that
differ do so in their middle or at their end. The same picture in another format or quality has another digest.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096
"""Bytes of a block."""

UNKNOWN = 0
"""In place of the digest of an image that was not read."""

FORMAT = 1

Digests = NDArray[np.uint64]


def of_bytes(data: bytes) -> int:
    """The digest of a file that is in memory."""
    middle = max(0, len(data) // 2 - BLOCK // 2)
    return _digest(len(data), data[:BLOCK], data[middle : middle + BLOCK], data[-BLOCK:])


def of_file(file: BinaryIO, size: int) -> int:
    """The same of an open file, of which only the blocks are read. Its place changes."""
    blocks = []
    for at in (0, max(0, size // 2 - BLOCK // 2), max(0, size - BLOCK)):
        file.seek(at)
        blocks.append(file.read(BLOCK))
    return _digest(size, *blocks)


def of_pixels(image: NDArray[Any]) -> int:
    """The digest of an image of a set that has no files."""
    shape = f"{image.shape} {image.dtype}".encode()
    return of_bytes(shape + image.tobytes())


def _digest(size: int, *blocks: bytes) -> int:
    digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=8)
    for block in blocks:
        digest.update(block)
    return int.from_bytes(digest.digest(), "little") or 1


def as_json(digests: Digests) -> dict[str, Any]:
    """What a run keeps of the images that it was trained on."""
    known = np.unique(digests[digests != UNKNOWN])
    return {
        "format": FORMAT,
        "images": len(digests),
        "what": "digests of 64 bits, sorted, little endian, in base64; barlow.data.image_digests says of what",
        "digests": base64.b64encode(known.astype("<u8").tobytes()).decode("ascii"),
    }


def from_json(content: Mapping[str, Any]) -> Digests:
    """The digests that `as_json` wrote.

    Raises:
        ValueError: it is something else, or of a later version.
    """
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, of which {FORMAT} is read")
        return np.frombuffer(base64.b64decode(content["digests"], validate=True), "<u8").astype(np.uint64)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no list of digests ({error})") from error


def copies(digests: Digests) -> int:
    """How many images are copies of another one that counts itself."""
    known = digests[digests != UNKNOWN]
    return len(known) - len(np.unique(known))


def shared(digests: Digests, others: Digests) -> int:
    """How many of the first images are among the second."""
    return int(np.isin(digests[digests != UNKNOWN], others).sum())
