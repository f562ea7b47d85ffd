"""`barlow evaluate`: measures a run's encoder with labelled images."""

import argparse
from typing import Any

from barlow import exits
from barlow.commands.terminal import add_debug, show, show_advice, tell, verb_parser


def add(verbs: Any) -> None:
    """Adds the verb to the command line."""
    evaluate = verb_parser(
        verbs,
        "evaluate",
        help="measure a run's encoder with labelled images",
        description="Embeds labelled images once and measures the encoder by kNN and linear probes, beside raw "
        "pixels and the untrained network. Labels are the names of the sub-folders.",
    )
    evaluate.add_argument("run", metavar="RUN", help="run folder, or RUN@STEP for one of its checkpoints")
    evaluate.add_argument(
        "--train",
        nargs="+",
        metavar="IMAGES",
        help="labelled images to learn from: folders with a sub-folder for each class, a CSV file, VOC_FOLDER:SPLIT, "
        "COCO.json or the name of a set",
    )
    evaluate.add_argument("--test", nargs="+", metavar="IMAGES", help="labelled images to be measured on, used once")
    evaluate.add_argument(
        "--protocol",
        dest="protocols",
        metavar="NAMES",
        help="with commas between them, as in knn,linear_sgd; default: knn,knn5_euclidean,logistic,linear_sgd; "
        "`barlow list protocols` shows all",
    )
    evaluate.add_argument(
        "--augment",
        action="store_true",
        help="linear_sgd on augmented views too, as in the papers: embeds the training images in each of its 100 "
        "epochs, so it is meant for GPUs",
    )
    evaluate.add_argument("-o", "--out", metavar="DIR", help="for results and features; default: RUN/evaluation")
    evaluate.add_argument("-b", "--batch-size", type=int, default=256, metavar="N")
    evaluate.add_argument("--device", default="auto", metavar="cpu|cuda|mps")
    evaluate.add_argument("--max-bad", type=float, default=0.01, metavar="SHARE", help="default: %(default)s")
    add_debug(evaluate)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    from barlow.evaluation import NotKept, evaluate
    from barlow.wording import in_flags

    try:
        evaluation = in_flags(evaluate)(
            arguments.run,
            train=arguments.train,
            test=arguments.test,
            protocols=arguments.protocols,
            batch_size=arguments.batch_size,
            device=arguments.device,
            max_bad=arguments.max_bad,
            augment=arguments.augment,
            out=arguments.out,
            tell=tell,
        )
    except NotKept as error:
        show(error.evaluation.table())
        raise
    show(evaluation.table())
    show_advice(evaluation.advice)
    show(f"results  {evaluation.path}")
    return exits.OK
