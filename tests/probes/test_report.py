import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from barlow import protocols
from barlow.probes import FeatureSet, Score
from barlow.probes.intervals import Difference, paired
from barlow.probes.metrics import Predicted
from barlow.probes.remarks import AUGMENTED, remarks, row_label
from barlow.probes.report import (
    _with_interval,
    as_json,
    evaluate_features,
    outcome_of,
    render,
    results_of,
    results_table,
)
from barlow.probes.results import Outcome
from barlow.protocols.linear_sgd import LinearSGD
from barlow.report.score_files import _tex_number
from barlow.report.scores import interval
from barlow.scores.columns import difference_cell

KINDS = ("knn", "knn5_euclidean", "logistic", "linear_sgd", "linear_adam")


def pair(apart, classes=3):
    def part(n, seed):
        rng = np.random.default_rng(seed)
        labels = np.arange(n) % classes
        features = apart * np.eye(classes, 12)[labels] + rng.normal(size=(n, 12))
        return FeatureSet(torch.tensor(features, dtype=torch.float32), labels, np.arange(n))

    return part(120, 0), part(90, 1)


@pytest.fixture(scope="module")
def results():
    return evaluate_features(
        {"encoder": pair(6), "pixels": pair(2), "untrained": pair(0), "untrained_recalibrated": pair(3)}
    )


def test_every_set_meets_every_probe_of_an_evaluation_that_names_none(results):
    assert all(tuple(outcomes) == protocols.DEFAULT for outcomes in results.values())
    assert len(results) == 4


def test_results_are_what_the_probes_say(results):
    train, test = pair(2)
    for kind in protocols.DEFAULT:
        assert results["pixels"][kind].metrics == protocols.load(kind)()(train, test)


def test_each_family_of_baselines_is_its_best_metric_by_metric(results):
    for row in results_table(results):
        both = [results[name][row.probe].metrics[row.metric] for name in ("untrained", "untrained_recalibrated")]
        name, score = row.baselines["untrained"]
        assert score == max(both, key=lambda score: score.value)
        assert score.value > both[0].value
        assert name == "untrained_recalibrated"


def test_the_gain_is_over_the_best_baseline_of_all_and_paired(results):
    row = next(row for row in results_table(results) if (row.probe, row.metric) == ("knn", "top1"))
    assert row.best == row.baselines["untrained"], "of this fixture"
    right = {name: results[name]["knn"].answers[0].predictions == results[name]["knn"].answers[1] for name in results}
    assert row.gain == paired(right["encoder"], right["untrained_recalibrated"])
    assert row.gain.value == pytest.approx(row.encoder.value - row.best[1].value)


def test_the_start_of_a_run_is_a_baseline_and_an_encoder_below_it_has_a_negative_gain():
    results = evaluate_features({"encoder": pair(2), "pixels_16": pair(1), "start": pair(6)}, ["knn"])
    (row,) = results_table(results)
    assert row.best[0] == "start"
    assert row.gain.value < 0
    assert as_json(results)["gain"]["knn.top1"]["over"] == "start"
    assert render(results).splitlines()[0].split() == ["Encoder", "Start", "Pixels", "Gain"]


def test_sets_of_other_test_images_are_refused():
    train, test = pair(2)
    other = replace(test, labels=test.labels[::-1].copy())
    with pytest.raises(ValueError, match="pixels_16: its test labels are not those"):
        evaluate_features({"encoder": (train, test), "pixels_16": (train, other)}, ["knn"])


def test_results_become_json_and_back(results):
    plain = as_json(results)
    assert json.loads(json.dumps(plain)) == plain
    score = results["encoder"]["knn"].metrics["top1"]
    assert plain["sets"]["encoder"]["knn"]["metrics"]["top1"] == {
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "n": 90,
    }
    assert plain["sets"]["encoder"]["logistic"]["notes"]["converged"] is True
    assert plain["gain"].keys() == {"knn.top1", "knn5_euclidean.top1", "logistic.top1", "linear_sgd.top1"}


