"""No number that is not finite is ever stored, also where the loss and its gradient have not shown it."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from barlow import checkpoints, cli, exits
from barlow.pretraining import pretrain
from barlow.runs.finishing import Finishing
from barlow.runs.run import Run
from barlow.training.learner import Learner, NonFinite

STEPS = 4


def quick(photos: Path, out: Path, **overrides: Any) -> None:
    pretrain(photos, out, overrides=tiny.SMALL | {"train.steps": STEPS} | overrides, progress=False)


@pytest.mark.parametrize("last", [2, STEPS], ids=["at a checkpoint on the way", "after the last update"])
def test_a_statistic_that_an_update_has_spoiled_is_not_stored(
    last: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch norm trains with the statistics of its batch, so that neither loss nor gradient shows its running ones."""
    step = Learner.step

    def spoiling(self: Learner, batch: Any, *rest: Any) -> Any:
        outcome = step(self, batch, *rest)
        if batch.step + 1 == last:
            buffers = dict(self.method.named_buffers())
            buffers[next(name for name in buffers if name.endswith("running_var"))].fill_(torch.inf)
        return outcome

    monkeypatch.setattr(Learner, "step", spoiling)
    with pytest.raises(NonFinite, match=rf"step {last}: .*running_var is not finite any more, so this state was not"):
        quick(photos, tmp_path / "run", **{"train.checkpoint_steps": 1})
    run = Run(tmp_path / "run")
    newest, _ = checkpoints.newest(run.path)
    assert newest.step == last - 1
    assert all(torch.isfinite(tensor).all() for tensor in newest.tensors.values())
    assert not (run.path / "encoder").exists()


def test_an_encoder_that_is_not_finite_is_not_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whitening, say, can spoil features after the last checkpoint."""
    packed = Finishing.packed

    def spoiled(self: Finishing, encoder: Any) -> Any:
        tensors, config = packed(self, encoder)
        return {name: tensor * torch.nan for name, tensor in tensors.items()}, config

    monkeypatch.setattr(Finishing, "packed", spoiled)
    with pytest.raises(exits.Diverged, match="of the finished encoder is not finite, so it was not written to"):
        quick(photos, tmp_path / "run")
    assert list(checkpoints.folders(tmp_path / "run"))[-1] == STEPS
    assert not (tmp_path / "run" / "encoder").exists()


@pytest.mark.parametrize("rate", [1e17, 1e19])
def test_at_a_rate_that_blows_weights_up_nothing_of_them_is_stored(rate: float, photos: Path, tmp_path: Path) -> None:
    """Somewhere between large and far too large, variances overflow first: the loss stays finite for a while."""
    words = tiny.words(train__steps=8, optim__lr_per_256=rate, schedule__warmup_fraction=0, schedule__floor=1)
    assert cli.main(["pretrain", str(photos), "--out", str(tmp_path / "run"), *words]) == exits.DIVERGED
    assert not (tmp_path / "run" / "encoder").exists()
    for folder in checkpoints.folders(tmp_path / "run").values():
        assert all(torch.isfinite(tensor).all() for tensor in checkpoints.read(folder).tensors.values())
