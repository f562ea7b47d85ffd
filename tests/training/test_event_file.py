"""The log for TensorBoard says what metrics.jsonl says, over several starts, and is in nobody's way."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from barlow import checkpoints, ownership
from barlow.pretraining import pretrain
from barlow.runs.run import Run
from barlow.training import event_file


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("photos"), 40)


def trained(photos: Path, out: Path, steps: int, **given: Any) -> Run:
    pretrain(photos, out, overrides=tiny.SMALL | {"train.steps": steps, "train.tensorboard": True}, **given)
    return Run(out)


def test_tensorboard_reads_what_the_log_says_over_two_starts(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed (extra `tensorboard`)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trained(photos, tmp_path / "run", 4, progress=False)
    trained(photos, run.path, 6, resume=True, progress=False)
    assert [ownership.is_ours(name, path) for name, path in ownership.contents(run.path)].count(False) == 0
    assert len(list((run.path / event_file.FOLDER).iterdir())) == 2
    read = EventAccumulator(str(run.path / event_file.FOLDER))
    read.Reload()
    log = run.metrics()
    for section, key in (("features", "std"), ("terms", next(iter(log[0]["terms"])))):
        expected = [(line["step"], pytest.approx(line[section][key], rel=1e-6)) for line in log]
        assert [(event.step, event.value) for event in read.Scalars(f"{section}/{key}")] == expected
    assert [event.value for event in read.Scalars("loss")] == pytest.approx([line["loss"] for line in log])
    assert checkpoints.step_of(max(checkpoints.folders(run.path).values())) == 6


def test_without_the_package_it_is_refused_before_anything_is_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^train\.tensorboard needs the package tensorboard: pip install barlow"):
        event_file.check_installed(True)
    event_file.check_installed(False)
