"""Runs that are made ill on purpose, and healthy ones: is each told what is wrong, and are the healthy left alone?

    python experiments/doctor.py --data ../shared/data --part fit      # seeds 0 to 4, shapes and CIFAR-10
    python experiments/doctor.py --data ../shared/data --part judge    # seeds 5 to 9, aerial and MRI, another encoder

A run makes 100 steps of 64 images with a small network, and logs every tenth. Eight illnesses are given to each of five
objectives, and each objective has healthy runs beside them. The runs of `fit` are there to choose the thresholds of
`barlow.diagnostics.doctor` by, and those of `judge` to be looked at once, afterwards. A line of results/doctor.jsonl
says what a run had, and has the numbers that the doctor reads. So a sitting goes on where the last one ended.

    python experiments/doctor.py --table       # how many were named rightly, by the doctor as it is now
"""

import argparse
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import results_line
import torch
from generated import ROOT, markdown
from own_folder import lines_of, unpacked
from torch import Tensor, nn

import barlow
from barlow import objectives
from barlow.diagnostics.finding import About
from barlow.diagnostics.health import Health
from barlow.exits import Diverged
from barlow.nets.building import build_encoder
from barlow.runs.run import Run
from barlow.views.pipeline import ViewPipeline

PROGRAM, RESULTS = "experiments/doctor.py", ROOT / "results" / "doctor.jsonl"
OBJECTIVES = ("barlow_twins", "vicreg", "w_mse", "simclr", "byol")
STEPS, EVERY, BATCH = 100, 10, 64
READ = ("step", "loss", "rate", "reference", "features", "embeddings", "views", "moved", "without_gradient", "healthy")
"""What of each logged line is kept."""

READ_OF_STATISTICS = ("std", "effective_rank")
"""What of its statistics, and of the ranges that are healthy for them, the doctor reads."""


@dataclass(frozen=True)
class Part:
    """Which runs belong together."""

    sets: tuple[str, ...]
    seeds: tuple[int, ...]
    encoder: str
    options: dict[str, Any]


PARTS = {
    "fit": Part(
        ("shapes", "cifar10"), tuple(range(5)), "resnet18", {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]}
    ),
    "judge": Part(("aerial", "mri"), tuple(range(5, 10)), "mobilenetv3_small_050", {}),
}

GREY = ("shapes", "mri")

RIGHT = {
    "healthy": (),
    "rate zero": ("rate too low",),
    "rate too high": ("rate too high",),
    "views identical": ("views identical",),
    "views of different images": ("views too strong, or of different images",),
    "no gradient": ("no gradient",),
    "collapse": ("constant collapse", "head-only collapse", "dimensional collapse"),
    "few directions": ("dimensional collapse",),
    "views too weak": ("views too weak",),
}
"""What each run has, and what it should be told."""


@dataclass(frozen=True)
class Case:
    part: str
    images: str
    objective: str
    illness: str
    seed: int

    def __str__(self) -> str:
        return f"{self.part}: {self.objective} on {self.images}, seed {self.seed}, {self.illness}"


def cases(part: str) -> Iterator[Case]:
    for seed in PARTS[part].seeds:
        for images in PARTS[part].sets:
            for objective in OBJECTIVES:
                for illness in RIGHT:
                    yield Case(part, images, objective, illness, seed)


class Detached(nn.Module):
    """An encoder that no gradient reaches."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network(x).detach()
        return features


def pulled_together(*z: Tensor) -> dict[str, Tensor]:
    """What is left of every objective without the part that keeps images apart: a cosine, whatever the length is.

    A squared distance would do another thing: embeddings become short, and stay different.
    """
    return {"distance": 1 - nn.functional.cosine_similarity(z[0], z[-1], dim=1).mean()}


def pulled_to_target(p: Tensor, t: Tensor) -> dict[str, Tensor]:
    return pulled_together(p, t)


NARROW, NARROWEST = 2, 1
"""Width of a layer that a projector and a predictor are given before their last, so that embeddings have no more
directions. BYOL's predictions use two or three where all is well, so that its layer has one."""


