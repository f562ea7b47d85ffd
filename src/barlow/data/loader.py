"""Batches of views: from memory, or from files through workers. Step s is the same whichever steps came before it."""

import math
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from barlow.data import workers
from barlow.data.decoding import Array, UnreadableImage
from barlow.data.known import Known
from barlow.data.order import Order, replacement, seed_of_looks
from barlow.data.sources import ImageSource
from barlow.data.workers import served
from barlow.printable import printable
from barlow.types import Ids, Images, Pixels, Rows, taken

ATTEMPTS = 100
"""Replacements tried for one image: with 1 % of bad files a hundred in a row do not happen by chance."""
WINDOW = 1_000
"""Recent samples in which failures are counted (a wave: the disk is gone)."""


class Pipeline(Protocol):
    """What the loaders need of `barlow.views.pipeline.ViewPipeline`."""

    @property
    def views(self) -> Sequence[object]: ...

    def from_memory(
        self, pixels: Pixels, sizes: Int64[Tensor, "n 2"], ids: Ids, seed: int, epoch: int
    ) -> list[Images]: ...

    def cropper(self, ids: NDArray[np.int64], seed: int, epoch: int) -> Callable[[Array, int], list[Array]]: ...

    def finish(self, crops: list[Pixels], ids: Ids, seed: int, epoch: int) -> list[Images]: ...

    def told(self, ids: Ids, seed: int, epoch: int) -> dict[str, Int64[Tensor, "n"]]: ...

    def centre_from_memory(self, pixels: Pixels, sizes: Int64[Tensor, "n 2"]) -> Images: ...

    def centre_crop(self, image: Array) -> Array: ...

    def finish_centre(self, crops: Pixels) -> Images: ...


@dataclass
class Batch:
    """One step's input, this process's block of it."""

    step: int
    epoch: int
    rows: Rows
    """Views, and what is known of them: the ids of the images that were taken, perhaps labels, and told draws."""
    replaced: list[tuple[int, int, str]] = field(default_factory=list)
    """(id that could not be read, id taken instead, reason)."""
    begins_epoch: bool = False
    notes: list[str] = field(default_factory=list)
    """What else happened while it was read, a line each."""


