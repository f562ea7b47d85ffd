"""More of the cases of `test_precision.py`: banks, shared keys, patches, colours, copies, and a second distance.

Each is an objective of two views (n, d), as matrices and as loops.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from oracles import banks as bank_loops
from oracles import colorization as colour_loops
from oracles import cpc as cpc_loops
from oracles import exemplar as exemplar_loops
from oracles import moco as moco_loops
from oracles import plain
from oracles import simsiam as simsiam_loops
from oracles import vicreg as vicreg_loops
from oracles.gradients import Loss
from torch import Tensor
from torch.nn.functional import normalize

from barlow.objectives._bank import TellingApart
from barlow.objectives._colour_bins import BINS
from barlow.objectives.byol_vicreg import BYOLVICReg
from barlow.objectives.cmc import CMC
from barlow.objectives.colorization import Colorization
from barlow.objectives.cpc import CPC
from barlow.objectives.exemplar import Exemplar
from barlow.objectives.exemplar_triplets import ExemplarTriplets
from barlow.objectives.infomin import InfoMin
from barlow.objectives.pirl import PIRL


class Case(NamedTuple):
    objective: Callable[..., dict[str, Tensor]]
    plain: Loss
    loops: Loss


def _such(z: Tensor) -> Tensor:
    """Other embeddings in the state of the batch, of length 1 and exact in float32."""
    z = z.detach().double()
    earlier = torch.cat([z, z.roll(1, 0) + 0.3 * (z.roll(1, 0) - z.roll(2, 0))])
    return normalize(earlier, dim=1).float().double()


TEMPERATURE = 0.07


def _drawn(module: TellingApart, n: int) -> Tensor:
    drawn = module.negatives(torch.arange(n), 2 * n)
    assert drawn is not None
    return drawn


def _cmc() -> Case:
    """CMC's first step: the views are the halves, and each bank holds embeddings like those of its own half."""

    def module(a: Tensor, b: Tensor) -> TellingApart:
        made = CMC(negatives=6).build(width=a.shape[1], images=2 * len(a), seed=0).to(a.dtype)
        made.lightness.rows.copy_(_such(a))
        made.colour.rows.copy_(_such(b))
        return made

    def matrices(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        drawn = _drawn(module(a.detach(), b.detach()), len(a))
        found = ((a, _such(b)), (b, _such(a)))
        terms = [plain.npid(z, bank, drawn)["instances"] for z, bank in found]
        return dict(zip(("lightness", "colour"), terms, strict=True))

    def loops(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        drawn, ids, terms = _drawn(module(a.detach(), b.detach()), len(a)).tolist(), list(range(len(a))), {}
        for name, z, bank in (("lightness", a, list(_such(b))), ("colour", b, list(_such(a)))):
            constant = bank_loops.constant(z, ids, drawn, bank, TEMPERATURE)
            terms[name] = bank_loops.estimated(z, ids, drawn, bank, TEMPERATURE, constant)
        return terms

    def objective(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return module(a.detach(), b.detach())([(a, b)], ids=torch.arange(len(a)))

    return Case(objective, matrices, loops)


def _pirl() -> Case:
    """PIRL's first step against a bank of embeddings between both views; its constant is that of the images'."""

    def module(a: Tensor, b: Tensor) -> TellingApart:
        made = PIRL(negatives=6).build(width=a.shape[1], images=2 * len(a), seed=0).to(a.dtype)
        made.bank.rows.copy_(_such(a.double() + b.double()))
        return made

    def against(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return _drawn(module(a.detach(), b.detach()), len(a)), _such(a + b)

    def matrices(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        drawn, bank = against(a, b)
        image, tiles = (plain.npid(z, bank, drawn, first=a)["instances"] for z in (a, b))
        return {"image": image / 2, "tiles": tiles / 2}

    def loops(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        (drawn, bank), ids = against(a, b), list(range(len(a)))
        constant = bank_loops.constant(a, ids, drawn.tolist(), list(bank), TEMPERATURE)
        image, tiles = (bank_loops.estimated(z, ids, drawn.tolist(), list(bank), TEMPERATURE, constant) for z in (a, b))
        return {"image": image / 2, "tiles": tiles / 2}

    def objective(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return module(a.detach(), b.detach())([(a, b)], ids=torch.arange(len(a)))

    return Case(objective, matrices, loops)


def _infomin() -> Case:
    """InfoMin with every other feature doubled taken for the tiles' embedding: both are compared with one key."""

    def groups(q: Tensor, k: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(q, k), (q * (1 + torch.arange(q.shape[1], dtype=q.dtype) % 2), k)]

    def objective(q: Tensor, k: Tensor) -> dict[str, Tensor]:
        keys = _such(k)
        module = InfoMin(queue=len(keys)).build(width=k.shape[1], seed=0).to(q.dtype)
        module.queue.copy_(keys)
        return module(groups(q, k))

    def matrices(q: Tensor, k: Tensor) -> dict[str, Tensor]:
        both = [plain.moco(*group, _such(k), temperature=0.15)["contrast"] for group in groups(q, k)]
        return {"contrast": sum(both) / 2}

    def loops(q: Tensor, k: Tensor) -> dict[str, Tensor]:
        return {"contrast": moco_loops.moco(groups(q, k), list(_such(k)), temperature=0.15)[0] / 2}

    return Case(objective, matrices, loops)


def _colorization() -> Case:
    """Colorization of images of one place: as many logits as there are bins, taken from the first view in turn."""
    where = torch.arange(len(BINS))
    section = Colorization(prior=tuple(1.0 + i % 5 for i in range(len(BINS))))

    def colours(n: int) -> Tensor:
        """Of n images: near to bins, and none grey."""
        coloured = torch.tensor([colour for colour in BINS if max(map(abs, colour)) > 10], dtype=torch.float64)
        return coloured[torch.arange(n) * 37 % len(coloured)] + torch.tensor([1.25, 0.375])  # no two bins as near

    def weights() -> list[float]:
        assert section.prior is not None
        shares = [share / sum(section.prior) for share in section.prior]
        return colour_loops.weights(shares, section.uniform, section.convention)

    def matrices(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        codes, boost = torch.zeros(len(a), len(BINS), dtype=torch.float64), []
        for row, colour in zip(codes, colours(len(a)).tolist(), strict=True):
            code = colour_loops.soft_code(*colour)
            row[list(code)] = torch.tensor(list(code.values()), dtype=torch.float64)
            boost.append(weights()[max(code, key=lambda q: code[q])])
        return plain.colorization(a[:, where % a.shape[1]], codes, torch.tensor(boost, dtype=torch.float64))

    return Case(
        lambda a, b: section.build()([(a[:, where % a.shape[1]], colours(len(a)).to(a.dtype))]),
        matrices,
        lambda a, b: colour_loops.colorization(a[:, where % a.shape[1]], colours(len(a)), weights()),
    )


def _exemplar() -> Case:
    """Exemplar's classifier of as many images as there are rows."""

    def known(z: Tensor) -> tuple[Tensor, Tensor]:
        made = Exemplar().build(width=z.shape[1], images=len(z), seed=0)
        return made.weight.detach().double(), made.bias.detach().double()

    def objective(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        module = Exemplar().build(width=a.shape[1], images=len(a), seed=0).to(a.dtype)
        return module([(a, b)], ids=torch.arange(len(a)))

    def matrices(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        weight, bias = known(a)
        return {
            "cross_entropy": sum(plain.cross_entropy(z @ weight.T + bias, torch.arange(len(z))) for z in (a, b)) / 2
        }

    def loops(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        weight, bias = known(a)
        return {"cross_entropy": exemplar_loops.exemplar(a, b, ids=torch.arange(len(a)), weight=weight, bias=bias)}

    return Case(objective, matrices, loops)


def _simsiam_with_terms() -> Case:
    def terms(t: Tensor, of: Loss) -> dict[str, Tensor]:
        found = of(t, t, variance=1.0, covariance=0.01)
        return {"variance": found["variance"] + 0 * t.sum(), "covariance": found["covariance"]}

    return Case(
        lambda p, t: BYOLVICReg(convention="simsiam")(p, t, t),
        lambda p, t: {"distance": plain.simsiam(p, t)["negative_cosine"], **terms(t, plain.vicreg)},
        lambda p, t: {"distance": simsiam_loops.simsiam(p, t)["negative_cosine"], **terms(t, vicreg_loops.vicreg)},
    )


MORE = {
    "cmc": _cmc(),
    "pirl": _pirl(),
    "infomin": _infomin(),
    "cpc, a patch an image": Case(
        lambda p, t: CPC(width=p.shape[1])(p, t), plain.cpc, lambda p, t: cpc_loops.cpc(p, t, p.shape[1], 0.1)
    ),
    "colorization, a place an image": _colorization(),
    "exemplar": _exemplar(),
    "exemplar_triplets": Case(
        ExemplarTriplets(margin=2.0),
        lambda a, b: plain.triplets(a, b, margin=2.0),
        lambda a, b: {"triplets": exemplar_loops.triplets(a, b, margin=2.0)},
    ),
    "byol_vicreg, SimSiam's distance": _simsiam_with_terms(),
}
