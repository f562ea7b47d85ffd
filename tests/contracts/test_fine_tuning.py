"""What every protocol that trains the encoder promises."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from coloured import Small, coloured
from torch import nn

from barlow import protocols
from barlow.data.labelled import LabelledSet
from barlow.probes.drawn import Drawn
from barlow.probes.features import weights_hash
from barlow.probes.metrics import measure
from barlow.probes.report import outcome_of
from barlow.probes.tuning import Unlabelled
from barlow.protocols import FineTuning

KINDS = [kind for kind in protocols.kinds() if protocols.load(kind).trains_encoder]
QUICK = {"semi": {"percent": 50.0, "draws": 2, "fewest_updates": 30, "epochs": 1, "choice_updates": 10}}


@pytest.fixture
def encoder() -> nn.Module:
    torch.manual_seed(0)
    return Small()


@pytest.fixture(params=KINDS)
def tuning(request: pytest.FixtureRequest) -> FineTuning:
    return protocols.load(request.param)(**QUICK[request.param])


def unlabelled(images: LabelledSet) -> Unlabelled:
    return Unlabelled(len(images), images.views)


def work(draw: int, do: Callable[[], Drawn]) -> Drawn:
    return do()


def test_there_are_some_and_they_are_frozen_dataclasses(tuning: FineTuning) -> None:
    assert "semi" in KINDS
    with pytest.raises(FrozenInstanceError):
        tuning.label = "x"  # type: ignore[misc]
    words = type(tuning).__doc__ or ""
    assert all(part in words for part in ("Source: ", "Convention: ", "Deviation: "))


def test_it_learns_the_encoder_is_not_changed_and_the_same_comes_out_again(
    tuning: FineTuning, encoder: nn.Module
) -> None:
    train, test, before = coloured(80, 0), coloured(60, 1), weights_hash(encoder)
    first = tuning.predict(encoder, train, unlabelled(test), work, lambda line: None)
    assert measure(first, test.labels)["top1"].value > 0.6
    assert weights_hash(encoder) == before
    again = tuning.predict(encoder, train, unlabelled(test), work, lambda line: None)
    np.testing.assert_array_equal(first.answers, again.answers)
    assert first.notes == again.notes


def test_shuffled_test_labels_change_nothing_that_was_chosen(tuning: FineTuning, encoder: nn.Module) -> None:
    train, test = coloured(80, 0), coloured(60, 1)
    shuffled = replace(test, labels=np.random.default_rng(3).permutation(test.labels))
    found = [
        outcome_of(tuning.predict(encoder, train, unlabelled(each), work, lambda line: None), each.labels)
        for each in (test, shuffled)
    ]
    assert found[0].notes == found[1].notes
    assert found[0].metrics != found[1].metrics


def test_a_draw_that_is_done_is_not_done_again(tuning: FineTuning, encoder: nn.Module) -> None:
    train, test = coloured(80, 0), coloured(60, 1)
    straight = tuning.predict(encoder, train, unlabelled(test), work, lambda line: None)
    done: dict[int, Drawn] = {}

    def stops_in_the_second(draw: int, do: Callable[[], Drawn]) -> Drawn:
        if draw == 1:
            raise KeyboardInterrupt
        done[draw] = do()
        return done[draw]

    with pytest.raises(KeyboardInterrupt):
        tuning.predict(encoder, train, unlabelled(test), stops_in_the_second, lambda line: None)
    worked = []

    def goes_on(draw: int, do: Callable[[], Drawn]) -> Drawn:
        if draw in done:
            return done[draw]
        worked.append(draw)
        return do()

    resumed = tuning.predict(encoder, train, unlabelled(test), goes_on, lambda line: None)
    assert worked == [1]
    np.testing.assert_array_equal(resumed.answers, straight.answers)
    assert resumed.notes == straight.notes
