"""Encoders and linear probes behave as scikit-learn's estimators do, and give the numbers that an evaluation gives."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from simple_encoder import Colours, vector
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

import barlow
from barlow.probes.features import FeatureSet
from barlow.protocols.logistic import Logistic

FEW = (1e-2, 1.0)
"""Strengths that are tried here: the checks fit some two hundred times."""

APPLY = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_estimators_overwrite_params",
    "check_dont_overwrite_parameters",
    "check_estimators_fit_returns_self",
    "check_readonly_memmap_input",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
)
"""scikit-learn's checks that apply to an encoder, of those for all estimators and for transformers. The others do not:
they call `transform` with rows of numbers (`check_estimator` itself stops where an estimator does not take those), and
an encoder takes images."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tiny.images(tmp_path_factory.mktemp("photos"), 48, classes=4)
    return sorted(map(str, folder.rglob("*.png")))


def labels_of(photos: list[str]) -> list[str]:
    return [Path(path).parent.name for path in photos]


def test_a_linear_probe_passes_all_of_scikit_learns_checks() -> None:
    results = check_estimator(barlow.LinearProbe(strengths=FEW), on_skip=None)
    left_out = {result["check_name"] for result in results if result["status"] != "passed"}
    # scikit-learn skips these, for every estimator, where pandas and array_api_strict are not installed.
    assert left_out <= {"check_classifier_data_not_an_array", "check_array_api_input"}
    assert len(results) > 40


@pytest.mark.parametrize("name", APPLY)
def test_an_encoder_passes_those_checks_that_give_it_no_rows_of_numbers_to_transform(name: str) -> None:
    getattr(estimator_checks, name)("Encoder", barlow.Encoder(Colours()))


def test_scikit_learn_itself_finds_that_its_other_checks_do_not_apply_to_an_encoder() -> None:
    with pytest.warns(Warning, match="Can't test estimator Encoder which requires input"):
        results = check_estimator(barlow.Encoder(Colours()), on_skip=None)
    assert {result["status"] for result in results} <= {"passed"}


def test_an_encoder_gives_each_image_its_features_whatever_form_the_image_comes_in(photos: list[str]) -> None:
    expected = np.stack([vector(Image.open(path)) for path in photos])
    encoder = barlow.Encoder(Colours(), batch_size=7)
    from_paths = encoder.transform(photos)
    assert from_paths.dtype == np.float32
    np.testing.assert_allclose(from_paths, expected, atol=4e-3)
    arrays = [np.asarray(Image.open(path)) for path in photos]
    for same in (arrays, np.stack(arrays), np.array(photos), [Image.open(path) for path in photos]):
        np.testing.assert_array_equal(encoder.fit(same).transform(same), from_paths)
    assert list(encoder.get_feature_names_out())[:2] == ["encoder0", "encoder1"]
    assert len(encoder.get_feature_names_out()) == 12


def test_an_encoder_refuses_what_is_no_list_of_images(photos: list[str]) -> None:
    encoder = barlow.Encoder(Colours())
    for wrong in (photos[0], np.zeros((24, 24, 3), np.uint8), np.zeros((5, 12)), 3):
        with pytest.raises(ValueError, match="give a list of paths or images"):
            encoder.transform(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape \(9, 24, 24\); .* grey images need a channel: array\[\.\.\., None\]"):
        encoder.transform(np.zeros((9, 24, 24), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"an image of shape \(24, 24\) and type uint8"):
        encoder.transform([np.zeros((24, 24), np.uint8)])
    with pytest.raises(ValueError, match="no images"):
        encoder.transform([])
    with pytest.raises(ValueError, match=r"cannot read .*gone\.png"):
        encoder.transform([photos[0], "gone.png"])
    with pytest.raises(ValueError, match="no encoder is named"):
        barlow.Encoder().fit(photos)


def test_a_pickle_and_a_clone_hold_a_name_and_give_the_same_features(photos: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    barlow.pretrain(str(Path(photos[0]).parents[1]), run, recipe="small_barlow_twins", overrides=tiny.SMALL)
    encoder = barlow.Encoder(str(run), device="cpu").fit(photos)
    features = encoder.transform(photos)
    content = pickle.dumps(encoder)
    assert len(content) < 1000, "no weights"
    for other in (pickle.loads(content), clone(encoder)):
        np.testing.assert_array_equal(other.transform(photos), features)
        assert other.get_params() == encoder.get_params()
    direct = barlow.load_encoder(run)
    with torch.no_grad():
        np.testing.assert_allclose(direct(direct.preprocess(photos)).numpy(), features, rtol=1e-4, atol=1e-5)
    encoder.set_params(encoder=Colours())
    assert encoder.transform(photos).shape == (48, 12), "another encoder is loaded, not the one that was kept"


def test_images_to_scores_in_one_pipeline(photos: list[str]) -> None:
    labels = labels_of(photos)
    pipeline = make_pipeline(barlow.Encoder(Colours()), barlow.LinearProbe(strengths=FEW))
    assert cross_val_score(pipeline, photos, labels, cv=3).min() > 0.9
    assert set(pipeline.fit(photos, labels).predict(photos)) == set(labels)


def test_a_linear_probe_answers_as_the_protocol_of_an_evaluation_does() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 150)
    x = (rng.normal(size=(150, 8)) + 0.7 * y[:, None]).astype(np.float32)
    probe = barlow.LinearProbe().fit(x[:100], np.array(["a", "b", "c"])[y[:100]])
    train = FeatureSet(torch.from_numpy(x[:100]), y[:100], np.arange(100))
    expected = Logistic().predict(train, torch.from_numpy(x[100:]))
    np.testing.assert_allclose(probe.predict_proba(x[100:]), expected.scores, atol=1e-5)
    assert probe.notes_ == expected.notes
    assert (probe.predict(x[100:]) == np.array(["a", "b", "c"])[expected.scores.argmax(1)]).all()


def test_importing_barlow_imports_neither_torch_nor_scikit_learn() -> None:
    code = "import sys, barlow; barlow.__dir__(); print([m for m in ('torch', 'sklearn', 'timm') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
