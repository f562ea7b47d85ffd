"""Exact nearest neighbours: matrix products propose candidates, and differences of rows decide."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import LifoQueue
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from barlow.distributed import has_native_bf16
from barlow.linalg import at_least_float32
from barlow.probes.products import Product, by_torch, numpy_in_one_thread, product_for
from barlow.types import Features

T = TypeVar("T")

BLOCK = 2**24
"""How many numbers are held at a time: 64 MiB of float32. A GPU gets sixteen times as many, to keep it busy."""

SHORTLIST = 4
"""How many candidates are kept for each neighbour. With trained encoders, bfloat16's error bound asks for 1.2 to 2."""

FEWEST = 64
"""How many test rows are scored at a time, at the least."""

TRIAL = 512
"""How many test rows are tried in bfloat16 first. If that settles fewer than half, the others go to float32 at once."""

GROUP = 16
"""How many columns are first judged together, by the largest score among them (see `_highest`).

With 50,000 columns and 80 rows kept, the round over the groups and the round inside them take equally long.
"""

PAD = -3e38
"""The score of a row that is only padding. bfloat16 can hold it, and what is added to it cannot become infinite."""


def nearest(train: Features, test: Features, k: int) -> tuple[Float[Tensor, "m k"], Int64[Tensor, "m k"]]:
    """Squared Euclidean distances to, and positions of, the k training rows nearest to each test row, nearest first.

    The search is exact: every pair is compared. A distance is the sum of squared differences of the two rows in
    float32. Whatever offset the rows have in common, its error is a rounding of the distance itself, and equal rows
    have distance 0. The order is float32's: of two rows the nearer comes first, if their squared distances differ by
    more than the rounding of a product of centred rows. That is 2⁻²⁴ · ‖a‖ ‖b‖ times a factor that grows with the
    width, a few units in practice. Of rows at equal distance any may be among the k.

    How it works: matrix products of the centred rows give the score a·b − ‖b‖² / 2 of every pair. Then the rows of
    highest score are compared by their differences. A processor that multiplies bfloat16 takes the products in it, with
    a bound on their error. The k neighbours are then among the rows whose score is within twice the bound of the k-th
    score. If more rows are than were kept, the test row is scored again in float32. Products in float32 are those of
    the faster of two libraries (`products`).

    Memory: a few blocks of `BLOCK` numbers (where rows are narrow, up to `FEWEST` · BLOCK / width in each thread), and
    12 · SHORTLIST · k bytes per test row. Neither set is copied.
    """
    return _search(_Rows(train), _Rows(test), k)


def most_similar(train: Features, test: Features, k: int) -> tuple[Float[Tensor, "m k"], Int64[Tensor, "m k"]]:
    """Cosines to, and positions of, the k training rows most similar to each test row, most similar first.

    On the unit sphere cos = 1 − distance² / 2. So this is `nearest` on rows of unit length, and it is as exact for
    features that all point nearly the same way. A row of zeros has no direction: it gets a coordinate of its own, and
    with it the cosine 0 to every other row.
    """
    b, a = _Directions(train), _Directions(test)
    if bool(a.lost.any()) or bool(b.lost.any()):
        a.mark_lost(0)
        b.mark_lost(1)
    distances, positions = _search(b, a, k)
    return 1 - distances / 2, positions


