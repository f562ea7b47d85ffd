"""Trains another tree of barlow and this one side by side on the same images, and compares them to the bit.

    git worktree add ../d19bfb7 d19bfb7
    python experiments/same_numbers.py ../d19bfb7
    python experiments/same_numbers.py ../d19bfb7 --only small_vicreg streaming

Compared are every logged loss, term, rate and gradient norm, every tensor of the last checkpoint, and the encoder's
file. Some runs of the other tree are also resumed by this one, from their half. Every training is a command of its own,
`python -m barlow.cli pretrain`, with one thread. A line for each goes to results/same_numbers.jsonl; what stands there
for the same two commits is not run again. The exit status is 1 if anything differs.

    python experiments/same_numbers.py --write-hashes

trains the few short runs of tests/equivalence/test_same_numbers.py and writes the hashes that this test compares with.
Do so only at a commit whose numbers are meant to be others, and say why in its message.
"""

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import frozen_cases
import results_line
import torch
import yaml
from frozen_cases import HALF, STEPS, Case
from generated import ROOT
from torch import Tensor

from barlow import storage
from barlow.distributed import has_native_bf16

RESULTS = ROOT / "results" / "same_numbers.jsonl"
HASHES = ROOT / "tests" / "equivalence" / "same_numbers.json"

LOGGED = ("step", "epoch", "rate", "loss", "terms", "gradient_norm")
"""What is compared of a line of metrics.jsonl; the rest are times, and statistics of embeddings."""

PATIENCE = 600
"""Seconds after which a training is given up."""


def write_recipe(path: Path, content: dict[str, Any]) -> None:
    storage.write_text(path, yaml.safe_dump(content, sort_keys=False))


# --- Two run folders --------------------------------------------------------------------------------------------------


def first_difference(old: Path, new: Path, steps: int = STEPS) -> str | None:
    """Where two run folders part, in the order of time: logged numbers, the last checkpoint, the encoder's file."""
    return (
        _logged_difference(*(storage.read_lines(run / "metrics.jsonl") for run in (old, new)))
        or _difference(checkpoint(old, steps), checkpoint(new, steps))
        or _file_difference(*(run / "encoder" / "model.safetensors" for run in (old, new)))
    )


def checkpoint(run: Path, steps: int) -> dict[str, Tensor]:
    """The tensors of the checkpoint after so many steps: `method/...` and `optimizer/...`."""
    return storage.read_tensors(run / "checkpoints" / f"step-{steps:06d}" / "tensors.safetensors")


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the networks in a checkpoint: names, shapes and bits, buffers too."""
    digest = hashlib.sha256()
    for name in sorted(name for name in tensors if name.startswith("method/")):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(_bits(tensors[name]).numpy().tobytes())
    return digest.hexdigest()


def _logged_difference(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> str | None:
    for a, b in zip(old, new, strict=False):
        for key in LOGGED:
            if a[key] != b.get(key):
                return f"step {a['step']}: {key} is {a[key]} there and {b.get(key)} here"
    return None if len(old) == len(new) else f"{len(old)} steps are logged there and {len(new)} here"


def _difference(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> str | None:
    for name in dict.fromkeys([*old, *new]):
        if name not in old or name not in new:
            return f"{name} is only {'there' if name in old else 'here'}"
        a, b = old[name], new[name]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return f"{name} is {a.dtype} {tuple(a.shape)} there and {b.dtype} {tuple(b.shape)} here"
        if len(where := (_bits(a) != _bits(b)).any(1).nonzero()):
            first = int(where[0])
            there, here = (tensor.flatten()[first].item() for tensor in (a, b))
            return f"{name}: {len(where)} of {a.numel()} numbers differ, the first is {there} there and {here} here"
    return None


def _file_difference(old: Path, new: Path) -> str | None:
    if old.read_bytes() == new.read_bytes():
        return None
    return f"{old.name}: {_difference(*map(storage.read_tensors, (old, new))) or 'the bytes differ, not the tensors'}"


def _bits(tensor: Tensor) -> Tensor:
    """(numbers, bytes of each)."""
    return tensor.contiguous().view(-1, 1).view(torch.uint8)


# --- Trainings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tree:
    """A checkout of barlow."""

    path: Path

    @property
    def commit(self) -> str | None:
        """Its commit, with `+changes` when its package has any; None outside a checkout."""
        git = ["git", "-C", str(self.path / "src" / "barlow")]
        try:
            commit, changed = (
                subprocess.check_output([*git, *words], text=True, stderr=subprocess.DEVNULL).strip()
                for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "."))
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return commit + ("+changes" if changed else "")

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.path / "src"), "OMP_NUM_THREADS": "1"}

    def check(self, folder: Path) -> None:
        """Refuses a folder whose package the children would not import."""
        words = [sys.executable, "-c", "import barlow; print(barlow.__file__)"]
        found = subprocess.run(words, cwd=folder, env=self.environment(), capture_output=True, text=True).stdout.strip()
        if not Path(found).is_relative_to(self.path / "src"):
            raise SystemExit(f"{self.path} is no checkout of barlow: from its src, {found or 'nothing'} is imported")

    def start(self, words: Sequence[str], out: Path, processes: int) -> "Training":
        """Begins `barlow pretrain WORDS --out OUT`, beside whatever else runs."""
        devices = ["--devices", str(processes)] if processes > 1 else []
        log = out.with_name(f"{out.name}.log")
        with open(log, "w", encoding="utf-8") as file:
            # In a folder of its own: `-m` puts the folder it starts in before PYTHONPATH.
            child = subprocess.Popen(
                [sys.executable, "-m", "barlow.cli", "pretrain", *words, *devices, "--out", str(out)],
                cwd=out.parent,
                env=self.environment(),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        return Training(child, log)


@dataclass(frozen=True)
class Training:
    """A command that runs."""

    child: "subprocess.Popen[bytes]"
    log: Path

    def failure(self) -> str | None:
        """Waits for the end. What it said last if it failed; None if it did not."""
        try:
            code = self.child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return f"not done after {PATIENCE} s"
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
        return f"exit status {code}: {lines[-1]}" if code else None


@dataclass(frozen=True)
class Outcome:
    """What a line of results says of one case."""

    case: str
    identical: bool
    first_difference: str | None = None
    weights_sha256: str | None = None
    """Of this tree."""
    refused: str | None = None
    """Why this tree does not resume the other's run, in the one line that it says."""

    @property
    def allowed(self) -> bool:
        return self.identical or self.refused is not None

    def __str__(self) -> str:
        verdict = "same" if self.identical else "refused" if self.refused else "DIFFERS"
        return f"{verdict:8}{self.case}" + (f": {self.first_difference or self.refused}" if not self.identical else "")


