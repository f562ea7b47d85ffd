"""Every method of the papers' tables either beats the untrained network in a test, or is listed as not reproduced."""

import re
from pathlib import Path

from learning import test_captions_learning, test_learning, test_learning_colours_and_patches
from programs import program

from barlow.recipe import files

PAGE = Path(__file__).resolve().parents[2] / "docs" / "experiments.md"


def listed() -> set[str]:
    _, _, section = PAGE.read_text(encoding="utf-8").partition("## Not reproduced yet\n")
    return set(re.findall(r"`(small_\w+)`", section.partition("\n## ")[0]))


def with_learning_tests() -> set[str]:
    kinds = {*test_learning.MARGINS, *test_learning_colours_and_patches.MARGINS, "barlow_twins", "vicreg", "w_mse"}
    return {f"small_{kind}" for kind in kinds} | set(test_captions_learning.MARGINS)


def test_no_method_is_both_and_none_is_neither() -> None:
    methods = set(program("experiments/compared_methods.py").COMPARED)
    captions = {name for name in files.names() if name.startswith("small_") and name.endswith(("_captions", "_vse"))}
    assert not listed() & with_learning_tests()
    assert (methods | captions | {"small_exemplar_triplets"}) <= listed() | with_learning_tests()
    assert listed() <= set(files.names())
