"""The recipes of jigsaw and context prediction: geometry, heads and orders of the code that they name."""

import pytest
import torch

from barlow.recipe import files, schema
from barlow.views.ops import PatchPair, Tiles


def published(name: str) -> schema.Recipe:
    return schema.check(files.read(name))


def test_windows_of_64_pixels_are_cut_out_of_cells_of_85() -> None:
    jigsaw, context = (published(f"imagenet/{kind}") for kind in ("jigsaw", "context_prediction"))
    assert (jigsaw.data.image_size, context.data.image_size) == (255, 255)
    tiles = Tiles(**{key: value for key, value in jigsaw.views[0][3].items() if key != "kind"})
    assert (tiles.size_after(255), tiles.orders, tiles.distance) == (192, 2000, "mean")
    pair = PatchPair(**{key: value for key, value in context.views[0][2].items() if key != "kind"})
    assert pair.size_after(255) == (64, 128)
    assert context.views[0][3]["each_tile"] is True
    for chosen in (jigsaw, context):
        (grey,) = [op for op in chosen.views[0] if op["kind"] == "grayscale"]
        assert grey["p"] == 0.66


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # 2048 features: Linear and its bias; batch norm; nine tiles, or two
        ("imagenet/jigsaw", 2049 * 1000 + 2 * 1000 + 9001 * 2000),
        ("imagenet/context_prediction", 2049 * 1000 + 2001 * 4096 + 2 * 4096 + 4097 * 8),
    ],
)
def test_the_heads_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    method = published(name).build_method()
    tiles = method.tiling[0] * method.tiling[1]
    with torch.device("meta"):
        heads = [method.each.build(2048, 0, "each"), method.head.build(tiles * 1000, 0, "head")]
    assert sum(p.numel() for head in heads for p in head.parameters()) == parameters
    assert method.rectified == (name == "imagenet/jigsaw")


@pytest.mark.parametrize("name", ["imagenet/jigsaw", "small_jigsaw"])
def test_the_op_and_the_objective_have_one_set_of_orders_and_the_head_a_logit_for_each(name: str) -> None:
    chosen = published(name)
    (tiles,) = [op for op in chosen.views[0] if op["kind"] == "tiles"]
    objective = chosen.objective
    assert (tiles["orders"], tiles["distance"]) == (objective["permutations"], objective["distance"])
    assert tiles["grid"] ** 2 == objective["tiles"]
    assert chosen.method["head"]["widths"][-1] == objective["permutations"]
