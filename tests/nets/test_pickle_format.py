"""Pickled weights are read without being run: all tensors come out, and no pickle, however made, does anything."""

import argparse
import ast
import collections
import contextlib
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from canaries import TRICKS, pickled
from torch import Tensor, nn

from barlow.exits import UnusableData
from barlow.limits import TooLarge
from barlow.nets import pickle_format
from barlow.nets.weight_file import Other, Stored, WeightFile, open_weights

FORMS = {"zip": True, "in a row": False}


def save(content: Any, path: Path, *, form: str = "zip") -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=FORMS[form])
    return path


def tensors(there: WeightFile) -> dict[str, Tensor]:
    wanted = {name: entry for name, entry in there.tree.items() if isinstance(entry, Stored)}
    return there.read(wanted, 10**9, "this test")


# --- Tensors come out ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_tensor_comes_out_as_torch_reads_it(form: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(4, 6, 5, generator=generator)
    flat = torch.arange(24.0)
    content = {
        "plain": drawn,
        "transposed": drawn.transpose(0, 2),
        "a part": drawn[1:3, ::2, 1],
        "expanded": torch.ones(3, 1)[:, :1],
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(drawn[0].clone()),
        "shared, first": flat[:12].view(3, 4),
        "shared, second": flat[12:].view(4, 3).t(),
        "channels last": torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
        **{
            str(dtype): (drawn * 9).to(dtype)
            for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16)
        },
        "int8": torch.arange(-3, 3, dtype=torch.int8),
        "uint8": torch.arange(250, 256, dtype=torch.uint8),
        "bool": drawn > 0,
    }
    path = save(content, tmp_path / "w.pth", form=form)
    found = tensors(open_weights(path))
    assert found.keys() == content.keys()
    for name, value in torch.load(path, weights_only=True).items():
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        assert torch.equal(found[name], value), name
        assert found[name].is_contiguous(), name


def test_two_views_of_one_storage_have_memory_of_their_own(tmp_path: Path) -> None:
    flat = torch.zeros(6)
    found = tensors(open_weights(save({"a": flat[:4], "b": flat[2:]}, tmp_path / "w.pth")))
    found["a"].fill_(1)
    assert found["b"].sum() == 0


