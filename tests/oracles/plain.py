"""The losses by matrices in float64, straight from the equations, for sizes at which the loops take hours.

`tests/objectives/test_precision.py` first checks them against the loops. They share nothing with the package: no Gram
matrices, no differences of views in place of correlations, and whitening by orthogonal factors of the centred batch
rather than by its covariance, whose condition number is the square.
"""

import math

import torch
from torch import Tensor


def _centred(z: Tensor) -> Tensor:
    return z - z.mean(dim=0)


def _standardised(z: Tensor, eps: float) -> Tensor:
    return _centred(z) / (z.var(dim=0, correction=0) + eps).sqrt()


def cross_covariance(za: Tensor, zb: Tensor, eps: float, normalization: str) -> Tensor:
    """c of section 1.1 of the paper, or of the two rows of its Table 5 that normalise otherwise."""
    if normalization == "none":
        ya, yb = za, zb
    else:
        ya, yb = _standardised(za, eps), _standardised(zb, eps)
        if normalization == "samples":
            ya, yb = (y / y.norm(dim=1, keepdim=True) * math.sqrt(y.shape[1]) for y in (ya, yb))
    return _centred(ya).T @ _centred(yb) / len(za)


def _without_diagonal(matrix: Tensor) -> Tensor:
    return matrix - torch.diag(matrix.diagonal())


def barlow_twins(
    za: Tensor,
    zb: Tensor,
    *,
    invariance: float = 1.0,
    redundancy: float = 0.0051,
    eps: float = 1e-5,
    normalization: str = "batch",
) -> dict[str, Tensor]:
    c = cross_covariance(za, zb, eps, normalization)
    return {
        "invariance": invariance * (1 - c.diagonal()).square().sum(),
        "redundancy": redundancy * _without_diagonal(c).square().sum(),
    }


def vicreg(
    za: Tensor,
    zb: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    gamma: float = 1.0,
    eps: float = 1e-4,
    convention: str = "code",
) -> dict[str, Tensor]:
    n, d = za.shape
    squared = (za - zb).square().sum(dim=1)
    hinges, energies = [], []
    for z in (za, zb):
        hinges.append(torch.clamp(gamma - (z.var(dim=0) + eps).sqrt(), min=0).mean())
        x = _centred(z)
        energies.append(_without_diagonal(x.T @ x / (n - 1)).square().sum() / d)
    return {
        "invariance": invariance * squared.mean() / (1 if convention == "equations" else d),
        "variance": variance * sum(hinges) / (2 if convention == "code" else 1),
        "covariance": covariance * sum(energies),
    }


def barlow_twins_cross_entropy(
    za: Tensor, zb: Tensor, *, redundancy: float = 1.0, temperature: float = 0.1, eps: float = 1e-5
) -> dict[str, Tensor]:
    """Less the values at c = I."""
    c = cross_covariance(za, zb, eps, "batch")
    d = len(c)
    positive = torch.where(c > 0, c, 0)[~torch.eye(d, dtype=torch.bool)]
    return {
        "invariance": 1 / temperature + math.log(d) - torch.logsumexp(c.diagonal() / temperature, 0),
        "redundancy": redundancy * (torch.logsumexp(positive / temperature, 0) - math.log(d * (d - 1))),
    }


def orthogonal_factor(matrix: Tensor) -> Tensor:
    """The orthogonal matrix of the polar decomposition, by Newton's iteration X = (X + X⁻ᵀ) / 2 from the matrix.

    The scales make it quick; they are constants, since the limit does not depend on them.
    """
    x, previous = matrix, None
    while previous is None or float((x - previous).detach().norm()) > 1e-9 * len(matrix):
        previous, inverse = x, torch.linalg.inv(x)
        scale = float((inverse.norm() / x.norm()).sqrt().detach())
        x = (scale * x + inverse.T / scale) / 2
    inverse = torch.linalg.inv(x)  # once more: where values stand still, derivatives are a step behind
    return (x + inverse.T) / 2


