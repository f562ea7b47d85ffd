"""Whether the test images can be trusted: none is a training image too, and none has a class of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from barlow.data.folder import printable
from barlow.data.image_digests import Digests, shared, words


@dataclass(frozen=True)
class Overlap:
    """Identical images, in both sets and within each.

    Args:
        shared: the positions of those test images that the training set has too.
        twins: of each of these, the position of the first training image that it is.
        test: number of test images.
        repeated_train: number of training images that are copies of earlier ones.
        repeated_test: number of test images that are copies of earlier ones.
    """

    shared: list[int]
    twins: list[int]
    test: int
    repeated_train: int
    repeated_test: int

    @property
    def warning(self) -> str | None:
        """One line for whoever reads the numbers; None if the sets have no image in common."""
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
    """Finds images that are the same pixel for pixel, from the hash of each (`barlow.data.labelled.pixel_hash`)."""
    train, test = list(train_hashes), list(test_hashes)
    known = {h: position for position, h in reversed([*enumerate(train)])}
    shared = [position for position, h in enumerate(test) if h in known]
    return Overlap(
        shared=shared,
        twins=[known[test[position]] for position in shared],
        test=len(test),
        repeated_train=len(train) - len(known),
        repeated_test=len(test) - len(set(test)),
    )


def seen_in_pretraining(test: Digests, pretraining: Digests) -> str | None:
    """One line on test images that the encoder was trained on, from digests of files (`barlow.data.image_digests`).

    An encoder has seen no labels of them, but it has seen them: what the numbers say of new images is less.
    """
    seen, certain = shared(test, pretraining)
    if not seen:
        return None
    were = "were" if certain else "seem to have been"
    by = words(True) if certain else f"which agree {words(False)}"
    return (
        f"{seen} of {len(test)} test images ({seen / len(test):.1%}) {were} among the images that the encoder was "
        f"pretrained on, {by}: new images may be harder; keep test images out of `barlow pretrain`"
    )


def missing_classes(test_labels: np.ndarray, classes: Sequence[str]) -> str | None:
    """One line on classes of which no test image is; None if there are none, or images have several labels."""
    if test_labels.ndim == 2:
        return None
    missing = [name for k, name in enumerate(classes) if k not in set(test_labels.tolist())]
    if not missing:
        return None
    return (
        f"the test images are of {len(classes) - len(missing)} of the {len(classes)} classes: the numbers say nothing "
        f"of {', '.join(map(printable, missing[:3]))}{' and others' if len(missing) > 3 else ''}"
    )


def unseen_classes(train_labels: np.ndarray, test_labels: np.ndarray) -> list[int]:
    """Classes that test images have and no training image has. No probe can predict them, so each of these images is
    an error, which the reader should know."""
    if train_labels.ndim == 2:
        return [int(c) for c in np.flatnonzero((test_labels == 1).any(axis=0) & ~(train_labels == 1).any(axis=0))]
    return [int(c) for c in np.setdiff1d(test_labels, train_labels)]
