"""Pretraining: one page of loop, and what is set up around it."""

import contextlib
import copy
import dataclasses
import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from barlow import recipe as recipes
from barlow import resolve, storage
from barlow.data.folder import printable
from barlow.distributed import World, fixed_shapes, joined, synchronize
from barlow.machine import environment
from barlow.methods.backward import backward
from barlow.methods.siamese import Siamese
from barlow.nets.building import build_encoder, feature_width
from barlow.nets.heads import Head
from barlow.nets.norms import synchronized
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.recompute import recomputed
from barlow.nets.seeding import seeded
from barlow.nets.weights import initialise, packed, with_preprocessing
from barlow.optim.optimizers import (
    build_optimizer,
    can_skip,
    has_fused_kernels,
    load_state,
    set_rate,
    state_tensors,
    update_if,
)
from barlow.recipe import Recipe, RecipeError
from barlow.run import Checkpoint, Run, load_recipe_text, same_content
from barlow.watchers import Checkpointer, LiveLine, MetricsLog, Moment, ReplacedImages, Watcher

Data = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Rates = Callable[[int, int], float]


class Interrupted(RuntimeError):
    """Training was asked to stop; the state is saved and the message says how to go on."""


class NonFinite(RuntimeError):
    """The loss or its gradient is not a number; nothing was updated with it."""


class OutOfMemory(RuntimeError):
    """The machine has too little memory for the batch; the message says what to lower."""


@dataclass(frozen=True)
class Result:
    """What a run leaves behind."""

    encoder: nn.Module
    """In eval mode, with `.preprocessing`."""
    run_folder: Path
    metrics: dict[str, Any]
    """The last logged line: loss, terms, speed, embedding statistics."""


def train(
    method: nn.Module,
    objective: Callable[..., Mapping[str, Tensor]],
    batches: Iterator[Any],
    optimizer: torch.optim.Optimizer,
    rate: Rates,
    total: int,
    world: World,
    precision: str,
    watchers: Sequence[Watcher],
    seed: int,
    loss_weight: float = 1.0,
    rows_in_memory: int | None = None,
) -> None:
    """The loop. `rate(step, total)` is the rate of the update that follows `step` updates.

    Layers that draw (dropout, stochastic depth) draw by (seed, step, process, chunk): a resumed run goes on as it would
    have. Loss, gradient and update are those of the global batch, whatever the number of processes and chunks.
    """
    method.train()
    unread: deque[tuple[int, Mapping[str, Tensor], Tensor]] = deque()

    def settle(leave: int = 0) -> None:
        while len(unread) > leave:
            guard(*unread.popleft())

    # Reading a value waits for the device. A GPU would then idle until it is given work: where the update can be left
    # to it, a step is read when the next one is queued.
    late = 1 if world.queues and can_skip(optimizer) else 0
    with synchronized(method, world), fixed_shapes(world.device):
        network = world.wrap(method)
        parameters = [p for p in method.parameters() if p.requires_grad]
        before = time.monotonic()
        for batch in batches:
            waited = time.monotonic() - before
            set_rate(optimizer, now := rate(batch.step, total))
            outputs, terms = backward(
                network,
                objective,
                batch.views,
                batch.ids,
                world=world,
                precision=precision,
                draws=_draws(seed, batch.step, world),
                loss_weight=loss_weight,
                rows_in_memory=rows_in_memory,
            )
            norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            unread.append((batch.step, {name: value.detach() for name, value in terms.items()}, norm))
            settle(leave=late)
            update_if(optimizer, finite(terms, norm)) if late else optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            after = time.monotonic()
            images = len(batch.ids) * world.size
            moment = Moment(
                batch.step + 1, total, batch, images, outputs, terms, now, norm, waited, after - before, settle
            )
            before = after
            for watcher in watchers:
                watcher(moment)
        settle()


def _draws(seed: int, step: int, world: World) -> Callable[[int], contextlib.AbstractContextManager[None]]:
    def draws(chunk: int) -> contextlib.AbstractContextManager[None]:
        names = (("step", step), ("process", world.rank), ("chunk", chunk))
        part = " ".join(f"{name} {number}" for name, number in names if number or name == "step")
        return seeded(seed, part, world.device)

    return draws


