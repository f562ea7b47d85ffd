"""Where features go: what is a user's stays, what is a file's own has its name, and names of images are as they are."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from simple_encoder import Colours

from barlow import exits, storage
from barlow.encoders import find_encoder
from barlow.features import stored_features
from barlow.features.embedding import Embedded, embed
from barlow.features.searching import _check_same, search


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tiny.images(tmp_path / "photos", 4)


def embedded(photos: Path, out: Path, **options: Any) -> Embedded:
    done = embed(Colours(), photos, out, device="cpu", **options)
    assert done is not None
    return done


def test_a_table_of_the_name_of_the_index_is_not_replaced(photos: Path, tmp_path: Path) -> None:
    mine = tmp_path / "f.csv"
    mine.write_text("price,weight\n1,2\n")
    for overwrite in (False, True):
        with pytest.raises(storage.CannotCreate, match=r"would replace .*f\.csv, which barlow embed has not written"):
            embedded(photos, tmp_path / "f.npy", overwrite=overwrite)
    assert mine.read_text() == "price,weight\n1,2\n"
    assert not (tmp_path / "f.npy.parts").exists()


def test_an_index_of_an_earlier_file_is_replaced_on_request_only(photos: Path, tmp_path: Path) -> None:
    embedded(photos, tmp_path / "f.npy")
    (tmp_path / "f.npy").unlink()
    with pytest.raises(storage.CannotCreate, match=r"f\.csv exists: use overwrite"):
        embedded(photos, tmp_path / "f.npy")
    assert embedded(photos, tmp_path / "f.npy", overwrite=True).rows == 4


def test_a_list_that_is_somebody_elses_is_not_removed(photos: Path, tmp_path: Path) -> None:
    mine, older = tmp_path / "f.npy.skipped.json", tmp_path / "f.skipped.json"
    older.write_text('{"mine": 1}')
    embedded(photos, tmp_path / "f.npy")
    mine.write_text('{"mine": 2}')
    with pytest.raises(storage.CannotCreate, match="which barlow embed has not written"):
        embedded(photos, tmp_path / "f.npy", overwrite=True)
    assert (mine.read_text(), older.read_text()) == ('{"mine": 2}', '{"mine": 1}')


def test_two_forms_of_one_name_have_lists_of_their_own(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra `embed`)")
    (photos / "001.png").write_bytes(b"no image")
    embedded(photos, tmp_path / "f.npy")
    embedded(photos, tmp_path / "f.parquet")
    lists = [tmp_path / f"f.{form}.skipped.json" for form in ("npy", "parquet")]
    assert [len(json.loads(path.read_text())) for path in lists] == [1, 1]


def test_a_folder_in_the_place_of_the_file_is_known_before_the_work(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "f.npy").mkdir()
    with pytest.raises(ValueError, match=r"f\.npy is a folder; name a file"):
        embed("random:no_such_network", photos, tmp_path / "f.npy", overwrite=True)


@pytest.mark.parametrize("what", ["link", "file"])
def test_a_link_or_a_file_in_the_place_of_the_parts_is_refused(what: str, photos: Path, tmp_path: Path) -> None:
    parts, other = tmp_path / "f.npy.parts", tmp_path / "other"
    other.mkdir()
    parts.symlink_to(other) if what == "link" else parts.write_text("mine")
    with pytest.raises(exits.UnusableData, match=r"f\.npy\.parts is .*: remove it, or use another"):
        embedded(photos, tmp_path / "f.npy")
    assert list(other.iterdir()) == []


def test_paths_are_those_that_a_program_opens_and_a_search_finds(tmp_path: Path) -> None:
    photos = tiny.images(tmp_path / "photos", 3)
    names = ["two\nlines.png", 'bell\x07\rring, "quoted".png', "grün \u202e.png"]
    for number, name in enumerate(names):
        (photos / f"{number:03}.png").rename(photos / name)
    embedded(photos, tmp_path / "f.npy")
    with (tmp_path / "f.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == set(names)
    assert all((photos / row["path"]).is_file() for row in rows)
    found = search(tmp_path / "f.npy", names[0], images=photos, k=1, device="cpu")
    assert found.as_dict()["queries"][0]["found"][0]["path"] == names[0]
    assert "two\\nlines.png" in found.text()


def test_a_name_that_is_not_utf_8_has_its_escaped_form_and_is_found_by_the_real_one(tmp_path: Path) -> None:
    photos = tiny.images(tmp_path / "photos", 2)
    real = os.fsdecode(b"caf\xe9.png")
    try:
        (photos / "000.png").rename(photos / real)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    embedded(photos, tmp_path / "f.npy")
    assert "caf\\udce9.png" in (tmp_path / "f.csv").read_text(encoding="utf-8")
    assert search(tmp_path / "f.npy", real, k=1, device="cpu").hits(0)[0][1] == "caf\\udce9.png"


def test_a_file_of_features_knows_its_own_encoder_and_no_other(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Parquet too: what a file keeps of its encoder comes from the parts, and is held against what is named."""
    monkeypatch.setattr(
        "barlow.features.embedding.feature_files.write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    name = "random:resnet18"
    with pytest.raises(KeyboardInterrupt):
        embed(name, photos, tmp_path / "f.npy", device="cpu")
    about = storage.read_sealed(tmp_path / "f.npy.parts" / "about.json")
    found = find_encoder(name)
    kept = stored_features.Features(
        np.arange(4),
        list("abcd"),
        found.network(found.network.preprocess(sorted(photos.iterdir()))).detach(),  # type: ignore[operator]
        about["encoder"],
        type(found.preprocessing)(**about["preprocessing"]),
    )
    _check_same(Path("f.parquet"), kept, find_encoder(name))
    with pytest.raises(ValueError, match="cosines between two encoders mean nothing"):
        _check_same(Path("f.parquet"), kept, find_encoder("random:resnet18@1"))
    with pytest.raises(ValueError, match="224 pixels there, 64 here"):
        _check_same(Path("f.parquet"), kept, find_encoder(name, image_size=64))


GOOD = {"id": [0, 1], "path": ["a.png", "b.png"], "vector": [[1.0, 2.0], [2.0, 1.0]]}


@pytest.mark.parametrize(
    ("columns", "metadata", "said"),
    [
        ({key: GOOD[key] for key in ("id", "path")}, None, "it has no column vector"),
        (GOOD | {"id": ["x", "y"]}, None, "its column id has the type string"),
        (GOOD | {"path": [1, 2]}, None, "its column path has the type int64"),
        (GOOD | {"path": ["a", None]}, None, "its column path has rows without a value"),
        (GOOD | {"vector": ["x", "y"]}, None, "its column vector has the type string"),
        (GOOD | {"vector": [[1.0, 2.0], None]}, None, "its column vector has rows without a value"),
        (GOOD | {"vector": [[1.0, 2.0], [None, 1.0]]}, None, "some of its vectors lack numbers"),
        (GOOD, "[1]", "its metadata do not say which encoder"),
        (GOOD, '{"encoder": 7, "preprocessing": {}}', "its metadata do not say which encoder"),
        (GOOD, '{"encoder": "x", "preprocessing": {"size": "x", "odd": 1}}', "its metadata do not say which encoder"),
        (GOOD, "{", "its metadata do not say which encoder"),
    ],
)
def test_a_strangers_parquet_file_is_refused_in_a_line(
    columns: dict[str, Any], metadata: str | None, said: str, tmp_path: Path
) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `embed`)")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra `embed`)")
    arrays = {}
    for name, values in columns.items():
        lists = name == "vector" and any(isinstance(value, list) for value in values)
        arrays[name] = pa.array(values, pa.list_(pa.float32(), 2) if lists else None)
    table = pa.table(arrays)
    pq.write_table(
        table.replace_schema_metadata(None if metadata is None else {"barlow": metadata}), tmp_path / "f.parquet"
    )
    with pytest.raises(exits.UnusableData, match=said) as caught:
        stored_features.read(tmp_path / "f.parquet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("a,b\n1,2\n", "it has no column id"),
        ("id,path,label,id\n0,a,,0\n", "it has no column id, or two of that name"),
        ("id,path,label\nx,a,\n", "row 1 has no id that is a whole number"),
        ("id,path,label\n0\n", "row 1 has no id that is a whole number, or no path"),
        ('id,path,label\n0,"a"b,\n', "it is not a table of comma-separated values"),
        ("id,path,label\n", "has 1 rows, and .* 0: they do not belong together"),
        (b"id,path,label\n0,\xff,\n", "it is not UTF-8"),
    ],
)
def test_a_strangers_index_is_refused_in_a_line(index: str | bytes, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.ones((1, 2), np.float32))
    (tmp_path / "f.csv").write_bytes(index if isinstance(index, bytes) else index.encode())
    with pytest.raises(exits.UnusableData, match=said):
        stored_features.read(tmp_path / "f.npy")


@pytest.mark.parametrize("array", [np.ones(3, np.float32), np.ones((1, 2), np.int64), np.ones((1, 0), np.float32)])
def test_an_array_that_is_no_matrix_of_features_is_refused_in_a_line(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", array)
    (tmp_path / "f.csv").write_text("id,path,label\n0,a.png,\n")
    with pytest.raises(exits.UnusableData, match="a matrix of floats with a row for each image is expected"):
        stored_features.read(tmp_path / "f.npy")