def straight(case: Case, old: Tree, new: Tree, images: Path, folder: Path) -> Outcome:
    """The case in both trees at the same time; their runs are left in `folder`, as `old` and `new`."""
    write_recipe(folder / "recipe.yaml", case.content())
    words = [str(images), "--recipe", str(folder / "recipe.yaml")]
    runs = [folder / name for name in ("old", "new")]
    trainings = [tree.start(words, run, case.processes) for tree, run in zip((old, new), runs, strict=True)]
    there, here = (training.failure() for training in trainings)
    if there:
        raise SystemExit(f"{case.name} does not train in {old.path}: {there}")
    return Outcome(case.name, False, here) if here else _judged(case.name, *runs)


def resumed(case: Case, new: Tree, folder: Path) -> Outcome:
    """The other tree's run, as it was when half of it was done, resumed by this tree and compared with its end."""
    name, run = f"{case.name} resumed", folder / "resumed"
    shutil.copytree(folder / "old", run, ignore=shutil.ignore_patterns(f"step-{STEPS:06d}", "encoder", ".lock"))
    lines = storage.read_lines(run / "metrics.jsonl")
    storage.write_lines(run / "metrics.jsonl", lines[:HALF])
    training = new.start(["--resume"], run, case.processes)
    failure = training.failure()
    if failure is None:
        return _judged(name, folder / "old", run)
    said = training.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    refusals = [line.removeprefix("barlow: ") for line in said if line.startswith("barlow: ")]
    if len(refusals) == 1 and "--debug" not in refusals[0] and not any("Traceback" in line for line in said):
        return Outcome(name, False, refused=refusals[0])
    return Outcome(name, False, failure)


def _judged(name: str, old: Path, new: Path) -> Outcome:
    difference = first_difference(old, new)
    return Outcome(name, difference is None, difference, weights_sha256(checkpoint(new, STEPS)))


def outcomes(case: Case, old: Tree, new: Tree, images: Path, folder: Path) -> Iterator[Outcome]:
    """Of one case: straight, and where it is one of those, resumed."""
    yield straight(case, old, new, images, folder)
    if case in frozen_cases.RESUMED:
        yield resumed(case, new, folder)


# --- Hashes for the tests ---------------------------------------------------------------------------------------------

LIMITS = {
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"},
    "DEFAULT": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
}
"""What holds a newer processor to the kernels of an older one, and MKL to those that Intel's and AMD's share.

Without this the last bits depend on the vendor and the model. With it they are the same on all that were tried
(docs/exactness.md), so processors with AVX-512 are held to AVX2 in the test.
"""


def capability() -> str:
    """The one of `LIMITS` that the test takes on this machine."""
    return "DEFAULT" if torch.backends.cpu.get_cpu_capability() == "DEFAULT" else "AVX2"


def place(capability: str) -> str:
    """What the last bits depend on."""
    system = f"{platform.system()} on {platform.machine()}"
    return f"torch {torch.__version__}, timm {importlib.metadata.version('timm')}, {system}, {capability}"


