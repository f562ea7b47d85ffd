"""The numbers behind a report's figures are those that they say they are."""

import base64
import doctest
import html
import io
import json
import re
import shutil
from pathlib import Path
from statistics import fmean, stdev
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from barlow import record, storage
from barlow.data.decoding import UnreadableImage
from barlow.diagnostics import told_of
from barlow.diagnostics.catalogue import Shape, fitting
from barlow.nets.preprocessing import Preprocessing
from barlow.probes.features import FeatureSet
from barlow.report import charts, compared, curves, loss, markup, mistakes, write_report, writing
from barlow.report.charts import Chart, Line, number, thinned
from barlow.report.image_map import on_a_grid, pacmap, tsne
from barlow.report.kept import Kept, kept
from barlow.report.matrix import NEGATIVE, by_chance, chosen, picture, values_of
from barlow.report.mistakes import confusions
from barlow.report.neighbours import agreement
from barlow.report.pictures import GROUND, Pictures, atlas
from barlow.report.shown import nearest_of, pca
from barlow.seals import sealed
from barlow.training.monitor import cross_correlation


def random(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("module", [charts, markup, writing], ids=lambda module: module.__name__)
def test_the_examples_of_docstrings_hold(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert (found.attempted >= 1, found.failed) == (True, 0)


def test_a_thinned_curve_keeps_its_ends_its_lowest_and_its_highest_point() -> None:
    points = [(float(i), float((i * 7919) % 1000)) for i in range(5000)]
    kept = thinned(points)
    assert len(kept) <= charts.MOST_POINTS
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert {min(points, key=lambda p: p[1])[1], max(points, key=lambda p: p[1])[1]} <= {v for _, v in kept}
    assert kept == sorted(kept)
    assert thinned(points[:50]) == points[:50]


@pytest.mark.parametrize(
    "values",
    [[1.0], [0.0, 0.0], [-3.0, -3.0], [1e-9, 2e-9], [1.0, 1e6], [-1e5, 3.0], [0.0, 1e-12], [5.0, 5.0 + 1e-9]],
)
def test_every_curve_lies_within_its_chart_and_has_levels_beside_it(values: list[float]) -> None:
    chart = Chart("c", "c", [Line("c", [(float(i), v) for i, v in enumerate(values)])])
    x, y = charts._scales(chart, chart.lines)
    assert all(charts.TOP <= y(v) <= charts.HEIGHT - charts.BOTTOM for v in values)
    assert all(charts.LEFT <= x(float(i)) <= charts.WIDTH - charts.RIGHT for i in range(len(values)))
    ticks = y.ticks(4)
    assert ticks
    assert len(ticks) <= 13
    assert "nan" not in str(charts.figure(chart)).lower()


def test_numbers_are_short() -> None:
    assert [number(x) for x in (0.0, 999.4, 1000.0, 123456.0, 1e9, -0.25, 1e-7)] == [
        *("0", "999", "1,000", "123,456", "1e9", "-0.25", "1e-7")
    ]


def test_neighbours_are_those_of_every_pair_compared() -> None:
    features = random(40, 6)
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    cosines = unit @ unit.T
    cosines.fill_diagonal_(-2)
    assert np.array_equal(nearest_of(features, 5), cosines.topk(5, dim=1).indices.numpy())


def test_an_image_is_not_its_own_neighbour_where_there_are_copies_of_it() -> None:
    features = random(10, 4).repeat_interleave(4, dim=0)
    near = nearest_of(features, 6)
    assert near.shape == (40, 6)
    assert not (near == np.arange(40)[:, None]).any()
    assert all(len(set(row)) == 6 for row in near.tolist())
    assert nearest_of(features[:2], 6).shape == (2, 1)


def test_agreement_is_the_share_of_neighbours_of_the_same_class() -> None:
    labels = np.array([0, 0, 1, 1])
    assert agreement(labels, np.array([[1, 2], [0, 3], [3, 0], [2, 1]])) == 0.5


def test_pca_is_that_of_the_centred_rows_and_does_not_turn() -> None:
    x = random(50, 8) @ torch.diag(torch.arange(8, 0, -1.0)) + 5
    found = pca(x, 3)
    u, s, _ = torch.linalg.svd((x - x.mean(0)).double(), full_matrices=False)
    expected = (u * s)[:, :3]
    assert torch.allclose(found.abs(), expected.abs(), atol=1e-5)
    assert torch.equal(pca(x.clone(), 3), found)
    assert pca(x[:, :1], 2).shape == (50, 1)


def test_places_are_whole_numbers_in_a_square_and_one_odd_image_moves_none() -> None:
    places = on_a_grid(torch.cat([random(400, 2), torch.tensor([[1e6, 0.0]])]))
    assert places.dtype.kind == "i"
    assert places.min() >= 0
    assert places.max() <= 1000
    assert np.ptp(places[:400], axis=0).min() > 500


def test_pacmap_gives_the_same_map_again_and_keeps_groups_together() -> None:
    pytest.importorskip("pacmap", reason="PaCMAP is not installed (extra `maps`)")
    x = torch.cat([torch.randn(40, 16, generator=torch.Generator().manual_seed(k)) + 9 * k for k in range(3)])
    found = pacmap(x)
    assert torch.equal(found, pacmap(x))
    centres = torch.stack([found[40 * k : 40 * (k + 1)].mean(0) for k in range(3)])
    assert (torch.cdist(found, centres).argmin(1) == torch.arange(3).repeat_interleave(40)).all()


def test_tsne_gives_the_same_map_again_and_keeps_groups_together() -> None:
    x = random(60, 5) + torch.repeat_interleave(torch.eye(5)[:3] * 30, 20, dim=0)
    found = tsne(x)
    assert torch.equal(found, tsne(x))
    centres = found.view(3, 20, 2).mean(1)
    spread = (found.view(3, 20, 2) - centres[:, None]).norm(dim=2).mean()
    assert torch.cdist(centres, centres)[0, 1:].min() > 2 * spread


@pytest.mark.parametrize("d", [5, 64, 130])
def test_a_matrix_is_drawn_as_the_monitor_keeps_it(d: int) -> None:
    za, zb = random(200, d), random(200, d, 1)
    zb[:, 0] = -za[:, 0]
    values, width = values_of(cross_correlation(za, zb))
    assert width == d
    assert len(values) == min(d, 64)
    assert values[0, 0] == pytest.approx(-1, abs=1e-2)
    pixels = np.asarray(Image.open(io.BytesIO(picture(values))))
    assert pixels.shape == (len(values), len(values), 3)
    assert pixels[0, 0].tolist() == NEGATIVE.tolist(), "row by row, from the top"


@pytest.mark.parametrize("d", [64, 256, 640])
def test_chance_alone_gives_what_is_said(d: int) -> None:
    values, _ = values_of(cross_correlation(random(500, d), random(500, d, 1)))
    assert np.abs(values).mean() == pytest.approx(by_chance(500, 64, d), rel=0.05)


@pytest.mark.parametrize("content", [{"d": 2, "side": 2, "values": [1.0]}, {"d": 2, "side": 10**9, "values": []}])
def test_a_matrix_of_another_shape_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a matrix of"):
        values_of(content)


def test_start_middle_and_end_are_chosen() -> None:
    assert [each["step"] for each in chosen([{"step": i} for i in range(5)])] == [0, 2, 4]
    assert [each["step"] for each in chosen([{"step": 7}])] == [7]
    assert chosen([]) == []


def test_mistakes_are_those_of_the_evaluation(home: Path) -> None:
    from barlow.protocols.knn import WeightedKNN
    from barlow.runs.finishing import load_encoder

    run = record.read(home / "run")
    found = kept(run, load_encoder(home / "run"), None)
    assert found is not None
    assert found.train is not None
    assert run.results is not None
    predicted = WeightedKNN().predict(found.train, found.test.features)
    counts = confusions(found.test.labels, predicted.predictions, len(found.classes))
    assert counts.sum() == 30
    assert counts.trace() / 30 == run.results["sets"]["encoder"]["knn"]["metrics"]["top1"]["value"]


def test_features_whose_labels_are_not_those_of_the_evaluation_are_left_out(run: Path) -> None:
    from barlow.runs.finishing import load_encoder

    encoder = load_encoder(run)
    path = run / "evaluation" / "results.json"
    results = storage.read_sealed(path)
    results["images"]["test"]["labels"] = "0" * 64
    storage.write_sealed(path, results)
    assert kept(record.read(run), encoder, None) is None


class Few:
    """Images in memory, of which one cannot be read."""

    name, classes, labels = "few", None, None

    def __init__(self, image: np.ndarray) -> None:
        self.image = image

    def __len__(self) -> int:
        return 3

    def read(self, index: int, min_side: int = 0) -> np.ndarray:
        if index == 1:
            raise UnreadableImage("damaged")
        return self.image

    def locate(self, index: int) -> str:
        return f"few[{index}]"


@pytest.mark.parametrize(
    ("shape", "size", "white"),
    [((40, 40, 1), 16, 255), ((40, 60, 3), 16, 255), ((20, 80, 3), (8, 32), 255), ((40, 40, 7), 16, 65535)],
)
def test_a_picture_shows_what_the_encoder_gets_whatever_its_bands_bits_and_shape(
    shape: tuple[int, ...], size: int | tuple[int, int], white: int
) -> None:
    image = np.zeros(shape, np.uint8 if white == 255 else np.uint16)
    image[: shape[0] // 2] = white
    channels = shape[2]
    expected = Preprocessing(size, 1.0, "bicubic", (0.5,) * channels, (0.5,) * channels, channels)
    pictures = Pictures(Few(image), np.arange(3), expected)
    first, second, _ = pictures.read([0, 1, 2], 32)
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    high = 32 if isinstance(size, int) else 8
    top = (32 - high) // 2
    assert (first[top + 1, 4:-4] == 255).all(), "the upper half is white"
    assert (first[top + high - 2, 4:-4] == 0).all(), "the lower half is black"
    assert (first[:top, :] == GROUND).all(), "beside a view that is not square there is grey"
    assert (second == GROUND).all(), "as is what cannot be read any more"
    assert pictures.side(96) == min(shape[:2])


def test_an_atlas_has_each_picture_at_its_place() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    pictures = (np.full((16, 16, 3), colour, np.uint8) for colour in colours)
    whole = atlas("t", pictures, 5, 16, shown=32, quality=90)
    picture = Image.open(io.BytesIO(base64.b64decode(whole.address.partition(",")[2]))).convert("RGB")
    assert picture.size == (whole.columns * 16, whole.rows * 16)
    for part, colour in enumerate(colours):
        x, y = (int(v) // 2 for v in re.findall(r"-?(\d+)px", whole.place(part)))
        assert np.abs(np.subtract(picture.getpixel((x + 8, y + 8)), colour)).max() < 16


def test_an_atlas_that_would_be_too_large_keeps_less_of_each_picture() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (48, 48, 3), np.uint8) for _ in range(30)]
    free = atlas("m", noise, 30, 48, shown=48, quality=55)
    assert (free.side, free.columns, free.rows) == (48, 6, 5)
    less = atlas("m", noise, 30, 48, shown=48, quality=55, most=len(free.address) - 1)
    assert less.side == 48
    assert len(less.address) < len(free.address)
    tiny = atlas("m", noise, 30, 48, shown=48, quality=55, most=8_000)
    assert (tiny.side, tiny.columns, tiny.rows) == (24, 6, 5) or tiny.side == 16
    picture = Image.open(io.BytesIO(base64.b64decode(tiny.address.partition(",")[2])))
    assert picture.size == (6 * tiny.side, 5 * tiny.side)


def test_where_images_have_several_labels_each_label_is_listed_the_worst_first() -> None:
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 5, np.uint8)
    features = torch.tensor(labels[:, :1], dtype=torch.float32) + 0.01 * random(20, 1)  # the second label is not in it
    features = torch.cat([features, torch.ones(20, 1)], dim=1)
    few = FeatureSet(features, labels, np.arange(20))
    part = mistakes.made(Kept({}, few, few, None, ["seen", "unseen"]), None, [], "").part
    assert part.body.index("unseen") < part.body.index(">seen<")
    assert "average precision" in part.body


# --- Several runs -----------------------------------------------------------------------------------------------------


def with_seed(run: Path, to: Path, seed: int, top1: float, test: str | None = None) -> Path:
    """A copy of a run, as if another seed had given it."""
    copy = shutil.copytree(run, to)
    recipe = (copy / "recipe.yaml").read_text()
    (copy / "recipe.yaml").write_text(recipe.replace("\nseed: 0\n", f"\nseed: {seed}\n"))
    identity = storage.read_sealed(copy / "run.json")
    for key in ("asked", "recipe"):
        identity[key]["seed"] = seed
    storage.write_sealed(copy / "run.json", identity)
    path = copy / "evaluation" / "results.json"
    results = storage.read_sealed(path)
    results["sets"]["encoder"]["knn"]["metrics"]["top1"] |= {"value": top1, "low": 0.0, "high": 1.0}
    if test is not None:
        results["images"]["test"]["fingerprint"] = test
    storage.write_sealed(path, results)
    return copy


def test_runs_that_differ_in_their_seeds_alone_are_one_recipe_and_have_a_spread(run: Path, tmp_path: Path) -> None:
    values = [0.5, 0.6, 0.8]
    folders = [with_seed(run, tmp_path / f"seed{i}", i, value) for i, value in enumerate(values)]
    other = with_seed(run, tmp_path / "other", 3, 0.9)
    identity = storage.read_sealed(other / "run.json")
    identity["asked"]["optim"]["kind"] = "sgd"
    storage.write_sealed(other / "run.json", identity)
    runs = [record.read(folder) for folder in (*folders, other)]
    assert compared.groups_of(runs) == [[0, 1, 2], [3]]
    text = write_report([*folders, other], tmp_path / "all.html").read_text(encoding="utf-8")
    assert f"{100 * fmean(values):.1f} ± {100 * stdev(values):.1f}" in text
    assert "<code>seed</code>" in text
    assert "<code>optim.kind</code>" not in text, "the recipes that ran are alike"


def test_scores_on_other_test_images_are_not_averaged(run: Path, tmp_path: Path) -> None:
    folders = [
        with_seed(run, tmp_path / "one", 1, 0.5),
        with_seed(run, tmp_path / "two", 2, 0.6, test="other images"),
    ]
    text = write_report(folders, tmp_path / "all.html").read_text(encoding="utf-8")
    assert "were measured on different test images" in text
    assert "55.0 ±" not in text


def test_curves_of_several_runs_are_in_one_chart_with_a_legend(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "another")
    rows = [row | {"loss": row["loss"] / 2} for row in record.read(run).log]
    storage.write_lines(other / "metrics.jsonl", [sealed(row) for row in rows])
    runs = [record.read(folder) for folder in (run, other)]
    part = compared.curves(runs, compared.names_of(runs))
    assert "another" in part.body
    assert part.figures["loss.svg"].count(b'class="line') == 2


def looked_at(run: Path, factor: float, *, images: int = 500) -> None:
    """Gives a run what its monitor could have written."""
    lines = []
    for step in (0, 6, 12):
        reading = {"value": factor * (step + 1), "floor": 1.0, "ceiling": 30.0}
        diagnostics = {"features": {"rankme": reading, "std": reading}, "embeddings": {"lidar": reading}}
        score = {"value": 0.1 + factor * step / 100, "low": 0.0, "high": 1.0, "n": 50}
        line = {"step": step, "images": {"count": images, "views": 2}, "diagnostics": diagnostics}
        lines.append(sealed(line | {"scores": {"knn.top1": score}}))
    storage.write_lines(run / "monitor.jsonl", lines)


def test_what_the_monitors_of_several_runs_say_is_overlaid_as_their_losses_are(run: Path, tmp_path: Path) -> None:
    other, third = (shutil.copytree(run, tmp_path / name) for name in ("another", "third"))
    looked_at(run, 1.0)
    looked_at(other, 2.0)
    runs = [record.read(folder) for folder in (run, other, third)]
    part = compared.curves(runs, compared.names_of(runs))
    for name in ("monitor-features-rankme", "monitor-features-std", "monitor-embeddings-lidar", "score-knn.top1"):
        assert part.figures[f"{name}.svg"].count(b'class="line') == 2, "the third was not looked at"
    data = [
        json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', str(part.body))
    ]
    kept = [[line["points"] for line in each["lines"]] for each in data]
    assert [[[0, 1.0], [6, 7.0], [12, 13.0]], [[0, 2.0], [6, 14.0], [12, 26.0]]] in kept
    assert [[[0, 10.0], [6, 16.0], [12, 22.0]], [[0, 10.0], [6, 22.0], [12, 34.0]]] in kept, "in per cent"
    assert "1 more diagnostics" in part.body, "the first ones are shown at once"
    assert "Beware" not in part.body


def test_monitors_that_looked_at_other_numbers_of_images_are_told(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "another")
    looked_at(run, 1.0)
    looked_at(other, 1.0, images=120)
    (other / "metrics.jsonl").unlink()
    runs = [record.read(folder) for folder in (run, other)]
    assert "images × views, 120 × 2 and 500 × 2:" in compared.curves(runs, compared.names_of(runs)).body
    alone = compared.curves([runs[1]], ["another"])
    assert "None of the runs has logged" not in alone.body, "the monitor has"


def test_what_the_monitor_says_of_several_runs_is_explained_as_of_one(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "another")
    for each in (run, other):
        looked_at(each, 1.0)
    runs = [record.read(folder) for folder in (run, other)]
    for part in (compared.curves(runs, compared.names_of(runs)), curves.part(runs[0])):
        for name in ("rankme", "std", "lidar"):
            assert html.escape(told_of(name)) in part.body
        assert html.escape(curves.OWN_FEATURES) in part.body


def test_of_every_diagnostic_it_is_told_which_direction_is_good() -> None:
    for each in fitting(Shape(500, 2, 512)):
        assert told_of(each.name).startswith(f"{each.what}: "), "of α too"
        assert re.search("(more|less) is better|a band: near 1 is best", told_of(each.name)), each.name
    assert told_of("alpha_req_2_9").endswith("few directions")
    assert told_of("<b>") == ""


def test_views_of_several_recipes_are_told_by_the_ops_in_which_they_differ(tmp_path: Path) -> None:
    crop = {"kind": "random_resized_crop", "size": 32, "scale": [0.4, 1.0], "blur": None}
    flip = {"kind": "horizontal_flip", "p": 0.5}
    views = [
        [[crop, flip]] * 2,
        [[crop | {"scale": [0.08, 1.0]}, flip], [crop, flip]],
        [[crop]] * 2,
        None,
        [{"kind": {}}],
        [[flip, crop]] * 2,
    ]
    runs = [record.Record(tmp_path, {} if each is None else {"views": each}) for each in views]

    def cells(*chosen: int) -> list[str]:
        part = compared.recipes([runs[i] for i in chosen], [str(i) for i in chosen])
        return re.findall(r'<td><span class="words">(.*?)</span></td>', str(part.body))

    assert cells(0, 1) == [
        "view 1: random_resized_crop (scale 0.4 to 1); view 2: only what all runs have",
        "view 1: random_resized_crop (scale 0.08 to 1); view 2: only what all runs have",
    ]
    assert cells(0, 2) == ["each of 2 views: horizontal_flip", "each of 2 views: only what all runs have"]
    assert cells(0, 3)[1] == "–"
    assert cells(0, 5) == [
        f"each of 2 views: only what all runs have, in the order {order}"
        for order in ("random_resized_crop, horizontal_flip", "horizontal_flip, random_resized_crop")
    ]
    assert not [cell for cell in cells(0, 1, 2, 3, 4) if "{" in cell], "no dict of Python's"


@pytest.mark.parametrize("values", [[1.289, 1.311], [1e-5, 1.00004e-5], [0.5, 0.6], [1e6, 1e6 + 3], [-2.0, 3.0]])
def test_numbers_along_an_axis_are_told_apart(values: list[float]) -> None:
    chart = Chart("c", "c", [Line("c", [(float(i), v) for i, v in enumerate(values)])])
    _, y = charts._scales(chart, chart.lines)
    said = charts.numbers(y.ticks(4))
    assert len(set(said)) == len(said) >= 2


@pytest.mark.parametrize(("values", "around"), [([42.9, 42.1], 42.5), ([0.0, 0.4], 5.0), ([99.0, 100.0], 95.0)])
def test_a_score_that_hardly_changes_does_not_fill_its_chart(values: list[float], around: float) -> None:
    chart = curves.score_chart("knn.top1", [Line("c", [(float(i), v) for i, v in enumerate(values)])])
    _, y = charts._scales(chart, chart.lines)
    assert abs(y(values[0]) - y(values[1])) <= 0.11 * (charts.HEIGHT - charts.BOTTOM - charts.TOP)
    assert (y.low + y.high) / 2 == pytest.approx(around, abs=0.3)
    assert (y.low >= 0, y.high <= 100) == (True, True)


def places(chart: Chart) -> dict[str, tuple[float, float, float]]:
    """The left and the right end of the words of each level, and their base line."""
    found = re.findall(
        r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)" class="level">(.*?)</text>', charts.svg(chart)
    )
    assert len(found) == len(chart.at)
    wide = {words: 5.8 * len(words) for *_, words in found}
    return {
        words: (
            float(x) - (wide[words] if end == "end" else 0),
            float(x) + (wide[words] if end != "end" else 0),
            float(y),
        )
        for x, y, end, words in found
    }


