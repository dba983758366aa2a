"""Keep the gradients of several views apart, compute their inner products, and combine them in `p.grad`."""

import functools
import logging
import warnings
from collections import defaultdict
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from operator import attrgetter
from types import NoneType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, nn

from hf_gradalign.alignment.buckets import combine_in_buckets_, first_gradients, products_in_buckets

if TYPE_CHECKING:
    from hf_gradalign.alignment.gradient_table import GradientTable

if distributed.is_available():
    from torch.distributed.tensor import DTensor, Partial
else:  # builds without torch.distributed have no sharded tensors
    DTensor = Partial = ()

logger = logging.getLogger(__name__)

Gradients = Sequence[Tensor | None]
"""Gradients of one view, one tensor per parameter; `None` where the view gave no gradient, which counts as zero."""


class GradientPasses:
    """Reads the gradients of K views once for their products, and once more to write their weighted sum.

    Gradients on a GPU use Triton kernels if these run (`gradient_table`). All others use buckets (`buckets`). Neither
    makes the host wait for the device.

    Args:
        gradients: K sequences of P gradients, `None` where a view has none.

    Raises:
        ValueError: If the sequences differ in length, a gradient is sparse, or it has not been summed over processes.
    """

    def __init__(self, gradients: Sequence[Sequence[Tensor | None]]) -> None:
        lengths = {len(view) for view in gradients}
        if len(lengths) > 1:
            raise ValueError(f"every view needs one entry per parameter, got sequences of lengths {sorted(lengths)}")
        self._gradients = gradients
        self._firsts = first_gradients(gradients)
        local = [_local_parts(view) for view in gradients]
        self._device = next((g.device for view in local for g in view if g is not None), torch.device("cpu"))
        self._table = _make_table(local, self._device)
        covered = frozenset() if self._table is None else self._table.covered
        rest = [p for p, gradient in enumerate(self._firsts) if gradient is not None and p not in covered]
        self._rest = [[g if p not in covered else None for p, g in enumerate(view)] for view in local] if rest else []

    def products(self) -> Tensor:
        """Return the views' inner products by parameter, float32 (P, K, K); see `compute_products`.

        Every process of a distributed run must call this, because products of sharded gradients are summed.
        """
        views, parameters = len(self._gradients), len(self._firsts)
        if self._table is None:
            products = self._rest_products() if self._rest else torch.zeros(parameters, views, views)
        else:
            products = torch.zeros(parameters, views, views, device=self._device)
            self._table.products_(products)
            if self._rest:
                products += self._rest_products()
        return sum_over_shards(products, self._firsts)

    def combine_(self, weights: Tensor, index: Sequence[int] | None = None) -> None:
        """Write each parameter's weighted sum to its first tensor.

        Args:
            weights: Shape (G, K).
            index: Row of `weights` for each parameter; the first by default.
        """
        if self._table is not None:
            self._table.combine_(weights, index)
        if self._rest:
            combine_in_buckets_(self._rest, weights, index)

    def _rest_products(self) -> Tensor:
        return products_in_buckets(self._rest, self._device)


