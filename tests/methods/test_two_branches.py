"""Two branches: which view goes where, what is trained, and what the run keeps."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

import barlow
from barlow import checkpoints, storage
from barlow.cards import _what
from barlow.exports._protocol import Material
from barlow.methods._networks import Method
from barlow.methods.two_branches import OtherEncoder, TwoBranches
from barlow.nets import weights
from barlow.nets.building import build_encoder
from barlow.nets.given import Network
from barlow.nets.heads import Head
from barlow.nets.preprocessing import Preprocessing
from barlow.recipe.messages import RecipeError
from barlow.types import Rows

HEAD = Head(widths=[5, 4], hidden_bias=True, last_bias=True, batch_norm=False)
WIDER = Head(widths=[7, 4], hidden_bias=True, last_bias=True, batch_norm=False)


def encoders(part: str = "encoder", **changes: Any) -> tuple[nn.Module, int]:
    """Networks of another seed for another part, and of another width under another name."""
    torch.manual_seed(0 if part == "encoder" else 1)
    width = 6 if "name" not in changes else 9
    return nn.Sequential(nn.Flatten(), nn.Linear(12, width)), width


def branches(**keys: Any) -> Method:
    return TwoBranches(projector=HEAD, **keys).build(encoders, seed=0).double()


def rows(views: int = 2) -> Rows:
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(8, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(views)]
    return Rows(images, {"ids": torch.arange(8)})


def test_views_go_through_the_branches_in_turn() -> None:
    method: Any = branches()
    given = rows(3)
    outputs = method(given)
    ((a, b, c),) = outputs.groups
    for z, view in ((a, given.views[0]), (c, given.views[2])):
        torch.testing.assert_close(z, method.projector(method.encoder(view)))
    torch.testing.assert_close(b, method.other["projector"](method.other["encoder"](given.views[1])))
    assert len(outputs.features) == 2, "those of the encoder that the run keeps"
    torch.testing.assert_close(outputs.features[1], method.encoder(given.views[2]))


def test_the_branches_start_from_other_weights_and_both_are_trained() -> None:
    method: Any = branches()
    for mine, its in (
        (method.encoder[1], method.other["encoder"][1]),
        (method.projector[0], method.other["projector"][0]),
    ):
        assert not torch.equal(mine.weight, its.weight)
    ((a, b),) = method(rows()).groups
    (a - b).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in method.parameters())


def test_the_other_branch_may_have_another_architecture_and_head() -> None:
    method: Any = branches(other=OtherEncoder(name="vit"), other_projector=WIDER)
    assert method.other["encoder"][1].out_features == 9
    assert method.other["projector"][0].out_features == 7
    assert [z.shape for z in method(rows()).groups[0]] == [(8, 4)] * 2
    with pytest.raises(ValueError, match="the projectors end in 4 and 3 features"):
        TwoBranches(projector=HEAD, other_projector=Head(widths=[3], hidden_bias=True, last_bias=True))


@pytest.mark.parametrize("objective", ["barlow_twins", "vicreg", "simclr"])
def test_a_run_with_a_vision_transformer_beside_a_resnet_keeps_the_resnet(objective: str, tmp_path: Path) -> None:
    data = tiny.images(tmp_path / "data", 24)
    changes = tiny.SMALL | {
        "method": {
            "kind": "two_branches",
            "projector": {"widths": [16, 8], "hidden_bias": False, "last_bias": False},
            "other": {
                "name": "vit_tiny_patch16_224",
                "options": {"embed_dim": 24, "depth": 1, "num_heads": 2, "patch_size": 8},
            },
        },
    }
    changes = {key: value for key, value in changes.items() if not key.startswith("method.")}
    said: list[str] = []
    result = barlow.pretrain(
        data,
        tmp_path / "run",
        recipe="small_barlow_twins",
        objective=objective,
        overrides=changes,
        progress=False,
        tell=said.append,
    )
    kept = "first of two branches (resnet26, of views 1, 3, …); the other (vit_tiny_patch16_224) is in the checkpoints"
    assert [line for line in said if line.startswith("branch")] == [f"branch   the run keeps the {kept} alone"]
    assert storage.read_sealed(tmp_path / "run" / "encoder" / "config.json").get("branch") == f"{kept} alone"
    assert barlow.load_encoder(tmp_path / "run").num_features == result.encoder.num_features
    checkpoint, _ = checkpoints.newest(tmp_path / "run")
    assert checkpoint is not None
    names = {name.split(".")[0] for name in checkpoint.tensors if name.startswith("method/")}
    assert names == {"method/encoder", "method/projector", "method/other"}
    others = [name for name in checkpoint.tensors if name.startswith("method/other.encoder.")]
    assert any("blocks.0.attn" in name for name in others), "the other branch is in the checkpoint, a transformer"


def test_the_weights_of_the_other_branch_differ_from_the_first_of_the_same_architecture(tmp_path: Path) -> None:
    data = tiny.images(tmp_path / "data", 24)
    changes = {key: value for key, value in tiny.SMALL.items() if not key.startswith("method.")} | {
        "method": {"kind": "two_branches", "projector": {"widths": [16, 8], "hidden_bias": False, "last_bias": False}},
    }
    barlow.pretrain(data, tmp_path / "run", recipe="small_barlow_twins", overrides=changes, progress=False)
    start, _ = checkpoints.folders(tmp_path / "run"), None
    first = checkpoints.read(start[0]).tensors

    def convolutions(part: str) -> list[Tensor]:
        return [v for name, v in sorted(first.items()) if name.startswith(f"method/{part}") and v.ndim == 4]

    mine, its = convolutions("encoder."), convolutions("other.encoder.")
    assert [v.shape for v in mine] == [v.shape for v in its]
    assert not any(a.equal(b) for a, b in zip(mine, its, strict=True))


def test_the_kept_branch_is_named_in_the_card_as_text_and_where_there_is_one_encoder_nothing_is() -> None:
    one = weights.with_description(*plain_network())
    assert "branch" not in weights.description_of(one)
    assert "branch" not in _what(Material(one, weights.description_of(one)), [], None)[0]
    described = weights.description_of(one) | {"branch": "first of two <b>" + "x" * 500}
    (told,) = _what(Material(one, described), [], None)
    assert r"It is the first of two \<b\>xxx" in told
    assert len(told) < 400


def plain_network() -> tuple[nn.Module, Network, Preprocessing, int]:
    seen = Preprocessing(16, 1.0, "bicubic", [0.5] * 3, [0.25] * 3, 3)
    network = Network("resnet18", {"channels": [8, 8, 8, 8]}, "as_is", True)
    return build_encoder("resnet18", image_size=16, options=network.options), network, seen, 0


def test_one_view_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    data = tiny.images(tmp_path / "data", 24)
    changes = {key: value for key, value in tiny.SMALL.items() if not key.startswith(("method.", "views."))} | {
        "method": {"kind": "two_branches", "projector": {"widths": [16, 8], "hidden_bias": False, "last_bias": False}},
        "views": [[{"kind": "random_resized_crop", "size": "auto", "scale": [0.3, 1.0], "ratio": [0.75, 1.33]}]],
    }
    with pytest.raises(RecipeError, match="the method two_branches needs two views or more"):
        barlow.pretrain(data, tmp_path / "run", recipe="small_barlow_twins", overrides=changes, progress=False)
