"""A run on images and captions, from the list to the recalls: what is kept, what is refused, and what is the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import barlow
from barlow import cli, storage
from barlow.caption_retrieval import SameImages, retrieve
from barlow.exits import NoInput, UnusableData
from barlow.pretraining import pretrain
from barlow.probes.recalls import KS
from barlow.recipe.messages import RecipeError
from barlow.runs.beginning import ChangedImages

RECIPE = "small_vse"
SMALL = tiny.of_recipe(RECIPE) | {"method.hidden": 8, "method.embedding": 8, "train.steps": 6, "method.min_count": 1}


def trained(data: Path | str, out: Path, **changes: Any) -> Path:
    overrides = SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    return pretrain(data, out, recipe=RECIPE, overrides=overrides, progress=False).run_folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of training and test images, and a run on the first."""
    folder = tmp_path_factory.mktemp("captions")
    tiny.captioned(folder / "train", 40)
    tiny.captioned(folder / "test", 24, seed=1)
    trained(folder / "train" / "captions.csv", folder / "run")
    return folder


def test_the_run_keeps_the_vocabulary_and_hands_out_both_branches(home: Path) -> None:
    run = home / "run"
    written = storage.read_sealed(run / "vocabulary.json")
    assert written["words"][:3] == ["a", "kind", "noise"]
    assert storage.read_sealed(run / "text_encoder" / "vocabulary.json") == written
    assert storage.read_sealed(run / "data.json")["captions"]["captions"] == 80
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8")
    assert f"words: {len(written['words']) + 4}" in recipe
    assert barlow.load_encoder(run).num_features == 8
    text = barlow.load_text_encoder(run)
    assert text.texts(["a blue kind", "something"]).norm(dim=1).tolist() == pytest.approx([1, 1])


def test_a_folder_that_was_trained_elsewhere_gives_the_embeddings_of_the_trained_network(home: Path) -> None:
    finished, checkpoint = (barlow.load_text_encoder(str(home / name)) for name in ("run", "run@6"))
    first = barlow.load_text_encoder(str(home / "run@0"))
    captions = ["noise of a blue kind", "something purple and unknown"]
    assert torch.equal(finished.texts(captions), checkpoint.texts(captions))
    assert not torch.equal(finished.texts(captions), first.texts(captions))
    features = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(finished.images(features), checkpoint.images(features))


def test_recalls_of_both_directions_stand_beside_untrained_heads_and_chance(home: Path) -> None:
    found = retrieve([str(home / "run")], home / "test" / "captions.csv")
    assert (found.images, found.captions) == (24, 48)
    (row,) = found.rows
    assert list(row.recalls) == [f"{direction}_recall@{k}" for direction in ("i2t", "t2i") for k in KS]
    assert row.untrained is not None
    assert row.untrained != row.recalls
    table = found.table()
    assert "24 images and 48 captions are searched" in table
    assert "image to text, of 48" in table
    assert "text to image, of 24" in table
    assert max(map(len, table.splitlines())) <= 80
    written = storage.read_sealed(row.path)
    assert written["recalls"]["trained"]["t2i_recall@10"]["value"] == row.recalls["t2i_recall@10"].value
    assert retrieve([home / "run"], home / "test" / "captions.csv").rows[0].recalls == row.recalls


def test_the_command_shows_the_table_and_takes_nothing_that_it_does_not_use(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(home / "run"), "--protocol", "captions"]
    test = ["--test", str(home / "test" / "captions.csv")]
    assert cli.main([*words, *test]) == 0
    assert "untrained heads" in capsys.readouterr().out
    for wrong, message in (
        (["--train", "x"], "captions take --test alone"),
        (["--augment"], "and no other options"),
        ([], "--test is not given: name a CSV file"),
    ):
        assert cli.main([*words, *(test if wrong else []), *wrong]) != 0
        assert message in capsys.readouterr().err
    assert cli.main([*words[:-1], "captions,knn", *test]) != 0
    assert "captions takes captions, and the others labels" in capsys.readouterr().err


