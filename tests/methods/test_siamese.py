import pytest
import torch
from torch import Tensor, nn

from barlow.methods.siamese import Siamese
from barlow.nets.heads import Head


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def projector() -> nn.Module:
    return Head(widths=[5, 4], hidden_bias=True, last_bias=True).build(6, 0, "projector")


def views(count: int = 2) -> list[Tensor]:
    # views of different scale: batch norm over one of them and over all of them then differ
    generator = torch.Generator().manual_seed(1)
    return [(k + 1) * torch.randn(8, 3, 6, 6, generator=generator) + k for k in range(count)]


def test_each_view_takes_a_forward_pass_of_its_own_through_both_networks() -> None:
    method = Siamese(encoder(), projector(), "each_view")
    outputs = method(views())
    expected = encoder()
    for view, f, z in zip(views(), outputs.features, outputs.embeddings, strict=True):
        torch.testing.assert_close(f, expected(view))
        torch.testing.assert_close(z, projector()(f))
    assert method.encoder[1].num_batches_tracked == 2
    assert method.projector.norm0.num_batches_tracked == 2


def test_all_views_share_the_projectors_batch_norm_but_not_the_encoders() -> None:
    method = Siamese(encoder(), projector(), "all_views")
    outputs = method(views(3))
    expected = encoder()
    features = [expected(view) for view in views(3)]
    together = projector()(torch.cat(features))
    assert [len(z) for z in outputs.embeddings] == [8, 8, 8]
    torch.testing.assert_close(torch.cat(outputs.embeddings), together)
    assert method.encoder[1].num_batches_tracked == 3
    assert method.projector.norm0.num_batches_tracked == 1
    apart = Siamese(encoder(), projector(), "each_view")(views(3))
    assert not torch.allclose(apart.embeddings[0], outputs.embeddings[0], atol=0.1)


def test_the_objective_compares_the_embeddings() -> None:
    outputs = Siamese(encoder(), projector())(views(), torch.arange(8))
    assert outputs.compared is outputs.embeddings
    assert [f.shape for f in outputs.features] == [(8, 6)] * 2
    assert [z.shape for z in outputs.compared] == [(8, 4)] * 2


def test_gradients_reach_both_networks_from_every_view() -> None:
    for k in range(2):
        method = Siamese(encoder(), projector())
        method(views()).embeddings[k].square().sum().backward()
        assert bool(method.encoder[0].weight.grad.any())
        assert bool(method.projector.linear0.weight.grad.any())


def test_channels_last_gives_the_same_embeddings() -> None:
    plain = Siamese(encoder(), projector())(views())
    method = Siamese(encoder(), projector()).to(memory_format=torch.channels_last)
    last = method([view.contiguous(memory_format=torch.channels_last) for view in views()])
    torch.testing.assert_close(last.embeddings, plain.embeddings)


@pytest.mark.parametrize(
    ("network", "got"),
    [
        (nn.Conv2d(3, 6, 3), r"shape \(8, 6, 4, 4\)"),
        (nn.Flatten(0), r"shape \(864,\)"),
        (nn.Flatten(0, 1), r"shape \(24, 6, 6\)"),
        (nn.MultiheadAttention(6, 1), "tuple"),
    ],
)
def test_an_encoder_that_does_not_make_rows_of_features_is_refused(network: nn.Module, got: str) -> None:
    if isinstance(network, nn.MultiheadAttention):
        network.forward = lambda x: (x, x)  # type: ignore[assignment, method-assign]
    with pytest.raises(ValueError, match=rf"the encoder made {got}.*\(n, features\)"):
        Siamese(network, nn.Identity())(views())


def test_no_views_and_unknown_batch_norm_are_refused() -> None:
    with pytest.raises(ValueError, match="no views"):
        Siamese(encoder(), nn.Identity())([])
    with pytest.raises(ValueError, match="allowed: each_view, all_views"):
        Siamese(encoder(), nn.Identity(), "both")  # type: ignore[arg-type]
