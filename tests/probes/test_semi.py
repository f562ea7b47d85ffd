"""Semi-supervised fine-tuning: which images, how many updates, which rates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coloured import Small, coloured
from torch import nn

from barlow import protocols
from barlow.exits import NoInput, UnusableData
from barlow.probes import progress
from barlow.probes.tuning import Diverged, Rates, Schedule, Unlabelled, tuned
from barlow.protocols import semi
from barlow.protocols.semi import RATES, SemiSupervised


def test_draws_are_class_balanced_and_fixed_by_the_seed() -> None:
    train = coloured(200, 0)
    protocol = SemiSupervised(percent=10)
    rows = protocol.rows(train, 0)
    assert (np.bincount(train.labels[rows]) == 5).all()
    np.testing.assert_array_equal(rows, protocol.rows(train, 0))
    assert not np.array_equal(rows, protocol.rows(train, 1))
    assert not np.array_equal(rows, SemiSupervised(percent=10, seed=1).rows(train, 0))
    assert len(SemiSupervised(percent=0.1).rows(train, 0)) == 4, "at least one of each class"


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (12_811, Schedule(256, 20 * 51)),  # ImageNet's 1 %: the papers' batch, and more than 200 updates
        (947, Schedule(32, 20 * 30)),  # Imagenette's 10 %: 20 epochs of 256 would be 80 updates
        (90, Schedule(32, 200)),  # its 1 %: 20 epochs of 32 would be 60
    ],
)
def test_there_are_at_least_two_hundred_updates(images: int, expected: Schedule) -> None:
    assert SemiSupervised().schedule(images) == expected


def test_the_rates_are_those_that_do_best_on_a_part_of_the_drawn_images() -> None:
    train, test, said = coloured(160, 0), coloured(40, 1), list[str]()
    hopeless, good = Rates(1e-9, 1e-9), Rates(0.05, 0.5)
    protocol = SemiSupervised(50, draws=1, fewest_updates=40, epochs=1, rates=(hopeless, good, Rates(1e30, 1e30)))
    drawn = protocol.predict(Small(), train, Unlabelled(40, test.views), lambda draw, work: work(), said.append)
    (each,) = drawn.notes["each"]
    assert (each["encoder_rate"], each["head_rate"]) == (0.05, 0.5)
    assert drawn.notes["held_out_score"] == each["held_out_score"] > 0.5
    assert each["updates"] == 40
    assert each["images"] == train.ids[protocol.rows(train, 0)].tolist()
    assert said[0] == "draw 1 of 1: 80 images of 4 classes, 40 updates of 27 images"
    assert [line.partition(",")[0] for line in said[1:]] == ["draw 1 of 1 is done"]
    few = SemiSupervised(0.1, draws=1, fewest_updates=2, epochs=1)
    drawn = few.predict(Small(), train, Unlabelled(40, test.views), lambda draw, work: work(), said.append)
    assert drawn.notes["each"][0]["encoder_rate"] == RATES[0].encoder, "one image a class is nothing to choose by"
    assert drawn.notes["each"][0]["held_out_score"] is None


def test_where_training_diverges_at_the_best_rates_the_next_best_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice is made after few updates. What goes well for those may not for all of them."""
    train, test, said = coloured(160, 0), coloured(40, 1), list[str]()
    best, next_best = Rates(0.05, 0.5), Rates(0.04, 0.4)

    def diverging(*given: Any) -> nn.Module:
        rates, schedule = given[4:6]
        if rates == best and schedule.updates == 40:
            raise Diverged("too fast")
        return tuned(*given)

    monkeypatch.setattr(semi, "tuned", diverging)
    protocol = SemiSupervised(
        50, draws=1, fewest_updates=40, epochs=1, choice_updates=20, rates=(best, Rates(1e-9, 1e-9), next_best)
    )  # fmt: skip
    answered = protocol.predict(Small(), train, Unlabelled(40, test.views), lambda draw, work: work(), said.append)
    (each,) = answered.notes["each"]
    assert (each["encoder_rate"], each["head_rate"]) == (0.04, 0.4)
    assert said[1] == "draw 1: diverged at rates 0.05 and 0.5; the next best are taken"
    monkeypatch.setattr(protocol.__class__, "_by_score", lambda *_: [(best, 0.5)])
    with pytest.raises(Diverged, match="too fast"):
        protocol.predict(Small(), train, Unlabelled(40, test.views), lambda draw, work: work(), said.append)


