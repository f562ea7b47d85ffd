"""What tables of scores call things, and what has to be said below them."""

from collections.abc import Iterator

from barlow.probes.metrics import BALANCED, BEST_EPOCH
from barlow.probes.results import Outcome, Results
from barlow.protocols import label_of

AUGMENTED = "linear_sgd_augmented"
"""`linear_sgd` on augmented views. Only the encoder is measured in this way."""

HELD_OUT = "held_out_score"
"""What the notes of a protocol call the score by which it chose, on a part of the training images."""

ALIKE, NEARLY_ALL = "share_of_images_alike", 0.95
"""What the notes of a protocol call the share of the images whose features are the same; it is there from this on."""

_METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    BALANCED: "by class",
    BEST_EPOCH: "best epoch",
    "map": "mAP",
    "map_envelope": "env mAP",
    "map_11_point": "11-pt mAP",
    "recall_at_1": "R@1",
    "recall_at_5": "R@5",
    "recall_at_10": "R@10",
}
_BALANCED_WORDS = "By class: the mean over the classes of the share of each that is right; shown as their sizes differ."
_DRAWN_WORDS = (
    "Means over draws of training images, with intervals over the draws, or over the test images where all draws have "
    "one value: "
)

_BEST_EPOCH_WORDS = (
    "SGD: after the last epoch. Best epoch: chosen on these very test images, as the papers do; to be set beside "
    "their numbers only, so without a gain."
)
_HELD_OUT_WORDS = (
    "Held out: the score by which a protocol chose, on a part of the training images; far above the test's, the test "
    "images are of another kind."
)
_MAP_WORDS = {
    "map": "mAP: without interpolation, as scikit-learn's",
    "map_envelope": "env mAP: the area under the envelope of precision, as VOC's from 2010 on and VISSL's",
    "map_11_point": "11-pt mAP: at eleven recalls, as VOC 2007's",
}
_AUGMENTED_WORDS = "SGD augm.: the encoder on augmented views, its baselines on centre views."


def row_label(probe: str, metric: str) -> str:
    """What tables call a metric of a probe, as in `kNN top-1`."""
    label = "SGD augm." if probe == AUGMENTED else label_of(probe)
    return f"{label} {_METRICS.get(metric, metric)}"


def over_what(results: Results, images: str) -> str:
    """What the intervals of a table are over, as in `over 80 test images`.

    Args:
        results: that the table shows.
        images: the test images, in words.
    """
    several = {_draws_of(outcome) > 1 for found in results.values() for outcome in found.values()}
    if several == {True}:
        return f"over draws, on {images}"
    return f"over {images}, or over draws: see below" if True in several else f"over {images}"


def _draws_of(outcome: Outcome) -> int:
    draws = outcome.notes.get("draws")
    return draws if isinstance(draws, int) else 1


def remarks(results: Results) -> list[str]:
    """What has to be said of numbers that are not what they seem to be, below every table of them."""
    outcomes = [(kind, outcome) for found in results.values() for kind, outcome in found.items()]
    metrics = {metric for _, outcome in outcomes for metric in outcome.metrics}
    known = (
        (_BEST_EPOCH_WORDS, BEST_EPOCH in metrics),
        (_AUGMENTED_WORDS, any(kind == AUGMENTED for kind, _ in outcomes)),
        (_BALANCED_WORDS, BALANCED in metrics),
        (_HELD_OUT_WORDS, any(isinstance(outcome.notes.get(HELD_OUT), float) for _, outcome in outcomes)),
        *_words_on_draws(results),
        _words_on_conventions(metrics),
        *((line, True) for line in alike_features(results)),
        *_words_on_chance(results),
        *_words_on_edges(results),
    )
    return [words for words, needed in known if needed]


def alike_features(results: Results) -> Iterator[str]:
    """A line for each set of features that is the same for all images, or nearly all."""
    for name, outcomes in results.items():
        share = max((each.notes.get(ALIKE, 0.0) for each in outcomes.values()), default=0.0)
        if share:
            which = "all images" if share == 1 else f"{_percent(share)} % of the images"
            yield f"{name}: the features of {which} are the same: it tells none of them apart, and has what chance has."


def _words_on_draws(results: Results) -> Iterator[tuple[str, bool]]:
    """How many draws there were of each protocol that draws."""
    counts = {
        label_of(kind): outcome.notes["draws"]
        for outcomes in results.values()
        for kind, outcome in outcomes.items()
        if _draws_of(outcome) > 1
    }
    yield _DRAWN_WORDS + ", ".join(f"{label} {count}" for label, count in counts.items()) + ".", bool(counts)


def _words_on_conventions(metrics: set[str]) -> tuple[str, bool]:
    """What each mean average precision is, where there are others than the usual one."""
    there = [words for name, words in _MAP_WORDS.items() if name in metrics]
    return "; ".join(there) + ". Never set one beside another.", bool(metrics & {"map_envelope", "map_11_point"})


def _words_on_chance(results: Results) -> Iterator[tuple[str, bool]]:
    """What a random order would have, for mean average precisions, each with its name."""
    of_labels, of_searches = set[tuple[str, float]](), set[tuple[str, float]]()
    for outcome in (outcome for outcomes in results.values() for outcome in outcomes.values()):
        (of_searches if "recall_at_1" in outcome.metrics else of_labels).update(outcome.chance.items())
    for name, chance in sorted(of_labels):
        yield f"{_METRICS[name]} of a random order: {_percent(chance)}.", True
    for name, chance in sorted(of_searches):
        yield f"{_METRICS[name]} of a search in random order: {_percent(chance)}.", True


def _words_on_edges(results: Results) -> Iterator[tuple[str, bool]]:
    """Which protocols chose the first or the last of what they tried, and for which features."""
    for kind in dict.fromkeys(kind for outcomes in results.values() for kind in outcomes):
        names = [name for name, outcomes in results.items() if kind in outcomes and outcomes[kind].notes.get("at_edge")]
        yield (
            f"{label_of(kind)} chose an end of what it tries, so none beyond was tried: {', '.join(names)}.",
            bool(names),
        )


def _percent(value: float) -> str:
    return "100" if value == 1 else f"{100 * value:.1f}"
