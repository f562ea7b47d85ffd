"""Logistic regression: a linear classifier without a learning rate to choose."""

import contextlib
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from barlow.probes.average_precision import macro_average_precision
from barlow.probes.features import FeatureSet, check, squarable
from barlow.probes.intervals import Score
from barlow.probes.metrics import Predicted, measure
from barlow.probes.splits import split, subset
from barlow.types import Features

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

__all__ = ["Logistic"]

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
"""The values of C that are tried, in decades. C is the inverse strength of the penalty.

On standardised features of CIFAR-10, chosen on 8,000 images, 1e-3 was best for pixels and 1 for 512 random
convolutional features. Below 1e-6 every class gets the same score. Above 100 a separable problem no longer changes.
"""

SMALL_PASS = 2**30
"""A fit with fewer multiplications than this in a pass over the features runs on one thread.

Products with few columns are short, and at the end of each the threads wait for each other. For example, 50,000 rows of
512 features for 10 classes (2**28) take 1.4 s on one thread, 0.9 s of it in products. On two threads they take 19 s
where another process has the second core.
"""

PATIENCE = 2
"""After so many decades with a worse held-out score than the best, weaker penalties are not tried. They are the slow
ones."""

FEW_HELD_OUT = 500
"""Of fewer held-out images one more or less decides nothing. A score is then worse only if it is lower by more than its
standard error. For example, of 60 images one is 1.7 points."""


@dataclass(frozen=True)
class Logistic:
    """Logistic regression fitted with L-BFGS, with a penalty that is chosen on a part of the training set.

    It minimises C · (sum of the cross-entropy) + ‖W‖² / 2; the bias has no penalty. C is chosen by the score on
    held-out images (top-1, or mean average precision where an image may have several labels). The split is stratified,
    and of at most `selection_rows` training images. The penalties are tried from strong to weak, and each fit starts
    from the last; of equal scores the strongest penalty wins. Once the score has risen and then was worse for two
    decades of C, weaker penalties are not tried. Then all training images are fitted with that C. The test set takes no
    part.

    Features are standardised with the training set's mean and standard deviation. So one grid of C serves features of
    any scale and offset (encoders, pixels), and the fit is well conditioned. Rows scaled to unit length would instead
    lose their norm and keep a common offset. A feature that is constant on the training set is left out.

    Source: the L-BFGS probe of A. Radford et al., "Learning transferable visual models from natural language
    supervision" (2021), appendix A.3.
    Deviation: features are standardised, and the grid is coarser. The SGD protocol of the papers' tables gives other
    numbers; it is `linear_sgd`.
    Convention: where an image may have several labels, each label is fitted against the rest, all with the same C.

    Args:
        strengths: the values of C that are tried, ascending.
        selection_rows: at most this many training images are used to choose C.
        held_out: the part of them that scores each C, in (0, 1).
        max_iterations: of L-BFGS in each fit.
        tolerance: L-BFGS ends where the largest component of the mean loss's gradient is below this.
        seed: of the split.
    """

    label: ClassVar[str] = "logistic"
    parameter: ClassVar[str | None] = None
    usual: ClassVar[tuple[float, ...]] = ()
    several_labels: ClassVar[bool] = True
    trains_encoder: ClassVar[bool] = False

    strengths: tuple[float, ...] = STRENGTHS
    selection_rows: int = 10_000
    held_out: float = 0.2
    max_iterations: int = 500
    tolerance: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.strengths or list(self.strengths) != sorted(self.strengths) or self.strengths[0] <= 0:
            raise ValueError(f"strengths are {self.strengths}; use one or more positive values of C, ascending")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; use a part between 0 and 1")

    def fit(self, train: FeatureSet) -> "Fitted":
        """The classifier of these features, with the penalty that was chosen on a part of them."""
        check(train, train.features)
        standard = _Standard.of(train.features)
        x, y = standard.apply(train.features.detach().float().cpu()).numpy(), train.labels
        generator = np.random.default_rng(self.seed)
        some = subset(y, self.selection_rows, generator)
        fit, held = split(y[some], self.held_out, generator)
        fit, held = some[fit], some[held]
        notes: dict[str, Any] = {"held_out_images": len(held)}
        c, start = 1.0, None  # 1 is scikit-learn's default; it stays where there are too few images to choose
        columns = y.shape[1] if train.several_labels else len(np.unique(y))
        with _threads(len(fit) * x.shape[1] * columns):
            if len(held):
                c, start, best = self._choose(x[fit], y[fit], x[held], y[held])
                notes |= {
                    "held_out_score": best,
                    "at_edge": len(self.strengths) > 1 and c in (self.strengths[0], self.strengths[-1]),
                }
        model = start or _Classifiers(y, self.max_iterations, self.tolerance)
        with _threads(x.size * columns):
            model.fit(x, y, c)
        notes |= {"C": c, "iterations": model.iterations, "converged": model.iterations < self.max_iterations}
        return Fitted(standard, model, None if train.several_labels else np.unique(y).astype(np.int64), notes)

    def predict(self, train: FeatureSet, test: Features) -> Predicted:
        check(train, test)
        fitted = self.fit(train)
        return Predicted(fitted.scores(test.detach().float().cpu()), fitted.classes, fitted.notes)

    def __call__(self, train: FeatureSet, test: FeatureSet) -> dict[str, Score]:
        return measure(self.predict(train, test.features), test.labels)

    def _choose(
        self, x: np.ndarray, y: np.ndarray, x_held: np.ndarray, y_held: np.ndarray
    ) -> tuple[float, "_Classifiers", float]:
        model = _Classifiers(y, self.max_iterations, self.tolerance)
        chosen, best, since, weights = self.strengths[0], -1.0, 0, None
        for c in self.strengths:
            model.fit(x, y, c)
            score = _held_out_score(model.scores(x_held), y, y_held)
            if score > best:
                chosen, best, since, weights = c, score, 0, model.weights()
            elif chosen > self.strengths[0] and _is_worse(score, best, len(x_held)):
                since += 1
            if since == PATIENCE:
                break
        model.start_from(weights)
        return chosen, model, best


