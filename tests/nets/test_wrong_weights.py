"""Files that are no weights, damaged, half, or of something else: each is refused in one line that says what it is.

The exceptions at the end are files that look odd and are right: they are read, and the line says what was done.
"""

import argparse
import io
import json
import math
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from canaries import TRICKS, pickled
from safetensors.torch import save as as_safetensors
from small_encoders import small_encoder
from torch import Tensor, nn

from barlow import cli
from barlow.encoders import find_encoder
from barlow.nets.weights import initialise

State = dict[str, Tensor]


def weights() -> State:
    return dict(small_encoder(seed=3).state_dict())


def saved(content: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, **options)
    return out.getvalue()


def changed(**changes: Any) -> State:
    """The weights with some replaced, or with None left out. Names have two underlines for a dot."""
    state = weights()
    for name, value in changes.items():
        name = name.replace("__", ".")
        if value is None:
            del state[name]
        else:
            state[name] = value
    return state


def after(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def replaced(state: State, old: str, new: str) -> State:
    return {name.replace(old, new): value for name, value in state.items()}


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def archive(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as written:
        for name, data in files.items():
            written.writestr(name, data)
    return out.getvalue()


def zipped_again(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        return archive({name: old.read(name) for name in old.namelist()}, zipfile.ZIP_DEFLATED)


def with_byte_order(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        return archive({n: b"big" if n.endswith("byteorder") else old.read(n) for n in old.namelist()})


def without_a_storage(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        return archive({n: old.read(n) for n in old.namelist() if not n.endswith("data/3")})


def tar(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as written:
        entry = tarfile.TarInfo("weights.pth")
        entry.size = len(data)
        written.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def array(value: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, value)
    return out.getvalue()


def scripted() -> bytes:
    return archive({"a/data.pkl": pickle.dumps({}), "a/constants.pkl": b"", "a/code/a.py": b"", "a/data/0": b"0000"})


def moco(state: State) -> State:
    return after("module.encoder_q.", state) | {"module.queue": torch.ones(3, 4)}


OTHER = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 5))
LINE = 600

WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    # --- no file of weights
    "empty": (lambda: b"", r"is empty: download or copy it again"),
    "a Git LFS pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 94\n",
        r"is not a file of weights but a Git LFS pointer to it: run `git lfs pull`",
    ),
    "an HTML page": (lambda: b"<!DOCTYPE html><html>404</html>", r"but an HTML page: download it again"),
    "an XML answer of a server": (lambda: b'<?xml version="1.0"?><Error>Denied</Error>', r"but an HTML page"),
    "zeros": (lambda: bytes(5000), r"begins with zeros, as an unfinished download does"),
    "a text": (lambda: b"no weights here", r"is neither safetensors nor what torch\.save writes"),
    "JSON": (lambda: json.dumps({"weight_map": {}}).encode(), r"is JSON, not a file of weights"),
    "a tar archive": (lambda: tar(saved(weights())), r"is a tar archive: unpack it"),
    "a gzip archive": (lambda: b"\x1f\x8b\x08" + bytes(range(200)), r"is a gzip archive: unpack it"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), r"is an HDF5 file, as Keras writes them"),
    "a NumPy array": (lambda: array(np.ones(4)), r"is a NumPy array"),
    "an image": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), r"is an image"),
    "a zip of something else": (lambda: archive({"readme.txt": b"a"}), r"is a zip archive of something else"),
    "a zip with weights in it": (lambda: archive({"w.pth": b"a"}), r"is a zip archive with w\.pth in it: unpack it"),
    # --- damaged
    "cut off at a tenth": (lambda: saved(weights())[:9000], r"is a zip archive that is cut off or damaged"),
    "cut off near its end": (lambda: saved(weights())[:-40], r"is a zip archive that is cut off or damaged"),
    "older form, cut off": (
        lambda: saved(weights(), _use_new_zipfile_serialization=False)[:-40],
        r"is cut off: download or copy it again",
    ),
    "older form, without the counts of its last storages": (  # whose order is that of addresses in memory
        lambda: saved({f"{i}": torch.ones(()) for i in range(9)}, _use_new_zipfile_serialization=False)[:-36],
        r"is cut off: download or copy it again",
    ),
    "older form, cut off in its pickle": (
        lambda: saved(weights(), _use_new_zipfile_serialization=False)[:700],
        r"it is no pickle, or a damaged one",
    ),
    "safetensors, cut off": (lambda: as_safetensors(weights())[:-40], r"is not a valid safetensors file"),
    "a flipped bit in the numbers": (
        lambda: flipped(data := saved(weights()), data.index(b"archive/data/0") + 500),
        r"is damaged: the numbers of conv1\.weight are not those that were written",
    ),
    "a flipped bit in the pickle": (
        lambda: flipped(data := saved(weights()), data.index(b"_rebuild_tensor")),
        r"is damaged \(Bad CRC-32",
    ),
    "a storage that is missing": (
        lambda: without_a_storage(saved(weights())),
        r"is damaged: the numbers of bn1\.running_mean are not in it",
    ),
    "of a big-endian machine": (lambda: with_byte_order(saved(weights())), r"were written by a big-endian machine"),
    "compressed again": (lambda: zipped_again(saved(weights())), r"was compressed by another program"),
    "not finite": (lambda: saved(changed(bn1__weight=torch.full((64,), math.nan))), r"are not finite: bn1\.weight"),
    # --- pickles of something else
    "a plain pickle": (lambda: pickle.dumps({"conv1.weight": 1}), r"is a pickle, and not one of torch\.save"),
    "a pickle of arrays": (lambda: pickle.dumps({"a": np.ones(3)}), r"is a pickle, and not one of torch\.save"),
    "a whole network": (lambda: saved(OTHER), r"holds a whole torch\.nn\.modules\.container\.Sequential.*state_dict"),
    "a list of tensors": (lambda: saved([torch.ones(3)]), r"holds a whole list, not tensors by name"),
    "a tensor alone": (lambda: saved(torch.ones(3)), r"holds a single tensor, not tensors by name"),
    "TorchScript": (scripted, r"is a TorchScript program: save its tensors alone"),
    "an optimizer alone": (
        lambda: saved({"optimizer": {"state": {0: {"m": torch.ones(3)}}, "param_groups": []}, "epoch": 3}),
        r"has no tensors where the weights of a network are looked for; it has: optimizer, epoch",
    ),
    "arguments alone": (
        lambda: saved({"args": argparse.Namespace(lr=1)}),
        r"has no tensors where the weights of a network are looked for; it has: args",
    ),
    "an array in place of a tensor": (
        lambda: saved(changed() | {"bn1.bias": np.ones(64, dtype=np.float32)}),
        r"there is no rule for bn1\.bias \(a .*\)",
    ),
    "an object among the tensors": (
        lambda: saved(changed() | {"config": argparse.Namespace(a=1)}),
        r"there is no rule for config \(a argparse\.Namespace\)",
    ),
    "a sparse tensor": (
        lambda: saved(changed() | {"bn1.bias": torch.ones(64).to_sparse()}),
        r"there is no rule for bn1\.bias \(a torch\._utils\._rebuild_sparse_tensor\)",
    ),
    # --- of another network, or not whole
    "a tensor missing": (
        lambda: saved(changed(layer3__0__bn2__running_mean=None)),
        r"do not fit resnet18: layer3\.0\.bn2\.running_mean is missing; the file is not whole",
    ),
    "a tensor renamed": (
        lambda: saved(replaced(weights(), "layer2.0.bn1.bias", "layer2.0.bn1.beta")),
        r"layer2\.0\.bn1\.bias is missing, layer2\.0\.bn1\.beta is unexpected",
    ),
    "a tensor too many": (lambda: saved(changed(layer5__weight=torch.ones(3))), r"layer5\.weight is unexpected"),
    "a tensor of another shape": (
        lambda: saved(changed(layer2__0__bn1__bias=torch.ones(7))),
        r"layer2\.0\.bn1\.bias is \[7\] float32 there, \[16\] float32 here",
    ),
    "whole numbers": (
        lambda: saved(changed(layer2__0__bn1__bias=torch.ones(16, dtype=torch.int64))),
        r"layer2\.0\.bn1\.bias is \[16\] int64 there",
    ),
    "half of a checkpoint": (
        lambda: saved({"state_dict": moco({n: v for n, v in weights().items() if "layer4" not in n})}),
        r"no ResNet, ViT or ConvNeXt that is known",
    ),
    "a key encoder alone": (
        lambda: saved({"state_dict": after("module.encoder_k.", weights())}),
        r"no ResNet, ViT or ConvNeXt that is known|there is no rule for",
    ),
    "a head alone": (
        lambda: saved({"state_dict": after("module.projector.", {"0.weight": torch.ones(3, 3)})}),
        r"no ResNet, ViT or ConvNeXt that is known",
    ),
    "a prefix that nobody has": (
        lambda: saved(after("my_network.", weights())),
        r"no ResNet, ViT or ConvNeXt that is known: add --encoder NAME",
    ),
    "a name of no rule in a layout": (
        lambda: saved({"state_dict": moco(weights()) | {"module.surprise": torch.ones(3)}}),
        r"looks like a file of MoCo, and there is no rule for module\.surprise in it: docs/weights\.md",
    ),
    "another architecture": (
        lambda: saved(OTHER.state_dict()),
        r"no ResNet, ViT or ConvNeXt that is known: add --encoder NAME",
    ),
    "a stem of another width": (
        lambda: saved(changed(conv1__weight=torch.ones(128, 3, 7, 7))),
        r"do not fit resnet18: bn1\.weight is \[64\] float32 there, \[128\] float32 here",
    ),
    "a small stem": (
        lambda: saved(dict(small_encoder("small").state_dict())),
        r"do not show how its first convolution, of 3×3, moves and pads",
    ),
    "lightly's own ResNet": (
        lambda: saved(
            {"state_dict": {f"model.backbone.{i}.0.conv1.weight": torch.ones(3, 3, 1, 1) for i in (2, 3, 4, 5)}}
        ),
        r"is of an older lightly, and cannot be used: its network is lightly's own ResNet without the ReLU",
    ),
    "a ViT whose positions fill no square": (
        lambda: saved(
            {
                "cls_token": torch.ones(1, 1, 64),
                "pos_embed": torch.ones(1, 8, 64),
                "patch_embed.proj.weight": torch.ones(64, 3, 8, 8),
                "blocks.0.attn.qkv.weight": torch.ones(192, 64),
                "blocks.0.mlp.fc1.weight": torch.ones(256, 64),
                "norm.weight": torch.ones(64),
            }
        ),
        r"no ResNet, ViT or ConvNeXt that is known: add --encoder NAME",
    ),
    # --- hostile
    "a name with an escape sequence": (
        lambda: saved(changed() | {"\x1b[2Jlayer9.weight": torch.ones(2)}),
        r"\\x1b\[2Jlayer9\.weight is unexpected",
    ),
    "a view larger than its numbers": (
        lambda: saved(weights()).replace(b"K@\x85q", b"K\xff\x85q", 1),
        r"Bad CRC-32|is larger than its numbers",
    ),
    "a header of more than there is": (
        lambda: struct.pack("<Q", 2**62) + b"{}",
        r"is neither safetensors nor what torch\.save writes",
    ),
}


