"""A report is one file that needs nothing else, whatever its run, its images and their names are."""

import base64
import hashlib
import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from strange_names import HOSTILE, LONG
from torch import nn

from barlow import cli, storage
from barlow.evaluation import evaluate
from barlow.pretraining import pretrain
from barlow.recipe import files
from barlow.recipe.changes import override
from barlow.report import write_report
from barlow.runs.run import Run, load_recipe_text
from barlow.seals import sealed

SHORT = {"map": "pca"}


class Read(HTMLParser):
    """The tags of a page with their attributes, and its texts by the tag that they are in."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == [], "every tag that is opened is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def of(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in tags]

    @property
    def words(self) -> str:
        return "\n".join(t for tag, texts in self.texts.items() if tag not in ("script", "style") for t in texts)


def page_of(run: Path, **options: Any) -> str:
    told: list[str] = []
    text = write_report(run, tell=told.append, **(SHORT | options)).read_text(encoding="utf-8")
    assert "could not be made" not in text, told
    return text


@pytest.fixture(scope="module")
def page(home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(home / "run", out=tmp_path_factory.mktemp("page") / "report.html")


# --- One file ---------------------------------------------------------------------------------------------------------


def test_it_names_nothing_outside_of_itself(page: str) -> None:
    read = Read(page)
    addresses = [a[key] for _, a in read.tags for key in ("src", "href", "data", "action", "xlink:href") if a.get(key)]
    assert addresses
    assert [a for a in addresses if a and not a.startswith(("#", "data:image/"))] == []
    assert set(re.findall(r"url\(([^:)]*)", "".join(read.texts["style"]))) == {"data"}
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    targets = {a["id"] for a in read.of("section")}
    assert {a["href"] for a in read.of("a")} == {f"#{name}" for name in targets}


def test_its_policy_allows_its_own_style_and_script_and_nothing_else(page: str) -> None:
    read = Read(page)
    policies = [a["content"] for a in read.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    allowed = dict(rule.strip().split(" ", 1) for rule in str(policies[0]).split(";"))
    assert allowed["default-src"] == "'none'"
    assert allowed["img-src"] == "data:"

    def hashed(pattern: str) -> list[str]:
        found = re.findall(pattern, page, re.DOTALL)
        return [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in found]

    assert hashed(r"<style>(.*?)</style>") == [allowed["style-src"]]
    assert hashed(r"<script>(.*?)</script>") == [allowed["script-src"]]
    for tag, attributes in read.tags:
        wrong = [name for name in attributes if name == "style" or name.startswith("on")]
        assert not wrong, f"<{tag}> has {wrong}, which the policy forbids"


def test_names_stay_texts(page: str) -> None:
    read = Read(page)
    assert HOSTILE in read.words
    assert not [a for a in read.of("img") if not str(a["src"]).startswith("data:image/")]
    assert [a for a in read.of("script") if a.get("type") != "application/json"] == [{}], "one script, which is ours"
    assert any(LONG[:50] in str(a.get("title")) or LONG[:50] in str(a.get("aria-label")) for a in read.of("span")) or (
        LONG[:40] in page
    )
    assert "alert(2)" in page, "the long name is shown"
    for text in read.texts["script"][:-1]:
        json.loads(text)


def test_the_same_run_gives_the_same_bytes(home: Path, page: str, tmp_path: Path) -> None:
    assert page_of(home / "run", out=tmp_path / "again.html") == page


def test_it_goes_by_mail(page: str) -> None:
    assert len(page.encode()) < 8e6


@pytest.mark.nightly
def test_five_thousand_images_take_less_than_a_minute_and_go_by_mail(tmp_path: Path) -> None:
    out = pretrain("shapes", tmp_path / "run", overrides=tiny.SMALL | {"train.steps": 2}, progress=False).run_folder
    evaluate(out, "shapes:test", "shapes:train", protocols=["knn"], baselines=False)
    began = time.process_time()
    path = write_report(out, map="tsne")
    assert time.process_time() - began < 60, "of processor time"
    assert "all 5,000 test images" in path.read_text(encoding="utf-8")
    assert path.stat().st_size < 8e6


def test_every_picture_has_words_and_every_part_a_sentence_or_table(page: str) -> None:
    read = Read(page)
    assert [a for a in read.of("img") if not a.get("alt")] == []
    assert [a for a in read.of("svg") if not a.get("aria-label") and a.get("aria-hidden") != "true"] == []
    assert [a for a in read.of("canvas") if not a.get("aria-label") or a.get("tabindex") != "0"] == []
    assert [a for a in read.of("button") if a.get("type") != "button"] == []


def test_it_has_every_part(page: str) -> None:
    names = [a["id"] for a in Read(page).of("section")]
    assert names == [
        *("verdict", "evaluation", "neighbours", "map", "mistakes", "loss", "health", "matrix", "spectra", "views"),
        *("recipe", "images", "machine", "time"),
    ]
    for words in ("kNN top-1", "pixels", "learning rate", "directions in use", "step 12", "projector 16-4"):
        assert words in Read(page).words


# --- Runs that lack something -----------------------------------------------------------------------------------------


def test_a_run_that_was_not_evaluated_shows_its_own_images_and_names_the_command(run: Path) -> None:
    shutil.rmtree(run / "evaluation")
    read = Read(page_of(run))
    assert f"barlow evaluate {run} --train LABELLED/train --test LABELLED/test" in read.words
    assert "60 of 60 images that the run was trained on" in read.words
    assert read.of("canvas")


def test_where_the_images_have_moved_the_rest_is_still_there(home: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(home, tmp_path / "moved")
    run = moved / "run"
    results = storage.read_sealed(run / "evaluation" / "results.json")
    for part in results["images"].values():
        part["places"] = [str(tmp_path / "gone")]
    storage.write_sealed(run / "evaluation" / "results.json", results)
    identity = storage.read_sealed(run / "run.json")
    recipe = (run / "recipe.yaml").read_text()
    old = str(home / "train")
    (run / "recipe.yaml").write_text(recipe.replace(old, str(tmp_path / "gone")))
    text = json.dumps(identity).replace(old, str(tmp_path / "gone"))
    storage.write_sealed(run / "run.json", json.loads(text))
    read = Read(page_of(run))
    assert "The test images are not shown" in read.words
    assert "kNN top-1" in read.words
    assert read.of("canvas"), "points without pictures"
    assert "its networks cannot be looked at now" in read.words
    assert "Each class" in read.words


def test_test_images_that_are_others_by_now_are_not_shown(home: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(home, tmp_path / "moved")
    run, test = moved / "run", moved / "test"
    results = storage.read_sealed(run / "evaluation" / "results.json")
    results["images"]["test"]["places"] = [str(test)]
    storage.write_sealed(run / "evaluation" / "results.json", results)
    assert "not those any more" not in Read(page_of(run)).words
    first = min((test / "class0").iterdir())
    shutil.copy(first, first.with_name("000a.png"))  # all positions after it move by one
    assert "are not those any more that were measured" in Read(page_of(run)).words


def test_damaged_features_are_left_out_and_the_runs_own_images_shown(run: Path) -> None:
    for path in (run / "evaluation" / "features").iterdir():
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
    told: list[str] = []
    read = Read(write_report(run, tell=told.append, **SHORT).read_text(encoding="utf-8"))
    assert "60 of 60 images that the run was trained on" in read.words
    assert [line for line in told if line.endswith("these features are left out")]


def test_a_strangers_run_does_not_show_a_folder_that_it_names(home: Path, run: Path, tmp_path: Path) -> None:
    own = tiny.images(tmp_path / "private", 40, classes=3, seed=9)
    results = storage.read_sealed(run / "evaluation" / "results.json")
    results["images"]["test"]["places"] = [str(own)]
    storage.write_sealed(run / "evaluation" / "results.json", results)
    read = Read(page_of(run))
    assert "are not those any more that were measured" in read.words
    assert not read.of("span") or not [a for a in read.of("span") if str(a.get("class")).startswith(("t t", "h h"))]
    tiny.change_weights(run, lambda tensors: tensors | {"conv1.weight": -tensors["conv1.weight"]})
    assert "the encoder that was measured is not there" in Read(page_of(run)).words


def test_a_run_that_is_not_finished_says_so(run: Path) -> None:
    shutil.rmtree(run / "evaluation")
    shutil.rmtree(run / "encoder")
    rows = Run(run).metrics()[:7]
    storage.write_lines(run / "metrics.jsonl", [sealed(row) for row in rows])
    assert "7 of 12: the run is not finished" in Read(page_of(run)).words


def test_a_run_with_nothing_but_a_recipe_has_a_report(run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(run / "recipe.yaml", bare)
    read = Read(page_of(bare))
    assert "nothing was logged" in read.words
    assert "The encoder cannot be loaded" in read.words


def test_damaged_files_are_named_and_the_rest_is_shown(run: Path) -> None:
    (run / "data.json").write_text("{")
    (run / "evaluation" / "results.json").write_text('{"sha256": "0"}')
    lines = (run / "metrics.jsonl").read_bytes().replace(b'"step": 3,', b'"step": 4,', 1)
    (run / "metrics.jsonl").write_bytes(lines)
    (run / "views.png").write_bytes(b"no picture")
    told: list[str] = []
    read = Read(write_report(run, tell=told.append, **SHORT).read_text(encoding="utf-8"))
    assert "data.json" in read.words
    assert "results.json" in read.words
    assert "1 damaged lines of metrics.jsonl" in read.words
    assert "learning rate" in read.words
    assert [line for line in told if line.startswith("Views: This part could not be made")]


@pytest.mark.parametrize(
    "line",
    [
        {"step": 1, "loss": "high", "terms": [1], "features": {"std": None}, "healthy": 3},
        {"step": 2, "loss": 1e308, "terms": {"a": True}, "state": ["x"], "why": {}},
        {"step": 10**15, "loss": 1.0},
        {"step": 3, "loss": 2.0, "terms": {"<b>": 1.0, "</script>": 1.0}, "reference": {"floor": "0"}},
    ],
)
def test_a_log_of_another_form_breaks_nothing(run: Path, line: dict[str, Any]) -> None:
    storage.append_line(run / "metrics.jsonl", sealed(line))
    Read(page_of(run))


def test_a_classifier_has_no_embeddings_to_correlate(home: Path, tmp_path: Path) -> None:
    small = tiny.SMALL | {"train.steps": 2}
    small = {key: value for key, value in small.items() if not key.startswith("method.projector")}
    out = pretrain(
        home / "train", tmp_path / "supervised", recipe="small_supervised", overrides=small, progress=False
    ).run_folder
    assert "compares no two views of an image" in Read(page_of(out)).words


class Own(nn.Module):
    """An encoder that no recipe can name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 8, 3, stride=2)

    def forward(self, x: Any) -> Any:
        return self.inner(x).mean((2, 3))