def _is_worse(score: float, best: float, images: int) -> bool:
    """Whether a held-out score says that a penalty is too weak. One that equals the best says nothing."""
    doubt = math.sqrt(best * (1 - best) / images) if images < FEW_HELD_OUT else 0.0
    return score < best - doubt


def _held_out_score(scores: np.ndarray, y: np.ndarray, y_held: np.ndarray) -> float:
    if y.ndim == 2:
        return float(np.nan_to_num(macro_average_precision(scores, y_held)[0]))
    return float((np.unique(y)[scores.argmax(axis=1)] == y_held).mean())


class _Classifiers:
    """scikit-learn's estimator, or one for each label where an image may have several. A fit starts from the last."""

    def __init__(self, labels: np.ndarray, max_iterations: int, tolerance: float):
        from sklearn.linear_model import LogisticRegression  # takes a second to import, and kNN does not need it

        self._each = [
            LogisticRegression(solver="lbfgs", max_iter=max_iterations, tol=tolerance, warm_start=True)
            for _ in range(labels.shape[1] if labels.ndim == 2 else 1)
        ]
        self._constant: dict[int, float] = {}
        self._several = labels.ndim == 2
        self.iterations = 0

    def fit(self, x: np.ndarray, y: np.ndarray, c: float) -> None:
        from sklearn.exceptions import ConvergenceWarning

        self.iterations, self._constant = 0, {}
        for column, model in enumerate(self._each):
            target = (y[:, column] == 1).astype(np.int64) if self._several else y
            if self._several and target.min() == target.max():
                self._constant[column] = float(target[0])  # nothing to tell apart: every image gets the same score
                continue
            model.set_params(C=c)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # reported as `converged` instead
                model.fit(x, target)
            self.iterations = max(self.iterations, int(model.n_iter_.max()))

    def scores(self, x: np.ndarray) -> np.ndarray:
        if not self._several:
            return np.asarray(self._each[0].predict_proba(x), dtype=np.float64)
        return np.stack(
            [
                np.full(len(x), self._constant[column])
                if column in self._constant
                else np.asarray(model.predict_proba(x)[:, 1], dtype=np.float64)
                for column, model in enumerate(self._each)
            ],
            axis=1,
        )

    def weights(self) -> list[tuple[np.ndarray, np.ndarray] | None]:
        return [_weights(model) for model in self._each]

    def start_from(self, weights: list[tuple[np.ndarray, np.ndarray] | None] | None) -> None:
        for model, kept in zip(self._each, weights or [], strict=False):
            if kept is not None:
                model.coef_, model.intercept_ = kept


def _weights(model: "LogisticRegression") -> tuple[np.ndarray, np.ndarray] | None:
    return (model.coef_.copy(), model.intercept_.copy()) if hasattr(model, "coef_") else None


def _threads(multiplications: int) -> contextlib.AbstractContextManager[object]:
    """Limits small fits to one thread, and leaves large ones to the libraries' own number of threads."""
    from sklearn.utils.parallel import _get_threadpool_controller

    small = multiplications < SMALL_PASS
    return _get_threadpool_controller().limit(limits=1) if small else contextlib.nullcontext()


@dataclass(frozen=True)
class _Standard:
    """The mean and the standard deviation of training features, by which features are standardised.

    Args:
        mean, std: float32, of the features that vary.
        varies: which do.
    """

    mean: torch.Tensor
    std: torch.Tensor
    varies: torch.Tensor

    @classmethod
    def of(cls, train: Features) -> "_Standard":
        rows = train.detach().float().cpu()
        factor = squarable(rows)
        variance, mean = torch.var_mean(rows if factor == 1 else rows * factor, dim=0, correction=0)
        std, mean = variance.sqrt() / factor, mean / factor
        # A feature that varies by less than some hundred roundings of its mean varies by rounding only. Dividing by so
        # small a deviation would turn the rounding into a feature.
        varies = std > 1e-5 * mean.abs()
        if not bool(varies.any()):
            varies[:1] = True  # nothing varies: from one column of zeros, the classifier learns the class counts
            std = std.masked_fill(std == 0, 1)
        return cls(mean[varies], std[varies], varies)

    def apply(self, features: torch.Tensor) -> torch.Tensor:
        """Standardised, in the precision that they have. In float32 a fit is twice as fast as in float64."""
        if not bool(self.varies.all()):
            features = features[:, self.varies]
        return features.sub(self.mean).div_(self.std)


@dataclass(frozen=True)
class Fitted:
    """A classifier that was fitted, and how.

    Args:
        standard: by which features are standardised.
        model: scikit-learn's.
        classes: the classes of its columns; None where an image may have several labels.
        notes: C, and how well it was chosen and fitted.
    """

    standard: _Standard
    model: "_Classifiers"
    classes: np.ndarray | None
    notes: dict[str, Any]

    def scores(self, features: torch.Tensor) -> np.ndarray:
        """The probability of each class (or label), (n, k) float64, computed in the precision of the features."""
        return self.model.scores(self.standard.apply(features).numpy())
