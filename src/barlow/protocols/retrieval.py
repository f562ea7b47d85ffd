"""Search: each test image looks for training images of its class, the most similar first."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from barlow.probes.average_precision import UNJUDGED
from barlow.probes.features import FeatureSet, check
from barlow.probes.intervals import Score
from barlow.probes.metrics import measure
from barlow.probes.ranked import Ranked
from barlow.types import Features

__all__ = ["Retrieval"]

BLOCK = 2**22
"""Similarities that are held at a time: 32 MiB."""


@dataclass(frozen=True)
class Retrieval:
    """The test images are queries, and the training images are what is searched. Nothing is fitted.

    The training images are put in order of their cosine to the query, all of them. `map` is the mean over the queries
    of the average precision of that order, where the images of the query's class are right: the mean, over all right
    images, of the share of right ones among those up to there. `recall_at_k` is the share of the queries that have at
    least one right image among the first k.

    Source: the definitions are those of H. Oh Song et al., "Deep metric learning via lifted structured feature
    embedding" (CVPR 2016) for recall at k, and of J. Philbin et al., "Object retrieval with large vocabularies and fast
    spatial matching" (CVPR 2007) for average precision over the whole order.
    Convention: features are scaled to unit length. Images of equal cosines are put in a random order, always the same
    one for a query: in the order of their files, which often is that of their classes, features that do not vary would
    find more than chance. A query whose class the training set lacks counts as 0. Where an image may have several
    labels, each label of the query is a search of its own, and the query counts with the mean over them; queries
    without a label are left out.
    Deviation: those papers search among the test images themselves, with the query left out.
    """

    label: ClassVar[str] = "search"
    parameter: ClassVar[str | None] = None
    usual: ClassVar[tuple[float, ...]] = ()
    several_labels: ClassVar[bool] = True
    trains_encoder: ClassVar[bool] = False

    def predict(self, train: FeatureSet, test: Features) -> Ranked:
        check(train, test)
        several = train.several_labels
        classes = None if several else np.unique(train.labels).astype(np.int64)
        width = train.labels.shape[1] if classes is None else len(classes)
        precision = np.zeros((len(test), width))
        first = np.full((len(test), width), np.iinfo(np.int64).max)
        for rows, order in orders(train.features, test):
            if classes is None:
                _fill_labels(order, train.labels, precision[rows], first[rows])
            else:
                _fill_classes(order, np.searchsorted(classes, train.labels), precision[rows], first[rows])
        return Ranked(precision, first, classes, {"searched": len(train)}, *_counts(train.labels, classes))

    def __call__(self, train: FeatureSet, test: FeatureSet) -> dict[str, Score]:
        return measure(self.predict(train, test.features), test.labels)


def _counts(labels: np.ndarray, classes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """How many images have each class, and among how many; of a label, among those whose label is judged."""
    if classes is not None:
        return (labels[:, None] == classes).sum(axis=0), np.full(len(classes), len(labels))
    return (labels == 1).sum(axis=0), (labels != UNJUDGED).sum(axis=0)


def orders(train: Features, test: Features) -> Iterator[tuple[slice, np.ndarray]]:
    """For blocks of test rows: which rows they are, and the positions of all training rows, the most similar first.

    On the unit sphere the order of the cosines is that of the distances, and these stay the same when a point is
    subtracted from all: the mean, so that features which point nearly the same way are told apart. It is computed in
    float64. Rows that are equally similar are in an order drawn from the position of the test row.
    """
    searched = _directions(train)
    # A feature that does not vary must give exactly 0, so that rows which are the same are equally similar.
    least, most = searched.aminmax(dim=0)
    mean = torch.where(least == most, least, searched.mean(dim=0))
    searched -= mean
    lengths = searched.square().sum(dim=1) / 2
    step = max(1, BLOCK // len(train))
    for start in range(0, len(test), step):
        rows = slice(start, min(start + step, len(test)))
        unlike = -((_directions(test[rows]) - mean) @ searched.T - lengths).numpy()
        order = np.argsort(unlike, axis=1, kind="stable")
        _shuffle_equals(order, unlike, start)
        yield rows, order


def _shuffle_equals(order: np.ndarray, unlike: np.ndarray, start: int) -> None:
    """Puts those that are equally unlike into a random order. Rows without such are left as they are."""
    ordered = np.take_along_axis(unlike, order, axis=1)
    for row in np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1)):
        keys = np.random.default_rng([start + int(row)]).random(order.shape[1])
        order[row] = np.lexsort((keys, unlike[row]))


def _directions(features: Features) -> Tensor:
    x = features.detach().cpu().double()
    return x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def _fill_classes(order: np.ndarray, columns: np.ndarray, precision: np.ndarray, first: np.ndarray) -> None:
    """Average precision and first place for every class at once.

    The places are sorted by class, which keeps them ascending within each. The j-th place of a class has j right images
    up to there.
    """
    small = columns.astype(np.uint16) if columns.max() < 2**16 else columns  # whose sort takes one pass a byte
    places = np.argsort(small[order], axis=1, kind="stable") + 1
    counts = np.bincount(columns)
    starts = np.cumsum(counts) - counts
    found = np.concatenate([np.arange(1, count + 1) for count in counts])
    precision[:] = np.add.reduceat(found / places, starts, axis=1) / counts
    first[:] = places[:, starts]


def _fill_labels(order: np.ndarray, labels: np.ndarray, precision: np.ndarray, first: np.ndarray) -> None:
    for column in range(labels.shape[1]):
        given = labels[:, column][order]
        right = given == 1
        total = right.sum(axis=1)
        if not total[0]:
            continue
        places, found = np.cumsum(given != UNJUDGED, axis=1), np.cumsum(right, axis=1)
        precision[:, column] = np.where(right, found / np.maximum(places, 1), 0.0).sum(axis=1) / total
        first[:, column] = np.take_along_axis(places, right.argmax(axis=1)[:, None], axis=1)[:, 0]