def child_hashes(capability: str) -> dict[str, str]:
    """The hashes of a process that is held to a capability, for torch reads it before anything else."""
    environment = {**Tree(ROOT).environment(), **LIMITS[capability]}
    words = [sys.executable, str(Path(__file__).resolve()), "--hashes"]
    found = json.loads(subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    if (used := found.pop("capability")) != capability:
        raise RuntimeError(f"torch took its kernels for {used}, and {capability} was asked for")
    return found


def hashes() -> dict[str, str]:
    """Trains the short runs of `frozen_cases.HASHED` in this process: the hash of the weights of each."""
    import barlow

    found = {"capability": torch.backends.cpu.get_cpu_capability()}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        # Neither JPEG nor large images: their pixels depend on libraries whose versions are not in the file.
        images = frozen_cases.write_images(folder / "images", sides=(40, 64), formats=("png",))
        for number, case in enumerate(frozen_cases.HASHED):
            recipe, out = folder / f"{number}.yaml", folder / f"run{number}"
            write_recipe(recipe, case.content(frozen_cases.HASHED_STEPS))
            barlow.pretrain(images, out, recipe=str(recipe), progress=False)
            found[case.name] = weights_sha256(checkpoint(out, frozen_cases.HASHED_STEPS))
    return found


def write_hashes() -> None:
    """Writes the hashes of this machine's capabilities. Where they have changed, those of other machines are dropped:
    they were of other numbers."""
    reachable = list(LIMITS)[list(LIMITS).index(capability()) :]
    found = {place(name): child_hashes(name) for name in reachable}
    kept = storage.read_json(HASHES) if HASHES.exists() else {}
    if any(kept.get(name, found[name]) != found[name] for name in found):
        kept = {}
    storage.write_json(HASHES, dict(sorted({**kept, **found}.items())))


# --- The program ------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old_tree", type=Path, nargs="?", help="checkout of the commit to compare with")
    parser.add_argument("--new-tree", type=Path, default=ROOT, help="default: this checkout")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="cases that have all these words")
    parser.add_argument("--again", action="store_true", help="run what is recorded for these commits, too")
    parser.add_argument("--no-record", action="store_true", help="write no line to results/same_numbers.jsonl")
    parser.add_argument("--hashes", action="store_true", help="print the hashes of the tests' runs, and stop")
    parser.add_argument("--write-hashes", action="store_true", help=f"write {HASHES.relative_to(ROOT)}, and stop")
    arguments = parser.parse_args()
    if arguments.hashes:
        print(json.dumps(hashes(), indent=1))
        return 0
    if arguments.write_hashes:
        write_hashes()
        return 0
    if arguments.old_tree is None:
        parser.error("name the checkout to compare with")
    cases = [case for case in _cases() if set(arguments.only) <= set(case.name.split())]
    if not cases:
        parser.error(f"no case has the words {' '.join(arguments.only)}; the words of one: {next(_cases()).name}")
    return compare(Tree(arguments.old_tree.resolve()), Tree(arguments.new_tree.resolve()), cases, arguments)


def _cases() -> Iterator[Case]:
    return frozen_cases.cases(bf16=has_native_bf16(torch.device("cpu")))


def compare(old: Tree, new: Tree, cases: Sequence[Case], arguments: argparse.Namespace) -> int:
    """All these cases; the number of those that differ is told, and decides the exit status."""
    key = {"old_commit": old.commit, "commit": new.commit, "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    known = _recorded(key) if not arguments.again else {}
    torch.set_num_threads(1)  # as every training has, and as the lines then say
    found: list[Outcome] = []
    with tempfile.TemporaryDirectory() as made:
        images = frozen_cases.write_images(Path(made) / "images")
        for tree in (old, new):
            tree.check(Path(made))
        for number, case in enumerate(cases):
            names = [case.name, f"{case.name} resumed"][: 2 if case in frozen_cases.RESUMED else 1]
            if all(name in known for name in names):
                found += [known[name] for name in names]
                print(*(f"  recorded {known[name]}" for name in names), sep="\n")
                continue
            folder = storage.make_folder(Path(made) / str(number))
            started = time.monotonic()
            for outcome in outcomes(case, old, new, images, folder):
                print(f"{time.monotonic() - started:6.1f} s  {outcome}", flush=True)
                found.append(outcome)
                if not arguments.no_record:
                    _record(outcome, key)
            shutil.rmtree(folder)
    differing = sum(not outcome.allowed for outcome in found)
    print(f"{len(found)} compared, {differing} differ: {key['old_commit']} there, {key['commit']} here")
    return int(differing > 0)


def _record(outcome: Outcome, key: Mapping[str, Any]) -> None:
    line = results_line.assembled("same numbers", "experiments/same_numbers.py", vars(outcome))
    results_line.append({**line, **key}, RESULTS)


def _recorded(key: Mapping[str, Any]) -> dict[str, Outcome]:
    """What was found for these commits with this torch on such a processor. (A tree with changes has no commit.)"""
    if any(commit is None or "+" in commit for commit in (key["old_commit"], key["commit"])):
        return {}
    lines = [line for line in storage.read_lines(RESULTS) if all(line[name] == key[name] for name in key)]
    fields = Outcome.__dataclass_fields__
    return {
        line["case"]: Outcome(**{name: line[name] for name in fields})
        for line in lines
        if line["versions"]["torch"] == torch.__version__
    }


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