@pytest.mark.parametrize("form", FORMS)
def test_all_else_in_a_file_is_told_and_not_made(form: str, tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    momentum = {0: {"momentum_buffer": torch.ones(2, 2)}, 1: {"momentum_buffer": torch.ones(2)}}
    content = {
        "state_dict": network.state_dict(),
        "optimizer": {"state": momentum, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
        "epoch": 3,
        "arch": "resnet50",
        "args": argparse.Namespace(lr=0.1, nested=argparse.Namespace(path="/tmp")),
        "function": os.path.join,
        "counter": collections.Counter("aab"),
        "metrics": collections.defaultdict(list, loss=[1.0, 2.0]),
        "bytes": b"\x00\xff",
        "set": {1, 2},
        "none": None,
    }
    tree = open_weights(save(content, tmp_path / "w.ckpt", form=form)).tree
    assert list(tree) == list(content)
    assert {name: entry.shape for name, entry in tree["state_dict"].items()} == {"weight": (2, 2), "bias": (2,)}
    assert tree["arch"] == "resnet50"
    assert tree["args"] == Other("argparse.Namespace")
    assert tree["function"] == Other("posixpath.join")
    assert tree["epoch"] == Other("int")


def test_files_of_python_2_and_of_every_protocol_are_read(tmp_path: Path) -> None:
    for protocol in (2, 3, 4, 5):
        path = tmp_path / f"{protocol}.pth"
        torch.save({"a": torch.arange(3.0)}, path, pickle_protocol=protocol)
        assert tensors(open_weights(path))["a"].tolist() == [0, 1, 2]
    # Texts of Python 2 are bytes to Python 3: SHORT_BINSTRING in place of BINUNICODE.
    two = in_a_row(
        b"\x80\x02}U\x06weightctorch._utils\n_rebuild_tensor\n(" + storage() + b"K\x00K\x03\x85K\x01\x85tRs."
    )
    (tmp_path / "two.pth").write_bytes(two)
    assert tensors(open_weights(tmp_path / "two.pth"))["weight"].tolist() == [1, 2, 3]


def storage(items: bytes = b"K\x03") -> bytes:
    """A persistent identity, as torch writes it: of three floats called "0"."""
    return b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + items + b"NtQ"


def in_a_row(content: bytes, keys: list[str] | None = None) -> bytes:
    """A file in torch's older form around a pickle."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = b"".join(pickle.dumps(each, 2) for each in (pickle_format.MAGIC, 1001, system))
    numbers = struct.pack("<q3f", 3, 1, 2, 3)
    return head + content + pickle.dumps(["0"] if keys is None else keys, 2) + numbers


def zipped(content: bytes, **more: bytes) -> bytes:
    """A file in torch's form around a pickle."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in {"data.pkl": content, "data/0": struct.pack("<3f", 1, 2, 3), **more}.items():
            archive.writestr(f"archive/{name}", data)
    return out.getvalue()


# --- Nothing runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_runs_anything(trick: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "canary.py").write_text(f"open({str(canary)!r}, 'w')")
    content = pickled(trick, canary)
    inside = b"\x80\x04}(X\x01\x00\x00\x00a" + content.removeprefix(b"\x80\x02")[:-1] + b"u."
    for number, data in enumerate((content, zipped(content), in_a_row(content), zipped(inside), in_a_row(inside))):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(data)
        with contextlib.suppress(UnusableData):
            open_weights(path)
    assert not canary.exists()


SINGING = ["os.system", "builtins.eval", "a chain of getattr", "__setstate__", "pickle.loads inside", "INST", "BUILD"]


@pytest.mark.parametrize("trick", SINGING)
def test_the_canaries_sing_where_a_pickle_is_run(trick: str, tmp_path: Path) -> None:
    """Or the test above would say nothing."""
    canary = tmp_path / "canary"
    content = pickled(trick, canary)
    if trick == "BUILD":
        content = content.replace(b"ccollections\nOrderedDict\n)R", b"ccollections\nUserDict\n)R")
    program = "import pickle, sys; sys.path.insert(0, sys.argv[2]); pickle.load(open(sys.argv[1], 'rb'))"
    (tmp_path / "w.pkl").write_bytes(content)
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "w.pkl"), str(Path(__file__).parent)],
        check=False,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path])},
    )
    assert canary.exists()


def test_the_reader_can_neither_import_nor_call_what_a_file_names() -> None:
    source = ast.parse(Path(pickle_format.__file__).read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(source) if isinstance(node, ast.Name)}
    assert not names & {"eval", "exec", "compile", "__import__", "getattr", "setattr", "globals", "vars", "importlib"}
    modules = {alias.name for node in ast.walk(source) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(source) if isinstance(node, ast.ImportFrom)}
    assert modules <= {
        "contextlib",
        "io",
        "json",
        "pickletools",
        "struct",
        "zipfile",
        "resource",
        "collections.abc",
        "typing",
    }


def test_every_instruction_of_pickle_is_known() -> None:
    """One that a newer Python adds is refused, and is to be looked at."""
    refused = set()
    for operation in pickletools.opcodes:
        machine = pickle_format.Machine()
        machine.stack, machine.marks, machine.memo = [[], {}, "a", "b", ()], [1], {0: 1}
        try:
            machine._step(operation.name, 0 if "GET" in operation.name or "PUT" in operation.name else "a b")
        except pickle_format.Unreadable:
            refused.add(operation.name)
        except (ValueError, TypeError, IndexError, AttributeError, KeyError):
            continue  # the stack is not as it wants it
    assert refused == {"NEXT_BUFFER", "READONLY_BUFFER"}


# --- Limits -------------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    return b"\x80\x02" + b"}U\x01a" * depth + b"N" + b"s" * depth + b"."


def laughing(opening: bytes, twice: bytes) -> bytes:
    """Forty containers, each with the one before twice in it."""
    lines = [opening + b"q\x00"] + [twice.replace(b"#", bytes([i])).replace(b"@", bytes([i + 1])) for i in range(40)]
    return b"\x80\x02" + b"".join(lines) + b"."


