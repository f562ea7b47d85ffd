import torch

from barlow.probes.baselines import RawPixels
from barlow.probes.features import embed


def images(n=64, size=16, seed=0):
    return 3 + 2 * torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_raw_pixels_are_the_pixels():
    x = images(4, 16)
    assert torch.equal(embed(RawPixels(), [x]), x.flatten(1))


def test_large_views_are_made_small():
    x = torch.ones(2, 3, 96, 96)
    x[:, :, :, 48:] = -1.0
    small = embed(RawPixels(32 * 32), [x]).unflatten(1, (3, 32, 32))
    assert small.shape == (2, 3, 32, 32)
    torch.testing.assert_close(small[..., :14], torch.ones(2, 3, 32, 14))
    torch.testing.assert_close(small.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)


def test_views_that_are_not_square_keep_their_aspect_ratio_and_give_as_many_features():
    x = torch.ones(2, 3, 32, 128)
    x[..., 64:] = -1.0
    small = embed(RawPixels(32 * 32), [x]).unflatten(1, (3, 16, 64))
    torch.testing.assert_close(small[..., :28], torch.ones(2, 3, 16, 28))
    thin = images(2, 16)[:, :, :8, :]
    assert torch.equal(embed(RawPixels(), [thin]), thin.flatten(1))
    assert embed(RawPixels(), [torch.ones(1, 3, 1, 9000)]).shape == (1, 3 * 3036)
