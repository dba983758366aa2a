"""The table of addresses that tells the GPU kernels where the views' gradients are, and the kernels' launches.

The host never waits for the device: addresses are copied from pinned memory, which torch keeps until the copy is done.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from operator import attrgetter

import numpy as np
import torch
import triton.language as tl
from torch import Tensor

from hf_gradalign.alignment.buckets import first_gradients
from hf_gradalign.alignment.gradient_kernels import BLOCK, CHUNK, add_up_kernel, combine_kernel, products_kernel

_CHUNKS_AT_ONCE = 256
_TYPES = {torch.float32: tl.float32, torch.float64: tl.float64, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


@dataclass(frozen=True)
class _Launch:
    """Gradients of one type on one device, handled by one launch.

    Attributes:
        positions: Positions of the parameters among all parameters.
        addresses: int64 (K + 1, parameters), on the device; see the kernels.
        sizes: Elements of each parameter's gradients.
        dtype: Type of the gradients.
        aligned: Whether every address is a multiple of 16 bytes.
    """

    positions: tuple[int, ...]
    addresses: Tensor
    sizes: tuple[int, ...]
    dtype: torch.dtype
    aligned: bool


class GradientTable:
    """A table of the addresses of K views' gradients, for the kernels.

    Args:
        gradients: K sequences of P local gradients, `None` where a view has none. The table covers gradients that are
            dense in memory, with the same order and type in every view.

    Attributes:
        covered: Positions of the parameters in the table. The caller must handle the others.
    """

    def __init__(self, gradients: Sequence[Sequence[Tensor | None]]) -> None:
        self._views = len(gradients)
        self._gradients = gradients  # keep them alive, because the kernels have only their addresses
        kinds = _group_by_kind(gradients)
        self._launches = [_make_launch(gradients, positions, *kind) for kind, positions in kinds.items()]
        self.covered = frozenset(chain.from_iterable(launch.positions for launch in self._launches))

    def products_(self, products: Tensor) -> None:
        """Write the inner products of the covered parameters to float32 `products` (P, K, K)."""
        for launch in self._launches:
            device = launch.addresses.device
            out = products if products.device == device else torch.zeros_like(products, device=device)
            chunks = _split_into_chunks(launch.positions, launch.sizes, device)
            pairs, n_pairs = _view_pairs(self._views, device)
            wide = _sum_dtype(launch.dtype)
            sums = torch.empty(n_pairs, 3, chunks.n_chunks, dtype=wide, device=device)
            with _use_device(device):
                products_kernel[(chunks.n_chunks, n_pairs)](
                    launch.addresses,
                    chunks.parameter_of_chunk,
                    chunks.first_chunk,
                    chunks.sizes,
                    pairs,
                    sums,
                    len(launch.positions),
                    chunks.n_chunks,
                    TYPE=_TYPES[launch.dtype],
                    WIDE=_TYPES[wide],
                    ALIGNED=launch.aligned,
                    CHUNK=CHUNK,
                    BLOCK=BLOCK,
                    num_warps=8,
                )
                add_up_kernel[(len(launch.positions), n_pairs)](
                    sums,
                    chunks.first_chunk,
                    chunks.rows,
                    pairs,
                    out,
                    chunks.n_chunks,
                    VIEWS=self._views,
                    WIDTH=_CHUNKS_AT_ONCE,
                )
            if out is not products:
                products += out.to(products.device)

    def combine_(self, weights: Tensor, index: Sequence[int] | None = None) -> None:
        """Write each covered parameter's weighted sum to its first tensor.

        Args:
            weights: Shape (G, K).
            index: Row of `weights` for each of the P parameters; the first by default.
        """
        for launch in self._launches:
            device = launch.addresses.device
            chunks = _split_into_chunks(launch.positions, launch.sizes, device)
            n_rows = len(launch.positions)
            groups = (0,) * n_rows if index is None else tuple([index[position] for position in launch.positions])
            wide = _sum_dtype(launch.dtype)
            with _use_device(device):
                combine_kernel[(chunks.n_chunks,)](
                    launch.addresses,
                    chunks.parameter_of_chunk,
                    chunks.first_chunk,
                    chunks.sizes,
                    weights.to(device, wide).contiguous(),
                    _cached_tensor(groups, torch.int32, device),
                    n_rows,
                    TYPE=_TYPES[launch.dtype],
                    WIDE=_TYPES[wide],
                    VIEWS=self._views,
                    ALIGNED=launch.aligned,
                    CHUNK=CHUNK,
                    BLOCK=BLOCK,
                    num_warps=8,
                )


@dataclass(frozen=True)
class _Chunks:
    """How parameters are split into chunks, on their device."""

    n_chunks: int
    parameter_of_chunk: Tensor
    first_chunk: Tensor
    sizes: Tensor
    rows: Tensor


@functools.lru_cache(maxsize=16)
def _split_into_chunks(positions: tuple[int, ...], sizes: tuple[int, ...], device: torch.device) -> _Chunks:
    """Split parameters into chunks. Cached, because the chunks are the same at every update."""
    each = (torch.tensor(sizes) + CHUNK - 1) // CHUNK
    first = torch.cat([torch.zeros(1, dtype=torch.int64), each.cumsum(0)])
    owners = torch.repeat_interleave(torch.arange(len(sizes)), each)
    return _Chunks(
        n_chunks=len(owners),
        parameter_of_chunk=_copy_to(owners.int(), device),
        first_chunk=_copy_to(first.int(), device),
        sizes=_copy_to(torch.tensor(sizes, dtype=torch.int64), device),
        rows=_copy_to(torch.tensor(positions, dtype=torch.int32), device),
    )


@functools.lru_cache(maxsize=16)
def _view_pairs(views: int, device: torch.device) -> tuple[Tensor, int]:
    """Return all pairs of views and their number; for a single view, the pair of the view with itself."""
    pairs = list(combinations(range(views), 2)) or [(0, 0)]
    return _copy_to(torch.tensor(pairs, dtype=torch.int32), device), len(pairs)


@functools.lru_cache(maxsize=16)
def _cached_tensor(values: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return _copy_to(torch.tensor(values, dtype=dtype), device)


def _copy_to(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device without waiting for the copy."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _make_launch(
    gradients: Sequence[Sequence[Tensor | None]], positions: Sequence[int], device: torch.device, dtype: torch.dtype
) -> _Launch:
    columns = [[view[position] for position in positions] for view in gradients]
    rows = [[0 if gradient is None else gradient.data_ptr() for gradient in column] for column in columns]
    addresses = np.array([*rows, rows[0]], np.int64)
    for row in addresses[1:-1]:  # the first gradient of each parameter receives the sum
        addresses[-1] = np.where(addresses[-1] == 0, row, addresses[-1])
    return _Launch(
        positions=tuple(positions),
        addresses=_copy_to(torch.from_numpy(addresses), device),
        sizes=tuple([gradient.numel() for gradient in first_gradients(columns) if gradient is not None]),
        dtype=dtype,
        aligned=not (addresses % 16).any(),
    )


def _group_by_kind(
    gradients: Sequence[Sequence[Tensor | None]],
) -> Mapping[tuple[torch.device, torch.dtype], Sequence[int]]:
    """Return the positions of the parameters that the kernels can handle, by device and type."""
    if (kind := _common_kind(gradients)) is not None:
        return {kind: [position for position, gradient in enumerate(gradients[0]) if gradient is not None]}
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for position, column in enumerate(zip(*gradients, strict=True)):
        if (kind := _kind_of(column)) is not None:
            kinds.setdefault(kind, []).append(position)
    return kinds


def _common_kind(gradients: Sequence[Sequence[Tensor | None]]) -> tuple[torch.device, torch.dtype] | None:
    """Return the device and type shared by all gradients, or None to decide for each parameter.

    Gradients almost always share them. Looking at each parameter on its own would take the host a millisecond.
    """
    some = [gradient for view in gradients for gradient in view if gradient is not None]
    if (
        len(set(map(attrgetter("dtype"), some))) != 1
        or len(set(map(Tensor.get_device, some))) != 1
        or some[0].dtype not in _TYPES
        or not all(map(Tensor.is_contiguous, some))
        or not all(map(Tensor.numel, some))
    ):
        return None
    missing = [[gradient is None for gradient in view] for view in gradients]
    return (some[0].device, some[0].dtype) if all(view == missing[0] for view in missing) else None


def _kind_of(column: Sequence[Tensor | None]) -> tuple[torch.device, torch.dtype] | None:
    """Return the device and type of one parameter's gradients, or None if the kernels cannot handle them.

    The kernels need dense memory with the same order of elements in every view.
    """
    first = None
    for gradient in column:
        if gradient is None:
            continue
        if first is None:
            first, device, dtype, contiguous = gradient, gradient.device, gradient.dtype, gradient.is_contiguous()
            if dtype not in _TYPES or gradient.numel() == 0 or not (contiguous or _is_dense(gradient)):
                return None
        elif (
            gradient.dtype != dtype
            or gradient.device != device
            or (not (contiguous and gradient.is_contiguous()) and gradient.stride() != first.stride())
        ):
            return None
    return None if first is None else (device, dtype)


def _is_dense(gradient: Tensor) -> bool:
    """Return whether a gradient is contiguous, apart from the order of its dimensions."""
    return gradient.permute(sorted(range(gradient.ndim), key=gradient.stride, reverse=True)).is_contiguous()


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _use_device(device: torch.device) -> torch.cuda.device:
    """Make a device current, because Triton launches on the current device."""
    return torch.cuda.device(device if device.type == "cuda" else -1)
