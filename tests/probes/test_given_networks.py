"""A network that was given in Python is known by what it does, in every process again."""

import copy
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from barlow.encoders import find_encoder
from barlow.nets.building import build_encoder
from barlow.nets.preprocessing import Preprocessing
from barlow.probes import given_networks
from barlow.probes.features import network_identity, weights_hash
from barlow.probes.given_networks import what_it_does

EXPECTED = Preprocessing(16, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, 3)
SCALE = 1.0


class Own(nn.Module):
    """A convolution, something, and a mean."""

    preprocessing = EXPECTED

    def __init__(self, do: Any = F.relu, scale: float = 1.0, kernel: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.do, self.scale = do, scale
        self.register_buffer("kernel", torch.full((4, 1, 1), kernel), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.do(self.conv(x) * self.kernel).mean((2, 3)) * self.scale
        return found


class Doubled(Own):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Counting(Own):
    """Changes when it is asked, and answers the same."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.last = 0, torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        self.calls, self.last = self.calls + 1, x
        return super().forward(x)


def of_parts(*parts: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), *parts, nn.Flatten())
    made.preprocessing = EXPECTED  # type: ignore[assignment]
    return made


def overridden(scale: float) -> nn.Module:
    made = Own()
    made.forward = lambda x: Own.forward(made, x) * scale  # type: ignore[method-assign]
    return made


def hooked(scale: float) -> nn.Module:
    made = Own()
    made.conv.register_forward_hook(lambda part, given, found: found * scale)
    return made


def scaled(scale: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x * scale


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "parts": (
        lambda: of_parts(nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        lambda: of_parts(nn.Tanh(), nn.AdaptiveMaxPool2d(1)),
    ),
    "an argument of a part": (lambda: of_parts(nn.AvgPool2d(3)), lambda: of_parts(nn.AvgPool2d(3, padding=1))),
    "a setting that shows in no answer": (
        lambda: of_parts(nn.Hardtanh(-1e6, 1e6), nn.AdaptiveAvgPool2d(1)),
        lambda: of_parts(nn.Hardtanh(-1e7, 1e7), nn.AdaptiveAvgPool2d(1)),
    ),
    "a function of torch": (Own, lambda: Own(torch.tanh)),
    "a number": (Own, lambda: Own(scale=1 + 1e-6)),
    "a buffer that is not saved": (Own, lambda: Own(kernel=1 + 1e-6)),
    "code": (lambda: Own(lambda x: x + 0.01), lambda: Own(lambda x: x - 0.01)),
    "what code has of its surroundings": (lambda: Own(scaled(2)), lambda: Own(scaled(2.02))),
    "an argument that was given before": (
        lambda: Own(functools.partial(F.leaky_relu, negative_slope=0.1)),
        lambda: Own(functools.partial(F.leaky_relu, negative_slope=0.1 + 1e-7)),
    ),
    "another forward": (lambda: overridden(1.0), lambda: overridden(1.01)),
    "a hook": (lambda: hooked(1.0), lambda: hooked(1.01)),
    "a class": (Own, Doubled),
}


@pytest.mark.parametrize("what", PAIRS)
def test_networks_of_equal_tensors_that_do_different_things_are_two(what: str) -> None:
    one, other = (make() for make in PAIRS[what])
    assert weights_hash(one) == weights_hash(other)
    assert network_identity(one) != network_identity(other)
    assert network_identity(one) == network_identity(copy.deepcopy(one)) == network_identity(PAIRS[what][0]())


def test_a_number_that_code_takes_from_its_file_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Own(lambda x: x * SCALE)
    before = what_it_does(network)
    monkeypatch.setitem(globals(), "SCALE", 1.01)
    assert what_it_does(network) != before


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
def test_what_cannot_be_looked_into_is_told_by_its_answers() -> None:
    one, other = (
        torch.jit.trace(Own(do).eval(), torch.zeros(1, 3, 16, 16), check_trace=False) for do in (torch.tanh, F.relu)
    )
    for each in (one, other):
        object.__setattr__(each, "preprocessing", EXPECTED)
    assert what_it_does(one) != what_it_does(other)
    answers = [given_networks._answer(network, 0) for network in (Own(), Own(torch.tanh))]
    assert answers[0] != answers[1]


def test_what_a_network_changes_when_it_is_asked_is_no_part_of_it() -> None:
    network = Counting()
    before = what_it_does(network)
    assert what_it_does(network) == before
    network(torch.ones(3, 3, 16, 16))
    assert what_it_does(network) == before != what_it_does(Own())


def test_a_last_bit_of_an_answer_changes_nothing() -> None:
    answer = torch.randn(512, generator=torch.Generator().manual_seed(0)).double().numpy()
    told = given_networks._coarse(answer)
    assert told == given_networks._coarse(answer * (1 + 1e-7))
    assert told != given_networks._coarse(answer[::-1].copy())


def test_the_network_and_the_generator_are_as_they_were() -> None:
    network = Own().train()
    network.conv.eval()
    drawn = torch.get_rng_state()
    what_it_does(network)
    assert network.training
    assert not network.conv.training
    assert torch.equal(drawn, torch.get_rng_state())


@pytest.mark.parametrize("wrong", [lambda x: x.no_such, lambda x: x * float("nan"), lambda x: [x]])
def test_a_network_that_cannot_answer_is_told_by_the_rest(wrong: Callable[[Tensor], Tensor]) -> None:
    network = Own()
    network.do = wrong
    assert what_it_does(network) == what_it_does(network) != what_it_does(Own())


def test_what_barlow_builds_from_a_description_is_known_as_before() -> None:
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    network = find_encoder("random:resnet18", options=options, image_size=16).network
    about = {"name": "resnet18", "options": options, "stages": "last", "stem": "as_is"}
    told = json.dumps(about, sort_keys=True)
    assert network_identity(network) == f"ResNet {told} {weights_hash(network)}"
    plain = build_encoder("resnet18", image_size=16, options=options)
    assert network_identity(plain).endswith(weights_hash(plain))


FILE = """
import torch
from torch import nn
from barlow.nets.preprocessing import Preprocessing

KINDS = {"mean", "deviation", "spread", "range"}

class Net(nn.Module):
    preprocessing = Preprocessing(16, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, 3)

    def __init__(self, tanh):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.tanh, self.kinds = nn.Conv2d(3, 4, 3), tanh, set(KINDS)
        self.thing = object()

    def forward(self, x):
        found = self.conv(x)
        if "mean" in KINDS and self.tanh in {True, "yes", "on"}:
            found = found.tanh()
        return found.mean((2, 3))

def one():
    return Net(True)

def other():
    return Net(True)
"""


def test_another_process_finds_the_same_whatever_its_threads_and_hashes(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(FILE)
    program = (
        "import sys, torch; from barlow.encoders import find_encoder; torch.set_num_threads(int(sys.argv[2])); "
        "print(find_encoder(sys.argv[1]).identity)"
    )

    def told(name: str, threads: int, hashes: int) -> str:
        words = [sys.executable, "-c", program, f"{tmp_path}/nets.py:{name}", str(threads)]
        environment = {**os.environ, "PYTHONHASHSEED": str(hashes)}
        return subprocess.run(words, check=True, capture_output=True, text=True, env=environment).stdout

    assert told("one", 1, 1) == told("one", 2, 2)
    assert find_encoder(f"{tmp_path}/nets.py:one").identity != find_encoder(f"{tmp_path}/nets.py:other").identity
