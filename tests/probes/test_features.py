import numpy as np
import pytest
import torch
from torch import nn

from barlow.probes.features import (
    FeatureSet,
    content_key,
    embed,
    load_features,
    save_features,
    weights_hash,
)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def batches(n=10, size=12, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed)).split(4)


def test_features_are_the_encoder_in_eval_mode_in_order():
    encoder = network().eval()
    with torch.no_grad():
        expected = torch.cat([encoder(batch) for batch in batches()])
    torch.testing.assert_close(embed(network().train(), batches()), expected)


def test_features_do_not_depend_on_the_batches():
    images = torch.cat(batches())
    torch.testing.assert_close(embed(network(), [images]), embed(network(), images.split(1)), atol=1e-6, rtol=1e-5)


def test_the_encoder_is_left_as_it_was():
    encoder = network().train()
    encoder[1].eval()  # frozen by its owner
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    features = embed(encoder, batches())
    assert [module.training for module in encoder] == [True, False, True, True, True, True]
    assert encoder.training
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    assert not features.requires_grad


def test_the_encoder_gets_its_mode_back_after_an_error():
    encoder = network().train()
    with pytest.raises(RuntimeError):
        embed(encoder, [torch.zeros(1, 5, 12, 12)])
    assert all(module.training for module in encoder.modules())


def test_bf16_is_close_and_not_equal_and_comes_back_as_float32():
    exact, coarse = embed(network(), batches()), embed(network(), batches(), precision="bf16")
    assert coarse.dtype == torch.float32
    assert not torch.equal(exact, coarse)
    torch.testing.assert_close(exact, coarse, atol=0.02, rtol=0.02)


def test_what_cannot_be_embedded_is_refused():
    with pytest.raises(ValueError, match="float32, bf16"):
        embed(network(), batches(), precision="fp16")
    with pytest.raises(ValueError, match="num_classes=0"):
        embed(network()[:1], batches())
    with pytest.raises(ValueError, match="no images"):
        embed(network(), [])


def good():
    return FeatureSet(
        torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), np.array([0, 1, 1, 2]), np.arange(4)
    )


def test_features_come_back_from_the_cache_bit_for_bit(tmp_path):
    key = content_key(encoder="a", source="b", preprocessing={"size": 32})
    assert load_features(tmp_path, key, len(good())) is None
    save_features(tmp_path, key, good(), {"split": "train"})
    back = load_features(tmp_path, key, len(good()))
    assert torch.equal(back.features, good().features)
    np.testing.assert_array_equal(back.labels, good().labels)
    np.testing.assert_array_equal(back.ids, good().ids)


def test_another_key_is_another_entry(tmp_path):
    base = {"encoder": "a", "source": "b", "preprocessing": {"size": 32, "mean": [0.5]}}
    save_features(tmp_path, content_key(**base), good())
    for change in ({"encoder": "c"}, {"source": "c"}, {"preprocessing": {"size": 33, "mean": [0.5]}}):
        assert load_features(tmp_path, content_key(**{**base, **change}), len(good())) is None
    reordered = {"mean": [0.5], "size": 32}
    assert load_features(tmp_path, content_key(**{**base, "preprocessing": reordered}), len(good())) is not None


def test_a_damaged_cache_names_its_file(tmp_path):
    key = content_key(encoder="a", source="b", preprocessing={})
    path = save_features(tmp_path, key, good())
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=path.name):
        load_features(tmp_path, key, len(good()))


def test_a_cache_that_is_too_large_for_its_images_is_not_read(tmp_path):
    key = content_key(encoder="a", source="b", preprocessing={})
    with open(tmp_path / f"{key[:32]}.safetensors", "wb") as file:
        header = b'{"features":{"dtype":"F32","shape":[1,800000000],"data_offsets":[0,3200000000]}}'
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 3_200_000_000)  # sparse: it takes no space
    with pytest.raises(ValueError, match="is far larger than the features of 20 images"):
        load_features(tmp_path, key, 20)


def test_any_change_of_weights_changes_their_hash():
    assert weights_hash(network(0)) == weights_hash(network(0))
    assert weights_hash(network(0)) != weights_hash(network(1))
    changed = network(0)
    changed[1].running_mean[3] += 1e-6
    assert weights_hash(changed) != weights_hash(network(0))


@pytest.mark.parametrize(
    ("features", "labels", "ids", "says"),
    [
        (torch.zeros(4), np.zeros(4, int), np.arange(4), "one row of floats"),
        (torch.zeros(4, 2, dtype=torch.int64), np.zeros(4, int), np.arange(4), "one row of floats"),
        (torch.zeros(0, 2), np.zeros(0, int), np.arange(0), "empty"),
        (torch.zeros(4, 2), np.zeros(3, int), np.arange(4), "one label"),
        (torch.zeros(4, 2), np.zeros(4, int), np.arange(3), "one id"),
        (torch.zeros(4, 2), np.array([0, 1, -1, 0]), np.arange(4), "unlabelled"),
        (torch.zeros(4, 2), np.zeros(4), np.arange(4), "class numbers"),
        (torch.zeros(4, 2), np.full((4, 2), 2), np.arange(4), "zeros and ones"),
        (torch.tensor([[1.0], [float("nan")]]), np.array([0, 1]), np.arange(2), "1 of 2 images"),
    ],
)
def test_a_feature_set_refuses_what_does_not_fit(features, labels, ids, says):
    with pytest.raises(ValueError, match=says):
        FeatureSet(features, labels, ids)