def test_a_long_draw_says_how_many_updates_there_are_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    train, test, said = coloured(160, 0), coloured(40, 1), list[str]()
    protocol = SemiSupervised(50, draws=1, fewest_updates=8, epochs=1, choice_updates=3, rates=RATES[:2])
    protocol.predict(Small(), train, Unlabelled(40, test.views), lambda draw, work: work(), said.append)
    counted = [line.partition(" updates, ")[0] for line in said if "eta" in line]
    assert counted == [f"draw 1 of 1: {done} of 14" for done in range(1, 15)], "three for each of two rates, then eight"


def test_a_file_may_begin_with_a_digit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SimCLR's lists do: 1percent.txt."""
    train = coloured(40, 0)
    monkeypatch.chdir(tmp_path)
    Path("1percent.txt").write_text("\n".join(train.source.locate(i) for i in (3, 4)) + "\n")
    Path("10percent.txt").write_text("\n".join(train.source.locate(i) for i in (3, 4, 9, 14)) + "\n")
    built = protocols.build("semi:1percent.txt,10percent.txt")
    assert list(built) == ["semi:1percent.txt", "semi:10percent.txt"]
    assert [len(each.rows(train, 0)) for each in built.values()] == [2, 4]  # type: ignore[union-attr]
    assert protocols.label_of("semi:1percent.txt") == "semi 1percent.txt"


def test_a_file_may_list_the_images(tmp_path: Path) -> None:
    train = coloured(40, 0)
    names = [train.source.locate(i) for i in (3, 4, 9, 14)]
    (tmp_path / "few.txt").write_text("\n".join(names) + "\n")
    (name, protocol), = protocols.build(f"semi:{tmp_path}/few.txt").items()  # fmt: skip
    assert name == f"semi:{tmp_path}/few.txt"
    assert isinstance(protocol, SemiSupervised)
    np.testing.assert_array_equal(protocol.rows(train, 0), [3, 4, 9, 14])
    for listed, said in (
        (["coloured[99]", *names], r"1 of 5 listed images are not among the training images, such as coloured\[99\]"),
        ([names[0]], "the 1 listed images are of one class"),
    ):
        with pytest.raises(UnusableData, match=said):
            SemiSupervised(listed=tuple(listed)).rows(train, 0)
    with pytest.raises(NoInput, match=r"protocol semi:nothing.txt: give a number \(per cent\) or a file"):
        protocols.build("semi:nothing.txt")


def test_a_list_without_images_of_some_classes_is_told_what_it_cannot_answer() -> None:
    """The classes of `coloured` are four, by the remainder of an image's number."""
    train, test, said = coloured(40, 0), coloured(8, 1), list[str]()
    classes = {int(label) for label in train.labels}
    kept = [train.source.locate(int(i)) for i, label in zip(train.ids, train.labels, strict=True) if label in (0, 1)]
    quick: dict[str, Any] = {"draws": 1, "fewest_updates": 1, "epochs": 1, "rates": RATES[:1]}
    about = Unlabelled(8, test.views), lambda draw, work: work(), said.append
    SemiSupervised(listed=tuple(kept), **quick).predict(Small(), train, *about)
    assert said[0] == f"the images have 2 of {len(classes)} classes, and none of the others can be answered"
    assert len(classes) > 2
    said.clear()
    SemiSupervised(50, **quick).predict(Small(), train, *about)
    assert not any("classes, and none" in line for line in said)


def test_names_and_wrong_settings() -> None:
    assert list(protocols.build("semi")) == ["semi:1", "semi:10"]
    assert list(protocols.build("semi:0.5,20")) == ["semi:0.5", "semi:20"]
    assert protocols.label_of("semi:10") == "10 % labels"
    assert protocols.label_of("semi:lists/1percent.txt") == "semi 1percent.txt"
    with pytest.raises(ValueError, match="0 per cent of the labels"):
        protocols.build("semi:0")
    with pytest.raises(ValueError, match="at least 1 of each"):
        SemiSupervised(draws=0)
