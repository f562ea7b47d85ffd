"""Bare steps of the other topologies: their networks one by one, on tensors in memory, with nothing around them.

Each is a function like `siamese` in step.py: of what a bare step works on (`step.Built`), and makes the step.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

Built = Any
"""`step.Built`; that module imports this one."""

Step = Callable[[], None]


def classifier(built: Built) -> Step:
    """An encoder and a head on every view (rotation, DeepCluster v1, SeLa)."""
    method = built.learner.method

    def step() -> None:
        with built.autocast():
            groups = [(method.head(method.encoder(view)),) for view in built.views]
        built.update(groups)

    return step


def halves(built: Built) -> Step:
    """Two networks, one of lightness and one of colour, each with a projector (CMC)."""
    method = built.learner.method
    first, second = method.projectors

    def step() -> None:
        with built.autocast():
            groups = []
            for view in built.views:
                lightness, colour = method.encoder(view).chunk(2, dim=1)
                groups.append((first(lightness), second(colour)))
        built.update(groups)

    return step


def tiles_of(view: torch.Tensor, tiling: tuple[int, int]) -> torch.Tensor:
    """The tiles of all views one after the other, row by row."""
    (rows, columns), (n, channels, height, width) = tiling, view.shape
    high, wide = height // rows, width // columns
    cut = view.reshape(n, channels, rows, high, columns, wide).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(-1, channels, high, wide).contiguous(memory_format=torch.channels_last)


def _through(heads: Any, encoder: Any, view: torch.Tensor) -> torch.Tensor:
    parts = heads.rectifier(heads.each(encoder(tiles_of(view, heads.tiling))))
    joined: torch.Tensor = heads.together(parts.reshape(len(view), -1))
    return joined


def tiles(built: Built) -> Step:
    """An encoder on every tile, and heads on all of them (jigsaw, context prediction)."""
    method = built.learner.method

    def step() -> None:
        with built.autocast():
            groups = [(_through(method.heads, method.encoder, view),) for view in built.views]
        built.update(groups)

    return step


def image_and_tiles(built: Built) -> Step:
    """An image and its tiles (PIRL), and perhaps a slow copy that sees a second view (InfoMin)."""
    method, target = built.learner.method, built.learner.method.target
    image, *others = built.views
    seen, of_tiles = (None, others) if target is None else (others[0], others[1:])
    online = [*method.encoder.parameters(), *method.projector.parameters()]

    def step() -> None:
        with built.autocast():
            made = [method.projector(method.encoder(image))]
            made += [_through(method.tiles, method.encoder, view) for view in of_tiles]
            if target is not None:
                with torch.no_grad():
                    aim = target["projector"](target["encoder"](seen))
        built.update([tuple(made)] if target is None else [(z, aim) for z in made])
        if target is not None:
            _follow(target, online, method.momentum)

    return step


def tile_sum(built: Built) -> Step:
    """An image at half its size and its four quarters, in one pass, and a sum (counting)."""
    method = built.learner.method

    def step() -> None:
        with built.autocast():
            groups = []
            for view in built.views:
                n = len(view)
                seen = torch.cat([F.avg_pool2d(view, 2), tiles_of(view, (2, 2))])
                counts = method.rectifier(method.head(method.encoder(seen)))
                groups.append((counts[:n], counts[n:].view(n, 4, -1).sum(dim=1)))
        built.update(groups)

    return step


def patches(built: Built) -> Step:
    """An encoder on every patch of a grid, and masked networks in four directions (CPC)."""
    method = built.learner.method
    grid, side = method.section.grid, built.views[0].shape[2]
    apart = side // (grid + 1)
    patch = method.section.patch or side - (grid - 1) * apart
    apart = (side - patch) // (grid - 1)

    def in_order(places: torch.Tensor) -> torch.Tensor:
        return places.permute(0, 2, 3, 1).flatten(1)

    def step() -> None:
        with built.autocast():
            groups = []
            for view in built.views:
                cut = view.unfold(2, patch, apart).unfold(3, patch, apart).permute(0, 2, 3, 1, 4, 5)
                features = method.encoder(cut.reshape(-1, view.shape[1], patch, patch))
                seen = features.view(len(view), grid, grid, -1).permute(0, 3, 1, 2)
                for turns, direction in enumerate(method.directions):
                    turned = torch.rot90(seen, turns, (2, 3))
                    context, target = direction.context(turned), in_order(direction.target(turned))
                    for rows, layer in direction.predict.items():
                        groups.append((in_order(layer(context[:, :, : -int(rows)])), target))
        built.update(groups)

    return step


def slow_maps(built: Built) -> Step:
    """Crops through an encoder, the whole image through a slow copy whose maps are kept (OBoW)."""
    method = built.learner.method
    slow, section = method.target["encoder"], method.section
    whole, *crops = built.views
    sizes: dict[Any, list[Any]] = {}
    for crop in crops:
        sizes.setdefault(crop.shape[2:], []).append(crop)

    def step() -> None:
        with built.autocast():
            features = [f for same in sizes.values() for f in method.encoder(torch.cat(same)).chunk(len(same))]
            with torch.no_grad():
                maps = slow.forward_intermediates(whole, indices=method.stages, intermediates_only=True)
                edge = section.border
                inner = [m[:, :, edge : m.shape[2] - edge, edge : m.shape[3] - edge] for m in maps]
                aim = torch.cat([m.permute(0, 2, 3, 1).flatten(1) for m in inner], dim=1)
        built.update([(f, aim) for f in features])
        _follow(method.target, list(method.encoder.parameters()), section.momentum)

    return step


def colorization(built: Built) -> Step:
    """An encoder of lightness, and the logits of all places (colorization)."""
    from barlow.colour_spaces import lab
    from barlow.methods.colorization import grey_of_lightness

    method = built.learner.method

    def step() -> None:
        with built.autocast():
            groups = []
            for view in built.views:
                places = method.encoder.forward_features(grey_of_lightness(view))
                n, _, h, w = places.shape
                scores = method.head(places.permute(0, 2, 3, 1).flatten(0, 2)).view(n, h, w, -1).permute(0, 3, 1, 2)
                scores = F.pixel_shuffle(scores, method.fine)
                if scores.shape[2:] != method.grid:
                    scores = F.interpolate(scores, size=method.grid, mode="bilinear")
                with torch.no_grad():
                    colours = lab(F.interpolate(view, size=method.grid, mode="nearest"))[:, 1:].flatten(1)
                groups.append((scores.flatten(1), colours))
        built.update(groups)

    return step


@torch.no_grad()
def _follow(target: Any, online: list[Any], momentum: float) -> None:
    torch._foreach_lerp_(list(target.parameters()), online, 1 - momentum)