def finite(terms: Mapping[str, Tensor], gradient_norm: Tensor) -> Tensor:
    """Whether a loss and its gradient are numbers: decided where they are, without waiting."""
    return torch.isfinite(torch.stack([*terms.values(), gradient_norm.to(next(iter(terms.values())).device)])).all()


def guard(step: int, terms: Mapping[str, Tensor], gradient_norm: Tensor) -> None:
    """Refuses a loss or gradient that is not finite; nothing is updated with it.

    Raises:
        NonFinite: with the terms' values.
    """
    if bool(finite(terms, gradient_norm)):
        return
    values = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.items())
    raise NonFinite(
        f"step {step}: the loss or its gradient is not finite ({values}, gradient norm {float(gradient_norm):.4g}); "
        "the weights were not updated. Lower --optim.lr_per_256, raise --schedule.warmup_fraction, "
        "or use --precision float32"
    )


def pretrain(
    data: Data | None = None,
    out: str | os.PathLike[str] = "runs/barlow",
    *,
    recipe: str = "small_barlow_twins",
    objective: str | Callable[..., Any] | None = None,
    encoder: str | nn.Module | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    seed: int | None = None,
    init: str | None = None,
    workers: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    max_bad: float | None = None,
    rows_in_memory: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    overrides: Mapping[str, Any] | None = None,
    progress: bool = True,
    tell: Callable[[str], None] | None = None,
) -> Result:
    """Trains an encoder on images without labels.

    In a program that torchrun starts in several processes, all of them call this, and the run is that of one process:
    same batches, loss and weights (docs/exactness.md says how exactly). The first process writes and speaks.

    Args:
        data: a folder of images, several, or the name of a set (`barlow list datasets`). Not needed to resume.
        out: the run folder.
        recipe: a shipped recipe's name or a YAML file.
        objective: a kind (`barlow list objectives`), or an objective object. A kind alone picks its small recipe.
        encoder: any timm name, or a module that maps (n, c, h, w) to (n, features).
        epochs, steps, minutes: the budget; give one. Minutes are turned into steps before the first.
        batch_size, image_size, seed, init, workers, device, precision, max_bad, rows_in_memory: as on the command
            line.
        resume: go on from the newest checkpoint in `out`. overwrite: replace the run in `out`.
        overrides: dotted keys of the recipe, `{"objective.redundancy": 0.01}`.
        progress: show a live line. tell: receives one-line messages.

    Returns:
        The encoder, the run folder, and the last logged metrics.

    Raises:
        ValueError: something given cannot be used; one line says what, and what to do.
        Interrupted: on Ctrl-C or SIGTERM, after saving.
    """
    changes = _changes(
        data,
        objective=objective,
        encoder=encoder,
        epochs=epochs,
        steps=steps,
        minutes=minutes,
        batch_size=batch_size,
        image_size=image_size,
        seed=seed,
        init=init,
        workers=workers,
        device=device,
        precision=precision,
        max_bad=max_bad,
        rows_in_memory=rows_in_memory,
        overrides=overrides,
    )
    chosen = _resumed_recipe(Run.open(out), changes) if resume else _new_recipe(recipe, changes)
    with contextlib.ExitStack() as held:
        world = held.enter_context(joined(chosen.train.device))
        run = Run(Path(out)) if resume or not world.main else Run.create(out, overwrite=overwrite)
        if world.main:
            held.enter_context(run.locked())
        module = encoder if isinstance(encoder, nn.Module) else None
        custom = objective if callable(objective) and chosen.objective["kind"].startswith("custom:") else None
        tell = tell or (lambda line: None)
        return _pretrain(run, chosen, module, custom, world, resume=resume, progress=progress and world.main, tell=tell)


def chosen_recipe(data: Data | None = None, *, recipe: str = "small_barlow_twins", **flags: Any) -> Recipe:
    """The recipe that `pretrain` would start from, given the same arguments; `auto` is not resolved."""
    return _new_recipe(recipe, _changes(data, **flags), bare=True)


_TRAIN_FLAGS = ("epochs", "steps", "minutes", "batch_size", "device", "precision", "rows_in_memory")
_KEY_OF_FLAG = {
    **{name: f"train.{name}" for name in _TRAIN_FLAGS},
    **{name: f"data.{name}" for name in ("image_size", "workers", "max_bad")},
    "seed": "seed",
    "init": "encoder.init",
}


