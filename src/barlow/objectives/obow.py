"""OBoW: crops of an image should say which visual words a slow network sees in the whole of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from barlow.linalg import Scalar
from barlow.objectives._draws import drawn
from barlow.objectives._inputs import check_positive, full_precision, mean
from barlow.objectives._levels import Levels
from barlow.objectives._words import Map, Words, divergence, window_mean
from barlow.types import Embedding, Ids, MapSizes, Terms

__all__ = ["OBoW"]

MOST = 2**20
"""Words of a list: 128 times as many as for ImageNet."""


@dataclass(frozen=True, kw_only=True)
class OBoW:
    """A crop predicts the bag of visual words that a slow network sees in the whole image.

    There is a list of words for each map (level) of the slow network. At position u of an image's map, word k has the
    weight aᵤₖ = softmaxₖ(-(inverse_temperature / μ) ‖mᵤ - wordₖ‖²). The image's bag is y = maxᵤ aᵤ, scaled to sum 1.
    A network makes a direction of each word, vₖ = unit(B relu(norm(A unit(wordₖ))) + b), and a crop with features p
    predicts softmaxₖ(kappa p · vₖ). Its loss is the mean over levels of the mean over rows of KL(y ‖ prediction).

    The loss is the mean over the crops of a kind, and the sum over kinds (`crops`). Then every image leaves a word in
    each list, in the place of the oldest: the mean of a window of its map at a place that is drawn. μ follows the mean
    distance of positions from their nearest words: μ ← memory μ + (1 - memory) mean, before it is used.

    Terms: ``bags``.

    Source: Gidaris et al., Online Bag-of-Visual-Words Generation for Unsupervised Representation Learning (arXiv
        2012.11552), sections 3.1 to 3.3; valeoai/obow at 3758504, obow/builder_obow.py.
    Convention: bags, and the directions of words, are made of the lists as the last step left them. μ is 0.5 at the
        start, and words are max(0, normal), drawn from ``seed``. Features are not scaled to length 1. The norm is a
        batch norm over the words of a list, and has no running statistics: nothing is ever predicted outside of
        training. The place of a window is a function of (seed, step, id). Targets get no gradient. Products are
        computed in float64 where they are few (float32 on devices without it); where they are many, as on ImageNet, in
        float32, and distances around the mean of the words, so that they do not cancel. The loss is KL, of which the
        paper's cross-entropy differs by the entropy of the bags.
    Deviation: none. Where a method gives groups with several targets of an image (as one does that predicts every
        view from every other), words are those of the first.

    Args:
        words: in the list of each level, a multiple of the batch.
        inverse_temperature: (1/δ) above 0, of the weights of words, relative to 1/μ.
        kappa: (κ) above 0, the inverse temperature of predictions; it is not trained.
        hidden: width of the network that makes directions of words; twice the features' in the paper.
        window: side of the windows of which words are means, in positions; of a smaller map all of it.
        memory: in [0, 1), of the mean distance μ.
        crops: how many crops there are of each kind, in their order; null: all are of one kind.

    Raises:
        ValueError: hyper-parameters out of range; groups that are no pairs of features and maps, of the sizes that it
            was built for; a list that is no multiple of the batch; crops that are not as many as groups.

    Example:
        >>> objective = OBoW(words=4, hidden=8).build(width=3, maps=[(2, 2, 5)], seed=0)
        >>> p, maps = torch.ones(2, 3), torch.rand(2, 2 * 2 * 5)
        >>> bool(objective([(p, maps)], ids=torch.arange(2))["bags"] > 0)
        True
    """

    moving_target: ClassVar[bool] = True

    words: int = 8192
    inverse_temperature: float = 15.0
    kappa: float = 8.0
    hidden: int = 4096
    window: int = 3
    memory: float = 0.99
    crops: list[int] | None = None

    def __post_init__(self) -> None:
        check_positive(inverse_temperature=self.inverse_temperature, kappa=self.kappa)
        for name, value, least, most in (
            ("words", self.words, 2, MOST),
            ("hidden", self.hidden, 1, MOST),
            ("window", self.window, 1, 1000),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}: give a whole number from {least} to {most:,}")
        if not 0 <= self.memory < 1:
            raise ValueError(f"memory is {self.memory}: give a number in [0, 1), 0.99 for example")
        if self.crops is not None and (not self.crops or min(self.crops) < 1):
            raise ValueError(f"crops is {self.crops}: give the number of crops of each kind, such as [2, 5], or null")

    def levels(self, rows: int, width: int) -> Levels:
        """Unrelated: it depends on how evenly words are used, for which no formula is known. Floor: a divergence's."""
        return Levels(None, 0.0)

    def build(self, *, width: int, maps: MapSizes | None = None, seed: int) -> "WordLists":
        """The lists of words and the networks that make directions of them.

        Args:
            width: of the features that predict.
            maps: height, width and channels of each level's map; by default a target is one position, as wide as the
                features.
            seed: for initial words and weights, and for the places of windows.
        """
        return WordLists(self, width, maps or [(1, 1, width)], seed)


