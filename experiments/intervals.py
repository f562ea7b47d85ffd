"""How often intervals of an average precision hold it: the percentile bootstrap and that on logits, by simulation.

    python experiments/intervals.py

An image has the label with a chance of 7 %. Its score is normal, and some deviations higher with the label than without
it. The truth is the average precision of a million such images. A minute and a half; results/intervals.jsonl.
"""

import numpy as np
import results_line
from generated import ROOT

from barlow.probes.average_precision import average_precision
from barlow.probes.intervals import bootstrap, bootstrap_on_logits

PROGRAM, RESULTS = "experiments/intervals.py", ROOT / "results" / "intervals.jsonl"
SHARE, DRAWS = 0.07, 500
CASES = ((100, 1.5), (100, 2.0), (100, 3.0), (1_000, 1.5), (1_000, 3.0))
"""Images, and deviations between those with the label and those without."""


def drawn(images: int, apart: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and whether each image has the label, as at least one has."""
    labels = rng.random(images) < SHARE
    labels[0] |= not labels.any()
    return rng.normal(size=images) + apart * labels, labels


def coverage(images: int, apart: float) -> dict[str, dict[str, float]]:
    """Of each interval the share that holds the truth, and the share that lies above it."""
    truth = float(average_precision(*drawn(1_000_000, apart, np.random.default_rng(0)))[0])
    found: dict[str, list[tuple[float, float]]] = {"percentile": [], "logits": []}
    for draw in range(DRAWS):
        scores, labels = drawn(images, apart, np.random.default_rng([1, draw]))

        def statistic(counts: np.ndarray, scores: np.ndarray = scores, labels: np.ndarray = labels) -> np.ndarray:
            return average_precision(scores, labels, counts)

        value = float(average_precision(scores, labels)[0])
        found["percentile"].append(bootstrap(statistic, images))
        found["logits"].append(bootstrap_on_logits(statistic, value, images, int(labels.sum())))
    return {
        name: {
            "holds": round(float(np.mean([low <= truth <= high for low, high in ends])), 3),
            "above": round(float(np.mean([low > truth for low, _ in ends])), 3),
        }
        for name, ends in found.items()
    }


def main() -> None:
    cases = [{"images": images, "apart": apart, **coverage(images, apart)} for images, apart in CASES]
    for case in cases:
        print(case, flush=True)
    measured = {"share": SHARE, "draws": DRAWS, "cases": cases}
    results_line.append(results_line.assembled("intervals of an average precision", PROGRAM, measured), RESULTS)


if __name__ == "__main__":
    main()