class ViewGradients:
    """Swaps the gradients of views in and out of `p.grad`, without ever flattening or stacking them.

    Between views `p.grad` is `None`. Within `accumulate(view)` it is the gradient that this view has accumulated so
    far, so a backward pass adds to it exactly as in ordinary training, including gradient hooks, DDP's reduction and
    loss scaling. `combine` writes the weighted sum to the tensors of the first view. The extra memory is one gradient
    per view beyond the first.

    Args:
        parameters: The model's parameters, each of them once. A frozen parameter has no gradient in any view, and may
            be unfrozen at any time.
        shared_storage: Whether the next backward pass writes to the same memory again (DDP's `gradient_as_bucket_view`,
            CUDA graphs). If so, gradients are copied once per pass.

    Raises:
        ValueError: If anything but parameters is given, or a parameter is given twice.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], shared_storage: bool = False) -> None:
        self._parameters = list(parameters)
        _check_parameters(self._parameters)
        self._shared_storage = shared_storage
        self._has_complex = any(map(Tensor.is_complex, self._parameters))
        self._held: dict[str, list[Tensor | None]] = {}
        self._passes: GradientPasses | None = None
        self._failed: str | None = None
        self._current: str | None = None

    @property
    def views(self) -> list[str]:
        """Names of the views that hold a gradient, in the order in which they were first seen."""
        return list(self._held)

    @contextmanager
    def accumulate(self, view: str) -> Generator[None]:
        """Within this context, `p.grad` is the gradient that `view` has accumulated since the last `combine`.

        What `p.grad` holds before the first view is discarded, with a warning.

        Raises:
            RuntimeError: If an earlier pass failed, the pass of another view has not ended, or `p.grad` holds a
                gradient from after the first view that belongs to no view.
        """
        self._require_complete_passes()
        if self._held:
            self._refuse_other_gradients()
        elif self._has_gradients():
            warnings.warn(
                "Gradients from before the first view are discarded. Call optimizer.zero_grad() after each step, with "
                "set_to_none=True, its default. Run the backward pass of a penalty within accumulate() too.",
                stacklevel=3,
            )
        held = self._held.get(view, [None] * len(self._parameters))
        for parameter, gradient in zip(self._parameters, held, strict=True):
            parameter.grad = gradient
        self._current = view
        try:
            yield
        except BaseException:
            self._failed = view
            raise
        finally:
            self._passes = self._current = None
            self._held[view] = [self._keep_gradient(parameter.grad) for parameter in self._parameters]
            for parameter in self._parameters:
                parameter.grad = None

    def clear(self) -> None:
        """Discard the passes since the last `combine`, so that all can be repeated after one failed."""
        self._held, self._passes, self._failed = {}, None, None

    def products(self) -> Tensor:
        """Return the inner products by parameter, (P, K, K), in the order of `views` (see `compute_products`).

        Raises:
            ValueError: If there is no view.
            RuntimeError: If a pass failed, or the gradients of two views are in the same memory.
        """
        return self._held_passes().products()

    def gramian(self) -> Tensor:
        """Return the K x K Gramian over all parameters, in the order of `views`."""
        return self.products().sum(0)

    @torch.no_grad()
    def combine(self, weights: Tensor, index: Sequence[int] | None = None) -> None:
        """Set `p.grad` to the weighted sum of the views' gradients, in place, and clear the views.

        A parameter without a gradient in one view gets the weighted sum of the others. Without a gradient in any view
        it keeps `None`, and the optimizer ignores it as in ordinary training.

        Args:
            weights: Shape (K,), on the gradients' device, in the order of `views`; or (G, K), one row per group.
            index: With (G, K), the row of each parameter.

        Raises:
            ValueError: If there is not one weight per view.
            RuntimeError: As for `products`, or if `p.grad` holds a gradient that belongs to no view.
        """
        self._require_complete_passes()
        if weights.shape[-1:] != (len(self._held),):
            raise ValueError(f"{len(self._held)} views {self.views} need as many weights, got {tuple(weights.shape)}")
        self._refuse_other_gradients()
        passes, held = self._held_passes(), list(self._held.values())
        self._held, self._passes = {}, None
        for parameter, gradient in zip(self._parameters, first_gradients(held), strict=True):
            parameter.grad = gradient
        passes.combine_(weights if index is not None else weights[None], index)

    def _require_complete_passes(self) -> None:
        if self._current is not None:
            raise RuntimeError(f"the pass of the view {self._current!r} has not ended: leave its accumulate() first")
        if self._failed is not None:
            raise RuntimeError(
                f"a pass of the view {self._failed!r} failed and may have left part of its gradient: call clear() and "
                "repeat all passes of the update"
            )

    def _has_gradients(self) -> bool:
        # Every step calls this, and it takes half as long as a loop over the parameters.
        return not set(map(type, map(attrgetter("grad"), self._parameters))) <= {NoneType}

    def _refuse_other_gradients(self) -> None:
        if self._has_gradients():
            raise RuntimeError(
                "the gradients of a backward pass after the first view, outside of accumulate(), would be lost: run "
                "every backward pass of an update, including that of a penalty, within accumulate(view)"
            )

    def _held_passes(self) -> GradientPasses:
        self._require_complete_passes()
        if not self._held:
            raise ValueError("no view has a gradient: run backward passes within accumulate() first")
        if self._passes is None:
            held = list(self._held.values())
            _refuse_shared_memory(held)
            self._passes = GradientPasses(held)
        return self._passes

    def _keep_gradient(self, gradient: Tensor | None) -> Tensor | None:
        if gradient is None:
            return None
        if self._shared_storage:
            return gradient.clone()
        return gradient.resolve_conj() if self._has_complex else gradient


def _check_parameters(parameters: Sequence[nn.Parameter]) -> None:
    if other := next((kind for kind in set(map(type, parameters)) if not issubclass(kind, Tensor)), None):
        raise ValueError(f"expected parameters, as from model.parameters(), got {other.__name__}")
    if len(set(map(id, parameters))) < len(parameters):
        twice = next(parameter for n, parameter in enumerate(parameters) if any(parameter is p for p in parameters[:n]))
        raise ValueError(
            f"a parameter of shape {tuple(twice.shape)} is given twice, and would count twice: give tied weights once, "
            "as model.parameters() does"
        )


def _refuse_shared_memory(views: Sequence[Gradients]) -> None:
    """Check that views do not share memory. Either all of their gradients do or none, so one parameter is checked."""
    for column in zip(*views, strict=True):
        parts = [local_part(gradient) for gradient in column if gradient is not None and not gradient.is_sparse]
        # The address is 0 for a tensor without elements, or on a device without data.
        addresses = [address for part in parts if (address := part.data_ptr())]
        if len(addresses) < 2:
            continue
        if len(set(addresses)) < len(addresses):
            raise RuntimeError(
                "the gradients of two views are in the same memory, because each backward pass overwrites those of "
                "the last one (DDP with gradient_as_bucket_view, CUDA graphs): use ViewGradients(parameters, "
                "shared_storage=True)"
            )
        return


def _local_parts(view: Gradients) -> Gradients:
    # Gradients almost always need no change, and a call for each would take the host noticeable time.
    if set(map(type, view)) <= {Tensor, NoneType}:
        some = [gradient for gradient in view if gradient is not None]
        if not any(map(Tensor.is_complex, some)) and set(map(attrgetter("layout"), some)) <= {torch.strided}:
            return view
    return [None if gradient is None else _to_dense_real(gradient) for gradient in view]


def _to_dense_real(gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        raise ValueError("sparse gradients cannot be aligned; create the embedding with sparse=False")
    part = local_part(gradient)
    # This is a view of the gradient's memory, so writing to it changes the gradient.
    return torch.view_as_real(part.resolve_conj()) if part.is_complex() else part


def _make_table(local: Sequence[Sequence[Tensor | None]], device: torch.device) -> "GradientTable | None":
    if device.type != "cuda" or not _can_run_kernels(device):
        return None
    from hf_gradalign.alignment.gradient_table import GradientTable

    return GradientTable(local)


@functools.cache
def _can_run_kernels(device: torch.device) -> bool:
    """Return whether Triton can build and run the kernels on a device, tested once on a single element."""
    try:
        from hf_gradalign.alignment.gradient_table import GradientTable

        element = torch.ones(1, device=device)
        table = GradientTable([[element], [element.clone()]])
        table.products_(torch.zeros(1, 2, 2, device=device))
        table.combine_(torch.ones(1, 2, device=device))
    except Exception as error:
        # Possible reasons: Triton is not installed, there is no C compiler, or the GPU is too old.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning(
            f"Aligning gradients on {device} without Triton, which is slower: {reason}. Triton comes with torch's "
            "CUDA builds for Linux and needs a C compiler such as gcc."
        )
        return False
    return True


@torch.no_grad()
def compute_products(gradients: Sequence[Gradients]) -> Tensor:
    """Return the inner products of all pairs of K views' gradients for each parameter.

    Products are accumulated in float32 (float64 for gradients of that type), so half-precision gradients neither
    overflow nor lose small terms. A complex number counts as two real ones. Each gradient is read from memory once for
    all pairs, and the host never waits for the device (see `GradientPasses`). Gradients that are sharded over processes
    (`DTensor`, FSDP2) are multiplied shard by shard, and the products are summed over the shards, so every process must
    call this.

    Args:
        gradients: K sequences of P entries; entry p is the gradient of parameter p, of any shape.

    Returns:
        Float32 tensor of shape (P, K, K) of symmetric matrices, on the device of the first gradient. Entry (p, i, j) is
        the inner product of views i and j for parameter p. Non-finite gradients make it non-finite.

    Raises:
        ValueError: If the sequences differ in length, or a gradient is sparse.
    """
    return GradientPasses(gradients).products()


def compute_gramian(gradients: Sequence[Gradients]) -> Tensor:
    """Return the inner products of all pairs of K views' gradients over all parameters.

    Args:
        gradients: As for `compute_products`.

    Returns:
        Symmetric float32 tensor of shape (K, K). Entry (i, j) is g_i . g_j.

    Raises:
        ValueError: As for `compute_products`.
    """
    return compute_products(gradients).sum(0)


def is_sharded_tensor(tensor: Tensor) -> bool:
    """Return whether a tensor is one process's part of a distributed tensor."""
    return isinstance(tensor, DTensor)