def test_the_best_epoch_is_told_with_its_number_and_apart_from_what_the_probe_chose(results):
    train, test = pair(2)
    predicted = LinearSGD().predict(train, test.features)
    right = (predicted.by_epoch == test.labels).sum(axis=1)
    plain = as_json(results)["sets"]["pixels"]
    assert plain["linear_sgd"]["metrics"]["best_epoch_top1"]["value"] == right.max() / 90
    assert plain["linear_sgd"]["metrics"]["top1"]["value"] == right[-1] / 90
    assert right.max() > right[-1], "the test would not tell them apart"
    assert plain["linear_sgd"]["chosen_on_test"] == {"best_epoch": right.argmax() + 1}
    assert "best_epoch" not in plain["linear_sgd"]["notes"]
    assert "chosen_on_test" not in plain["logistic"]


def test_the_gain_is_of_the_last_epoch_and_the_best_has_none(results):
    rows = {(row.probe, row.metric): row for row in results_table(results)}
    last, best = rows["linear_sgd", "top1"], rows["linear_sgd", "best_epoch_top1"]
    scores = {name: results[name]["linear_sgd"].metrics["top1"].value for name in results}
    baselines = max(scores["pixels"], scores["untrained"], scores["untrained_recalibrated"])
    assert last.gain.value == pytest.approx(scores["encoder"] - baselines)
    assert best.gain is None
    assert best.encoder.value >= last.encoder.value
    text = render(results)
    line = next(line for line in text.splitlines() if line.startswith("SGD best epoch"))
    assert "+" not in line, "no gain"
    assert "chosen on these very test images" in " ".join(text.split())


def test_the_encoder_on_augmented_views_is_compared_with_baselines_on_centre_views(results):
    train, test = pair(4)
    augmented = outcome_of(LinearSGD(epochs=2).predict(lambda epoch: train, test.features), test.labels)
    more = {**results, "encoder": {**results["encoder"], AUGMENTED: augmented}}
    rows = {(row.probe, row.metric): row for row in results_table(more)}
    row, plain = rows[AUGMENTED, "top1"], rows["linear_sgd", "top1"]
    assert row.encoder == augmented.metrics["top1"]
    assert row.baselines == plain.baselines
    told = as_json(more)["gain"][f"{AUGMENTED}.top1"]
    assert told == {"over": row.best[0], **asdict(row.gain)}
    assert plain.encoder == results["encoder"]["linear_sgd"].metrics["top1"], "the cached protocol stays beside it"
    text = render(more)
    assert "SGD augm. top-1" in text
    assert "its baselines on centre views" in " ".join(text.split())
    assert "centre views" not in render(results)


def test_the_table_fits_80_columns_at_its_widest():
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=10_000)
    wrong = Predicted(np.eye(10)[(labels + rng.integers(1, 10, 10_000)) % 10], np.arange(10))
    right = Predicted(np.where(rng.random((10_000, 1)) < 0.99, np.eye(10)[labels], wrong.scores), np.arange(10))
    widest = Score(0.9912, 0.9876, 0.9934, 10_000)
    metrics = {"top1": widest, "top5": Score(1.0, 0.9996, 1.0, 10_000), "best_epoch_top1": widest}
    sets = {"encoder": right, "start": wrong, "pixels_16": wrong, "pixels_32": wrong, "untrained": wrong}
    text = render(
        {
            name: {
                kind: Outcome(metrics, {}, answers=(predicted, labels))
                for kind in ([*KINDS, AUGMENTED] if name == "encoder" else KINDS)
            }
            for name, predicted in sets.items()
        }
    )
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert sum("99.1 [98.8, 99.3]" in line for line in lines) == 2 * (len(KINDS) + 1)
    assert sum("100 [100.0, 100]" in line for line in lines) == len(KINDS) + 1
    assert sum("+98.9 [98.7, 99.1]" in line for line in lines) == 2 * (len(KINDS) + 1), "two gains for each probe"
    assert "10,000 test images" in text
    assert "…" not in text


