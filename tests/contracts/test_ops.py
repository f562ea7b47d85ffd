"""What every op in the table keeps to; a new op is tested by being there."""

import importlib
import re
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import barlow.views.ops as package
from barlow.size import height_width
from barlow.views.keys import Keys
from barlow.views.ops import OPS, Normalize, Op, RandomResizedCrop

# Arguments of the ops that have no defaults; a strong form of each, so that most samples change.
ARGUMENTS: dict[str, dict] = {
    "random_resized_crop": {"size": 24},
    "patch_of_crop": {"size": 12, "whole": 32, "jitter": 4},
    "gaussian_blur": {"p": 0.7},
    "solarize": {"p": 0.7},
    "grayscale": {"p": 0.6},
    "color_dropping": {"p": 0.8, "noise": 0.0},
    "photometric": {"p": 0.8, "threshold": (128, 256)},  # with a lower one, dark and bright change places
    "tiles": {"grid": 2, "side": 9},
    "patch_pair": {"side": 6},
}
COLOUR_SPACES = {"to_lab", "to_ycbcr"}  # they draw nothing, and their channels are no amounts of light
COLOUR_ONLY = {
    "color_components",
    "color_dropping",
    "color_powers",
    "grayscale",
} | COLOUR_SPACES  # documented: other images stay as they are
OF_CHANNELS = {"channel_dropout", "channel_jitter"}  # these are told how many channels images have
SQUARE_ONLY = {"patch_pair", "random_rotate90", "tiles"}  # documented: other images are refused
DRAWS_NOTHING = {"normalize", "standardize"} | COLOUR_SPACES
KNOWN = {"ids", "labels", "progress"}  # what an objective can ask for already: no op tells anything by these names
N = 13

every_op = pytest.mark.parametrize("kind", OPS)
channel_counts = pytest.mark.parametrize("channels", [1, 3, 4])


def build(kind: str, channels: int) -> Op:
    if OPS[kind] is Normalize:
        return Normalize((0.4,) * channels, (0.2,) * channels)
    arguments = {"channels": channels} if kind in OF_CHANNELS else ARGUMENTS.get(kind, {})
    return OPS[kind](**arguments)


def images(kind: str, channels: int, height: int = 31, width: int = 29, n: int = N) -> Tensor:
    width = height if kind in SQUARE_ONLY else width
    x = torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(channels))
    x[0], x[1] = 0.0, 1.0
    return x


def keys(n: int = N, **changes: object) -> Keys:
    arguments: dict = {"seed": 1, "epoch": 2, "ids": np.arange(100, 100 + n), "view": 0, "op": 3}
    return Keys(**(arguments | changes))


def test_every_op_of_every_file_is_in_the_table() -> None:
    files = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - {"__init__"}
    modules = [importlib.import_module(f"{package.__name__}.{file}") for file in files]
    classes = [v for module in modules for v in vars(module).values() if isinstance(v, type) and is_dataclass(v)]
    assert {op for op in classes if Op in op.__mro__} == set(OPS.values())
    assert list(OPS) == sorted(OPS)
    assert {kind for kind, op in OPS.items() if op.square} == SQUARE_ONLY
    for kind, op in OPS.items():
        assert kind == re.sub(r"(?<!^)([A-Z])", r"_\1", op.__name__).lower()


@every_op
@channel_counts
@pytest.mark.parametrize(("side", "threads"), [((31, 29), 1), ((32, 32), 1), ((67, 70), 2)])
def test_a_sample_becomes_the_same_to_the_last_bit_in_every_batch(
    kind: str, channels: int, side: tuple[int, int], threads: int
) -> None:
    op, x = build(kind, channels), images(kind, channels, *side)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = op(x, keys())
        alone = torch.cat([op(x[i : i + 1], keys().rows(i, i + 1)) for i in range(N)])
        odd = torch.cat([op(x[:5], keys().rows(0, 5)), op(x[5:], keys().rows(5, N))])
        turned = op(x.flip(0), keys(ids=np.arange(100, 100 + N)[::-1])).flip(0)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together, alone)
    assert torch.equal(together, odd)
    assert torch.equal(together, turned)


@pytest.mark.usefixtures("with_and_without_opencv")
@every_op
def test_an_interleaved_image_becomes_what_a_planar_one_does(kind: str) -> None:
    op, planar = build(kind, 3), images(kind, 3, 67, 70)
    planar[2] = torch.rand(planar.shape[2:]) * torch.ones(3, 1, 1)  # grey
    planar[3] = planar[3].round()
    planar[4] *= 1e-4
    x = planar.contiguous(memory_format=torch.channels_last)
    before = x.clone()
    together = op(x, keys())
    assert torch.equal(x, before)
    torch.testing.assert_close(together, op(planar, keys()), atol=4e-6, rtol=0)
    alone = torch.cat([op(x[i : i + 1], keys().rows(i, i + 1)) for i in range(N)])
    odd = torch.cat([op(x[:5], keys().rows(0, 5)), op(x[5:], keys().rows(5, N))])
    assert torch.equal(together, alone)
    assert torch.equal(together, odd)
    spread = x.repeat_interleave(2, 0).contiguous(memory_format=torch.channels_last)[::2]
    assert torch.equal(together, op(spread, keys()))


@every_op
def test_the_key_alone_decides_what_is_done(kind: str) -> None:
    op, x = build(kind, 3), images(kind, 3)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = op(x, keys())
        torch.manual_seed(2)
        assert torch.equal(op(x, keys()), first)
    if kind not in DRAWS_NOTHING:
        for change in ({"seed": 2}, {"epoch": 3}, {"view": 1}, {"op": 4}, {"ids": np.arange(N)}):
            assert not torch.equal(op(x, keys(**change)), first)


