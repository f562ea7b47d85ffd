"""What a file or a flag holds that is of another kind than it should be is told in one line, with its own exit code."""

import struct
from pathlib import Path

import pytest

from barlow import cli, exits, limits, storage
from barlow.exits import UnusableData
from barlow.seals import Damaged


def test_a_number_of_thousands_of_digits_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(f'{{"a": {"9" * 5_000}}}')
    with pytest.raises(Damaged, match=r"run\.json is not valid JSON"):
        storage.read_json(path)


def test_a_chain_of_aliases_is_too_deep(tmp_path: Path) -> None:
    path = tmp_path / "rec.yaml"
    path.write_text("a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2_500)))
    with pytest.raises(limits.TooLarge, match="nested too deeply|expand"):
        limits.read_yaml(path)


def test_an_endless_side_of_a_tensor_is_damage(tmp_path: Path) -> None:
    header = b'{"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 4]}}'
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(UnusableData, match="not a valid safetensors file"):
        limits.tensors_in(path)


@pytest.mark.parametrize("flag", ["--epochs", "--minutes", "--train.checkpoint_minutes"])
@pytest.mark.parametrize("value", ["inf", "1e300", "nan"])
def test_a_budget_without_end_is_refused(
    flag: str, value: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert cli.main(["pretrain", str(photos), "--out", str(out), flag, value]) == exits.USAGE
    assert flag.split(".")[-1].strip("-") in capsys.readouterr().err
    assert not out.exists()
