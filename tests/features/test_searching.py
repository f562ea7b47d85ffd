"""`barlow search`: what is found is what loops over all pairs find, and it is shown so that no name can do harm."""

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image
from simple_encoder import Colours, vector

import barlow
from barlow import cli
from barlow.encoders import FoundEncoder
from barlow.exits import NoInput, UnusableData
from barlow.features.searching import search
from barlow.report.contact_sheet import write_sheet

HOSTILE = '<img src=x onerror="alert(1)">.png'


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("photos"), 40)


def unit_vector(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        x = vector(image)
    return x / np.linalg.norm(x)


def test_what_is_found_is_what_a_loop_over_all_pairs_finds(photos: Path) -> None:
    files = sorted(photos.glob("*.png"))
    found = search(Colours(), [files[3], files[17]], images=photos, k=5, device="cpu")
    for query, file in enumerate((files[3], files[17])):
        cosines = {each.name: float(unit_vector(file) @ unit_vector(each)) for each in files}
        expected = sorted(cosines, key=lambda name: -cosines[name])[:5]
        values, places = zip(*found.hits(query), strict=True)
        assert list(places) == expected
        assert places[0] == file.name
        np.testing.assert_allclose(values, [cosines[name] for name in expected], atol=2e-3)


def test_more_than_there_are_gives_all_and_a_folder_of_queries_stands_for_its_images(
    photos: Path, tmp_path: Path
) -> None:
    few = tiny.images(tmp_path / "few", 3)
    found = search(Colours(), few, images=few, k=20, device="cpu")
    assert found.positions.shape == (3, 3)
    assert [found.asked.place(i) for i in range(3)] == [str(few / f"{i:03}.png") for i in range(3)]


def test_images_that_cannot_be_read_are_counted_and_a_query_that_cannot_is_told(tmp_path: Path) -> None:
    few = tiny.images(tmp_path / "few", 6)
    (few / "aaa.png").write_bytes(b"no image")
    lines: list[str] = []
    found = search(Colours(), [few / "000.png", few / "aaa.png"], images=few, k=2, device="cpu", tell=lines.append)
    assert found.skipped == 1
    assert len(found.among) == 6
    assert "1 image cannot be read and was left out" in found.text()
    assert any("1 of 2 queries cannot be read" in line and "aaa.png (" in line for line in lines)
    with pytest.raises(UnusableData, match=r"none of the 1 images of the queries can be read \(.*aaa\.png: .+\)"):
        search(Colours(), few / "aaa.png", images=few, device="cpu")


def test_a_query_among_the_images_comes_before_its_copies(tmp_path: Path) -> None:
    few = tiny.images(tmp_path / "few", 12)
    for name in ("aaa.png", "bbb.png", "zzz.png"):
        (few / name).write_bytes((few / "005.png").read_bytes())
    found = search(Colours(), few / "005.png", images=few, k=2, device="cpu")
    assert found.hits(0)[0] == (pytest.approx(1, abs=1e-5), "005.png")
    assert found.hits(0)[1][1] in ("aaa.png", "bbb.png", "zzz.png")
    every = search(Colours(), [few / "zzz.png", few / "005.png"], images=few, k=15, device="cpu")
    assert [every.hits(query)[0][1] for query in (0, 1)] == ["zzz.png", "005.png"]
    for query in (0, 1):
        assert sorted(every.positions[query].tolist()) == list(range(15)), "nothing is lost, and nothing twice"
        assert every.similarity[query].tolist() == sorted(every.similarity[query].tolist(), reverse=True)


def test_the_first_place_is_not_given_to_a_file_that_has_changed_since_it_was_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tiny.images(tmp_path / "few", 8)
    barlow.embed(Colours(), few, tmp_path / "f.npy", device="cpu")
    (few / "001.png").write_bytes((few / "002.png").read_bytes())
    monkeypatch.setattr(
        "barlow.features.searching.find_encoder", lambda *_, **__: FoundEncoder("colours", "module", Colours())
    )
    found = search(tmp_path / "f.npy", few / "001.png", images=few, encoder="colours", k=3, device="cpu")
    assert found.hits(0)[0][1] == "002.png"


def test_pictures_that_are_not_there_are_told(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    barlow.embed(Colours(), photos, tmp_path / "f.npy", device="cpu")
    monkeypatch.chdir(tmp_path)
    words = ["search", "f.npy", "007.png", "-k", "3", "--sheet"]
    assert cli.main([*words, "s.html"]) == 0
    assert "3 pictures are not there, such as 007.png, and are blank in --sheet" in capsys.readouterr().err
    assert cli.main([*words, "t.html", "--in", str(photos)]) == 0
    assert "not there" not in capsys.readouterr().err


def test_the_text_fits_into_80_columns_and_keeps_the_end_of_a_path(tmp_path: Path) -> None:
    deep = tiny.images(tmp_path / ("a" * 70) / ("b" * 70), 4)
    text = search(Colours(), deep / "001.png", images=tmp_path, k=3, device="cpu").text()
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^   1      1\.0000  ….*/001\.png$", text, re.MULTILINE)


def test_what_is_wrong_is_one_line_that_says_what_to_do(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(NoInput, match=r"no image .*gone\.png .*give image files or folders"):
        search(Colours(), tmp_path / "gone.png", images=photos)
    with pytest.raises(ValueError, match=r"is no run.*say which to search with images FOLDER"):
        search(Colours(), photos / "000.png")
    with pytest.raises(ValueError, match="k is 0: give 1 or more"):
        search(Colours(), photos / "000.png", images=photos, k=0)


def test_a_sheet_is_one_escaped_file_that_its_own_policy_allows(tmp_path: Path) -> None:
    few = tiny.images(tmp_path / "few", 5)
    (few / "004.png").rename(few / HOSTILE.replace("/", ""))
    found = search(Colours(), few / HOSTILE, images=few, k=4, device="cpu")
    text = write_sheet(found, tmp_path / "found.html").read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    style, script = (
        re.search(r"<style>(.*?)</style>", text, re.DOTALL),
        re.findall(r"<script>(.*?)</script>", text, re.S),
    )
    assert policy is not None
    assert style is not None
    for content in (style[1], *script):
        assert base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() in policy[1]
    assert text.count("<figure>") == 5, "the query and what was found"
    with pytest.raises(ValueError, match="is a folder; name a file"):
        write_sheet(found, few)


def test_the_command_searches_what_a_run_was_trained_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    barlow.pretrain(str(photos), run, recipe="small_barlow_twins", overrides=tiny.SMALL)
    capsys.readouterr()
    query = str(photos / "007.png")
    assert cli.main(["search", str(run), query, "-k", "3", "--json", "--sheet", str(tmp_path / "s.html")]) == 0
    out, err = capsys.readouterr()
    content = json.loads(out)
    assert content["searched"] == 40
    assert content["queries"][0]["query"] == query
    assert content["queries"][0]["found"][0] == {
        "rank": 1,
        "similarity": pytest.approx(1, abs=1e-5),
        "path": "007.png",
    }
    assert len(content["queries"][0]["found"]) == 3
    assert "sheet" in err
    assert (tmp_path / "s.html").is_file()
    assert cli.main(["search", "random:resnet18", query]) == 2
    assert "say which to search with --in FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["features.npy", "features.parquet"])
def test_a_file_of_features_is_searched_as_its_images_are(photos: Path, tmp_path: Path, name: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra `embed`)")
    file, encoder = tmp_path / name, "random:resnet18"
    barlow.embed(encoder, str(photos), file, device="cpu")
    direct = search(encoder, photos / "007.png", images=photos, k=4, device="cpu")
    by_path = search(file, "007.png", k=4)
    by_image = search(file, photos / "007.png", encoder=encoder, k=4, device="cpu")
    for found in (by_path, by_image):
        assert [place for _, place in found.hits(0)] == [place for _, place in direct.hits(0)]
        np.testing.assert_allclose(found.similarity, direct.similarity, atol=1e-5)
    sheet = write_sheet(search(file, "007.png", images=photos, k=4), tmp_path / "s.html")
    assert sheet.read_text(encoding="utf-8").count("<figure>") == 5
    with pytest.raises(ValueError, match=r"new\.png is no path .*: add encoder ENCODER"):
        search(file, "new.png")
    with pytest.raises(ValueError, match="cosines between two encoders mean nothing"):
        search(file, photos / "007.png", encoder="random:resnet50", device="cpu")
