"""What a user may ask for by name or by path."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from barlow.data.folder import FolderSource
from barlow.data.names import NAMED
from barlow.data.sources import ArraySource, ImageSource, WithChannels, named_set, open_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat/1.png", "dog/2.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True)
        Image.new("RGB", (6, 5), (200, 100, 50)).save(path)
    return tmp_path / "photos"


def test_a_path_or_a_list_of_paths_opens_folders(folder: Path) -> None:
    for spec in (folder, str(folder), [folder / "cat", folder / "dog"], (str(folder),)):
        source = open_source(spec)
        assert isinstance(source, FolderSource)
        assert isinstance(source, ImageSource)
        assert len(source) == 2


def test_a_source_is_passed_through(folder: Path) -> None:
    source = open_source(folder)
    assert open_source(source) is source


@pytest.mark.parametrize("channels", [1, 3])
def test_images_come_with_the_channels_asked_for(folder: Path, channels: int) -> None:
    for spec in (folder, "digits"):
        image = open_source(spec, channels=channels).read(0)
        assert image.shape[2] == channels
        assert image.dtype == np.uint8


def test_two_channels_are_refused_of_a_named_set(folder: Path) -> None:
    with pytest.raises(ValueError, match="channels=2"):
        open_source("digits", channels=2)
    with pytest.raises(ValueError, match="channels=0"):
        open_source(folder, channels=0)


def test_the_pixel_limit_reaches_the_decoder(folder: Path) -> None:
    with pytest.raises(ValueError, match="30 pixels, more than the limit of 29"):
        open_source(folder, max_pixels=29).read(0)


def test_digits_have_a_fixed_stratified_split() -> None:
    train, test = open_source("digits"), open_source("digits:test")
    assert (len(train), len(test)) == (1_442, 355)
    assert test.labels is not None
    counts = np.bincount(test.labels)
    assert counts.min() >= 34
    assert counts.max() <= 37
    assert train.read(0).shape == (8, 8, 3)
    assert max(int(train.read(k).max()) for k in range(50)) == 255
    assert test.locate(3) == "digits:test[3]"
    assert test.classes == [str(k) for k in range(10)]


def test_the_split_in_the_name_goes_before_the_argument() -> None:
    assert len(open_source("digits:train", split="test")) == len(open_source("digits", split="train"))
    assert len(open_source("digits", split="test")) == len(open_source("digits:test"))


def test_a_text_names_a_set_with_or_without_a_split_and_a_folder_never() -> None:
    assert named_set("digits") == named_set("digits:test") == named_set("digits:nonsense") == "digits"
    for text in ("./digits", "digits/test", "photos", "photos:test", "digits:test:more", ""):
        assert named_set(text) is None


def test_an_unknown_split_names_the_splits() -> None:
    with pytest.raises(ValueError, match="splits are train and test"):
        open_source("digits:validation")


@pytest.mark.parametrize("name", ["shapes", "shapes_multi"])
def test_shapes_are_opened_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from barlow.data import shapes

    monkeypatch.setitem(shapes.COUNTS, "train", 20)
    source = open_source(name)
    assert source.labels is not None
    assert len(source.labels) == len(source)
    assert source.labels.ndim == (2 if name == "shapes_multi" else 1)
    assert source.read(0).shape[2] == 3
    assert open_source(name, channels=1).read(0).shape[2] == 1


def test_a_wrong_name_proposes_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no folder or data set 'cifar'.*did you mean cifar10"):
        open_source("cifar")


def test_a_wrong_path_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder") as caught:
        open_source(tmp_path / "missing")
    assert "\n" not in str(caught.value)


def test_a_set_that_cannot_be_downloaded_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    def no_network(self: object) -> None:
        raise OSError("<urlopen error>\nno route to host")

    monkeypatch.setattr(CIFAR10, "download", no_network)
    with pytest.raises(
        ValueError, match=r"cifar10 is not in .* put cifar-10-python\.tar\.gz there, or give a folder"
    ) as e:
        open_source("cifar10", root=tmp_path)
    assert "\n" not in str(e.value)


def test_cifar_is_read_from_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    (folder / "b").write_bytes(pickle.dumps({"data": images.reshape(2, -1), "labels": [3, 1]}))
    (folder / "meta").write_bytes(pickle.dumps({"label_names": [f"class {k}" for k in range(10)]}))
    monkeypatch.setattr(CIFAR10, "train_list", [["b", None]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "meta", "key": "label_names", "md5": None})
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    source = open_source("cifar10", root=tmp_path)
    assert np.array_equal(source.read(1), images[1].transpose(1, 2, 0))
    assert source.labels is not None
    assert source.labels.tolist() == [3, 1]
    assert source.classes is not None
    assert source.classes[3] == "class 3"


def test_a_named_set_does_not_mix_with_folders(folder: Path) -> None:
    with pytest.raises(ValueError, match="one named set alone"):
        open_source(["digits", folder])
    assert len(open_source(["digits:test"])) == 355


def test_array_sources_check_what_they_get() -> None:
    with pytest.raises(ValueError, match="uint8"):
        ArraySource("x", np.zeros((2, 4, 4, 3), np.float32))
    with pytest.raises(ValueError, match="3 labels for 2 images"):
        ArraySource("x", np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, np.int64))


def test_grey_from_colour_is_pillows_luma() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 20, 20, 3), dtype=np.uint8)
    grey = WithChannels(ArraySource("x", image), 1).read(0)[:, :, 0]
    assert np.array_equal(grey, np.asarray(Image.fromarray(image[0]).convert("L")))


def test_every_name_has_a_line_and_none_imports_torch() -> None:
    assert all(line and "\n" not in line for line in NAMED.values())
    program = (
        "import sys; import barlow.data.names, barlow.data.sources;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'sklearn', 'torchvision')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
