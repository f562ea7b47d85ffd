"""The embedded default set: the same bytes everywhere, balanced, and nothing but the object tells the class."""

import copy
import hashlib

import numpy as np
import pytest

from barlow.data.shapes import CLASSES, COUNTS, SAMPLES, VARIANTS, ShapesSource, templates
from barlow.data.sources import ImageSource

# Frozen since 28 November 2026. A change makes every number published on shapes incomparable: no test to "fix".
FROZEN = {
    ("train", False): "70d48747dd59b3aa3ad58ec1b728570a6ea810de63a7f73140f3db5d7e55734d",
    ("test", False): "e84636ca58ffca30df7e042de555cdec922154644dfcc3b82b2c3e63471b29ce",
    ("train", True): "e55a44a6f2a46d55477e4bea35ab76c046512cb854ce7370f66797c7a3eea20b",
    ("test", True): "1abbd95161066588deed70e2c3cc598dd269985c7d77d29cd5858d5b7752d3f0",
}


@pytest.fixture(scope="module")
def train() -> ShapesSource:
    return ShapesSource("train")


@pytest.fixture(scope="module")
def test() -> ShapesSource:
    return ShapesSource("test")


def digest(source: ShapesSource) -> str:
    assert source.labels is not None
    little = source.labels.astype("<i8") if source.labels.ndim == 1 else source.labels
    return hashlib.sha256(source.pixels.tobytes() + little.tobytes()).hexdigest()


@pytest.mark.parametrize(("split", "multi_object"), FROZEN)
def test_pixels_and_labels_are_the_frozen_ones(split: str, multi_object: bool) -> None:
    assert digest(ShapesSource(split, multi_object)) == FROZEN[split, multi_object]


def test_it_is_a_source(train: ShapesSource) -> None:
    assert isinstance(train, ImageSource)
    assert len(train) == COUNTS["train"] == len(train.labels)
    image = train.read(12)
    assert image.shape == (32, 32, 3)
    assert image.dtype == np.uint8
    assert train.locate(12) == "shapes[12]"
    assert train.classes == CLASSES
    assert len(CLASSES) >= 10


def test_there_is_no_colour(train: ShapesSource) -> None:
    image = train.read(5)
    assert (image == image[..., :1]).all()


def test_classes_come_in_equal_numbers(train: ShapesSource, test: ShapesSource) -> None:
    for source in (train, test):
        assert set(np.bincount(source.labels)) == {len(source) // len(CLASSES)}


def test_no_image_is_in_both_splits(train: ShapesSource, test: ShapesSource) -> None:
    images = {source.pixels[i].tobytes() for source in (train, test) for i in range(len(source))}
    assert len(images) == len(train) + len(test)


def test_fewer_or_more_images_begin_with_the_same_ones(test: ShapesSource) -> None:
    few = ShapesSource("test", count=7)
    assert len(few) == 7
    assert (few.pixels == test.pixels[:7]).all()
    more = ShapesSource("test", count=len(test) + 3)
    assert (more.pixels[: len(test)] == test.pixels).all()


def test_a_read_image_cannot_change_the_set(test: ShapesSource) -> None:
    before = test.read(3).copy()
    test.read(3)[:] = 0
    assert (test.read(3) == before).all()


def test_another_size_shows_the_same_objects_at_the_same_places(test: ShapesSource) -> None:
    large = ShapesSource("test", size=96, count=50)
    assert large.read(0).shape == (96, 96, 3)
    pooled = large.coverage.reshape(50, 32, 3, 32, 3).mean((2, 4)) / SAMPLES**2
    assert np.abs(pooled - test.coverage[:50] / SAMPLES**2).mean() < 0.01


def test_objects_are_there_and_lighter_than_their_ground(train: ShapesSource) -> None:
    on, off = train.coverage == SAMPLES**2, train.coverage == 0
    assert on.sum((1, 2)).min() >= 12
    pixels = train.pixels.astype(float)
    contrast = (pixels * on).sum((1, 2)) / on.sum((1, 2)) - (pixels * off).sum((1, 2)) / off.sum((1, 2))
    assert contrast.min() > 60


def test_brightness_and_place_do_not_depend_on_the_class(train: ShapesSource) -> None:
    pixels, covered = train.pixels.astype(float), train.coverage.astype(float)
    ground = np.array([p[c == 0].mean() for p, c in zip(pixels, covered, strict=True)])
    across = np.arange(32) - 15.5
    place = (covered * across).sum((1, 2)) / covered.sum((1, 2))
    for value in (ground, place):
        # a crescent's own centre of mass lies to one side, wherever it is put
        by_class = np.array([value[train.labels == k].mean() for k, name in enumerate(CLASSES) if name != "crescent"])
        # means of 500 each: their spread is the sampling error's
        assert by_class.std() < 0.1 * value.std()


def test_no_object_is_another_ones_mirror_image_and_a_border_stays_free() -> None:
    bitmaps = templates().astype(bool)
    assert bitmaps.shape == (len(CLASSES), VARIANTS, 128, 128)
    assert not bitmaps[..., [0, -1], :].any()
    assert not bitmaps[..., [0, -1]].any()
    for a in range(len(CLASSES)):
        for b in range(len(CLASSES)):
            if a != b:
                one, mirrored = bitmaps[a, 1], bitmaps[b, 1, :, ::-1]
                assert (one & mirrored).sum() < 0.9 * (one | mirrored).sum()


def test_several_objects_have_several_labels() -> None:
    source = ShapesSource("train", multi_object=True, count=600)
    labels = source.labels
    assert labels.shape == (600, len(CLASSES))
    assert labels.dtype == np.uint8
    assert set(labels.sum(1)) == {2, 3}
    assert labels.mean(0).min() > 0.2
    assert source.name == "shapes_multi"
    assert source.read(0).shape == (32, 32, 3)


def test_a_worker_gets_the_recipe_for_the_images_not_the_images(test: ShapesSource) -> None:
    test.read(0)
    assert not any(isinstance(value, np.ndarray | tuple) for value in test.__getstate__().values())
    assert (copy.copy(test).read(17) == test.read(17)).all()  # copied by the state that pickle would send


def test_labels_alone_draw_nothing() -> None:
    source = ShapesSource("train", count=10**9)
    assert len(source) == 10**9


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"split": "validation"}, "train, test"), ({"size": 4}, "8 to 512"), ({"count": 0}, "at least 1")],
)
def test_a_wrong_argument_is_answered_with_what_is_allowed(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ShapesSource(**arguments)


@pytest.mark.parametrize("index", [-1, 2_000])
def test_an_index_outside_is_an_error(test: ShapesSource, index: int) -> None:
    with pytest.raises(IndexError, match="2000 images of test"):
        test.read(index)