def test_words_of_a_level_do_not_lie_on_a_curve_where_there_is_room_beside_it() -> None:
    falling = [(float(i), 10.0 - 0.1 * i if i < 90 else 1.0) for i in range(100)]
    chart = Chart("c", "c", [Line("c", falling)], at=[(1.05, "floor"), (9.9, "ceiling")], y_from=0.0)
    x, y = charts._scales(chart, chart.lines)
    for left, right, base in places(chart).values():
        assert charts.LEFT <= left < right <= charts.WIDTH
        assert not [1 for a, b in falling if left <= x(a) <= right and base - 9 <= y(b) <= base + 2]


def test_words_of_two_levels_that_are_one_do_not_lie_on_each_other() -> None:
    chart = Chart(
        "c", "c", [Line("c", [(0.0, 1.0), (9.0, 2.0)])], at=[(1.5, "the least it can be"), (1.5, "unrelated")]
    )
    (one, two) = places(chart).values()
    assert one[1] <= two[0] or two[1] <= one[0] or abs(one[2] - two[2]) >= 12


def test_the_name_of_an_axis_stands_below_its_numbers() -> None:
    drawn = charts.svg(Chart("c", "c", [Line("c", [(0.0, 1.0), (9.0, 2.0)])]))
    heights = [float(y) for y in re.findall(r'y="([\d.]+)" text-anchor="middle"', drawn)]
    (name,) = re.findall(r'y="([\d.]+)" text-anchor="end">step<', drawn)
    assert float(name) - max(heights) >= 13, "letters are 11 high"


def test_what_is_said_of_a_loss_tells_of_a_collapse_at_its_floor(tmp_path: Path) -> None:
    line = {"step": 1, "loss": 0.1}
    for more in ({}, {"reference": {"unrelated": 66.0, "floor": 0.0}}):
        how = loss.part(record.Record(tmp_path, {}, log=[line | more])).how
        assert "a collapse has that loss too" in how
        assert ("VICReg, may begin far below it" in how) == bool(more)
