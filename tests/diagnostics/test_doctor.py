"""Runs that are made ill in one way each are told so by its name, with the setting to change; healthy ones are not."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from programs import program
from torch import Tensor, nn

from barlow import checkpoints, exits, objectives
from barlow.diagnostics.doctor import FRESH, SIGNS, beforehand, examine
from barlow.diagnostics.evidence import Movement, of_views, parts_without_gradient
from barlow.diagnostics.finding import DIRECTIONS, SPREAD, About, Finding
from barlow.diagnostics.health import COLLAPSED, STARTING, WATCH, Health, word_of
from barlow.distributed import World
from barlow.exits import Collapsed, Diverged
from barlow.pretraining import pretrain
from barlow.runs.run import Run
from barlow.training.watchers import LASTING
from barlow.views.pipeline import ViewPipeline

FINE: dict[str, Any] = {
    "loss": 400.0,
    "rate": 0.003,
    "reference": {"unrelated": 1074.0, "floor": 35.0},
    "features": {"std": 0.8, "effective_rank": 60.0},
    "embeddings": {"std": 0.9, "effective_rank": 40.0},
    "views": {"difference": 1.1, "agreement": 0.6, "chance": 0.0, "error": 0.03},
    "moved": 0.01,
}


def log(*, count: int = 5, **changes: Any) -> list[dict[str, Any]]:
    """Lines that are fine but for some changes, each at a dotted key."""
    line: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in FINE.items()}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            line[section][name] = value
        else:
            line[section] = value
    return [{**line, "step": 50 * (i + 1)} for i in range(count)]


def names(lines: list[dict[str, Any]], **about: Any) -> list[str]:
    return [finding.name for finding in examine(lines, About(**({"total": 250} | about)))]


ILL: dict[str, dict[str, Any]] = {
    "views identical": {"views__difference": 0.0, "views__agreement": 1.0},
    "no gradient": {"without_gradient": ["projector"]},
    "rate too low": {"moved": 1e-9},
    "rate too high": {"loss": 9_000.0},
    "constant collapse": {"features__std": 0.001, "embeddings__std": 0.001},
    "head-only collapse": {"embeddings__std": 0.001},
    "dimensional collapse": {"embeddings__effective_rank": 1.1},
    "views too strong, or of different images": {"views__agreement": 0.01},
    "views too weak": {"views__features_agreement": 0.97, "views__features_chance": 0.0, "views__features_error": 0.01},
    "loss at chance": {"loss": 1060.0},
}


@pytest.mark.parametrize("advice", ["a lower rate; if that does not help, a larger batch", ""])
def test_a_finding_is_read_back_from_the_words_that_a_log_has(advice: str) -> None:
    found = Finding("head-only collapse", "all alike (spread 0.1)", advice)
    assert Finding.of(str(found)) == found


def test_a_run_that_is_fine_has_no_finding() -> None:
    assert names(log()) == []
    assert examine([], About(total=10)) == []


@pytest.mark.parametrize("name", ILL)
def test_the_line_of_a_runs_first_step_is_for_curves_and_changes_no_verdict(name: str) -> None:
    ill = log(**ILL[name])
    opening = {**ill[0], "step": 1, "opening": True, "moved": 3.0, "views": {"difference": 0.0}}
    assert examine([opening], About(total=250)) == []
    assert examine([opening, *ill], About(total=250)) == examine(ill, About(total=250))
    one, other = Health(About(total=250)), Health(About(total=250))
    assert not one.read(opening)
    assert [one.read(line) for line in ill] == [other.read(line) for line in ill]
    assert (one.word, one.why, one.lines) == (other.word, other.why, other.lines)


@pytest.mark.parametrize("name", ILL)
def test_each_illness_is_named_with_evidence_and_one_setting(name: str) -> None:
    (finding,) = examine(log(**ILL[name]), About(total=250))
    assert finding.name == name
    assert finding.evidence
    assert finding.advice
    assert str(finding).startswith(f"{name}: ")


@pytest.mark.parametrize("name", sorted(set(ILL) - {"no gradient"}))
def test_what_only_one_line_shows_is_no_finding(name: str) -> None:
    assert names([*log(count=FRESH), *log(count=1, **ILL[name])]) == []


def test_a_cause_is_told_without_its_consequences() -> None:
    assert names(log(moved=0.0, embeddings__std=0.001, features__std=0.001)) == ["rate too low"]
    assert names(log(views__difference=0.0, embeddings__std=0.001)) == ["views identical"]


def test_features_of_views_that_have_nothing_in_common_are_told_before_the_collapse_that_follows() -> None:
    apart = {"views__features_agreement": 0.01, "views__features_chance": 0.0, "views__features_error": 0.03}
    assert names(log(embeddings__std=0.01, **apart))[0] == "views too strong, or of different images"
    assert names(log(**apart | {"views__features_agreement": 0.3}, embeddings__std=0.01)) == ["head-only collapse"]
    assert names(log(**apart | {"views__features_error": 0.2})) == [], "too few images to tell"


FACTS: dict[str, Any] = {"images": 200, "width": 1024, "epochs": 1.2, "copies": 0.5, "spreads_by": "decorrelation"}


def told_beforehand(**about: Any) -> list[str]:
    return [finding.name for finding in beforehand(About(**{"total": 250} | about))]


def test_what_is_wrong_with_the_images_and_the_length_is_known_without_a_log() -> None:
    assert told_beforehand() == []
    assert told_beforehand(**FACTS) == ["too few epochs", "too few images for the width", "duplicates"]
    assert names(log(), **FACTS) == [], "it is no matter of what the log shows"


@pytest.mark.parametrize(
    ("fine", "why"),
    [
        ({"epochs": 3}, "three epochs"),
        ({"total": 5_000}, "many steps, of very many images"),
        ({"from_weights": True}, "what was trained before"),
    ],
)
def test_a_run_that_sees_enough_is_not_told_of_too_few_epochs(fine: dict[str, Any], why: str) -> None:
    assert "too few epochs" not in told_beforehand(**FACTS | fine), why


def test_few_images_are_enough_for_an_objective_that_decorrelates_nothing() -> None:
    assert "too few images for the width" not in told_beforehand(**FACTS | {"spreads_by": "contrast"})
    assert "too few images for the width" not in told_beforehand(**FACTS | {"spreads_by": None})


def test_weights_that_move_by_a_twentieth_of_their_length_in_a_step_leap() -> None:
    (finding,) = examine(log(moved=0.051 * 50), About(total=250))
    assert (finding.name, finding.evidence) == (
        "rate too high",
        "weights moved by 0.051 of their length in a step, at a rate of 0.003",
    )
    assert names(log(moved=0.049 * 50)) == []


def test_one_leap_is_told_for_ten_lines_and_forgotten_then() -> None:
    leap = {**log(count=1)[0], "step": 10, "moved": 0.06 * 10}
    after = [{**log(count=1)[0], "step": 10 + 10 * i, "moved": 0.02} for i in range(1, 12)]
    assert names([leap, *after[:9]]) == ["rate too high"]
    assert names([leap, *after[:10]]) == []


def test_the_steps_of_a_move_are_those_since_the_line_before_it() -> None:
    near = [{**log(count=1)[0], "step": step, "moved": 0.4} for step in (100, 110, 120)]
    assert names(near[:2]) == [], "0.04 a step"
    assert names([{**near[0]}, {**near[1], "step": 105}]) == ["rate too high"], "0.08 a step"


def test_predictions_may_lie_close_together_for_eighty_steps_and_not_longer() -> None:
    near = [line | {"step": step} for line, step in zip(log(count=2, embeddings__std=0.18), (60, 70), strict=True)]
    assert names(near, total=100) == []
    assert names([line | {"step": line["step"] + 10} for line in near], total=100) == ["head-only collapse"]
    one = [line | {"embeddings": {"std": 0.06, "effective_rank": 20.0}} for line in near]
    assert names(one, total=100) == ["head-only collapse"], "nothing comes out of that"


def near(spread: float, *, steps: tuple[int, ...] = (30, 40), least: float = 0.25) -> list[dict[str, Any]]:
    ranges = {"healthy": {"embeddings": {"std": [least, 1.0], "effective_rank": [6.3, 63.0]}}}
    lines = log(count=len(steps), embeddings__std=spread)
    return [line | ranges | {"step": step} for line, step in zip(lines, steps, strict=True)]


def test_a_spread_below_the_range_of_the_log_is_told_before_it_is_a_collapse() -> None:
    kept: dict[str, Any] = {"total": 100, "spreads_by": "decorrelation"}
    (finding,) = examine(near(0.13), About(**kept))
    assert finding.name == "embeddings near each other"
    assert finding.evidence == "embeddings spread by 0.13, and healthy is 0.25 or more"
    assert word_of(finding) == WATCH
    assert names(near(0.06), **kept) == ["head-only collapse"]
    assert names(near(0.13, steps=(80, 90)), **kept) == ["head-only collapse"]
    assert names(near(0.26), **kept) == []
    assert names([*near(0.13, steps=(30,)), *near(0.9, steps=(40,))], **kept) == [], (
        "one of them is the draw of a batch"
    )
    assert names(near(0.13), total=100) == [], "as BYOL's predictions, which come out of it"
    assert names(near(0.13), **kept | {"total": 1000}) == [], "in the first tenth"
    older = [{key: value for key, value in line.items() if key != "healthy"} for line in near(0.13)]
    assert names(older, **kept) == ["embeddings near each other"]


@pytest.mark.parametrize(
    ("section", "ill", "setting"),
    [
        ({"kind": "vicreg", "variance": 0.0}, "head-only collapse", "--objective.variance is 0"),
        ({"kind": "vicreg", "variance": 0.0}, "constant collapse", "--objective.variance is 0"),
        ({"kind": "vicreg", "covariance": 0}, "dimensional collapse", "--objective.covariance is 0"),
        ({"kind": "barlow_twins", "redundancy": 0.0}, "dimensional collapse", "--objective.redundancy is 0"),
        ({"kind": "counting", "margin": 0.0}, "constant collapse", "--objective.margin is 0"),
        ({"kind": "vicreg", "covariance": 0}, "head-only collapse", "lower --optim.lr_per_256"),
        ({"kind": "vicreg", "variance": 25.0}, "head-only collapse", "lower --optim.lr_per_256"),
        ({"kind": "custom:mine", "variance": 0.0}, "head-only collapse", "lower --optim.lr_per_256"),
    ],
)
def test_a_setting_of_the_objective_that_alone_explains_a_collapse_is_named_first(
    section: dict[str, Any], ill: str, setting: str
) -> None:
    (finding,) = examine(log(**ILL[ill]), About(total=250, unweighted=objectives.unweighted(section)))
    assert finding.name == ill
    assert finding.advice.startswith(setting)


def test_what_holds_embeddings_up_is_a_setting_of_its_objective_that_is_not_zero_by_default() -> None:
    named = {kind: getattr(objectives.load(kind), "keeps", {}) for kind in objectives.kinds()}
    assert {kind for kind, keeps in named.items() if keeps} >= {"vicreg", "barlow_twins"}
    for kind, keeps in named.items():
        zero = {"kind": kind} | dict.fromkeys(keeps, 0.0)
        assert [key for key, _, _ in objectives.unweighted(zero)] == [f"objective.{name}" for name in keeps]
        assert set(keeps.values()) <= {SPREAD, DIRECTIONS}


def of(possible: float, directions: float) -> list[dict[str, Any]]:
    ranges = {"healthy": {"embeddings": {"effective_rank": [0.1 * possible, possible]}}}
    return [line | ranges for line in log(embeddings__effective_rank=directions)]


def test_three_directions_of_many_are_a_collapse_where_the_objective_keeps_more() -> None:
    assert names(of(127, 2.9), spreads_by="decorrelation") == ["dimensional collapse"]
    assert names(of(127, 2.9), spreads_by="contrast") == ["dimensional collapse"]
    assert names(of(127, 3.1), spreads_by="decorrelation") == []
    assert names(of(127, 2.3)) == [], "as BYOL's predictions, in runs that learn"
    assert names(of(127, 1.4)) == ["dimensional collapse"]
    assert names(of(31, 2.0), spreads_by="decorrelation") == [], "not so few of thirty"
    (finding,) = examine(of(127, 2.9), About(total=250, spreads_by="decorrelation"))
    assert finding.evidence == "embeddings use 2.9 of 127 directions"


def test_a_loss_that_is_that_of_unrelated_views_is_told_when_half_of_the_run_is_over() -> None:
    still = log(count=10, loss=1060.0)
    assert names(still, total=1001) == []
    assert names(still, total=1000) == ["loss at chance"]
    assert names(still, total=1000, moving_target=True) == [], "its loss may rise while it learns"
    assert names(log(count=10, loss=1050.0), total=1000) == [], "a fortieth of the way to the floor"
    assert names([line | {"reference": {"unrelated": None, "floor": None}} for line in still]) == []


def test_a_network_that_was_trained_before_may_take_two_views_for_one() -> None:
    assert names(log(**ILL["views too weak"])) == ["views too weak"]
    assert names(log(**ILL["views too weak"]), from_weights=True) == []


@pytest.mark.parametrize("name", sorted(set(ILL) - {"views identical", "no gradient", "rate too low", "rate too high"}))
def test_in_the_first_tenth_of_a_run_only_what_explains_itself_is_told(name: str) -> None:
    lines = log(**ILL[name])
    assert any(sign(lines, About(total=250)) for sign in SIGNS)
    assert names(lines, total=2_501) == []


def test_healthy_runs_that_were_recorded_are_told_nothing_at_any_time() -> None:
    doctor = program("experiments/doctor.py")
    recorded = [line for line in doctor.lines_of(doctor.RESULTS) if line["illness"] == "healthy"]
    assert len(recorded) >= 25
    for line in recorded:
        for count in range(1, len(line["lines"]) + 1):
            assert examine(line["lines"][:count], doctor.about(line)) == [], line["case"]


def test_nothing_is_said_of_chance_in_the_first_tenth() -> None:
    assert names(log(views__agreement=0.0), total=10_000) == []


def test_weights_that_stand_still_where_the_schedule_wants_it_are_fine() -> None:
    assert names(log(moved=0.0, rate=1e-6), peak=0.003) == []
    assert names(log(moved=0.0, rate=1e-4), peak=0.003) == ["rate too low"]


def test_two_features_that_use_two_directions_are_fine() -> None:
    narrow = {"healthy": {"embeddings": {"effective_rank": [1.5, 2.0]}}}
    assert names([line | narrow for line in log(embeddings__effective_rank=1.9)]) == []


def test_lines_of_an_older_log_are_read_as_far_as_they_go() -> None:
    lines = [{"step": 50 * i, "loss": 3.0, "features": {"std": None}} for i in range(1, 6)]
    assert names(lines) == []


# --- The evidence ----------------------------------------------------------------------------------------------------


def test_agreement_is_the_cosine_of_two_views_beside_that_of_two_images() -> None:
    generator = torch.Generator().manual_seed(0)
    a, other = (7 + torch.randn(400, 64, generator=generator) for _ in range(2))
    views = [torch.randn(4, 3, 5, 5, generator=generator) for _ in range(2)]
    found = of_views(views, (a, a))
    assert found["agreement"] == pytest.approx(1, abs=1e-5)
    assert found["chance"] == pytest.approx(0, abs=0.02)
    assert found["difference"] == pytest.approx(float((views[0] - views[1]).square().mean().sqrt()))
    assert of_views(views, (a, other))["agreement"] == pytest.approx(0, abs=0.02)
    assert of_views([views[0], views[0]], (a,)) == {"difference": 0.0}
    assert of_views([views[0], views[0][..., :3]], (a,)) == {}


def test_parts_of_one_view_are_no_two_views() -> None:
    """Halves of an encoder, tiles, an image and its caption: before something is learned they have nothing in common,
    and a view that is weakened would not help."""
    a, b = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))
    assert of_views([torch.zeros(16, 3, 5, 5)], (a, b), [a, b]) == {}


def test_a_part_is_without_gradient_if_all_of_it_is() -> None:
    network = nn.ModuleDict({"encoder": nn.Linear(2, 2), "projector": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    x = network["encoder"](torch.ones(1, 2))
    (network["projector"](x.detach()).sum() + 0 * network["head"](x).sum()).backward()
    assert parts_without_gradient(network.named_parameters()) == ["encoder", "head"]


def test_movement_is_relative() -> None:
    layer = nn.Linear(3, 3)
    movement = Movement(list(layer.parameters()))
    with torch.no_grad():
        layer.weight.mul_(1.1)
        layer.bias.add_(100)
    assert movement.read() == pytest.approx(0.1, rel=1e-4)
    assert movement.read() == 0


# --- Runs ------------------------------------------------------------------------------------------------------------


class Detached(nn.Module):
    """Its projector learns; it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 16 * 16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.flatten(1)).detach()
        return y


