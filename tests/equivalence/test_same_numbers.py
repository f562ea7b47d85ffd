"""The weights of a few short trainings are, to the bit, those whose hashes are kept beside this file.

What they were at an older commit is compared by `experiments/same_numbers.py`; here is what every change must pass.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from programs import program
from torch import Tensor

from barlow import storage

STEPS = 2


@pytest.fixture(scope="module")
def same_numbers() -> ModuleType:
    return program("experiments/same_numbers.py")


@pytest.mark.timeout(900)  # 15 seconds of a processor, which may have to be waited for
def test_short_trainings_end_with_the_weights_whose_hashes_are_kept(same_numbers: ModuleType) -> None:
    place = same_numbers.place(same_numbers.capability())
    kept = storage.read_json(same_numbers.HASHES).get(place)
    if kept is None:
        pytest.skip(f"no hashes for {place}; `python experiments/same_numbers.py --write-hashes` writes them")
    found = same_numbers.child_hashes(same_numbers.capability())
    assert found == kept, (
        "the arithmetic of training has changed; if it was meant to, write the hashes anew and say why"
    )


def run_folder(folder: Path) -> Path:
    """What a run leaves behind, as far as it is compared."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 2, generator=generator)
    tensors = {
        "method/encoder.weight": weight,
        "method/encoder.batches": torch.tensor(2),
        "method/projector.bias": torch.zeros(4),
        "optimizer/encoder.weight/exp_avg": torch.randn(3, 2, generator=generator).bfloat16(),
    }
    storage.write_lines(folder / "metrics.jsonl", [line(step) for step in range(1, STEPS + 1)])
    storage.write_tensors(checkpoint(folder), tensors)
    storage.write_tensors(folder / "encoder" / "model.safetensors", {"weight": weight})
    return folder


def line(step: int) -> dict[str, object]:
    numbers = {"rate": 0.1 * step, "loss": 1 / 3 / step, "terms": {"variance": 1 / 3 / step}, "gradient_norm": 2 / 3}
    return {"step": step, "epoch": 0, **numbers, "seconds": 1.0}


def checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / f"step-{STEPS:06d}" / "tensors.safetensors"


def test_equal_runs_have_no_difference_whatever_their_speed(tmp_path: Path, same_numbers: ModuleType) -> None:
    old, new = (run_folder(tmp_path / name) for name in ("old", "new"))
    storage.write_lines(new / "metrics.jsonl", [{**line(step), "seconds": 9.0} for step in (1, 2)])
    assert same_numbers.first_difference(old, new, STEPS) is None


def test_the_last_bit_of_a_logged_number_is_found_with_its_step(tmp_path: Path, same_numbers: ModuleType) -> None:
    old, new = (run_folder(tmp_path / name) for name in ("old", "new"))
    lines = [line(1), {**line(2), "terms": {"variance": 1 / 6 + 2**-55}}]
    storage.write_lines(new / "metrics.jsonl", lines)
    assert "step 2: terms" in same_numbers.first_difference(old, new, STEPS)
    storage.write_lines(new / "metrics.jsonl", lines[:1])
    assert same_numbers.first_difference(old, new, STEPS) == "2 steps are logged there and 1 here"


def next_number(tensor: Tensor) -> Tensor:
    """Changed by its last bit, in one place."""
    changed = tensor.clone()
    bits = changed.view(torch.int16 if tensor.itemsize == 2 else torch.int32).flatten()
    bits[-1] += 1
    return changed


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("method/encoder.weight", next_number),
        ("method/encoder.batches", lambda t: t + 1),
        ("method/projector.bias", lambda t: -t),  # -0 is equal to 0, and has other bits
        ("method/projector.bias", lambda t: t.double()),
        ("method/projector.bias", lambda t: t[:3]),
        ("optimizer/encoder.weight/exp_avg", next_number),
    ],
)
def test_one_changed_bit_of_a_checkpoint_is_found_and_named(
    tmp_path: Path, same_numbers: ModuleType, name: str, change: Callable[[Tensor], Tensor]
) -> None:
    old, new = (run_folder(tmp_path / name) for name in ("old", "new"))
    tensors = storage.read_tensors(checkpoint(old))
    storage.write_tensors(checkpoint(new), {**tensors, name: change(tensors[name])})
    assert same_numbers.first_difference(old, new, STEPS).startswith(f"{name}")
    hashes = [same_numbers.weights_sha256(same_numbers.checkpoint(run, STEPS)) for run in (old, new)]
    assert (hashes[0] != hashes[1]) == name.startswith("method/")


def test_a_tensor_that_only_one_run_has_is_named(tmp_path: Path, same_numbers: ModuleType) -> None:
    old, new = (run_folder(tmp_path / name) for name in ("old", "new"))
    tensors = storage.read_tensors(checkpoint(old))
    storage.write_tensors(checkpoint(new), {**tensors, "objective/queue": torch.zeros(1)})
    assert same_numbers.first_difference(old, new, STEPS) == "objective/queue is only here"


def test_the_encoders_file_is_compared_too(tmp_path: Path, same_numbers: ModuleType) -> None:
    old, new = (run_folder(tmp_path / name) for name in ("old", "new"))
    file = new / "encoder" / "model.safetensors"
    tensors = storage.read_tensors(file)
    storage.write_tensors(file, tensors, {"format": "pt"})
    assert "the bytes differ" in same_numbers.first_difference(old, new, STEPS)
    storage.write_tensors(file, {"weight": next_number(tensors["weight"])})
    assert "model.safetensors: weight: 1 of 6 numbers" in same_numbers.first_difference(old, new, STEPS)
