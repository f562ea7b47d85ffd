"""`barlow evaluate`: measures encoders with labelled images."""

import argparse
from typing import Any

from barlow import exits
from barlow.commands.terminal import add_debug, show, show_advice, tell, verb_parser

BATCH_SIZE, MAX_BAD = 256, 0.01
"""Where a user does not say, and the protocol asks for them."""

EPILOG = """\
ENCODER is a run folder, RUN@STEP for one of its checkpoints, a folder with config.json
and model.safetensors, a file of weights of any project in docs/weights.md, timm:NAME
(pretrained weights, downloaded where they are not here), packaged:NAME (weights in a
Python package), random:NAME (untrained; random:NAME@SEED) or FILE.py:NAME (a module in a
Python file, which is run, or what a function of that name returns).

Several encoders are set beside each other, with their differences to the first. Runs
that differ in their seed alone are one column. Several pairs of sets are one table:
  barlow evaluate A B --train birds/train --test birds/test \\
                      --train cars/train --test cars/test

IMAGES are folders with a sub-folder for each class, a CSV file (path,label, or
path,labels with ; between them), a set in VOC's form (FOLDER:SPLIT) or in COCO's (a JSON
file), or the name of a set (`barlow list datasets`).

Detection trains Faster R-CNN, or Mask R-CNN where there are masks, on boxes (docs/detection.md):
  barlow evaluate A --protocol detect --test VOC2007:test \\
                    --train VOC2007:trainval VOC2012:trainval
detect:DETECTOR:STEPS chooses small_fpn, fpn or c4, and how many steps; detect:c4:vicreg_voc
a paper's schedule. --detection.seeds and --detection.batch_norm (trained, frozen) are its keys.

Captions are found by images, and images by captions, with a run that was trained on them:
  barlow evaluate A --protocol captions --test CAPTIONS.csv

The network of random:NAME, and of a file whose shapes do not show it, is described as
in a recipe:
  --encoder resnet18 --encoder.stem small \\
  --encoder.options '{layers: [1, 1, 1, 1]}'
"""


def add(verbs: Any) -> None:
    """Adds the verb to the command line."""
    evaluate = verb_parser(
        verbs,
        "evaluate",
        help="measure encoders with labelled images",
        description="Embeds labelled images once and measures encoders by kNN, linear probes and other protocols, "
        "beside raw pixels and the untrained network. What was found before is not computed again.",
        epilog=EPILOG,
    )
    evaluate.add_argument("encoders", nargs="+", metavar="ENCODER", help="see below")
    evaluate.add_argument(
        "--train", nargs="+", action="append", metavar="IMAGES", help="labelled images to learn from; may be repeated"
    )
    evaluate.add_argument(
        "--test", nargs="+", action="append", metavar="IMAGES", help="images to be measured on, one for each --train"
    )
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
    evaluate.add_argument(
        "-o",
        "--out",
        metavar="DIR",
        help="for results and features; default: RUN/evaluation, of each run; needed for what is no run",
    )
    evaluate.add_argument(
        "--table", metavar="FILE", help="writes the table, too; FILE ends in .html, .json, .csv or .tex (LaTeX)"
    )
    evaluate.add_argument("--overwrite", action="store_true", help="replace the file in --table")
    evaluate.add_argument(
        "--supervised",
        metavar="RUN",
        help="first train the network of the first ENCODER, a run, as long with the labels of --train, into this run "
        "folder, and set it beside the others; one that is there is taken",
    )
    evaluate.add_argument("--encoder", metavar="NAME", help="the network of a file of weights, or auto")
    evaluate.add_argument("--image-size", metavar="PX|HxW", help="of foreign weights, in place of their own")
    evaluate.add_argument("-b", "--batch-size", type=int, metavar="N", help=f"default: {BATCH_SIZE}")
    evaluate.add_argument("--device", default="auto", metavar="cpu|cuda|mps")
    evaluate.add_argument("--max-bad", type=float, metavar="SHARE", help=f"default: {MAX_BAD}")
    add_debug(evaluate)


def run(arguments: argparse.Namespace, changes: dict[str, Any]) -> int:
    """Runs the command, with the recipe's keys that were given; returns the exit code."""
    from barlow.evaluation import NotKept, evaluate_several
    from barlow.report.score_files import check_table_path, write_table
    from barlow.wording import in_flags

    if _alone_asked(arguments.protocols, "detect", "boxes"):
        return _detect(arguments, changes)
    arguments.batch_size = BATCH_SIZE if arguments.batch_size is None else arguments.batch_size
    arguments.max_bad = MAX_BAD if arguments.max_bad is None else arguments.max_bad
    if _alone_asked(arguments.protocols, "captions", "captions"):
        return _retrieve(arguments, changes)
    table = None if arguments.table is None else check_table_path(arguments.table, overwrite=arguments.overwrite)
    if arguments.supervised is not None:
        arguments.encoders.append(_supervised(arguments))
    try:
        found = in_flags(evaluate_several)(
            arguments.encoders,
            _pairs(arguments.train, arguments.test),
            protocols=arguments.protocols,
            batch_size=arguments.batch_size,
            device=arguments.device,
            max_bad=arguments.max_bad,
            augment=arguments.augment,
            encoder=arguments.encoder,
            overrides=changes,
            image_size=arguments.image_size,
            out=arguments.out,
            tell=tell,
        )
    except NotKept as error:
        show((_alone(error.found) or error.found).table())
        raise
    if (alone := _alone(found)) is not None:
        show(alone.table())
        show_advice(alone.advice)
        show(f"results  {alone.path}")
    else:
        show(found.table())
        for home in dict.fromkeys(str(each.path.parent) for row in found.by_sets for each in row):
            show(f"results  {home}")
    if table is not None:
        write_table(found.scores, table, overwrite=arguments.overwrite)
        show(f"table    {table}")
    return exits.OK


