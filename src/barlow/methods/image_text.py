"""Images and their captions: an image encoder on one side, words and a GRU on the other, compared with each other."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from barlow.data.vocabulary import MARKS, SPECIAL
from barlow.methods._networks import Method, checked_views, features_of
from barlow.nets.heads import Head
from barlow.nets.text import GRUText
from barlow.objectives._directions import directions
from barlow.types import Features, Ids, Outputs, Rows

if TYPE_CHECKING:
    from barlow.methods import NewEncoder

__all__ = ["ImageText"]


@dataclass(frozen=True, kw_only=True)
class ImageText:
    """Two branches of different kinds: the image goes through the recipe's encoder, its caption through a GRU.

    Behind each is a head, and the objective compares an image's embedding with its caption's. It takes any objective
    that compares views: VICReg, Barlow Twins, SimCLR, VSE++'s hinge. The images need captions, of which a step gets one
    for each image. The run keeps the image encoder, as every run does, and the other networks in `text_encoder/`.

    Source: Bardes, Ponce, LeCun, VICReg (arXiv 2105.04906), section 5.3 and table 3, for VICReg and Barlow Twins
        between images and text; Faghri et al., VSE++ (arXiv 1707.05612, released code) for the networks.
    Convention: the features of both sides are scaled to length 1 before the heads (`unit_features`), as in VSE++. With
        several views of an image each is compared with the caption, and views are not compared with each other.
    Deviation: the heads of table 3 are not published. VSE++ has a linear layer behind the image encoder, and nothing
        behind the GRU (`text_projector: none`).

    Args:
        projector: from the image encoder's features to the embedding.
        text_projector: the same behind the GRU; null: a head like the first, with weights of its own; none: the GRU's
            state is the embedding.
        words: how many numbers the vocabulary has; auto: as many as the captions give.
        min_count: how often a word has to occur in the captions; others are all one unknown word.
        longest: captions are cut to so many words, with the marks of start and end.
        embedding: numbers of a word's vector.
        hidden: of the GRU's state, which after the last word is the features of the caption.
        init_range: of the first values of the words' vectors.
        unit_features: whether features are scaled to length 1 before the heads.
        frozen: whether the image encoder stays as it is. Its features are then computed once, of the centre of every
            image, and kept in memory: an epoch takes seconds. Give weights with `--init`.

    Raises:
        ValueError: projectors whose embeddings differ in width; a number out of range.
    """

    gives: ClassVar[str] = "views"
    asks: ClassVar[tuple[str, ...]] = ("caption",)
    """What it needs to know of each row."""

    projector: Head
    text_projector: Head | Literal["none"] | None = None
    words: int | Literal["auto"] = "auto"
    min_count: int = 2
    longest: int = 64
    embedding: int = 256
    hidden: int = 256
    init_range: float = 0.1
    unit_features: bool = True
    frozen: bool = False

    def __post_init__(self) -> None:
        head = self.text_projector
        of_text = self.hidden if head == "none" else (head or self.projector).widths[-1]
        if of_text != self.projector.widths[-1]:
            raise ValueError(
                f"the projectors end in {self.projector.widths[-1]} and {of_text} features, and embeddings of images "
                "and captions are compared: give both the same last width"
            )
        if self.words != "auto" and self.words <= SPECIAL:
            raise ValueError(f"words is {self.words}: {SPECIAL} of them stand for no word, so give more, or auto")
        for name, least in (("min_count", 1), ("longest", MARKS + 1), ("embedding", 1), ("hidden", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: give {least} or more")

    def widths(self, views: int) -> list[tuple[int, ...]]:
        return [(self.projector.widths[-1],) * 2] * views

    def with_words(self, words: int) -> "ImageText":
        """The same for a vocabulary of so many."""
        return replace(self, words=words)

    def build(self, new_encoder: "NewEncoder", seed: int) -> Method:
        encoder, width = new_encoder()
        return _ImageText(encoder, self.heads(width, seed), unit=self.unit_features, frozen=self.frozen)

    def heads(self, features: int, seed: int) -> nn.ModuleDict:
        """All networks but the image encoder, which has so many features."""
        if self.words == "auto":
            raise ValueError("words is auto: how many there are is known once the captions are")
        head = self.text_projector or self.projector
        text = GRUText(self.words, self.embedding, self.hidden, init_range=self.init_range, seed=seed)
        return nn.ModuleDict(
            {
                "projector": self.projector.build(features, seed, "projector"),
                "text": text,
                "text_projector": (
                    nn.Identity() if isinstance(head, str) else head.build(self.hidden, seed, "text projector")
                ),
            }
        )


class _ImageText(Method):
    def __init__(self, encoder: nn.Module, heads: nn.ModuleDict, *, unit: bool, frozen: bool) -> None:
        super().__init__()
        self.encoder, self.unit, self.frozen = encoder, unit, frozen
        self.projector, self.text, self.text_projector = heads["projector"], heads["text"], heads["text_projector"]
        self.holds_features = frozen
        self._held: tuple[Ids, Features] | None = None
        if frozen:
            encoder.requires_grad_(False)
            encoder.eval()

    def train(self, mode: bool = True) -> "_ImageText":
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def hold(self, ids: Ids, features: Features) -> None:
        self._held = ids, features

    def forward(self, rows: Rows) -> Outputs:
        features = self._features(rows)
        z = [self.projector(self._scaled(f)) for f in features]
        if "caption" not in rows.known:  # whoever looks at images alone, to see whether they collapse
            return Outputs(features, [(each, each) for each in z])
        text = self.text_projector(self._scaled(self.text(rows.known["caption"])))
        return Outputs(features, [(each, text) for each in z])

    def _features(self, rows: Rows) -> list[Features]:
        """Of each view; those that are held in place of all, in training alone: what is looked at beside it comes
        without an image of the set.

        Raises:
            ValueError: an image has none, and no view either: it could not be read when they were computed.
        """
        if self.training and self._held is not None:
            known, features = self._held
            ids = rows.known["ids"].to(known.device)
            place = torch.searchsorted(known, ids).clamp(max=len(known) - 1)
            if bool((known[place] == ids).all()):
                return [features[place]]
            if not rows.views:
                unread = int(ids[known[place] != ids][0])
                raise ValueError(f"image {unread} could not be read when the features of all images were computed")
        return [features_of(self.encoder, view) for view in checked_views(rows, 1, "image_text")]

    def _scaled(self, features: Tensor) -> Tensor:
        return directions(features) if self.unit else features
