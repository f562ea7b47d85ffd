"""What `auto` becomes, as a function of facts: no images, no machine."""

from dataclasses import replace

import pytest
import torch

from barlow.nets.expected import Normalization
from barlow.planning import choices
from barlow.planning.facts import ImageFacts, Machine
from barlow.recipe.messages import RecipeError
from barlow.size import Size

CPU = Machine(torch.device("cpu"), processes=1, cores=4, memory=4 << 30, half=True)
GPU = replace(CPU, device=torch.device("cuda", 1))
PHOTOS = ImageFacts(count=1000, short_side=300, grey=False)


def test_what_is_given_is_left_as_it_is() -> None:
    assert choices.channels(3, replace(PHOTOS, grey=True)) == 3
    assert choices.image_size(32, PHOTOS, CPU) == (32, None)
    assert choices.image_size((32, 128), PHOTOS, CPU) == ((32, 128), None)
    assert choices.working_size(40, 32, PHOTOS) == choices.working_size(40, (32, 128), PHOTOS) == 40
    assert choices.working_size((40, 90), 32, PHOTOS) == (40, 90)
    assert choices.executor("in_memory", 1 << 50, CPU) == "in_memory"
    assert choices.workers(0, "streaming", CPU) == 0
    assert choices.mean_and_std([0.1], [0.2], None) == ([0.1], [0.2])
    assert choices.batch_size(7, 5) == 7
    assert choices.precision("float32", 64, CPU) == "float32"
    assert choices.stem("as_is", 32, True) == "as_is"


def test_images_without_colour_have_one_channel() -> None:
    assert [choices.channels("auto", replace(PHOTOS, grey=grey)) for grey in (True, False)] == [1, 3]


def test_given_weights_choose_the_channels_that_they_know() -> None:
    grey, colour = replace(PHOTOS, grey=True), Normalization((0.5,) * 3, (0.5,) * 3)
    assert choices.channels("auto", grey, colour) == 3
    assert choices.channels(1, grey, colour) == 1


@pytest.mark.parametrize(
    ("view", "short_side", "aspect", "size"),
    [
        (32, 300, 1.0, 96),
        (32, 80, 1.0, 80),
        (64, 300, 1.0, 96),
        (96, 300, 1.0, 144),
        (64, 96, 1.5, 96),
        (64, 80, 1.0, 80),
        (24, 32, 1.0, 32),
        (28, 28, 1.0, 28),
        (64, 40, 1.0, 64),
        ((32, 128), 60, 4.0, (60, 240)),
        ((32, 128), 40, 16.0, (40, 160)),
        ((32, 128), 128, 1.0, (32, 128)),
    ],
)
def test_the_finished_encoder_takes_whole_images_larger_than_views_and_never_enlarged(
    view: Size, short_side: int, aspect: float, size: Size
) -> None:
    images = replace(PHOTOS, short_side=short_side, aspect=aspect)
    assert choices.centre_size("auto", view, images, fixed=False) == size
    assert choices.centre_size("auto", view, images, fixed=True) == view
    assert choices.centre_size(None, view, images, fixed=False) == view
    assert choices.centre_size(50, view, images, fixed=False) == 50


def test_of_images_that_cannot_be_read_the_encoder_takes_views() -> None:
    assert choices.centre_size("auto", 64, replace(PHOTOS, short_side=None), fixed=False) == 64


@pytest.mark.parametrize(
    ("short_side", "machine", "side", "why"),
    [
        (300, CPU, 32, "the largest that a small run takes on this device; the images' shorter side is 300"),
        (300, GPU, 128, "the largest"),
        (40, CPU, 24, "three quarters of the images' shorter side of 40, down to a multiple of 8"),
        (32, CPU, 24, "three quarters"),
        (31, CPU, 31, "the images' own shorter side: three quarters of it would be less than 24"),
        (28, CPU, 28, "the images' own"),
        (28, GPU, 28, "the images' own"),
        (16, CPU, 16, "the images' own"),
        (8, CPU, 16, "the smallest that auto takes; the images' shorter side is 8"),
    ],
)
def test_views_are_three_quarters_of_the_images_or_all_of_small_ones_and_the_rule_is_told(
    short_side: int, machine: Machine, side: int, why: str
) -> None:
    chosen, said = choices.image_size("auto", replace(PHOTOS, short_side=short_side), machine)
    assert chosen == side
    assert said is not None
    assert said.startswith(why)


def test_ops_of_colour_are_replaced_wherever_they_stand_or_refused_with_their_place() -> None:
    crop = {"kind": "random_resized_crop", "size": "auto"}  # not a size yet
    dropping = {"kind": "color_dropping", "p": 0.5, "noise": 0.5, "each_tile": True}
    views = [[crop], [crop, dropping, {"kind": "grayscale", "p": 0.1}]]
    found = choices.of_channels(views, 12)
    lost = {"kind": "channel_dropout", "channels": 12}
    assert found == {
        "views.1.1": lost | {"p": 0.5, "share": 2 / 3, "each_tile": True},
        "views.1.2": lost | {"p": 0.1, "share": 0.5},
    }
    assert choices.of_channels(views, 3) == choices.of_channels(views, 1) == {}
    with pytest.raises(RecipeError, match=r"views\.0\.0: to_lab: images of 12 channels have no lightness and colours"):
        choices.of_channels([[{"kind": "to_lab"}]], 12)


