"""The two passes of an alignment over the views' gradients, in the form that suits their device."""

import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hf_gradalign.alignment.buckets import combine_in_buckets_, products_in_buckets
from hf_gradalign.alignment.sharding import local_part, sum_over_shards

if TYPE_CHECKING:
    from hf_gradalign.alignment.gradient_kernels import GradientTable

logger = logging.getLogger(__name__)


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


__all__ = ["GradientPasses"]
