"""The Gramian of the views' gradients: all that an alignment method needs to know of them."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from hf_gradalign.alignment.buckets import Bucket, buckets, widened
from hf_gradalign.alignment.sharding import local_part, sum_over_shards

Gradients = Sequence[Tensor | None]
"""One view's gradients, a tensor a parameter; `None` where the view gave the parameter no gradient (a zero)."""


@torch.no_grad()
def compute_products(gradients: Sequence[Gradients]) -> Tensor:
    """Inner products of every pair of K views' gradients, parameter by parameter.

    Accumulated in float32 (in float64 for gradients of that type), so that half-precision gradients neither overflow
    nor lose their small terms. The gradients are gone through bucket by bucket (see `buckets`): each is read from
    memory once for all pairs, and no more than a bucket of half-precision gradients is widened at a time. The host
    waits for no device. Gradients that are sharded over processes (`DTensor`, FSDP2) are multiplied shard by shard and
    the products summed over the shards; every process must then call this alike.

    Args:
        gradients: K sequences of P entries, entry p of each the gradient of parameter p (any shape).

    Returns:
        Float32 tensor of shape (P, K, K), each matrix symmetric, on the device of the first gradient found. Entry
        (p, i, j) is the inner product of views i and j for parameter p; non-finite gradients make it non-finite.

    Raises:
        ValueError: If the sequences differ in length, or a gradient is sparse.
    """
    lengths = {len(view) for view in gradients}
    if len(lengths) > 1:
        raise ValueError(f"every view needs one entry a parameter, got sequences of lengths {sorted(lengths)}")
    views = len(gradients)
    parameters = lengths.pop() if lengths else 0
    local = [[None if g is None else local_part(_dense(g)) for g in view] for view in gradients]
    device = next((g.device for view in local for g in view if g is not None), torch.device("cpu"))
    if parameters == 0:
        return torch.zeros(0, views, views, device=device)
    zero = torch.zeros((), device=device)
    entries = {(i, j): [zero] * parameters for i in range(views) for j in range(i, views)}
    for bucket in buckets(local):
        for pair, position, value in _products_within(bucket, entries):
            entry = entries[pair]
            entry[position] = value.to(zero) if entry[position] is zero else entry[position] + value.to(zero)
    sums = {pair: torch.stack(entry) for pair, entry in entries.items()}
    rows = [torch.stack([sums[min(i, j), max(i, j)] for j in range(views)], dim=-1) for i in range(views)]
    return sum_over_shards(torch.stack(rows, dim=-2), [_first(column) for column in zip(*gradients, strict=True)])


def compute_gramian(gradients: Sequence[Gradients]) -> Tensor:
    """Inner products of every pair of K views' gradients, taken over all parameters.

    Args:
        gradients: As for `compute_products`.

    Returns:
        Float32 tensor of shape (K, K), symmetric. Entry (i, j) is g_i . g_j.

    Raises:
        ValueError: As by `compute_products`.
    """
    return compute_products(gradients).sum(0)


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


def _dense(gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        raise ValueError("sparse gradients cannot be aligned; make the embedding with sparse=False")
    return gradient


def _first(gradients: Gradients) -> Tensor | None:
    return next((gradient for gradient in gradients if gradient is not None), None)
