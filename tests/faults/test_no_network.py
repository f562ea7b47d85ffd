"""No network unless a user asks for it by name, and then a word within five seconds where there is none."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
import yaml

from barlow.data.sources import missing_set, open_source
from barlow.nets.building import build_encoder
from barlow.nets.origin import missing_weights
from barlow.nets.weights import initialise
from barlow.network import SECONDS, Unreachable, check_reachable
from barlow.pretraining import pretrain

OFFLINE = Path(__file__).with_name("offline")
WEIGHTS = "timm:resnet18.a1_in1k"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("offline")
    tiny.images(root / "photos", 24, classes=2)
    return root


Done = tuple[subprocess.CompletedProcess[str], list[str]]


def python_offline(place: Path, home: Path, *words: str) -> Done:
    """Runs python in a process that reaches no other machine; gives what it did and which attempts it made."""
    attempts = home / "attempts"
    attempts.write_bytes(b"")
    own = {"HOME": str(home), "HF_HOME": str(home / "hf"), "TORCH_HOME": str(home / "torch")}
    own |= {"PYTHONPATH": os.pathsep.join(filter(None, [str(OFFLINE), *sys.path]))}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=place,
        env=os.environ | own | {"OFFLINE_ATTEMPTS": str(attempts), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    return done, attempts.read_text().splitlines()


def test_attempts_are_seen_and_fail(tmp_path: Path) -> None:
    program = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done, attempts = python_offline(tmp_path, tmp_path, "-c", program)
    assert "Network is unreachable" in done.stderr
    assert attempts


PROGRAM = """
import sys
from barlow import cli
small = {small!r}
run = lambda *words: cli.main(list(words))
assert run("list") == 0
assert run("pretrain", "digits", "--print-recipe") == 0
assert run("pretrain", "photos", "-c", "small_w_mse", "--out", "run", *small) == 0
assert run("pretrain", "photos", "--resume", "--out", "run") == 0
assert run("evaluate", "run", "--train", "photos", "--test", "photos", "--protocol", "knn") == 0
assert run("pretrain", "photos", "--init", "run", "--out", "second", "--encoder", "auto", *small[:-2]) == 0
assert run("pretrain", "digits", "--out", "third", *small) == 0
assert run("evaluate", "third", "--protocol", "knn") == 0
import barlow
barlow.load_encoder("run").preprocess("photos/class0/000.png")
barlow.pretrain("photos", "fourth", recipe="run/recipe.yaml", progress=False)
"""


def test_pretrain_resume_evaluate_and_load_make_no_attempt(place: Path, tmp_path: Path) -> None:
    program = PROGRAM.format(small=tiny.words(train__steps=2, data__executor="streaming"))
    done, attempts = python_offline(place, tmp_path, "-c", program)
    assert done.returncode == 0, done.stderr[-2000:]
    assert attempts == []


@pytest.mark.nightly
def test_two_processes_train_on_a_machine_that_has_loopback_alone(place: Path, tmp_path: Path) -> None:
    alone = ["unshare", "--map-root-user", "--net", "bash", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "ip link set lo up"], check=False).returncode:
        pytest.skip("a network of one's own cannot be made here (unshare --net)")
    words = ["pretrain", "photos", "-c", "small_vicreg", "--out", str(tmp_path / "two"), "--devices", "2"]
    command = shlex.join([sys.executable, "-m", "barlow.cli", *words, *tiny.words(train__steps=2)])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*alone, f"ip link set lo up && {command}"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def strangers(run: Path, **changes: object) -> None:
    """Puts other values into a run's recipe.yaml, and takes away what would tell that they were put there."""
    (run / "run.json").unlink()
    content = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    for key, value in changes.items():
        section, _, name = key.partition("__")
        content[section][name] = value
    (run / "recipe.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


FILES: list[tuple[dict[str, object], list[str], str]] = [
    ({"data__sources": ["cifar10"]}, ["pretrain", "--resume", "--out", "RUN"], "barlow pretrain cifar10 with the rest"),
    ({"data__sources": ["cifar100:test"]}, ["pretrain", "-c", "RUN/recipe.yaml"], "barlow pretrain cifar100 with the"),
    ({"data__sources": ["cifar10"]}, ["evaluate", "RUN"], "--train cifar10:train --test cifar10:test"),
    ({"encoder__init": WEIGHTS}, ["pretrain", "photos", "--resume", "--out", "RUN"], f"--init {WEIGHTS}"),
    ({"encoder__init": WEIGHTS}, ["pretrain", "photos", "-c", "RUN/recipe.yaml"], f"--init {WEIGHTS}"),
]
"""What a stranger's recipe.yaml says, what is done with it, and how the message says to ask for it."""

NAMED = [
    (["pretrain", "cifar10"], "cifar10 is not in "),
    (["pretrain", "-c", "cifar100/vicreg"], "cifar100 is not in "),
    (["pretrain", "photos", "--init", WEIGHTS], "could not get timm's weights resnet18.a1_in1k"),
]
"""What a user asks for by name, and what is said where there is no network."""

ASKING = """
import contextlib, io, json, os, time
from barlow import cli
import barlow.pretraining, barlow.evaluation, torchvision, timm
def attempts():
    return len(open(os.environ["OFFLINE_ATTEMPTS"]).readlines())
for words in {commands!r}:
    before, began, said = attempts(), time.monotonic(), io.StringIO()
    with contextlib.redirect_stderr(said):
        code = cli.main(words)
    lines = [line for line in said.getvalue().splitlines() if line.startswith("barlow: ")]
    print(json.dumps([code, time.monotonic() - began, attempts() - before, lines]))
"""


@dataclass(frozen=True)
class Answer:
    """What became of a command."""

    code: int
    seconds: float
    attempts: int
    lines: list[str]


@pytest.fixture(scope="module")
def answers(place: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    """All of them in one process, as starting one takes the longest."""
    changes = tiny.SMALL | {"train.steps": 1}
    pretrain(place / "photos", place / "finished", recipe="small_vicreg", overrides=changes, progress=False)
    commands = []
    for i, (values, words, _) in enumerate(FILES):
        shutil.copytree(place / "finished", place / f"run{i}")
        strangers(place / f"run{i}", **values)
        commands.append([word.replace("RUN", f"run{i}") for word in words])
    commands += [[*words, "--out", f"asked{i}"] for i, (words, _) in enumerate(NAMED)]
    done, _ = python_offline(place, tmp_path_factory.mktemp("home"), "-c", ASKING.format(commands=commands))
    assert done.returncode == 0, done.stderr[-2000:]
    return [Answer(*json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.mark.parametrize("number", range(len(FILES)))
def test_a_strangers_file_never_goes_there_and_a_line_says_how_to_ask(number: int, answers: list[Answer]) -> None:
    answer = answers[number]
    assert answer.attempts == 0
    assert answer.code != 0
    (line,) = answer.lines
    assert "would be downloaded" in line
    assert FILES[number][2] in line


@pytest.mark.parametrize("number", range(len(NAMED)))
def test_what_is_asked_for_by_name_is_tried_and_its_absence_told_within_five_seconds(
    number: int, answers: list[Answer]
) -> None:
    answer = answers[len(FILES) + number]
    assert answer.attempts > 0
    assert answer.code != 0
    assert answer.seconds < 5
    (line,) = answer.lines
    assert NAMED[number][1] in line
    assert "cannot be reached: Network is unreachable" in line


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18.a1_in1k", "hf-hub:a/resnet18", "resnet18.a1_in1k"])
def test_a_network_on_a_hub_is_no_encoder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("the network is tried"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("the network is tried"))
    with pytest.raises(ValueError, match=r"unknown encoder|names pretrained weights"):
        build_encoder(name, image_size=32)


# --- A network that answers nothing -----------------------------------------------------------------------------------


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Packets are dropped, and names are looked up for a minute."""
    released = threading.Event()

    def wait(*given: object, **more: object) -> None:
        released.wait(60)
        raise OSError("too late")

    monkeypatch.setattr(socket, "create_connection", wait)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("barlow.nets.origin._cached", lambda name: None)
    monkeypatch.setattr("barlow.network.getproxies", dict)


def test_a_host_that_does_not_answer_is_given_up_after_four_seconds(silent: None, tmp_path: Path) -> None:
    encoder = build_encoder("resnet18", image_size=32)
    for ask, said in (
        (lambda: check_reachable("https://example.org/file"), "example.org cannot be reached: no answer in 4 seconds"),
        (lambda: initialise(encoder, WEIGHTS), "huggingface.co cannot be reached"),
        (lambda: open_source("cifar10", root=tmp_path), "cannot be reached: no answer"),
    ):
        began = time.monotonic()
        with pytest.raises(ValueError, match=said):
            ask()
        assert SECONDS - 0.5 < time.monotonic() - began < 5


def test_the_proxy_that_is_set_is_asked_in_place_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr("barlow.network.getproxies", lambda: {"https": f"http://127.0.0.1:{port}"})
        monkeypatch.setattr("barlow.network.proxy_bypass", lambda host: False)
        check_reachable("https://host.invalid/x")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1 cannot be reached: Connection refused"):
        check_reachable("https://host.invalid/x")


def test_what_is_here_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_set("cifar10", tmp_path) == "cifar10"
    assert missing_set("digits", tmp_path) is missing_set("photos", tmp_path) is None
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list):
        (folder / name).write_bytes(b"")
    assert missing_set("cifar10:test", tmp_path) is None
    monkeypatch.setattr("barlow.nets.origin._cached", lambda name: tmp_path)
    assert not missing_weights(WEIGHTS)
    assert not missing_weights("packaged:efficientnet_lite0")
    monkeypatch.setattr("barlow.nets.origin._cached", lambda name: None)
    assert missing_weights(WEIGHTS)


def test_weights_in_the_cache_are_read_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("barlow.nets.origin.check_reachable", lambda url: pytest.fail(f"{url} is asked"))
    import timm
    from safetensors.torch import save_file

    folder = tmp_path / "models--timm--resnet18.a1_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abcd")
    (folder / "snapshots" / "0123abcd").mkdir(parents=True)
    donor = timm.create_model("resnet18")
    save_file(donor.state_dict(), folder / "snapshots" / "0123abcd" / "model.safetensors")
    encoder = build_encoder("resnet18", image_size=32)
    initialise(encoder, WEIGHTS)
    assert encoder.conv1.weight.equal(donor.conv1.weight)
