"""Costs of alignment other than arithmetic: waiting for the device, and memory."""

import gc
import weakref

import pytest
import torch
from device_transfers import DEVICE, DeviceTransfers
from gramians import OUR_METHODS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_gradalign.alignment import (
    ParameterGroups,
    RunningMeans,
    ViewGradients,
    conflict_statistics,
    get_method,
)
from hf_gradalign.alignment.buckets import BUCKET_SIZE

MIB = 2**20
NAMES = ["encoder.layers.0.weight", "encoder.layers.0.bias", "encoder.layers.1.weight", "head.weight", "unused"]
WITHOUT_A_LAUNCH = (
    *("_unsafe_view", "as_strided", "detach", "diagonal", "expand", "permute", "select", "slice", "squeeze", "t"),
    *("transpose", "unbind", "unsqueeze", "view"),
)
SHAPES = [(64, 32), (64,), (32, 64), (2, 32), (3,)]


def parameters_with_gradients(views, shapes, device="cpu", dtype=torch.float32):
    """Parameters, and `ViewGradients` in which each view has a gradient for all of them but the last."""
    parameters = [nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) for shape in shapes]
    gradients = ViewGradients(parameters)
    torch.manual_seed(0)
    for view in range(views):
        with gradients.accumulate(f"view{view}"):
            for parameter in parameters[:-1]:
                parameter.grad = torch.randn(parameter.shape, device=device, dtype=dtype)
    return parameters, gradients


def align(gradients, groups, method):
    """One update, as in the trainer."""
    products = gradients.products()
    gramians = groups.gramians(products)
    weights = method(gramians)
    views = gradients.views
    gradients.combine(weights, groups.index)
    return conflict_statistics(gramians, weights, views)


@pytest.mark.parametrize("method", OUR_METHODS)
@pytest.mark.parametrize(
    ("views", "scope", "dtype"),
    [
        (1, "model", torch.float32),
        (2, "model", torch.float32),
        (2, "parameter", torch.bfloat16),
        (3, "module", torch.float32),
    ],
)
def test_an_update_does_not_wait_for_the_device(method, views, scope, dtype):
    groups, method, means = ParameterGroups(NAMES, scope), get_method(method), RunningMeans()
    groups.gramians(torch.zeros(len(NAMES), views, views, device=DEVICE))  # copies the groups once
    with DeviceTransfers() as transfers:
        for _ in range(2 if views < 3 else 1):
            _, gradients = parameters_with_gradients(views, SHAPES, DEVICE, dtype)
            means.update(align(gradients, groups, method))
    assert "_foreach_norm" in transfers.operations
    assert transfers.to_host == []
    assert transfers.to_device == []


@pytest.mark.parametrize(("name", "most"), [("pcgrad", 24), ("gradvac", 48), ("cagrad", 74)])
def test_a_method_takes_few_launches(name, most):
    method, gramian = get_method(name), torch.tensor([[2.0, -1.0], [-1.0, 3.0]], device=DEVICE)
    method(gramian)  # fills what is kept from call to call
    with DeviceTransfers() as transfers:
        method(gramian)
    assert len([name for name in transfers.operations if name not in WITHOUT_A_LAUNCH]) <= most


def test_all_means_are_read_in_one_transfer():
    means, groups, method = RunningMeans(), ParameterGroups(NAMES), get_method("pcgrad")
    with DeviceTransfers() as transfers:
        for _ in range(3):
            means.update(align(parameters_with_gradients(3, SHAPES, DEVICE)[1], groups, method))
        transfers.to_host.clear()
        means.means()
    assert transfers.to_host == ["_to_copy"]


class Allocations(TorchDispatchMode):
    """Tracks the memory of tensors created in this context, and the sizes of concatenations."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = self.concatenated = 0
        self._known = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        if func.overloadpacket.__name__ in ("cat", "stack", "_foreach_cat"):
            sizes = [t.numel() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
            self.concatenated = max(self.concatenated, *sizes)
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in given:
                self._follow(tensor)
        return result

    def _follow(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata in self._known:
            return
        size = self._known[storage._cdata] = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, storage._cdata, size)

    def _forget(self, key, size):
        self._known.pop(key)
        self.live -= size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shapes",
    [
        pytest.param([(3000, 500), (700,), (2000, 3, 500), (1,)], id="layers"),
        pytest.param([(45_000, 100), (100,), (1,)], id="one embedding is all"),
    ],
)
def test_no_buffer_of_the_models_size_is_allocated(dtype, shapes):
    parameters, gradients = parameters_with_gradients(2, shapes, dtype=dtype)
    kept = [parameter.data_ptr() for view in gradients._held.values() for parameter in view[:-1]][: len(shapes) - 1]
    one_gradient = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    gc.collect()
    with Allocations() as allocations:
        align(gradients, ParameterGroups([f"p{i}" for i in range(len(shapes))]), get_method("pcgrad"))
    # Half-precision gradients are converted to float32 one bucket at a time.
    bound = MIB / 8 if dtype == torch.float32 else 2 * 4 * BUCKET_SIZE + MIB / 8
    assert allocations.peak <= min(bound, 1.02 * one_gradient)
    assert allocations.concatenated <= 16
    assert [parameter.grad.data_ptr() for parameter in parameters[:-1]] == kept
