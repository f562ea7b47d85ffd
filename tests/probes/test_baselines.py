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
    small = embed(RawPixels(32), [x]).unflatten(1, (3, 32, 32))
    assert small.shape == (2, 3, 32, 32)
    torch.testing.assert_close(small[..., :14], torch.ones(2, 3, 32, 14))
    torch.testing.assert_close(small.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
