"""What a reader wants to know first: whether the run works, what it was, of which images, on which machine."""

from collections.abc import Iterator, Mapping
from typing import Any

from barlow.advice import after_evaluation_of, after_training, illness, standing
from barlow.diagnostics.finding import Finding
from barlow.diagnostics.health import COLLAPSED, DIVERGED, WATCH, word_of
from barlow.probes.report import rows_of
from barlow.recipe.changes import flat
from barlow.record import Record, table_of
from barlow.report.charts import number
from barlow.report.markup import Markup, el, join, note, pairs
from barlow.report.part import Part
from barlow.size import words


def state_of(record: Record) -> tuple[str, str] | None:
    """The word on the run at the end of its log, and the word with its reason; None of older runs."""
    if (found := standing(record.ran, record.log)) is None:
        return None
    word, sick = found
    why = record.log[-1].get("why") if sick is None else str(sick)
    return word, f"{word}: {why}" if isinstance(why, str) else word


def lines_of(record: Record) -> list[tuple[str, str]]:
    """What is said after training and after an evaluation: a word, and the rest. What came of it is before advice."""
    said = _after_training(record)
    if record.results is not None:
        said += after_evaluation_of(record.ran, rows_of(record.results))
    split = [line.partition(" ") for line in dict.fromkeys(said)]
    return sorted(((word, rest.strip()) for word, _, rest in split), key=lambda line: line[0] == "advice")


def _after_training(record: Record) -> list[str]:
    """What a run has reached, at its end; that it is ill, at once."""
    (done, total), ran = record.steps, record.ran
    if ran is None or not record.log:
        return []
    try:
        return after_training(ran, record.log) if done >= total or illness(ran, record.log) else []
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return ["note metrics.jsonl is not of the form that this version of barlow writes, so it gets no advice"]


def verdict(record: Record) -> Part:
    """Whether it works, how good it is, and what to do next."""
    rows: list[tuple[object, object]] = []
    done, total = record.steps
    if not record.log:
        rows.append(("steps", "nothing was logged: the run has made no step yet, or its metrics.jsonl is gone"))
    elif done < total and record.log[-1].get("state") != DIVERGED:
        rows.append(
            (
                "steps",
                join(
                    [
                        f"{done:,} of {total:,}: the run is not finished. ",
                        el("code", f"barlow pretrain --resume --out {record.command}"),
                        " goes on with it",
                    ]
                ),
            )
        )
    lines = lines_of(record)
    if (state := state_of(record)) is not None:
        # What is wrong is what was reached, and what to do about it the advice: neither is said twice.
        told = state[0] in (WATCH, COLLAPSED) and any(word == "reached" for word, _ in lines)
        rows.append(("state", el("span", state[0] if told else state[1], class_=f"state {state[0]}")))
    rows += [(word, said(record, word, rest)) for word, rest in lines]
    if record.results is None:
        rows.append(("not yet", join(["how good the encoder is, nobody has measured: ", el("code", record.evaluate)])))
    rows += [("note", line) for line in record.notes]
    return Part("verdict", "Verdict", pairs(rows))


def said(record: Record, word: str, rest: str) -> object:
    """A line, in the colour of what it means where that is bad."""
    sick = illness_of(record) if word == "reached" else None
    return rest if sick is None else el("span", rest, class_=f"state {word_of(sick)}")


def is_ill(record: Record) -> bool:
    """Whether the end of the log shows an illness, whatever its last word is."""
    return illness_of(record) is not None


def illness_of(record: Record) -> Finding | None:
    """What the end of the log shows to be wrong."""
    return None if record.ran is None else illness(record.ran, record.log)


def recipe(record: Record) -> Part:
    """What was run, whose recipe it is, and where it differs."""
    sections = {name: table_of(record.recipe, name) for name in ("objective", "method", "encoder", "optim", "train")}
    objective, encoder, optim, train = (sections[name] for name in ("objective", "encoder", "optim", "train"))
    source = table_of(record.recipe, "source")
    rows: list[tuple[object, object]] = [
        ("objective", _settings(objective)),
        ("method", _kind(sections["method"])),
        ("encoder", _network(encoder)),
        ("batch", f"{train.get('batch_size')} images, {train.get('precision')} on {train.get('device')}"),
        (
            "optimizer",
            f"{optim.get('kind')}, rate {optim.get('lr_per_256')} for 256 images, weight decay "
            f"{optim.get('weight_decay')}",
        ),
        ("schedule", _settings(table_of(record.recipe, "schedule"))),
        ("length", _length(record)),
        ("seed", record.recipe.get("seed")),
    ]
    if source.get("paper"):
        rows.append(("from", source["paper"]))
    if source.get("code"):
        rows.append(("code", source["code"]))
    differs = source.get("differs")
    if isinstance(differs, list) and differs:
        rows.append(("differs", el("ul", *(el("li", each) for each in differs))))
    whole = el("details", el("summary", "all keys"), _all_keys(record.recipe))
    return Part("recipe", "Recipe", join([pairs(rows), whole]))