def test_there_are_at_least_forty() -> None:
    assert len(WRONG) >= 40


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_in_the_right_line(case: str, tmp_path: Path) -> None:
    make, line = WRONG[case]
    path = tmp_path / "weights.pth"
    path.write_bytes(make())
    with pytest.raises(ValueError, match=line) as raised:
        find_encoder(path, image_size=32)
    said = str(raised.value)
    assert "\n" not in said
    assert len(said) < LINE
    assert str(path) in said or path.name in said


@pytest.mark.parametrize("trick", TRICKS)
def test_no_canary_sings_when_it_is_given_as_weights(trick: str, tmp_path: Path) -> None:
    """Beside tensors that are right, as a poisoned checkpoint would have it."""
    canary, path = tmp_path / "canary", tmp_path / "weights.pth"
    (tmp_path / "canary.py").write_text(f"open({str(canary)!r}, 'w')")
    good = saved({"state_dict": weights(), "args": 0})
    poison = b"".join((b"X", struct.pack("<I", 4), b"args", pickled(trick, canary).removeprefix(b"\x80\x04")[:-1]))
    with zipfile.ZipFile(io.BytesIO(good)) as old:
        content = {name: old.read(name) for name in old.namelist()}
    at = content["archive/data.pkl"].rindex(b"X\x04\x00\x00\x00args")
    head = content["archive/data.pkl"][:at]
    content["archive/data.pkl"] = head + poison.replace(b"\x80\x02", b"") + b"u."
    path.write_bytes(archive(content))
    try:
        report = initialise(encoder := small_encoder(), path)
        assert report.loaded == len(encoder.state_dict())
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017  # some tricks are no part of a larger pickle
    assert not canary.exists()


