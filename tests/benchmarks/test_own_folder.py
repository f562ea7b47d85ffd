"""What an experiment on one's own folder holds out, and which cases it knows."""

import json
from pathlib import Path

import numpy as np
import programs
import pytest
from PIL import Image

from barlow.storage import append_line

own_folder = programs.program("experiments/own_folder.py")


def test_near_duplicates_are_one_cluster_by_a_chain_and_others_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = [rng.integers(256, size=(8, 8), dtype=np.uint8) for _ in range(2)]
    files = []
    for name, picture in (("a", coarse[0]), ("b", coarse[1])):
        for brightness in (0, 20):
            image = Image.fromarray(np.clip(picture.astype(int) // 2 + brightness, 0, 255).astype(np.uint8))
            files.append(tmp_path / f"{name}{brightness}.png")
            image.resize((64, 48 + brightness), Image.Resampling.BICUBIC).save(files[-1])
    clusters = own_folder.near_duplicates(files)
    assert clusters[0] == clusters[1]
    assert clusters[2] == clusters[3]
    assert clusters[0] != clusters[2]


def test_a_share_of_each_class_is_held_out() -> None:
    labels = np.repeat(["a", "b"], [200, 40])
    held = own_folder.held_out(labels, np.arange(240))
    assert held[:200].sum() == int(own_folder.HELD_OUT * 200)
    assert held[200:].sum() == int(own_folder.HELD_OUT * 40)


def test_clusters_are_held_out_whole_or_not_at_all() -> None:
    rng = np.random.default_rng(0)
    clusters = rng.integers(60, size=400)
    labels = np.array([f"class{c % 2}" for c in clusters])
    labels[0] = "class0" if labels[0] == "class1" else "class1"  # one cluster has images of two classes
    held = own_folder.held_out(labels, clusters)
    assert not np.intersect1d(clusters[held], clusters[~held]).size
    assert 0.05 < held.mean() <= own_folder.HELD_OUT


def test_a_case_is_known_by_all_that_was_asked_for(tmp_path: Path) -> None:
    case = own_folder.Case("aerial", "small_w_mse", 3.0, 0, False)
    others = [
        own_folder.Case("mri", "small_w_mse", 3.0, 0, False),
        own_folder.Case("aerial", "small_w_mse", 3.0, 1, False),
        own_folder.Case("aerial", "small_w_mse", 3.0, 0, True),
        own_folder.Case("aerial", "small_w_mse", 3.0, 0, False, (("train.batch_size", "64"),)),
    ]
    assert len({case.key, *(other.key for other in others)}) == 5
    lines = tmp_path / "lines.jsonl"
    assert own_folder.known(lines) == set()
    lines.write_text("".join(json.dumps(line) + "\n" for line in ({"name": "startup"}, {"key": case.key})))
    assert own_folder.known(lines) == {case.key}
    assert own_folder.known(lines, baselines=True) == set(), "a line without baselines is not one with some"
    lines.write_text(json.dumps({"key": case.key, "gain": {"knn.top1": {}}}) + "\n")
    assert own_folder.known(lines, baselines=True) == {case.key}


def test_minutes_are_steps_by_the_median_of_the_rates_of_the_same_recipe(tmp_path: Path) -> None:
    case = own_folder.Case("aerial", "small_w_mse", 15.0, 1, True)
    of_another = own_folder.what_is_rated(own_folder.Case("mri", "small_w_mse", 15.0, 1, True))
    earlier = {**own_folder.what_is_rated(case), "recipe_sha256": "0" * 16}
    rates = tmp_path / "rates.jsonl"
    for what, rate in ((of_another, 1.0), (earlier, 2.0), *((own_folder.what_is_rated(case), r) for r in (9, 10, 30))):
        append_line(rates, {**what, "steps_a_minute": rate})
    assert own_folder.rates_of(case, rates) == [9, 10, 30]
    assert own_folder.with_steps(case, None, rates) == case.of_steps(150)
    of_steps = own_folder.with_steps(case, 7, rates)
    assert of_steps.asked["overrides"] == {"train.minutes": None, "train.steps": 7}
    assert of_steps.minutes == 0.7, "and not fifteen, which were not asked for"
    with pytest.raises(SystemExit, match="measure it with --rates"):
        own_folder.with_steps(own_folder.Case("cifar10", "small_w_mse", 15.0, 1, True), None, rates)
    with pytest.raises(SystemExit, match="nothing says what 7 steps are in minutes"):
        own_folder.with_steps(own_folder.Case("cifar10", "small_w_mse", 15.0, 1, True), 7, rates)
