"""Near-duplicates: the search equals loops in float64, and what was changed slightly is found again."""

import math
import tarfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import scenes

from barlow.data import near_duplicates
from barlow.data.near_duplicates import SIDE, flat, join, most_alike, thumbnail


def thumbnails(images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    return np.stack([thumbnail(image) for image in images])


def weighted(thumbnail: np.ndarray) -> np.ndarray:
    """The cosine transform in float64 by its definition, each coefficient times the square root of its frequency."""
    x, found = thumbnail.astype(float), np.zeros((SIDE, SIDE))
    scale = [math.sqrt((1 if k == 0 else 2) / SIDE) for k in range(SIDE)]
    waves = np.array([[math.cos(math.pi * k * (i + 0.5) / SIDE) * scale[k] for i in range(SIDE)] for k in range(SIDE)])
    for down in range(SIDE):
        for across in range(SIDE):
            found[down, across] = float(waves[down] @ x @ waves[across]) * math.sqrt(math.hypot(down, across))
    return found.ravel()


@cache
def _transformed(pixels: bytes) -> np.ndarray:
    return weighted(np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE))


def alikeness(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two weighted transforms; 0 where one of the two hardly varies."""
    if a.std() < near_duplicates.FLAT or b.std() < near_duplicates.FLAT:
        return 0.0
    x, y = (_transformed(np.ascontiguousarray(each).tobytes()) for each in (a, b))
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def similarity(a: np.ndarray, b: np.ndarray) -> tuple[float, bool]:
    """The higher of the two, straight and mirrored, and whether it is the mirrored one."""
    straight, mirrored = alikeness(a, b), alikeness(a, b[:, ::-1])
    return max(straight, mirrored), mirrored > straight


@pytest.fixture
def in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few thumbnails already lie in several blocks."""
    monkeypatch.setattr(near_duplicates, "ROWS", 5)
    monkeypatch.setattr(near_duplicates, "COLUMNS", 7)


def related(count: int, seed: int) -> np.ndarray:
    """Thumbnails of which many are mixtures of the same few, some mirrored, some equal, and some are flat."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (4, SIDE, SIDE)).astype(float)
    found = []
    for i in range(count):
        kind = rng.integers(8)
        picture = base[rng.integers(4)] + rng.normal(0, rng.choice([0, 10, 30, 60]), (SIDE, SIDE))
        picture = picture[:, ::-1] if kind in (1, 2) else picture
        if kind == 3:
            picture = np.full((SIDE, SIDE), 100.0) + rng.integers(0, 2, (SIDE, SIDE))
        if kind == 4 and found:
            picture = found[rng.integers(i)].astype(float)
        found.append(np.clip(picture, 0, 255).astype(np.uint8))
    return np.stack(found)


# --- The search against loops -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_small_blocks")
@pytest.mark.parametrize("seed", range(4))
def test_the_most_alike_are_those_of_a_loop_over_all_pairs(seed: int) -> None:
    queries, among = related(12, seed), related(23, seed + 100)
    found = most_alike(queries, among, 3)
    for row, query in enumerate(queries):
        every = [similarity(query, other) for other in among]
        wanted = sorted((value for value, _ in every), reverse=True)[:3]
        assert found.similarity[row] == pytest.approx(wanted, abs=2e-6)
        for place, mirrored in zip(found.positions[row], found.mirrored[row], strict=True):
            straight, turned = alikeness(query, among[place]), alikeness(query, among[place][:, ::-1])
            if abs(straight - turned) > 1e-5:
                assert bool(mirrored) == (turned > straight)


@pytest.mark.usefixtures("in_small_blocks")
def test_an_image_is_not_its_own_neighbour_where_it_is_left_out() -> None:
    small = related(20, 5)
    found = most_alike(small, small, leave_out=np.arange(20))
    assert (found.positions[:, 0] != np.arange(20)).all()
    for i in range(20):
        others = [similarity(small[i], small[j])[0] for j in range(20) if j != i]
        assert found.similarity[i, 0] == pytest.approx(max(others), abs=2e-6)
    assert most_alike(small[:1], small[:1], leave_out=np.array([0])).positions.shape == (1, 0)


@settings(max_examples=30, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=40))
def test_pairs_are_joined_as_a_walk_over_them_does(pairs: list[tuple[int, int]]) -> None:
    roots = np.arange(25)
    one, other = np.array(pairs, np.int64).reshape(-1, 2).T
    join(roots, one, other)
    first = list(range(25))
    for start in range(25):
        waiting = [start] if first[start] == start else []
        while waiting:
            i = waiting.pop()
            for j in {b for a, b in pairs if a == i} | {a for a, b in pairs if b == i}:
                if j > start and first[j] == j:
                    first[j] = start
                    waiting.append(j)
    assert roots.tolist() == first


def test_among_nothing_there_are_no_neighbours() -> None:
    assert most_alike(related(2, 0), np.zeros((0, SIDE, SIDE), np.uint8)).positions.shape == (2, 0)


# --- What is found again, and what is not ---------------------------------------------------------------------------


def smaller(image: Image.Image) -> Image.Image:
    return image.resize((41, 41), Image.Resampling.BICUBIC)


def brighter(image: Image.Image) -> Image.Image:
    return image.point(lambda level: int(level * 0.8 + 20))


def slightly_cropped(image: Image.Image) -> Image.Image:
    return image.crop((1, 1, 63, 63))


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def in_grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


@pytest.mark.parametrize("change", [smaller, brighter, slightly_cropped, mirrored, in_grey])
def test_what_was_changed_slightly_is_most_like_its_original(
    change: Callable[[Image.Image], Image.Image],
) -> None:
    originals = scenes(60, 0)
    changed = [np.asarray(change(Image.fromarray(image))) for image in originals]
    small = np.concatenate([thumbnails(originals), np.stack([thumbnail(image) for image in changed])])
    found = most_alike(small[60:], small[:60])
    assert found.positions[:, 0].tolist() == list(range(60))
    assert found.similarity.min() > 0.9
    assert found.mirrored.all() == (change is mirrored)


def test_other_scenes_are_less_alike() -> None:
    small = thumbnails(scenes(200, 1))
    assert most_alike(small, small, leave_out=np.arange(200)).similarity.max() < 0.9


def test_images_without_contrast_are_like_no_other() -> None:
    levels = np.full((3, 40, 40, 3), 90, np.uint8)
    levels[1] += np.random.default_rng(0).integers(0, 2, (40, 40, 3), dtype=np.uint8)
    small = thumbnails(levels)
    assert flat(small).all()
    assert most_alike(small, small).similarity.max() == 0


# --- Thumbnails -----------------------------------------------------------------------------------------------------


def test_a_thumbnail_is_the_luma_of_what_pillow_resizes() -> None:
    image = scenes(1, 2)[0]
    resized = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    assert np.array_equal(thumbnail(image), np.asarray(resized.convert("L")))


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_any_number_of_channels_becomes_one(channels: int) -> None:
    image = np.repeat(scenes(1, 3)[0][:, :, :1], channels, axis=2)
    assert np.array_equal(thumbnail(image), thumbnail(image[:, :, :1]))


def test_sixteen_bits_have_the_thumbnail_of_eight() -> None:
    image = scenes(1, 4)[0]
    wide = image.astype(np.uint16) * 257
    assert np.abs(thumbnail(wide).astype(int) - thumbnail(image)).max() <= 1


# --- Real images ----------------------------------------------------------------------------------------------------


def test_of_aerial_photos_changed_ones_are_most_like_their_originals(shared_data: Path) -> None:
    """What docs/checking.md says of a whole set, on a part of it."""
    if not (shared_data / "aerial-96.tar").is_file():
        pytest.skip("no aerial-96.tar among the real images")
    with tarfile.open(shared_data / "aerial-96.tar") as archive:
        members = sorted((m for m in archive if m.isfile() and "/test/" in m.name), key=lambda m: m.name)[::4]
        files = [archive.extractfile(member) for member in members]
        photos = [Image.open(file).convert("RGB") for file in files if file is not None]
    small = thumbnails([np.asarray(photo) for photo in photos])
    assert len(small) == 300
    for change in (lambda image: image.resize((48, 48), Image.Resampling.BICUBIC), brighter, mirrored, in_grey):
        again = thumbnails([np.asarray(change(photo)) for photo in photos])
        found = most_alike(again, small)
        near = (found.similarity[:, 0] > 0.9) & (found.positions[:, 0] == np.arange(300))
        assert near.mean() >= 0.98
