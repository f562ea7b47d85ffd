"""Whether the test set is a fair one: no image of the training set is in it, and no class that training cannot know."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


def pixel_hash(image: np.ndarray) -> str:
    """A hash of decoded pixels and their shape: equal for a copy under another name or in another lossless format."""
    digest = hashlib.blake2b(f"{image.shape} {image.dtype};".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def fingerprint(hashes: Sequence[str], labels: np.ndarray | None = None) -> str:
    """One hash for a set of images, in their order, and their labels. It is part of the key of cached features."""
    digest = hashlib.sha256("\n".join(hashes).encode())
    if labels is not None:
        digest.update(f"{labels.shape};".encode() + np.ascontiguousarray(labels.astype(np.int64)).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Overlap:
    """Identical images across and within the two sets.

    Args:
        shared: positions of test images that the training set has too.
        test: number of test images.
        repeated_train: training images that are a copy of an earlier one.
        repeated_test: test images that are a copy of an earlier one.
    """

    shared: list[int]
    test: int
    repeated_train: int
    repeated_test: int

    @property
    def warning(self) -> str | None:
        """One line for the person who reads the number, or None if the sets have no image in common."""
        if not self.shared:
            return None
        if len(self.shared) == self.test:
            return (
                f"every one of the {self.test} test images is in the training set: this measures memory, not "
                "generalisation; give --test other images"
            )
        return (
            f"{len(self.shared)} of {self.test} test images ({len(self.shared) / self.test:.1%}) are in the training "
            "set too, pixel for pixel: the numbers are too high; remove them from --train"
        )


def overlap(train_hashes: Iterable[str], test_hashes: Iterable[str]) -> Overlap:
    """Finds images that are the same pixel for pixel, from their hashes (`pixel_hash`), one per image and in order."""
    train, test = list(train_hashes), list(test_hashes)
    known = set(train)
    return Overlap(
        shared=[position for position, h in enumerate(test) if h in known],
        test=len(test),
        repeated_train=len(train) - len(known),
        repeated_test=len(test) - len(set(test)),
    )


def unseen_classes(train_labels: np.ndarray, test_labels: np.ndarray) -> list[int]:
    """Classes that test images have and no training image has. Each such image counts as an error: users are told."""
    if train_labels.ndim == 2:
        return [int(c) for c in np.flatnonzero(test_labels.any(axis=0) & ~train_labels.any(axis=0))]
    return [int(c) for c in np.setdiff1d(test_labels, train_labels)]