class _Rows:
    """The points of one set, made from its features at the moment they are needed."""

    def __init__(self, features: Features):
        self.features = features.detach()  # which rows are near has no gradient
        self.width = features.shape[1]
        self.dtype = torch.float64 if features.dtype == torch.float64 else torch.float32

    def __len__(self) -> int:
        return len(self.features)

    def between(self, start: int, stop: int) -> Features:
        return at_least_float32(self.features[start:stop])

    def take(self, positions: Int64[Tensor, "n"]) -> Features:
        """A copy of some of the points."""
        return at_least_float32(self.features.index_select(0, positions))

    def pieces(self, start: int, stop: int) -> list[slice]:
        """The points from start to stop, in parts that fit into a core's cache."""
        step = max(1, _cached(self.features.device) // self.width)
        return [slice(first, min(first + step, stop)) for first in range(start, stop, step)]


class _Directions(_Rows):
    """The points at unit length. `lost` says which rows are zero and have no direction."""

    def __init__(self, features: Features):
        super().__init__(features)
        largest, squares = torch.empty(2, len(features), dtype=self.dtype, device=features.device)

        def measure_lengths(some: slice) -> None:
            rows = _Rows(self.features).between(some.start, some.stop)
            largest[some], squares[some] = rows.abs().amax(dim=1), rows.square().sum(dim=1)

        pieces = self.pieces(0, len(features))
        _each(measure_lengths, pieces, features.device)
        self.lost = largest == 0
        if bool((largest.masked_fill(self.lost, 1).log2().abs() > 60).any()):
            # Squares would overflow or vanish. This is the one case in which the features are copied.
            self.features = at_least_float32(features) / largest.masked_fill(self.lost, 1)[:, None]
            _each(measure_lengths, pieces, features.device)
        self.inverse = squares.masked_fill(self.lost, 1).double().rsqrt().to(self.dtype)
        self.lost_column: int | None = None

    def mark_lost(self, column: int) -> None:
        """Adds two coordinates, and gives the rows without direction a 1 in this one (0 or 1) of them."""
        self.lost_column = column
        self.width += 2

    def between(self, start: int, stop: int) -> Features:
        inverse = self.inverse[start:stop, None]
        return self._complete(super().between(start, stop) * inverse, self.lost[start:stop])

    def take(self, positions: Int64[Tensor, "n"]) -> Features:
        inverse = self.inverse.index_select(0, positions)[:, None]
        return self._complete(super().take(positions).mul_(inverse), self.lost[positions])

    def _complete(self, rows: Features, lost: Bool[Tensor, "n"]) -> Features:
        if self.lost_column is None:
            return rows
        more = rows.new_zeros(len(rows), 2)
        more[:, self.lost_column] = lost.to(rows.dtype)
        return torch.cat([rows, more], dim=1)


def _search(train: _Rows, test: _Rows, k: int) -> tuple[Float[Tensor, "m k"], Int64[Tensor, "m k"]]:
    """Does the work of `nearest`, on the points of two sets."""
    device, kept = train.features.device, min(len(train), SHORTLIST * k)
    offset = _mean(train)
    distances = torch.empty(len(test), k, dtype=train.dtype, device=device)
    positions = torch.empty(len(test), k, dtype=torch.int64, device=device)

    def answer(queries: Tensor, dtype: torch.dtype, product: Product = by_torch) -> Tensor:
        """Fills in the results of these test rows, and returns those for which this precision is too low."""
        shortlist, needed = _shortlist(train, test, queries, offset, k, kept, product, dtype)
        order = needed.argsort()  # test rows that are ranked together should have about as many candidates
        sure = order[: int((needed <= kept).sum())]

        def rank(chosen: Tensor) -> None:
            rows, width = queries[chosen], int(needed[chosen[-1]])
            distances[rows], positions[rows] = _ranked(train, test, rows, shortlist[chosen, :width], k)

        if len(sure):
            _each(rank, sure.split(max(1, _cached(device) // (kept * train.width))), device)
        return queries[order[len(sure) :]]

    left = torch.arange(len(test), device=device)
    if train.dtype == torch.float32 and kept < len(train) and _prefers_bf16(device):
        tried = left % max(1, len(test) // TRIAL) == 0
        left, rest = answer(left[tried], torch.bfloat16), left[~tried]
        if len(rest) and 2 * len(left) <= len(test) - len(rest):
            rest = answer(rest, torch.bfloat16)
        left = torch.cat([left, rest])
    if len(left):
        product = product_for(device, train.dtype, float(len(left)) * len(train) * train.width)
        with numpy_in_one_thread():  # in each of ours
            left = answer(left, train.dtype, product)
        assert not len(left), "the precision of the rows answers for all"
    return distances, positions


def _prefers_bf16(device: torch.device) -> bool:
    """Whether products are much faster in bfloat16. A GPU does not need it: its float32 is fast enough."""
    return device.type == "cpu" and has_native_bf16(device)


def _mean(rows: _Rows) -> Float[Tensor, "f"]:
    pieces, device = rows.pieces(0, len(rows)), rows.features.device
    sums = torch.empty(len(pieces), rows.width, dtype=torch.float64, device=device)

    def add_up(number: int) -> None:
        sums[number] = rows.between(pieces[number].start, pieces[number].stop).sum(dim=0, dtype=torch.float64)

    _each(add_up, range(len(pieces)), device)
    return (sums.sum(dim=0) / len(rows)).to(rows.dtype)


def _ranked(
    train: _Rows, test: _Rows, queries: Int64[Tensor, "q"], shortlist: Int64[Tensor, "q s"], k: int
) -> tuple[Float[Tensor, "q k"], Int64[Tensor, "q k"]]:
    """The k nearest rows of a shortlist, compared by their differences."""
    a, parts = test.take(queries)[:, None], []
    for some in shortlist.split(max(1, _block(a.device) // (len(queries) * train.width)), dim=1):
        b = train.take(some.flatten()).view(*some.shape, train.width)
        parts.append(b.sub_(a).square_().sum(dim=2))
    distances, chosen = torch.cat(parts, dim=1).topk(k, dim=1, largest=False)
    return distances, shortlist.gather(1, chosen)


def _shortlist(
    train: _Rows,
    test: _Rows,
    queries: Int64[Tensor, "q"],
    offset: Float[Tensor, "f"],
    k: int,
    kept: int,
    product: Product,
    dtype: torch.dtype,
) -> tuple[Int64[Tensor, "q s"], Int64[Tensor, "q"]]:
    """The training rows of highest score for each query, best first, and how many of them have to be compared.

    In the precision of the rows, all of them have to be. In bfloat16 the number is proven; where the proof fails it is
    one more than there are.

    The proof: let s be a score as it comes out. It is the product of the rounded rows â and b̂, itself rounded with unit
    u. Let e be the bound on the error before that last rounding. Then the true score lies in s ± (u|s| + e), and no row
    outside the shortlist has a higher s than the last one in it. A row whose upper end is not above the lower end of
    the k-th is no neighbour, or is at the same distance.

    The bound e has two parts. First, a·b − â·b̂ = (a − â)·b + â·(b − b̂) is at most ‖a − â‖ ‖b‖ + ‖â‖ ‖b − b̂‖, and the
    lengths of what was rounded off are measured. Second, a sum of n products in float32, in any order, is off by at
    most n 2⁻²⁴ times the sum of their absolute values.
    """
    device, width = train.features.device, train.width
    coarse = dtype != train.dtype
    numbers = _block(device) * (2 if coarse else 1)
    rows = _even(len(train), max(GROUP, numbers // width))
    step = _even(len(queries), max(FEWEST, numbers // rows // _workers(device)))
    parts = [slice(first, first + step) for first in range(0, len(queries), step)]
    if len(parts) < _workers(device):
        product = by_torch  # which takes all threads for one product
    columns = -(-rows // GROUP) * GROUP
    # Taken once, because a system may need longer to hand out fresh memory than a processor to fill it.
    factors = torch.empty(columns, width + 3, dtype=dtype, device=device)
    rooms: LifoQueue[Tensor] = LifoQueue()
    for _ in range(min(_workers(device), len(parts))):
        rooms.put(torch.empty(step * columns, dtype=dtype, device=device))
    scores = torch.full((len(queries), kept), PAD, dtype=train.dtype, device=device)
    places = torch.zeros(len(queries), kept, dtype=torch.int64, device=device)
    a_sizes, a_lost = torch.zeros(2, len(queries), dtype=train.dtype, device=device)
    b_size, b_lost = torch.zeros(2, dtype=train.dtype, device=device)
    for start in range(0, len(train), rows):
        b, sizes, lost = _right(train, start, min(start + rows, len(train)), offset, factors)
        b_size, b_lost = torch.maximum(b_size, sizes.amax()), torch.maximum(b_lost, lost.amax())

        def score(some: slice, b: Tensor = b, start: int = start) -> None:
            x = test.take(queries[some]) - offset
            a = x.new_empty(len(x), width + 3, dtype=dtype)
            a_sizes[some], a_lost[some] = _factors(x, None, a)
            room = rooms.get()
            try:
                product(a, b, found := room[: len(a) * len(b)].view(len(a), len(b)))
                best, columns = _highest(found, min(kept, len(b)), scores[some, -1:])
            finally:
                rooms.put(room)  # whoever waits for it would wait for ever
            best = torch.cat([scores[some], best.to(train.dtype)], dim=1)
            columns = torch.cat([places[some], columns + start], dim=1)
            scores[some], chosen = best.topk(kept, dim=1)
            places[some] = columns.gather(1, chosen)

        _each(score, parts, device)
    places.clamp_(max=len(train) - 1)  # scores that are not finite may belong to padding
    if not coarse:
        return places, torch.full((len(queries),), kept, device=device)
    off = _off(scores, (a_sizes[:, None], a_lost[:, None]), (b_size, b_lost), width)
    above = scores + off > (scores - off)[:, k - 1 : k]
    proven = (scores + off)[:, -1] <= (scores - off)[:, k - 1]  # false for NaN
    return places, torch.where(proven, above.sum(dim=1).clamp(min=k), kept + 1)


def _off(scores: Tensor, a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], width: int) -> Tensor:
    """How far scores in bfloat16 may be from the true ones.

    Of both sides, a and b, it takes the lengths of the rows and the lengths of what was rounded off.
    """
    summed = 2 * (width + 4) * 2.0**-24 * b[0] * (a[0] + b[0])  # twice, because ‖b‖² and the centred rows are rounded
    error = 1.01 * (a[1] * b[0] + (a[0] + a[1]) * b[1] + summed)  # a hundredth more, because the lengths are rounded
    return 2.0**-8 * scores.abs() + error  # bfloat16 has eight significant bits


def _factors(
    x: Float[Tensor, "n f"], bias: Float[Tensor, "n"] | None, rounded: Float[Tensor, "n w"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Writes rows in another type, and gives their lengths, and the lengths of what was rounded off.

    Three more coordinates hold the bias, split so that together they have float32's precision. Without bias they are 1.
    Where the type is the rows' own, nothing is rounded off, and nobody asks for lengths: both are 0 then.
    """
    n, f = x.shape
    rounded[:, :f] = x
    if bias is None:
        rounded[:, f:] = 1
    else:
        for column in range(f, f + 3):
            rounded[:, column] = bias
            bias = bias - rounded[:, column]
    if rounded.dtype == x.dtype:
        return x.new_zeros(n), x.new_zeros(n)
    # A product may replace numbers that are too small for the exponent by 0.
    smallest = torch.finfo(torch.float32).tiny * math.sqrt(f)
    lost = torch.linalg.vector_norm(x - rounded[:, :f], dim=1) + smallest
    return torch.linalg.vector_norm(x, dim=1), lost


def _right(
    train: _Rows, start: int, stop: int, offset: Float[Tensor, "f"], factors: Float[Tensor, "most w"]
) -> tuple[Float[Tensor, "columns w"], Float[Tensor, "n"], Float[Tensor, "n"]]:
    """A block of training rows as `_factors`, with the bias −‖b‖² / 2, padded to a multiple of GROUP."""
    count, device = stop - start, offset.device
    factors = factors[: -(-count // GROUP) * GROUP]
    factors[count:] = 0
    factors[count:, train.width] = PAD
    sizes, lost = offset.new_empty(2, count)

    def fill(some: slice) -> None:
        b, here = train.between(some.start, some.stop) - offset, slice(some.start - start, some.stop - start)
        sizes[here], lost[here] = _factors(b, b.square().sum(dim=1) / -2, factors[here])

    _each(fill, train.pieces(start, stop), device)
    return factors, sizes, lost


def _highest(
    scores: Float[Tensor, "m n"], count: int, floor: Float[Tensor, "m 1"]
) -> tuple[Float[Tensor, "m few"], Int64[Tensor, "m few"]]:
    """The same as `topk`, but for many columns in a fraction of the time, and without scores that are not needed.

    The highest scores are in the groups with the highest maxima, so only these groups are searched. And of a group
    whose maximum is not above the floor of its row, nothing is needed: as many scores that are no lower are there
    already. In the later blocks of a search these are nearly all. (NaN is taken for high, as by `topk`.)
    """
    groups = scores.shape[1] // GROUP
    if groups <= count:
        return scores.topk(count, dim=1)
    maxima = scores.unflatten(1, (GROUP, groups)).amax(dim=1)
    searched = min(count, int((~(maxima <= floor)).sum(dim=1).amax()))
    chosen = maxima.topk(searched, dim=1, sorted=False).indices
    members = torch.arange(0, scores.shape[1], groups, device=scores.device)
    columns = (chosen[:, None] + members[:, None]).flatten(1)
    best, among = scores.gather(1, columns).topk(min(count, columns.shape[1]), dim=1)
    return best, columns.gather(1, among)


def _each(function: Callable[[T], None], items: Sequence[T], device: torch.device) -> None:
    """Calls a function with each item. On a CPU every core works on items of its own.

    The alternative is that all cores share each operation, of which there are hundreds, and wait for each other at its
    end. Where another process has one of the cores, each wait is a time slice of the system, some milliseconds.
    """
    workers = min(_workers(device), len(items))
    if workers <= 1:
        for item in items:
            function(item)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the pool's threads start with this setting
    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="neighbours") as pool:
            for _ in pool.map(function, items):
                pass
    finally:
        torch.set_num_threads(threads)


def _workers(device: torch.device) -> int:
    return torch.get_num_threads() if device.type == "cpu" else 1


def _even(total: int, most: int) -> int:
    """How many of `total` are taken at a time: at most `most`, and so that no block is much smaller than the others."""
    blocks = -(-total // most)
    return max(1, -(-total // max(1, blocks)))


def _block(device: torch.device) -> int:
    return BLOCK * 16 if device.type == "cuda" else BLOCK


def _cached(device: torch.device) -> int:
    """How many numbers fit into a core's cache, for work that goes over them several times."""
    return BLOCK * 16 if device.type == "cuda" else BLOCK // 64