def _settings(section: Mapping[str, Any]) -> str:
    rest = [f"{key} {value}" for key, value in section.items() if key != "kind" and value is not None]
    return f"{section.get('kind')}" + (f" ({', '.join(rest)})" if rest else "")


def _kind(method: Mapping[str, Any]) -> str:
    heads = [
        f"{name} {'-'.join(map(str, head['widths']))}"
        for name, head in method.items()
        if isinstance(head, dict) and isinstance(head.get("widths"), list)
    ]
    return ", ".join([str(method.get("kind")), *heads])


def _network(encoder: Mapping[str, Any]) -> str:
    said = [str(encoder.get("name"))]
    said += [f"stem {encoder['stem']}"] if encoder.get("stem") not in (None, "as_is") else []
    said += [f"{key} {value}" for key, value in table_of(encoder, "options").items()]
    said += [f"from {encoder['init']}"] if encoder.get("init") else ["from scratch"]
    said += ["all stages side by side"] if encoder.get("stages") == "all" else []
    said += [f"whitened (shrinkage {encoder['whiten']} or more)"] if encoder.get("whiten") is not None else []
    return ", ".join(said)


def _length(record: Record) -> str:
    _, total = record.steps
    ran = record.ran
    return f"{total:,} steps" + (f", {ran.epochs:.3g} epochs" if ran is not None else "")


def _all_keys(content: Mapping[str, Any]) -> Markup:
    rows = ((key, "null" if value is None else value) for key, value in flat(content).items())
    return pairs((el("code", key), value) for key, value in rows)


def images(record: Record) -> Part:
    """What it was trained on."""
    report = record.data
    if not report:
        return Part("images", "Images", note("data.json, which says what the images were, is missing or damaged."))
    skipped = report.get("skipped")
    skipped = skipped if isinstance(skipped, list) else []
    data = table_of(record.recipe, "data")
    rows: list[tuple[object, object]] = [
        ("from", ", ".join(map(str, record.sources))),
        ("usable", f"{_count(report.get('usable'))} of {_count(report.get('candidates'))}"),
        ("size", f"{report.get('median_height')} × {report.get('median_width')} in the median (height × width)"),
        ("seen as", _seen(data)),
    ]
    if isinstance(extensions := report.get("extensions"), dict) and extensions:
        rows.append(("files", ", ".join(f"{_count(count)} {kind}" for kind, count in extensions.items())))
    if isinstance(classes := report.get("classes"), dict) and classes:
        counts = [count for count in classes.values() if isinstance(count, int)]
        spread = f", {min(counts)} to {max(counts)} images each" if counts else ""
        rows.append(("folders", f"{len(classes)} classes by their sub-folders{spread}; training does not read them"))
    if skipped:
        entries = [each for each in skipped if isinstance(each, dict)][:20]
        listed = el("ul", *(el("li", f"{each.get('where', each.get('id'))}: {each.get('reason')}") for each in entries))
        more = f"{len(skipped)} could not be read" + (", of which the first 20:" if len(skipped) > 20 else ":")
        rows.append(("skipped", join([el("p", more), listed])))
    if isinstance(notes := report.get("notes"), dict):
        rows += [("note", f"{what}: {_shown(value)}") for what, value in notes.items()]
    return Part("images", "Images", pairs(rows))


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "–"


def _seen(data: Mapping[str, Any]) -> str:
    def size(value: Any) -> str:
        return words(value if isinstance(value, int) else tuple(value))

    try:
        view, whole = size(data["image_size"]), data.get("centre_size")
        channels = data["channels"]
        said = f"views of {view} pixels, {channels} channel" + ("s" if channels != 1 else "")
        return said + (f"; finished features are of whole images at {size(whole)}" if whole else "")
    except (LookupError, TypeError, ValueError):
        return "unknown"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value[:10])) if isinstance(value, list) else str(value)


def machine(record: Record) -> Part:
    """Where it ran, and how long it took."""
    rows = list(_of_machine(record))
    if not rows:
        return Part("machine", "Machine", note("run.json, which says where the run was started, is missing."))
    return Part("machine", "Machine", pairs(rows))


def _of_machine(record: Record) -> Iterator[tuple[object, object]]:
    if not record.starts:
        return
    last = record.starts[-1]
    hardware, versions = table_of(last, "hardware"), table_of(last, "versions")
    gpu = f"{hardware['gpu']}, " if hardware.get("gpu") else ""
    processes = last.get("processes") or 1
    yield (
        "on",
        f"{gpu}{hardware.get('processor')}, {hardware.get('cores')} cores, {processes} process"
        + ("es" if processes != 1 else ""),
    )
    yield (
        "with",
        ", ".join(f"{name} {versions[name]}" for name in ("barlow", "torch", "timm", "python") if name in versions),
    )
    if last.get("commit"):
        yield "commit", last["commit"]
    if isinstance(command := last.get("command"), list):
        yield "command", el("code", " ".join(map(str, command)))
    if len(record.starts) > 1:
        steps = [number(float(start["step"])) for start in record.starts if isinstance(start.get("step"), int)]
        yield "started", f"{len(record.starts)} times, at steps {', '.join(steps)}"
