"""Draws the figures of docs/ideas.md into docs/figures.

python experiments/figures.py

Each is a small SVG that is computed from the formulas of the package: what a term sees, on made-up embeddings. Colours
follow the reader's light or dark setting.
"""

from collections.abc import Sequence

import torch
from generated import ROOT
from torch import Tensor

from barlow.linalg import cholesky_whiten, standardize
from barlow.objectives._sinkhorn import sinkhorn

FOLDER = ROOT / "docs" / "figures"
SIDE, GAP, MARGIN, TITLE = 180, 28, 12, 26
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #333 }
  .frame { fill: none; stroke: #bbb }
  .dot { fill: #2a6fb0; fill-opacity: .55 }
  .line { fill: none; stroke: #2a6fb0; stroke-width: 2 }
  .axis { stroke: #bbb }
  .second { stroke: #c0562b }
  .plus { fill: #2a6fb0 }
  .minus { fill: #c0562b }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd } .frame, .axis { stroke: #555 }
    .dot, .plus { fill: #7db7f0 } .line { stroke: #7db7f0 } .minus { fill: #f09a6b } .second { stroke: #f09a6b }
  }
"""


def panels(titles: Sequence[str], bodies: Sequence[str], label: str) -> str:
    """Square drawings beside each other, each with a title below."""
    width = 2 * MARGIN + len(bodies) * SIDE + (len(bodies) - 1) * GAP
    height = 2 * MARGIN + SIDE + TITLE
    parts = [
        f'<g transform="translate({MARGIN + i * (SIDE + GAP)} {MARGIN})">{body}'
        f'<rect class="frame" width="{SIDE}" height="{SIDE}"/>'
        f'<text x="{SIDE / 2}" y="{SIDE + TITLE - 6}" text-anchor="middle">{title}</text></g>'
        for i, (title, body) in enumerate(zip(titles, bodies, strict=True))
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{label}"><style>{STYLE}</style>{"".join(parts)}</svg>\n'
    )


def cloud(points: Tensor, reach: float = 3.2) -> str:
    """Points of two features, within ± reach."""
    places = (points.clamp(-reach, reach) / reach + 1) * SIDE / 2
    return "".join(f'<circle class="dot" cx="{x:.1f}" cy="{SIDE - y:.1f}" r="2.6"/>' for x, y in places.tolist())


def heat(table: Tensor) -> str:
    """A table of correlations or shares: the fuller, the stronger; negative ones in another colour."""
    cell, wide = (SIDE / length for length in table.shape)
    return "".join(
        f'<rect class="{"plus" if value > 0 else "minus"}" x="{j * wide:.1f}" y="{i * cell:.1f}" width="{wide:.1f}" '
        f'height="{cell:.1f}" fill-opacity="{min(abs(value), 1):.2f}"/>'
        for i, row in enumerate(table.tolist())
        for j, value in enumerate(row)
        if abs(value) >= 0.01
    )


def curve(xs: Tensor, ys: Tensor, x_most: float, y_most: float, kind: str = "line") -> str:
    """A curve from the lower left corner on: a `line`, or a `line second` beside another."""
    points = " ".join(
        f"{x / x_most * SIDE:.1f},{SIDE - y / y_most * SIDE:.1f}" for x, y in zip(xs.tolist(), ys.tolist(), strict=True)
    )
    return f'<polyline class="{kind}" points="{points}"/>'


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlation(a: Tensor, b: Tensor) -> Tensor:
    return standardize(a).x.T @ standardize(b).x / len(a)


def collapse() -> str:
    z = drawn(0, 120, 2)
    line = z[:, :1] * torch.tensor([1.0, 0.8]) + 0.05 * drawn(1, 120, 2)
    titles = ("all at one point", "all on one line", "spread in all directions")
    label = "Embeddings of two features: at one point, on one line, and spread in all directions"
    return panels(titles, [cloud(0.06 * z), cloud(line), cloud(z)], label)


def barlow_twins() -> str:
    n, d = 256, 16
    a, other = drawn(0, n, d), drawn(1, n, d)
    copies = a[:, torch.arange(d) // 4] + 0.2 * drawn(2, n, d)
    seen_twice = copies + 0.2 * drawn(3, n, d)
    learned = a + 0.15 * other
    titles = ("unrelated views", "features are copies", "what is asked for")
    tables = [correlation(a, other), correlation(copies, seen_twice), correlation(a, learned)]
    label = "Cross-correlations of the features of two views: noise, blocks, and a diagonal of ones"
    return panels(titles, [heat(table) for table in tables], label)


def vicreg() -> str:
    x = torch.linspace(0, 2, 81)
    hinge = (1 - x).clamp_min(0)
    titles = ("invariance: distance²", "variance: hinge on std", "covariance: cov²")
    bodies = [curve(x, x.square(), 2, 4), curve(x, hinge, 2, 1.2), curve(x, x.square(), 2, 4)]
    return panels(titles, bodies, "What each of VICReg's terms costs: a parabola, a hinge that ends at 1, a parabola")


def w_mse() -> str:
    z = drawn(4, 160, 2) @ torch.tensor([[1.5, 1.1], [0.0, 0.5]])
    return panels(
        ("before whitening", "after whitening"),
        [cloud(z, 4.5), cloud(cholesky_whiten(z.double(), 0.0)[0], 4.5)],
        "Embeddings of two features before and after whitening: an ellipse, and a round cloud",
    )


def contrast() -> str:
    """The softmax of InfoNCE: to each image (a row) how likely each other view (a column) is taken for its own."""
    n, temperature = 12, 0.1
    first, other = unit(drawn(5, n, 64)), unit(drawn(6, n, 64))
    views = unit(first + 0.4 * other)
    same = unit(torch.ones(n, 64))
    titles = ("unrelated views", "all at one point", "what is asked for")
    bodies = [heat((a @ b.T / temperature).softmax(1)) for a, b in ((first, other), (same, same), (first, views))]
    return panels(titles, bodies, "Which view is taken for whose: by chance, all equally likely, and a diagonal")


def prediction() -> str:
    """BYOL's loss by the angle of a prediction and its target, and how a target follows its network."""
    steps = torch.arange(121)
    moved = (1 - torch.exp(-steps / 12)) * 0.8
    target, follows = torch.zeros(()), []
    for weight in moved:
        target = 0.95 * target + 0.05 * weight
        follows.append(target)
    angle = torch.linspace(0, torch.pi, 81)
    titles = ("prediction: 2 − 2 cos", "the target follows slowly")
    slow = curve(steps, torch.stack(follows), 120, 1, "line second")
    bodies = [curve(angle, 2 - 2 * angle.cos(), torch.pi, 4.4), curve(steps, moved, 120, 1) + slow]
    return panels(titles, bodies, "A loss that grows with the angle, and a weight that another one follows")


def clusters() -> str:
    """SwAV's scores of 24 images and 6 prototypes, of which one suits all, and what Sinkhorn makes of them."""
    scores = 0.12 * drawn(7, 24, 6) + torch.tensor([0.5, 0, 0, 0, 0, 0])
    codes = sinkhorn(scores, 0.05, 10)
    order = codes.argmax(1).argsort(stable=True)
    asked = (scores / 0.05).softmax(1)
    titles = ("one prototype for all", "all are used alike")
    label = "Images and prototypes: one prototype takes all images, and each takes equally many"
    return panels(titles, [heat(asked[order]), heat(codes[order])], label)


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=1)


FIGURES = {
    "collapse": collapse,
    "barlow_twins": barlow_twins,
    "vicreg": vicreg,
    "w_mse": w_mse,
    "contrast": contrast,
    "prediction": prediction,
    "clusters": clusters,
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        (FOLDER / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