def test_an_encoder_that_weights_do_not_fit_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(saved(changed(layer4__0__bn2__bias=None)))
    encoder, before = small_encoder(), small_encoder().state_dict()
    with pytest.raises(ValueError, match=r"layer4\.0\.bn2\.bias is missing"):
        initialise(encoder, tmp_path / "w.pth")
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_weights_of_another_network_than_the_one_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(saved(weights()))
    with pytest.raises(
        ValueError, match=r"\(plain names; a ResNet .*\) do not fit resnet50: .*; they are of resnet18: "
    ):
        find_encoder(tmp_path / "w.pth", encoder="resnet50", image_size=32)


def test_the_command_says_one_line_and_the_code_for_unusable_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    for words in (
        ["import", str(tmp_path / "w.pth"), "--out", str(tmp_path / "out")],
        ["evaluate", str(tmp_path / "w.pth"), "--train", "a", "--test", "b", "--out", str(tmp_path / "out")],
    ):
        assert cli.main(words) == 65
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "a Git LFS pointer to it: run `git lfs pull`" in err
    assert not (tmp_path / "out").exists()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes on this system")
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(ValueError, match="no encoder"):
        find_encoder(tmp_path / "w.pth")


def test_a_sparse_file_of_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    for start in (b"PK\x03\x04", b"\x80\x02\x8a\x0a", struct.pack("<Q", 2**31) + b"{"):
        with open(tmp_path / "w.pth", "wb") as file:
            file.write(start)
            file.truncate(3 * 2**30)
        with pytest.raises(ValueError, match=r"zip archive that is cut off|no pickle|has a header of"):
            find_encoder(tmp_path / "w.pth")