def test_an_encoder_given_in_python_leaves_its_pictures_out(home: Path, tmp_path: Path) -> None:
    small = {key: value for key, value in tiny.SMALL.items() if not key.startswith("encoder.")} | {"train.steps": 2}
    out = pretrain(home / "train", tmp_path / "own", encoder=Own(), overrides=small, progress=False).run_folder
    read = Read(page_of(out))
    assert "was given in Python" in read.words
    assert "learning rate" in read.words


# --- What the monitor keeps -------------------------------------------------------------------------------------------


def monitored(step: int, d: int = 4) -> dict[str, Any]:
    side = min(d, 64)
    values = [1.0 if i == j else 0.1 * (-1) ** (i + j) for i in range(side) for j in range(side)]
    reading = {"value": 2.0 + step, "floor": 1.0, "ceiling": 30.0}
    return {
        "step": step,
        "seconds": float(step),
        "images": {"count": 500, "views": 2, "held_out": True},
        "diagnostics": {"features": {"rankme": reading}, "embeddings": {"alignment": reading}},
        "spectrum": {"features": [4.0, 2.0, 1.0], "embeddings": [3.0, 1.0, 0.0]},
        "cross_correlation": {"d": d, "side": side, "values": values},
        "scores": {"knn.top1": {"value": 0.4 + step / 100, "low": 0.3, "high": 0.9, "n": 50}},
    }


