"""What a published recipe says of itself is true of it: `source.differs` against its views, objective and heads."""

import re

import pytest
from contracts.calls import SMALLER, Case

from barlow import objectives
from barlow.recipe import files

PUBLISHED = {name: files.read(name) for name in files.names() if "/" in name}
PRECISIONS = {
    name: found[0]
    for name, content in PUBLISHED.items()
    if (found := re.findall(r"the objective in (float\d\d)", " ".join(content["source"]["differs"])))
}
"""Of those that say in which precision their objective computes."""

WIDE_MARGIN = {"exemplar_triplets": {"margin": 1.5}}
"""With its own margin the loss of the batch below is 0, and has no gradient."""


def said(name: str) -> str:
    return "; ".join(PUBLISHED[name]["source"]["differs"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_blur_is_spoken_of_where_there_is_one(name: str) -> None:
    blurred = any(op["kind"] == "gaussian_blur" for view in PUBLISHED[name]["views"] for op in view)
    assert ("the blur is a Gaussian" in said(name)) == blurred


@pytest.mark.parametrize("name", PRECISIONS)
def test_the_objective_computes_in_the_precision_that_is_said(name: str) -> None:
    """In float64 only the embeddings and their gradient are rounded, and that by half a unit in the last place."""
    kind = PUBLISHED[name]["objective"]["kind"]
    case = Case(objectives.load(kind)(**SMALLER.get(kind, {}) | WIDE_MARGIN.get(kind, {})))
    inputs = case.inputs("untrained", 48, 40)
    exact, found = (case.loss_and_gradients(*z)[1] for z in (inputs, [z.float() for z in inputs]))
    errors = [((a - b).abs().max() / a.abs().max()).item() for a, b in zip(exact, found, strict=True)]
    assert (max(errors) <= 1.2e-7) == (PRECISIONS[name] == "float64"), max(errors)


def test_most_published_recipes_say_their_precision() -> None:
    silent = set(PUBLISHED) - set(PRECISIONS)
    assert {name for name in silent if "w_mse" not in name} == {"coco/vse", "imagenet/obow"}, "which say it otherwise"
    assert "the loss in float64" in said("imagenet/obow")


def test_a_gradient_scaler_is_spoken_of_only_where_the_cited_code_has_one() -> None:
    with_scaler = {name for name in PUBLISHED if "gradient scaler" in said(name)}
    codes = {PUBLISHED[name]["source"]["code"].partition("@")[0] for name in with_scaler}
    assert codes == {"facebookresearch/barlowtwins", "facebookresearch/vicreg", "vturrisi/solo-learn"}


def test_pixels_normalised_by_other_numbers_than_the_cited_code_has_are_told() -> None:
    supervised = PUBLISHED["cifar10/supervised"]
    assert supervised["data"]["std"] == [0.2470, 0.2435, 0.2616]
    for difference in (".2470, .2435, .2616", ".2023, .1994, .2010", "by the step, in place of the epoch", "391"):
        assert difference in said("cifar10/supervised")
    assert supervised["schedule"]["kind"] == "warmup_cosine"


def test_solo_learns_prototypes_have_lengths_and_ours_have_not() -> None:
    assert "weight-normalised" in said("cifar10/swav")