def _changes(
    data: Data | None,
    *,
    objective: str | Callable[..., Any] | None = None,
    encoder: str | nn.Module | None = None,
    overrides: Mapping[str, Any] | None = None,
    **flags: Any,
) -> dict[str, Any]:
    """The short flags and the dotted overrides as dotted keys of the recipe; the overrides win."""
    if unknown := flags.keys() - _KEY_OF_FLAG.keys():
        raise TypeError(f"unknown argument {min(unknown)!r}; allowed: {', '.join(_KEY_OF_FLAG)}")
    changes: dict[str, Any] = {_KEY_OF_FLAG[name]: value for name, value in flags.items() if value is not None}
    budgets = [key for key in ("train.epochs", "train.steps", "train.minutes") if key in changes]
    if len(budgets) > 1:
        raise RecipeError(f"{' and '.join(b.replace('train.', '--') for b in budgets)} are given; keep one")
    if isinstance(encoder, str):
        changes |= {"encoder.name": encoder, "encoder.options": {}}
    elif encoder is not None:
        name = f"custom:{type(encoder).__qualname__}"
        changes |= {"encoder.name": name, "encoder.stem": "as_is", "encoder.options": {}}
    if isinstance(objective, str):
        changes["objective.kind"] = objective
    elif objective is not None:
        changes |= _objective_as_overrides(objective)
    if data is not None:
        changes["data.sources"] = [os.fspath(d) for d in ([data] if isinstance(data, str | os.PathLike) else data)]
    return changes | dict(overrides or {})


def _objective_as_overrides(objective: Callable[..., Any]) -> dict[str, Any]:
    from barlow import objectives

    for kind in objectives.kinds():
        if type(objective) is objectives.load(kind) and dataclasses.is_dataclass(objective):
            values = dataclasses.asdict(objective)
            return {"objective.kind": kind, **{f"objective.{name}": value for name, value in values.items()}}
    return {"objective.kind": f"custom:{type(objective).__qualname__}"}


def _new_recipe(name: str, changes: Mapping[str, Any], *, bare: bool = False) -> Recipe:
    """The recipe with its changes. An objective's kind alone, on the default recipe, means that kind's small recipe."""
    kind = changes.get("objective.kind")
    if name == "small_barlow_twins" and kind and f"small_{kind}" in recipes.names():
        name = f"small_{kind}"
    chosen = recipes.check(recipes.override(recipes.read(name), changes))
    if not chosen.data.sources and not bare:
        raise RecipeError("no images are named; give a folder, or the name of a set (`barlow list datasets`)")
    return chosen


_FREE_ON_RESUME = (
    "data.workers",
    "train.device",
    "train.log_steps",
    "train.checkpoint_minutes",
    "train.checkpoint_steps",
)
"""Keys whose change leaves the numbers of a run as they are; a moved data folder is checked by its fingerprint."""


