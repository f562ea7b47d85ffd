"""Batches are a function of (seed, step): not of the workers, nor of where a run was resumed."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from barlow.data.decoding import UnreadableImage
from barlow.data.folder import FolderSource
from barlow.data.loader import ATTEMPTS, Batch, MemoryLoader, StreamingLoader, replacement
from barlow.data.memory import hold
from barlow.data.sources import ArraySource
from barlow.views.ops import HorizontalFlip, RandomResizedCrop, RandomRotate90
from barlow.views.pipeline import ViewPipeline


def pipeline() -> ViewPipeline:
    ops = (RandomResizedCrop(size=8), HorizontalFlip())
    return ViewPipeline([ops, ops], mean=[0.4, 0.5, 0.6], std=[0.2, 0.2, 0.2])


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 12, 16, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> FolderSource:
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"{number:02d}.png")
    return FolderSource([tmp_path])


def streaming(
    source: object, ids: object = None, batch_size: int = 6, workers: int = 0, **options: object
) -> StreamingLoader:
    chosen = np.arange(20) if ids is None else ids
    return StreamingLoader(source, chosen, pipeline(), batch_size, seed=3, workers=workers, **options)  # type: ignore[arg-type]


def in_memory(batch_size: int = 6) -> MemoryLoader:
    _, held = hold(ArraySource("x", IMAGES), 16)
    return MemoryLoader(held.pixels, held.sizes, held.ids, pipeline(), batch_size, seed=3)


def assert_same(one: list[Batch], two: list[Batch]) -> None:
    assert [b.step for b in one] == [b.step for b in two]
    for a, b in zip(one, two, strict=True):
        assert (a.epoch, a.replaced) == (b.epoch, b.replaced)
        assert torch.equal(a.rows.known["ids"], b.rows.known["ids"])
        for x, y in zip(a.rows.views, b.rows.views, strict=True):
            assert torch.equal(x, y)


def test_workers_change_nothing(folder: FolderSource) -> None:
    ids = [k for k in range(20) if k != 5]
    (Path(folder.name) / "07.png").write_bytes(b"")  # fails while training
    none, one, two = (list(streaming(folder, ids, workers=w, max_bad=1).stream(0, 7)) for w in (0, 1, 2))
    assert_same(none, one)
    assert_same(none, two)
    assert any(batch.replaced for batch in none)


@pytest.mark.parametrize("kind", ["memory", "streaming"])
def test_a_step_does_not_depend_on_the_steps_before(folder: FolderSource, kind: str) -> None:
    loader = in_memory() if kind == "memory" else streaming(folder)
    whole = list(loader.stream(0, 8))
    resumed = list((in_memory() if kind == "memory" else streaming(folder)).stream(5, 8))
    assert_same(whole[5:], resumed)


def test_both_loaders_take_the_same_images_and_nearly_the_same_views(folder: FolderSource) -> None:
    for a, b in zip(in_memory().stream(0, 4), streaming(folder).stream(0, 4), strict=True):
        assert torch.equal(a.rows.known["ids"], b.rows.known["ids"])
        assert a.epoch == b.epoch


@pytest.mark.parametrize("kind", ["memory", "streaming"])
def test_every_image_comes_once_an_epoch_in_another_order_and_the_short_batch_is_dropped(
    folder: FolderSource, kind: str
) -> None:
    loader = in_memory() if kind == "memory" else streaming(folder)
    assert loader.steps_per_epoch == 3
    batches = list(loader.stream(0, 6))
    assert [batch.epoch for batch in batches] == [0, 0, 0, 1, 1, 1]
    assert [batch.begins_epoch for batch in batches] == [True, False, False] * 2
    assert [batch.begins_epoch for batch in loader.stream(4, 7)] == [False, False, True]  # of a resumed run
    epochs = [torch.cat([b.rows.known["ids"] for b in batches[k : k + 3]]).tolist() for k in (0, 3)]
    assert all(len(set(ids)) == 18 for ids in epochs)
    assert epochs[0] != epochs[1]
    assert all(view.shape == (6, 3, 8, 8) and view.dtype == torch.float32 for b in batches for view in b.rows.views)
    assert batches[0].rows.known["ids"].dtype == torch.int64


@pytest.mark.parametrize("kind", ["memory", "streaming"])
def test_what_a_batch_tells_of_a_rotation_is_what_was_done_to_its_pixels(tmp_path: Path, kind: str) -> None:
    image = np.zeros((12, 16, 3), np.uint8)
    image[:6, :8] = 255  # bright where the top left was
    for number in range(20):
        Image.fromarray(image).save(tmp_path / f"{number:02d}.png")
    whole = RandomResizedCrop(size=8, scale=(1, 1), ratio=(4 / 3, 4 / 3))
    turning = ViewPipeline([(whole, RandomRotate90())], mean=[0.5] * 3, std=[0.5] * 3)
    if kind == "memory":
        _, held = hold(FolderSource([tmp_path]), 16)
        loader: MemoryLoader | StreamingLoader
        loader = MemoryLoader(held.pixels, held.sizes, held.ids, turning, 6, seed=3)
    else:
        loader = StreamingLoader(FolderSource([tmp_path]), np.arange(20), turning, 6, seed=3, workers=1)
    told, seen = [], []
    for batch in loader.stream(0, 9):
        told += batch.rows.known["rotation"].tolist()
        corners = batch.rows.views[0][:, 0][:, [0, -1, -1, 0], [0, 0, -1, -1]]  # where 0 to 3 quarter turns bring it
        seen += corners.argmax(1).tolist()
    assert seen == told
    assert set(told) == {0, 1, 2, 3}


def test_another_seed_gives_other_batches() -> None:
    _, held = hold(ArraySource("x", IMAGES), 16)
    one, two = (
        next(MemoryLoader(held.pixels, held.sizes, held.ids, pipeline(), 6, seed).stream(0, 1)) for seed in (0, 1)
    )
    assert one.rows.known["ids"].tolist() != two.rows.known["ids"].tolist()


def test_ids_are_those_of_the_source_when_some_are_skipped(folder: FolderSource) -> None:
    usable = [1, 4, 5, 9, 13, 19]
    batch = next(streaming(folder, usable).stream(0, 1))
    assert sorted(batch.rows.known["ids"].tolist()) == usable
    _, held = hold(ArraySource("x", IMAGES), 16)
    rows = torch.tensor(usable)
    loader = MemoryLoader(held.pixels[rows], held.sizes[rows], held.ids[rows], pipeline(), 6, seed=3)
    assert torch.equal(next(loader.stream(0, 1)).rows.known["ids"], batch.rows.known["ids"])


def test_views_are_those_of_the_image_named(folder: FolderSource) -> None:
    batch = next(streaming(folder, workers=1).stream(4, 5))
    for row, id in enumerate(batch.rows.known["ids"].tolist()):
        crops = pipeline().crop_one(IMAGES[id].transpose(2, 0, 1), id, 3, batch.epoch)
        views = pipeline().finish([torch.from_numpy(crop)[None] for crop in crops], np.array([id]), 3, batch.epoch)
        for k in (0, 1):
            torch.testing.assert_close(batch.rows.views[k][row], views[k][0])


def test_a_file_that_fails_is_replaced_by_the_image_the_hash_names(folder: FolderSource) -> None:
    usable = [k for k in range(20) if k not in (0, 1)]
    (Path(folder.name) / "07.png").unlink()
    batches = list(streaming(folder, usable, max_bad=1).stream(0, 3))
    replaced = [entry for batch in batches for entry in batch.replaced]
    assert len(replaced) == 1
    failed, taken, reason = replaced[0]
    assert failed == 7
    assert "No such file" in reason
    assert taken == usable[replacement(3, 0, 7, 1, len(usable))]
    ids = torch.cat([batch.rows.known["ids"] for batch in batches]).tolist()
    assert 7 not in ids
    assert ids.count(taken) == 2
    # Its row is the image as it appears elsewhere in the epoch.
    rows = [(b, r) for b in batches for r, id in enumerate(b.rows.known["ids"].tolist()) if id == taken]
    (a, row_a), (b, row_b) = rows
    assert torch.equal(a.rows.views[0][row_a], b.rows.views[0][row_b])


def test_replacements_are_spread_and_depend_on_every_part_of_the_key() -> None:
    drawn = {
        (s, e, i, a): replacement(s, e, i, a, 10_000)
        for s in range(5)
        for e in range(5)
        for i in range(5)
        for a in range(1, 6)
    }
    assert len(set(drawn.values())) > 590
    assert drawn == {key: replacement(*key, 10_000) for key in drawn}
    assert set(replacement(0, 0, i, 1, 4) for i in range(100)) == {0, 1, 2, 3}


def test_a_lost_disk_stops_the_run_with_a_question(folder: FolderSource) -> None:
    loader = streaming(folder)
    stream = loader.stream(0, 6)
    next(stream)
    for path in Path(folder.name).iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=rf"{ATTEMPTS} images in a row .*is the disk mounted\?.*--resume") as caught:
        list(stream)
    assert "\n" not in str(caught.value)


class Flaky(ArraySource):
    """Every image whose id is a multiple of `every` has gone."""

    every = 10

    def read(self, index: int, min_side: int = 0) -> np.ndarray:
        if index % self.every == 0:
            raise UnreadableImage("gone")
        return super().read(index)


class Whole:
    """The quickest pipeline: views are the images."""

    def cropper(self, ids: np.ndarray, seed: int, epoch: int) -> Callable[[np.ndarray, int], list[np.ndarray]]:
        return lambda image, row: [image, image]

    def finish(self, crops: list[torch.Tensor], ids: object, seed: int, epoch: int) -> list[torch.Tensor]:
        return [crop.float() for crop in crops]

    def told(self, ids: object, seed: int, epoch: int) -> dict[str, torch.Tensor]:
        return {}


def test_a_wave_of_failures_stops_the_run_and_a_few_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "pipeline", Whole)
    images = np.zeros((2_000, 2, 2, 3), np.uint8)
    loader = streaming(Flaky("x", images), np.arange(2_000), batch_size=100)
    with pytest.raises(ValueError, match=r"of the last \d+ images cannot be read any more \(--max-bad 0\.01\)"):
        list(loader.stream(0, 20))
    source = Flaky("x", images)
    source.every = 200
    replaced = [
        entry for batch in streaming(source, np.arange(2_000), batch_size=100).stream(0, 40) for entry in batch.replaced
    ]
    assert len(replaced) == 20


@pytest.mark.parametrize("kind", ["memory", "streaming"])
def test_fewer_images_than_a_batch_names_one_that_works(folder: FolderSource, kind: str) -> None:
    with pytest.raises(ValueError, match="20 usable images are fewer than a batch of 64: use --batch-size 16"):
        in_memory(64) if kind == "memory" else streaming(folder, batch_size=64)
    assert (in_memory(16) if kind == "memory" else streaming(folder, batch_size=16)).steps_per_epoch == 1


def test_streaming_takes_no_number_from_the_global_generator(folder: FolderSource) -> None:
    before = torch.get_rng_state()
    next(streaming(folder, workers=1).stream(0, 1))
    assert torch.equal(before, torch.get_rng_state())


def test_workers_ignore_the_interrupt_and_use_one_thread() -> None:
    class Asks(ArraySource):
        def read(self, index: int, min_side: int = 0) -> np.ndarray:
            ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            raise UnreadableImage(f"{ignored} {torch.get_num_threads()}")

    with pytest.raises(ValueError, match=r"x\[.*: True 1"):
        list(streaming(Asks("x", IMAGES), workers=1).stream(0, 1))


def test_leaving_the_stream_early_ends_the_workers(folder: FolderSource) -> None:
    import multiprocessing

    stream = streaming(folder, workers=2).stream(0, 100)
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    stream.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_early_stopping_reaches_the_decoder(tmp_path: Path) -> None:
    asked = []

    class Asked(ArraySource):
        def read(self, index: int, min_side: int = 0) -> np.ndarray:
            asked.append(min_side)
            return super().read(index)

    next(streaming(Asked("x", IMAGES), min_side=11).stream(0, 1))
    assert set(asked) == {11}
