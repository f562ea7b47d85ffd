"""The logistic probe with its choice of penalty, beside the same fits by scikit-learn alone, each from cold."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import numpy as np
import torch
from clock import Cost, Stopwatch
from sklearn.linear_model import LogisticRegression

from barlow.probes import FeatureSet
from barlow.probes.splits import split, subset
from barlow.protocols.logistic import PATIENCE, STRENGTHS, Logistic

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

    def ours(self) -> Cost:
        watch = Stopwatch()
        predicted = Logistic().predict(self.train, self.test.features)
        took = watch.cost()
        self.right = float((predicted.predictions == self.test.labels).mean())
        return took

    def reference(self) -> Cost:
        """As in a notebook: standardise, one fit for each C on the part for choosing, the best one on all images."""
        watch = Stopwatch()
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
        took = watch.cost()
        if abs(right - self.right) > 0.005:
            raise SystemExit(f"ours has {100 * self.right:.2f} % right, scikit-learn alone {100 * right:.2f} %")
        return took


def rows(smoke: bool) -> Sequence[measure.Row]:
    """A quick look takes half of the images, and no reference."""
    count = 5_000 if smoke else 10_000
    fits = Fits(count)
    return [
        measure.Row(
            name=f"logistic_{count // 1000}k_512_10",
            what=f"logistic probe, penalty chosen: {count:,} x {WIDTH}, {CLASSES} classes",
            ours=fits.ours,
            reference=None if smoke else fits.reference,
            reference_name="scikit-learn, each fit from cold",
            at_most_seconds=20 * count / 50_000,
            warmups=0 if smoke else 1,
            work=(count, "images"),
        )
    ]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
