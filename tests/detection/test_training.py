"""Training a detector: the published rates, batches from keys, resuming to the same numbers, what ends it."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch

from barlow import checkpoints, exits
from barlow.detection import training
from barlow.detection.annotations import AnnotatedSet
from barlow.detection.detectors import Detector
from barlow.detection.measuring import precisions
from barlow.detection.schedules import SCHEDULES, chosen_schedule
from barlow.detection.training import _drawn, _size, found_in, trained
from barlow.exits import Diverged, UnusableData
from barlow.stopping import Interrupted, Requests
from barlow.telling import silent

CPU = torch.device("cpu")

RATES = [
    ("moco_voc", {0: 2e-5, 50: 0.01001, 100: 0.02, 17_999: 0.02, 18_000: 2e-3, 22_000: 2e-4}),
    ("barlow_twins_voc", {0: 0.0333, 500: 0.06665, 1000: 0.1, 18_000: 0.01, 22_000: 0.001}),
    ("vicreg_voc", {0: 0.0333, 1000: 0.1, 23_999: 0.001}),
    ("barlow_twins_coco", {0: 3e-5, 1000: 0.03, 60_000: 0.003, 80_000: 0.0003}),
    ("vicreg_coco", {0: 4e-5, 25: 0.02002, 50: 0.04, 59_999: 0.04, 60_000: 0.004, 89_999: 0.0004}),
    ("short", {0: 1e-4, 10: 9.755283e-4, 50: 5e-4}),
]


@pytest.mark.parametrize(("name", "rates"), RATES)
def test_rates_are_those_worked_out_by_hand(name: str, rates: dict[int, float]) -> None:
    schedule = SCHEDULES[name]
    assert {step: schedule.rate_at(step) for step in rates} == pytest.approx(rates, rel=1e-4)


def test_every_schedule_is_checked_and_says_where_it_comes_from() -> None:
    assert {name for name, _ in RATES} == set(SCHEDULES)
    published = {name: each for name, each in SCHEDULES.items() if name != "short"}
    for each in published.values():
        assert (each.optimizer, each.batch_size, each.momentum, each.weight_decay) == ("sgd", 16, 0.9, 1e-4)
        assert (each.test_side, each.longest, max(each.sides)) == (800, 1333, 800)
        assert len(each.source) > 20
    assert [name for name, each in published.items() if each.rpn_weight == 0.2] == ["vicreg_voc"]


@pytest.mark.parametrize(
    ("name", "steps", "design", "said"),
    [
        ("long", None, "c4", "no schedule 'long'; there are short, moco_voc"),
        ("vicreg_coco", None, "c4", "the schedule vicreg_coco is for fpn, and not for c4"),
        ("moco_voc", 10, "c4", "has 24000 steps, as published: other steps are for short"),
        ("short", 0, "fpn", "0 steps: a number of steps is at least 1"),
    ],
)
def test_a_schedule_that_cannot_be_had_is_one_line(name: str, steps: int | None, design: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        chosen_schedule(name, steps, design)


Terms = list[dict[str, float]]


def run(home: Path, *, stop_after: int = 0, kill_after: int = 0, **changes: Any) -> tuple[Detector, Terms]:
    made = small.detector(**changes)
    requests, terms = Requests(), list[dict[str, float]]()

    def told(step: int, values: Mapping[str, float]) -> None:
        terms.append(dict(values))
        if step == stop_after:
            requests.times.append(time.monotonic())
        if step == kill_after:
            raise Killed

    trained(
        made, small.shapes(), small.SCHEDULE, seed=3, device=CPU, home=home, requests=requests, say=silent, told=told
    )
    return made, terms


def test_a_stopped_training_says_how_to_go_on_and_ends_with_the_same_numbers(tmp_path: Path) -> None:
    straight, terms = run(tmp_path / "straight")
    with pytest.raises(Interrupted, match=r"stopped at step 2 of 4, saved; the same command goes on from there") as end:
        run(tmp_path / "stopped", stop_after=2)
    assert exits.code_of(end.value) == exits.STOPPED
    assert list(checkpoints.folders(tmp_path / "stopped")) == [2]
    resumed, rest = run(tmp_path / "stopped")
    assert rest == terms[2:]
    theirs = resumed.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in straight.state_dict().items())
    again, told = run(tmp_path / "stopped")
    assert told == terms[-1:], "what is through is not trained again, and its last terms are known"
    assert all(torch.equal(value, theirs[name]) for name, value in again.state_dict().items())


class Killed(BaseException):
    """What no handler of errors on the way takes for one."""


def test_a_killed_training_goes_on_from_its_newest_checkpoint_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, _ = run(tmp_path / "straight")
    monkeypatch.setattr(training, "SAVE_SECONDS", -1.0)  # after every step
    with pytest.raises(Killed):
        run(tmp_path / "killed", kill_after=3)
    assert list(checkpoints.folders(tmp_path / "killed")) == [1, 2], "the third step was made, and not saved"
    newest = tmp_path / "killed" / "checkpoints" / "step-000002" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-9])
    resumed, rest = run(tmp_path / "killed")
    assert len(rest) == 3, "the newest is damaged, so that it goes on from the one before"
    theirs = resumed.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in straight.state_dict().items())


def test_a_checkpoint_of_another_detector_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(UnusableData, match="is of another detector: remove that folder"):
        run(tmp_path, masks=False)


def test_boxes_masks_and_pixels_are_resized_and_flipped_together() -> None:
    images, seen = small.shapes(12), set()
    schedule = replace(small.SCHEDULE, sides=(96, 144), longest=999)
    for number in range(40):
        pixels, target = _drawn(images, schedule, seed=1, number=number)
        height, width = pixels.shape[1:]
        assert (height, width) in ((96, 128), (144, 192))
        assert target["masks"].shape[1:] == (height, width)
        epoch, position = divmod(number, len(images))
        known = images.images[int(training.permutation(1, epoch, len(images))[position])]
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            y, x = np.nonzero(mask.numpy())
            around = torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1])
            assert (box - around).abs().max() <= 1.5
        scale = height / 96
        mirrored = known.boxes.copy() * scale
        mirrored[:, [0, 2]] = width - mirrored[:, [2, 0]]
        kinds = {"as it is": known.boxes * scale, "mirrored": mirrored}
        fits = [kind for kind, boxes in kinds.items() if np.allclose(target["boxes"].numpy(), boxes, atol=1e-3)]
        assert fits
        seen |= {(fits[0], height)}
    assert len(seen) == 4, "both sizes, and both ways round"


@pytest.mark.parametrize(
    ("size", "side", "longest", "expected"),
    [((480, 640), 240, 320, (240, 320)), ((100, 900), 240, 320, (36, 320)), ((50, 40), 800, 1333, (1000, 800))],
)
def test_the_shorter_side_gets_its_length_unless_the_longer_one_is_too_long(
    size: tuple[int, int], side: int, longest: int, expected: tuple[int, int]
) -> None:
    assert _size(size, side, longest) == expected


def ignoring_all(images: AnnotatedSet) -> AnnotatedSet:
    return replace(images, images=[replace(e, ignored=np.ones(len(e.boxes), bool)) for e in images.images])


def test_images_without_an_object_are_left_out_and_a_set_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match=r"no image of shapes_boxes:train has an object to learn from"):
        trained(
            small.detector(),
            ignoring_all(small.shapes()),
            small.SCHEDULE,
            seed=0,
            device=CPU,
            home=tmp_path,
            requests=Requests(),
            say=silent,
        )


def test_a_loss_that_is_not_a_number_ends_it_before_the_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = small.detector()
    before = {name: value.clone() for name, value in made.named_parameters()}
    bad = {"loss_classifier": torch.tensor(float("nan"), requires_grad=True)}
    monkeypatch.setattr(Detector, "losses", lambda *given: bad)
    with pytest.raises(Diverged, match=r"step 0 of the detector: the loss is not finite \(loss_classifier nan\)"):
        trained(
            made,
            small.shapes(),
            small.SCHEDULE,
            seed=0,
            device=CPU,
            home=tmp_path,
            requests=Requests(),
            say=silent,
        )
    assert all(torch.equal(value, before[name]) for name, value in made.named_parameters())


def test_the_weight_of_the_proposals_multiplies_their_two_terms_alone(tmp_path: Path) -> None:
    found = []
    for weight in (1.0, 0.2):
        terms: list[dict[str, float]] = []
        schedule = replace(small.SCHEDULE, steps=1, rpn_weight=weight)
        trained(
            small.detector(),
            small.shapes(),
            schedule,
            seed=0,
            device=CPU,
            home=tmp_path / str(weight),
            requests=Requests(),
            say=silent,
            told=lambda step, values, terms=terms: terms.append(dict(values)),  # type: ignore[misc]
        )
        found += terms
    whole, less = found
    assert {name: less[name] / whole[name] for name in whole} == pytest.approx(
        {name: 0.2 if name in ("loss_objectness", "loss_rpn_box_reg") else 1.0 for name in whole}
    )


def test_what_is_found_in_an_image_does_not_depend_on_the_others() -> None:
    made, images = small.detector(), small.shapes(3, "test")
    with torch.no_grad():
        made.net.roi_heads.box_predictor.cls_score.bias[2] += 2
    together = list(found_in(made, images, small.SCHEDULE, CPU))
    (alone,) = found_in(made, images.chosen([2]), small.SCHEDULE, CPU)
    assert len(alone.boxes)
    assert np.array_equal(together[2].boxes, alone.boxes)
    assert together[2].outlines == alone.outlines


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_boxes_and_masks_of_shapes_are_learned_from_scratch(tmp_path: Path) -> None:
    """Half a minute of one core, from nothing found to something."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `detection`)")
    schedule = replace(small.SCHEDULE, steps=150, warmup_steps=10, batch_size=4, sides=(96,), test_side=96, rate=2e-3)
    test = small.shapes(30, "test")
    encoder = small.encoder(options={"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]})
    made = Detector(encoder, len(test.classes), "small_fpn", masks=True, batch_norm="trained", seed=0)
    before = precisions(test, list(found_in(made, test, schedule, CPU)))
    home, images = tmp_path, small.shapes(300)
    trained(made, images, schedule, seed=0, device=CPU, home=home, requests=Requests(), say=silent)
    after = precisions(test, list(found_in(made, test, schedule, CPU)))
    for kind in ("coco_box", "coco_mask"):
        assert before[kind]["AP50"] < 0.01
        assert after[kind]["AP50"] > 0.1, after
    assert after["coco_mask"]["AP"] > 0.02
