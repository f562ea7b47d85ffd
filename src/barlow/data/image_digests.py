"""Whether two images are the same file: short digests of each, cheap enough to be taken of every image that is read.

There are two for each image. The first is of the size and of three blocks of a file (start, middle, end), so that a
large file need not be read whole; it is taken of every file, however it is read. The second is of the whole file,
and is taken where all of it is read anyway: of images that are held in memory or labelled, and of small files.

Only the second tells copies byte for byte. Other files may agree in size and in all three blocks: images that are not
compressed and dark everywhere else do. The same picture in another format or quality has other digests.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096
"""Bytes of a block."""

SMALL = 2**16
"""Bytes of a file that is read whole where otherwise its blocks would be: it costs no more."""

UNKNOWN = 0
"""In place of a digest that was not taken."""

FORMAT = 2
"""Of what `as_json` writes. Format 1 had digests of blocks alone."""

Digests = NDArray[np.uint64]
"""A row for each image: the digest of its blocks, and of the whole file."""


def none_yet(count: int) -> Digests:
    """Of so many images that were not read."""
    return np.full((count, 2), UNKNOWN, np.uint64)


def of_bytes(data: bytes) -> tuple[int, int]:
    """The digests of a file that is in memory."""
    middle = max(0, len(data) // 2 - BLOCK // 2)
    blocks = data[:BLOCK], data[middle : middle + BLOCK], data[-BLOCK:]
    return _digest(len(data), *blocks), _digest(len(data), data)


def of_file(file: BinaryIO, size: int) -> tuple[int, int]:
    """The same of an open file, of which only the blocks are read if it is large. Its place changes."""
    if size <= SMALL:
        file.seek(0)
        return of_bytes(file.read(SMALL))
    blocks = []
    for at in (0, size // 2 - BLOCK // 2, size - BLOCK):
        file.seek(at)
        blocks.append(file.read(BLOCK))
    return _digest(size, *blocks), UNKNOWN


def of_pixels(image: NDArray[Any]) -> tuple[int, int]:
    """The digests of an image of a set that has no files."""
    shape = f"{image.shape} {image.dtype}".encode()
    return of_bytes(shape + image.tobytes())


def _digest(size: int, *blocks: bytes) -> int:
    digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=8)
    for block in blocks:
        digest.update(block)
    return int.from_bytes(digest.digest(), "little") or 1


def as_json(digests: Digests) -> dict[str, Any]:
    """What a run keeps of the images that it was trained on."""
    known = np.unique(_known(digests), axis=0)
    return {
        "format": FORMAT,
        "images": len(digests),
        "what": "digests of 64 bits, sorted, little endian, in base64; barlow.data.image_digests says of what",
        "digests": _as_text(known[:, 0]),
        "whole": _as_text(known[:, 1]) if known[:, 1].any() else "",
    }


def from_json(content: Mapping[str, Any]) -> Digests:
    """The digests that `as_json` wrote.

    Raises:
        ValueError: it is something else, or of a later version.
    """
    try:
        if content["format"] not in (1, FORMAT):
            raise ValueError(f"format {content['format']}, of which 1 to {FORMAT} are read")
        blocks = _of_text(content["digests"])
        whole = _of_text(content.get("whole") or "")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no list of digests ({error})") from error
    if len(whole) not in (0, len(blocks)):
        raise ValueError(f"{len(blocks)} digests of blocks and {len(whole)} of whole files")
    found = none_yet(len(blocks))
    found[:, 0] = blocks
    if len(whole):
        found[:, 1] = whole
    return found


def _as_text(numbers: NDArray[np.uint64]) -> str:
    return base64.b64encode(numbers.astype("<u8").tobytes()).decode("ascii")


def _of_text(text: str) -> NDArray[np.uint64]:
    return np.frombuffer(base64.b64decode(text, validate=True), "<u8").astype(np.uint64)


def _known(digests: Digests) -> Digests:
    return digests[digests[:, 0] != UNKNOWN]


def copies(digests: Digests) -> tuple[int, bool]:
    """How many images are copies of another one that counts itself; and whether they are so byte for byte, where
    otherwise some are known to agree in size and in three blocks only."""
    known = _known(digests)
    blocks, whole = known[:, 0], known[:, 1]
    # Where one of several files was not read whole, all of them are compared by their blocks.
    part = np.isin(blocks, blocks[whole == UNKNOWN])
    sure, likely = (len(each) - len(np.unique(each)) for each in (whole[~part], blocks[part]))
    return sure + likely, not likely


def shared(digests: Digests, others: Digests) -> tuple[int, bool]:
    """How many of the first images are among the second; and whether they are so byte for byte."""
    known = _known(digests)
    sure = (known[:, 1] != UNKNOWN) & np.isin(known[:, 1], others[:, 1])
    # Two whole digests that differ say that the files do. Otherwise the blocks are all there is.
    by_blocks = np.where(known[:, 1] == UNKNOWN, np.isin(known[:, 0], others[:, 0]), False)
    by_blocks |= np.isin(known[:, 0], others[others[:, 1] == UNKNOWN, 0])
    likely = by_blocks & ~sure
    return int((sure | likely).sum()), not likely.any()


def all_whole(digests: Digests) -> bool:
    """Whether every image was read whole."""
    return bool((digests[:, 1] != UNKNOWN).all())


def words(certain: bool) -> str:
    """In what copies agree."""
    return "byte for byte" if certain else "in size and in three blocks of each file (large files are not read whole)"
