"""Every protocol for classification on the encoders of methods.py: one table, made of the same images for all.

    python experiments/protocols.py --data ../shared/data --work runs/methods
    python experiments/protocols.py --data ../shared/data --work runs/methods --factor 1   # before any rate was chosen

The encoders are those of `experiments/methods.py` with seed 0: Barlow Twins, VICReg, W-MSE, SimCLR, BYOL and supervised
training, each with the same small network, at the rate that was chosen for it, after 2,500 steps of 128 images of
CIFAR-10; and that network as it is built. A run that is not in the folder is made. With `--factor` all have that
multiple of their recipe's rate, and the tries of `methods.py` are not waited for. A line says its factor, and whether
held-out images decided for it.

The protocols learn from the first 1,000 labelled training images of each class, and are measured on all test images:
the linear protocols would take hours on all 50,000, and semi-supervised learning is about few labels anyway. The SVM
learns from the first 200 of each class: it fits each of ten classes at eleven costs in three folds, and high costs need
thousands of passes.

An evaluation that was stopped goes on where it was, and a line that is there is not made again. Lines go to
results/protocols.jsonl, and experiments/table.py makes README's table of them.
"""

import argparse
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import methods
import results_line
from own_folder import Case, lines_of, unpacked

import barlow
from barlow.exits import Diverged
from barlow.nets.given import Network
from barlow.nets.weights import description_of, with_description
from barlow.probes.baselines import as_built

PROGRAM, RESULTS = results_line.PROTOCOLS_PROGRAM, results_line.PROTOCOLS_RESULTS
PROTOCOLS = {
    "knn,knn5_euclidean,logistic,linear_sgd,linear,fewshot:1,5,10,retrieval,semi:1,10": 1_000,
    "svm": 200,
}
"""And from how many labelled images of each class they learn."""
SEED = 0
UNTRAINED = "untrained"
ENCODERS = (*methods.METHODS, UNTRAINED)


def some_of_each_class(train: Path, work: Path, each_class: int) -> Path:
    """The first images of each class, in a folder of their own: second names of the same files."""
    home = work / f"{train.name}-{each_class}-of-each-class"
    for folder in sorted(path for path in train.iterdir() if path.is_dir()):
        (home / folder.name).mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.iterdir())[:each_class]:
            with suppress(FileExistsError):  # from an earlier call, or from one beside this
                os.link(file, home / folder.name / file.name)
    return home


def trained(case: Case, train: Path, work: Path) -> Path:
    """The run of a case, which is made or gone on with if it is not there whole."""
    out = work / "runs" / case.key
    barlow.pretrain(str(train), out, resume=True, progress=False, **case.asked)
    return out


def untrained_like(run: Path) -> Any:
    """The network of a run as it was built, which takes the same images as the trained one."""
    own: Any = barlow.load_encoder(run)
    config = description_of(own)
    network = Network(config["name"], config["options"], config["stem"], config["zero_init_last"])
    return with_description(as_built(config), network, own.preprocessing, config["seed"])


def chosen_factor(name: str, given: float | None, lines: list[dict[str, Any]]) -> float | None:
    """The multiple of its rate that an encoder is trained at: the one that was given, or else the one that held-out
    images decided for; None: no run of the method came to an end."""
    if given is not None:
        return given
    return methods.best_factor(recipe_of(name), lines)


def recipe_of(name: str) -> str:
    """Whose run an encoder is of. The untrained network is that of the first method."""
    return methods.METHODS[0] if name == UNTRAINED else name


def rate_said(factor: float, given: float | None) -> dict[str, Any]:
    """What a line says of the rate."""
    return {"factor": factor, "factor_from": "held-out images" if given is None else "the command line"}


def is_known(name: str, factor: float, lines: list[dict[str, Any]]) -> bool:
    """Whether the line of an encoder at this factor is there. The untrained network knows no rate."""
    return any(line["encoder"] == name and (name == UNTRAINED or line["factor"] == factor) for line in lines)


def measured(name: str, encoder: Any, folders: dict[str, Path], work: Path, rate: dict[str, Any]) -> dict[str, Any]:
    """The line of an encoder."""
    out = work / "protocols" / (name if name == UNTRAINED else f"{name} x {rate['factor']:.3g}")
    out.mkdir(parents=True, exist_ok=True)
    scores = {}
    for protocols, each_class in PROTOCOLS.items():
        train = some_of_each_class(folders["train"], work, each_class)
        found = barlow.evaluate(
            encoder, str(train), str(folders["test"]), protocols=protocols, baselines=False, out=out
        )
        for metric, score in found.scores["encoder"].items():
            scores[metric] = {"value": score.value, "low": score.low, "high": score.high}
    what = {"encoder": name, **rate, "each_class": PROTOCOLS, "scores": scores}
    return results_line.assembled(f"protocols of {name}", PROGRAM, what)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the tars")
    parser.add_argument("--work", type=Path, default=methods.ROOT / "runs" / "methods", help="where methods.py works")
    parser.add_argument("--factor", type=float, help="of the recipes' rates, in place of the one that was chosen")
    parser.add_argument(
        "--encoders", nargs="+", choices=ENCODERS, default=ENCODERS, help="some of them, for example beside others"
    )
    arguments = parser.parse_args()
    folders = unpacked(methods.IMAGES, arguments.data, arguments.work)
    for name in arguments.encoders:
        factor = chosen_factor(name, arguments.factor, lines_of(methods.RESULTS))
        if factor is None:
            print(f"{name}: no run of it came to an end, see {methods.RESULTS.name}", flush=True)
            continue
        if is_known(name, factor, lines_of(RESULTS)):
            continue
        try:
            run = trained(methods.case_of(recipe_of(name), factor, SEED, final=True), folders["train"], arguments.work)
        except Diverged as error:
            print(f"{name}: {error}", flush=True)
            continue
        encoder = untrained_like(run) if name == UNTRAINED else run
        line = measured(name, encoder, folders, arguments.work, rate_said(factor, arguments.factor))
        results_line.append(line, RESULTS)
        said = ", ".join(f"{metric} {score['value']:.3f}" for metric, score in line["scores"].items())
        print(f"{name}: {said}", flush=True)


if __name__ == "__main__":
    main()
