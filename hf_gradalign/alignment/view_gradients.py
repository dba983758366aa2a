"""The views' gradients: held apart, multiplied with each other, and combined where the optimizer looks for them."""

import functools
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, nn

from hf_gradalign.alignment.buckets import combine_in_buckets_, products_in_buckets

if TYPE_CHECKING:
    from hf_gradalign.alignment.gradient_kernels import GradientTable

if distributed.is_available():
    from torch.distributed.tensor import DTensor, Partial
else:  # builds without it have no sharded tensors either
    DTensor = Partial = ()

logger = logging.getLogger(__name__)

Gradients = Sequence[Tensor | None]
"""One view's gradients, one tensor per parameter; `None` where the view gave the parameter no gradient (a zero)."""


class GradientPasses:
    """Reads K views' gradients for their products, then reads them again and writes their weighted sum.

    Gradients on a GPU go through Triton's kernels where these run (`gradient_kernels`), all others through buckets
    (`buckets`). Neither form makes the host wait for the device.

    Args:
        gradients: K sequences of P gradients, `None` where a view has none.

    Raises:
        ValueError: If the sequences differ in length, or a gradient is sparse or still to be summed over processes.
    """

    def __init__(self, gradients: Sequence[Sequence[Tensor | None]]) -> None:
        lengths = {len(view) for view in gradients}
        if len(lengths) > 1:
            raise ValueError(f"every view needs one entry per parameter, got sequences of lengths {sorted(lengths)}")
        self._gradients = gradients
        local = [[None if g is None else local_part(_dense(g)) for g in view] for view in gradients]
        self._device = next((g.device for view in local for g in view if g is not None), torch.device("cpu"))
        self._table = _make_table(local, self._device)
        covered = frozenset() if self._table is None else self._table.covered
        parameters = range(len(local[0]) if local else 0)
        rest = [p for p in parameters if p not in covered and any(view[p] is not None for view in local)]
        self._has_rest = bool(rest)
        self._rest = [[g if p not in covered else None for p, g in enumerate(view)] for view in local] if rest else []

    def products(self) -> Tensor:
        """The views' inner products by parameter, float32 (P, K, K); see `compute_products`.

        Every process of a distributed run must call this alike: products of sharded gradients are summed.
        """
        views, parameters = len(self._gradients), len(self._gradients[0]) if self._gradients else 0
        if self._table is None:
            products = self._rest_products() if self._has_rest else torch.zeros(parameters, views, views)
        else:
            products = torch.zeros(parameters, views, views, device=self._device)
            self._table.products_(products)
            if self._has_rest:
                products += self._rest_products()
        columns = zip(*self._gradients, strict=True)
        return sum_over_shards(products, [next((g for g in column if g is not None), None) for column in columns])

    def combine_(self, weights: Tensor, index: Sequence[int] | None = None) -> None:
        """Put each parameter's weighted sum into the first tensor that it has.

        Args:
            weights: Shape (G, K).
            index: For each parameter its row; by default the first.
        """
        if self._table is not None:
            self._table.combine_(weights, index)
        if self._has_rest:
            combine_in_buckets_(self._rest, weights, index)

    def _rest_products(self) -> Tensor:
        return products_in_buckets(self._rest, self._device)


class ViewGradients:
    """Swaps view gradients in and out of `p.grad`; the tensors are never flattened or stacked.

    Between views `p.grad` is `None`; within `accumulate(view)` it is what that view has gathered so far, so that a
    backward pass accumulates into it exactly as in ordinary training (and so do gradient hooks, DDP's reduction and
    loss scaling). `combine` writes the weighted sum into the first view's tensors. The extra memory is one gradient
    for each view beyond the first.

    Args:
        parameters: The model's parameters. A frozen one has no gradient in any view, and may be unfrozen at any time.
        shared_storage: Whether `p.grad` lies in a buffer that the next backward pass writes to again (DDP's
            `gradient_as_bucket_view`, CUDA graphs). Only then gradients are copied, once a pass.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], shared_storage: bool = False) -> None:
        self._parameters = list(parameters)
        self._shared_storage = shared_storage
        self._held: dict[str, list[Tensor | None]] = {}
        self._passes: GradientPasses | None = None

    @property
    def views(self) -> list[str]:
        """Names of the views that hold a gradient, in the order in which they were first seen."""
        return list(self._held)

    @contextmanager
    def accumulate(self, view: str) -> Iterator[None]:
        """Within this context `p.grad` is the gradient that `view` has accumulated since the last `combine`."""
        held = self._held.get(view, [None] * len(self._parameters))
        for parameter, gradient in zip(self._parameters, held, strict=True):
            parameter.grad = gradient
        try:
            yield
        finally:
            self._passes = None
            self._held[view] = [self._take(parameter.grad) for parameter in self._parameters]
            for parameter in self._parameters:
                parameter.grad = None

    def products(self) -> Tensor:
        """The views' inner products by parameter, (P, K, K), in the order of `views` (see `compute_products`)."""
        return self._over_held().products()

    def gramian(self) -> Tensor:
        """The K x K Gramian of the views held, over all parameters, in the order of `views`."""
        return self.products().sum(0)

    @torch.no_grad()
    def combine(self, weights: Tensor, index: Sequence[int] | None = None) -> None:
        """Set `p.grad` to the weighted sum of the views' gradients, in place, and forget the views.

        A parameter with no gradient in one view gets the others' weighted sum; with none in any view it keeps `None`,
        so that the optimiser passes it over as in ordinary training.

        Args:
            weights: Shape (K,), on the gradients' device, in the order of `views`; or (G, K), a row a group.
            index: With (G, K), each parameter's row.

        Raises:
            ValueError: If there is not one weight a view.
        """
        if weights.shape[-1:] != (len(self._held),):
            raise ValueError(f"{len(self._held)} views {self.views} need as many weights, got {tuple(weights.shape)}")
        passes, held = self._over_held(), list(self._held.values())
        self._held, self._passes = {}, None
        for parameter, *gradients in zip(self._parameters, *held, strict=True):
            parameter.grad = next((gradient for gradient in gradients if gradient is not None), None)
        passes.combine_(weights if index is not None else weights[None], index)

    def _over_held(self) -> GradientPasses:
        if self._passes is None:
            self._passes = GradientPasses(list(self._held.values()))
        return self._passes

    def _take(self, gradient: Tensor | None) -> Tensor | None:
        return gradient.clone() if self._shared_storage and gradient is not None else gradient


