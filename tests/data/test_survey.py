"""A survey reads every file once, and knows of each image what the whole of it shows."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from barlow.data import folder, image_digests, near_duplicates
from barlow.data.folder import FolderSource
from barlow.data.inventory import TooManyUnreadable, scan
from barlow.data.sources import ArraySource, open_source
from barlow.data.survey import survey


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Colour, grey, transparent and deep images, an animation, two files that cannot be read, and a copy."""
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(colour[:, :, 0]).save(tmp_path / "b.png")
    Image.fromarray(np.dstack([colour, colour[:, :, :1]])).save(tmp_path / "c.png")
    Image.fromarray(colour[:, :, 0].astype(np.uint16) * 16).save(tmp_path / "d.png")
    frames = [Image.fromarray(colour), Image.fromarray(255 - colour)]
    frames[0].save(tmp_path / "e.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "f.png").write_bytes((tmp_path / "b.png").read_bytes()[:200])
    (tmp_path / "g.jpg").write_bytes(b"")
    (tmp_path / "h.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    return tmp_path


def test_all_that_an_inventory_of_every_image_finds_is_found(mixed: Path) -> None:
    seen, expected = survey(FolderSource([mixed])), scan(FolderSource([mixed]), sample=None)
    assert seen.inventory.skipped == expected.skipped
    assert seen.inventory.reasons == expected.reasons
    assert [where for _, where, _ in seen.inventory.skipped] == ["f.png", "g.jpg"]
    for name in ("candidates", "multiframe", "transparent", "deep", "grey", "classes", "extensions", "fingerprint"):
        assert getattr(seen.inventory, name) == getattr(expected, name), name
    assert seen.inventory.ids.tolist() == expected.ids.tolist() == [0, 1, 2, 3, 4, 7]
    assert seen.sizes.tolist() == [[40, 60]] * 6
    assert image_digests.copies(seen.inventory.digests) == (1, True)


def test_formats_and_modes_are_those_of_the_content(mixed: Path) -> None:
    (mixed / "a.jpg").rename(mixed / "a.png")
    seen = survey(FolderSource([mixed]))
    assert seen.formats == {"PNG": 3, "JPEG": 2, "GIF": 1}
    assert seen.modes == {"colour": 4, "grey": 2}
    assert seen.inventory.extensions == {"png": 5, "jpg": 2, "gif": 1}


def test_every_file_is_opened_once(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    before = folder.FolderSource._open

    def counting(self: FolderSource, index: int) -> int:
        opened.append(index)
        return before(self, index)

    monkeypatch.setattr(folder.FolderSource, "_open", counting)
    survey(FolderSource([mixed]))
    assert sorted(opened) == list(range(8))


def test_thumbnails_and_means_are_in_the_order_of_the_images_that_can_be_read(mixed: Path) -> None:
    source = FolderSource([mixed])
    seen = survey(source, workers=3)
    for row, index in enumerate(seen.inventory.ids.tolist()):
        thumbnail = near_duplicates.thumbnail(source.read(index, near_duplicates.READ_SIDE))
        assert np.array_equal(seen.thumbnails[row], thumbnail)
        assert seen.brightness[row] == pytest.approx(thumbnail.mean() / 255, rel=1e-5)
        assert seen.contrast[row] == pytest.approx(thumbnail.std() / 255, rel=1e-4)
    assert seen.colour[1] == seen.colour[3] == 0
    assert seen.colour[0] > 0.05
    assert seen.place(5) == "h.jpg"


def test_labels_are_of_the_images_that_can_be_read(tmp_path: Path) -> None:
    tiny.images(tmp_path, 12, classes=3)
    (tmp_path / "class1" / "001.png").write_bytes(b"no image")
    seen = survey(open_source(tmp_path))
    assert seen.labels is not None
    assert np.bincount(seen.labels).tolist() == [4, 3, 4]
    assert seen.inventory.classes == {"class0": 4, "class1": 3, "class2": 4}


def test_a_set_without_files_has_no_formats() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 20, 30, 1), dtype=np.uint8)
    seen = survey(ArraySource("x", images))
    assert (seen.formats, seen.modes) == ({}, {"grey": 9})
    assert seen.sizes.tolist() == [[20, 30]] * 9
    assert len(np.unique(seen.inventory.digests[:, 1])) == 9


def test_a_large_jpeg_has_nearly_the_thumbnail_of_all_its_pixels(tmp_path: Path) -> None:
    smooth = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(smooth).resize((1200, 900), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=90)
    source = FolderSource([tmp_path])
    assert source.read(0, near_duplicates.READ_SIDE).shape[0] < 200
    whole = near_duplicates.thumbnail(source.read(0))
    assert np.abs(survey(source).thumbnails[0].astype(int) - whole).mean() < 3


def test_nothing_readable_ends_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(TooManyUnreadable, match=r"a\.jpg: empty file"):
        survey(FolderSource([tmp_path]))


def test_odd_and_damaged_files_have_the_reasons_that_a_run_would_tell(shared_data: Path, tmp_path: Path) -> None:
    if not (shared_data / "hostile-images.tar").is_file():
        pytest.skip("no hostile-images.tar among the real images")
    with tarfile.open(shared_data / "hostile-images.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    home = tmp_path / "hostile-images"
    seen = survey(FolderSource([home]))
    expected = scan(FolderSource([home]), sample=None)
    assert [where for _, where, _ in seen.inventory.skipped] == [where for _, where, _ in expected.skipped]
    told, of_a_run = (dict(i.reasons) for i in (seen.inventory, expected))
    assert sum(told.values()) == sum(of_a_run.values()) > 100
    assert len(seen) > 100
    assert sum(seen.modes.values()) == sum(seen.formats.values()) == len(seen)