def _resumed_recipe(run: Run, changes: Mapping[str, Any]) -> Recipe:
    stored = load_recipe_text(run.path / "recipe.yaml")
    before = _flat(recipes.check(stored).as_dict())
    after = recipes.check(recipes.override(stored, changes))
    values = _flat(after.as_dict())
    for key in sorted(
        values, key=lambda key: key not in changes
    ):  # what was asked for first, then what follows from it
        old, value = before.get(key), values[key]
        if not same_content(old, value) and key not in (*_FREE_ON_RESUME, "data.sources"):
            raise RecipeError(
                f"--resume goes on with the run as it was, where {key} is {old!r}; you gave {value!r}. "
                "Leave the flag out, or start a new run in another folder"
            )
    return after


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _pretrain(
    run: Run,
    chosen: Recipe,
    module: nn.Module | None,
    objective_object: Callable[..., Any] | None,
    world: World,
    *,
    resume: bool,
    progress: bool,
    tell: Callable[[str], None],
) -> Result:
    say = tell if world.main else lambda line: None
    if world.main:
        for folder in (run.path, run.path / "encoder"):
            storage.remove_leftovers(folder)
    say(f"reading {', '.join(chosen.data.sources)}" + (f"; {world.size} processes" if world.size > 1 else ""))
    prepared = _prepared_alike(chosen, world)
    chosen = prepared.recipe
    for line in prepared.reasons:
        say(line)
    objective = objective_object or chosen.build_objective()
    loader = prepared.loader

    def build(say: Callable[[str], None] = say) -> tuple[Siamese, torch.optim.Optimizer]:
        return build_for_training(chosen, world, module, say)

    checkpoint = None
    if resume:
        if world.main:
            _check_same_data(run, prepared.report)
            checkpoint, notes = run.load_checkpoint()  # which also sets damaged ones aside, so the main process first
            for note in notes:
                say(note)
        if world.share(str(checkpoint.step) if checkpoint else "none") != "none" and not world.main:
            checkpoint, _ = run.load_checkpoint()
        say(f"resumed at step {checkpoint.step}" if checkpoint else "no checkpoint yet; starting from step 0")
    if chosen.train.steps is None:
        chosen = _fix_steps(chosen, build, objective, loader, world, say)
    assert chosen.train.steps is not None
    total = chosen.train.steps
    schedule = chosen.schedule.build(total, loader.steps_per_epoch)
    if (warmup := chosen.schedule.warmup(total, loader.steps_per_epoch)) >= total:
        say(f"warm-up  of {warmup} steps is longer than the run: cut to {max(total - 1, 0)}, and nothing follows it")
    peak = chosen.optim.peak(int(chosen.train.batch_size))
    method, optimizer = build()  # before anything is written: an unknown encoder leaves no run behind
    start = 0
    if checkpoint is not None:
        _restore(method, optimizer, checkpoint)
        start = checkpoint.step
    if world.main:
        if not resume:
            run.clear()  # with --overwrite; only now, when nothing the user gave can still turn out wrong
            header = f"# barlow pretrain -c recipe.yaml --out ANOTHER_FOLDER repeats this run. {_describe(chosen)}\n"
            storage.write_json(run.path / "data.json", prepared.report)
            storage.write_png(run.path / "views.png", prepared.sheet())
            storage.write_text(run.path / "recipe.yaml", recipes.as_yaml(chosen, header))  # last: what makes it a run
        storage.write_json(run.path / "environment.json", environment(str(world.device), world.size))
        run.rewind_metrics(start)

    def save(step: int) -> None:
        optimizer_tensors, optimizer_state = state_tensors(optimizer, dict(method.named_parameters()))
        tensors = {f"method/{name}": value for name, value in method.state_dict().items()}
        tensors |= {f"optimizer/{name}": value for name, value in optimizer_tensors.items()}
        run.save_checkpoint(step, tensors, {"total": total, "optimizer": optimizer_state})

    log = MetricsLog(run, chosen.train.log_steps, say)
    watchers: list[Watcher] = [ReplacedImages(tell)]
    if world.main:
        watchers += [log, Checkpointer(save, chosen.train.checkpoint_minutes, chosen.train.checkpoint_steps)]
    if progress:
        from rich.console import Console

        watchers.insert(2, LiveLine(Console(stderr=True)))
    with _stoppable(run, save, world) as stop_if_asked, _memory_explained(chosen), _spared(method, chosen):
        train(
            method,
            objective,
            loader.stream(start, total),
            optimizer,
            lambda step, of: peak * schedule(step, of),
            total,
            world,
            str(chosen.train.precision),
            [*watchers, stop_if_asked],
            chosen.seed,
            chosen.optim.loss_weight,
            chosen.train.rows_in_memory,
        )
    trained = method.encoder.eval()
    if world.main:
        _write_encoder(run, trained, chosen)
    world.share("written")
    with_preprocessing(trained, _preprocessing(chosen))
    metrics = log.latest or (run.metrics() or [{}])[-1]
    return Result(encoder=trained, run_folder=run.path, metrics=metrics)


def _prepared_alike(chosen: Recipe, world: World) -> resolve.Prepared:
    """What every process knows about the images. The first resolves what is `auto`; the others do as it did."""
    if world.main:
        prepared = resolve.prepare(chosen, world)
        world.share(json.dumps(prepared.recipe.as_dict()))
        return prepared
    return resolve.prepare(recipes.check(json.loads(world.share(None))), world)


def _spared(method: Siamese, chosen: Recipe) -> contextlib.AbstractContextManager[object]:
    return recomputed(method.encoder) if chosen.train.activation_checkpointing else contextlib.nullcontext()


