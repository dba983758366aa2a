"""Flags of a device that the host reads some updates later, so as not to wait for the device."""

import torch
from torch import Tensor

# How many updates later a flag is read, by type of device. The host does not wait for a CPU.
_LAG = {"cpu": 0}
_LAG_ELSEWHERE = 4


def updates_until_read(device: torch.device) -> int:
    """Return after how many more updates a flag of a device has surely arrived on the host."""
    return _LAG.get(device.type, _LAG_ELSEWHERE)


class DelayedFlag:
    """A flag that starts to be copied to the host at once. Its value waits for the copy, if that is not done yet.

    Args:
        flag: A tensor of one element, on any device.
    """

    def __init__(self, flag: Tensor) -> None:
        self._flag = flag
        self._copied: torch.cuda.Event | None = None
        if flag.device.type == "cuda":
            self._flag = flag.to("cpu", non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def __bool__(self) -> bool:
        if self._copied is not None:
            self._copied.synchronize()
        return bool(self._flag)
