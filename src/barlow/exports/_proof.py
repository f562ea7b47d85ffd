"""The proof of an export: the lines that its card shows are run in a fresh process, and give the encoder's features."""

import copy
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from barlow import exits, storage
from barlow.exports._protocol import Material, Use
from barlow.printable import printable
from barlow.types import Images

MOST = 1e-5
"""The largest difference, relative to the features, that is rounding. Libraries add up in other orders: onnxruntime
differs by 3e-7 for a plain ResNet, and by up to 9e-6 where whitening enlarges what differs; there the encoder itself
differs by 4e-6 between float32 and float64."""

SECONDS = 900.0
"""How long a fresh process may take: importing transformers takes ten seconds on a slow disk."""

ROWS = (1, 3)
"""Sizes of batches that are tried beside the whole: an export may have been made for one of them alone."""

_BEFORE = """\
import json, os, sys

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
folder, given, made = sys.argv[1:]
says = None
"""

_GUARD = """
import barlow.torchvision_guard  # where torchvision's compiled part does not load, its Python part does after this
"""

_ALONE = """
class NoBarlow:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "barlow":
            raise ModuleNotFoundError("it needs barlow, which whoever gets this folder may not have")


for name in [name for name in sys.modules if name.partition(".")[0] == "barlow"]:
    del sys.modules[name]
sys.meta_path.insert(0, NoBarlow())
"""

_BESIDE = {"nothing": _ALONE, "torchvision": _GUARD + _ALONE, "barlow": _GUARD}
"""What a program finds beside its library, by `Use.beside`."""

_AFTER = """
import torch
from safetensors.torch import load_file, save_file

torch.set_num_threads(THREADS)
images = load_file(given)["images"]
with torch.no_grad():
    parts = [images, *(images[:rows] for rows in ROWS)]
    made_of = [torch.as_tensor(features(part)).contiguous().clone() for part in parts]
plain = json.dumps(says, default=list)
save_file({str(i): part for i, part in enumerate(made_of)}, made, metadata={"says": plain})
"""


class NotTheSame(RuntimeError):
    """What another library made of an export differs from the encoder; it was removed."""

    exit_code = exits.OUR_FAULT


@dataclass(frozen=True)
class Proof:
    """What one library made of an export.

    Args:
        library: its name.
        version: of the library.
        whole: whether its features are those that are handed out; else the plain network's.
        images: how many were compared.
        largest: the largest difference of a feature.
        relative: the length of the difference over the length of the features, at most over the images.
        exact: whether it is the difference to the encoder in float64, and not in float32, as by default.
    """

    library: str
    version: str
    whole: bool
    images: int
    largest: float
    relative: float
    exact: bool = False

    def line(self) -> str:
        """In a few words."""
        whose = "the features" if self.whole else "the plain network's features"
        library = f"{self.library} {self.version}".strip()
        exact = " to float64's" if self.exact else ""
        return f"{library}: {whose} of {self.images} images differ by {self.relative:.1e}{exact} (at most {MOST:.0e})"


def missing_library(use: Use) -> str | None:
    """The first module that cannot be imported here."""
    return next((module for module in use.needs if importlib.util.find_spec(module) is None), None)


def prove(folder: Path, use: Use, material: Material, images: Images) -> Proof:
    """Reads an export with the library that it is for, in a fresh process, and compares features.

    Args:
        folder: the export.
        use: how the library reads it.
        material: what was exported.
        images: normalised, as the encoder takes them.

    Raises:
        NotTheSame: the library failed, or the features differ by more than `MOST`, or it expects other images.
    """
    with tempfile.TemporaryDirectory(prefix="barlow-proof-") as home:
        given, made = Path(home) / "images.safetensors", Path(home) / "features.safetensors"
        storage.write_tensors(given, {"images": images})
        threads = torch.get_num_threads()  # of another number the same library may add up in another order
        after = _AFTER.replace("ROWS", repr(ROWS)).replace("THREADS", str(threads))
        program = "\n".join((_BEFORE, _BESIDE[use.beside], use.program, use.asks, after))
        try:
            ended = subprocess.run(
                [sys.executable, "-c", program, str(folder), str(given), str(made)],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise NotTheSame(f"{use.library} did not read the export within {SECONDS:.0f} s") from error
        if ended.returncode:
            last = [line for line in ended.stderr.splitlines() if line.strip()] or [f"exit code {ended.returncode}"]
            raise NotTheSame(f"{use.library} cannot read the export: {printable(last[-1])}")
        read, said = storage.read_tensors(made), _said(made)
    if (wrong := _differs(said, use)) is not None:
        raise NotTheSame(f"{use.library} would prepare images otherwise: {wrong}")
    network = material.encoder if use.whole else material.network
    parts = [images, *(images[:rows] for rows in ROWS)]
    theirs = [read[str(i)] for i in range(len(parts))]
    with torch.no_grad():
        largest, relative = _apart(theirs, [network(part) for part in parts], use)
        exact = not relative <= MOST
        if exact:
            # Whitening enlarges rounding, that of the encoder itself as well: in float64 it has none to speak of.
            precise = copy.deepcopy(network).double()
            largest, relative = _apart(theirs, [precise(part.double()) for part in parts], use)
    if not relative <= MOST:
        raise NotTheSame(
            f"{use.library} makes other features of the export: they differ by {relative:.1e} of themselves, and at "
            f"most {MOST:.0e} is rounding; nothing was written"
        )
    return Proof(use.library, _version(use.package), use.whole, len(images), largest, relative, exact)


def _apart(theirs: Sequence[Tensor], ours: Sequence[Tensor], use: Use) -> tuple[float, float]:
    """`difference`, at most over some batches."""
    for here, there in zip(ours, theirs, strict=True):
        if here.shape != there.shape:
            raise NotTheSame(f"{use.library} makes features of shape {tuple(there.shape)}, not {tuple(here.shape)}")
    found = [difference(there, here) for here, there in zip(ours, theirs, strict=True)]
    return max(most for most, _ in found), max(share for _, share in found)


def difference(theirs: Tensor, mine: Tensor) -> tuple[float, float]:
    """The largest difference of a feature; and, at most over the images, its length over the features' length."""
    apart = theirs.double() - mine.double()
    lengths = mine.double().norm(dim=1).clamp(min=1e-30)
    return float(apart.abs().max()), float((apart.norm(dim=1) / lengths).max())


def _said(made: Path) -> Any:
    from safetensors import safe_open

    with safe_open(made, "pt") as file:
        return json.loads((file.metadata() or {}).get("says", "null"))


def _differs(said: Any, use: Use) -> str | None:
    for key, value in use.says.items():
        if said is None or said.get(key) != value:
            return f"{key} is {None if said is None else said.get(key)} there, {value} here"
    return None


def _version(package: str) -> str:
    return metadata.version(package) if package else ""
