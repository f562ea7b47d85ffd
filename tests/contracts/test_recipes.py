"""Every YAML file in barlow/recipes, found on disk, is complete, says where it comes from, and trains."""

import dataclasses
from pathlib import Path

import pytest
import tiny
import yaml

import barlow
from barlow import methods, objectives
from barlow.pretraining import pretrain
from barlow.recipe import files, schema
from barlow.recipe.changes import override
from barlow.recipe.request import DEFAULT
from barlow.views import ops
from barlow.views.pipeline import ViewPipeline

NAMES = files.names()
FOLDER = Path(barlow.__file__).parent / "recipes"


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def resolved(name: str) -> schema.Recipe:
    """The recipe with a size in place of each automatic one."""
    content = files.read(name)
    sizes = {"auto": 32, "half": 16}
    changes = {
        f"views.{v}.{o}.size": sizes[op["size"]]
        for v, view in enumerate(content["views"])
        for o, op in enumerate(view)
        if op.get("size") in sizes
    }
    return schema.check(override(content, changes | tiny.smaller_tiles(content)))


SMALL = [name for name in NAMES if "/" not in name]
"""Made for the user's own images; the others are published, each in the folder of its set of images."""


def test_every_file_of_the_folder_is_found_the_small_ones_first() -> None:
    files = [path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml")]
    assert sorted(files) == sorted(NAMES)
    assert {"small_barlow_twins", "small_vicreg", "small_w_mse"} <= set(SMALL)
    assert SMALL + sorted(set(NAMES) - set(SMALL)) == NAMES


def test_the_folders_hold_nothing_else() -> None:
    assert {path.suffix for path in FOLDER.rglob("*") if path.is_file()} == {".yaml"}, "all of it goes into the wheel"


def test_the_recipe_is_valid_as_it_stands(name: str) -> None:
    schema.check(files.read(name))


def test_every_section_spells_out_all_its_keys(name: str) -> None:
    content, filled = files.read(name), schema.check(files.read(name)).as_dict()
    assert list(content) == list(filled), "sections, in their order"
    # Keys without meaning for this kind of optimizer, schedule or budget may be left out, none else.
    of_kinds = {"momentum", "betas", "eps", "trust", "clip", "rate_in_momentum"}
    optional = {"optim": of_kinds, "schedule": set(filled["schedule"]) - {"kind"}}
    for section, given in content.items():
        if isinstance(given, dict):
            assert set(filled[section]) - set(given) <= optional.get(section, set()), section
    for name, head in filled["method"].items():
        if isinstance(head, dict):
            assert set(content["method"][name]) == set(head), f"method.{name}"
    fields = {field.name for field in dataclasses.fields(methods.load(content["method"]["kind"]))}
    assert set(content["method"]) == {"kind", *fields}
    kind = content["objective"]["kind"]
    fields = {field.name for field in dataclasses.fields(objectives.load(kind))}  # type: ignore[arg-type]
    assert set(content["objective"]) == {"kind", *fields}
    for view in content["views"]:
        for op in view:
            fields = {field.name for field in dataclasses.fields(ops.OPS[op["kind"]])}  # type: ignore[arg-type]
            given = set(op) - {"each_tile"} | {"interpolation"}  # of that there is one
            assert given == {"kind", *fields, "interpolation"}, op["kind"]
    adam, lars = {"betas", "eps"}, {"momentum", "trust", "clip", "rate_in_momentum"}
    used = {"adamw": adam, "adam": adam, "sgd": {"momentum"}, "lars": lars}[content["optim"]["kind"]]
    assert set(content["optim"]) & of_kinds == used
    cosine, drops = {"warmup_from", "floor"}, {"factor"}
    used = {"warmup_cosine": cosine, "step_drops": drops}[content["schedule"]["kind"]]
    assert set(content["schedule"]) & (cosine | drops) == used


def test_the_recipe_names_its_source_and_every_difference(name: str) -> None:
    source = schema.check(files.read(name)).source
    assert "arXiv" in source.paper
    assert "@" in source.code, "code at a commit"
    assert source.differs
    assert all(len(difference) > 10 for difference in source.differs)


def test_the_file_opens_with_what_it_is_and_the_command_that_runs_it(name: str) -> None:
    first, second = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[:2]
    assert first.startswith("# ")
    assert len(first) <= 100, "`barlow list recipes` shows it in a line"
    content = files.read(name)
    words = second.removeprefix("#   ").split(",")[0].split()
    assert words[:2] == ["barlow", "pretrain"]
    images = "CAPTIONS.csv" if content["method"]["kind"] == "image_text" else "FOLDER"
    assert (images in words) == (not content["data"]["sources"]), "a folder, or the set that the recipe names"
    assert words[words.index("-c") + 1] == name if "-c" in words else name == DEFAULT


def test_the_file_is_plain_yaml_complete_in_itself(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    kinds = {type(token) for token in yaml.scan(text)}
    assert not kinds & {yaml.AnchorToken, yaml.AliasToken, yaml.TagToken}
    assert "<<" not in text
    assert "${" not in text


def test_objective_views_and_schedule_can_be_built(name: str) -> None:
    chosen = resolved(name)
    assert type(chosen.build_objective()) is objectives.load(chosen.objective["kind"])
    pipeline = ViewPipeline(chosen.build_views(), [0.5] * 3, [0.25] * 3)
    assert pipeline.crop_sizes[0] == 32
    known = {32, 16, 96, 160, 48, 255}
    assert set(pipeline.crop_sizes) <= known, "half as large, SwAV's, OBoW's, or what is cut into nine tiles"
    assert len(pipeline.crop_sizes) == len(chosen.views)
    steps = 20_000
    schedule = chosen.schedule.build(steps, int(steps / (chosen.train.epochs or 100)))
    rates = [schedule(step, steps) for step in range(steps)]
    assert 0 <= min(rates) <= max(rates) == pytest.approx(1, abs=1e-3)
    assert rates[-1] <= 0.1, "the rate has fallen by the end"


def pngs(name: str, folder: Path) -> Path:
    """A folder of forty, in sub-folders where the recipe asks for labels, and with captions where it asks for those."""
    if files.read(name)["method"]["kind"] == "image_text":
        return tiny.captioned(folder, 40)
    return tiny.images(folder, 40, classes=4 if files.read(name)["objective"]["kind"] == "supervised" else 0)


TRAINED = [pytest.param(name, marks=() if name in SMALL else pytest.mark.nightly) for name in NAMES]
"""Among the small ones are all methods and objectives, which a test holds. The numbers of the published ones are read
in every run of the tests, and they train at night."""

REPEATED = (
    "small_w_mse",
    "small_moco_v2",
    "small_deepcluster_v2",
    "small_pcl",
    "small_jigsaw",
    "small_vse",
    "small_npid",
)
"""Some of every kind: a run repeats itself by what all recipes have in common. The others repeat theirs at night."""


def test_the_small_ones_have_every_method_and_objective_of_the_others() -> None:
    kinds = {name: tuple(files.read(name)[part]["kind"] for part in ("method", "objective")) for name in NAMES}
    assert set(kinds.values()) == {kinds[name] for name in SMALL}


@pytest.mark.parametrize("name", TRAINED, indirect=True)
def test_the_recipe_trains_on_a_folder_of_small_pngs(name: str, tmp_path: Path) -> None:
    changes = tiny.of_recipe(name) | {"train.steps": 2, "data.sources": [str(pngs(name, tmp_path / "data"))]}
    run = tmp_path / "run"
    result = pretrain(out=run, recipe=name, overrides=changes, progress=False)
    assert result.metrics["step"] == 2
    written = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    assert "'auto'" not in str(written)
    assert schema.check(written).as_dict() == written, "what a run writes is a recipe, whole"
    assert written["train"]["steps"] == 2
    shipped = schema.check(files.read(name)).as_dict()
    for section in ("objective", "optim", "schedule"):
        of_size = {
            "clusters",
            "hidden",
            "lr_per_256",
            "negatives",
            "permutations",
            "queue",
            "slice_rows",
            "vectors_lr_per_256",
            "words",
        }
        assert {key: value for key, value in written[section].items() if key not in of_size} == {
            key: value for key, value in shipped[section].items() if key not in of_size
        }, "tiny, but otherwise the recipe"
    assert len(written["views"]) == len(shipped["views"])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in REPEATED else pytest.mark.nightly)
        for name in (*SMALL, "imagenet/barlow_twins")
    ],
    indirect=True,
)
def test_what_a_run_writes_repeats_it_bit_for_bit(name: str, tmp_path: Path) -> None:
    data = pngs(name, tmp_path / "data")
    changes = tiny.of_recipe(name) | {"train.steps": 3, "seed": 5}
    pretrain(data, tmp_path / "first", recipe=name, overrides=changes, progress=False)
    pretrain(out=tmp_path / "again", recipe=str(tmp_path / "first" / "recipe.yaml"), progress=False)
    assert tiny.weights(tmp_path / "again") == tiny.weights(tmp_path / "first")
    first, again = ((tmp_path / run / "recipe.yaml").read_text().split("\n", 1)[1] for run in ("first", "again"))
    assert first == again
