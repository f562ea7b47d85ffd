"""Features are kept part by part, so that an embedding of many images that was stopped goes on from where it was."""

from pathlib import Path

import pytest
import torch
from coloured import Small, coloured
from torch import Tensor, nn

from barlow.data.labelled import LabelledSet
from barlow.probes import embedding, progress
from barlow.probes.baselines import given
from barlow.probes.embedding import CachedFeatures

IMAGES = 50


class Stopped(Exception):
    pass


class Patience:
    """A number that is no plain attribute of a network: networks with other attributes are other networks."""

    def __init__(self, most: int | None) -> None:
        self.most = most


class Counting(nn.Module):
    """A network that counts the images it sees, and stops at one of them."""

    def __init__(self, network: nn.Module, most: int | None = None):
        super().__init__()
        self.network, self.patience, self.seen = network, Patience(most), 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        if self.patience.most is not None and self.seen > self.patience.most:
            raise Stopped
        return self.network(x)


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> LabelledSet:
    monkeypatch.setattr(embedding, "PART", 18)  # two batches of 8, as parts are of whole batches
    return coloured(IMAGES, 0)


def found(network: nn.Module, images: LabelledSet, cache: Path, said: list[str]) -> Tensor:
    torch.manual_seed(0)
    of = given("encoder", network, images.preprocessing.size)
    return CachedFeatures(cache, 8, torch.device("cpu"), said.append).centre_views(of, images).features


def network(most: int | None = None) -> Counting:
    torch.manual_seed(1)
    return Counting(Small(), most)


def test_a_stopped_embedding_goes_on_after_the_last_part(images: LabelledSet, tmp_path: Path) -> None:
    whole = found(network(), images, tmp_path / "uninterrupted", [])
    stopped = network(most=40)
    with pytest.raises(Stopped):
        found(stopped, images, tmp_path / "cache", [])
    assert len(list((tmp_path / "cache").iterdir())) == 2, "two parts of 16; the third was not through"
    again = network()
    assert torch.equal(found(again, images, tmp_path / "cache", []), whole)
    assert again.seen == IMAGES - 32
    assert len(list((tmp_path / "cache").iterdir())) == 1, "all parts became one"
    last = network()
    assert torch.equal(found(last, images, tmp_path / "cache", []), whole)
    assert last.seen == 0


def test_a_damaged_part_is_computed_again(images: LabelledSet, tmp_path: Path) -> None:
    whole = found(network(), images, tmp_path / "uninterrupted", [])
    with pytest.raises(Stopped):
        found(network(most=40), images, tmp_path / "cache", [])
    damaged = sorted((tmp_path / "cache").iterdir())[0]
    content = bytearray(damaged.read_bytes())
    content[-3] ^= 1
    damaged.write_bytes(content)
    said, again = list[str](), network()
    assert torch.equal(found(again, images, tmp_path / "cache", said), whole)
    assert again.seen == IMAGES - 16
    assert any("these features are computed again" in line for line in said)


def test_the_time_that_is_left_is_reckoned_without_what_was_there(
    images: LabelledSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        found(network(most=40), images, tmp_path / "cache", [])
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    said = list[str]()
    found(network(), images, tmp_path / "cache", said)
    assert [line.partition(": ")[2].partition(" images")[0] for line in said] == [f"{n} of 50" for n in (40, 48, 50)]