def _describe(chosen: Recipe) -> str:
    return f"{chosen.objective['kind']} on {', '.join(map(printable, chosen.data.sources))}, seed {chosen.seed}."


def build_for_training(
    chosen: Recipe, world: World, module: nn.Module | None, say: Callable[[str], None]
) -> tuple[Siamese, torch.optim.Optimizer]:
    """The networks and the optimizer, a function of the recipe (and of the module and weights it names) alone."""
    if module is None:
        if chosen.encoder.name.startswith("custom:"):
            raise RecipeError(f"the encoder is {chosen.encoder.name}: pass the module in Python, pretrain(encoder=...)")
        encoder = build_encoder(
            chosen.encoder.name,
            in_channels=int(chosen.data.channels),
            image_size=int(chosen.data.image_size),
            stem=chosen.encoder.stem,
            zero_init_last=chosen.encoder.zero_init_last,
            seed=chosen.seed,
            options=chosen.encoder.options,
        )
    else:
        encoder = copy.deepcopy(module)
    if chosen.encoder.init is not None:
        say(f"start    {initialise(encoder, chosen.encoder.init)}")
    head = chosen.method.projector
    width = feature_width(encoder, int(chosen.data.channels), int(chosen.data.image_size))
    projector = Head(
        widths=head.widths, hidden_bias=head.hidden_bias, last_bias=head.last_bias, batch_norm=head.batch_norm
    ).build(width, chosen.seed, "projector")
    layout = torch.channels_last if chosen.train.channels_last else torch.contiguous_format
    method = Siamese(encoder, projector, batch_norm_sees=chosen.method.batch_norm_sees)
    method.to(device=world.device, memory_format=layout)  # type: ignore[call-overload]
    optim, batch = chosen.optim, int(chosen.train.batch_size)
    optimizer = build_optimizer(
        method,
        kind=optim.kind,
        lr=optim.peak(batch),
        vectors_lr=optim.vectors_peak(batch),
        weight_decay=optim.weight_decay,
        exclude_1d=optim.exclude_1d,
        momentum=optim.momentum,
        betas=optim.betas,
        eps=optim.eps,
        trust=optim.trust,
        clip=optim.clip,
        fused=has_fused_kernels(optim.kind, world.device),
    )
    return method, optimizer


def _fix_steps(
    chosen: Recipe,
    build: Callable[..., tuple[Siamese, torch.optim.Optimizer]],
    objective: Callable[..., Mapping[str, Tensor]],
    loader: Any,
    world: World,
    say: Callable[[str], None],
) -> Recipe:
    """Turns epochs or minutes into a number of steps, once; from then on the recipe says steps."""
    if chosen.train.epochs is not None:
        steps = max(1, round(chosen.train.epochs * loader.steps_per_epoch))
        say(f"steps {steps}: {chosen.train.epochs:g} epochs of {loader.steps_per_epoch}")
    else:
        assert chosen.train.minutes is not None
        with _memory_explained(chosen):
            measured = _seconds_per_step(chosen, build, objective, loader, world)
        seconds = float(world.share(repr(measured)))  # all make as many steps as the main process's clock allows
        steps = max(1, int(60 * chosen.train.minutes / seconds))
        say(f"steps {steps}: {chosen.train.minutes:g} minutes at {seconds:.3f} s a step, measured just now")
    return recipes.check(recipes.override(chosen.as_dict(), {"train.steps": steps}))


MEASURED_SECONDS = 1.5
MEASURED_STEPS = (3, 30)
"""Left out (kernels are chosen, memory is touched for the first time), and at most counted."""


def _seconds_per_step(
    chosen: Recipe,
    build: Callable[..., tuple[Siamese, torch.optim.Optimizer]],
    objective: Callable[..., Mapping[str, Tensor]],
    loader: Any,
    world: World,
) -> float:
    """The time of a step, over the first steps of a throwaway copy: the run itself starts from its seed afterwards."""
    method, optimizer = build()
    warm, most = MEASURED_STEPS
    times: list[float] = []

    def count(moment: Moment) -> None:
        synchronize(world.device)
        times.append(time.monotonic())
        if world.any(len(times) > warm + 2 and times[-1] - times[warm] > MEASURED_SECONDS):
            raise StopIteration

    available = warm + most
    stream = loader.stream(0, available)
    precision = str(chosen.train.precision)
    with contextlib.closing(stream), contextlib.suppress(StopIteration), _spared(method, chosen):
        train(
            method,
            objective,
            stream,
            optimizer,
            lambda step, total: 1e-6,
            available,
            world,
            precision,
            [count],
            chosen.seed,
            rows_in_memory=chosen.train.rows_in_memory,
        )
    return (times[-1] - times[warm]) / (len(times) - 1 - warm)