# --- Odd, and right -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        (
            "w.pth",
            lambda: saved({n: v.half() if v.is_floating_point() else v for n, v in weights().items()}),
            "float16",
        ),
        ("w.pth.tar", lambda: saved({"state_dict": weights(), "epoch": 3}), "in state_dict"),
        ("w.bin", lambda: saved(weights()), "plain names"),
        ("weights", lambda: saved(weights()), "plain names"),
        ("w.pth", lambda: as_safetensors(weights()), "plain names"),
        ("w.safetensors", lambda: saved(weights()), "plain names"),
        ("w.pth", lambda: saved({n: nn.Parameter(v, False) for n, v in weights().items()}), "plain names"),
        ("w.pth", lambda: saved(weights(), _use_new_zipfile_serialization=False), "plain names"),
    ],
    ids="float16 pth.tar bin unnamed named-pth named-safetensors parameters older-form".split(),  # noqa: SIM905
)
def test_an_odd_file_is_read(name: str, content: Callable[[], bytes], note: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content())
    found = find_encoder(tmp_path / name, image_size=32)
    assert note in str(found.report)
    rounded = {n: v.half().float() if v.is_floating_point() else v for n, v in weights().items()}
    expected = rounded if note == "float16" else weights()
    for key, value in found.network.state_dict().items():
        assert torch.equal(value, expected[key]), key
