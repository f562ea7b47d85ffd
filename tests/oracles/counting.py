"""The counting loss by loops over rows and features, from equation 4 of arXiv 1708.06734.

The paper draws one other image y for each x; the loops take each in turn, for the mean over the draws.
"""

from torch import Tensor


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    total = a.new_zeros(())
    for one, other in zip(a, b, strict=True):
        total = total + (one - other) ** 2
    return total


def counting(whole: Tensor, summed: Tensor, ids: list[int] | None = None, *, margin: float = 10.0) -> dict[str, Tensor]:
    """Of the embeddings of images and the sums over their quarters; without ids every row is another image."""
    n = len(whole)
    images = list(range(n)) if ids is None else ids
    distance, contrast = whole.new_zeros(()), whole.new_zeros(())
    for x in range(n):
        distance = distance + squared_distance(whole[x], summed[x])
        others = [y for y in range(n) if images[y] != images[x]]
        for y in others:
            near = margin - squared_distance(whole[y], summed[x])
            contrast = contrast + max(near, 0 * near) / len(others)
    return {"distance": distance / n, "contrast": contrast / n}
