"""Detections beside each other: the table in every form, what is kept of it, and the papers' rows."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import small

from barlow import cli, exits, ownership, storage
from barlow.detection import evaluating, measuring
from barlow.detection.compared import OverSeeds, Row, detection_table, report_of
from barlow.detection.evaluating import Detection, detect
from barlow.detection.measuring import Question
from barlow.detection.schedules import SCHEDULES
from barlow.encoders import find_encoder
from barlow.probes.report import rows_of
from barlow.record import read
from barlow.report.score_files import write_table
from barlow.scores import published
from barlow.scores.labels import label_of_metric

MANY: dict[str, Any] = {"seeds": 2, "device": "cpu"}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is small: the detector, the schedule, the sets."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `detection`)")
    monkeypatch.setitem(measuring.DESIGNS, "small_fpn", small.FPN)
    monkeypatch.setattr(evaluating, "chosen_schedule", lambda *given: small.SCHEDULE)
    monkeypatch.setattr(evaluating, "read_annotated", lambda place, split: small.shapes(4, split))


def question(**changes: Any) -> Question:
    about = {"design": "small_fpn", "schedule": small.SCHEDULE, "batch_norm": "trained"} | changes
    return Question(small.shapes(), small.shapes(4, "test"), **about)


def answers(values: list[float], convention: str = "voc07") -> list[dict[str, Any]]:
    return [
        {
            "precision": {convention: {"AP": v / 2, "AP50": v, "AP75": v / 4, "AP_small": v / 8}},
            "seed": seed,
            "processor_seconds": 1.0,
        }
        for seed, v in enumerate(values)
    ]


def a_row(own: list[float], other: list[float] | None, name: str = "an encoder", convention: str = "voc07") -> Row:
    return Row(name, answers(own, convention), None if other is None else answers(other, convention))


A, B = a_row([0.5, 0.6, 0.7], [0.4, 0.55, 0.55], "x" * 100), a_row([0.3, 0.45, 0.45], None, "b")


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_table_has_means_spreads_differences_and_paired_gains() -> None:
    table = Detection([A, B], question(), [], []).table()
    assert max(map(len, table.splitlines())) <= 80
    lines = squeezed(table)
    assert lines[1:4] == ["x" * 23, "B b", ""]
    assert "A B Untrained A" in lines
    assert "VOC07 AP50 60.0 ± 10.0 40.0 ± 8.7 50.0 ± 8.7" in lines
    # B - A: -20, -15, -25 points, and A over its untrained weights: 10, 5, 15. Either has a deviation of 5, and so
    # Student's 4.303 · 5 / √3 = 12.4 to either side.
    at = lines.index("difference to A")
    assert lines[at + 2] == "VOC07 AP50 -20.0 -32.4…-7.6 -10.0 -22.4…2.4"
    at = lines.index("gain over untrained")
    assert lines[at + 2] == "VOC07 AP50 +10.0 -2.4…22.4"
    assert "4 test images of shapes_boxes:test, training on 4 of shapes_boxes:train:" in table
    assert "detect:small_fpn:4, 4 steps, 3 seeds" in table


def test_one_seed_has_neither_spread_nor_intervals() -> None:
    table = Detection([a_row([0.5], [0.4]), a_row([0.3], None)], question(), [], []).table()
    lines = squeezed(table)
    assert "VOC07 AP50 50.0 30.0 40.0" in lines
    assert "VOC07 AP50 -20.0 -10.0" in lines
    assert "VOC07 AP50 +10.0" in lines
    assert "Per cent, of one seed, which says nothing of how sure a number or a difference is." in " ".join(lines)


def test_pairs_are_of_equal_seeds() -> None:
    mine, theirs = (OverSeeds({"coco_box_AP": values}, 9) for values in ([0.5, 0.7], [0.4, 0.6]))
    found = mine.compared(theirs, small.np.array([]))["coco_box_AP"]
    assert (found.value, found.low, found.high, found.n) == (pytest.approx(0.1), *[pytest.approx(0.1)] * 2, 9)
    with pytest.raises(ValueError, match="zip"):
        mine.compared(OverSeeds({"coco_box_AP": [0.4]}, 9), small.np.array([]))
    alone = OverSeeds({"coco_box_AP": [0.5]}, 9).measured(small.np.array([]))["coco_box_AP"]
    assert (alone.value, alone.low, alone.high) == (0.5, 0.0, 1.0)


def test_json_and_csv_have_every_number(tmp_path: Path) -> None:
    scores = detection_table([A, B], question())
    for end in (".json", ".csv"):
        write_table(scores, tmp_path / f"table{end}")
    lines = json.loads((tmp_path / "table.json").read_text())["sections"][0]["lines"]
    assert [line["metric"] for line in lines] == ["voc07_AP", "voc07_AP50", "voc07_AP75"]
    assert lines[1]["cells"][0] == {
        "value": pytest.approx(0.6),
        "low": None,
        "high": None,
        "spread": pytest.approx(0.1),
        "runs": 3,
    }
    assert lines[1]["gains"][0]["value"] == pytest.approx(0.1)
    assert lines[1]["gains"][1:] == [None, None]
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "voc07_AP50"]
    assert [row["column"] for row in rows] == ["A", "B", "Untrained A"]
    assert {(row["protocol"], row["seeds"]) for row in rows} == {("detect:small_fpn:4", "3")}
    assert [float(row["value"]) for row in rows] == pytest.approx([0.6, 0.4, 0.5])
    assert [row["gain"] and float(row["gain"]) for row in rows] == [pytest.approx(0.1), "", ""]
    assert float(rows[1]["difference_high"]) == pytest.approx(-0.0758, abs=1e-4)


def test_html_and_latex_have_the_gains_under_a_heading(tmp_path: Path) -> None:
    scores = detection_table([A, B], question())
    for end in (".html", ".tex"):
        write_table(scores, tmp_path / f"table{end}")
    page = (tmp_path / "table.html").read_text(encoding="utf-8")
    for part in ("Gain over untrained", "Difference to A", "60.0 ± 10.0", "+10.0 -2.4…22.4", "-20.0 -32.4…-7.6"):
        assert part in page
    code = (tmp_path / "table.tex").read_text(encoding="utf-8").splitlines()
    rows = [line for line in code if line.startswith("VOC07 AP50")]
    assert rows == [
        r"VOC07 AP50 & $60.0 \pm 10.0$ & $40.0 \pm 8.7$ & $50.0 \pm 8.7$ \\",
        r"VOC07 AP50 &  & $-20.0$ [$-32.4$, $-7.6$] & $-10.0$ [$-22.4$, $+2.4$] \\",
        r"VOC07 AP50 & $+10.0$ [$-2.4$, $+22.4$] &  &  \\",
    ]
    assert r"\multicolumn{4}{l}{gain over untrained} \\" in code


def test_untrained_weights_that_two_encoders_share_are_one_column() -> None:
    rows = [a_row([0.5, 0.6], [0.4, 0.5]), a_row([0.3, 0.4], [0.4, 0.5], "b")]
    for row in rows:
        for seed, each in enumerate(row.beside or []):
            each["encoder_identity"] = f"untrained, {seed}"
    table = detection_table(rows, question())
    assert [column.title for column in table.columns] == ["A", "B", "Untrained"]
    assert [gain and round(gain.value, 6) for gain in table.sections[0].lines[1].gained] == [0.1, -0.1, None]


# --- What is kept -----------------------------------------------------------------------------------------------------


def test_results_accumulate_as_those_of_other_protocols(tiny: None, tmp_path: Path) -> None:
    encoder, home = small.encoder(seed=5), tmp_path / "evaluation"
    found = detect([encoder], "shapes_boxes", "shapes_boxes", out=home, **MANY)
    (kept,) = home.glob("results-*.json")
    report, newest = storage.read_sealed(kept), storage.read_sealed(home / "results.json")
    assert report == newest
    assert ownership.foreign(tmp_path) == [], "what was written is known to be barlow's"
    assert report["asked"]["probes"] == ["detect:small_fpn:4"]
    rows = {row.metric: row for row in rows_of(report)}
    (line,) = [line for line in found.scores.sections[0].lines if line.metric == "coco_box_AP50"]
    assert line.cells[0] is not None
    score, gain = rows["coco_box_AP50"].encoder, rows["coco_box_AP50"].gain
    assert score is not None
    assert score.value == pytest.approx(line.cells[0].value)
    assert gain is not None
    assert gain == line.gained[0]
    assert report["sets"]["encoder"]["detect:small_fpn:4"]["notes"]["values"]["coco_box_AP50"] == pytest.approx(
        found.rows[0].values("coco_box", "AP50")
    )
    again = detect([encoder], "shapes_boxes", "shapes_boxes", out=home, **MANY)
    assert again.rows[0].results == found.rows[0].results
    assert len(list(home.glob("results-*.json"))) == 1
    history = storage.read_lines(home / "history.jsonl")
    assert len(history) == 2
    assert history[0]["scores"] == history[1]["scores"]
    assert history[0]["scores"]["encoder"]["detect:small_fpn:4.coco_box_AP50"] == score.value
    detect([encoder], "shapes_boxes", "shapes_boxes", out=home, **(MANY | {"seeds": 1}))
    assert len(list(home.glob("results-*.json"))) == 2, "one seed is another question"


def test_what_cannot_be_added_to_the_results_is_said_and_the_numbers_are_shown(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise storage.StorageError("no space left on the disk")

    monkeypatch.setattr(evaluating, "keep", full)
    said: list[str] = []
    asked: dict[str, Any] = {"seeds": 1, "baselines": False, "device": "cpu", "tell": said.append}
    found = detect([small.encoder()], "a", "b", out=tmp_path, **asked)
    assert "COCO box AP50" in found.table()
    assert said[-1] == f"no space left on the disk; the numbers are in {tmp_path / 'detection'}, and in the table"


def test_the_command_writes_the_table_and_does_not_replace_a_file(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--encoder.options", json.dumps(small.OPTIONS), "--detection.seeds", "1", "--device", "cpu"]
    words = ["evaluate", "random:resnet18", "--protocol", "detect", "--train", "shapes_boxes", "--test", "shapes_boxes"]
    words += ["--out", str(tmp_path / "out"), "--table", str(tmp_path / "table.csv"), *options]
    assert cli.main(words) == exits.OK
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines()[:-2])) <= 80
    assert out.splitlines()[-2:] == [f"results  {tmp_path / 'out'}", f"table    {tmp_path / 'table.csv'}"]
    assert "detect:small_fpn:4,coco_box_AP50,A,random:resnet18" in (tmp_path / "table.csv").read_text()
    assert cli.main(words) == exits.CANNOT_CREATE
    assert "--overwrite" in capsys.readouterr().err


def test_a_report_of_a_run_is_about_labelled_images_where_there_are_both(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    storage.write_text(tmp_path / "recipe.yaml", "seed: 0")
    storage.write_sealed(tmp_path / "run.json", {})
    labelled, boxes = {"asked": {"probes": ["knn"]}}, {"asked": {"probes": ["detect:small_fpn:100"]}}
    storage.write_sealed(tmp_path / "evaluation" / "results.json", boxes)
    storage.write_sealed(tmp_path / "evaluation" / "results-00000000.json", boxes)
    assert read(tmp_path).results == boxes
    storage.write_sealed(tmp_path / "evaluation" / "results-00000001.json", labelled)
    found = read(tmp_path)
    assert found.results is not None
    assert found.results["asked"]["probes"] == ["knn"]
    assert len(found.evaluations) == 2


# --- The papers' rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("design", "schedule", "batch_norm", "protocol"),
    [
        ("small_fpn", "short", "trained", "detect:small_fpn:100"),
        ("fpn", "short", "frozen", "detect:fpn:100:frozen"),
        ("c4", "moco_voc", "trained", "detect:c4:moco_voc"),
        ("c4", "vicreg_voc", "frozen", "detect:c4:vicreg_voc:frozen"),
    ],
)
def test_a_protocol_is_named_by_detector_schedule_and_batch_norm(
    design: str, schedule: str, batch_norm: str, protocol: str
) -> None:
    made = question(design=design, schedule=SCHEDULES[schedule], batch_norm=batch_norm)
    assert made.protocol == protocol
    assert label_of_metric(protocol, "coco_box_AP_small") == "COCO box AP small"
    assert label_of_metric(protocol, "coco_mask_AP") == "COCO mask AP"


def test_the_papers_rows_stand_beside_their_own_schedule_and_set_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question(design="c4", schedule=SCHEDULES["barlow_twins_voc"])
    assert detection_table([A], asked).sections[0].published == [], "four generated images are not VOC07+12"
    monkeypatch.setattr(published, "set_of", lambda images, classes: "voc0712")
    table = detection_table([A], asked)
    assert [each.values for each in table.sections[0].published] == [
        {"Barlow Twins": value} for value in (56.8, 82.6, 63.4)
    ]
    words = " ".join(squeezed(table.text()))
    assert (
        "papers VOC07 AP50: Barlow Twins 82.6 (ResNet-50, trained on ImageNet; Barlow Twins (arXiv 2103.03230)" in words
    )
    assert "The papers' detectors are detectron2's" in words
    other = detection_table([A], question(design="c4", schedule=SCHEDULES["moco_voc"]))
    assert [set(each.values) for each in other.sections[0].published] == [{"Supervised", "MoCo v2"}] * 3
    frozen = question(design="c4", schedule=SCHEDULES["moco_voc"], batch_norm="frozen")
    assert detection_table([A], frozen).sections[0].published == []


def test_a_report_says_where_its_images_are(tmp_path: Path) -> None:
    encoder = find_encoder(small.encoder())
    report = report_of(A, encoder, question(), (["a:trainval", "b"], "shapes_boxes"), ["odd"])
    assert report["images"]["train"]["places"] == [str(Path.cwd() / "a:trainval"), str(Path.cwd() / "b")]
    assert report["images"]["test"]["places"] == ["shapes_boxes"]
    assert report["warnings"] == ["odd"]
    assert report["gain"]["detect:small_fpn:4.voc07_AP50"]["over"] == "untrained"
    assert "detect:small_fpn:4.voc07_AP_small" in report["gain"]