def through(heads: dict[str, Any], width: int) -> dict[str, Any]:
    """Overrides by which a method's projector, and its predictor if it has one, have a layer of so few features."""
    return {
        f"method.{name}.widths": [*heads[name]["widths"][:-1], width, heads[name]["widths"][-1]]
        for name in ("projector", "predictor")
        if heads.get(name) is not None
    }


FULL = {"kind": "random_resized_crop", "scale": [1.0, 1.0], "ratio": [1.0, 1.0], "size": "auto"}


def asked(case: Case) -> dict[str, Any]:
    """What a case asks of `barlow.pretrain`, beside images and folder."""
    part = PARTS[case.part]
    overrides: dict[str, Any] = {
        "encoder.name": part.encoder,
        "encoder.options": part.options,
        "encoder.stages": "last",
        "encoder.whiten": None,
        "data.image_size": 32,
        "data.centre_size": None,
        "data.executor": "in_memory",
        "train.batch_size": BATCH,
        "train.log_steps": EVERY,
        "train.monitor_images": 0,
    }
    given: dict[str, Any] = {"recipe": f"small_{case.objective}", "steps": STEPS, "seed": case.seed}
    usual = barlow.recipe.files.read(given["recipe"])["optim"]["lr_per_256"]
    if case.illness == "rate zero":
        overrides |= {"optim.lr_per_256": 1e-15, "optim.weight_decay": 0.0}
    elif case.illness == "rate too high":
        overrides["optim.lr_per_256"] = 1000 * usual
    elif case.illness == "views identical":
        overrides["views"] = [[FULL], [FULL]]
    elif case.illness == "views too weak":
        overrides["views"] = [[FULL | {"scale": [0.99, 1.0]}]] * 2
    elif case.illness == "few directions":
        method = barlow.recipe.files.read(given["recipe"])["method"]
        overrides |= through(method, NARROWEST if case.objective == "byol" else NARROW)
        if case.objective == "w_mse":
            overrides["objective.shrinkage"] = 0.1  # without which it refuses what it cannot whiten
    elif case.illness == "no gradient":
        network = build_encoder(
            part.encoder,
            in_channels=1 if case.images in GREY else 3,
            image_size=32,
            seed=case.seed,
            stem="small",
            options=part.options,
        )
        given["encoder"] = Detached(network)
        for key in ("encoder.name", "encoder.options"):
            del overrides[key]
    elif case.illness == "collapse":
        given["objective"] = pulled_to_target if case.objective == "byol" else pulled_together
        overrides["optim.lr_per_256"] = 5 * usual
        if case.objective == "byol":
            overrides |= {"method.momentum": None, "method.stop_gradient": False, "method.predictor": None}
    return given | {"overrides": overrides}


def mismatched() -> Any:
    """Makes every pipeline give the second view of another image; returns what undoes that."""
    made = ViewPipeline.from_memory

    def wrong(self: ViewPipeline, *arguments: Any) -> list[Tensor]:
        first, *others = made(self, *arguments)
        return [first, *(view.roll(1, 0) for view in others)]

    ViewPipeline.from_memory = wrong  # type: ignore[method-assign, assignment]
    return made


def ran(case: Case, data: Path, work: Path) -> dict[str, Any]:
    """Makes a run, and returns its line."""
    source = case.images if case.images == "shapes" else str(unpacked(case.images, data, work)["fit"])
    out = work / "doctor"
    shutil.rmtree(out, ignore_errors=True)
    undo = mismatched() if case.illness == "views of different images" else None
    failed = None
    try:
        barlow.pretrain(source, out, progress=False, **asked(case))
    except Diverged as error:
        failed = str(error).split(". ")[0]
    finally:
        if undo is not None:
            ViewPipeline.from_memory = undo  # type: ignore[method-assign]
    what = {"case": str(case), **case.__dict__, "failed": failed, "lines": list(map(kept, Run(out).metrics()))}
    return results_line.assembled(str(case), PROGRAM, what)


