"""Weights that do not show their network: every command advises what it takes itself, or what another one does."""

from pathlib import Path

import pytest
import tiny
from torch import nn

from barlow import cli, storage
from barlow.nets.building import build_encoder
from barlow.wording import as_arguments

OPTIONS = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}

VERBS = {
    "embed": ["embed", "FILE", "photos", "--out", "f.npy"],
    "export": ["export", "FILE", "--to", "torch-export", "--out", "out"],
    "search": ["search", "FILE", "photos/000.png", "--in", "photos"],
    "duplicates": ["duplicates", "photos", "--encoder", "FILE"],
}


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that fails."""
    capsys.readouterr()
    assert cli.main(words) != 0
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with photos, a network with a stem for CIFAR, and one that nobody knows."""
    monkeypatch.chdir(tmp_path)
    tiny.images(tmp_path / "photos", 12, side=32)
    made = build_encoder("resnet18", image_size=32, stem="small", options=OPTIONS).eval()
    storage.write_tensors(tmp_path / "cifar.safetensors", made.state_dict())
    storage.write_tensors(tmp_path / "odd.safetensors", nn.Linear(3, 4).state_dict())


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_advises_only_what_can_be_typed(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = {name: [word.replace("FILE", f"{name}.safetensors") for word in VERBS[verb]] for name in ("cifar", "odd")}
    line = said(words["cifar"], capsys)
    advice = "`barlow import cifar.safetensors --encoder.stem small --out DIR` first, and DIR in its place; small ("
    assert advice in line
    assert " add --" not in line
    assert "`barlow import odd.safetensors --encoder NAME --out DIR` first" in said(words["odd"], capsys)
    line = said([*words["cifar"], "--encoder.stem", "small"], capsys)
    assert f"`barlow {verb}` does not take it: `barlow import FILE --encoder.stem … --out DIR` first" in line
    assert "only `barlow pretrain` takes those" in said([*words["cifar"], "--optim.lr_per_256", "1"], capsys)


def test_what_is_advised_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", "cifar.safetensors", "--encoder.stem", "small", "--out", "DIR"]) == 0
    for words in VERBS.values():
        assert cli.main([word.replace("FILE", "DIR") for word in words]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("verb", ["embed", "search"])
def test_a_size_is_advised_where_a_command_takes_one(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = build_encoder("resnet18", image_size=32, options=OPTIONS).eval()
    storage.write_tensors(Path("plain.safetensors"), made.state_dict())
    assert cli.main([word.replace("FILE", "plain.safetensors") for word in VERBS[verb]]) == 0
    line = next(line for line in capsys.readouterr().err.splitlines() if "gets images of 224 pixels" in line)
    assert line.endswith(
        {"embed": "`barlow import` with --image-size gives others", "search": "; --image-size gives others"}[verb]
    )


def test_a_caller_in_python_reads_of_the_command_as_it_is_typed() -> None:
    import barlow

    with pytest.raises(ValueError, match=r"`barlow import cifar\.safetensors --encoder.stem small --out DIR` first"):
        barlow.embed("cifar.safetensors", "photos", "f.npy")
    assert as_arguments("`barlow import x --encoder.stem small --out DIR` first") == (
        "`barlow import x --encoder.stem small --out DIR` first"
    )
    with pytest.raises(ValueError, match="weights do not show how its first convolution"):
        barlow.Embedder("cifar.safetensors")
