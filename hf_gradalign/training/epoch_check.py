"""Whether the epoch of a data set reaches loader workers that persist."""

import ctypes
from multiprocessing.managers import BaseProxy
from multiprocessing.sharedctypes import SynchronizedBase
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from transformers.utils import logging

logger = logging.get_logger(__name__)

_SHARED = (SynchronizedBase, BaseProxy, ctypes._SimpleCData)


def warn_of_lost_epochs(dataset: Any, args: Any) -> None:
    """Warn if a data set's `set_epoch` cannot change the copies of persistent loader workers.

    Args:
        dataset: The training set.
        args: The arguments of training.
    """
    has_epochs = hasattr(dataset, "set_epoch") and args.dataloader_num_workers > 0
    if has_epochs and args.dataloader_persistent_workers and not _shares_memory(dataset):
        logger.warning(
            f"--dataloader_persistent_workers: set_epoch of {type(dataset).__name__} does not reach workers that are "
            "running, so items that depend on the epoch are the same in each. Keep the epoch in shared memory, as in "
            "torch.zeros((), dtype=torch.int64).share_memory_(), or leave out the option."
        )


def _shares_memory(dataset: Any) -> bool:
    values = list(getattr(dataset, "__dict__", {}).values())
    return any(
        value.is_shared() if isinstance(value, Tensor) else isinstance(value, _SHARED) for value in values
    ) or any(_shares_memory(value) for value in values if isinstance(value, Dataset))
