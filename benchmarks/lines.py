"""A line of results: what it falls short of, how people read it, how it is recorded."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def short_of(line: Mapping[str, Any], margin: float = 1.0) -> list[str]:
    """The promises that the medians of a line miss, by more than the margin."""
    promised, missed = line["promised"], []
    if "ratio" in promised and line["ratio"] * margin < promised["ratio"]:
        missed.append(f"ratio {line['ratio']:.3g} of {promised['ratio']:.3g}")
    if "seconds" in promised and line["ours"]["median"] > promised["seconds"] * margin:
        missed.append(f"{line['ours']['median']:.3g} s of {promised['seconds']:g}")
    if "memory_gb" in promised and line["memory_gb"] > promised["memory_gb"] * margin:
        missed.append(f"{line['memory_gb']:.3g} GB of {promised['memory_gb']:g}")
    if "share" in promised and line["share"] > promised["share"] * margin:
        missed.append(f"{100 * line['share']:.2g} % of {100 * promised['share']:g} %")
    return missed


def described(line: Mapping[str, Any]) -> str:
    """A few lines for people."""
    said = [f"{line['name']}: {line['what']}"]
    if "ours" in line:
        told = f"  {'the part' if 'share' in line else 'ours'} {_people(line['ours'])}"
        if "reference" in line:
            told += f"; {line['reference']['what']} {_people(line['reference'])}"
        said.append(told)
    if "memory_gb" in line:
        said.append("  memory {:.2f} GB ({:.2f} to {:.2f})".format(line["memory_gb"], *line["memory"]))
    if "share" in line:
        share = [100 * value for value in (line["share"], *line["interval"])]
        said.append("  {:.2g} % ({:.2g} to {:.2g}) of the processor seconds".format(*share))
    if "ratio" in line:
        said.append("  ratio {:.3g} ({:.3g} to {:.3g})".format(line["ratio"], *line["interval"]))
    if "processor_ratio" in line:
        by = line["processor_interval"]
        said[-1] += f", by processor seconds {line['processor_ratio']:.3g} ({by[0]:.3g} to {by[1]:.3g})"
    said[-1] += f"; {line['rounds']} rounds"
    if "others" in line:
        said[-1] += f", others took {100 * line['others']:.0f} % of the machine"
    if "core_gflops" in line:
        said[-1] += f", a thread multiplies at {line['core_gflops']:.0f} GFLOPS"
    if line["verdict"]:
        promised = ", ".join(promise_text(name, value) for name, value in line["promised"].items())
        said.append(f"  {line['verdict']}: promised {promised}, with a margin of {100 * line['margin'] - 100:.0f} %")
        if short := short_of(line):
            said[-1] += f"; short of it: {', '.join(short)}"
    return "\n".join(said)


def promise_text(name: str, value: float) -> str:
    """A promise as people read it."""
    return {
        "ratio": f"ratio ≥ {value:.3g}",
        "seconds": f"≤ {value:g} s",
        "memory_gb": f"≤ {value:g} GB",
        "share": f"≤ {100 * value:g} %",
    }[name]


def record(line: Mapping[str, Any], path: Path, device: str) -> None:
    """Appends the line, with machine and versions, to a file of lines."""
    # Here, because the programs are also run with an older tree's package, which has these elsewhere.
    from barlow import storage
    from barlow.machine import environment

    here = environment(device)
    about = {key: here[key] for key in ("commit", "hardware", "versions")}
    storage.append_line(path, {**line, **about, "date": time.strftime("%Y-%m-%d")})


def _people(times: Mapping[str, Any]) -> str:
    def short(seconds: float) -> str:
        return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"

    more = [f", processor {short(times['processor'])}"] if "processor" in times else []
    more += [f", {value:g} {name.removesuffix('_per_second')}/s" for name, value in times.items() if "_per_" in name]
    return f"{short(times['median'])} ({short(times['least'])} to {short(times['most'])}{''.join(more)})"
