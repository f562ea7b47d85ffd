"""What an objective asks for, whether it has state, and what a run is given to call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from barlow import objectives
from barlow.objectives.moco import KeyQueue, MoCo
from barlow.objectives.rotation import Rotation
from barlow.objectives.simclr import SimCLR

RUN = {"width": 4, "images": 10, "classes": None, "seed": 0}


class Bank(nn.Module):
    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        self.given = given

    def forward(self, groups: list[tuple[torch.Tensor]], *, ids: torch.Tensor, progress: float = 0.0) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class AsksForAll:
    def build(self, *, width: int, images: int, seed: int, classes: int = 7) -> nn.Module:
        return Bank({"width": width, "images": images, "seed": seed, "classes": classes})


@dataclass(frozen=True, kw_only=True)
class NeedsClasses:
    def build(self, *, classes: int) -> nn.Module:
        return Bank({"classes": classes})


@dataclass(frozen=True, kw_only=True)
class AsksForTheBatch:
    def build(self, *, width: int, batch_size: int) -> nn.Module:
        return Bank({"width": width, "batch_size": batch_size})


def test_an_objective_or_its_module_asks_by_its_keyword_only_parameters() -> None:
    assert objectives.asks(SimCLR()) == []
    assert objectives.asks(Rotation()) == ["rotation"]
    assert objectives.asks(MoCo(queue=4).build(width=2, seed=0)) == []
    assert objectives.asks(Bank({})) == ["ids", "progress"]
    assert objectives.asks(Bank({}), required=True) == ["ids"]
    assert objectives.asks(MoCo().build) == ["width", "seed"]
    assert objectives.asks(AsksForAll().build, required=True) == ["width", "images", "seed"]


def test_a_function_of_ones_own_asks_like_an_objective() -> None:
    def own(za: torch.Tensor, zb: torch.Tensor, *, labels: torch.Tensor) -> Any: ...

    assert objectives.asks(own) == ["labels"]
    assert not objectives.has_state(own)
    assert objectives.built(own, **RUN) is own


WITH_STATE = {"cmc", "colorization", "deepcluster_v1", "deepcluster_v2", "exemplar", "infomin", "jigsaw", "moco"}
WITH_STATE |= {"npid", "obow", "pcl", "pirl", "sela", "swav"}
FEW_IMAGES = {"exemplar": 16_000}
"""Those that refuse many images."""


@pytest.mark.parametrize("kind", objectives.kinds())
def test_what_has_no_state_is_called_itself_and_what_has_is_built_as_a_module(kind: str) -> None:
    section = objectives.load(kind)()
    called = objectives.built(
        section, **RUN | {"images": FEW_IMAGES.get(kind, 200_000)}
    )  # enough for the default of every method
    assert objectives.has_state(section) is isinstance(called, nn.Module)
    assert isinstance(called, nn.Module) or called is section
    assert objectives.has_state(section) is (kind in WITH_STATE)


def test_a_build_is_given_what_it_asks_for_and_no_more() -> None:
    queue = objectives.built(MoCo(queue=6), width=3, images=10, classes=5, seed=2)
    assert isinstance(queue, KeyQueue)
    assert queue.queue.equal(MoCo(queue=6).build(width=3, seed=2).queue)
    all_of_it = {"width": 3, "images": 10, "classes": 5, "seed": 2}
    assert objectives.built(AsksForAll(), **all_of_it).given == all_of_it
    assert objectives.built(AsksForAll(), **{**all_of_it, "classes": None}).given["classes"] == 7


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda: AsksForTheBatch(), r"AsksForTheBatch\.build asks for batch_size: a run gives width, images, classes"),
        (lambda: NeedsClasses(), r"NeedsClasses asks for the number of classes, and the images have no labels: give"),
        (lambda: Bank({}), r"Bank is a module: give a dataclass whose build\(self, \*, width, seed\) makes it"),
    ],
)
def test_what_a_run_cannot_give_is_refused_in_one_line(objective: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        objectives.built(objective(), **RUN)
    assert "\n" not in str(refusal.value)