def kept(line: dict[str, Any]) -> dict[str, Any]:
    """What the doctor reads of a logged line, to five digits."""
    short = {key: line[key] for key in READ if key in line}
    for key in ("features", "embeddings"):
        for place in (short, short.get("healthy", {})):
            if key in place:
                place[key] = {name: place[key][name] for name in READ_OF_STATISTICS}
    return dict(rounded(short))


def rounded(value: Any) -> Any:
    """The same with all numbers to five digits."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def about(line: dict[str, Any]) -> About:
    """What the doctor knew of a run. An objective of ours stands in the place of that of a run that collapses."""
    kind = "custom" if line["illness"] == "collapse" else line["objective"]
    return About(
        STEPS,
        peak=max((each.get("rate", 0.0) for each in line["lines"]), default=0.0),
        spreads_by=objectives.spreads_by(kind),
        moving_target=objectives.has_moving_target(kind),
    )


def said(line: dict[str, Any]) -> list[str]:
    """What the doctor says of a run now: the first name that it gives, or that the run ended with numbers that are
    none."""
    health = Health(about(line))
    for each in line["lines"]:
        health.read(each)
        if health.why is not None:
            return [health.why.partition(": ")[0]]
    return ["not finite"] if line["failed"] else []


def is_right(line: dict[str, Any]) -> bool:
    names = said(line)
    if line["illness"] == "healthy":
        return names == []
    high = line["illness"] == "rate too high" and names == ["not finite"]  # it ends, and the message names the rate
    return high or any(name in RIGHT[line["illness"]] for name in names)


def table(lines: Sequence[dict[str, Any]]) -> str:
    rows = []
    for part in PARTS:
        for illness in RIGHT:
            those = [line for line in lines if (line["part"], line["illness"]) == (part, illness)]
            cells = []
            for objective in OBJECTIVES:
                of_one = [line for line in those if line["objective"] == objective]
                cells.append(f"{sum(map(is_right, of_one))} of {len(of_one)}")
            rows.append((part, illness, *cells, f"{sum(map(is_right, those))} of {len(those)}"))
    return markdown(("part", "given", *OBJECTIVES, "all"), rows)


def bound(runs: int, alarms: int = 0) -> float:
    """The share of healthy runs with a false alarm is less than this, with 95 % confidence, after so many of so many.

    Source: Clopper and Pearson (Biometrika 1934), one-sided: the share at which so few would be met in one of twenty
    such sittings. Without an alarm it is 1 - 0.05^(1/runs).
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        at_most = sum(math.comb(runs, k) * share**k * (1 - share) ** (runs - k) for k in range(alarms + 1))
        low, high = (share, high) if at_most > 0.05 else (low, share)
    return high


def summary(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A sentence for each part: how many ill runs were named rightly, and what so many healthy ones can tell."""
    for part in PARTS:
        those = [line for line in lines if line["part"] == part]
        ill = [line for line in those if line["illness"] != "healthy"]
        healthy = [line for line in those if line["illness"] == "healthy"]
        alarms = len(healthy) - sum(map(is_right, healthy))
        if ill:
            named = sum(map(is_right, ill))
            yield f"{part}: {named} of {len(ill)} ill runs are named rightly ({100 * named / len(ill):.1f} %)"
        if healthy:
            yield (
                f"{part}: {alarms} of {len(healthy)} healthy runs have a false alarm; with 95 % confidence, less than "
                f"{100 * bound(len(healthy), alarms):.1f} % of such runs have one"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="the folder that holds the tars")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "doctor", help="images and runs go here")
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--illnesses", nargs="+", choices=RIGHT, default=list(RIGHT))
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table or arguments.part is None:
        lines = lines_of(RESULTS)
        print(table(lines), *summary(lines), sep="\n")
        return
    torch.set_num_threads(1)
    known = {line["case"] for line in lines_of(RESULTS)}
    for case in cases(arguments.part):
        if case.illness in arguments.illnesses and str(case) not in known:
            line = ran(case, arguments.data, arguments.work)
            results_line.append(line, RESULTS)
            verdict = "right" if is_right(line) else "WRONG"
            print(f"{verdict}  {case}: {said(line) or 'nothing'} {line['failed'] or ''}", flush=True)


if __name__ == "__main__":
    main()