class Torn(nn.Module):
    """The gradient of what is before its last layer is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3 * 16 * 16, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(x.flatten(1))
        if y.requires_grad:
            y.register_hook(lambda gradient: gradient * torch.nan)
        return y + self.last(y.detach())


class Poisoned(nn.Module):
    """The features of images whose first pixel is bright are not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 16 * 16, 8)

    def forward(self, x: Tensor) -> Tensor:
        f: Tensor = self.layer(x.flatten(1))
        return torch.where(x[:, :1, 0, 0] > 1.2, torch.nan, f)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("photos"), 64)


def found_in(run: Path, photos: Path, *, steps: int = 40, **given: Any) -> list[Finding]:
    overrides = tiny.SMALL | {"train.steps": steps, "train.log_steps": 2} | given.pop("overrides", {})
    pretrain(photos, run, recipe="small_barlow_twins", overrides=overrides, progress=False, **given)
    return examine(Run(run).metrics(), About(total=steps))


def test_a_run_whose_encoder_gets_no_gradient_is_told_so(photos: Path, tmp_path: Path) -> None:
    told: list[str] = []
    found = found_in(
        tmp_path / "run", photos, encoder=Detached(), steps=6, tell=told.append, overrides={"train.log_steps": 50}
    )
    lines = Run(tmp_path / "run").metrics()
    assert [(line["step"], line["state"]) for line in lines] == [(1, STARTING), (2, WATCH), (6, WATCH)]
    assert [finding.evidence for finding in found] == ["encoder got no gradient at step 2"]
    assert [line for line in told if line.startswith("step 2: watch: no gradient: encoder")]


