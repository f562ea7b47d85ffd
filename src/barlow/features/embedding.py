"""`barlow embed`: the features of all images of a set, in one file, however often the command is stopped on the way."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from barlow import storage
from barlow.data.centre import normalized, tried_centres
from barlow.data.counting import Counted, NowAndThen
from barlow.data.decoding import UnreadableImage
from barlow.data.folder import FolderSource
from barlow.data.last_words import kept_from_the_screen
from barlow.data.sources import FoldersOrName, ImageSource, open_source
from barlow.distributed import World, joined
from barlow.encoders import find_encoder
from barlow.features import feature_files, feature_places
from barlow.features.feature_files import PART, TYPES, Part, Parts
from barlow.machine import available_cores
from barlow.nets.preprocessing import Preprocessing
from barlow.printable import printable
from barlow.probes.features import NotFinite
from barlow.probes.features import embed as features_of
from barlow.runs.run import Run
from barlow.seals import digest_of
from barlow.stopping import Asked, Interrupted, listening
from barlow.telling import Say, silent, unfailing
from barlow.wording import in_arguments

GO_ON = "what was embedded is kept, and the same command goes on from there"


@dataclass(frozen=True)
class Embedded:
    """What was written."""

    path: Path
    """Columns id, path, label (where the folders are classes) and vector; of `.npy` all but the vectors are in a `.csv`
    beside it."""
    rows: int
    width: int
    """Of a vector."""
    skipped: list[dict[str, Any]]
    """Images that cannot be read: id, where and reason. They are in a file beside it, `NAME.skipped.json`, as well."""


@in_arguments
def embed(
    encoder: str | os.PathLike[str] | nn.Module,
    data: FoldersOrName,
    out: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    batch_size: int = 256,
    device: str = "auto",
    overwrite: bool = False,
    tell: Say | None = None,
) -> Embedded | None:
    """Embeds every image of a set, and writes a row for each.

    Nothing but a few hundred images and their features is held at a time. What is done is kept in `OUT.parts` until the
    file is there; a command that was killed goes on with what is missing, and the file is the same, to the byte.
    Several processes, as torchrun or `--devices` start them, share the work.

    Args:
        encoder: a run folder, or anything that `barlow.encoders.find_encoder` knows.
        data: folders of images, or the name of a set.
        out: a file that ends in `.parquet` (needs pyarrow), or in `.npy`, with an index beside it.
        dtype: float32, or float16: half the size, and a thousandth of a number lost.
        batch_size: images per forward pass. It changes the numbers by rounding only.
        device: cpu, cuda, mps or auto.
        overwrite: whether a file that is there is replaced.
        tell: receives messages of one line.

    Returns:
        What was written; None in all processes but the first.

    Raises:
        ValueError: there is no such encoder or set; the file exists; or what is there from before is of others.
        Interrupted: on Ctrl-C, SIGTERM and what else asks to stop.
    """
    say, path = unfailing(tell), Path(out)
    feature_files.check_installed(path)
    if dtype not in TYPES:
        raise ValueError(f"--dtype {dtype}: give {' or '.join(TYPES)}")
    if batch_size < 1:
        raise ValueError(f"--batch-size {batch_size}: at least 1")
    with listening(say) as requests:
        requests.given_up = lambda: GO_ON
        try:
            with joined(device) as world:
                return _embed(encoder, data, path, dtype, batch_size, overwrite, world, say if world.main else silent)
        except Asked as asked:
            raise Interrupted(f"stopped; {GO_ON}") from asked


def _embed(
    encoder: str | os.PathLike[str] | nn.Module,
    data: FoldersOrName,
    path: Path,
    dtype: str,
    batch_size: int,
    overwrite: bool,
    world: World,
    say: Say,
) -> Embedded | None:
    if world.main:
        folders = [data] if isinstance(data, str | os.PathLike) else list(data)
        feature_places.check_before(path, folders, overwrite)
    found = find_encoder(encoder, taken="nothing", say=say)
    seen, network = found.preprocessing, found.network
    width = int(network.num_features)  # type: ignore[arg-type]
    counted = NowAndThen(say)
    source = open_source(data, channels=seen.channels, value_range=seen.value_range, counted=counted)
    about = feature_files.as_about(
        encoder=found.identity,
        images=digest_of([_fingerprint(source), len(source)]),
        preprocessing=seen.as_dict(),
        dtype=dtype,
        batch_size=batch_size,
    )
    size = -(-PART // batch_size) * batch_size
    parts = Parts(feature_places.parts_path(path), dict(about), len(source), size)
    with _alone(parts, world, say):
        missing = world.share(json.dumps(_begun(parts, path, overwrite, say)) if world.main else None)
        todo = json.loads(missing)[world.rank :: world.size]
        _compute(parts, todo, source, network, seen, TYPES[dtype], batch_size, world, counted)
        world.collect(torch.zeros(1, device=world.device))  # all parts of all processes are there
        if not world.main:
            return None
        say(f"writing {path}")
        written = feature_files.write(path, parts, source, width)
        listed = feature_places.skipped_path(path)
        storage.remove_own(listed)  # of an earlier file of this name; that it is one has been looked at
        if written.skipped:
            storage.write_json(listed, written.skipped)
            first = written.skipped[0]
            say(
                f"{len(written.skipped)} of {len(source)} images cannot be read and have no row "
                f"({printable(first['where'])}: {first['reason']}); all of them are in {listed}"
            )
    parts.remove()
    return Embedded(path, written.rows, width, written.skipped)


def _fingerprint(source: ImageSource) -> str:
    return source.fingerprint() if isinstance(source, FolderSource) else source.name


@contextlib.contextmanager
def _alone(parts: Parts, world: World, say: Say) -> Iterator[None]:
    """One command at a time computes these parts."""
    if not world.main:
        yield
        return
    parts.check_ours()
    storage.make_folder(parts.folder)
    with Run(parts.folder).locked(say):
        yield


def _begun(parts: Parts, path: Path, overwrite: bool, say: Say) -> list[int]:
    """The parts that are missing."""
    missing = parts.prepare()
    feature_files.remove_leftovers(path)
    if missing:  # else the files may be those of this command, which was killed before it could remove the parts
        try:
            feature_places.check_free(path, overwrite)
        except storage.CannotCreate:
            if len(missing) == len(parts):
                parts.remove()
            raise
    if len(missing) < len(parts):
        say(f"going on: {len(parts) - len(missing)} of {len(parts)} parts are there")
    return missing


def _compute(
    parts: Parts,
    todo: list[int],
    source: ImageSource,
    network: nn.Module,
    seen: Preprocessing,
    dtype: torch.dtype,
    batch_size: int,
    world: World,
    counted: Counted,
) -> None:
    """Computes parts, one after the other; images of the next are decoded while the network is busy with one."""
    threads = max(1, available_cores() // world.neighbours)
    total, done = sum(len(parts.ids(part)) for part in todo), 0
    with kept_from_the_screen():
        ids = (i for part in todo for i in parts.ids(part))
        centres = tried_centres(source, ids, seen, threads)
        for part in todo:
            content = _one(parts.ids(part), centres, network, seen, dtype, batch_size, world, source)
            parts.write(part, content)
            done += len(parts.ids(part))
            counted("images embedded", done, total)


def _one(
    ids: range,
    centres: Iterator[np.ndarray | UnreadableImage],
    network: nn.Module,
    seen: Preprocessing,
    dtype: torch.dtype,
    batch_size: int,
    world: World,
    source: ImageSource,
) -> Part:
    readable: list[int] = []
    skipped: list[tuple[int, str]] = []

    def views() -> Iterator[torch.Tensor]:
        """Batches of those that can be read: which ones share a batch depends on the images alone."""
        batch: list[np.ndarray] = []
        for i in ids:
            centre = next(centres)
            if isinstance(centre, UnreadableImage):
                skipped.append((i, printable(centre.reason or "unreadable")))
                continue
            readable.append(i)
            batch.append(centre)
            if len(batch) == batch_size:
                yield normalized(np.stack(batch), seen)
                batch = []
        if batch:
            yield normalized(np.stack(batch), seen)

    batches = views()
    first = next(batches, None)
    width = int(network.num_features)  # type: ignore[arg-type]
    if first is None:
        return Part(np.array(readable, np.int64), torch.zeros(0, width, dtype=dtype), skipped)
    features = features_of(network, _with(first, batches), world.device).to(dtype)
    if not bool(torch.isfinite(features).all()):
        bad = readable[int((~torch.isfinite(features).all(1)).nonzero()[0])]
        small = "; --dtype float32 holds larger numbers" if dtype == torch.float16 else ""
        raise NotFinite(f"the features of {printable(source.locate(bad))} are not finite{small}")
    return Part(np.array(readable, np.int64), features, skipped)


def _with(first: torch.Tensor, rest: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    yield first
    yield from rest