class WordLists(nn.Module):
    """OBoW's loss with its lists of words, one for each of `maps`; `steps` counts the steps, `oldest` is the word that
    the next one replaces."""

    seed: Tensor
    steps: Tensor
    oldest: Tensor

    def __init__(self, section: OBoW, width: int, maps: MapSizes, seed: int) -> None:
        super().__init__()
        self.section, self.width, self.maps = section, width, [tuple(size) for size in maps]
        generator = torch.Generator().manual_seed(seed)
        lists = [Words(section.words, size[2], section.hidden, width, generator) for size in self.maps]
        self.levels = nn.ModuleList(lists)
        self.register_buffer("seed", torch.tensor(seed))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))

    def forward(self, groups: list[tuple[Embedding, Embedding]], *, ids: Ids) -> Terms:
        if not groups or any(len(group) != 2 for group in groups):
            sizes = [len(group) for group in groups]
            raise ValueError(
                f"groups of {sizes}: OBoW compares features with maps, give [(p, t)] or [(p1, t), (p2, t)]"
            )
        different = {id(t): t.detach() for _, t in groups}  # crops of an image share its maps
        place = {key: number for number, key in enumerate(different)}
        crops = [p for p, _ in groups]
        with full_precision(crops, fewest=1) as p, full_precision([*different.values()], fewest=1) as targets:
            if len(p[0]) != len(targets[0]):
                raise ValueError(
                    f"{len(p[0])} rows of features and {len(targets[0])} of maps: they have one shape but for the width"
                )
            self.check_sizes(len(p[0]), [tuple(z.shape[1] for z in group) for group in groups])
            precision = torch.promote_types(p[0].dtype, targets[0].dtype)
            maps = [self._maps_of(t.to(precision)) for t in targets]
            of_crops: list[list[Scalar]] = [[] for _ in groups]
            distances = []
            for level, words in enumerate(self._lists()):
                s = self.section
                bags, distance = words.bags([m[level] for m in maps], s.inverse_temperature, s.memory)
                weights = words.directions(precision)
                distances.append(distance)
                for crop, (features, (_, t)) in enumerate(zip(p, groups, strict=True)):
                    of_crops[crop].append(divergence(features, weights, bags[place[id(t)]], s.kappa))
            terms = {"bags": self._over_kinds([mean(levels) for levels in of_crops]).to(precision)}
            self._remember(maps[0], distances, ids)
            return terms

    def _lists(self) -> list[Words]:
        return [words for words in self.levels if isinstance(words, Words)]

    def _maps_of(self, t: Embedding) -> list[Map]:
        parts = t.split([math.prod(size) for size in self.maps], dim=1)
        return [part.unflatten(1, size) for part, size in zip(parts, self.maps, strict=True)]

    def _over_kinds(self, losses: Sequence[Scalar]) -> Scalar:
        """The sum over kinds of the mean over the crops of a kind."""
        kinds = torch.stack(list(losses)).split(self.section.crops or [len(losses)])
        return torch.stack([kind.mean() for kind in kinds]).sum()

    @torch.no_grad()
    def _remember(self, maps: Sequence[Map], distances: Sequence[Scalar], ids: Ids) -> None:
        """The images' words take the places of the oldest, and μ moves."""
        places = (self.oldest + torch.arange(len(ids), device=self.oldest.device)) % self.section.words
        for level, (words, distance, of_images) in enumerate(zip(self._lists(), distances, maps, strict=True)):
            bits = drawn(self.seed, "windows of maps", self.steps, ids, part=level)
            fresh = window_mean(of_images, bits, self.section.window)
            words.words.index_copy_(0, places, fresh.to(words.words.dtype))
            words.distance.copy_(distance)
        self.oldest.add_(len(ids)).remainder_(self.section.words)
        self.steps.add_(1)

    def check_sizes(self, rows: int, widths: Sequence[tuple[int, ...]]) -> None:
        """Refuses groups that a step could not use, before there are any.

        Args:
            rows: of the batch.
            widths: of the members of each group.
        """
        s = self.section
        if wrong := [p for p, _ in widths if p != self.width]:
            raise ValueError(f"features of {wrong[0]}, and it was built for {self.width}: build it for {wrong[0]}")
        whole = sum(math.prod(size) for size in self.maps)
        if wrong := [t for _, t in widths if t != whole]:
            shapes = " and ".join(" × ".join(map(str, size)) for size in self.maps)
            raise ValueError(
                f"maps of {wrong[0]} numbers an image, and it was built for {whole} ({shapes}): maps have one shape in "
                "all steps, build it for the one that they have"
            )
        if s.crops is not None and sum(s.crops) != len(widths):
            raise ValueError(
                f"crops is {s.crops}, which are {sum(s.crops)}, and a step has {len(widths)}: give as many"
            )
        if s.words % rows:
            near = max(round(s.words / rows), 1) * rows
            raise ValueError(
                f"a batch of {rows} leaves as many words, and a list of {s.words} is no multiple: use another batch "
                f"size, or {near} words"
            )
