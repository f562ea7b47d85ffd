"""`barlow evaluate … --protocol captions`: which caption belongs to an image, and which image to a caption."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from barlow import storage
from barlow.data import captioned, image_digests
from barlow.data.captions import OfImages, captions_of, digest
from barlow.data.centre import normalized, tried_centres
from barlow.data.decoding import UnreadableImage
from barlow.data.folder import FolderSource
from barlow.data.last_words import kept_from_the_screen
from barlow.data.sources import FoldersOrName, ImageSource, open_source
from barlow.distributed import choose_device
from barlow.encoders import FoundEncoder, Named, find_encoder
from barlow.evaluated_images import own_set
from barlow.exits import UnusableData
from barlow.machine import available_cores
from barlow.nets.handed_out import HandedOut
from barlow.printable import printable
from barlow.probes.features import network_identity
from barlow.probes.intervals import Score
from barlow.probes.recalls import KS, chance, places
from barlow.results import prepare_homes
from barlow.seals import digest_of
from barlow.stopping import Asked, Interrupted, listening
from barlow.telling import unfailing
from barlow.text_branch import TextBranch, branch_at
from barlow.types import Features
from barlow.wording import in_arguments

PROTOCOL = "captions"
DIRECTIONS = {"i2t": "image to text", "t2i": "text to image"}


class SameImages(UnusableData):
    """Images that are tested are among those that were trained on: their captions would be in both."""


@dataclass(frozen=True)
class Row:
    """The recalls of a run, and of what it is compared with.

    Args:
        name: of the encoder.
        recalls: by the metric's name, `i2t_recall@1` to `t2i_recall@10`.
        untrained: the same with heads and a text network as they were before training; None if not asked for.
        path: of the file that has them.
    """

    name: str
    recalls: dict[str, Score]
    untrained: dict[str, Score] | None
    path: Path


@dataclass(frozen=True)
class Retrieval:
    """The recalls of one or more runs on the same images and captions."""

    rows: list[Row]
    images: int
    captions: int
    chance: dict[str, float]
    notes: list[str]

    def table(self) -> str:
        """In percent, with intervals of 95 %, at most 80 columns wide."""
        lines = [f"captions  {self.images:,} images and {self.captions:,} captions are searched; in percent"]
        for short, direction in DIRECTIONS.items():
            names = [f"{short}_recall@{k}" for k in KS]
            searched = self.captions if short == "i2t" else self.images
            lines += ["", f"{f'{direction}, of {searched:,}':<26}" + "".join(f"{f'R@{k}':>18}" for k in KS)]
            for row in self.rows:
                lines.append(f"{_short(row.name):<26}" + "".join(f"{_cell(row.recalls[name]):>18}" for name in names))
                if row.untrained is not None:
                    cells = "".join(f"{_cell(row.untrained[name]):>18}" for name in names)
                    lines.append(f"{'  untrained heads':<26}{cells}")
            cells = "".join(f"{100 * self.chance[name]:>18.1f}" for name in names)
            lines.append(f"{'  chance':<26}{cells}")
        return "\n".join(lines)


def _cell(score: Score) -> str:
    return f"{100 * score.value:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def _short(name: str, width: int = 25) -> str:
    return name if len(name) <= width else f"…{name[1 - width :]}"


@in_arguments
def retrieve(
    named: Sequence[Named],
    test: FoldersOrName | None = None,
    *,
    baselines: bool = True,
    batch_size: int = 256,
    device: str = "auto",
    max_bad: float = 0.01,
    out: str | os.PathLike[str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Retrieval:
    """Measures runs of images and captions: recall at 1, 5 and 10 in both directions, over all images of `test`.

    Convention: VSE++'s, over one gallery. Its size is in the table: numbers of galleries of other sizes cannot be
    compared. Image to text counts a hit where any of the image's own captions is among the first k.

    Args:
        named: runs, or `RUN@STEP`, that were trained on captions.
        test: images with captions: a CSV file that begins with image,caption, or the name of a set. By default the
            test images of the runs' own set, if it has a name. None of them may have been trained on.
        baselines: whether to measure heads and a text network as they were before training, too.
        batch_size: images per forward pass.
        device: of the image encoder: cpu, cuda, mps or auto.
        max_bad: the share of images that may be unreadable.
        out: a folder for the results, in place of each run's `evaluation`.
        tell: receives messages of one line.

    Raises:
        ValueError: a run has no text encoder, there are no captions, or images of them were trained on. One line says
            what to do.
        Interrupted: it was asked to stop.
    """
    say = unfailing(tell)
    with listening(say) as requests:
        requests.given_up = lambda: "give the same command again"
        try:
            encoders = [find_encoder(each, taken="nothing", say=say) for each in named]
            branches = [_branch_of(each) for each in encoders]
            homes = prepare_homes([(each.name, each.run) for each in encoders], None if out is None else Path(out), say)
            gallery = test if test is not None else _own_test(encoders)
            rows, notes = list[Row](), list[str]()
            for encoder, branch, home in zip(encoders, branches, homes, strict=True):
                say(f"embedding {gallery} with {encoder.name}")
                read = _read(gallery, encoder, batch_size, choose_device(device), max_bad)
                notes += [line for line in read.notes if line not in notes]
                rows.append(_measured(encoder, branch, read, home, baselines))
            for note in notes:
                say(note)
            counts = [len(of_image) for of_image in read.captions]
            return Retrieval(rows, len(counts), sum(counts), chance(counts), notes)
        except Asked as asked:
            raise Interrupted("stopped; give the same command again") from asked


def _branch_of(encoder: FoundEncoder) -> TextBranch:
    if encoder.run is None:
        raise ValueError(f"{encoder.name} is no run, and captions need a run that was trained on them: give its folder")
    return branch_at(encoder.run, encoder.step)


def _own_test(encoders: Sequence[FoundEncoder]) -> str:
    names = {own_set(each.run) for each in encoders if each.run is not None}
    if len(names) == 1 and (name := names.pop()) is not None:
        return f"{name}:test"
    raise ValueError("--test is not given: name a CSV file of other images whose first line is image,caption")


@dataclass(frozen=True)
class _Read:
    """Features of the images that can be read, and their captions."""

    features: Features
    captions: OfImages
    source: str
    fingerprint: str
    notes: list[str]


@torch.no_grad()
def _read(images: FoldersOrName, encoder: FoundEncoder, batch_size: int, device: torch.device, max_bad: float) -> _Read:
    """Embeds every image once, and refuses those that the run was trained on."""
    expected = encoder.preprocessing
    source = open_source(images, split="test", channels=expected.channels, value_range=expected.value_range)
    captions = captions_of(source)
    if captions is None:
        raise UnusableData(f"--test {source.name} has no captions: give a CSV file whose first line is image,caption")
    network = _own_features(encoder.network).to(device)
    digests = source.digests if isinstance(source, FolderSource) else image_digests.none_yet(len(source))
    usable, features, batch, reasons = list[int](), list[torch.Tensor](), list[np.ndarray](), list[str]()

    def embed() -> None:
        features.append(network(normalized(np.stack(batch), expected).to(device)).float().cpu())
        batch.clear()

    with kept_from_the_screen():
        for index, centre in enumerate(tried_centres(source, range(len(source)), expected, available_cores())):
            if isinstance(centre, UnreadableImage):
                reasons.append(f"{printable(source.locate(index))}: {centre.reason}")
                continue
            if not isinstance(source, FolderSource):
                digests[index] = image_digests.of_pixels(source.read(index))
            usable.append(index)
            batch.append(centre)
            if len(batch) == batch_size:
                embed()
        if batch:
            embed()
    encoder.network.cpu()
    if len(reasons) > max_bad * len(source) or not usable:
        raise UnusableData(f"{len(reasons)} of {len(source)} images of {source.name} cannot be read: {reasons[0]}")
    assert encoder.run is not None
    _check_apart(digests[usable], encoder.run, source)
    notes = captioned.lines(source) + [f"skipped  {len(reasons)} images, such as {why}" for why in reasons[:1]]
    kept = [captions[index] for index in usable]
    fingerprint = digest_of([digest(kept), digests[usable].tolist()])
    return _Read(torch.cat(features), kept, source.name, fingerprint, notes)


def _own_features(network: nn.Module) -> nn.Module:
    """The network without what a run may put behind it: heads are trained on its own features."""
    inner = network.network if isinstance(network, HandedOut) else network
    return inner.eval()


def _check_apart(digests: image_digests.Digests, run: Path, source: ImageSource) -> None:
    """Refuses images that a run was trained on.

    Raises:
        SameImages: one of them was.
    """
    try:
        trained = image_digests.from_json(storage.read_sealed(run / "images.json"))
    except FileNotFoundError:
        return
    shared, certain = image_digests.shared(digests, trained)
    if shared:
        raise SameImages(
            f"{shared:,} of {len(digests):,} images of {source.name} were trained on by {printable(str(run))}, and are "
            f"the same {image_digests.words(certain)}: captions of one image may not be in both; give other images"
        )


def _measured(encoder: FoundEncoder, branch: TextBranch, read: _Read, home: Path, baselines: bool) -> Row:
    """The recalls of a run, written to a file whose name follows from all that they depend on."""
    if branch.num_features != read.features.shape[1]:
        raise UnusableData(
            f"{encoder.name}: its text encoder is for {branch.num_features} features, and its encoder gives "
            f"{read.features.shape[1]}: one of them is of another run"
        )
    recalls = _recalls(branch, read)
    untrained = None
    if baselines:
        fresh = TextBranch(branch.section, branch.num_features, branch.vocabulary)
        untrained = _recalls(fresh, read)
    counts = [len(of_image) for of_image in read.captions]
    about = {
        "encoder": encoder.name,
        "step": encoder.step,
        "encoder_identity": network_identity(encoder.network),
        "text_identity": network_identity(branch),
        "test": {"name": read.source, "images": len(counts), "captions": sum(counts), "fingerprint": read.fingerprint},
    }
    key = digest_of([about["encoder_identity"], about["text_identity"], read.fingerprint])[:8]
    path = home / f"captions-{key}.json"
    tables = {"trained": recalls, "untrained_heads": untrained or {}}
    content: dict[str, Any] = {
        name: {metric: vars(score) for metric, score in table.items()} for name, table in tables.items()
    }
    storage.write_sealed(path, {**about, "recalls": content, "chance": chance(counts)})
    return Row(encoder.name, recalls, untrained, path)


def _recalls(branch: TextBranch, read: _Read) -> dict[str, Score]:
    flat = [caption for of_image in read.captions for caption in of_image]
    owner = np.repeat(np.arange(len(read.captions)), [len(of_image) for of_image in read.captions])
    return places(branch.images(read.features).numpy(), branch.texts(flat).numpy(), owner).recalls()
