"""In detail, a copy of an image or a crop of it is similar to it; the search equals loops in float64."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from tiny import scenes

from barlow.data import detail
from barlow.data.altered import COPIES
from barlow.data.detail import PARTS, SIDE, compared


def fine(x: np.ndarray) -> np.ndarray:
    """Less what a blur leaves, whose Gaussian ends after three standard deviations."""
    blurred = x
    for axis in (0, 1):
        blurred = gaussian_filter1d(blurred, detail.BLUR, axis=axis, mode="mirror", radius=math.ceil(3 * detail.BLUR))
    return x - blurred


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    faint = detail.FAINT * math.sqrt(a.size)
    if np.linalg.norm(a) < faint or np.linalg.norm(b) < faint:
        return 0.0
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def shrunk(x: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(x.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR), float)


def by_loops(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The highest similarity, straight and mirrored."""
    found = []
    for turned in (False, True):
        a, b = one.astype(float), other.astype(float)
        second = b[:, ::-1] if turned else b
        every = [cosine(fine(a), np.rot90(fine(second), turn)) for turn in range(4)]
        for whole, part in ((a, b), (b, a)):
            inside = fine(whole)
            for side in PARTS:
                small = fine(shrunk(part, side))
                small = small[:, ::-1] if turned else small
                places = range(SIDE - side + 1)
                every += [
                    cosine(inside[top : top + side, left : left + side], small) for top in places for left in places
                ]
        found.append(max(every))
    return found[0], found[1]


def details(images: np.ndarray) -> np.ndarray:
    return np.stack([detail.detail(image) for image in images])


def test_the_similarity_is_that_of_loops_over_all_places_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detail, "BATCH", 3)
    images = scenes(4, 0)
    small = np.concatenate([details(images), details(np.stack([COPIES["cropped"](each) for each in images]))])
    small[3] = 90  # of one colour
    one, other = np.array([0, 1, 4, 5, 2, 3, 6]), np.array([4, 0, 0, 1, 2, 7, 2])
    similarity, mirrored = compared(small, one, other)
    for place, (a, b) in enumerate(zip(one, other, strict=True)):
        straight, turned = by_loops(small[a], small[b])
        assert similarity[place] == pytest.approx(max(straight, turned), abs=2e-4)
        assert mirrored[place] == (turned > straight)
    assert similarity[5] == 0, "what is of one colour is like nothing"


def crop(image: np.ndarray, area: float, left: float, top: float) -> np.ndarray:
    """A part of an image, at a share of the room that it has, at the size of the whole."""
    side = image.shape[0]
    part = side * math.sqrt(area)
    at = left * (side - part), top * (side - part)
    box = (*at, at[0] + part, at[1] + part)
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box))


@pytest.mark.parametrize("area", [0.95, 0.9, 0.8])
def test_crops_at_any_place_are_similar_to_the_whole_mirrored_too(area: float) -> None:
    images = scenes(30, 1)
    rng = np.random.default_rng(0)
    crops = np.stack([crop(image, area, *rng.uniform(size=2)) for image in images])
    both, rows = np.concatenate([details(images), details(crops), details(crops[:, :, ::-1])]), np.arange(30)
    straight, turned = compared(both, rows, rows + 30)
    assert straight.min() > 0.75
    assert not turned.any()
    again, turned = compared(both, rows + 60, rows)
    assert again == pytest.approx(straight, abs=0.02)
    assert turned.all()


def test_other_copies_are_nearly_equal_and_other_images_are_not() -> None:
    images = scenes(40, 2)
    rows = np.arange(40)
    for kind in ("smaller", "recompressed", "brighter", "mirrored"):
        made = details(np.stack([COPIES[kind](image) for image in images]))
        similarity, mirrored = compared(np.concatenate([details(images), made]), rows, rows + 40)
        assert np.quantile(similarity, 0.05) > 0.9, kind
        assert mirrored.all() == (kind == "mirrored")
    turned = details(np.rot90(images, axes=(1, 2)))
    assert compared(np.concatenate([details(images), turned]), rows, rows + 40)[0].min() > 0.99
    assert compared(details(images), rows, (rows + 1) % 40)[0].max() < 0.5


def test_nothing_is_compared_with_nothing() -> None:
    similarity, mirrored = compared(np.zeros((0, SIDE, SIDE), np.uint8), np.zeros(0, int), np.zeros(0, int))
    assert (len(similarity), len(mirrored)) == (0, 0)
