"""What a report says first, of five runs that deserve five different words."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from barlow import record
from barlow.evaluation import evaluate
from barlow.exits import Diverged
from barlow.pretraining import pretrain
from barlow.record import Record
from barlow.report import compared, summary, write_report
from barlow.runs.run import Run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of eight classes, which their colours tell."""
    return tiny.images(tmp_path_factory.mktemp("photos") / "train", 160, classes=8)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("others") / "test", 80, classes=8, seed=1)


def trained(photos: Path, out: Path, *, steps: int = 60, overrides: dict[str, Any] | None = None, **given: Any) -> Path:
    changes = tiny.SMALL | {"train.steps": steps, "train.log_steps": 2} | (overrides or {})
    pretrain(photos, out, recipe="small_barlow_twins", overrides=changes, progress=False, **given)
    return out


def said(run: Path) -> dict[str, str]:
    """The verdict's rows, as far as they are plain text."""
    read = record.read(run)
    state = summary.state_of(read)
    return {"state": state[1] if state else ""} | dict(summary.lines_of(read))


def written(run: Path) -> str:
    return write_report(run, map="pca").read_text(encoding="utf-8")


def alike(*z: Tensor) -> dict[str, Tensor]:
    return {"distance": 1 - nn.functional.cosine_similarity(z[0], z[-1], dim=1).mean()}


def not_finite(*z: Tensor) -> dict[str, Tensor]:
    """After some steps embeddings have moved, and the loss is none."""
    not_finite.calls += 1  # type: ignore[attr-defined]
    factor = float("nan") if not_finite.calls > 9 else 1.0  # type: ignore[attr-defined]
    return {"distance": factor * (z[0] - z[-1]).square().mean()}


def test_a_healthy_run(photos: Path, tmp_path: Path) -> None:
    run = trained(photos, tmp_path / "run")
    assert said(run)["state"] == "healthy"
    assert said(run)["reached"] == "what 160 images allow, which is little: 60 steps, 6 epochs"
    assert 'class="state healthy"' in written(run)


def test_a_run_that_collapsed(photos: Path, tmp_path: Path) -> None:
    run = trained(photos, tmp_path / "run", objective=alike, overrides={"optim.lr_per_256": 0.5})
    assert said(run)["state"].startswith("collapsed: head-only collapse: all images have nearly the same embedding")
    assert said(run)["advice"].startswith("lower --optim.lr_per_256")
    assert 'class="state collapsed"' in written(run)


def test_a_collapsed_run_that_is_gone_on_with_stays_so_and_says_so_once(photos: Path, tmp_path: Path) -> None:
    run = trained(photos, tmp_path / "run", objective=alike, overrides={"optim.lr_per_256": 0.5}, steps=40)
    told: list[str] = []
    pretrain(out=run, resume=True, objective=alike, steps=44, progress=False, tell=told.append)
    log = Run(run).metrics()
    assert {line["state"] for line in log if line["step"] > 30} == {"collapsed"}
    assert [line["total"] for line in log[-4:]] == [40, 40, 44, 44]
    (again,) = [line for line in told if "collapsed: " in line]
    assert again.startswith("step 40: collapsed: head-only collapse: ")
    page = str(summary.verdict(record.read(run)).body)
    assert page.count("all images have nearly the same embedding") == 1
    assert page.count("lower --optim.lr_per_256") == 1


def test_the_state_and_what_was_reached_are_the_same_whatever_the_last_line_says(tmp_path: Path) -> None:
    """Of a log whose last line says that all is well, as of a run that forgot what was before it was gone on with; and
    of one whose words are worse than its numbers."""

    def shown(state: str, why: str | None, spread: float) -> str:
        lines = [{**LINE, "step": step, "embeddings": {"std": spread}} for step in range(10, 110, 10)]
        lines[-1] |= {"state": state, "why": why}
        recipe = tiny.recipe_of("small_barlow_twins", steps=100)
        run = Record(tmp_path, recipe, data={"usable": 5_000, **tiny.SIZES}, log=lines)
        assert ("collapse: " in dict(summary.lines_of(run))["reached"]) == (summary.state_of(run) or "")[0].startswith(
            "collapsed"
        )
        return str(summary.verdict(run).body)

    for page in (shown("healthy", None, 0.01), shown("collapsed", "head-only collapse: all are alike; do so", 0.9)):
        assert 'class="state collapsed"' in page
        assert 'class="state healthy"' not in page
        assert page.count("alike") + page.count("all images have nearly the same embedding") == 1
    assert 'class="state healthy"' in shown("healthy", None, 0.9)


def test_a_run_whose_loss_is_no_number(photos: Path, tmp_path: Path) -> None:
    not_finite.calls = 0  # type: ignore[attr-defined]
    with pytest.raises(Diverged):
        trained(photos, tmp_path / "run", objective=not_finite)
    run = tmp_path / "run"
    assert said(run)["state"].startswith("diverged: step ")
    assert "To go on from its encoder at a third of the rate" in said(run)["state"]
    page = written(run)
    assert 'class="state diverged"' in page
    assert "goes on with it" not in page, "the same command would end in the same way"
    assert record.read(run).steps[0] < 60