def _restore(method: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's state back, strictly: a missing or unknown tensor is an error that names it."""
    parts: dict[str, dict[str, Tensor]] = {"method": {}, "optimizer": {}}
    for name, value in checkpoint.tensors.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = value
    # torch itself would let a batch norm's missing counter pass.
    if wrong := sorted(method.state_dict().keys() ^ parts["method"].keys()) + sorted(
        parts.keys() - {"method", "optimizer"}
    ):
        raise ValueError(
            f"the checkpoint of step {checkpoint.step} is of another network: {wrong[0]} is missing or unknown"
        )
    method.load_state_dict(parts["method"], strict=True)
    load_state(optimizer, dict(method.named_parameters()), parts["optimizer"], checkpoint.state["optimizer"])


def _check_same_data(run: Run, report: Mapping[str, Any]) -> None:
    before = storage.read_json(run.path / "data.json")
    if any(before[key] != report[key] for key in ("fingerprint", "usable")):
        raise RecipeError(
            f"the images have changed since {run.path} began ({before['usable']} usable then, {report['usable']} now, "
            "or other files); --resume needs the same images, all as readable as then. Restore them, or start a new run"
        )


def _preprocessing(chosen: Recipe) -> Preprocessing:
    return Preprocessing(
        size=int(chosen.data.image_size),
        crop_ratio=1.0,
        interpolation="bicubic",
        mean=tuple(map(float, chosen.data.mean)),
        std=tuple(map(float, chosen.data.std)),
        channels=int(chosen.data.channels),
    )


def _write_encoder(run: Run, encoder: nn.Module, chosen: Recipe) -> None:
    tensors, config = packed(
        encoder,
        name=chosen.encoder.name,
        stem=chosen.encoder.stem,
        zero_init_last=chosen.encoder.zero_init_last,
        options=chosen.encoder.options,
        seed=chosen.seed,
        preprocessing=_preprocessing(chosen),
    )
    storage.write_tensors(run.path / "encoder" / "model.safetensors", tensors)
    storage.write_json(run.path / "encoder" / "config.json", config)


ONE_REQUEST_SECONDS = 0.5
"""Signals that come within this of the first are the same request: terminals, launchers and schedulers repeat it."""


@contextlib.contextmanager
def _stoppable(run: Run, save: Callable[[int], None], world: World) -> Iterator[Watcher]:
    """Ctrl-C and SIGTERM end training after the current step, saved. A second one, a while later, ends it at once.

    Of several processes, all stop after the step at whose end one has been asked.
    """
    asked: list[float] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        asked.append(time.monotonic())
        if asked[-1] - asked[0] > ONE_REQUEST_SECONDS:
            raise KeyboardInterrupt

    def stop_if_asked(moment: Moment) -> None:
        if world.any(bool(asked)) and moment.step < moment.total:
            moment.settle()
            if world.main:
                save(moment.step)
            raise Interrupted(
                f"stopped at step {moment.step} of {moment.total}, saved. "
                f"To go on: barlow pretrain --resume --out {run.path}"
            )

    previous: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            previous[number] = signal.signal(number, on_signal)
        except ValueError:  # not the main thread: there are no signals to catch
            break
    try:
        yield stop_if_asked
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)


@contextlib.contextmanager
def _memory_explained(chosen: Recipe) -> Iterator[None]:
    """Turns each way of running out of memory into one line that says what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(chosen) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" in str(error) or "not enough memory" in str(error):
            raise _out_of_memory(chosen) from error
        raise


def _out_of_memory(chosen: Recipe) -> OutOfMemory:
    return OutOfMemory(
        f"out of memory with batch {chosen.train.batch_size} of {chosen.data.image_size}-pixel views and "
        f"{chosen.encoder.name}; lower --batch-size, --image-size, or take a smaller --encoder"
    )
