"""A linear SVM for each class, its cost chosen by cross-validation: the protocol of the papers' VOC07 column."""

import contextlib
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from barlow.machine import available_cores
from barlow.probes.average_precision import UNJUDGED, average_precision
from barlow.probes.drawn import Drawn
from barlow.probes.features import FeatureSet, check
from barlow.probes.intervals import Score
from barlow.probes.metrics import Predicted, highest, measure
from barlow.types import Features

__all__ = ["SVM"]

COSTS = (0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0)
"""VISSL's costs for VOC07 on the features of a ResNet."""

LARGE = 2**22
"""From so many numbers on (of the features, for each class), the classes are shared between processes. 1,000 images of
512 features and 8 classes are about so many. Fewer take less than starting the processes takes."""

CONVENTIONS = ("map_envelope", "map_11_point")
"""The first is what VISSL prints, and with it the papers; the second is the official rule of VOC 2007."""


@dataclass(frozen=True)
class SVM:
    """A linear SVM (squared hinge, dual) for each class against the rest, on rows of unit length.

    The cost of each class is the one whose mean average precision over three folds of the training images is highest;
    of equals the smallest. Then all training images are fitted with it. With a number, as in `svm:8`, it is the
    low-shot form: each class learns from that many positive images and (classes - 1) times as many negative ones, drawn
    anew for each of five draws.

    Source: VISSL's SVM trainer and its VOC07 configuration, the protocol of Barlow Twins (appendix C) and VICReg (C.3):
    features divided by (their length + 1e-5), class weights 2 for positives and 1 for negatives, eleven costs, at most
    2,000 iterations, tolerance 1e-4. VOC's "difficult" images are left out for their class, in training and in test.
    Convention: the mean over the classes of the area under the precision envelope (`map_envelope`), as VISSL has it,
    and by the eleven points of VOC 2007 (`map_11_point`); the folds choose by scikit-learn's average precision, which
    is a third convention. Where an image has one class only, its answer is the class of the highest decision value, and
    the metric is top-1. A class of fewer than three positive (or negative) images has nothing to choose by and takes
    cost 1; one that no training image has gets the same score for every image.
    Deviation: folds are made of fixed positions, as VISSL's are, but the solver's seed is fixed too. In the low-shot
    form VISSL reports the cost that is best on the test images. Here it is chosen as in the full form, on the drawn
    images.

    Args:
        positives: images of each class in the low-shot form; 0 for all.
        costs: that are tried, ascending.
        draws: of the low-shot form.
        seed: of the solver and the draws.
    """

    positives: int = 0
    costs: tuple[float, ...] = COSTS
    draws: int = 5
    seed: int = 0

    label: ClassVar[str] = "SVM"
    parameter: ClassVar[str | None] = "positives"
    usual: ClassVar[tuple[float, ...]] = ()
    several_labels: ClassVar[bool] = True
    trains_encoder: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.positives < 0 or self.draws < 1:
            raise ValueError(
                f"{self.positives} positive images of each class, and {self.draws} draws; use 1 or more of each, or no "
                "number for all images"
            )
        if not self.costs or list(self.costs) != sorted(self.costs) or self.costs[0] <= 0:
            raise ValueError(f"costs are {self.costs}; use one or more positive values, ascending")

    def predict(self, train: FeatureSet, test: Features) -> Predicted | Drawn:
        check(train, test)
        x, z = _in_fewer_columns(_directions(train.features), _directions(test))
        classes = None if train.several_labels else np.unique(train.labels).astype(np.int64)
        given = train.labels if classes is None else (train.labels[:, None] == classes).astype(np.int8)
        if not self.positives:
            scores, notes = self._decisions(x, given, z)
            if classes is None:
                return Predicted(scores, None, notes, conventions=CONVENTIONS)
            return Predicted(_shares(scores), classes, notes)
        found = [self._decisions(x, self._drawn(given, draw), z) for draw in range(self.draws)]
        notes = {"draws": self.draws, "positives_a_class": self.positives, "each": [noted for _, noted in found]}
        held_out = [noted["held_out_score"] for _, noted in found if "held_out_score" in noted]
        if held_out:
            notes["held_out_score"] = float(np.mean(held_out))
        scores = np.stack([scores for scores, _ in found])
        if classes is None:
            return Drawn(None, scores, given.shape[1], notes, CONVENTIONS)
        return Drawn(np.stack([classes[highest(each, 5)] for each in scores]), None, len(classes), notes)

    def __call__(self, train: FeatureSet, test: FeatureSet) -> dict[str, Score]:
        return measure(self.predict(train, test.features), test.labels)

    def _drawn(self, given: np.ndarray, draw: int) -> np.ndarray:
        """The labels of a draw: of each class some positive and negative images, and `UNJUDGED` for the rest."""
        generator = np.random.default_rng([self.seed, draw])
        kept = np.full(given.shape, UNJUDGED, np.int8)
        for column in range(given.shape[1]):
            for value, count in ((1, self.positives), (0, (given.shape[1] - 1) * self.positives)):
                rows = generator.permutation(np.flatnonzero(given[:, column] == value))[:count]
                kept[rows, column] = value
        return kept

    def _decisions(self, x: np.ndarray, given: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """The decision values of all classes, (n, k), and what was chosen for each."""
        if x.size * given.shape[1] < LARGE or available_cores() == 1:
            with _one_thread():
                found = [self._of_class(x, label, z) for label in given.T]
        else:
            from sklearn.utils.parallel import Parallel, delayed

            # In processes, as liblinear draws from one generator that all threads would share.
            found = Parallel(n_jobs=available_cores())(delayed(self._of_class)(x, label, z) for label in given.T)
        held_out = [each.held_out for each in found if each.held_out is not None]
        notes = {"costs": [each.cost for each in found], "not_converged": sum(not each.converged for each in found)}
        if held_out:
            notes["held_out_score"] = float(np.mean(held_out))
        return np.stack([each.scores for each in found], axis=1), notes

    def _of_class(self, x: np.ndarray, label: np.ndarray, z: np.ndarray) -> "_OfClass":
        rows = np.flatnonzero(label != UNJUDGED)
        target = label[rows] == 1
        if not target.any() or target.all():
            return _OfClass(np.zeros(len(z)), None, None, True)
        mine = x if len(rows) == len(x) else x[rows]
        cost, held_out = self._choose(mine, target)
        model = self._fitted(mine, target, cost)
        return _OfClass(model.decision_function(z), cost, held_out, bool(model.n_iter_ < model.max_iter))

    def _choose(self, x: np.ndarray, target: np.ndarray) -> tuple[float, float | None]:
        """The cost, and the mean average precision of its folds; None where there are too few images to tell."""
        from sklearn.model_selection import StratifiedKFold

        if len(self.costs) == 1:
            return self.costs[0], None
        if min(target.sum(), (~target).sum()) < 3:
            return 1.0, None
        folds = list(StratifiedKFold(3).split(x, target))
        means = np.zeros(len(self.costs))
        for fit, held in folds:
            mine, answers, others = x[fit], target[fit], x[held]
            for place, cost in enumerate(self.costs):
                decided = self._fitted(mine, answers, cost).decision_function(others)
                means[place] += average_precision(decided, target[held])[0] / len(folds)
        best = int(means.argmax())
        return self.costs[best], float(means[best])

    def _fitted(self, x: np.ndarray, target: np.ndarray, cost: float) -> Any:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC

        model = LinearSVC(
            C=cost, class_weight={True: 2.0, False: 1.0}, dual=True, max_iter=2000, tol=1e-4, random_state=self.seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # counted as `not_converged` instead
            return model.fit(x, target)


@dataclass(frozen=True)
class _OfClass:
    """What was found for a class: the decision values of the test images, the cost, and what it was chosen by."""

    scores: np.ndarray
    cost: float | None
    held_out: float | None
    converged: bool


def _directions(features: Features) -> np.ndarray:
    x = features.detach().cpu().double().numpy()
    return np.ascontiguousarray(x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-5))


def _in_fewer_columns(x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features of train and test by as many coordinates as there are training images, if they have more.

    The solution is a sum of training images, so of a feature only its part in the space that these span counts. That
    part is turned onto the axes, which changes no product of two images and so no step of the solver. Of 300 images of
    27,648 pixels each the solver then sees 300 columns.
    """
    if x.shape[1] <= len(x):
        return x, z
    axes, turned = np.linalg.qr(x.T)
    return np.ascontiguousarray(turned.T), np.ascontiguousarray(z @ axes)


def _shares(decisions: np.ndarray) -> np.ndarray:
    """Decision values as shares of each row, in the same order."""
    powers = np.exp(decisions - decisions.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _one_thread() -> contextlib.AbstractContextManager[object]:
    """liblinear works on one thread, and its many short products are slower on more."""
    from sklearn.utils.parallel import _get_threadpool_controller

    return _get_threadpool_controller().limit(limits=1)
