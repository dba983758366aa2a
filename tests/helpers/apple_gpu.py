"""A stand-in for Apple's GPU (device "mps"): tensors with data on the CPU, and the limits of the real device.

These limits are known from the sources and issues of PyTorch: there is no float64 and complex128, NumPy cannot read
its tensors, operands must be on one device, a `non_blocking` copy from the CPU may read memory that was freed (issue
189690), and the infinity norm ignores NaN (`norm` in ReduceOps.metal).
"""

from contextlib import contextmanager, nullcontext

import torch
from accelerate.state import AcceleratorState
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only
from transformers.utils import is_torch_mps_available

APPLE = torch.device("mps", 0)
_GETTERS = {
    torch.Tensor.device.__get__: APPLE,
    torch.Tensor.is_mps.__get__: True,
    torch.Tensor.is_cpu.__get__: False,
}
_READS_BY_NUMPY = (torch.Tensor.numpy, torch.Tensor.__array__)
# These take operands on several devices.
_MOVES = ("to", "copy_", "type_as", "__getitem__", "__setitem__", "__set__", "_has_compatible_shallow_copy_type")


class AppleTensor(torch.Tensor):
    """A tensor on the stand-in."""

    def __reduce_ex__(self, protocol):
        with torch._C.DisableTorchFunctionSubclass():
            return self.detach().as_subclass(torch.Tensor).__reduce_ex__(protocol)


class AppleGpu(TorchFunctionMode):
    """Within this context, tensors and modules can be moved to the device "mps", and be created there.

    Attributes:
        random_state: State of the device's own generator, which dropout there uses.
    """

    def __init__(self):
        super().__init__()
        self.random_state = torch.get_rng_state()

    def seed(self, seed):
        self.random_state = torch.Generator().manual_seed(seed).get_state()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func is torch.device or name == "_parse_to":  # these only read a device's name
            return func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_gpu = [tensor for tensor in tensors if isinstance(tensor, AppleTensor)]
        if on_gpu and func in _GETTERS:
            return _GETTERS[func]
        if on_gpu and func in _READS_BY_NUMPY:
            raise TypeError("can't convert mps:0 device type tensor to numpy. Use Tensor.cpu() to copy it to the CPU")
        if name == "_has_compatible_shallow_copy_type" and len(on_gpu) == 1:
            return False  # moving a module makes new parameters
        on_cpu = [tensor for tensor in tensors if not isinstance(tensor, AppleTensor) and tensor.ndim]
        if on_gpu and on_cpu and name not in _MOVES:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found mps:0 and cpu in {name}")
        target = _named_device(name, args, kwargs)
        goes_to_gpu = bool(on_gpu) if target is None else target == "mps"
        args, kwargs = tree_map_only((str, torch.device), _as_cpu, (args, kwargs))
        with torch._C.DisableTorchFunctionSubclass(), self._own_generator() if name == "dropout" else nullcontext():
            result = func(*args, **kwargs)
            if name in ("to", "cpu") and result is args[0] and goes_to_gpu != isinstance(result, AppleTensor):
                result = result.clone()
            if name == "to" and goes_to_gpu and on_cpu and kwargs.get("non_blocking"):
                result = torch.full_like(result, 77)  # whatever is in that memory by now
            if name == "linalg_vector_norm" and on_gpu:
                result = _norm_that_ignores_nan(result, *args, **kwargs)
        return tree_map_only(torch.Tensor, lambda tensor: _place(tensor, tensors, goes_to_gpu), result)

    @contextmanager
    def _own_generator(self):
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.random_state)
            yield
            self.random_state = torch.get_rng_state()


@contextmanager
def apple_gpu(monkeypatch):
    """Within this context, this machine has Apple's GPU, and everything that looks for an accelerator finds it."""
    with monkeypatch.context() as patch, AppleGpu() as gpu:
        for name in ("is_available", "is_built"):
            patch.setattr(torch.backends.mps, name, lambda: True)
        patch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: True)
        patch.setattr(torch.accelerator, "is_available", lambda: True)
        patch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("mps"))
        patch.setattr(torch.accelerator, "synchronize", lambda device=None: None)
        patch.setattr(torch.mps, "manual_seed", gpu.seed)
        patch.setattr(torch.mps, "get_rng_state", lambda: gpu.random_state)
        patch.setattr(torch.mps, "set_rng_state", lambda state: setattr(gpu, "random_state", state))
        patch.setattr(torch.mps, "empty_cache", lambda: None)
        patch.setattr(torch.mps, "driver_allocated_memory", lambda: 3 * 2**20)
        is_torch_mps_available.cache_clear()
        try:
            yield
        finally:
            is_torch_mps_available.cache_clear()
            AcceleratorState._reset_state(reset_partial_state=True)


def _named_device(name, args, kwargs):
    """The type of the device that a call names; None if its result is where its operands are."""
    if name == "cpu":
        return "cpu"
    for place in (*(args[1:] if name == "to" else ()), kwargs.get("device")):
        if isinstance(place, torch.device) or (isinstance(place, str) and place.partition(":")[0] in ("cpu", "mps")):
            return torch.device(place).type
        if isinstance(place, torch.Tensor):
            return "mps" if isinstance(place, AppleTensor) else "cpu"
    return None


def _as_cpu(place):
    return type(place)("cpu") if str(place).partition(":")[0] == "mps" else place


def _place(tensor, operands, on_gpu):
    if any(tensor is operand for operand in operands):
        return tensor
    if on_gpu and tensor.dtype in (torch.float64, torch.complex128):
        raise TypeError(f"Cannot convert a MPS Tensor to {tensor.dtype} dtype as the MPS framework doesn't support it")
    if on_gpu == isinstance(tensor, AppleTensor):
        return tensor
    with torch.set_grad_enabled(not tensor.is_leaf):
        placed = tensor.as_subclass(AppleTensor if on_gpu else torch.Tensor)
    return placed.requires_grad_(tensor.requires_grad)


def _norm_that_ignores_nan(result, x, ord=2, dim=(), keepdim=False):
    return x.abs().nan_to_num(nan=-torch.inf, posinf=torch.inf).amax(dim, keepdim) if ord == torch.inf else result