def test_the_command_that_is_named_after_a_training_measures_the_run(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {**SMALL, "train.steps": 1}
    words = [word for key, value in changes.items() for word in (f"--{key}", json.dumps(value))]
    captions, out = home / "train" / "captions.csv", tmp_path / "run"
    assert cli.main(["pretrain", str(captions), "-c", RECIPE, "--out", str(out), *words]) == 0
    (named,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next ")]
    command = named.replace("CAPTIONS.csv", str(home / "test" / "captions.csv")).split()
    assert command[1:3] == ["barlow", "evaluate"]
    assert cli.main(command[2:]) == 0


def test_images_that_were_trained_on_are_refused(home: Path) -> None:
    with pytest.raises(SameImages, match=r"40 of 40 images of .* were trained on by .* byte for byte"):
        retrieve([home / "run"], home / "train" / "captions.csv")


def test_what_has_no_captions_or_no_text_encoder_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match=r"test .* has no captions"):
        retrieve([home / "run"], home / "test" / "images")
    with pytest.raises(ValueError, match="random:resnet18 is no run"):
        retrieve(["random:resnet18"], home / "test" / "captions.csv", out=tmp_path)
    other = pretrain(home / "train" / "images", tmp_path / "other", overrides=tiny.SMALL, progress=False).run_folder
    with pytest.raises(NoInput, match="no text encoder in"):
        retrieve([other], home / "test" / "captions.csv")


def test_a_text_encoder_that_was_changed_is_refused(home: Path, tmp_path: Path) -> None:
    run = trained(home / "train" / "captions.csv", tmp_path / "run", train__steps=1)
    folder = run / "text_encoder"
    words = storage.read_sealed(folder / "vocabulary.json")
    storage.write_sealed(folder / "vocabulary.json", words | {"words": words["words"][:-1]})
    with pytest.raises(UnusableData, match="its vocabulary of another run"):
        barlow.load_text_encoder(run)
    storage.write_sealed(folder / "vocabulary.json", words)
    config = storage.read_sealed(folder / "config.json")
    storage.write_sealed(folder / "config.json", config | {"method": config["method"] | {"hidden": 16_000}})
    with pytest.raises(UnusableData, match=r"do not fit its description: text\."):
        barlow.load_text_encoder(run)
    storage.write_sealed(folder / "config.json", config | {"format": 2})
    with pytest.raises(storage.Newer, match="is of format 2"):
        barlow.load_text_encoder(run)


def test_images_without_captions_and_a_whitened_encoder_are_refused_before_training(home: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"compares images with captions, and .* has none: give a CSV file"):
        trained(home / "train" / "images", tmp_path / "run")
    with pytest.raises(RecipeError, match=r"set encoder\.stages to last and encoder\.whiten to null"):
        trained(home / "train" / "captions.csv", tmp_path / "run", encoder__whiten=0.1)
    with pytest.raises(RecipeError, match=r"method\.words is 99, and the captions give"):
        trained(home / "train" / "captions.csv", tmp_path / "run", method__words=99)
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_run_that_is_gone_on_with_needs_the_same_captions(tmp_path: Path) -> None:
    data = tiny.captioned(tmp_path / "data", 40)
    begun = trained(data, tmp_path / "begun", train__steps=2)
    before = data.read_text(encoding="utf-8")
    data.write_text(before.replace("something blue", "something of a blue"), encoding="utf-8")
    with pytest.raises(ChangedImages, match="in their captions"):
        pretrain(None, begun, resume=True, steps=4, progress=False)
    data.write_text(before, encoding="utf-8")
    assert pretrain(None, begun, resume=True, steps=4, progress=False).metrics["step"] == 4


def test_a_stopped_run_with_a_frozen_encoder_goes_on_as_one_that_was_not(tmp_path: Path) -> None:
    data = tiny.captioned(tmp_path / "data", 40)
    straight = trained(data, tmp_path / "straight", method__frozen=True)
    stopped = trained(data, tmp_path / "stopped", method__frozen=True, train__checkpoint_steps=2)
    for name in ("text_encoder", "encoder", "checkpoints/step-000006"):
        for path in (stopped / name).iterdir():
            path.unlink()
        (stopped / name).rmdir()
    lines = (stopped / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["step"] <= 4]
    (stopped / "metrics.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    pretrain(None, stopped, resume=True, progress=False)
    captions = ["noise of a blue kind"]
    ours, theirs = (barlow.load_text_encoder(run).texts(captions) for run in (stopped, straight))
    assert torch.equal(ours, theirs)
    assert tiny.weights(stopped) == tiny.weights(straight), "the encoder has not moved"


def test_frozen_features_give_the_run_of_unheld_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a view that is the centre itself, features that are held are those of the views."""
    data = tiny.captioned(tmp_path / "data", 40)
    centre = [[{"kind": "random_resized_crop", "size": "auto", "scale": [1.0, 1.0], "ratio": [1.0, 1.0]}]]
    held = trained(data, tmp_path / "held", method__frozen=True, views=centre)
    monkeypatch.setattr("barlow.methods.image_text._ImageText.hold", lambda *_: None)
    monkeypatch.setattr("barlow.pretraining.without_views", lambda loader, start, stop: loader.stream(start, stop))
    computed = trained(data, tmp_path / "computed", method__frozen=True, views=centre)
    captions = ["noise of a blue kind", "something red"]
    ours, theirs = (barlow.load_text_encoder(run).texts(captions) for run in (held, computed))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
