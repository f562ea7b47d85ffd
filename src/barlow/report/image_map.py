"""A map of the images: each is a point, and images that the encoder sees alike lie near each other."""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from barlow.report.charts import COLOURS, asset
from barlow.report.markup import Markup, data, el, join, note
from barlow.report.neighbours import Pictured
from barlow.report.part import Part, missing
from barlow.report.pictures import atlas
from barlow.report.shown import Shown, nearest_of, pca
from barlow.types import Features

HOW = (
    "Each point is an image, and points near each other are images that the encoder sees alike. Point at one, tap "
    "it or walk with the arrow keys to see it and its nearest; zoom in until the images themselves appear. How far "
    "distant groups are from each other means nothing."
)
TITLE, NAME = "Map", "map"
KINDS = ("pca", "tsne", "pacmap")
WORDS = {"tsne": "t-SNE", "pca": "PCA", "pacmap": "PaCMAP"}
SIDE, QUALITY = 48, 55
NEAR = 6
MOST_KEYS = 60
"""Of more classes the map has no legend."""
LONGEST = 100
"""Characters of a name that the map keeps."""

NEIGHBOURS_FROM = 20
"""t-SNE and PaCMAP are for so many images or more."""

TSNE_STEPS, PERPLEXITY = 500, 30.0


