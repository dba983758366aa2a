"""Products and weighted sums of the views' gradients, bucket by bucket: the form for CPUs, and GPUs without Triton.

On a CPU a bucket fits the cache, so that each gradient is read from memory once. On other devices, where launches are
what costs, buckets are larger and go through torch's foreach kernels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BUCKET_SIZE = 2**20
"""Elements of one view in a bucket on a CPU: 4 MiB in float32. Two views' fit in the last cache."""
DEVICE_BUCKET_SIZE = 2**23
"""The same elsewhere: two views' half-precision gradients take 64 MiB when they are widened."""


@torch.no_grad()
def products_in_buckets(gradients: Sequence[Sequence[Tensor | None]], device: torch.device) -> Tensor:
    """Inner products of every pair of views' gradients, float32 of shape (P, K, K) on `device`.

    Args:
        gradients: K sequences of P local gradients, `None` where a view has none.
        device: Of the result.
    """
    views, parameters = len(gradients), len(gradients[0])
    zero = torch.zeros((), device=device)
    entries = {(i, j): [zero] * parameters for i in range(views) for j in range(i, views)}
    for bucket in buckets(gradients):
        for pair, position, value in _products_within(bucket, entries):
            entry = entries[pair]
            entry[position] = value.to(zero) if entry[position] is zero else entry[position] + value.to(zero)
    sums = {pair: torch.stack(entry) for pair, entry in entries.items()}
    rows = [torch.stack([sums[min(i, j), max(i, j)] for j in range(views)], dim=-1) for i in range(views)]
    return torch.stack(rows, dim=-2)


@torch.no_grad()
def combine_in_buckets_(
    gradients: Sequence[Sequence[Tensor | None]], weights: Tensor, index: Sequence[int] | None = None
) -> None:
    """Put the weighted sum of each parameter's gradients into the first view's that has one; others lose theirs.

    Args:
        gradients: K sequences of P local gradients, `None` where a view has none.
        weights: Shape (G, K). They stay on their device: reading them would make the host wait for it.
        index: For each of the P parameters its row; by default the first.
    """
    rows = [row.unbind() for row in weights.unbind()]
    for bucket in buckets(gradients, index):
        _weighted_sum_(bucket, rows[index[bucket.parameters[0]] if index is not None else 0])


@dataclass(frozen=True)
class Bucket:
    """Pieces of some parameters' gradients, of one type and on one device.

    Attributes:
        parameters: For each of N pieces the position of its parameter. A parameter with more elements than a bucket
            holds may have several pieces.
        views: K lists of N pieces, parts of the gradients (changing one in place changes the gradient); `None` where a
            view gave the parameter none.
    """

    parameters: list[int]
    views: list[list[Tensor | None]]


def buckets(gradients: Sequence[Sequence[Tensor | None]], keys: Sequence[int] | None = None) -> Iterator[Bucket]:
    """Sort K views' gradients into buckets, in the order of the parameters. Nothing is copied.

    Args:
        gradients: K sequences of P local gradients. Those without elements (a shard may have none), and parameters
            without a gradient in any view, are in no bucket.
        keys: P numbers; parameters in a bucket have the same. All have by default.
    """
    views = len(gradients)
    bucket, kind, size = Bucket([], [[] for _ in range(views)]), None, 0
    for position, column in enumerate(zip(*gradients, strict=True)):
        some = next((gradient for gradient in column if gradient is not None), None)
        if some is None or some.numel() == 0:
            continue
        its_kind = (some.device, some.dtype, None if keys is None else keys[position])
        for elements, pieces in _cut(column, some):
            if bucket.parameters and (its_kind != kind or size + elements > _bucket_size(some)):
                yield bucket
                bucket, size = Bucket([], [[] for _ in range(views)]), 0
            bucket.parameters.append(position)
            for view, piece in zip(bucket.views, pieces, strict=True):
                view.append(piece)
            kind, size = its_kind, size + elements
    if bucket.parameters:
        yield bucket


