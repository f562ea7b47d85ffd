"""An encoder that is in a Python file of the user's: `FILE.py:NAME`."""

import textwrap
from pathlib import Path

import pytest
import torch

from barlow import exits
from barlow.encoders import find_encoder

MINE = """
    import timm
    from beside import NAME

    CALLS = []

    def backbone():
        CALLS.append(1)
        return timm.create_model(NAME, pretrained=False, num_classes=0, pretrained_cfg_overlay={"tag": None})

    def needs(width):
        return backbone()

    def broken():
        return 1 / 0

    made = backbone()
    words = "resnet18"
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text('NAME = "resnet10t"\n')
    (tmp_path / "mine.py").write_text(textwrap.dedent(MINE))
    return tmp_path / "mine.py"


@pytest.mark.parametrize("name", ["backbone", "made"])
def test_a_function_and_a_module_of_a_file_are_encoders(name: str, mine: Path) -> None:
    found = find_encoder(f"{mine}:{name}")
    assert (found.kind, found.name) == ("module", f"{mine}:{name}")
    side = found.preprocessing.size
    assert found.network(torch.zeros(2, 3, *(side if isinstance(side, tuple) else (side, side)))).shape == (2, 512)
    assert not found.network.training


def test_the_files_content_is_part_of_what_an_encoder_is(mine: Path) -> None:
    """Features that were kept for one file are not taken for another that has the same tensors."""
    before = find_encoder(f"{mine}:backbone").identity
    mine.write_text(mine.read_text() + "\n# another function of the same tensors, perhaps\n")
    assert find_encoder(f"{mine}:backbone").identity.split()[1:-1] != before.split()[1:-1]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nothing", "has no nothing; it has backbone, needs, broken, made"),
        ("needs", "could not be built: TypeError: needs() missing 1 required positional argument: 'width'"),
        ("broken", "could not be built: ZeroDivisionError: division by zero"),
        ("words", "is a str; it has to be a torch module, or a function that returns one and needs no arguments"),
    ],
)
def test_what_is_no_network_is_told_in_one_line(name: str, line: str, mine: Path) -> None:
    with pytest.raises(ValueError, match="mine") as told:
        find_encoder(f"{mine}:{name}")
    assert line in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_that_does_not_exist_or_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(exits.NoInput, match=r"no file .*gone\.py"):
        find_encoder(f"{tmp_path}/gone.py:x")
    (tmp_path / "half.py").write_text("def (")
    with pytest.raises(ValueError, match=r"half\.py:x could not be built: SyntaxError"):
        find_encoder(f"{tmp_path}/half.py:x")


def test_a_path_with_a_colon_that_is_no_python_file_is_a_path(tmp_path: Path) -> None:
    with pytest.raises(exits.NoInput, match="no encoder"):
        find_encoder(f"{tmp_path}/mine.pyc:x")