def made(shown: Shown, names: Sequence[str], kind: str) -> Pictured:
    """The map.

    Args:
        shown: the images.
        names: of them.
        kind: which map it shows first; the other is at hand if it costs little.
    """
    if len(shown) < 3:
        return Pictured(missing(NAME, TITLE, "There are fewer than three images."))
    rows = torch.nn.functional.normalize(shown.features, dim=1)  # so that distances are those of cosines
    maps = {"pca": on_a_grid(pca(rows, 2))}
    if kind != "pca" and len(shown) >= NEIGHBOURS_FROM:
        maps = {kind: on_a_grid({"tsne": tsne, "pacmap": pacmap}[kind](rows)), **maps}
    content = {
        "names": [
            name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[-LONGEST // 2 :]}" for name in names
        ],
        "places": {which: places.flatten().tolist() for which, places in maps.items()},
        "near": nearest_of(shown.features, NEAR).tolist(),
        "labels": None if shown.labels is None else shown.labels.tolist(),
        "classes": shown.classes,
        "side": SIDE,
        "columns": 1,
    }
    style, hidden = "", None
    if shown.pictures is not None:
        side = shown.pictures.side(SIDE)
        whole = atlas("m", shown.pictures.read(range(len(shown)), side), len(shown), side, shown=side, quality=QUALITY)
        whole = replace(whole, shown=whole.side)
        style, hidden = whole.rule, el("span", class_="m", hidden=True)
        content |= {"side": whole.side, "columns": whole.columns}
    words = f"map of {len(shown)} images; the arrow keys go from image to image, plus and minus zoom"
    canvas = el("canvas", tabindex=0, role="application", aria_label=words)
    body = el(
        "div",
        _tools(list(maps)),
        el("div", canvas, el("div", class_="near", aria_live="polite"), class_="beside"),
        _legend(shown),
        hidden,
        data(content),
        class_="map",
    )
    notes = [note(line) for line in shown.notes]
    about = el("p", f"{shown.what[0].upper()}{shown.what[1:]}.")
    figures = {f"map-{which}.svg": drawn(places, shown).encode() for which, places in maps.items()}
    return Pictured(Part(NAME, TITLE, join([about, *notes, body]), HOW, figures), style)


def drawn(places: np.ndarray, shown: Shown) -> Markup:
    """The map as a picture of its own, without the images."""
    colours = [0] * len(shown) if shown.labels is None else [int(label) % COLOURS for label in shown.labels]
    points = (
        el("circle", cx=int(x), cy=int(y), r=4, class_=f"f{colour}", fill_opacity="0.8")
        for (x, y), colour in zip(places, colours, strict=True)
    )
    return el(
        "svg",
        el("style", Markup(asset("figures.css"))),
        *points,
        xmlns="http://www.w3.org/2000/svg",
        viewBox="0 0 1000 1000",
    )


def _tools(kinds: Sequence[str]) -> Markup:
    several = kinds if len(kinds) > 1 else []
    return el(
        "div",
        *(
            el("button", WORDS[k], type="button", data_place=k, aria_pressed=str(k == kinds[0]).lower())
            for k in several
        ),
        el("button", "+", type="button", data_act="in", aria_label="zoom in"),
        el("button", "−", type="button", data_act="out", aria_label="zoom out"),
        el("button", "all", type="button", data_act="all", aria_label="show all"),
        class_="tools",
    )


def _legend(shown: Shown) -> Markup | None:
    """The classes, each a button that brings its images forward."""
    if shown.labels is None:
        return None
    counts = np.bincount(shown.labels, minlength=len(shown.classes))
    if (there := int((counts > 0).sum())) > MOST_KEYS:
        return note(f"{there} classes share {COLOURS} colours; an image's own is told where it is pointed at.")
    keys = [
        el(
            "button",
            el(
                "svg",
                el("rect", width=10, height=10, class_=f"f{k % COLOURS}"),
                width=10,
                height=10,
                aria_hidden="true",
            ),
            f" {name}",
            type="button",
            data_label=k,
            aria_pressed="false",
        )
        for k, name in enumerate(shown.classes)
        if counts[k]
    ]
    return el("div", *keys, class_="keys", role="group", aria_label="classes; a pressed one is brought forward")


def tsne(features: Features) -> Features:
    """t-SNE, in a fixed number of steps from PCA's map.

    Source: van der Maaten and Hinton (JMLR 2008), in scikit-learn's form after Barnes and Hut.
    Convention: it begins with the first two principal components, scaled so that the first has a standard deviation of
        1e-4, and not with a draw. It reads the features as they are, and not their first 50 components: where features
        are whitened, these hold little of them.
    """
    from sklearn.manifold import TSNE

    start = pca(features, 2).float().numpy()
    start = start / max(start[:, 0].std(), 1e-12) * 1e-4
    perplexity = min(PERPLEXITY, (len(start) - 1) / 3)
    made = TSNE(perplexity=perplexity, init=start, max_iter=TSNE_STEPS, random_state=0)
    return torch.from_numpy(made.fit_transform(features.float().numpy()))


def check_kind(kind: str) -> None:
    """The map that is asked for can be made.

    Raises:
        ValueError: there is no such map, or its package is missing.
    """
    if kind not in KINDS:
        raise ValueError(f"--map {kind}: give one of {', '.join(KINDS)}")
    if kind == "pacmap" and importlib.util.find_spec("pacmap") is None:
        raise ValueError("--map pacmap needs the package pacmap: pip install barlow[maps]")


def pacmap(features: Features) -> Features:
    """PaCMAP, which keeps more of how distant groups lie than t-SNE does.

    Source: Wang, Huang, Rudin and Shaposhnik (JMLR 2021), in the authors' own form and with their settings.
    Convention: it begins with PCA's map, and draws from a seed. Features are read as they are.
    """
    from pacmap import PaCMAP

    x = features.float().numpy()
    made = PaCMAP(n_components=2, random_state=0, apply_pca=False, verbose=False)
    return torch.from_numpy(np.asarray(made.fit_transform(x, init="pca"), np.float32))


def on_a_grid(places: Features) -> np.ndarray:
    """Places in whole thousandths of a square, its middle the middle of theirs.

    The far tails, a hundredth at each side, are drawn at the rim: one odd image would else push all others together.
    """
    x = places.double().numpy()
    low, high = np.quantile(x, [0.005, 0.995], axis=0)
    half = max(float((high - low).max()) / 2, 1e-12)
    return np.rint(500 + 480 * ((x - (low + high) / 2) / half).clip(-1.04, 1.04)).astype(int)
