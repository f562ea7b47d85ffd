"""A large checkpoint is compared with what its own recipe needs, before its gigabytes are read."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from barlow import checkpoints, regular, storage
from barlow.exits import UnusableData
from barlow.limits import TooLarge
from barlow.nets import stored_size
from barlow.seals import sealed

RECIPE: dict[str, Any] = {
    "encoder": {"name": "resnet18", "options": {}},
    "data": {"mean": [0.5, 0.5, 0.5], "image_size": 32},
    "objective": {"kind": "barlow_twins"},
}


def sparse(run: Path, recipe: dict[str, Any], tensors: dict[str, int]) -> Path:
    """A checkpoint whose tensors are as long as they say, take no space on the disk, and have no right digest."""
    folder = run / "checkpoints" / "step-000001"
    storage.commit_folder(folder, {checkpoints.STATE: storage.json_bytes({"step": 1, "recipe": recipe})})
    header, at = {}, 0
    for name, items in tensors.items():
        header[name] = {"dtype": "F32", "shape": [items], "data_offsets": [at, at + 4 * items]}
        at += 4 * items
    text = json.dumps(header).encode()
    with open(folder / checkpoints.TENSORS, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    manifest = storage.read_sealed(folder / "MANIFEST.json")
    manifest["files"][checkpoints.TENSORS] = {"bytes": 8 + len(text) + at, "sha256": "0" * 64}
    storage.write_json(folder / "MANIFEST.json", sealed(manifest))
    return folder


@pytest.fixture
def never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read = regular.content

    def small_ones(path: Path) -> bytes:
        assert path.stat().st_size < 2**25, f"{path} was read"
        return read(path)

    monkeypatch.setattr(regular, "content", small_ones)


@pytest.mark.usefixtures("never_read")
def test_what_is_far_larger_than_its_network_is_refused_unread_and_not_renamed(tmp_path: Path) -> None:
    folder = sparse(tmp_path, RECIPE, {"method/encoder.a": 800_000_000})
    with pytest.raises(TooLarge, match=r"holds 800,000,000 numbers, and the network that its recipe names has 11,"):
        checkpoints.newest(tmp_path, stored_size.look())
    assert folder.exists(), "it is not damaged"


@pytest.mark.usefixtures("never_read")
def test_what_names_nothing_that_is_known_is_refused_and_not_called_damaged(tmp_path: Path) -> None:
    for changes in ({"encoder": {"name": "resnet_of_2030", "options": {}}}, {"objective": {"kind": "of_2030"}}):
        run = tmp_path / next(iter(changes))
        folder = sparse(run, RECIPE | changes, {"method/encoder.a": 20_000_000})
        with pytest.raises(UnusableData, match="names no network or objective that is known here"):
            checkpoints.newest(run, stored_size.look())
        assert folder.exists()


def allowed(folder: Path, module: nn.Module | None = None) -> bool:
    return stored_size.look(module)(folder / checkpoints.TENSORS) is None


def test_projectors_queues_and_what_was_given_in_python_may_be_as_large_as_they_are(tmp_path: Path) -> None:
    many = 400_000_000  # more than 32 times a ResNet-18 and ten millions
    assert allowed(sparse(tmp_path / "a", RECIPE, {"method/projector.a": 300_000_000}))
    queue = RECIPE | {"objective": {"kind": "moco"}}
    assert allowed(sparse(tmp_path / "b", queue, {"objective/queue": many, "optimizer/objective.p/exp_avg": many}))
    with pytest.raises(TooLarge):
        allowed(sparse(tmp_path / "c", RECIPE, {"objective/queue": many}))
    mine = RECIPE | {"encoder": {"name": "custom:Mine", "options": {}}}
    folder = sparse(tmp_path / "d", mine, {"method/encoder.a": many})
    assert allowed(folder)
    assert allowed(folder, nn.Linear(4_000, 4_000))
    with pytest.raises(TooLarge):
        allowed(folder, nn.Linear(3, 3))


def test_a_header_of_another_length_is_damage(tmp_path: Path) -> None:
    folder = sparse(tmp_path, RECIPE, {"method/encoder.a": 10_000_000})
    with open(folder / checkpoints.TENSORS, "r+b") as file:
        file.write(bytes(8))
    assert stored_size.look()(folder / checkpoints.TENSORS) == "tensors.safetensors is not as long as its header says"
