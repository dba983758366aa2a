"""Products and weighted sums of the views' gradients in buckets, for CPUs and for GPUs without Triton.

On a CPU, a bucket fits in the cache, so each gradient is read from memory once. On other devices kernel launches are
the main cost, so buckets are larger and use torch's foreach kernels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import NoneType

import torch
from torch import Tensor

BUCKET_SIZE = 2**20
"""Elements of one view in a bucket on a CPU: 4 MiB in float32. Two views fit in the last-level cache."""
DEVICE_BUCKET_SIZE = 2**23
"""Elements of one view in a bucket on other devices. In float32, two views take 64 MiB."""


@torch.no_grad()
def products_in_buckets(gradients: Sequence[Sequence[Tensor | None]], device: torch.device) -> Tensor:
    """Return the inner products of all pairs of views' gradients, float32 of shape (P, K, K).

    Args:
        gradients: K sequences of P local gradients, `None` where a view has none.
        device: Device of the result.
    """
    views, parameters = len(gradients), len(gradients[0])
    zero = torch.zeros((), device=device)
    entries = {(i, j): [zero] * parameters for i in range(views) for j in range(i, views)}
    for bucket in buckets(gradients):
        for pair, position, value in _bucket_products(bucket, entries):
            entry = entries[pair]
            entry[position] = value.to(zero) if entry[position] is zero else entry[position] + value.to(zero)
    sums = {pair: torch.stack(entry) for pair, entry in entries.items()}
    rows = [torch.stack([sums[min(i, j), max(i, j)] for j in range(views)], dim=-1) for i in range(views)]
    return torch.stack(rows, dim=-2)


@torch.no_grad()
def combine_in_buckets_(
    gradients: Sequence[Sequence[Tensor | None]], weights: Tensor, index: Sequence[int] | None = None
) -> None:
    """Write each parameter's weighted sum to the gradient of the first view that has one; overwrite the others.

    Args:
        gradients: K sequences of P local gradients, `None` where a view has none.
        weights: Shape (G, K). They stay on their device, because reading them would make the host wait.
        index: Row of `weights` for each of the P parameters; the first by default.
    """
    rows = [row.unbind() for row in weights.unbind()]
    for bucket in buckets(gradients, index):
        _weighted_sum_(bucket, rows[index[bucket.parameters[0]] if index is not None else 0])


@dataclass(frozen=True)
class Bucket:
    """Pieces of parameters' gradients, of one type and on one device.

    Attributes:
        parameters: Position of the parameter for each of N pieces. A parameter with more elements than a bucket holds
            may have several pieces.
        views: K lists of N pieces, which are views of the gradients (changing one in place changes the gradient);
            `None` where a view gave the parameter no gradient.
    """

    parameters: list[int]
    views: list[list[Tensor | None]]


def buckets(gradients: Sequence[Sequence[Tensor | None]], keys: Sequence[int] | None = None) -> Iterator[Bucket]:
    """Yield the gradients of K views in buckets, in the order of the parameters, without copying.

    Args:
        gradients: K sequences of P local gradients. Gradients without elements (a shard may have none) and parameters
            without a gradient in any view are left out.
        keys: P numbers. Only parameters with the same key share a bucket. All have the same key by default.
    """
    views = len(gradients)
    bucket, kind, size = Bucket([], [[] for _ in range(views)]), None, 0
    for position, (some, *column) in enumerate(zip(first_gradients(gradients), *gradients, strict=True)):
        if some is None or some.numel() == 0:
            continue
        new_kind = (some.device, some.dtype, None if keys is None else keys[position])
        for elements, pieces in _split(column, some):
            if bucket.parameters and (new_kind != kind or size + elements > _bucket_size(some)):
                yield bucket
                bucket, size = Bucket([], [[] for _ in range(views)]), 0
            bucket.parameters.append(position)
            for view, piece in zip(bucket.views, pieces, strict=True):
                view.append(piece)
            kind, size = new_kind, size + elements
    if bucket.parameters:
        yield bucket


def first_gradients(gradients: Sequence[Sequence[Tensor | None]]) -> Sequence[Tensor | None]:
    """Return each parameter's gradient from the first view that has one; None where no view has one."""
    firsts = gradients[0] if gradients else []
    for view in gradients[1:]:
        if NoneType not in set(map(type, firsts)):
            break
        firsts = [other if first is None else first for first, other in zip(firsts, view, strict=True)]
    return firsts