def test_a_run_at_no_rate_is_told_so(photos: Path, tmp_path: Path) -> None:
    (finding,) = found_in(tmp_path / "run", photos, overrides={"optim.lr_per_256": 1e-15, "optim.weight_decay": 0.0})
    assert finding.name == "rate too low"


def test_a_run_on_one_view_twice_is_told_so(photos: Path, tmp_path: Path) -> None:
    crop = {"kind": "random_resized_crop", "scale": [1.0, 1.0], "ratio": [1.0, 1.0], "size": "auto"}
    (finding,) = found_in(tmp_path / "run", photos, overrides={"views": [[crop], [crop]]})
    assert finding.name == "views identical"


def test_a_run_on_pairs_of_different_images_is_told_so(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ViewPipeline.from_memory

    def mismatched(self: ViewPipeline, *given: Any) -> list[Tensor]:
        first, second = made(self, *given)
        return [first, second.roll(1, 0)]

    monkeypatch.setattr(ViewPipeline, "from_memory", mismatched)
    found = found_in(tmp_path / "run", photos, steps=60, overrides={"data.executor": "in_memory"})
    assert "views too strong, or of different images" in [finding.name for finding in found]


def test_a_run_that_is_well_is_told_nothing(photos: Path, tmp_path: Path) -> None:
    assert found_in(tmp_path / "run", photos) == []


@pytest.fixture(params=["at once", "late"])
def read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """When the verdict on a step is read: on a GPU, as the next one is queued."""
    if request.param == "late":
        monkeypatch.setattr(World, "queues", property(lambda world: True))
    return str(request.param)


@pytest.mark.usefixtures("read")
def test_the_layer_is_named_where_gradients_began_to_be_none(photos: Path, tmp_path: Path) -> None:
    """The one nearest to the loss: what is before it has such gradients because of it."""
    with pytest.raises(Diverged, match=r"step 0: .*It began with the gradient of encoder\.first\.bias"):
        found_in(tmp_path / "run", photos, encoder=Torn(), steps=4)


@pytest.mark.usefixtures("read")
def test_images_whose_features_are_not_finite_are_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"features of \d+ of 16 images are not finite \(.*\.png") as caught:
        found_in(tmp_path / "run", photos, encoder=Poisoned())
    assert exits.code_of(caught.value) == exits.DIVERGED