def whitened(z: Tensor, shrinkage: float, whitening: str) -> Tensor:
    """The centred rows times L⁻ᵀ or Σ^(-1/2), Σ = MᵀM of the centred batch M with shrinkage's multiple of I below it.

    With M = Q R, R upper triangular and of positive diagonal, L = Rᵀ; Σ^(-1/2) = R⁻¹ times the orthogonal factor of R.
    """
    k, d = z.shape
    weight = math.sqrt((1 - shrinkage) / (k - 1))
    stacked = torch.cat([weight * _centred(z), math.sqrt(shrinkage) * torch.eye(d, dtype=z.dtype)])
    q, r = torch.linalg.qr(stacked if shrinkage else stacked[:k])
    sign = r.diagonal().sign().detach()
    rows = q[:k] * sign / weight
    return rows if whitening == "cholesky" else rows @ orthogonal_factor(r * sign[:, None])


def w_mse(
    za: Tensor,
    zb: Tensor,
    *,
    slice_rows: int | None = None,
    shrinkage: float = 0.0,
    whitening: str = "cholesky",
    distance: str = "cosine",
) -> dict[str, Tensor]:
    n, d = za.shape
    k = slice_rows or 2 * d
    wa, wb = (torch.cat([whitened(part, shrinkage, whitening) for part in z.split(k)]) for z in (za, zb))
    if distance == "euclidean":
        return {"distance": (wa - wb).square().sum() / (n * d)}
    ua, ub = (w / w.norm(dim=1, keepdim=True) for w in (wa, wb))
    return {"distance": (ua - ub).square().sum() / n}


def _unit(z: Tensor) -> Tensor:
    return z / z.norm(dim=1, keepdim=True)


def _contrast(right: Tensor, others: Tensor) -> Tensor:
    """-log (exp right / (exp right + Σ exp others)) of each row; others of -inf count for nothing."""
    return torch.logaddexp(torch.zeros_like(right), torch.logsumexp(others - right[:, None], dim=1))


def simclr(za: Tensor, zb: Tensor, *, temperature: float = 0.1, convention: str = "code") -> dict[str, Tensor]:
    n = len(za)
    u = torch.cat([_unit(za), _unit(zb)])
    similarities = u @ u.T / temperature
    itself, partner = torch.arange(2 * n), torch.arange(2 * n).roll(n)
    right = similarities[itself, partner]
    no_negative = torch.zeros(2 * n, 2 * n, dtype=torch.bool)
    no_negative[itself, itself] = no_negative[itself, partner] = True
    losses = _contrast(right, similarities.masked_fill(no_negative, -math.inf))
    return {"contrast": losses.sum() / n if convention == "code" else losses.mean()}


def byol(p: Tensor, t: Tensor) -> dict[str, Tensor]:
    return {"distance": 2 * (_unit(p) - _unit(t.detach())).square().sum() / len(p)}


def simsiam(p: Tensor, t: Tensor) -> dict[str, Tensor]:
    return {"negative_cosine": -(_unit(p) * _unit(t.detach())).sum() / len(p)}


def moco(q: Tensor, k: Tensor, queue: Tensor, *, temperature: float = 0.07) -> dict[str, Tensor]:
    """Of one group, against a queue of keys of length 1."""
    u = _unit(q)
    right = (u * _unit(k.detach())).sum(dim=1)
    return {"contrast": _contrast(right / temperature, u @ queue.T / temperature).mean()}