def local_part(gradient: Tensor) -> Tensor:
    """Return this process's part of a gradient. Changing it in place changes the gradient.

    Raises:
        ValueError: If the gradient has not been summed over processes.
    """
    if not isinstance(gradient, DTensor):
        return gradient
    if any(isinstance(placement, Partial) for placement in gradient.placements):
        raise ValueError("a gradient has not been summed over processes (placement Partial) and cannot be aligned")
    return gradient.to_local()


def sum_over_shards(products: Tensor, gradients: Sequence[Tensor | None]) -> Tensor:
    """Sum the products of local parts over the processes that hold the other parts.

    Args:
        products: Shape (P, ...), one entry per parameter.
        gradients: P gradients. Each entry is summed over the mesh dimensions that shard its gradient.

    Returns:
        The sums. If no gradient is sharded, this is `products`, and nothing is communicated.
    """
    if not any(issubclass(kind, DTensor) for kind in set(map(type, gradients))):
        return products
    sharded = defaultdict(list)
    for index, gradient in enumerate(gradients):
        if isinstance(gradient, DTensor):
            dimensions = tuple(i for i, placement in enumerate(gradient.placements) if placement.is_shard())
            if dimensions:
                sharded[gradient.device_mesh, dimensions].append(index)
    for (mesh, dimensions), indices in sharded.items():
        # Split and stacked by hand, because an index tensor would be copied to the device each time.
        entries = list(products.unbind())
        part = torch.stack([entries[index] for index in indices])
        for dimension in dimensions:
            distributed.all_reduce(part, group=mesh.get_group(dimension))
        for index, entry in zip(indices, part.unbind(), strict=True):
            entries[index] = entry
        products = torch.stack(entries)
    return products
