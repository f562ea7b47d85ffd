"""Every protocol for classification on the encoders of methods.py: one table, made of the same images for all.

    python experiments/protocols.py --data ../shared/data --work runs/methods

The encoders are those of `experiments/methods.py` with seed 0: Barlow Twins, VICReg, W-MSE, SimCLR, BYOL and supervised
training, each with the same small network, at the rate that was chosen for it, after 2,500 steps of 128 images of
CIFAR-10; and that network as it is built. A run that is not in the folder is made. The protocols learn from the first
1,000 labelled training images of each class, and are measured on all test images: the linear protocols would take hours
on all 50,000, and semi-supervised learning is about few labels anyway.

An evaluation that was stopped goes on where it was, and a line that is there is not made again. Lines go to
results/protocols.jsonl, and experiments/table.py makes README's table of them.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import methods
import results_line
from own_folder import Case, lines_of, unpacked

import barlow
from barlow.recipe import files
from barlow.recipe.request import DEFAULT

PROGRAM, RESULTS = results_line.PROTOCOLS_PROGRAM, results_line.PROTOCOLS_RESULTS
PROTOCOLS = "knn,knn5_euclidean,logistic,linear_sgd,linear,svm,fewshot:1,5,10,retrieval,semi:1,10"
EACH_CLASS = 1_000
SEED = 0
UNTRAINED = "untrained"


def some_of_each_class(train: Path, work: Path) -> Path:
    """The first images of each class, in a folder of their own: second names of the same files."""
    home = work / f"{train.name}-{EACH_CLASS}-of-each-class"
    for folder in sorted(path for path in train.iterdir() if path.is_dir()):
        (home / folder.name).mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.iterdir())[:EACH_CLASS]:
            if not (place := home / folder.name / file.name).exists():
                os.link(file, place)
    return home


def trained(case: Case, train: Path, work: Path) -> Path:
    """The run of a case, which is made or gone on with if it is not there whole."""
    out = work / "runs" / case.key
    barlow.pretrain(str(train), out, resume=True, progress=False, **case.asked)
    return out


def untrained_like(run: Path) -> Any:
    """The network of a run as it is built, for the same views of the same images."""
    shared = files.read(DEFAULT)["encoder"]
    size = barlow.load_encoder(run).preprocessing.size
    return barlow.find_encoder(
        f"random:{shared['name']}@{SEED}", options=shared["options"], stem=shared["stem"], image_size=size
    ).network


def measured(name: str, encoder: Any, sets: tuple[Path, Path], work: Path) -> dict[str, Any]:
    """The line of an encoder."""
    train, test = map(str, sets)
    out = work / "protocols" / name
    out.mkdir(parents=True, exist_ok=True)
    found = barlow.evaluate(encoder, train, test, protocols=PROTOCOLS, baselines=False, out=out)
    scores = {
        metric: {"value": score.value, "low": score.low, "high": score.high}
        for metric, score in found.scores["encoder"].items()
    }
    what = {"encoder": name, "each_class": EACH_CLASS, "scores": scores}
    return results_line.assembled(f"protocols of {name}", PROGRAM, what)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the tars")
    parser.add_argument("--work", type=Path, default=methods.ROOT / "runs" / "methods", help="where methods.py works")
    arguments = parser.parse_args()
    folders = unpacked(methods.IMAGES, arguments.data, arguments.work)
    sets = some_of_each_class(folders["train"], arguments.work), folders["test"]
    known = {line["encoder"] for line in lines_of(RESULTS)}
    lines = lines_of(methods.RESULTS)
    for name in (*methods.METHODS, UNTRAINED):
        if name in known:
            continue
        recipe = methods.METHODS[0] if name == UNTRAINED else name
        case = methods.case_of(recipe, methods.best_factor(recipe, lines), SEED, final=True)
        run = trained(case, folders["train"], arguments.work)
        line = measured(name, untrained_like(run) if name == UNTRAINED else run, sets, arguments.work)
        results_line.append(line, RESULTS)
        said = ", ".join(f"{metric} {score['value']:.3f}" for metric, score in line["scores"].items())
        print(f"{name}: {said}", flush=True)


if __name__ == "__main__":
    main()
