"""What an evaluation reads: the images with their labels, whatever is broken, and the views that networks get."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from barlow.data import labelled
from barlow.data.decoding import UnreadableImage
from barlow.data.labelled import PROBE_VIEW, LabelledSet, fingerprint, pixel_hash, read_labelled
from barlow.nets.preprocessing import Preprocessing
from barlow.views.keys import Keys
from barlow.views.ops import HorizontalFlip, Normalize, RandomResizedCrop, as_images

EXPECTED = Preprocessing(16, 0.875, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.images(tmp_path / "train", 60, classes=3, seed=1)


def read(folder: Path, max_bad: float = 0.0) -> LabelledSet:
    return read_labelled(folder, "train", EXPECTED, max_bad)


def spoil(folder: Path, name: str = "class0") -> None:
    victim = sorted((folder / name).iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:60])


def test_centre_views_come_in_order_and_normalised(folder: Path) -> None:
    images = read(folder)
    views = torch.cat(list(images.views(7)))
    expected = EXPECTED([images.source.read(int(id)) for id in images.ids])
    torch.testing.assert_close(views, expected)
    assert images.labels.tolist() == [0] * 20 + [1] * 20 + [2] * 20
    some = np.array([40, 3, 3])
    assert torch.equal(torch.cat(list(images.views(2, some))), views[some])


def test_views_are_the_same_bits_whether_they_are_held_or_decoded_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(folder, "class1")
    held = read(folder, 0.05)
    monkeypatch.setattr(labelled, "available_memory", lambda: 0)
    decoded = read(folder, 0.05)
    assert held.held is not None
    assert decoded.held is None
    assert all(torch.equal(a, b) for a, b in zip(held.views(7), decoded.views(7), strict=True))
    assert held.hashes == decoded.hashes


def test_an_image_that_is_spoilt_between_reading_and_embedding_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelled, "available_memory", lambda: 0)
    images = read(folder)
    spoil(folder, "class1")
    first = sorted((folder / "class1").iterdir())[0].name
    with pytest.raises(UnreadableImage, match=f"class1/{first} could be read a while ago, and cannot be read any more"):
        list(images.views(7))


def test_an_image_that_cannot_be_read_is_left_out_with_its_label(folder: Path) -> None:
    whole = read(folder)
    spoil(folder, "class1")
    with pytest.raises(ValueError, match=r"1 of 60 images of --train .* allow them with --max-bad 0\.02"):
        read(folder)
    rest = read(folder, 0.02)
    assert len(rest) == 59
    assert rest.labels.tolist() == [0] * 20 + [1] * 19 + [2] * 20
    assert rest.hashes == whole.hashes[:20] + whole.hashes[21:]
    assert rest.fingerprint != whole.fingerprint
    assert whole.skipped_note is None
    assert str(rest.skipped_note).startswith(f"1 image of {folder} cannot be read and is left out (class1/")


def test_class_numbers_follow_the_training_set(folder: Path, tmp_path: Path) -> None:
    train = read(folder)
    some = shutil.copytree(folder, tmp_path / "some")
    shutil.rmtree(some / "class0")
    test = read(some)
    assert test.labels.tolist() == [0] * 20 + [1] * 20
    assert test.numbered_like(train).labels.tolist() == [1] * 20 + [2] * 20
    assert test.numbered_like(train).classes == train.classes
    with pytest.raises(ValueError, match=r"--test has classes that --train has not \(class0\)"):
        train.numbered_like(test)


@pytest.mark.parametrize("batch_size", [7, 60])
def test_an_augmented_view_is_a_function_of_seed_epoch_and_image(folder: Path, batch_size: int) -> None:
    victim = sorted((folder / "class0").iterdir())[0]
    Image.open(victim).resize((50, 20)).save(victim)  # of another shape than the others
    images = read(folder)
    views = torch.cat(list(images.augmented_views(batch_size, 5, 2, torch.device("cpu"))))
    crop, normalize = RandomResizedCrop(16), Normalize(EXPECTED.mean, EXPECTED.std)
    for id in range(60):
        pixels = images.source.read(id)
        keys = Keys(5, 2, np.array([id]), PROBE_VIEW)
        (box,) = crop.boxes(*(np.array([side]) for side in pixels.shape[:2]), keys.for_op(0))
        one = torch.from_numpy(crop.resample_one(pixels.transpose(2, 0, 1), box))[None]
        expected = normalize(HorizontalFlip()(as_images(one), keys.for_op(1)))
        torch.testing.assert_close(views[id], expected[0])
    assert images.sizes[0].tolist() == [20, 50]


def test_augmented_views_of_what_is_left_when_files_are_bad_belong_to_their_images(folder: Path) -> None:
    whole = torch.cat(list(read(folder).augmented_views(16, 0, 1, torch.device("cpu"))))
    spoil(folder)
    images = read(folder, 0.05)
    assert images.ids.tolist() == list(range(1, 60))
    rest = torch.cat(list(images.augmented_views(16, 0, 1, torch.device("cpu"))))
    torch.testing.assert_close(whole[1:], rest)


def test_a_hash_tells_pixels_and_shapes_apart() -> None:
    image = np.random.default_rng(0).integers(256, size=(4, 6, 3), dtype=np.uint8)
    other = image.copy()
    other[3, 5, 2] ^= 1
    assert pixel_hash(image) == pixel_hash(np.asfortranarray(image))
    assert len({pixel_hash(x) for x in (image, other, image.reshape(6, 4, 3), image[:, ::-1])}) == 4


def test_a_fingerprint_changes_with_the_images_and_their_order() -> None:
    assert len({fingerprint(hashes) for hashes in (["a", "b"], ["b", "a"], ["a"], ["ab"])}) == 4
    assert fingerprint(["a", "b"]) == fingerprint(["a", "b"])
