"""Lab and YCbCr against the equations colour by colour, against scikit-image where it is, and as view ops."""

from itertools import product

import numpy as np
import pytest
import torch
from oracles import colour_spaces as loops
from torch import Tensor

from barlow import colour_spaces
from barlow.views.keys import Keys
from barlow.views.ops import OPS, Normalize
from barlow.views.pipeline import ViewPipeline

SPACES = {"lab": (colour_spaces.lab, loops.lab), "ycbcr": (colour_spaces.ycbcr, loops.ycbcr)}
DARK = [0.0, 1e-6, 0.002, 0.0404, 0.04045, 0.0405]
"""On both sides of where the curve of sRGB begins."""


def grid() -> Tensor:
    """Colours all over the cube, its corners, and dark ones: (n, 3)."""
    steps = [i / 10 for i in range(11)]
    return torch.tensor([*product(steps, repeat=3), *product(DARK, repeat=3)], dtype=torch.float64)


@pytest.mark.parametrize("space", SPACES)
def test_every_colour_of_a_grid_is_that_of_the_equations(space: str) -> None:
    ours, oracle = SPACES[space]
    expected = torch.tensor([oracle(*colour) for colour in grid().tolist()], dtype=torch.float64)
    assert torch.allclose(ours(grid()), expected, rtol=0, atol=1e-9)
    assert torch.allclose(ours(grid().float()).double(), expected, rtol=0, atol=4e-4), "of numbers up to 100 or 255"


@pytest.mark.parametrize("space", SPACES)
def test_every_colour_of_a_grid_is_that_of_scikit_image(space: str) -> None:
    skimage = pytest.importorskip("skimage.color")
    theirs = getattr(skimage, f"rgb2{space}")(grid().numpy()[None])[0]
    assert np.abs(SPACES[space][0](grid()).numpy() - theirs).max() < 1e-9


def test_known_colours_have_their_published_numbers() -> None:
    red, white, black = ([1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    found = colour_spaces.lab(torch.tensor([red, white, black], dtype=torch.float64))
    expected = torch.tensor([[53.24, 80.09, 67.20], [100.0, -0.0025, 0.0047], [0.0, 0.0, 0.0]]).double()
    assert torch.allclose(found, expected, rtol=0, atol=5e-3)
    limits = colour_spaces.ycbcr(torch.tensor([white, black], dtype=torch.float64))
    assert torch.allclose(limits, torch.tensor([[235.0, 128.0, 128.0], [16.0, 128.0, 128.0]]).double(), atol=1e-9)


def test_an_image_is_changed_pixel_by_pixel() -> None:
    image = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for ours, oracle in SPACES.values():
        made = ours(image)
        assert made.shape == image.shape
        assert made[1, :, 3, 2].tolist() == pytest.approx(oracle(*image[1, :, 3, 2].tolist()), abs=1e-9)
    assert torch.equal(colour_spaces.lightness(image), colour_spaces.lab(image)[:, :1])


def test_the_grey_of_a_colour_has_its_lightness_and_no_colour() -> None:
    grey = colour_spaces.grey_of_lightness(grid())
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])
    before, after = colour_spaces.lab(grid()), colour_spaces.lab(grey)
    assert torch.allclose(after[:, 0], before[:, 0], rtol=0, atol=2e-4), "sRGB's two pieces do not quite meet"
    assert after[:, 1:].abs().max() < 0.01
    again = colour_spaces.grey_of_lightness(grey)
    assert torch.allclose(again, grey, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "change", [colour_spaces.lab, colour_spaces.ycbcr, colour_spaces.lightness, colour_spaces.grey_of_lightness]
)
def test_gradients_are_finite_at_black_and_those_of_differences_elsewhere(change) -> None:
    black = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(change(black).sum(), black)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    colours = torch.tensor([[0.1, 0.5, 0.9], [0.02, 0.03, 0.01], [0.7, 0.7, 0.7]], dtype=torch.float64)
    assert torch.autograd.gradcheck(change, colours.requires_grad_())


def keys(n: int) -> Keys:
    return Keys(seed=0, epoch=0, ids=np.arange(n), view=0, op=0)


@pytest.mark.parametrize(
    ("kind", "space", "scale", "offset"),
    [
        ("to_lab", "lab", (100.0, 255.0, 255.0), (0.0, 128.0, 128.0)),
        ("to_ycbcr", "ycbcr", (255.0, 255.0, 255.0), (0.0, 0.0, 0.0)),
    ],
)
def test_the_op_scales_the_colours_into_the_unit_interval(kind, space, scale, offset) -> None:
    image = grid().float().view(-1, 3, 1, 1)
    made = OPS[kind]()(image, keys(len(image)))
    back = made.flatten(1).double() * torch.tensor(scale) - torch.tensor(offset)
    assert torch.allclose(back, SPACES[space][0](grid()), rtol=0, atol=5e-4)
    assert made.min() >= 0
    assert made.max() <= 1


def test_a_view_in_lab_is_normalised_by_the_numbers_that_cmc_published() -> None:
    mean = (50 / 100, (6.025 + 128) / 255, (-6.690 + 128) / 255)
    std = (50 / 100, 92.208 / 255, 101.168 / 255)
    crop = OPS["random_resized_crop"](size=8)
    view = ViewPipeline([[crop, OPS["to_lab"]()]], mean, std)
    pixels = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    (made,) = view.from_memory(pixels, None, torch.arange(3), 0, 0)
    (plain,) = ViewPipeline([[crop]], (0.0,) * 3, (1.0,) * 3).from_memory(pixels, None, torch.arange(3), 0, 0)
    own = (50.0, 6.025, -6.690), (50.0, 92.208, 101.168)
    expected = Normalize(*own)(colour_spaces.lab(plain))
    assert torch.allclose(made, expected, rtol=0, atol=2e-5)
