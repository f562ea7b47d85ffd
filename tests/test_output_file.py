"""What a command writes beside its text replaces no file of a user's, and all commands say so first, and alike."""

import errno
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import tiny

from barlow import cli, exits, storage
from barlow.output_file import checked_output
from barlow.report.score_files import check_table_path
from barlow.report.writing import _check_figures


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "photos", 8)


def refuse_work(*given: object, **named: object) -> None:
    raise AssertionError("the work began before the file was looked at")


COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "check --sheet": lambda photos, out: ["check", str(photos), "--fast", "--sheet", str(out)],
    "duplicates --csv": lambda photos, out: ["duplicates", str(photos), "--csv", str(out)],
    "search --sheet": lambda photos, out: [
        *("search", "random:resnet18", str(photos / "000.png"), "--in", str(photos), "--sheet", str(out))
    ],
    "embed --out": lambda photos, out: ["embed", "random:resnet18", str(photos), "--out", str(out)],
    "evaluate --table": lambda photos, out: [
        *("evaluate", "random:resnet18", "--train", str(photos), "--test", str(photos), "--table", str(out))
    ],
}
ENDINGS = {
    "check --sheet": ".png",
    "duplicates --csv": ".csv",
    "search --sheet": ".html",
    "embed --out": ".npy",
    "evaluate --table": ".csv",
}


@pytest.fixture
def _no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        *(
            ("planning.preparation", "opened"),
            ("features.copy_finding", "open_source"),
            ("features.searching", "find_encoder"),
        ),
        *(("features.embedding", "find_encoder"), ("evaluation", "evaluate_several")),
    ):
        monkeypatch.setattr(import_module(f"barlow.{module}"), name, refuse_work)


@pytest.mark.usefixtures("_no_work")
@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_photo_is_not_replaced_by_what_a_command_writes(
    command: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "mine.jpg"
    photo.write_bytes(b"a photo")
    assert cli.main(COMMANDS[command](photos, photo)) == exits.USAGE
    assert photo.read_bytes() == b"a photo"
    error = capsys.readouterr().err
    assert "mine.jpg: give a" in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("_no_work")
@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_file_that_is_there_is_refused_before_the_work(
    command: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / f"mine{ENDINGS[command]}"
    mine.write_bytes(b"mine")
    assert cli.main(COMMANDS[command](photos, mine)) == exits.CANNOT_CREATE
    assert mine.read_bytes() == b"mine"
    error = capsys.readouterr().err
    assert f"{mine.name} exists: use --overwrite to replace it, or another name" in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("_no_work")
@pytest.mark.parametrize("command", [name for name in COMMANDS if not name.startswith("evaluate")])
def test_nothing_is_written_among_the_images(command: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(photos.rglob("*"))
    assert cli.main(COMMANDS[command](photos, photos / "deep" / f"new{ENDINGS[command]}")) == exits.USAGE
    assert "would be among the images of" in capsys.readouterr().err
    assert sorted(photos.rglob("*")) == before


def test_a_file_is_replaced_where_that_is_asked_for(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "copies.csv"
    table.write_text("mine")
    assert cli.main([*COMMANDS["duplicates --csv"](photos, table), "--overwrite"]) == exits.OK
    assert table.read_text().startswith("kind,group,path")


def test_looking_at_a_place_makes_no_folder_and_leaves_no_file(tmp_path: Path) -> None:
    out = tmp_path / "new" / "deep" / "x.csv"
    assert checked_output(out, "--csv", endings=[".csv"]) == out
    assert check_table_path(tmp_path / "new" / "t.tex") == tmp_path / "new" / "t.tex"
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_leads_nowhere_is_a_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "x.csv").symlink_to(tmp_path / "gone")
    with pytest.raises(storage.CannotCreate, match=r"x\.csv exists"):
        checked_output(tmp_path / "x.csv", "--csv", endings=[".csv"])


def test_a_file_in_the_way_of_the_folder_is_known_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(storage.CannotCreate, match="a file is in the way"):
        checked_output(tmp_path / "file" / "x.csv", "--csv", endings=[".csv"])


def test_a_place_where_nothing_can_be_written_is_known_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder's mode would not do: root may write everywhere."""
    tried: list[Path] = []

    def closed(path: Path, content: bytes) -> None:
        tried.append(path.parent)
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(storage, "_write_synced", closed)
    with pytest.raises(storage.CannotCreate, match="permission denied"):
        checked_output(tmp_path / "new" / "x.csv", "--csv", endings=[".csv"])
    assert tried == [tmp_path], "the nearest folder that is there"


def test_a_folder_of_pictures_is_not_filled_with_figures_unasked(tmp_path: Path) -> None:
    (tmp_path / "loss.svg").write_text("mine")
    with pytest.raises(storage.CannotCreate, match=r"has loss\.svg: use --overwrite"):
        _check_figures(tmp_path, False)
    _check_figures(tmp_path, True)
    _check_figures(tmp_path / "new", False)
