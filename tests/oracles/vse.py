"""VSE++'s hinge by loops over images and captions, from equations 5 and 6 of arXiv 1707.05612."""

from oracles.directions import cosine
from torch import Tensor


def vse(a: Tensor, b: Tensor, *, margin: float = 0.2, hinges: str = "hardest") -> dict[str, Tensor]:
    n = len(a)
    s = [[cosine(a[i], b[j]) for j in range(n)] for i in range(n)]
    total = a.new_zeros(())
    for k in range(n):
        of_image = [margin - s[k][k] + s[k][j] for j in range(n) if j != k]
        of_caption = [margin - s[k][k] + s[i][k] for i in range(n) if i != k]
        for excesses in (of_image, of_caption):
            costs = [excess if excess > 0 else 0 * excess for excess in excesses]
            if hinges == "all":
                total = total + sum(costs)
            else:
                largest = max(hinge.item() for hinge in costs)
                alike = [hinge for hinge in costs if hinge.item() == largest]
                total = total + sum(alike) / len(alike)
    return {"hinge": total}
