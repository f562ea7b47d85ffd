"""What the machine is and has: processor, cores, memory, versions, and the commit of barlow's own checkout."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a source tree, say
        return "not installed"


def environment(device: str, processes: int = 1) -> dict[str, Any]:
    """What a number depends on besides the recipe: versions, processor, commit, command. No people, no hosts."""
    import torch

    packages = (
        "barlow",
        "torch",
        "torchvision",
        "timm",
        "numpy",
        "pillow",
        "simplejpeg",
        "opencv-python-headless",
        "scikit-learn",
        "safetensors",
    )
    hardware: dict[str, Any] = {
        "processor": _processor(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
    }
    if device.startswith("cuda"):
        hardware["gpu"] = torch.cuda.get_device_name(device)
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in packages},
        },
        "platform": platform.platform(),
        "device": device,
        "processes": processes,
        "hardware": hardware,
        "commit": source_commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def available_cores() -> int:
    """Processor cores this process may use (a container's limit counts, not the machine's number)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def available_memory() -> int:
    """Bytes of memory that are free for use, as far as the machine says; half of 8 GB where it does not."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    return 4 * 1024**3


HANG_SECONDS = 300.0
"""How long a run may make no step, unless its steps are longer than usual ones are."""


def hang_seconds() -> float:
    """Seconds without a step after which a run is taken to hang: `BARLOW_HANG_SECONDS`, or five minutes.

    It is of the machine and not of the recipe: where disks are known to stall for longer, the machine's administrator
    sets it once for all runs, and it changes no number.

    Raises:
        ValueError: what is set is no positive number.
    """
    text = os.environ.get("BARLOW_HANG_SECONDS", str(HANG_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"BARLOW_HANG_SECONDS is {text!r}: give a number of seconds, as in 300")
    return seconds


def free_shared_memory() -> int | None:
    """Bytes that processes can still share with each other; None where there is no limit of its own (not on Linux)."""
    try:
        found = os.statvfs("/dev/shm")
    except (AttributeError, OSError):
        return None
    return found.f_bavail * found.f_frsize


def hub() -> str:
    """The address of the Hugging Face hub, or of the copy of it that the user has named."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def hub_cache() -> Path:
    """Where files of the hub are kept on this machine, by the rules of its own library."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()


def source_commit() -> str | None:
    """The commit of barlow's own checkout, with `+changes` when it has any; None outside of one.

    A package in a virtual environment may lie in somebody else's repository, whose commit says nothing about it.
    """
    here = Path(__file__).resolve().parent
    try:
        if Path(_git(here, "rev-parse", "--show-toplevel").strip()).resolve() != here.parents[1]:
            return None
        commit = _git(here, "rev-parse", "HEAD").strip()
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", ".").strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True
    ).stdout
