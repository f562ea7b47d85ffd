"""Look-alikes are no copies, though no threshold on thumbnails tells one from the other."""

import numpy as np
import pytest
import tiny
from test_detail import crop

from barlow.data import copies
from barlow.data.copies import Found, Measure, across, within
from barlow.data.detailed import Altered
from barlow.data.near_duplicates import Points, thumbnail
from barlow.data.sources import ArraySource
from barlow.data.survey import Survey, survey


def seen(images: np.ndarray) -> Survey:
    return survey(ArraySource("images", images))


def found_in(images: np.ndarray) -> Found:
    one = seen(images)
    altered = Altered.of(one)
    return within(one, [Measure.of_thumbnails(one, altered)], altered)


def pairs_of(found: Found) -> set[tuple[int, int]]:
    return set(zip(found.one.tolist(), found.other.tolist(), strict=True))


def stadiums(count: int, seed: int, side: int = 96) -> np.ndarray:
    """A light ring around a dark field, a little shifted in each; all that is finer is each one's own."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    found = []
    for content in tiny.scenes(count, seed, side).astype(float):
        down, across_ = rng.uniform(-0.02, 0.02, 2)
        distance = np.hypot((rows - down) * 1.4, columns - across_)
        layout = 110 + 90 * np.exp(-(((distance - 0.33) / 0.08) ** 2)) - 60 * (distance < 0.2)
        found.append(layout[:, :, None] + 0.4 * (content - 128))
    return np.clip(found, 0, 255).astype(np.uint8)


def alike(images: np.ndarray) -> np.ndarray:
    """The similarities of all pairs of thumbnails."""
    points = Points.of_thumbnails(np.stack([thumbnail(image) for image in images]))
    return (points.even @ points.even.T + (points.odd @ points.odd.T).abs()).numpy()


@pytest.mark.parametrize("others", [120, 400])
def test_images_of_one_layout_are_no_copies_and_a_crop_of_one_of_them_is(others: int) -> None:
    images = np.concatenate([stadiums(30, 0), tiny.scenes(others, 1, 96)])
    crops = np.stack([crop(images[7], 0.9, 1, 0), crop(images[60], 0.9, 0.3, 0.9)])
    look_alikes = alike(images[:30])[np.triu_indices(30, 1)]
    assert (look_alikes > alike(np.stack([images[7], crops[0]]))[0, 1]).any(), "no threshold on thumbnails would do"
    assert np.mean(look_alikes > 0.627) > 0.5, "what was once the threshold of aerial images"
    assert pairs_of(found_in(images)) == set()
    assert pairs_of(found_in(np.concatenate([images, crops]))) == {(7, 30 + others), (60, 31 + others)}


def test_test_images_of_the_same_layout_are_no_copies_either() -> None:
    train = np.concatenate([stadiums(30, 0), tiny.scenes(60, 1, 96)])
    test = np.concatenate([stadiums(20, 2), crop(train[3], 0.9, 0.5, 0.5)[None], train[50:51, :, ::-1]])
    one, two = seen(train), seen(test)
    altered = Altered.of(one)
    found = across(one, two, [Measure.of_thumbnails(one, altered)], [Points.of_thumbnails(two.thumbnails)], altered)
    assert pairs_of(found) == {(20, 3), (21, 50)}
    assert found.mirrored.tolist() == [other == 50 for other in found.other]


def test_a_file_that_lies_there_many_times_is_one_group_and_its_crop_too() -> None:
    images = np.concatenate([tiny.scenes(40, 0), np.repeat(tiny.scenes(1, 1), 20, axis=0)])
    images = np.concatenate([images, crop(images[45], 0.9, 0, 1)[None]])
    roots = found_in(images).clusters(len(images))
    assert roots[40:].tolist() == [40] * 21
    assert roots[:40].tolist() == list(range(40))


def test_of_too_many_candidates_those_that_are_most_alike_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.concatenate([stadiums(40, 0), tiny.scenes(1, 1, 96)])
    images = np.concatenate([images, images[40:]])
    monkeypatch.setattr(copies, "PAIRS", 5)
    found = found_in(images)
    assert (found.compared, found.left > 0) == (42, True)
    assert pairs_of(found) == {(40, 41)}


def test_the_share_of_copies_that_it_says_it_finds_is_found() -> None:
    images = tiny.scenes(150, 3)
    found = found_in(images)
    (pixels,) = found.measures
    assert pixels.found.keys() == {"smaller", "recompressed", "brighter", "cropped", "mirrored"}
    assert min(pixels.found.values()) >= 0.9
    assert 0 < pixels.floor < 1


def test_images_without_contrast_are_in_no_pair() -> None:
    flat = np.full((6, 64, 64, 3), 90, np.uint8)
    assert pairs_of(found_in(np.concatenate([tiny.scenes(30, 0), flat]))) == set()
    assert pairs_of(found_in(flat)) == set()