BOMBS: dict[str, bytes] = {
    "nested deeply": zipped(nested(100_000)),
    "tuples of tuples as a key": zipped(b"\x80\x02}" + laughing(b")", b"h#h#\x86q@")[2:-1] + b"Ns."),
    "lists of lists": zipped(laughing(b"]", b"](h#h#eq@")),
    "dictionaries of dictionaries": zipped(laughing(b"}", b"}(U\x01ah#U\x01bh#uq@")),
    "a list in itself": zipped(b"\x80\x02]q\x00h\x00a."),
    "a dictionary in itself": zipped(b"\x80\x02}q\x00U\x01ah\x00s."),
    "a rebuilt tensor in itself": zipped(
        b"\x80\x02]q\x00(ctorch._tensor\n_rebuild_from_type_v2\nq\x01Nh\x00eh\x01h\x00R."
    ),
    "three million instructions": zipped(b"\x80\x02" + b"N0" * 1_500_000 + b"N."),
    "a text of four gigabytes": zipped(b"\x80\x02X\xff\xff\xff\xff."),
    "a long number": zipped(b"\x80\x02\x8b\x00\x00\x10\x00" + b"\xff" * 2**20 + b"."),
    "a number of many digits": zipped(b"I" + b"9" * 100_000 + b"\n."),
    "a shape of long numbers": zipped(
        b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor\n("
        + storage()
        + b"K\x00\x8a\x40"
        + b"\x7f" * 64
        + b"\x85K\x01\x85tRs."
    ),
    "a negative shape": zipped(
        b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor\n(" + storage() + b"K\x00J\xff\xff\xff\xff\x85K\x01\x85tRs."
    ),
    "a hundred thousand sides": zipped(
        b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor\n(" + storage() + b"K\x00(" + b"K\x01" * 100_000 + b"t(t tRs."
    ),
    "a mark too few": zipped(b"\x80\x02e."),
    "nothing on the stack": zipped(b"\x80\x02R."),
    "a memo that is not there": zipped(b"\x80\x02h\x07."),
    "no end": zipped(b"\x80\x02}"),
    "an unknown instruction": zipped(b"\x80\x02\xff."),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_or_read_within_seconds(bomb: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(BOMBS[bomb])
    said = ""
    try:
        said = str(open_weights(path).tree)
    except UnusableData as error:
        said = str(error)
    assert len(said) < 10_000
    assert "\n" not in said


@pytest.mark.parametrize("form", FORMS)
def test_a_view_that_is_larger_than_its_storage_is_refused(form: str, tmp_path: Path) -> None:
    for shape, stride in (
        (b"K\x04\x85", b"K\x01\x85"),
        (b"K\xff\x85", b"K\x00\x85"),
        (b"J\xff\xff\xff\x7f\x85", b"K\x00\x85"),
    ):
        content = b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor\n(" + storage() + b"K\x00" + shape + stride + b"tRs."
        (tmp_path / "w.pth").write_bytes(zipped(content) if form == "zip" else in_a_row(content))
        with pytest.raises(UnusableData, match="a is larger than its numbers in it"):
            tensors(open_weights(tmp_path / "w.pth"))


def test_a_small_view_of_a_large_storage_is_not_read(tmp_path: Path) -> None:
    path = save({"a": torch.zeros(200_000)[:3]}, tmp_path / "w.pth")
    there = open_weights(path)
    with pytest.raises(TooLarge, match="holds 200,000 numbers, far more than this test has"):
        there.read({"a": there.tree["a"]}, 100_000, "this test")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = save({"a": torch.arange(1000.0)}, tmp_path / "w.pth")
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<2f", 500, 501))
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnusableData, match="the numbers of a are not those that were written"):
        tensors(open_weights(path))


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = save({"a": torch.arange(3.0)}, tmp_path / "w.pth")
    there = open_weights(path)
    save({"a": torch.arange(4.0)}, path)
    with pytest.raises(UnusableData, match="changed while it was read"):
        tensors(there)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_cut_off_is_refused(form: str, share: float, tmp_path: Path) -> None:
    path = save({name: torch.arange(300.0) for name in "abcdef"}, tmp_path / "w.pth", form=form)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnusableData, match=r"cut off|damaged"):
        tensors(open_weights(path))