def widened(pieces: list[Tensor | None]) -> list[Tensor | None]:
    """Copies in float32 of pieces in half precision; other pieces as they are."""
    narrow = [piece for piece in pieces if piece is not None and piece.dtype.itemsize < 4]
    if not narrow:
        return pieces
    wide = [torch.empty_like(piece, dtype=torch.float32) for piece in narrow]
    torch._foreach_copy_(wide, narrow)
    copies = iter(wide)
    return [next(copies) if piece is not None and piece.dtype.itemsize < 4 else piece for piece in pieces]


def _cut(column: Sequence[Tensor | None], some: Tensor) -> Iterator[tuple[int, Sequence[Tensor | None]]]:
    """Pieces of one parameter's gradients, each with its number of elements.

    Those that will be copied (in half precision, or with other strides than a vector's) are cut along their first
    dimension, lest the copy of an embedding that is half the model take as much memory as a gradient.
    """
    elements = some.numel()
    largest = _bucket_size(some)
    if elements <= largest or (
        some.dtype.itemsize >= 4 and all(gradient is None or gradient.is_contiguous() for gradient in column)
    ):
        yield elements, column
        return
    row = elements // len(some)
    rows = max(1, largest // row)
    for start in range(0, len(some), rows):
        pieces = [None if gradient is None else gradient[start : start + rows] for gradient in column]
        yield min(rows, len(some) - start) * row, pieces


def _bucket_size(gradient: Tensor) -> int:
    return BUCKET_SIZE if gradient.device.type == "cpu" else DEVICE_BUCKET_SIZE


def _products_within(bucket: Bucket, pairs: Iterable[tuple[int, int]]) -> list[tuple[tuple[int, int], int, Tensor]]:
    """For pairs of views, each piece's parameter and inner product."""
    views = [[None if piece is None else piece.reshape(-1) for piece in widened(view)] for view in bucket.views]
    found = []
    for i, j in pairs:
        both = [n for n, (a, b) in enumerate(zip(views[i], views[j], strict=True)) if a is not None and b is not None]
        values = _inner_products([views[i][n] for n in both], [views[j][n] for n in both], i == j)
        found += [((i, j), bucket.parameters[n], value) for n, value in zip(both, values, strict=True)]
    return found


def _inner_products(left: list[Tensor], right: list[Tensor], same: bool) -> Sequence[Tensor]:
    """Inner products of vectors, scalars of their type."""
    if same and left and left[0].device.type != "cpu":
        # A few launches for all of them. On a CPU, where launches cost nothing, torch.dot is twice as fast.
        norms = torch._foreach_norm(left)
        return torch._foreach_mul(norms, norms)
    return [torch.dot(a, b) for a, b in zip(left, right, strict=True)]


def _weighted_sum_(bucket: Bucket, weights: Sequence[Tensor]) -> None:
    """Put the weighted sum of the views' pieces where the first view that has one keeps it."""
    kept = [next(piece for piece in pieces if piece is not None) for pieces in zip(*bucket.views, strict=True)]
    totals: list[Tensor | None] = [None] * len(kept)
    for column, weight in zip(bucket.views, weights, strict=True):
        # In half precision the weights themselves would be rounded, and one view favoured.
        pieces = widened(column)
        first = [n for n, piece in enumerate(pieces) if piece is not None and totals[n] is None]
        later = [n for n, piece in enumerate(pieces) if piece is not None and totals[n] is not None]
        if later:
            _add_weighted_([totals[n] for n in later], [pieces[n] for n in later], weight)
        if first:
            _scale_([pieces[n] for n in first], weight)
            for n in first:
                totals[n] = pieces[n]
    if totals[0] is not kept[0]:
        torch._foreach_copy_(kept, totals)


def _scale_(pieces: list[Tensor], weight: Tensor) -> None:
    torch._foreach_mul_(pieces, weight.to(pieces[0]))


def _add_weighted_(totals: list[Tensor], pieces: list[Tensor], weight: Tensor) -> None:
    """Add weighted pieces, which lose what they held."""
    if totals[0].device.type == "cpu":
        # Memory is what takes the time there: one pass over it instead of two.
        weight = weight.to(totals[0])
        for total, piece in zip(totals, pieces, strict=True):
            total.addcmul_(piece, weight)
    else:
        _scale_(pieces, weight)
        torch._foreach_add_(totals, pieces)