@every_op
@channel_counts
def test_values_stay_in_the_unit_interval_and_the_input_as_it_was(kind: str, channels: int) -> None:
    op, x = build(kind, channels), images(kind, channels, n=64)
    before = x.clone()
    out = op(x, keys(64))
    assert torch.equal(x, before)
    assert out.data_ptr() != x.data_ptr()
    assert out.dtype == torch.float32
    assert out.shape[:2] == x.shape[:2]
    assert torch.isfinite(out).all()
    if OPS[kind] is not Normalize:
        # The blur's weights are rounded one by one, so their sum may exceed 1 in the last bits.
        assert out.min() >= -1e-6
        assert out.max() <= 1 + 1e-6
    if not issubclass(OPS[kind], RandomResizedCrop):
        height, width = x.shape[2:]
        assert tuple(out.shape[2:]) == height_width(op.size_after(height if height == width else (height, width)))


@every_op
@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_ops_of_colour_leave_other_images_alone_and_the_others_do_not(kind: str, channels: int) -> None:
    x = images(kind, channels)
    changed = not torch.equal(build(kind, channels)(x, keys()), x)
    assert changed == (kind not in COLOUR_ONLY)


@every_op
@pytest.mark.parametrize("channels", [2, 4, 12])
def test_no_op_silently_becomes_nothing_for_images_of_other_channels(kind: str, channels: int) -> None:
    """It does what it does to each channel alike; or it says what stands in its place; or it refuses, by its name."""
    op, x = build(kind, 3), images(kind, channels)
    if op.channelwise:
        assert op.for_channels(channels) == op
        assert kind not in COLOUR_ONLY | OF_CHANNELS
        if kind != "normalize":  # which has a mean for each channel, and is in no recipe
            assert not torch.equal(op(x, keys()), x)
        return
    assert op.for_channels(3) == op
    assert op.for_channels(1)(images(kind, 1), keys()).shape == images(kind, 1).shape
    if kind in COLOUR_SPACES:
        with pytest.raises(ValueError, match=f"{kind}: "):
            op.for_channels(channels)
        return
    stands_in = op.for_channels(channels)
    assert not torch.equal(stands_in(x, keys()), x)
    assert stands_in.for_channels(channels) == stands_in


def test_ops_of_colour_are_replaced_by_what_is_as_strong() -> None:
    for colour, channelwise in (
        (OPS["color_jitter"](0.7, 0.3, 0.2, 0.1, 0.4), OPS["channel_jitter"](12, 0.7, 0.3, 0.2, 0.1)),
        (OPS["grayscale"](0.3), OPS["channel_dropout"](12, 0.3, 0.5)),
        (OPS["color_dropping"](0.9), OPS["channel_dropout"](12, 0.9, 2 / 3)),
        (OPS["color_components"](0.9, (1.0, 1.0, 2.0)), OPS["channel_jitter"](12, 0.9, 0.0, 0.5, 0.75)),
        (OPS["color_powers"](0.9, factor=1.0), OPS["channel_jitter"](12, 0.9, 0.5, 0.0, 0.5)),
        (OPS["channel_dropout"](3, 0.8, 2 / 3), OPS["channel_dropout"](12, 0.8, 2 / 3)),
        (OPS["rand_augment"](ops=("color", "rotate")), OPS["rand_augment"](ops=("rotate",))),
    ):
        assert colour.for_channels(12) == channelwise
    with pytest.raises(ValueError, match="rand_augment: ops: color alone does nothing to images of 12 channels"):
        OPS["rand_augment"](ops=("color",)).for_channels(12)
    x = images("channel_dropout", 1)
    assert torch.equal(OPS["channel_dropout"](3, 1.0).for_channels(1)(x, keys()), x), "a single channel is not lost"


@every_op
def test_no_graph_is_kept_of_images_without_gradients(kind: str) -> None:
    assert not build(kind, 3)(images(kind, 3), keys()).requires_grad


@every_op
def test_an_op_is_a_value_that_can_be_compared_and_not_changed(kind: str) -> None:
    op = build(kind, 3)
    assert op == build(kind, 3)
    assert hash(op) == hash(build(kind, 3))
    for name in vars(op):
        with pytest.raises(AttributeError):
            setattr(op, name, None)


@every_op
def test_what_an_op_tells_is_one_integer_for_each_image_and_made_of_its_draws(kind: str) -> None:
    op = build(kind, 3)
    if op.tells is None:
        with pytest.raises(ValueError, match=rf"{kind} tells nothing of its draws"):
            op.told(*op.draws(keys()))
        return
    assert op.tells.isidentifier(), "objectives ask for it by keyword"
    assert op.tells not in KNOWN
    told = op.told(*op.draws(keys()))
    assert told.dtype == np.int64
    assert told.shape == (N,)
    assert len(set(told.tolist())) > 1
    assert np.array_equal(op.told(*op.draws(keys().rows(3, 5))), told[3:5])


@every_op
def test_an_op_that_moves_pixels_says_so(kind: str) -> None:
    op, x = build(kind, 3), torch.full((N, 3, 64, 64), 0.2)
    x[..., :32] = 0.4
    out = op(x, keys())
    seen = out[:, :1] if kind in COLOUR_SPACES else out
    left, right = seen[..., :20], seen[..., 44:]  # further from the edge between them than a blur reaches
    stays = out.shape == x.shape and bool((left.amin((2, 3)) >= right.amax((2, 3))).all())
    assert op.geometric == (not stays)