def test_a_run_of_two_epochs(tmp_path: Path) -> None:
    """Of images and steps enough, so that nothing else is little. A third of them are copies."""
    photos = tiny.images(tmp_path / "photos", 700)
    for path in sorted(photos.iterdir())[:350]:
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    told: list[str] = []
    wide = {"method.projector.widths": [16, 2048], "train.log_steps": 35, "train.batch_size": 20}
    run = trained(photos, tmp_path / "run", steps=105, overrides=wide, tell=told.append)
    few = "too few epochs: each image is seen 2.0 times in 105 steps"
    assert said(run)["state"] == "healthy"
    assert said(run)["reached"] == few
    beware = [line.removeprefix("beware   ") for line in told if line.startswith("beware")]
    assert [line.partition(";")[0] for line in beware] == [
        few,
        "too few images for the width: 1,050 images, and embeddings of 2,048 features",
        "duplicates: 33% of the images are copies of others",
    ]
    page = str(summary.verdict(record.read(run)).body)
    assert few in page
    assert "more --minutes, or --init with weights that exist" in page
    assert "a narrower projector" in page


def begun(photos: Path, **changes: Any) -> Record:
    """A run of a thousand steps that is at its fiftieth, by its log."""
    lines = [{**LINE, **changes, "step": step, "state": "starting", "why": None} for step in range(10, 60, 10)]
    recipe = tiny.recipe_of("small_barlow_twins", steps=1_000)
    return Record(photos, recipe, data={"usable": 5_000, **tiny.SIZES}, log=lines)


LINE = {"loss": 900.0, "rate": 0.001, "features": {"std": 0.8}, "embeddings": {"std": 0.9}, "moved": 0.01}


def test_a_report_in_the_first_tenth_of_a_run_is_as_calm_as_the_run(tmp_path: Path) -> None:
    assert summary.lines_of(begun(tmp_path)) == []
    assert summary.lines_of(begun(tmp_path, embeddings={"std": 0.01})) == []
    (reached, _) = summary.lines_of(begun(tmp_path, embeddings={"std": 0.01}, views={"difference": 0.0}))
    assert reached[1].startswith("views identical: "), "nothing comes out of that"


def test_a_network_whose_weights_are_broken(photos: Path, others: Path, tmp_path: Path) -> None:
    run = trained(photos, tmp_path / "run")

    def broken(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """All images give the same features."""
        return {
            name: torch.zeros_like(each) if name.endswith("weight") and each.ndim == 4 else each
            for name, each in tensors.items()
        }

    tiny.change_weights(run, broken)
    evaluate(run, train=photos, test=others, protocols=["knn", "logistic"])
    assert said(run)["verdict"].startswith("not worth having: kNN -")
    assert "not worth having" in written(run)


def test_beside_other_runs_one_that_is_ill_says_so_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ill = Record(tmp_path, {}, log=[{"step": 9, "state": "collapsed", "why": "head-only collapse: all alike"}])
    fine = Record(tmp_path, {}, log=[{"step": 9, "state": "healthy", "why": None}])
    words = {"reached": "head-only collapse: all alike", "advice": "a lower rate", "verdict": "worth having in part"}

    def shown(run: Record, *said: str) -> str:
        monkeypatch.setattr(summary, "lines_of", lambda record: [(word, words[word]) for word in said])
        found = re.search("<dd>(.*?)</dd>", str(compared.verdicts([run], ["it"]).body))
        assert found is not None
        return found[1]

    why = '<span class="state collapsed">collapsed: head-only collapse: all alike</span>'
    assert shown(ill, "reached", "advice", "verdict") == f"{why}; worth having in part"
    assert shown(ill, "reached", "advice") == why, "once"
    well = '<span class="state healthy">healthy</span>'
    assert shown(fine, "reached", "verdict") == f"{well}; worth having in part"
    monkeypatch.setattr(summary, "illness_of", lambda record: SimpleNamespace(name="head-only collapse"))
    reached = f'<span class="state collapsed">{words["reached"]}</span>'
    assert shown(fine, "reached", "verdict") == f"{well}; {reached}; worth having in part", "the log's word came late"
    assert shown(Record(tmp_path, {})) == "–"


def test_what_came_of_a_run_is_said_before_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "_after_training", lambda record: ["reached  much", "advice   more images"])
    after = ["verdict  worth having", "advice   another rate"]
    monkeypatch.setattr(summary, "after_evaluation_of", lambda ran, rows: after)
    monkeypatch.setattr(summary, "rows_of", lambda results: [])
    words = [word for word, _ in summary.lines_of(Record(tmp_path, {}, results={}))]
    assert words == ["reached", "verdict", "advice", "advice"]


def test_the_words_on_runs_are_no_column_of_their_table(tmp_path: Path) -> None:
    """On a phone a column of words makes rows as high as the screen."""
    ill = Record(tmp_path, {}, log=[{"step": 9, "state": "collapsed", "why": "head-only collapse: all alike"}])
    words, _, numbers = str(compared.verdicts([ill, ill], ["one", "two"]).body).partition("<table>")
    assert words.count("head-only collapse: all alike") == 2
    assert "head-only" not in numbers
    assert "verdict" not in numbers
