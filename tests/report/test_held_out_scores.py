"""What a protocol chose by stands below what it reached on the test, in the page as in the terminal."""

import re
from pathlib import Path

from barlow import record, storage
from barlow.report import scores


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


def test_a_held_out_score_that_is_no_number_is_left_out(run: Path) -> None:
    path = run / "evaluation" / "results.json"
    content = storage.read_sealed(path)
    for each in content["sets"].values():
        each["logistic"]["notes"]["held_out_score"] = "<b>0.9</b>"
    storage.write_sealed(path, content)
    assert "held out" not in [row[0] for row in rows_of_page(run)]