class MemoryLoader:
    """Batches from a set held in memory; the whole pipeline runs batched on the device.

    Args:
        pixels: the images, in the order of `ids`; moved to the device once.
        sizes: original (height, width) of each.
        ids: their positions in the source.
        pipeline: makes the views.
        batch_size: images per step, of all processes together.
        seed: of the order and of every draw.
        device: where the views are made.
        block: the rows of each batch that this process takes; all if not given.
        known: what is asked for of every position in the source, beside its image.

    Raises:
        ValueError: fewer images than a batch.
    """

    def __init__(
        self,
        pixels: Pixels,
        sizes: Int64[Tensor, "n 2"],
        ids: Ids,
        pipeline: Pipeline,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        block: slice | None = None,
        known: Known = Known(),  # noqa: B008  # it is frozen
    ) -> None:
        self.order = Order(len(pixels), batch_size, seed, block)
        self.steps_per_epoch = self.order.steps_per_epoch
        self.batch_size, self.seed, self.device = batch_size, seed, torch.device(device)
        self.pixels = pixels.to(self.device)
        self.sizes, self.ids, self.pipeline, self.known = sizes, ids, pipeline, known

    patience = 0.0  # nothing is waited for here (`StreamingLoader.patience`)

    def stream(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches of the steps start, start + 1, …, stop − 1."""
        for step in range(start, stop):
            rows = torch.from_numpy(self.order.rows(step))
            epoch, ids = self.order.epoch(step), self.ids[rows]
            images = taken(self.pixels, rows.to(self.device))
            views = self.pipeline.from_memory(images, self.sizes[rows], ids, self.seed, epoch)
            yield batch_of(self.order, step, _rows(self, views, ids, self.seed, epoch), [])

    def all_rows(self, drawn: int | None = None) -> Iterator[Rows]:
        """Every image once, in the order of the ids, as the view of its centre: this process's block of each batch.

        Args:
            drawn: number of a draw. Images then come in a random order of its own, as views of its own.
        """
        seed = seed_of_looks(self.seed)
        for block in self.order.all(drawn):
            rows = torch.from_numpy(block)
            if drawn is not None:
                images, ids = taken(self.pixels, rows.to(self.device)), self.ids[rows]
                views = self.pipeline.from_memory(images, self.sizes[rows], ids, seed, drawn)
                yield _rows(self, views, ids, seed, drawn)
                continue
            view = self.pipeline.centre_from_memory(taken(self.pixels, rows.to(self.device)), self.sizes[rows])
            yield Rows([view], {"ids": self.ids[rows]})


def _rows(loader: "MemoryLoader | StreamingLoader", views: list[Images], ids: Ids, seed: int, epoch: int) -> Rows:
    """Views with what is known of them, and what their ops tell of their draws."""
    return Rows(views, loader.known.of(ids, seed, epoch) | loader.pipeline.told(ids, seed, epoch))


def batch_of(order: Order, step: int, rows: Rows, replaced: list[tuple[int, int, str]]) -> Batch:
    """A step's batch, of its rows."""
    return Batch(step, order.epoch(step), rows, replaced, order.begins_epoch(step))


@dataclass
class _Sample:
    id: int
    crops: list[Array]  # empty: no replacement was readable either
    failures: list[tuple[int, str]]


@dataclass
class _Crops:
    ids: Ids
    views: list[Pixels]
    replaced: list[tuple[int, int, str]]
    failed: list[int]  # ids whose replacements all failed

    def pin_memory(self) -> "_Crops":  # by this name DataLoader finds what to pin
        return replace(self, views=[view.pin_memory() for view in self.views])


class StreamingLoader:
    """Batches from files: workers read, decode and crop; the rest of the pipeline runs batched in this process.

    A file that cannot be read any more is replaced by a pure function of (seed, epoch, id, attempt), and reported. The
    replacement is drawn with its own id: its row is the image exactly as it appears elsewhere in the epoch (in the same
    batch, two rows may then be equal). Nothing depends on the number of workers.

    Args:
        source: where the images are read.
        ids: positions in it of the usable images.
        pipeline: makes the views.
        batch_size: images per step, of all processes together.
        seed: of the order and of every draw.
        workers: processes that read; 0 reads in this one.
        device: where the views are finished.
        min_side: JPEGs may be decoded at a fraction of their size with at least this shorter side; 0 decodes in full.
        max_bad: the run stops when clearly more than this fraction of the last 1,000 samples had to be replaced.
        block: the rows of each batch that this process takes; all if not given.
        known: what is asked for of every position in the source, beside its image.

    Raises:
        ValueError: fewer images than a batch; while streaming, too many files that fail.
    """

    def __init__(
        self,
        source: ImageSource,
        ids: Ids | NDArray[np.int64],
        pipeline: Pipeline,
        batch_size: int,
        seed: int,
        workers: int = 2,
        device: torch.device | str = "cpu",
        *,
        min_side: int = 0,
        max_bad: float = 0.01,
        block: slice | None = None,
        known: Known = Known(),  # noqa: B008  # it is frozen
    ) -> None:
        usable = np.ascontiguousarray(np.asarray(ids, np.int64))
        self.order = Order(len(usable), batch_size, seed, block)
        self.steps_per_epoch = self.order.steps_per_epoch
        self.source, self.pipeline, self.ids = source, pipeline, usable
        self.batch_size, self.seed, self.device = batch_size, seed, torch.device(device)
        self.workers, self.max_bad = workers, max_bad
        self.min_side, self.known = min_side, known

    def stream(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches of the steps start, start + 1, …, stop − 1; workers live as long as the iterator.

        Workers prepare the crops of the batches to come (DataLoader's two for each) while the caller works on one. The
        rest of a batch's views is made when it is asked for: on a GPU that is queued behind the work of the step before
        without waiting for it.
        """
        recent: deque[bool] = deque(maxlen=WINDOW)  # of this stream: measuring the time of a step leaves no trace
        cropping = _CropDataset(self.source, self.ids, self.pipeline, self.seed, self.min_side)
        notes: list[str] = []

        def left(done: int) -> "DataLoader[_Sample]":
            return self._loader(cropping, _Requests(self.order, self.ids, start + done, stop))

        for step, crops in enumerate(served(left, stop - start, notes.append), start):
            self._watch(crops, recent)
            epoch = self.order.epoch(step)
            moved = [view.to(self.device, non_blocking=True) for view in crops.views]
            views = self.pipeline.finish(moved, crops.ids, self.seed, epoch)
            batch = batch_of(self.order, step, _rows(self, views, crops.ids, self.seed, epoch), crops.replaced)
            batch.notes.extend(notes)
            notes.clear()
            yield batch

    @property
    def patience(self) -> float:
        """Seconds that processes that do not answer are waited for, in all, before it is said that they are lost."""
        return workers.LIMIT_SECONDS * workers.MOST_FAILURES if self.workers else 0.0

    def all_rows(self, drawn: int | None = None) -> Iterator[Rows]:
        """Every image once, in the order of the ids, as the view of its centre: this process's block of each batch.

        A file that cannot be read any more is replaced as in `stream`, and its row then has the other image's id.

        Args:
            drawn: number of a draw. Images then come in a random order of its own, as views of its own.
        """
        seed = self.seed if drawn is None else seed_of_looks(self.seed)
        blocks = [_Request(self.ids[rows], drawn or 0) for rows in self.order.all(drawn)]
        kind = _CentreDataset if drawn is None else _CropDataset
        cropping = kind(self.source, self.ids, self.pipeline, seed, self.min_side)
        for crops in served(lambda done: self._loader(cropping, blocks[done:]), len(blocks), lambda line: None):
            self._watch(crops, deque(maxlen=WINDOW))
            if drawn is not None:
                moved = [view.to(self.device, non_blocking=True) for view in crops.views]
                views = self.pipeline.finish(moved, crops.ids, seed, drawn)
                yield _rows(self, views, crops.ids, seed, drawn)
                continue
            view = self.pipeline.finish_centre(crops.views[0].to(self.device, non_blocking=True))
            yield Rows([view], {"ids": crops.ids})

    def _loader(self, cropping: "_CropDataset", requests: Any) -> "DataLoader[_Sample]":
        return DataLoader(
            cropping,
            batch_sampler=requests,
            num_workers=self.workers,
            collate_fn=_collate,
            worker_init_fn=_start_worker,
            timeout=workers.LOOK_SECONDS if self.workers else 0.0,
            pin_memory=self.device.type == "cuda",  # from other memory a copy to the device is not asynchronous
            # Without it, DataLoader would take a number from torch's global generator.
            generator=torch.Generator().manual_seed(0),
        )

    def _watch(self, crops: _Crops, recent: deque[bool]) -> None:
        bad = {failed for failed, _, _ in crops.replaced}
        recent.extend(k < len(bad) for k in range(len(crops.ids)))
        wave, allowed = sum(recent), self.max_bad * WINDOW
        # Four standard deviations more: a long run would otherwise end by chance on a set just under the limit.
        if not crops.failed and wave <= allowed + 4 * math.sqrt(allowed):
            return
        examples = "; ".join(f"{printable(self.source.locate(i))}: {why}" for i, _, why in crops.replaced[:3])
        found = (
            f"{ATTEMPTS} images in a row cannot be read any more"
            if crops.failed
            else f"{wave} of the last {len(recent)} images cannot be read any more (--max-bad {self.max_bad:g})"
        )
        raise ValueError(f"{found}: {examples}; is the disk mounted? Afterwards go on with --resume")


@dataclass(frozen=True)
class _Request:
    """The samples of one step."""

    ids: NDArray[np.int64]
    epoch: int


class _Requests:
    """What each of the steps asked for needs: DataLoader's batch sampler."""

    def __init__(self, order: Order, ids: NDArray[np.int64], start: int, stop: int) -> None:
        self.order, self._ids, self._start, self._stop = order, ids, start, stop

    def __len__(self) -> int:
        return max(self._stop - self._start, 0)

    def __iter__(self) -> Iterator[_Request]:
        for step in range(self._start, self._stop):
            yield _Request(self._ids[self.order.rows(step)], self.order.epoch(step))


class _CropDataset(Dataset[_Sample]):
    """Reads the images of a step and crops their views; runs in the workers."""

    def __init__(
        self, source: ImageSource, ids: NDArray[np.int64], pipeline: Pipeline, seed: int, min_side: int
    ) -> None:
        self._source, self._ids, self._pipeline = source, ids, pipeline
        self._seed, self._min_side = seed, min_side

    def __getitems__(self, request: _Request) -> list[_Sample]:  # by this name DataLoader asks for a whole batch
        crop = self._cropper(request.ids, request.epoch)
        return [self._sample(int(id), request.epoch, crop, row) for row, id in enumerate(request.ids)]

    def _cropper(self, ids: NDArray[np.int64], epoch: int) -> Callable[[Array, int], list[Array]]:
        return self._pipeline.cropper(ids, self._seed, epoch)

    def _sample(self, wanted: int, epoch: int, crop: Callable[[Array, int], list[Array]], row: int) -> _Sample:
        id, failures = wanted, []
        for attempt in range(1, ATTEMPTS + 1):
            try:
                image = self._source.read(id, self._min_side)
            except UnreadableImage as error:
                failures.append((id, error.reason))
                id = int(self._ids[replacement(self._seed, epoch, wanted, attempt, len(self._ids))])
                crop, row = self._cropper(np.array([id]), epoch), 0
                continue
            except Exception as error:  # none that is foreseen
                error.add_note(f"it was reading {printable(self._source.locate(id))}")
                raise
            return _Sample(id, crop(image.transpose(2, 0, 1), row), failures)
        return _Sample(wanted, [], failures)


class _CentreDataset(_CropDataset):
    """The same for the centre of each image, without a draw."""

    def _cropper(self, ids: NDArray[np.int64], epoch: int) -> Callable[[Array, int], list[Array]]:
        return lambda image, row: [self._pipeline.centre_crop(image)]


def _collate(samples: Sequence[_Sample]) -> _Crops:
    whole = [sample.crops for sample in samples if sample.crops]
    views = [_stacked(crops) for crops in zip(*whole, strict=True)]
    return _Crops(
        torch.tensor([sample.id for sample in samples], dtype=torch.int64),
        views,
        [(failed, sample.id, reason) for sample in samples for failed, reason in sample.failures],
        [sample.id for sample in samples if not sample.crops],
    )


def _stacked(crops: Sequence[Array]) -> Pixels:
    """One tensor of all crops; in memory it is (n, h, w, c), as crops are."""
    c, h, w = crops[0].shape
    shape = (len(crops), h, w, c)
    if get_worker_info() is None:
        out = torch.from_numpy(np.empty(shape, crops[0].dtype))  # NumPy's pages are large, and cleared faster
    else:  # where the main process can read it: what is sent elsewhere is copied there first
        kind = torch.uint8 if crops[0].dtype == np.uint8 else torch.uint16
        storage = torch.UntypedStorage._new_shared(math.prod(shape) * kind.itemsize)
        out = torch.empty(0, dtype=kind).set_(storage, 0, shape)  # type: ignore[call-overload]
    np.stack([crop.transpose(1, 2, 0) for crop in crops], out=out.numpy())
    return out.permute(0, 3, 1, 2)


def _start_worker(_: int) -> None:
    # What asks to stop is for the main process, which saves and then ends the workers. (SIGTERM is how it ends them.)
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(1)