def _dense(gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        raise ValueError("sparse gradients cannot be aligned; make the embedding with sparse=False")
    return gradient


def _make_table(local: Sequence[Sequence[Tensor | None]], device: torch.device) -> "GradientTable | None":
    if device.type != "cuda" or not _kernels_run(device):
        return None
    from hf_gradalign.alignment.gradient_kernels import GradientTable

    return GradientTable(local)


@functools.cache
def _kernels_run(device: torch.device) -> bool:
    """Whether Triton can build and run the kernels on a device; tried once, on one element."""
    try:
        from hf_gradalign.alignment.gradient_kernels import GradientTable

        element = torch.ones(1, device=device)
        table = GradientTable([[element], [element.clone()]])
        table.products_(torch.zeros(1, 2, 2, device=device))
        table.combine_(torch.ones(1, 2, device=device))
    except Exception as error:
        # It fails in many ways: it is not installed, there is no C compiler, the GPU is too old for it.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning(
            f"Aligning gradients on {device} without Triton, which takes longer: {reason}. Triton comes with torch's "
            "CUDA builds for Linux and needs a C compiler such as gcc."
        )
        return False
    return True


@torch.no_grad()
def compute_products(gradients: Sequence[Gradients]) -> Tensor:
    """Inner products of every pair of K views' gradients, parameter by parameter.

    Accumulated in float32 (in float64 for gradients of that type), so that half-precision gradients neither overflow
    nor lose their small terms. Each gradient is read from memory once for all pairs, and the host waits for no device
    (see `GradientPasses`). Gradients that are sharded over processes (`DTensor`, FSDP2) are multiplied shard by shard
    and the products summed over the shards; every process must then call this alike.

    Args:
        gradients: K sequences of P entries, entry p of each the gradient of parameter p (any shape).

    Returns:
        Float32 tensor of shape (P, K, K), each matrix symmetric, on the device of the first gradient found. Entry
        (p, i, j) is the inner product of views i and j for parameter p; non-finite gradients make it non-finite.

    Raises:
        ValueError: If the sequences differ in length, or a gradient is sparse.
    """
    return GradientPasses(gradients).products()


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


def is_sharded_tensor(tensor: Tensor) -> bool:
    """Whether a tensor is one process's part of a distributed one."""
    return isinstance(tensor, DTensor)


def local_part(gradient: Tensor) -> Tensor:
    """What this process holds of a gradient; changing it in place changes the gradient.

    Raises:
        ValueError: If the processes hold terms of a sum that is still to be taken.
    """
    if not isinstance(gradient, DTensor):
        return gradient
    if any(isinstance(placement, Partial) for placement in gradient.placements):
        raise ValueError("a gradient is still to be summed over processes (placement Partial) and cannot be aligned")
    return gradient.to_local()


def sum_over_shards(products: Tensor, gradients: Sequence[Tensor | None]) -> Tensor:
    """Sum the products of local parts over the processes that hold the other parts.

    Args:
        products: Shape (P, ...), one entry a parameter.
        gradients: P gradients, by whose placement the entries are summed: over each mesh dimension that shards them.

    Returns:
        The sums; for gradients that are not sharded `products`, and nothing is sent.
    """
    sharded = defaultdict(list)
    for index, gradient in enumerate(gradients):
        if isinstance(gradient, DTensor):
            dimensions = tuple(i for i, placement in enumerate(gradient.placements) if placement.is_shard())
            if dimensions:
                sharded[gradient.device_mesh, dimensions].append(index)
    for (mesh, dimensions), indices in sharded.items():
        # Taken apart and put together by hand: an index tensor would have to be copied to the device each time.
        entries = list(products.unbind())
        part = torch.stack([entries[index] for index in indices])
        for dimension in dimensions:
            distributed.all_reduce(part, group=mesh.get_group(dimension))
        for index, entry in zip(indices, part.unbind(), strict=True):
            entries[index] = entry
        products = torch.stack(entries)
    return products