def npid(z: Tensor, bank: Tensor, negatives: Tensor | None, first: Tensor | None = None) -> dict[str, Tensor]:
    """Of images 0, 1, …; against all others, or in the first step by noise-contrastive estimation, whose constant is
    that of the embeddings `first` (those themselves, if None)."""
    own = torch.arange(len(z))[:, None]
    scores = _unit(z) @ bank.T / 0.07
    if negatives is None:
        return {"instances": _contrast(scores.gather(1, own)[:, 0], scores.scatter(1, own, -math.inf)).mean()}
    candidates = torch.cat([own, negatives], dim=1)
    of_first = (_unit(z if first is None else first).detach() @ bank.T / 0.07).gather(1, candidates)
    likely = (scores.gather(1, candidates) - (of_first.exp().mean() * len(bank)).log()).exp()
    share = negatives.shape[1] / len(bank)
    others = torch.log1p((likely[:, 1:] + 1e-7) / share).sum(dim=1)
    return {"instances": (torch.log1p((share + 1e-7) / likely[:, 0]) + others).mean()}


def moco_v3(q: Tensor, k: Tensor, *, temperature: float = 1.0) -> dict[str, Tensor]:
    similar = _unit(q) @ _unit(k.detach()).T / temperature
    others = similar.masked_fill(torch.eye(len(q), dtype=torch.bool), -math.inf)
    return {"contrast": 4 * temperature * _contrast(similar.diagonal(), others).mean()}


def byol_vicreg(p: Tensor, t: Tensor, z: Tensor) -> dict[str, Tensor]:
    terms = vicreg(z, z, variance=1.0, covariance=0.01)
    return byol(p, t) | {"variance": terms["variance"], "covariance": terms["covariance"]}


def counting(whole: Tensor, summed: Tensor, *, margin: float = 10.0) -> dict[str, Tensor]:
    """Every row another image."""
    distances = torch.cdist(summed, whole, compute_mode="donot_use_mm_for_euclid_dist").square()
    others = ~torch.eye(len(whole), dtype=torch.bool)
    return {
        "distance": (whole - summed).square().sum() / len(whole),
        "contrast": torch.clamp(margin - distances[others], min=0).mean(),
    }


