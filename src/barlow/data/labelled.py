"""Labelled images for an evaluation: which of them can be read, what their labels mean, and views for the networks."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Int64, UInt

from barlow.data import image_digests
from barlow.data.centre import decoded_centres, normalized
from barlow.data.counting import Counted, not_shown, over
from barlow.data.decoding import UnreadableImage
from barlow.data.folder import FolderSource
from barlow.data.inventory import TooManyUnreadable, counts, in_threads, kind_of
from barlow.data.last_words import kept_from_the_screen
from barlow.data.sources import FoldersOrName, ImageSource, open_source
from barlow.exits import NoInput, UnusableData
from barlow.machine import available_cores, available_memory
from barlow.nets.preprocessing import Preprocessing
from barlow.printable import printable
from barlow.seals import sha256
from barlow.size import Size, height_width
from barlow.types import Images
from barlow.views.keys import Keys
from barlow.views.ops import HorizontalFlip, Normalize, RandomResizedCrop, as_images
from barlow.wording import many

SHARE_OF_MEMORY = 0.25
"""Centre views are kept in memory if they need less than this share of what is free. Otherwise the images are decoded
again for each network."""

PROBE_VIEW = 1 << 32
"""The number of the view in the keys of augmented views. Pretraining has no view of this number: else a probe would be
trained on the very crops that the encoder has been trained on."""


@dataclass(frozen=True)
class LabelledSet:
    """The readable images of a source, their labels, and how the networks want to see them.

    Args:
        source: where the pixels come from.
        preprocessing: what the networks expect of an image.
        ids: which images of the source these are, in order. Images that cannot be read are left out.
        labels: class numbers (N,), or zeros and ones (N, k) for several labels an image.
        classes: the names of the classes that the labels number.
        sizes: height and width of each original.
        hashes: `pixel_hash` of each centre view.
        digests: of each image (`barlow.data.image_digests`).
        skipped: where the images are that cannot be read, and why they cannot.
        held: the centre views in memory; None if they are decoded whenever they are asked for.
    """

    source: ImageSource
    preprocessing: Preprocessing
    ids: Int64[np.ndarray, "n"]
    labels: np.ndarray
    classes: list[str]
    sizes: Int64[np.ndarray, "n 2"]
    hashes: list[str]
    digests: image_digests.Digests
    skipped: list[tuple[str, str]]
    held: UInt[np.ndarray, "n h w c"] | None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def fingerprint(self) -> str:
        """One hash for all images in their order: features that were computed from them are cached under it."""
        return fingerprint(self.hashes)

    @property
    def labels_digest(self) -> str:
        """`labels_digest` of the labels. Their numbers mean `classes`."""
        return labels_digest(self.labels)

    @property
    def skipped_note(self) -> str | None:
        """One line on the images that cannot be read; None if all can."""
        if not self.skipped:
            return None
        where, reason = self.skipped[0]
        images, are = many(len(self.skipped), "image", "images"), "is" if len(self.skipped) == 1 else "are"
        return f"{images} of {self.source.name} cannot be read and {are} left out ({where}: {reason})"

    def numbered_like(self, train: "LabelledSet") -> "LabelledSet":
        """The same images with the class numbers of the training set.

        Each source numbers its own classes. If the test images lack "ant", then "bee" is class 0 among them, and class
        1 among the training images.

        Raises:
            ValueError: there is a class that the training set does not have.
        """
        if self.classes == train.classes:
            return self
        foreign = [name for name in self.classes if name not in train.classes]
        if foreign:
            raise UnusableData(
                f"--test has classes that --train has not ({', '.join(foreign[:5])}); --train has "
                f"{', '.join(train.classes[:5])}{', …' if len(train.classes) > 5 else ''}: name the sub-folders alike"
            )
        numbers = [train.classes.index(name) for name in self.classes]
        if self.labels.ndim == 1:
            return replace(self, labels=np.array(numbers, np.int64)[self.labels], classes=train.classes)
        labels = np.zeros((len(self), len(train.classes)), self.labels.dtype)
        labels[:, numbers] = self.labels
        return replace(self, labels=labels, classes=train.classes)

    def take(self, rows: np.ndarray) -> "LabelledSet":
        """Some of the images, in this order."""
        return replace(
            self,
            ids=self.ids[rows],
            labels=self.labels[rows],
            sizes=self.sizes[rows],
            hashes=[self.hashes[row] for row in rows],
            digests=self.digests[rows],
            held=None if self.held is None else self.held[rows],
        )

    def at_size(self, size: Size) -> "LabelledSet":
        """The same images as centre views of another size. They are decoded again whenever they are asked for."""
        return replace(self, preprocessing=replace(self.preprocessing, size=size), held=None)

    def views(self, batch_size: int, rows: np.ndarray | None = None) -> Iterator[Images]:
        """Normalised batches of centre views, in the order of `ids`; with `rows`, of these positions in `ids` only."""
        rows = np.arange(len(self)) if rows is None else rows
        if self.held is None:
            ids = self.ids[rows]
            views = _readable(self, ids, decoded_centres(self.source, ids, self.preprocessing, available_cores()))
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            pixels = self.held[batch] if self.held is not None else np.stack([next(views) for _ in batch])
            yield normalized(pixels, self.preprocessing)

    def augmented_views(self, batch_size: int, seed: int, epoch: int, device: torch.device) -> Iterator[Images]:
        """Normalised batches in the order of `ids`, each image cropped and flipped at random.

        An image's view depends on the seed, the epoch and the image's id, and on nothing else.
        """
        crop, flip = RandomResizedCrop(self.preprocessing.size), HorizontalFlip()
        normalize = Normalize(self.preprocessing.mean, self.preprocessing.std)
        keys = Keys(seed, epoch, self.ids, PROBE_VIEW)
        boxes = crop.boxes(self.sizes[:, 0], self.sizes[:, 1], keys.for_op(0))

        def cut(row: int) -> np.ndarray:
            return crop.resample_one(self.source.read(int(self.ids[row])).transpose(2, 0, 1), boxes[row])

        crops = in_threads(cut, range(len(self)), available_cores())
        for start in range(0, len(self), batch_size):
            stop = min(start + batch_size, len(self))
            pixels = torch.from_numpy(np.stack([next(crops) for _ in range(start, stop)])).to(device)
            yield normalize(flip(as_images(pixels), keys.for_op(1).rows(start, stop)))


def _readable(images: LabelledSet, ids: np.ndarray, centres: Iterator[np.ndarray | None]) -> Iterator[np.ndarray]:
    """Raises UnreadableImage: an image that could be read a while ago cannot be read any more."""
    for image, centre in zip(ids, centres, strict=True):
        if centre is None:
            where = printable(images.source.locate(int(image)))
            raise UnreadableImage(f"{where} could be read a while ago, and cannot be read any more")
        yield centre


def read_labelled(
    images: FoldersOrName | ImageSource,
    split: str,
    preprocessing: Preprocessing,
    max_bad: float,
    counted: Counted = not_shown,
    *,
    called: str | None = None,
) -> LabelledSet:
    """Reads every image once: which can be read, how large it is, its hash, and its centre view where memory allows.

    Args:
        images: folders with a sub-folder for each class, a CSV file, the name of a set, or an open source.
        split: "train" or "test", for a named set.
        preprocessing: what the networks expect of an image.
        max_bad: the share of images that may be unreadable.
        counted: told how many files have been listed, and images read.
        called: what messages call the images, as in `--train`; None: by their split.

    Raises:
        NoInput: there are none of this name.
        ValueError: the images have no labels.
        TooManyUnreadable: too many of them cannot be read.
    """
    value_range, called = preprocessing.value_range, called or split
    opening = partial(open_source, split=split, channels=preprocessing.channels, value_range=value_range)
    try:
        source = opening(images, counted=counted)
    except NoInput as error:
        raise NoInput(f"--{called}: {error}") from None
    if source.labels is None or source.classes is None:
        raise UnusableData(
            f"--{called} {source.name} has no labels; put its images into one sub-folder for each class "
            f"({source.name}/CLASS/image.jpg), or list them in a CSV file (path,label)"
        )
    shape = (len(source), *height_width(preprocessing.size), preprocessing.channels)
    kind = np.dtype(np.uint8 if value_range is None else np.uint16)
    count, needed = len(source), math.prod(shape) * kind.itemsize
    fits = needed <= SHARE_OF_MEMORY * available_memory()
    held = np.empty(shape, kind) if fits else None
    sizes = np.zeros((count, 2), np.int64)
    digests = source.digests if isinstance(source, FolderSource) else image_digests.none_yet(count)

    def take(index: int) -> tuple[int, str, str]:
        try:
            image = source.read(index)
        except UnreadableImage as error:
            return index, "", error.reason
        sizes[index] = image.shape[:2]
        if not isinstance(source, FolderSource):
            digests[index] = image_digests.of_pixels(image)
        view = preprocessing.centre(image)
        if held is not None:
            held[index] = view
        return index, pixel_hash(view), ""

    with kept_from_the_screen():
        taken = list(over(in_threads(take, range(count), available_cores()), f"--{called} images read", count, counted))
    skipped = [(source.locate(index), reason) for index, digest, reason in taken if not digest]
    if len(skipped) > max_bad * count or len(skipped) == count:
        allow = min(1.0, np.ceil(100 * len(skipped) / count) / 100)
        kinds = counts(dict(Counter(kind_of(reason) for _, reason in skipped).most_common()))
        raise TooManyUnreadable(
            f"{len(skipped)} of {count} images of --{called} {source.name} cannot be read: {kinds}, such as "
            f"{printable(skipped[0][0])}: {skipped[0][1]}; remove them, or allow them with --max-bad {allow:g}",
            {"source": source.name, "skipped": [{"where": printable(where), "reason": why} for where, why in skipped]},
        )
    ids = np.array([index for index, digest, _ in taken if digest], np.int64)
    return LabelledSet(
        source=source,
        preprocessing=preprocessing,
        ids=ids,
        labels=np.asarray(source.labels)[ids],
        classes=list(source.classes),
        sizes=sizes[ids],
        hashes=[digest for _, digest, _ in taken if digest],
        digests=digests[ids],
        skipped=skipped,
        held=held[ids] if held is not None and skipped else held,
    )


def pixel_hash(image: np.ndarray) -> str:
    """A hash of an image's pixels and shape. A copy of a file under another name, or in another lossless format, has
    the same hash."""
    digest = hashlib.blake2b(f"{image.shape} {image.dtype};".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def labels_digest(labels: np.ndarray) -> str:
    """One hash for labels in their order."""
    return sha256(f"{labels.shape};".encode() + np.ascontiguousarray(labels, np.int64).tobytes())


def fingerprint(hashes: Sequence[str]) -> str:
    """One hash for a set of images in their order, from the hash of each."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