def _supervised(arguments: argparse.Namespace) -> str:
    """The run of supervised training that is asked for beside the others, made if it is not there."""
    from barlow import protocols
    from barlow.distributed import choose_device
    from barlow.supervised_reference import train_supervised

    protocols.build(arguments.protocols, choose_device(arguments.device))  # an unknown one is told before the training
    if arguments.train is None or len(arguments.train) != 1:
        raise ValueError("--supervised learns from the labels of --train: give one --train and one --test")
    return str(
        train_supervised(arguments.encoders[0], arguments.train[0], arguments.supervised, tell=tell, progress=True)
    )


def _alone_asked(protocols: str | None, protocol: str, takes: str) -> bool:
    """Whether a protocol is asked for that takes something else than labels: it goes with no other."""
    names = [name.strip() for name in (protocols or "").split(",")]
    asked = [name for name in names if name.partition(":")[0] == protocol]
    if asked and len(names) > 1:
        raise ValueError(
            f"--protocol {protocols}: {protocol} takes {takes}, and the others labels; ask for it by itself"
        )
    return bool(asked)


def _retrieve(arguments: argparse.Namespace, changes: dict[str, Any]) -> int:
    """Runs `--protocol captions`."""
    from barlow.caption_retrieval import retrieve
    from barlow.wording import in_flags

    if arguments.protocols.strip() != "captions":
        raise ValueError(f"--protocol {arguments.protocols}: captions takes no number; leave out what is after it")
    if arguments.train is not None:
        raise ValueError("--train: a run has learned from its own captions, so captions take --test alone")
    if changes or any(vars(arguments)[name] for name in ("augment", "table", "encoder", "image_size", "supervised")):
        raise ValueError("captions take --test, --out, --batch-size, --device and --max-bad, and no other options")
    if arguments.test is not None and (len(arguments.test) != 1 or len(arguments.test[0]) != 1):
        raise ValueError("captions take one --test: a CSV file whose first line is image,caption, or a named set")
    found = in_flags(retrieve)(
        arguments.encoders,
        None if arguments.test is None else arguments.test[0][0],
        batch_size=arguments.batch_size,
        device=arguments.device,
        max_bad=arguments.max_bad,
        out=arguments.out,
        tell=tell,
    )
    show(found.table())
    for row in found.rows:
        show(f"results  {row.path}")
    return exits.OK


def _detect(arguments: argparse.Namespace, changes: dict[str, Any]) -> int:
    """Runs `--protocol detect`."""
    from barlow.detection.evaluating import detect, options_of
    from barlow.report.score_files import check_table_path, write_table
    from barlow.wording import in_flags

    sets = [arguments.train or [], arguments.test or []]
    if any(len(given) != 1 for given in sets):
        raise ValueError(
            "detection takes one --train and one --test, with boxes: FOLDER:SPLIT of VOC's form, or COCO's; several "
            "that are one set follow one flag (--train VOC2007:trainval VOC2012:trainval)"
        )
    if arguments.supervised is not None:
        raise ValueError("--supervised learns from labels, and detect takes boxes: leave it out")
    if arguments.augment:
        raise ValueError(
            "--augment is for linear_sgd, and not for detect, which flips and resizes as its schedule says"
        )
    if arguments.batch_size is not None:
        raise ValueError("--batch-size: detect trains and tests in the batches of its schedule; leave it out")
    if arguments.max_bad is not None:
        raise ValueError("--max-bad: detect refuses every image that cannot be read; leave it out")
    table = None if arguments.table is None else check_table_path(arguments.table, overwrite=arguments.overwrite)
    found = in_flags(detect)(
        arguments.encoders,
        sets[0][0],
        sets[1][0],
        **options_of(arguments.protocols.strip()),
        device=arguments.device,
        encoder=arguments.encoder,
        overrides=changes,
        image_size=arguments.image_size,
        out=arguments.out,
        tell=tell,
    )
    show(found.table())
    for home in found.homes:
        show(f"results  {home}")
    if table is not None:
        write_table(found.scores, table, overwrite=arguments.overwrite)
        show(f"table    {table}")
    return exits.OK


def _alone(found: Any) -> Any:
    """The evaluation, if there is one only: its table has the gain over the best baseline."""
    evaluations = [each for row in found.by_sets for each in row]
    return evaluations[0] if len(evaluations) == 1 else None


def _pairs(train: list[list[str]] | None, test: list[list[str]] | None) -> list[tuple[Any, Any]]:
    """Training and test images: the first --train with the first --test, and so on."""
    trains, tests = train or [], test or []
    if max(len(trains), len(tests)) <= 1:
        return [(trains[0] if trains else None, tests[0] if tests else None)]
    if len(trains) != len(tests):
        raise ValueError(
            f"{len(trains)} times --train and {len(tests)} times --test: give them in pairs, --train A --test A2 "
            "--train B --test B2; several folders of one set follow one flag (--train A1 A2)"
        )
    return list(zip(trains, tests, strict=True))