def _codes(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    q = (scores.detach() / epsilon).exp()
    for _ in range(iterations):
        q = q / q.sum(dim=0)
        q = q / q.sum(dim=1, keepdim=True)
    return q


def swav(za: Tensor, zb: Tensor, prototypes: Tensor) -> dict[str, Tensor]:
    """Of two views that both have codes, with prototypes of length 1."""
    sa, sb = _unit(za) @ prototypes.T, _unit(zb) @ prototypes.T
    losses = [
        -(_codes(one, 0.05, 3) * torch.log_softmax(other / 0.1, dim=1)).sum(dim=1).mean()
        for one, other in ((sa, sb), (sb, sa))
    ]
    return {"swapped": (losses[0] + losses[1]) / 2}


def told_clusters(logits: list[Tensor], labels: list[Tensor]) -> dict[str, Tensor]:
    """What linear layers say of the clusters of rows: the mean over all of them."""
    losses = [cross_entropy(one, right) for one, right in zip(logits, labels, strict=True)]
    return {"clusters": sum(losses) / len(losses)}


def deepcluster_v2(views: list[Tensor], centroids: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """With centroids of length 1, (heads, clusters, features), and labels, (heads, rows)."""
    logits = [_unit(view) @ head.T / 0.1 for head in centroids for view in views]
    return told_clusters(logits, [of_head for of_head in labels for _ in views])


def deepcluster_v1(views: list[Tensor], weight: Tensor, bias: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Of rows that count alike."""
    return told_clusters([view.relu() @ weight.T + bias for view in views], [labels] * len(views))


def sela(views: list[Tensor], weight: Tensor, bias: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """With weights (heads, clusters, features), and labels (heads, rows)."""
    logits = [view @ w.T + b for w, b in zip(weight, bias, strict=True) for view in views]
    return told_clusters(logits, [of_head for of_head in labels for _ in views])


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    right = logits[torch.arange(len(logits)), classes]
    others = torch.stack([row[torch.arange(len(row)) != c] for row, c in zip(logits, classes.tolist(), strict=True)])
    return _contrast(right, others).mean()


def vse(a: Tensor, b: Tensor, *, margin: float = 0.2, hinges: str = "hardest") -> dict[str, Tensor]:
    similarities = _unit(a) @ _unit(b).T
    right = similarities.diagonal()
    itself = torch.eye(len(a), dtype=torch.bool)
    total = a.new_zeros(())
    for table in (similarities, similarities.T):
        costs = (margin + table - right[:, None]).clamp(min=0).masked_fill(itself, 0)
        total = total + (costs.amax(dim=1) if hinges == "hardest" else costs).sum()
    return {"hinge": total}


def prototypes(
    q: Tensor, prototype: Tensor, concentration: Tensor, labels: Tensor, negatives: Tensor
) -> dict[str, Tensor]:
    """PCL's second term in one clustering: row i's own prototype is the i-th of those that are compared."""
    compared = torch.cat([labels, negatives])
    u = torch.where(q.norm(dim=1, keepdim=True) > 0, q / q.norm(dim=1, keepdim=True), 0)
    scores = u @ prototype[compared].T / concentration[compared]
    return {"prototypes": torch.nn.functional.cross_entropy(scores, torch.arange(len(q)))}


def bags(p: Tensor, t: Tensor, level: dict[str, Tensor], *, mu: float = 0.5) -> dict[str, Tensor]:
    """OBoW with one list of words and a map of one position, whose bag is the softmax itself."""
    words, first, second = level["words"], level["first"], level["second"]
    squared = (t.detach()[:, None] - words[None]).square().sum(dim=2)
    mu = 0.99 * mu + 0.01 * float(squared.amin(dim=1).mean())
    y = (-15 / mu * squared).softmax(dim=1)
    unit = torch.nn.functional.normalize
    hidden = unit(words, dim=1) @ first.T
    hidden = (hidden - hidden.mean(dim=0)) / (hidden.var(dim=0, correction=0) + 1e-5).sqrt()
    aims = unit((hidden * level["scale"] + level["shift"]).relu() @ second.T + level["bias"], dim=1)
    predicted = (8 * p @ aims.T).log_softmax(dim=1)
    return {"bags": (torch.xlogy(y, y) - y * predicted).sum(dim=1).mean()}


def cpc(p: Tensor, t: Tensor, *, scale: float = 0.1) -> dict[str, Tensor]:
    """Of images of one patch each, row i's prediction being of patch i."""
    scores = scale * p @ t.T
    others = scores.masked_fill(torch.eye(len(p), dtype=torch.bool), -math.inf)
    return {"contrast": _contrast(scores.diagonal(), others).mean()}


def colorization(logits: Tensor, codes: Tensor, boost: Tensor) -> dict[str, Tensor]:
    """Of images of one place, with the soft code (n, 313) of each, and the weight of its colour."""
    return {"cross_entropy": -(boost * (codes * torch.log_softmax(logits, dim=1)).sum(dim=1)).mean()}


def triplets(a: Tensor, b: Tensor, *, margin: float) -> dict[str, Tensor]:
    """Exemplar's, of two views: anchors of both, each with the other as its copy."""
    u, n = torch.cat([_unit(a), _unit(b)]), len(a)
    differences = u[:, None] - u[None]
    distances = differences.square().sum(dim=2)
    copy = torch.arange(2 * n).roll(n)
    to_copy = distances[torch.arange(2 * n), copy][:, None]
    own = torch.arange(2 * n)[:, None] % n == torch.arange(2 * n)[None] % n
    further = torch.where(own | (distances <= to_copy), math.inf, distances).amin(dim=1)
    furthest = torch.where(own, -math.inf, distances).amax(dim=1)
    compared = torch.where(further.isfinite(), further, furthest)
    return {"triplets": (margin + to_copy[:, 0] - compared).clamp(min=0).mean()}
