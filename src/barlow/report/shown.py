"""Which images a report shows, with their features: those of an evaluation, or else some of the run's own."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int64
from torch import nn

from barlow.data.centre import centre_views
from barlow.data.folder import FolderSource
from barlow.data.held_out import divided
from barlow.data.sources import ImageSource, missing_set, named_set, open_source
from barlow.distributed import choose_device
from barlow.exits import NoInput
from barlow.machine import available_cores
from barlow.nets.preprocessing import Preprocessing
from barlow.printable import one_line
from barlow.probes.features import embed, weights_hash
from barlow.probes.neighbours import most_similar
from barlow.recipe import schema
from barlow.record import Record, table_of, value_of
from barlow.report.before import Before, before_training
from barlow.report.kept import Kept, kept
from barlow.report.pictures import Pictures
from barlow.runs import finishing
from barlow.runs.identity import identity_of
from barlow.runs.run import Run
from barlow.telling import Say
from barlow.types import Features
from barlow.views.keys import permutation

EMBEDDED = 1_000
"""Images that are embedded for a report, where no evaluation has kept any features."""

BATCH = 64
TRIED, TOLERANCE = 8, 1e-2
"""So many images are embedded again, to see whether they are still those that were measured; and by how much of their
length features may differ, on another machine, say. Other images differ by as much as their features are long."""


@dataclass(frozen=True)
class Shown:
    """Images, and what the encoder makes of them."""

    what: str
    """Which images they are, in words."""
    features: Features
    before: Features | None
    """Of the same images, from the network before training, treated as the encoder is."""
    before_words: str
    """What that network was, and how its features were made."""
    labels: Int64[np.ndarray, "n"] | None
    classes: list[str]
    pictures: Pictures | None
    """None where the images are not there any more, or are others by now."""
    notes: list[str] = field(default_factory=list)
    kept: Kept | None = None
    """The evaluation, if it is its images."""
    rows: Int64[np.ndarray, "n"] | None = None
    """Of an evaluation's test images, which ones these are."""

    def __len__(self) -> int:
        return len(self.features)

    def names(self) -> list[str]:
        """What each image is called."""
        return [f"image {i}" for i in range(len(self))] if self.pictures is None else self.pictures.names()

    def words(self, row: int, names: Sequence[str]) -> str:
        """An image's name and class."""
        label = "" if self.labels is None else f" ({self.classes[self.labels[row]]})"
        return f"{names[row]}{label}"


def shown(run: Record, most: int, say: Say) -> Shown | str:
    """The images of a report, or a sentence on why there are none.

    Args:
        run: the run.
        most: how many at most.
        say: told what takes long.
    """
    network, why = _encoder(run)
    before = before_training(run, network)
    measured = kept(run, network, before, say)
    if measured is not None:
        words = "" if before is None else before.words("the labelled images that the evaluation learned from")
        return _measured(run, measured, network, words, most)
    if network is None:
        return why
    try:
        return _own(run, network, before, most, say)
    except (OSError, ValueError) as error:
        return f"The run's images cannot be read ({one_line(error)}), and no evaluation has kept their features."


def _encoder(run: Record) -> tuple[nn.Module | None, str]:
    """The encoder that was measured, or the newest where that is gone; or a sentence on why none can be had."""
    step, why = value_of(run.results, "asked", "step"), ""
    for each in dict.fromkeys((None if step is None else int(step), None)):
        try:
            return finishing.encoder_at(run.path, each), ""
        except (OSError, ValueError) as error:
            why = f"The encoder cannot be loaded: {one_line(error)}."
    return None, why


def _measured(run: Record, measured: Kept, network: nn.Module | None, words: str, most: int) -> Shown:
    """The test images of an evaluation, or so many of them."""
    images = table_of(measured.report, "images", "test")
    rows = _some(len(measured.test), most)
    features, labels = measured.test.features[rows], measured.test.labels[rows]
    notes, pictures = [], None
    try:
        preprocessing = Preprocessing(**measured.report["preprocessing"])
        source = _test_source(images, preprocessing)
        pictures = Pictures(source, measured.test.ids[rows], preprocessing)
        if int(pictures.ids.max()) >= len(source):
            raise NoInput(f"there are fewer images in {source.name} than were measured")
        if network is None or weights_hash(network) != measured.report["encoder_sha256"]:
            raise NoInput("the encoder that was measured is not there, so nobody can tell whether they are still those")
        _check_same(pictures, features, network)
    except (OSError, ValueError, LookupError, TypeError) as error:
        pictures = None
        notes.append(f"The test images are not shown: {one_line(error)}.")
    count = f"{len(rows):,} of {len(measured.test):,}" if len(rows) < len(measured.test) else f"all {len(rows):,}"
    return Shown(
        what=f"{count} test images of {images.get('source')}",
        features=features,
        before=None if measured.before is None else measured.before.features[rows],
        before_words=words,
        labels=labels if labels.ndim == 1 else None,
        classes=measured.classes,
        pictures=pictures,
        notes=notes,
        kept=measured,
        rows=rows,
    )