def test_of_a_run_without_a_monitor_the_networks_are_looked_at_now(run: Path) -> None:
    told: list[str] = []
    read = Read(write_report(run, tell=told.append, **SHORT).read_text(encoding="utf-8"))
    assert told == ["reading 60 of the run's images, as it was not monitored"]
    alts = [str(a["alt"]) for a in read.of("img")]
    assert [alt.partition(":")[0] for alt in alts if alt.startswith("cross")] == [
        f"cross-correlation at step {step}" for step in (0, 12)
    ]
    assert not (run / "monitor.jsonl").exists(), "nothing is written but the report"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"encoder.init": "timm:resnet18.a1_in1k"},
            "the weights that it started from (timm:resnet18.a1_in1k) are not in",
        ),
        ({"method.projector.widths": [40_000, 40_000]}, "heads of 1,600,000,000 weights"),
        ({"data.sources": ["cifar10"]}, "takes images of cifar10"),  # the rest is cut where the path is long
    ],
)
def test_a_strangers_recipe_fetches_nothing_and_takes_no_memory(
    run: Path, changes: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("barlow.data.sources.CACHE", tmp_path / "nothing was downloaded")
    monkeypatch.setattr("barlow.report.snapshots.build_learner", lambda *_, **__: pytest.fail("nothing is built"))
    recipe = override(load_recipe_text(run / "recipe.yaml"), changes)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (run / "run.json").unlink()
    assert said in Read(page_of(run)).words


def test_an_objective_given_in_python_is_not_needed(home: Path, tmp_path: Path) -> None:
    class Own:
        def __call__(self, *z: Any) -> dict[str, Any]:
            return {"distance": (z[0] - z[1]).square().mean()}

    out = pretrain(
        home / "train", tmp_path / "own", objective=Own(), overrides=tiny.SMALL | {"train.steps": 2}, progress=False
    ).run_folder
    assert [a for a in Read(page_of(out)).of("img") if str(a["alt"]).startswith("cross-correlation at step 2")]


@pytest.mark.nightly
@pytest.mark.parametrize("recipe", [name for name in files.names() if name.startswith("small_")])
def test_a_run_of_every_small_recipe_has_every_part(recipe: str, home: Path, tmp_path: Path) -> None:
    small = tiny.of_recipe(recipe) | {"train.steps": 2}
    out = pretrain(home / "train", tmp_path / "run", recipe=recipe, overrides=small, progress=False).run_folder
    read = Read(page_of(out))
    assert "cannot be looked at now" not in read.words
    shown = [a for a in read.of("img") if str(a["alt"]).startswith("cross-correlation at step 2")]
    assert len(shown) == (0 if "compares no two views" in read.words else 1)


def test_what_the_monitor_kept_is_shown_and_nothing_is_computed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barlow.report.writing.snapshots", lambda *_: pytest.fail("the monitor has kept them"))
    for step in (0, 4, 8, 12):
        storage.append_line(run / "monitor.jsonl", sealed(monitored(step, d=100)))
    read = Read(page_of(run))
    alts = [str(a["alt"]) for a in read.of("img")]
    assert [alt[:28] for alt in alts if alt.startswith("cross")] == [
        f"cross-correlation at step {s}:"[:28] for s in (0, 4, 12)
    ]
    assert "rankme" in read.words
    assert "knn.top1, per cent" in read.words


def test_state_and_levels_of_the_loss_are_shown(run: Path) -> None:
    row = Run(run).metrics()[-1]
    more = {"reference": {"unrelated": 1.1 * row["loss"], "floor": 0.9 * row["loss"]}}
    storage.append_line(
        run / "metrics.jsonl",
        sealed(row | more | {"step": 13, "state": "watch", "why": "few directions in use"}),
    )
    read = Read(page_of(run))
    assert "few directions in use" in read.words
    assert '<span class="state watch">watch' in page_of(run)
    assert {"unrelated views", "the least it can be"} <= set(read.texts["text"])


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_into_the_run_and_overwrite_takes_it_for_ours(
    run: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", str(run), "--map", "pca"]) == 0
    assert capsys.readouterr().out.startswith(f"report   {run / 'report.html'}   (")
    pretrain(home / "train", run, overrides=tiny.SMALL | {"train.steps": 1}, overwrite=True, progress=False)
    assert not (run / "report.html").exists(), "it was of the run before"


def test_figures_are_files_of_their_own(run: Path, tmp_path: Path) -> None:
    import io
    import xml.etree.ElementTree as ElementTree

    from PIL import Image

    write_report(run, figures=tmp_path / "figures", **SHORT)
    files = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert {
        "loss.svg",
        "spectrum-features.svg",
        "confusions.svg",
        "views.png",
        "map-pca.svg",
        "neighbours.png",
    } <= files.keys()
    assert any(name.startswith("cross-correlation-") for name in files)
    for name, content in files.items():
        if name.endswith(".svg"):
            assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
        else:
            assert Image.open(io.BytesIO(content)).format == "PNG"


def test_a_figure_has_no_name_that_leads_elsewhere(run: Path, tmp_path: Path) -> None:
    row = Run(run).metrics()[-1] | {"step": 13, "terms": {"../../../evil": 1.0, "/etc/evil": 1.0, "a" * 300: 1.0}}
    storage.append_line(run / "metrics.jsonl", sealed(row))
    home = tmp_path / "deep" / "figures"
    write_report(run, figures=home, **SHORT)
    names = {path.name for path in home.iterdir()}
    assert {"term-_evil.svg", "term-_etc_evil.svg", f"term-{'a' * 75}.svg"} <= names
    assert [path for path in tmp_path.rglob("*evil*") if path.parent != home] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{run}", "--map", "umap"], "--map umap: give one of pca, tsne, pacmap"),
        (["{run}", "--max-images", "2"], "--max-images 2: give 3 to 10,000"),
        (["{run}", "{run}"], "several runs are compared in one file, and none is named for it: add --out FILE"),
        (["{run}", "--out", "{run}"], "is a folder; name a file"),
        (["{run}/none"], "does not exist, so it is not a run"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    run: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", *(word.format(run=run) for word in words)]) != 0
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_link_at_the_reports_place_is_not_followed(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.html"
    other.write_text("mine")
    (run / "report.html").symlink_to(other)
    with pytest.raises(storage.CannotCreate, match=r"report\.html is a link"):
        write_report(run, **SHORT)
    assert other.read_text() == "mine"
