"""Every protocol on the features of an encoder and of its baselines: what was found before is taken, the rest computed.

A question is a protocol, on one network's features of these images, with these labels. Its answer is kept under all of
that (`outcomes.py`). So an evaluation that was killed goes on, one that asks for one protocol more computes that one
alone, and encoders that share a baseline share its answers.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from torch import nn

from barlow.data.labelled import LabelledSet
from barlow.nets.handed_out import whiten_features
from barlow.nets.weights import description_of
from barlow.probes.baselines import Compared, compared
from barlow.probes.drawn import Drawn
from barlow.probes.embedding import CachedFeatures
from barlow.probes.features import FeatureSet
from barlow.probes.outcomes import FORMAT_OF_DRAWS, Outcomes, outcome_key
from barlow.probes.progress import told_meanwhile
from barlow.probes.remarks import AUGMENTED
from barlow.probes.report import ENCODER, check_labelled_alike, found_by, outcome_of
from barlow.probes.results import Outcome, Results
from barlow.probes.tuning import Unlabelled
from barlow.protocols import FineTuning, Probe, reading_features, training_encoders
from barlow.protocols.linear_sgd import LinearSGD
from barlow.seals import digest_of, sha256

TUNED = (ENCODER, "start", "untrained")
"""The networks that are fine-tuned: pixels have no weights, and once trained, `untrained_recalibrated` differs little
from `untrained`."""

Pair = tuple[FeatureSet, FeatureSet]
"""Features of the training images and of the test images."""


@dataclass(frozen=True)
class Question:
    """What a protocol finds on one set of features.

    Args:
        features: the name of the set in the results.
        protocol: the name of the protocol there.
        key: of the answer.
        answer: finds it; it is given a function that makes the features, which are then made once for all questions
            about them, and not at all if no answer needs them.
    """

    features: str
    protocol: str
    key: str
    answer: Callable[[Callable[[], Pair]], Outcome]


@dataclass(frozen=True)
class Images:
    """The training and the test images of an evaluation, as one encoder gets them."""

    train: LabelledSet
    test: LabelledSet

    def __len__(self) -> int:
        return len(self.train) + len(self.test)

    def sources(self, **features: str) -> dict[str, str]:
        """All that an answer follows from, beside the protocol."""
        return {**features, "train_labels": self.train.labels_digest, "test_labels": self.test.labels_digest}


@dataclass(frozen=True)
class Measuring:
    """How encoders are measured: with what, and where answers and features are kept.

    Args:
        protocols: by name.
        baselines: whether what an encoder is compared with is measured, too.
        augment: whether `linear_sgd` is also asked for on augmented views.
        features: of labelled images, from the cache where it has them.
        outcomes: keeps answers.
        known: answers of this call, by key; encoders that are measured after each other share it.
    """

    protocols: Mapping[str, Probe | FineTuning]
    baselines: bool
    augment: bool
    features: CachedFeatures
    outcomes: Outcomes
    known: dict[str, Outcome] = field(default_factory=dict)

    def asked(self, images: Images) -> dict[str, Any]:
        """What a file of results says of the question. A list of images is known by the images that it names, as it may
        have other lines today than it had, under the same name."""
        lists = {name: _named(each, images.train) for name, each in training_encoders(self.protocols).items()}
        known = {"probes": list(self.protocols), "augment": self.augment, "baselines": self.baselines}
        return known | ({"lists": named} if (named := {k: v for k, v in lists.items() if v}) else {})

    def results(self, network: nn.Module, run: Path | None, images: Images) -> Results:
        """What every protocol finds, by the set of features and the protocol.

        Args:
            network: the encoder.
            run: its run folder, if it is of a run.
            images: as it gets them.
        """
        makers: dict[str, Callable[[], Pair]] = {}
        questions: list[Question] = []
        for each, name, key, make in self._features(network, run, images):
            makers[name] = make
            sources = images.sources(features=key)
            probes, tunings = reading_features(self.protocols), training_encoders(self.protocols)
            questions += [self._of_features(name, kind, probe, sources) for kind, probe in probes.items()]
            if each is not None and name in TUNED:
                questions += [self._of_tuning(each, kind, tuning, images, sources) for kind, tuning in tunings.items()]
            if self.augment and name == ENCODER:
                questions.append(self._of_augmented_views(network, images, sources))
        found = {question.key: self._before(question, images) for question in questions}
        before = sum(answer is not None for answer in found.values())
        if before:
            self.features.say(f"{before} of {len(questions)} results are there already")
        if before < len(questions):
            self.features.say(f"probing: {', '.join(self.protocols)}")
        results: Results = {}
        for name, about in groupby(questions, key=lambda question: question.features):
            features = cache(partial(self._made, name, makers[name], len(images)))
            results[name] = {each.protocol: found[each.key] or self._answered(each, features) for each in about}
        return results

    def _before(self, question: Question, images: Images) -> Outcome | None:
        """An answer that is known, or was kept."""
        if (known := self.known.get(question.key)) is not None:
            return self.outcomes.keep(question.key, known)  # another encoder's, whose results are kept elsewhere
        return self.outcomes.found(question.key, images.test.labels)

    def _answered(self, question: Question, features: Callable[[], Pair]) -> Outcome:
        answer = self.outcomes.keep(question.key, question.answer(features))
        self.known[question.key] = answer
        return answer

    def _made(self, name: str, make: Callable[[], Pair], images: int) -> Pair:
        self.features.say(f"embedding {images} images: {name}")
        train, test = make()
        check_labelled_alike(name, train, test)
        return train, test

    # --- Features -----------------------------------------------------------------------------------------------------

    def _features(
        self, network: nn.Module, run: Path | None, images: Images
    ) -> Iterator[tuple[Compared | None, str, str, Callable[[], Pair]]]:
        """Of the encoder and its baselines the network (if it is one), the name, the key, and how they are made."""
        smallest: tuple[str, str, Callable[[], Pair]] | None = None
        for each in islice(compared(network, run, images.train), None if self.baselines else 1):  # the encoder is first
            key = digest_of([each.key(each.views_of(part)) for part in (images.train, images.test)])
            found = each.name, key, partial(self._embedded, each, images)
            yield each, *found
            if smallest is None and each.name.startswith("pixels_"):
                smallest = found
        shrinkage = description_of(network).get("whiten")
        if smallest is not None and shrinkage is not None:
            # Pixels are treated as the encoder's features are. Of all sides whitening helps the smallest most.
            name, key, make = smallest
            whitened = digest_of([key, "whitened, shrunk by the number of images", shrinkage])
            yield None, f"{name}_whitened", whitened, partial(_whitened, make, shrinkage)

    def _embedded(self, each: Compared, images: Images) -> Pair:
        return self.features.centre_views(each, images.train), self.features.centre_views(each, images.test)

    # --- Questions ----------------------------------------------------------------------------------------------------

    def _of_features(self, name: str, kind: str, probe: Probe, sources: Mapping[str, str]) -> Question:
        def answer(features: Callable[[], Pair]) -> Outcome:
            train, test = features()
            what = f"{kind} on {name}, {len(train.features):,} images of {train.features.shape[1]:,} features"
            with told_meanwhile(self.features.say, what):
                return found_by(probe, train, test)

        return Question(name, kind, outcome_key(kind, probe, sources), answer)

    def _of_tuning(
        self, each: Compared, kind: str, tuning: FineTuning, images: Images, sources: Mapping[str, str]
    ) -> Question:
        """What a network says that was trained on some of the labels. Every draw is kept by itself."""
        train, test = each.views_of(images.train), each.views_of(images.test)
        drawn_by = {**sources, **_order_of(train), **_named(tuning, train)}

        def say(line: str) -> None:
            self.features.say(f"{kind} on {each.name}, {line}")

        def kept(draw: int, work: Callable[[], Drawn]) -> Drawn:
            key = outcome_key(f"{kind}, draw {draw}", tuning, drawn_by, FORMAT_OF_DRAWS)
            if (before := self.outcomes.found(key, test.labels)) is not None and before.answers is not None:
                assert isinstance(before.answers[0], Drawn)
                return before.answers[0]
            found = self.outcomes.keep(key, outcome_of(work(), test.labels)).answers
            assert found is not None
            assert isinstance(found[0], Drawn)
            return found[0]

        def answer(features: Callable[[], Pair]) -> Outcome:
            found = tuning.predict(each.network, train, Unlabelled(len(test), test.views), kept, say)
            return outcome_of(found, test.labels)

        return Question(each.name, kind, outcome_key(kind, tuning, drawn_by), answer)

    def _of_augmented_views(self, network: nn.Module, images: Images, sources: Mapping[str, str]) -> Question:
        """What `linear_sgd` finds when it sees other views of the training images in each epoch."""
        probe, train, made = self.protocols["linear_sgd"], images.train, self.features
        assert isinstance(probe, LinearSGD)

        def answer(features: Callable[[], Pair]) -> Outcome:
            _, test = features()
            made.say(f"linear_sgd on augmented views: {len(train)} images, embedded in each of {probe.epochs} epochs")
            views = made.augmented_views(network, train, epochs=probe.epochs, seed=probe.seed)
            return outcome_of(probe.predict(views, test.features), test.labels)

        return Question(ENCODER, AUGMENTED, outcome_key(AUGMENTED, probe, {**sources, **_order_of(train)}), answer)


def _order_of(images: LabelledSet) -> dict[str, str]:
    """What the augmented views of images follow from, beside their pixels."""
    return {"ids": sha256(images.ids.tobytes()), "sizes": sha256(images.sizes.tobytes())}


def _named(tuning: FineTuning, train: LabelledSet) -> dict[str, str]:
    """Which images a protocol is told by their names: files that were renamed since are other images."""
    named = tuning.named(train)
    return {} if named is None else {"named": digest_of(named)}


def _whitened(make: Callable[[], Pair], shrinkage: float) -> Pair:
    """Features whitened by those of the training images."""
    train, test = make()
    of_train, of_test = whiten_features(train.features, shrinkage, test.features)
    return replace(train, features=of_train), replace(test, features=of_test)