def alike(*z: Tensor) -> dict[str, Tensor]:
    """All that an objective does without the part that keeps images apart."""
    return {"distance": 1 - nn.functional.cosine_similarity(z[0], z[-1], dim=1).mean()}


def test_a_run_that_collapsed_ends_where_that_is_asked_for_and_can_be_gone_on_with(
    photos: Path, tmp_path: Path
) -> None:
    ends = {"train.stop_if_collapsed": True, "optim.lr_per_256": 0.5}
    with pytest.raises(Collapsed, match=r"step \d+: \S+ collapse: .*To go on all the same: ") as caught:
        found_in(tmp_path / "run", photos, steps=150, overrides=ends, objective=alike)
    assert exits.code_of(caught.value) == exits.DIVERGED
    said = [line["state"] for line in Run(tmp_path / "run").metrics()]
    assert said[-LASTING:] == [COLLAPSED] * LASTING
    assert said[-LASTING - 1] != COLLAPSED
    stopped_at = max(checkpoints.folders(tmp_path / "run"))
    assert stopped_at == 2 * (len(said) - 1) < 150, "a line every second step, and the first one's"
    pretrain(
        out=tmp_path / "run",
        resume=True,
        progress=False,
        objective=alike,
        overrides={"train.stop_if_collapsed": False},
    )
    assert max(checkpoints.folders(tmp_path / "run")) == 150
