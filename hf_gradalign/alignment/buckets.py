"""Cuts gradients into buckets small enough for a processor's cache, so that each is read from memory once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BUCKET_SIZE = 2**20
"""Elements of one view in a bucket: 4 MiB in float32. Two views' fit in the last cache of a CPU or GPU, and a kernel
still takes longer than its launch."""


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
            if bucket.parameters and (its_kind != kind or size + elements > BUCKET_SIZE):
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
    if elements <= BUCKET_SIZE or (
        some.dtype.itemsize >= 4 and all(gradient is None or gradient.is_contiguous() for gradient in column)
    ):
        yield elements, column
        return
    row = elements // len(some)
    rows = max(1, BUCKET_SIZE // row)
    for start in range(0, len(some), rows):
        pieces = [None if gradient is None else gradient[start : start + rows] for gradient in column]
        yield min(rows, len(some) - start) * row, pieces
