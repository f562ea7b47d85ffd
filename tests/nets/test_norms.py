import copy

import pytest
import torch
from torch import Tensor, nn

from barlow.nets.building import build_encoder
from barlow.nets.norms import exchanged, fix_statistics, has_fixed_statistics, recalibrated


def batches(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [3 + 2 * torch.randn(16, 3, 8, 8, generator=generator) for _ in range(4)]


def test_statistics_are_the_average_over_the_batches() -> None:
    norm = nn.BatchNorm2d(3, momentum=0.3)
    norm.running_mean.fill_(100)
    nn.init.zeros_(norm.weight)
    copied = recalibrated(norm, batches())
    means = torch.stack([b.mean((0, 2, 3)) for b in batches()]).mean(0)
    variances = torch.stack([b.transpose(0, 1).flatten(1).var(1) for b in batches()]).mean(0)
    torch.testing.assert_close(copied.running_mean, means)
    torch.testing.assert_close(copied.running_var, variances)
    assert bool((copied.weight == 1).all())
    assert copied.momentum == 0.3
    assert not copied.training


def test_the_network_given_is_left_as_it_is() -> None:
    encoder = build_encoder("resnet18", image_size=32, stem="strided", options={"layers": [1, 1, 1, 1]})
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    copied = recalibrated(encoder, batches())
    assert encoder.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(bool((m.weight == 1).all()) for m in copied.modules() if isinstance(m, nn.BatchNorm2d))
    x = batches(1)[0]
    assert not torch.allclose(copied(x), encoder.eval()(x))


def test_dropout_stays_off_while_statistics_are_measured() -> None:
    net = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3))
    torch.testing.assert_close(
        recalibrated(net, batches())[1].running_mean, recalibrated(net[1], batches()).running_mean
    )


def test_a_network_without_batch_norm_comes_back_equal() -> None:
    net = nn.Conv2d(3, 2, 3)
    assert torch.equal(recalibrated(net, batches()).weight, net.weight)


def test_no_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        recalibrated(nn.BatchNorm2d(3), [])


def test_blocks_that_start_at_zero_are_switched_on() -> None:
    encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.zeros_(encoder[1].weight)
    x = 3 + 2 * torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    copied = recalibrated(encoder, x.split(8))
    with torch.no_grad():
        normalised = copied[1](copied[0](x))
    torch.testing.assert_close(normalised.std(dim=(0, 2, 3)), torch.ones(8), atol=5e-2, rtol=0)
    assert not torch.allclose(copied(x), encoder.eval()(x))


def test_fixed_statistics_stay_in_training_and_scales_and_shifts_learn() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
    x = 5 + torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    expected = network.eval()(x)
    assert fix_statistics(network) == 2
    before = {name: value.clone() for name, value in network.named_buffers()}
    network.train()
    torch.testing.assert_close(network(x), expected)
    network(x).square().sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    assert all(p.grad is not None and bool(p.grad.any()) for p in network[1].parameters())
    copied = copy.deepcopy(network).train()
    assert not copied[1].training, "a copy's are fixed too"
    assert has_fixed_statistics(copied[4])


def test_fixed_statistics_are_not_synchronised_between_processes() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    fix_statistics(network[0])
    with exchanged(network, lambda norm: nn.Identity()):
        assert isinstance(network[0], nn.BatchNorm1d)
        assert isinstance(network[1], nn.Identity)