def test_the_table_shows_encoder_baselines_and_gain(results):
    lines = render(results).splitlines()
    assert lines[0].split() == ["Encoder", "Pixels", "Untrained", "Gain"]
    knn = next(line for line in lines if line.startswith("kNN top-1"))
    row = results_table(results)[0]
    assert f"{100 * row.encoder.value:.1f} [" in knn or "100 [" in knn
    assert knn.endswith(f"{100 * row.gain.value:+.1f} [{100 * row.gain.low:.1f}, {100 * row.gain.high:.1f}]")


def test_a_table_without_baselines_has_no_gain():
    text = render(evaluate_features({"encoder": pair(2)}, ["knn"]))
    assert text.splitlines()[0].split() == ["Encoder"]
    assert "gain" not in text
    assert len(text.splitlines()) == 3, "and no word on probes that are not in it"


def test_probes_can_be_chosen_by_kind_and_unknown_ones_are_refused():
    assert list(evaluate_features({"encoder": pair(2)}, ["logistic"])["encoder"]) == ["logistic"]
    with pytest.raises(ValueError, match=r"'svn'.*knn5_euclidean"):
        evaluate_features({"encoder": pair(2)}, ["svn"])


def test_train_and_test_must_be_labelled_the_same_way():
    train, test = pair(2)
    with pytest.raises(ValueError, match="label both the same way"):
        evaluate_features({"encoder": (train, replace(test, labels=np.eye(3, dtype=int)[test.labels]))})


def test_tables_call_each_convention_of_average_precision_by_its_own_name_and_say_what_it_is():
    rng = np.random.default_rng(0)

    def part(n):
        labels = (rng.random((n, 3)) < 0.4).astype(np.int8)
        return FeatureSet(torch.tensor(rng.normal(size=(n, 6)), dtype=torch.float32), labels, np.arange(n))

    sets = {"encoder": (part(60), part(40))}
    results = evaluate_features(sets, ["knn", "svm"])
    labels = [row_label(row.probe, row.metric) for row in results_table(results)]
    assert labels == ["kNN mAP", "SVM env mAP", "SVM 11-pt mAP"]
    below = " ".join(render(results).partition("Per cent")[2].split())
    for words in ("mAP: without", "env mAP: the area", "11-pt mAP: at eleven", "Never set one beside another."):
        assert words in below
    for name, value in {**results["encoder"]["knn"].chance, **results["encoder"]["svm"].chance}.items():
        assert f"{row_label('', name).strip()} of a random order: {100 * value:.1f}." in below
    assert "Never" not in render(evaluate_features(sets, ["knn"])), "where there is one convention"
    again = results_of(as_json(results))
    assert remarks(again) == remarks(results), "a page that is made of the file says the same"


SAID = {-0.0003: "-0.03", -1e-6: "<0", 1e-6: ">0", 0.0004: "0.04", 0.0: "0.0", -1e-17: "0.0", -0.02: "-2.0"}


@pytest.mark.parametrize(("high", "said"), SAID.items())
def test_the_end_of_a_differences_interval_says_on_which_side_of_zero_it_is(high, said):
    found = Difference(-0.1, -0.143, high, 80)
    assert difference_cell(found).text(signed=True) == f"-10.0 -14.3…{said}"
    assert _with_interval(found) == f"-10.0 [-14.3, {said}]"
    assert interval(found).words == f"−14.3 to {said.replace('-', '−')}"
    plus = "" if said[0] in "-<>" else "+"
    assert _tex_number(difference_cell(found), "+") == f"$-10.0$ [$-14.3$, ${plus}{said}$]"


def test_a_choice_at_the_end_of_what_is_tried_is_told_below_the_table() -> None:
    at_the_end = Outcome({"top1": Score(0.5, 0.4, 0.6, 80)}, {"at_edge": True})
    inside = Outcome({"top1": Score(0.4, 0.3, 0.5, 80)}, {"at_edge": False})
    told = " ".join(render({"encoder": {"linear": at_the_end}, "untrained": {"linear": inside}}).split())
    assert "chose an end of what it tries, so none beyond was tried: encoder." in told
    assert "none beyond" not in render({"encoder": {"linear": inside}})
