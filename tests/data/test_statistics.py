"""Mean and standard deviation are those of the user's images."""

import numpy as np
import pytest
import torch

from barlow.data.decoding import UnreadableImage
from barlow.data.sources import ArraySource
from barlow.data.statistics import SMALLEST_STD, measure, measure_source

IMAGES = np.random.default_rng(0).integers(0, [256, 100, 30], (40, 9, 11, 3)).astype(np.uint8)
PIXELS = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())


def test_both_ways_agree_with_numpy() -> None:
    values = IMAGES.reshape(-1, 3) / 255
    for mean, std in (measure(PIXELS), measure_source(ArraySource("x", IMAGES), np.arange(40))):
        assert mean == pytest.approx(values.mean(0), abs=1e-12)
        assert std == pytest.approx(values.std(0), abs=1e-12)


def test_a_sample_is_chosen_by_the_seed_alone() -> None:
    assert measure(PIXELS, limit=10) == measure(PIXELS.clone(), limit=10)
    assert measure(PIXELS, limit=10) != measure(PIXELS, limit=10, seed=1)
    source, ids = ArraySource("x", IMAGES), np.arange(40)
    one, three = (measure_source(source, ids, limit=10, workers=workers) for workers in (1, 3))
    assert one == three
    assert one == measure(PIXELS, limit=10)  # the same choice, since these are all the images


def test_only_usable_images_are_read() -> None:
    source = ArraySource("x", IMAGES)
    assert measure_source(source, np.array([3])) == measure(PIXELS[3:4])


def test_a_constant_channel_has_a_std_that_can_be_divided_by() -> None:
    mean, std = measure(torch.full((2, 1, 4, 4), 51, dtype=torch.uint8))
    assert mean == [0.2]
    assert std == [SMALLEST_STD]


def test_files_that_have_gone_are_left_out_and_all_gone_is_an_error() -> None:
    class Gone(ArraySource):
        def read(self, index: int, min_side: int = 0) -> np.ndarray:
            if index:
                raise UnreadableImage("gone")
            return super().read(index)

    source = Gone("x", IMAGES)
    assert measure_source(source, np.arange(40)) == measure(PIXELS[:1])
    with pytest.raises(ValueError, match="is the disk mounted"):
        measure_source(source, np.arange(1, 40))


def test_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="at least one"):
        measure(PIXELS[:0])