def test_images_that_cannot_be_read_choose_no_size_and_the_inventory_says_what_is_wrong() -> None:
    assert choices.image_size("auto", replace(PHOTOS, short_side=None), CPU) == (32, None)


@pytest.mark.parametrize("aspect", [0.1, 1.0, 15.0])
def test_images_are_held_half_as_large_again_as_square_views_whatever_their_shape(aspect: float) -> None:
    held = [choices.working_size("auto", view, replace(PHOTOS, aspect=aspect)) for view in (24, 32, 64)]
    assert held == [40, 48, 96]


@pytest.mark.parametrize(
    ("view", "aspect", "held"),
    [
        ((32, 128), 4.0, (48, 192)),
        ((32, 128), 16.0, (48, 768)),
        ((32, 128), 1.0, 192),
        ((32, 128), 0.5, (384, 192)),
        ((128, 32), 0.25, (192, 48)),
        ((16, 40), 15.0, (24, 384)),
        ((32, 128), 1000.0, (48, 4096)),
    ],
)
def test_for_other_views_the_box_that_a_view_can_see_is_held_half_as_large_again(
    view: tuple[int, int], aspect: float, held: object
) -> None:
    assert choices.working_size("auto", view, replace(PHOTOS, aspect=aspect)) == held


@pytest.mark.parametrize(
    ("square", "aspect", "size"),
    [
        (64, 7.8, (24, 184)),
        (48, 8.0, (16, 128)),
        (64, 1 / 3, (120, 40)),
        (128, 4.0, (64, 256)),
        (24, 15.0, (16, 240)),
        (16, 4.0, (16, 64)),
        (24, 2.1, (16, 32)),
        (128, 200.0, (16, 2048)),
        (64, 2.0, None),
        (64, 0.5, None),
        (64, 1.0, None),
    ],
)
def test_long_images_have_a_size_of_their_shape_that_would_fit(
    square: int, aspect: float, size: tuple[int, int] | None
) -> None:
    found = choices.size_for_long_images(square, replace(PHOTOS, aspect=aspect))
    assert found == size
    assert found is None or all(side % 8 == 0 for side in found)


def test_a_set_is_held_where_it_takes_a_quarter_of_the_memory_at_most() -> None:
    assert choices.executor("auto", 1 << 30, CPU) == "in_memory"
    assert choices.executor("auto", (1 << 30) + 1, CPU) == "streaming"


def test_all_cores_decode_into_memory_and_streaming_leaves_one() -> None:
    assert choices.workers("auto", "in_memory", CPU) == 4
    assert choices.workers("auto", "streaming", CPU) == 3
    assert choices.workers("auto", "streaming", replace(CPU, cores=1)) == 1
    assert choices.workers("auto", "streaming", replace(CPU, cores=64)) == 8


def test_only_what_is_auto_is_measured() -> None:
    measured = ([0.1234567], [0.7654321])
    assert choices.mean_and_std("auto", [0.5], measured) == ([0.123457], [0.5])
    assert choices.mean_and_std([0.5], "auto", measured) == ([0.5], [0.765432])


@pytest.mark.parametrize(("usable", "batch"), [(10_000, 128), (511, 64), (100, 16), (17, 16), (15, 8), (2, 2), (1, 2)])
def test_small_sets_get_smaller_batches(usable: int, batch: int) -> None:
    assert choices.batch_size("auto", usable) == batch


@pytest.mark.parametrize(
    ("usable", "batch"), [(10_000, 128), (511, 64), (100, 64), (64, 64), (63, 63), (40, 40), (15, 8)]
)
def test_an_objective_that_needs_many_rows_gets_them_as_long_as_there_are_so_many_images(
    usable: int, batch: int
) -> None:
    assert choices.batch_size("auto", usable, 64) == batch


@pytest.mark.parametrize(
    ("view", "machine", "precision"),
    [
        (64, CPU, "bf16"),
        (16, CPU, "float32"),
        (16, GPU, "bf16"),
        ((16, 64), CPU, "float32"),
        ((64, 24), CPU, "bf16"),
        (64, replace(CPU, half=False), "float32"),
    ],
)
def test_half_precision_is_for_processors_that_have_it(view: Size, machine: Machine, precision: str) -> None:
    assert choices.precision("auto", view, machine) == precision


def test_small_views_get_the_small_stem_of_encoders_that_have_one() -> None:
    cases: list[tuple[Size, bool]] = [(64, True), (65, True), (32, False), ((32, 500), True), ((65, 500), True)]
    found = [choices.stem("auto", view, there) for view, there in cases]
    assert found == ["strided", "as_is", "as_is", "strided", "as_is"]


def test_of_several_gpus_each_process_takes_its_own() -> None:
    assert choices.device(GPU) == "cuda:1"
    assert choices.device(replace(GPU, processes=2)) == "cuda"
