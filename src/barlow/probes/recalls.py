"""Recall at k between images and captions: which share of the queries has a right answer among the first k."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from barlow.probes.intervals import Score, bootstrap, wilson

KS = (1, 5, 10)
"""The k of every table of image-text retrieval."""


@dataclass(frozen=True)
class Places:
    """Where the first right answer of every query stands, from 0 on.

    Args:
        of_images: of each image the best place of one of its captions, among all captions.
        of_captions: of each caption the place of its image, among all images.
        owner: of each caption the number of its image.
    """

    of_images: Int64[np.ndarray, "n"]
    of_captions: Int64[np.ndarray, "m"]
    owner: Int64[np.ndarray, "m"]

    def recalls(self) -> dict[str, Score]:
        """Recall at 1, 5 and 10 in both directions, with intervals of 95 % over the images.

        Convention: image to text counts a hit where any of the image's captions is among the first k. Text to image has
        one right answer. Captions of one image are no independent queries, so the interval of text to image draws
        images again, each with all of its captions (percentile bootstrap); that of image to text is Wilson's.
        """
        found = {}
        for k in KS:
            found[f"i2t_recall@{k}"] = wilson(int((self.of_images < k).sum()), len(self.of_images))
        for k in KS:
            found[f"t2i_recall@{k}"] = _over_images(self.of_captions < k, self.owner, len(self.of_images))
        return found


def _over_images(right: Bool[np.ndarray, "m"], owner: Int64[np.ndarray, "m"], images: int) -> Score:
    """The share of right answers, with an interval over the images that the queries belong to."""
    asked = np.bincount(owner, minlength=images)
    hits = np.bincount(owner, weights=right, minlength=images)
    low, high = bootstrap(lambda counts: counts @ hits / (counts @ asked), images)
    value = float(right.mean())
    return Score(value, min(low, value), max(high, value), images)


def places(
    images: Float[np.ndarray, "n d"], captions: Float[np.ndarray, "m d"], owner: Int64[np.ndarray, "m"]
) -> Places:
    """Places by cosine, in float64. Of equal cosines the earlier answer comes first.

    Args:
        images: embeddings of length 1.
        captions: the same of the captions.
        owner: of each caption the number of its image.
    """
    cosines = images.astype(np.float64) @ captions.astype(np.float64).T
    right = owner[None, :] == np.arange(len(images))[:, None]
    order = np.argsort(-cosines, axis=1, kind="stable")
    of_images = np.take_along_axis(right, order, axis=1).argmax(axis=1)
    order = np.argsort(-cosines.T, axis=1, kind="stable")
    of_captions = (order == owner[:, None]).argmax(axis=1)
    return Places(of_images, of_captions, owner)


def chance(captions_of_images: Sequence[int]) -> dict[str, float]:
    """Recalls where every order of the answers is equally likely.

    Args:
        captions_of_images: how many captions each image has.

    Example:
        >>> round(chance([5] * 200)["t2i_recall@10"], 3)
        0.05
    """
    images, captions = len(captions_of_images), sum(captions_of_images)
    found = {}
    for k in KS:
        wrong = [
            math.comb(captions - own, k) / math.comb(captions, k) if captions >= k else 0.0
            for own in captions_of_images
        ]
        found[f"i2t_recall@{k}"] = 1 - math.fsum(wrong) / images
    return found | {f"t2i_recall@{k}": min(k, images) / images for k in KS}