def _some(count: int, most: int) -> Int64[np.ndarray, "n"]:
    """Positions of all, or of so many that are drawn from them, in their order."""
    return np.arange(count) if count <= most else np.sort(permutation(0, 0, count)[:most])


def _test_source(images: dict[str, object], preprocessing: Preprocessing) -> ImageSource:
    """Where an evaluation's test images are read."""
    places = images.get("places") or [str(images.get("source"))]  # of the first release, which had one folder at most
    assert isinstance(places, list)
    name = named_set(str(places[0]))
    if name and missing_set(name):
        raise NoInput(f"{name} is not here and would be downloaded")
    return open_source(
        str(places[0]) if name else [str(place) for place in places],
        split="test",
        channels=preprocessing.channels,
        value_range=preprocessing.value_range,
    )


def _check_same(pictures: Pictures, features: Features, network: nn.Module) -> None:
    """Refuses images that are not those whose features were kept: files were added, say, and all positions moved.

    A stranger's run may name any folder, too. What is shown of one are images that the stranger has had.
    """
    rows = permutation(0, 0, len(pictures.ids))[:TRIED]
    views = centre_views(
        pictures.source, pictures.ids[rows], pictures.preprocessing, batch_size=TRIED, workers=available_cores()
    )
    again = embed(network, views)
    expected = features[rows]
    if len(again) != len(expected) or float((again - expected).norm() / expected.norm()) > TOLERANCE:
        raise NoInput(f"the images in {pictures.source.name} are not those any more that were measured")


def _own(run: Record, network: nn.Module, before: Before | None, most: int, say: Say) -> Shown:
    """Some of the images that the run was trained on."""
    recipe = schema.check(run.recipe)
    if (identity := identity_of(Run(run.path))) is not None:
        recipe = identity.located(recipe)
    own = finishing.of_recipe(recipe, run.path)
    if len(own.source) != run.data.get("candidates") or (
        isinstance(own.source, FolderSource) and own.source.fingerprint() != run.data.get("fingerprint")
    ):
        raise NoInput(f"the images in {own.source.name} are not those any more that the run was trained on")
    preprocessing = network.preprocessing
    assert isinstance(preprocessing, Preprocessing)
    own_ids, _ = divided(own.ids, recipe.seed, wanted=recipe.train.monitor_held_out)
    ids = own_ids[_some(len(own_ids), min(most, EMBEDDED))]
    device = choose_device("auto")
    say(f"embedding {len(ids)} of the run's images, as no evaluation has kept any features")

    def features(made: nn.Module) -> Features:
        views = centre_views(own.source, ids, preprocessing, batch_size=BATCH, workers=available_cores())
        return embed(made, views, device).cpu()

    trained = features(network)
    if len(trained) != len(ids):
        raise NoInput(f"some images of {own.source.name} cannot be read any more")
    labels = None
    with contextlib.suppress(ValueError):
        labels = own.source.labels
    labels = None if labels is None or labels.ndim != 1 else np.asarray(labels, np.int64)[ids]
    return Shown(
        what=f"{len(ids):,} of {len(own_ids):,} images that the run was trained on",
        features=trained,
        before=None if before is None else features(before.finished(own)),
        before_words="" if before is None else before.words("images of the run"),
        labels=labels,
        classes=list(own.source.classes or []),
        pictures=Pictures(own.source, ids, preprocessing),
    )


def nearest_of(features: Features, k: int) -> Int64[np.ndarray, "n k"]:
    """The k other images that are most similar to each, by cosine, the most similar first."""
    k = min(k, len(features) - 1)
    if k < 1:
        return np.zeros((len(features), 0), np.int64)
    _, positions = most_similar(features, features, k + 1)
    others = positions.cpu().numpy()
    keep = others != np.arange(len(features))[:, None]
    keep &= keep.cumsum(axis=1) <= k  # of copies, one may stand in the place of the image itself
    return others[keep].reshape(len(features), k)


def pca(features: Features, count: int) -> Features:
    """The rows in the directions in which they vary most, each turned so that its largest weight is positive."""
    x = features.double()
    x = x - x.mean(0)
    gram = x.T @ x
    _, vectors = torch.linalg.eigh(gram)
    axes = vectors.flip(1)[:, : min(count, x.shape[1])]
    largest = axes.abs().argmax(0)
    return x @ (axes * axes[largest, torch.arange(axes.shape[1])].sign())
