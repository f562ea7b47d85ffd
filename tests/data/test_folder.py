"""Which files of a folder count, in what order, and what one is told when none do."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from barlow.data.decoding import UnreadableImage
from barlow.data.folder import FolderSource
from barlow.printable import printable


def save(path: Path | str | bytes, value: int = 0) -> None:
    path = os.fsencode(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        Image.new("RGB", (4, 3), (value, 0, 0)).save(file, "PNG")


def listing(source: FolderSource) -> list[str]:
    return [source.locate(index) for index in range(len(source))]


def test_a_nested_folder_is_listed_by_sorted_relative_path(tmp_path: Path) -> None:
    for number, name in enumerate(["b/2.png", "a/z/9.JPG", "a/1.png", "c.jpeg", "B/1.png"]):
        save(tmp_path / name, number)
    source = FolderSource([tmp_path])
    assert listing(source) == ["B/1.png", "a/1.png", "a/z/9.JPG", "b/2.png", "c.jpeg"]
    assert [int(source.read(index)[0, 0, 0]) for index in range(5)] == [4, 2, 1, 0, 3]
    assert source.read(0).shape == (3, 4, 3)
    assert source.labels is None


def test_the_listing_does_not_depend_on_the_order_of_creation(tmp_path: Path) -> None:
    names = [f"{k % 3}/{k}.png" for k in range(12)]
    for number, name in enumerate(names):
        save(tmp_path / "one" / name, number)
    for number, name in reversed(list(enumerate(names))):
        save(tmp_path / "two" / name, number)
    one, two = FolderSource([tmp_path / "one"]), FolderSource([tmp_path / "two"])
    assert listing(one) == listing(two)
    assert one.fingerprint() == two.fingerprint()


def test_the_fingerprint_sees_another_file_and_another_size(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    first = FolderSource([tmp_path]).fingerprint()
    save(tmp_path / "b.png")
    second = FolderSource([tmp_path]).fingerprint()
    with (tmp_path / "b.png").open("ab") as file:
        file.write(b"x")
    assert len({first, second, FolderSource([tmp_path]).fingerprint()}) == 3


def test_several_folders_follow_one_another_and_share_classes(tmp_path: Path) -> None:
    for name in ("one/cat/1.png", "one/dog/1.png", "two/cat/2.png", "two/bird/1.png"):
        save(tmp_path / name)
    source = FolderSource([tmp_path / "two", str(tmp_path / "one")])
    assert [os.path.relpath(path, tmp_path) for path in listing(source)] == [
        "two/bird/1.png",
        "two/cat/2.png",
        "one/cat/1.png",
        "one/dog/1.png",
    ]
    assert source.classes == ["bird", "cat", "dog"]
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 1, 2]
    assert source.labels.dtype == np.int64


def test_overlapping_folders_list_each_image_once(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png")
    save(tmp_path / "2.png")
    assert len(FolderSource([tmp_path, tmp_path / "a"])) == 2


def test_labels_are_the_first_folder_below(tmp_path: Path) -> None:
    for name in ("cat/x/1.png", "cat/y/1.png", "dog/1.png"):
        save(tmp_path / name)
    source = FolderSource([tmp_path])
    assert source.classes == ["cat", "dog"]
    assert source.labels is not None
    assert source.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize("names", [["cat/1.png", "2.png"], ["cat/1.png"], ["1.png", "2.png"]])
def test_there_are_no_labels_unless_every_image_lies_in_one_of_two_folders(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        save(tmp_path / name)
    source = FolderSource([tmp_path])
    assert source.labels is None
    assert source.classes is None


def test_folders_called_like_splits_are_not_classes(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "val/cat/1.png"):
        save(tmp_path / name)
    source = FolderSource([tmp_path])
    assert source.labels is None
    assert "look like splits" in str(source.notes["no labels"])


def test_hidden_and_foreign_files_are_left_out_and_counted(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    for name in (".hidden.png", "._1.png", "Thumbs.db", ".git/2.png", "__MACOSX/._3.png"):
        save(tmp_path / name)
    for name in ("a.txt", "b.TXT", "noextension"):
        (tmp_path / name).write_text("text")
    source = FolderSource([tmp_path])
    assert listing(source) == ["1.png"]
    assert source.notes["other files, not images, by extension"] == {"(none)": 1, "txt": 2}
    assert source.notes["hidden files and folders"] == 5


def test_images_of_formats_that_are_not_read_are_candidates_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "layers.psd").write_bytes(b"8BPS\0\1" + b"\0" * 40)
    source = FolderSource([tmp_path])
    with pytest.raises(UnreadableImage, match="PSD is not one of the formats"):
        source.read(0)


def test_link_loops_are_visited_once(tmp_path: Path) -> None:
    save(tmp_path / "root" / "a" / "1.png")
    save(tmp_path / "root" / "b" / "2.png")
    save(tmp_path / "outside" / "3.png")
    (tmp_path / "root" / "a" / "self").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "a" / "to_b").symlink_to(tmp_path / "root" / "b")
    (tmp_path / "root" / "b" / "to_a").symlink_to("../a")
    (tmp_path / "root" / "0").symlink_to(tmp_path / "root" / "b")  # sorts before the real one
    (tmp_path / "root" / "z").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "z2").symlink_to(tmp_path / "outside")
    source = FolderSource([tmp_path / "root"])
    assert listing(source) == ["a/1.png", "b/2.png", "z/3.png"]
    assert source.notes["links to folders already visited"] == 5


def test_a_linked_file_counts_unless_it_is_listed_already(tmp_path: Path) -> None:
    save(tmp_path / "root" / "1.png")
    save(tmp_path / "elsewhere" / "2.png")
    (tmp_path / "root" / "0.png").symlink_to("1.png")
    (tmp_path / "root" / "2.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    source = FolderSource([tmp_path / "root"])
    assert listing(source) == ["1.png", "2.png"]
    assert source.notes["links to files already listed"] == 1


def test_pipes_sockets_and_dangling_links_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "1.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "pipe_link.png").symlink_to("pipe.png")
    (tmp_path / "nowhere.png").symlink_to("missing.png")
    (tmp_path / "itself.png").symlink_to("itself.png")
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.png")
        source = FolderSource([tmp_path])
    assert listing(source) == ["1.png"]
    assert source.notes["pipes, sockets and devices"] == 3
    assert source.notes["links that lead nowhere"] == 2


def test_a_pipe_in_a_files_place_is_refused_without_waiting(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    source = FolderSource([tmp_path])
    (tmp_path / "1.png").unlink()
    with pytest.raises(UnreadableImage, match="No such file"):
        source.read(0)
    os.mkfifo(tmp_path / "1.png")
    for attempt in (source.read, source.header):
        with pytest.raises(UnreadableImage, match="no longer a regular file"):
            attempt(0)


@pytest.mark.parametrize(
    "name",
    [
        "é (NFC).png".encode(),
        "é (NFD).png".encode(),
        "\N{SNOWMAN}\N{GRINNING FACE}.png".encode(),
        b"line\nbreak.png",
        b"quote'\"<>&.png",
        b"\x1b[31mred.png",
        b"not utf-8 \xff\xfe.png",
        b"x" * 251 + b".png",
    ],
)
def test_odd_names_survive_the_round_trip_and_can_be_shown(tmp_path: Path, name: bytes) -> None:
    save(os.path.join(os.fsencode(tmp_path), b"sub", name))
    source = FolderSource([tmp_path])
    assert os.fsencode(source.locate(0)) == b"sub/" + name
    assert source.read(0).shape == (3, 4, 3)
    shown = printable(source.locate(0))
    assert shown.encode("utf-8")
    assert shown.isprintable()
    assert len(source.fingerprint()) == 64


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stem=st.binary(min_size=1, max_size=40))
def test_any_name_the_file_system_takes_is_read_back(tmp_path: Path, stem: bytes) -> None:
    name = b"n" + stem.replace(b"/", b"_").replace(b"\0", b"_") + b".png"
    path = os.path.join(os.fsencode(tmp_path), name)
    save(path)
    source = FolderSource([tmp_path])
    os.unlink(path)
    assert [os.fsencode(location) for location in listing(source)] == [name]


def test_a_file_too_large_for_its_pixels_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UnreadableImage, match="bytes for at most"):
        FolderSource([tmp_path]).read(0)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no folder .*phtos.*{tmp_path.name} is the last part that exists"):
        FolderSource([tmp_path / "phtos" / "2024"])


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"1\.png is a file, not a folder"):
        FolderSource([tmp_path / "1.png"])


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no images in .*looked for \.jpg .*sub-folders included\)$"):
        FolderSource([tmp_path])


def test_a_folder_without_images_says_what_is_there_and_where_images_are(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "1.txt").write_text("cat")
    with pytest.raises(ValueError, match=r"found only 1 \.txt; there are images one level up"):
        FolderSource([tmp_path / "labels"])


def test_no_folder_at_all() -> None:
    with pytest.raises(ValueError, match="at least one folder"):
        FolderSource([])


def test_an_index_beyond_the_end_is_an_index_error(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    with pytest.raises(IndexError, match="0 to 0"):
        FolderSource([tmp_path]).locate(1)


def test_nothing_is_written_into_the_users_folder(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    source = FolderSource([tmp_path])
    source.read(0)
    source.header(0)
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before
