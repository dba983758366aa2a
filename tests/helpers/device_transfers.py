"""Count operations that make the host wait for a device, using a device without data."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = "meta"
"""A device whose tensors have no data, so every read is noticed."""


class DeviceTransfers(TorchDispatchMode):
    """Within this context `to_host` and `to_device` list the operations that read or copy from one to the other.

    A copy to the device counts too: from ordinary memory it waits for what the device has still to do. What is read
    out of `DEVICE` is zero.
    """

    def __init__(self):
        super().__init__()
        self.to_host, self.to_device, self.operations = [], [], []
        self._from_numbers = _FromNumbers(self.to_device)

    def __enter__(self):
        self._from_numbers.__enter__()
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self._from_numbers.__exit__(*exception)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        self.operations.append(name)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if name in ("_local_scalar_dense", "is_nonzero", "equal", "nonzero") and _away(tensors[0]):
            self.to_host.append(name)
            return torch.zeros((), dtype=tensors[0].dtype).item()
        if name == "_to_copy" and _away(tensors[0]) and torch.device(kwargs.get("device") or DEVICE).type == "cpu":
            self.to_host.append(name)
            return torch.zeros(tensors[0].shape, dtype=kwargs.get("dtype") or tensors[0].dtype)
        result = func(*args, **kwargs)
        if name in ("_to_copy", "copy_"):
            source, target = (args[1], args[0]) if name == "copy_" else (args[0], result)
            if not _away(source) and _away(target):
                self.to_device.append(name)
        return result


class _FromNumbers(TorchFunctionMode):
    """Tensors from Python numbers: created on the host and copied, except on a device without data."""

    def __init__(self, found):
        super().__init__()
        self._found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor) and _away(result):
            self._found.append(func.__name__)
        return result


def _away(tensor):
    return tensor.device.type != "cpu"
