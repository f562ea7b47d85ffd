"""What a protocol chose by stands below what it reached on the test, in the page as in the terminal."""

import re
from pathlib import Path

from barlow import record, storage
from barlow.report import charts, scores


def rows_of_page(run: Path) -> list[list[str]]:
    """The cells of the first table, without their tags."""
    table = str(scores.part(record.read(run)).body).partition("</table>")[0]
    rows = re.findall("<tr>(.*?)</tr>", table)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall("<t[hd].*?</t[hd]>", row)] for row in rows]


def test_the_held_out_score_stands_below_the_tests_for_the_encoder_and_its_baselines(home: Path) -> None:
    rows = rows_of_page(home / "run")
    labels = [row[0] for row in rows]
    at = labels.index("held out")
    assert labels.count("held out") == 1, "kNN chooses nothing"
    assert labels[at - 1] == "logistic top-1", "below the first of its rows"
    sets = storage.read_sealed(home / "run" / "evaluation" / "results.json")["sets"]
    noted = {name: each["logistic"]["notes"]["held_out_score"] for name, each in sets.items()}
    shown = [cell for cell in rows[at][1:] if cell]
    assert shown[0] == f"{100 * noted['encoder']:.1f}"
    assert len(shown) == len({name.partition("_")[0] for name in noted})
    assert set(shown[1:]) <= {f"{100 * value:.1f}" for value in noted.values()}
    assert "Held out: the score by which a protocol chose" in str(scores.part(record.read(home / "run")).body)


def test_held_out_is_set_in_below_its_protocol(home: Path) -> None:
    assert '<span class="under">held out</span>' in str(scores.part(record.read(home / "run")).body)
    assert ".under { padding-left" in charts.asset("page.css")


def test_every_baseline_whose_name_is_in_the_table_is_explained_beside_it(home: Path) -> None:
    run = home / "run"
    body = str(scores.part(record.read(run)).body)
    said = dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", body))
    named = {name for row in rows_of_page(run) for name in row if name.startswith(("pixels", "untrained"))} - {"pixels"}
    named -= {"untrained"} - said.keys()  # which is a heading, too
    assert named
    assert named == said.keys()
    for name, words in (("untrained_handed_out", "stages and whitening"), ("pixels_16_whitened", "whitened as")):
        assert words in scores._treated(name)
    assert scores._treated("untrained") == ""


def test_a_held_out_score_that_is_no_number_is_left_out(run: Path) -> None:
    path = run / "evaluation" / "results.json"
    content = storage.read_sealed(path)
    for each in content["sets"].values():
        each["logistic"]["notes"]["held_out_score"] = "<b>0.9</b>"
    storage.write_sealed(path, content)
    assert "held out" not in [row[0] for row in rows_of_page(run)]