def to_float32(pieces: list[Tensor | None]) -> list[Tensor | None]:
    """Return the pieces, with float32 copies of those in half precision."""
    narrow = [piece for piece in pieces if piece is not None and piece.dtype.itemsize < 4]
    if not narrow:
        return pieces
    wide = [torch.empty_like(piece, dtype=torch.float32) for piece in narrow]
    torch._foreach_copy_(wide, narrow)
    copies = iter(wide)
    return [next(copies) if piece is not None and piece.dtype.itemsize < 4 else piece for piece in pieces]


def _split(column: Sequence[Tensor | None], some: Tensor) -> Iterator[tuple[int, Sequence[Tensor | None]]]:
    """Yield pieces of one parameter's gradients, each with its number of elements.

    Gradients that will be copied (half precision or not contiguous) are cut along their first dimension. Otherwise, the
    copy of a large embedding could take as much memory as a whole gradient.
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


def _bucket_products(bucket: Bucket, pairs: Iterable[tuple[int, int]]) -> list[tuple[tuple[int, int], int, Tensor]]:
    """Return (pair of views, parameter, inner product) for each piece."""
    views = [[None if piece is None else piece.reshape(-1) for piece in to_float32(view)] for view in bucket.views]
    products = []
    for i, j in pairs:
        pieces = zip(bucket.parameters, views[i], views[j], strict=True)
        both = [(parameter, a, b) for parameter, a, b in pieces if a is not None and b is not None]
        values = _inner_products([a for _, a, _ in both], [b for _, _, b in both], i == j)
        products += [((i, j), parameter, value) for (parameter, _, _), value in zip(both, values, strict=True)]
    return products


def _inner_products(left: list[Tensor], right: list[Tensor], same: bool) -> Sequence[Tensor]:
    """Return the inner products of vectors, as scalars of the same type."""
    if same and left and left[0].device.type != "cpu":
        # This takes a few launches for all vectors. On a CPU, launches are cheap and torch.dot is twice as fast.
        norms = torch._foreach_norm(left)
        return torch._foreach_mul(norms, norms)
    return [torch.dot(a, b) for a, b in zip(left, right, strict=True)]


def _weighted_sum_(bucket: Bucket, weights: Sequence[Tensor]) -> None:
    """Write the weighted sum of the views' pieces to the piece of the first view that has one."""
    targets = [piece for piece in first_gradients(bucket.views) if piece is not None]
    totals: dict[int, Tensor] = {}
    for column, weight in zip(bucket.views, weights, strict=True):
        # Half precision would also round the weights, which would favor one view.
        pieces = {n: piece for n, piece in enumerate(to_float32(column)) if piece is not None}
        first = {n: piece for n, piece in pieces.items() if n not in totals}
        later = [n for n in pieces if n in totals]
        if later:
            _add_weighted_([totals[n] for n in later], [pieces[n] for n in later], weight)
        if first:
            _scale_(list(first.values()), weight)
            totals |= first
    if totals[0] is not targets[0]:
        torch._foreach_copy_(targets, [totals[n] for n in range(len(targets))])


def _scale_(pieces: list[Tensor], weight: Tensor) -> None:
    torch._foreach_mul_(pieces, weight.to(pieces[0]))


def _add_weighted_(totals: list[Tensor], pieces: list[Tensor], weight: Tensor) -> None:
    """Add weighted pieces to totals. Overwrites the pieces."""
    if totals[0].device.type == "cpu":
        # Memory access dominates on a CPU, so read each piece once instead of twice.
        weight = weight.to(totals[0])
        for total, piece in zip(totals, pieces, strict=True):
            total.addcmul_(piece, weight)
    else:
        _scale_(pieces, weight)
        torch._foreach_add_(totals, pieces)
