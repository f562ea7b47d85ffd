"""Reads a stranger's files one after the other, each as a user would, and says how long each took and what it needed.

A program of its own, as the peak of a process's memory never falls again. Its arguments are a finished run, a folder of
images and an empty folder to work in; it prints a line of JSON for each file.
"""

import contextlib
import json
import resource
import shutil
import struct
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

import barlow
from barlow.nets.weights import initialise
from barlow.recipe.changes import override
from barlow.runs.run import load_recipe_text
from barlow.storage import write_sealed

GIGABYTES = 3 * 2**30


def peak() -> float:
    """Of this process since `reset`, in megabytes."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reset() -> None:
    """Lets the peak start from what is held now, where the system can do that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class Files:
    """Copies of a run, each with one file that is not what it should be."""

    def __init__(self, run: Path, images: Path, work: Path) -> None:
        self.run, self.images, self.work = run, images, work
        self.count = 0

    def copy(self) -> Path:
        self.count += 1
        return Path(shutil.copytree(self.run, self.work / f"run{self.count}"))

    def recipe(self, text: str | bytes | None = None, **changes: Any) -> Callable[[], Any]:
        """A run with another recipe.yaml is resumed."""
        run = self.copy()
        if text is None:
            content = load_recipe_text(run / "recipe.yaml")
            text = yaml.safe_dump(override(content, {key.replace("__", "."): value for key, value in changes.items()}))
        (run / "recipe.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        (run / "run.json").unlink()  # which would tell that the recipe was changed
        return lambda: barlow.pretrain(self.images, run, resume=True, progress=False)

    def given(self, text: str) -> Callable[[], Any]:
        """A recipe is given with -c."""
        file = self.work / f"recipe{self.count}.yaml"
        file.write_text(text)
        return lambda: barlow.pretrain(self.images, self.work / "out", recipe=str(file), progress=False)

    def config(self, text: str | None = None, **changes: Any) -> Callable[[], Any]:
        """An encoder with another config.json is loaded."""
        run = self.copy()
        file = run / "encoder" / "config.json"
        if text is None:
            content = json.loads(file.read_text())
            content.pop("sha256")  # whoever writes such a file can seal it, too
            for key, value in changes.items():
                place, _, last = key.rpartition("__")
                (content[place] if place else content)[last] = value
            text = json.dumps(content)
        file.write_text(text)
        return lambda: barlow.load_encoder(run)

    def hub(self, **arguments: Any) -> Callable[[], Any]:
        """A folder of timm's form with other arguments of its network is read."""
        run = self.copy()
        config = {"architecture": "resnet18", "model_args": arguments, "pretrained_cfg": {"input_size": [3, 32, 32]}}
        (run / "encoder" / "config.json").write_text(json.dumps(config))
        return lambda: barlow.find_encoder(run / "encoder" / "model.safetensors")

    def weights(self, header: bytes, length: int | None = None, size: int = GIGABYTES) -> tuple[Path, Path]:
        """A run whose weights are a sparse file of three gigabytes."""
        run = self.copy()
        file = run / "encoder" / "model.safetensors"
        with open(file, "wb") as stream:
            stream.write(struct.pack("<Q", len(header) if length is None else length) + header)
            stream.truncate(size)
        return run, file

    def cases(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        laughs = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
        for how, make in (("resumed", self.recipe), ("given with -c", self.given)):
            yield f"recipe of aliases, {how}", make(laughs)
            yield f"recipe that means itself, {how}", make("views: &a [*a]\n")
            yield f"recipe of ten megabytes, {how}", make("a: 1\n" * 2_000_000)
            yield f"recipe nested deeply, {how}", make("a: " + "[" * 30_000)
            yield f"recipe with a long number, {how}", make("seed: " + "9" * 60_000)
            yield f"recipe with a sexagesimal number, {how}", make("seed: 1" + ":1" * 30_000)
        yield "a million layers", self.recipe(encoder__options={"layers": [1_000_000, 1, 1, 1]})
        yield "a thousand million layers", self.recipe(encoder__options={"layers": [10**9, 1, 1, 1]})
        yield "a hundred thousand channels", self.recipe(encoder__options={"channels": [100_000] * 4})
        yield "a head of a million", self.recipe(method__projector__widths=[1_000_000, 1_000_000])
        yield "a batch of a thousand million", self.recipe(train__batch_size=10**9)
        yield "chunks of a thousand million", self.recipe(train__batch_size=10**9, train__rows_in_memory=10**8)
        yield "a million workers", self.recipe(data__workers=1_000_000)
        yield "a view of 100,000 pixels", self.recipe(data__image_size=100_000)
        yield "config: an input of 100,000 pixels", self.config(preprocessing__size=100_000)
        yield "config: images of 100,000 pixels", self.config(image_size=100_000)
        yield "config: a million layers", self.config(options={"layers": [1_000_000, 1, 1, 1]})
        yield "config: wide layers", self.config(options={"channels": [10_000] * 4})
        yield "config: a large network", self.config(name="vit_7b_patch16_dinov3", options={}, image_size=32)
        yield "config: a thousand million channels", self.config(in_channels=10**9)
        yield "config nested deeply", self.config('{"a":' * 10_000)
        yield "config of ten megabytes", self.config('{"a": [' + "0," * 5_000_000 + "0]}")
        yield "timm's config: a million layers", self.hub(layers=[1_000_000, 1, 1, 1])
        yield "timm's config: wide layers", self.hub(channels=[10_000] * 4)
        yield "timm's config: a thousand million channels", self.hub(in_chans=10**9)
        run, _ = self.weights(b"")
        yield "sparse weights, loaded", lambda: barlow.load_encoder(run)
        yield "sparse weights, to start from", lambda: self.start_from(run)
        items = (GIGABYTES - 4096) // 4
        entry = {"dtype": "F32", "shape": [items], "data_offsets": [0, 4 * items]}
        header = json.dumps({"fc.weight": entry}).encode()
        run2, file2 = self.weights(header, size=8 + len(header) + 4 * items)
        yield "one tensor of 3 GB, loaded", lambda: barlow.load_encoder(run2)
        yield "one tensor of 3 GB, to start from a run", lambda: self.start_from(run2)
        yield "one tensor of 3 GB, to start from a file", lambda: self.start_from(file2)
        for name, length in (("3 GB", GIGABYTES - 8), ("more than there is", 2**62)):
            run3, _ = self.weights(b"{}", length)
            yield f"a header of {name}", lambda run3=run3: barlow.load_encoder(run3)
        nested = b"[" * 100_000
        run4, _ = self.weights(nested, size=8 + len(nested))
        yield "a header nested deeply", lambda: barlow.load_encoder(run4)
        big = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**40, 2**40], "data_offsets": [0, 4]}}).encode()
        run5, _ = self.weights(big, size=8 + len(big) + 4)
        yield "a tensor without end", lambda: barlow.load_encoder(run5)
        for name, start in (("zip", b"PK\x03\x04"), ("pickle", b"\x80\x02\x8a\n")):
            file6 = self.work / f"{name}.pth"
            with open(file6, "wb") as stream:
                stream.write(start)
                stream.truncate(GIGABYTES)
            yield f"a sparse {name} of weights, to start from", partial(self.start_from, file6)
        yield from self.checkpoints()
        yield from self.sparse_tables()

    def checkpoint(self, header: bytes) -> Path:
        """A run that is not finished, whose only checkpoint is a sparse file that its manifest vouches for."""
        run = self.copy()
        shutil.rmtree(run / "encoder")
        *others, folder = sorted((run / "checkpoints").glob("step-*"))
        for other in others:
            shutil.rmtree(other)
        file, size = folder / "tensors.safetensors", GIGABYTES
        with open(file, "wb") as stream:
            stream.write(struct.pack("<Q", len(header)) + header)
            if b"data_offsets" in header:
                size = 8 + len(header) + 4 * json.loads(header)["method/encoder.a"]["shape"][0]
            stream.truncate(size)
        manifest = json.loads((folder / "MANIFEST.json").read_text())
        manifest.pop("sha256")
        manifest["files"][file.name] = {"bytes": size, "sha256": "0" * 64}
        write_sealed(folder / "MANIFEST.json", manifest)
        return run

    def checkpoints(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Each as it is gone on with, loaded and started from."""
        items = (GIGABYTES - 4096) // 4
        tensor = {"dtype": "F32", "shape": [items], "data_offsets": [0, 4 * items]}
        headers = {"zeros": b"", "one tensor": json.dumps({"method/encoder.a": tensor}).encode()}
        for name, header in headers.items():
            for how in ("resumed", "loaded", "to start from"):
                run = self.checkpoint(header)
                resumed = partial(barlow.pretrain, self.images, run, resume=True, progress=False)
                ways = {"resumed": resumed, "loaded": partial(barlow.load_encoder, run)}
                newest = f"{run}@{max(int(path.name[5:]) for path in (run / 'checkpoints').glob('step-*'))}"
                yield f"a sparse checkpoint, {name}, {how}", ways.get(how, partial(self.start_from, newest))

    def sparse_tables(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """What a run says of itself, in three gigabytes that take no space."""
        for name in ("run.json", "data.json", "metrics.jsonl", "recipe.yaml", "encoder/config.json"):
            run = self.copy()
            with open(run / name, "ab") as stream:
                stream.truncate(GIGABYTES)
            resumed = partial(barlow.pretrain, self.images, run, resume=True, progress=False)
            yield f"a sparse {name}", partial(barlow.load_encoder, run) if name.startswith("encoder") else resumed
        for name in ("MANIFEST.json", "state.json"):
            run = self.copy()
            for folder in (run / "checkpoints").glob("step-*"):
                with open(folder / name, "ab") as stream:
                    stream.truncate(GIGABYTES)
            yield f"a sparse {name}", partial(barlow.pretrain, self.images, run, resume=True, progress=False)

    def start_from(self, source: Path | str) -> Any:
        return initialise(barlow.load_encoder(self.run).network, source)


def main() -> None:
    run, images, work = map(Path, sys.argv[1:])
    files = Files(run, images, work)
    files.start_from(run)  # so that everything is imported and touched
    barlow.pretrain(images, work / "first", recipe=str(run / "recipe.yaml"), progress=False)
    for name, read in files.cases():
        reset()
        before, began = peak(), time.process_time()
        try:
            read()
            said = ""
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        seconds = time.process_time() - began
        outcome = {"name": name, "said": said, "seconds": seconds, "megabytes": peak() - before}
        sys.stdout.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main()
