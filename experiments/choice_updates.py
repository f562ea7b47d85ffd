"""How many updates the rates of semi-supervised learning are tried for: does a choice after fewer find worse ones?

    python experiments/choice_updates.py --data ../shared/data --work runs/methods

Encoders of `experiments/protocols.py` are fine-tuned by `semi:1` and `semi:10` with the same draws of CIFAR-10's
training images. The rates are chosen after each of UPDATES. What then counts is top-1 on 2,000 other training images:
no test image is looked at. Lines go to results/choice_updates.jsonl, one for each encoder; one that is there is not
made again. On one core an encoder takes about twelve minutes.

After 50 updates the protocol would take a fifth to a third less time. For 1 % of the labels, 200 updates, that choice
is as good here. For 10 %, 600 updates, W-MSE's encoder gets lower rates in two draws of three, and loses three points
in the mean; Barlow Twins' loses nothing. So the protocol tries its rates for 100.
"""

import argparse
from pathlib import Path
from typing import Any

import methods
import numpy as np
import protocols
import results_line
from own_folder import lines_of, unpacked

from barlow import load_encoder
from barlow.data.labelled import LabelledSet, read_labelled
from barlow.probes.tuning import Unlabelled
from barlow.protocols.semi import SemiSupervised

PROGRAM, RESULTS = "experiments/choice_updates.py", methods.ROOT / "results" / "choice_updates.jsonl"
ENCODERS = ("small_barlow_twins", "small_w_mse")
PERCENTS, DRAWS, UPDATES = (1.0, 10.0), 3, (50, 100)
LEARNED_FROM, ANSWERED = 1_000, 200
"""Images of each class: the first ones, which draws are made of, and those after them."""


def measured(encoder: Any, percent: float, updates: int, train: LabelledSet, others: LabelledSet) -> dict[str, Any]:
    """What a protocol that tries its rates for so many updates chooses, and how well it then answers, draw by draw."""
    protocol = SemiSupervised(percent, draws=DRAWS, choice_updates=updates)
    answered = Unlabelled(len(others), others.views)
    found = protocol.predict(encoder, train, answered, lambda _, work: work(), lambda line: print(line, flush=True))
    assert found.answers is not None
    return {
        "percent": percent,
        "choice_updates": updates,
        "encoder_rates": [each["encoder_rate"] for each in found.notes["each"]],
        "top1": [round(float((answers[:, 0] == others.labels).mean()), 4) for answers in found.answers],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the tars")
    parser.add_argument("--work", type=Path, default=methods.ROOT / "runs" / "methods", help="where methods.py works")
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=ENCODERS)
    arguments = parser.parse_args()
    folders = unpacked(methods.IMAGES, arguments.data, arguments.work)
    for name in arguments.encoders:
        if any(line["encoder"] == name for line in lines_of(RESULTS)):
            continue
        case = methods.case_of(protocols.recipe_of(name), 1.0, protocols.SEED, final=True)
        run = protocols.trained(case, folders["train"], arguments.work)
        encoder: Any = load_encoder(run)
        more = protocols.some_of_each_class(folders["train"], arguments.work, LEARNED_FROM + ANSWERED)
        images = read_labelled(str(more), "train", encoder.preprocessing, 0.0)
        position = np.arange(len(images)) % (LEARNED_FROM + ANSWERED)  # in its class: folders are read class by class
        train, others = (
            images.take(np.flatnonzero(part)) for part in (position < LEARNED_FROM, position >= LEARNED_FROM)
        )
        cases = [measured(encoder, percent, updates, train, others) for percent in PERCENTS for updates in UPDATES]
        line = results_line.assembled(f"updates of a choice, {name}", PROGRAM, {"encoder": name, "cases": cases})
        results_line.append(line, RESULTS)
        print(name, *cases, sep="\n", flush=True)


if __name__ == "__main__":
    main()
