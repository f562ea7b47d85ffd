"""The logistic probe with its choice of penalty, beside the same fits by scikit-learn alone, each from cold."""

import sys
import time
from collections.abc import Sequence

import measure
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from barlow.probes import FeatureSet
from barlow.probes.logistic import PATIENCE, STRENGTHS, Logistic, split, subset

CLASSES, WIDTH = 10, 512


def encoded(count: int) -> FeatureSet:
    """Features as an encoder gives them: not negative, correlated, with a spectrum that falls as 1 / i, a class in nine
    directions."""
    draws = torch.Generator().manual_seed(0)
    spectrum = 8 / torch.arange(1, WIDTH + 1).sqrt()
    centres = 3 * torch.randn(CLASSES, WIDTH, generator=draws) * (torch.arange(WIDTH) < CLASSES - 1)
    turned = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=draws))[0]
    labels = torch.randint(CLASSES, (count,), generator=draws)
    features = (centres[labels] + spectrum * torch.randn(count, WIDTH, generator=draws)) @ turned
    return FeatureSet(features.relu_(), labels.numpy(), np.arange(count))


class Fits:
    """The whole path, ours and theirs; both must predict as well."""

    def __init__(self, count: int) -> None:
        images = encoded(count + 10_000)
        self.train = FeatureSet(images.features[:count], images.labels[:count], images.ids[:count])
        self.test = FeatureSet(images.features[count:], images.labels[count:], images.ids[count:])
        self.right = 0.0

    def ours(self) -> float:
        before = time.perf_counter()
        predicted = Logistic().predict(self.train, self.test.features)
        took = time.perf_counter() - before
        self.right = float((predicted.predictions == self.test.labels).mean())
        return took

    def reference(self) -> float:
        """As in a notebook: standardise, one fit for each C on the part for choosing, the best one on all images."""
        before = time.perf_counter()
        probe, y = Logistic(), self.train.labels
        x, z = self.train.features.numpy(), self.test.features.numpy()
        mean, std = x.mean(axis=0), x.std(axis=0)
        x, z = (x - mean) / std, (z - mean) / std
        draws = np.random.default_rng(probe.seed)
        some = subset(y, probe.selection_rows, draws)
        fit, held = (some[part] for part in split(y[some], probe.held_out, draws))
        best, chosen, since = -1.0, 0.0, 0
        for c in STRENGTHS:
            model = LogisticRegression(C=c, tol=probe.tolerance, max_iter=probe.max_iterations).fit(x[fit], y[fit])
            score = model.score(x[held], y[held])
            best, chosen, since = (score, c, 0) if score > best else (best, chosen, since + 1)
            if since == PATIENCE:
                break
        model = LogisticRegression(C=chosen, tol=probe.tolerance, max_iter=probe.max_iterations).fit(x, y)
        right = model.score(z, self.test.labels)
        took = time.perf_counter() - before
        if abs(right - self.right) > 0.005:
            raise SystemExit(f"ours has {100 * self.right:.2f} % right, scikit-learn alone {100 * right:.2f} %")
        return took


def rows(smoke: bool) -> Sequence[measure.Row]:
    """A quick look takes a tenth of the images."""
    count = 5_000 if smoke else 50_000
    fits = Fits(count)
    return [
        measure.Row(
            f"logistic_{count // 1000}k_512_10",
            f"logistic probe, penalty chosen: {count:,} x {WIDTH}, {CLASSES} classes",
            fits.ours,
            None if smoke else fits.reference,
            "scikit-learn, each fit from cold",
            at_most_seconds=20 * count / 50_000,
            rounds=1,  # the reference takes long where another process has a core
            warmups=0,
            work=(count, "images"),
        )
    ]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
