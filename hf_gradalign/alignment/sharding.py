"""Gradients that are spread over processes, as FSDP2 leaves them (`torch.distributed.tensor.DTensor`)."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, distributed

if distributed.is_available():
    from torch.distributed.tensor import DTensor, Partial
else:  # builds without it have no sharded tensors either
    DTensor = Partial = ()


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
