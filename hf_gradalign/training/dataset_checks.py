"""Checks of data sets when training starts: class numbers, views and epochs."""

import ctypes
import random
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from multiprocessing.managers import BaseProxy
from multiprocessing.sharedctypes import SynchronizedBase
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers.trainer_utils import has_length
from transformers.utils import logging

from hf_gradalign.labels import canonical_label, normalize_label
from hf_gradalign.training.view_batch import ViewBatchCollator, refuse_views

logger = logging.get_logger(__name__)

_LABEL_COLUMNS = ("labels", "label")
_SHARED = (SynchronizedBase, BaseProxy, ctypes._SimpleCData)


def check_datasets(trainer: Any) -> None:
    """Check the training set and the evaluation sets when training starts.

    Raises:
        ValueError: If one numbers the classes differently than the model, or an evaluation set has views.
    """
    model, evaluated = trainer.accelerator.unwrap_model(trainer.model), trainer.eval_dataset
    check_labels(model, trainer.train_dataset)
    for name, dataset in evaluated.items() if isinstance(evaluated, dict) else [("", evaluated)]:
        check_labels(model, dataset)
        # A user's collator may choose a view, and reading an item would start a stream. Their batches are checked
        # instead.
        if isinstance(trainer.data_collator, ViewBatchCollator) and _is_map_style(dataset):
            with _preserve_random_states():
                item = dataset[0]
            refuse_views(item, f"the evaluation set {name}".rstrip())


def _is_map_style(dataset: Any) -> bool:
    return hasattr(dataset, "__getitem__") and has_length(dataset) and len(dataset) > 0


@contextmanager
def _preserve_random_states() -> Generator[None]:
    """On exit, restore the random states, so that reading an item for a check does not change the run."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])


def check_labels(model: Any, dataset: Any) -> None:
    """Check that a data set and a model give the same number to each class that both name.

    The numbers of a data set are from its `label2id` (`hf_gradalign.data`) or the `ClassLabel` of its labels
    (datasets). The numbers of a model are in its configuration. Different spellings of a class name count as the same.

    Raises:
        ValueError: If a class has one number in the data set and another one in the model.
    """
    numbers = _label_ids(dataset)
    if not numbers:
        for one in _inner_datasets(dataset):
            check_labels(model, one)
    names = getattr(getattr(model, "config", None), "id2label", None) or {}
    of_model = {_class_of_name(name): int(number) for number, name in names.items()}
    of_dataset = {_class_of_name(name): int(number) for name, number in numbers.items()}
    wrong = [name for name in of_model.keys() & of_dataset.keys() if of_model[name] != of_dataset[name]]
    if wrong and len(of_model) > 1:
        raise ValueError(
            f"the data set numbers its labels ({_describe_ids(of_dataset)}) differently than the model "
            f"({_describe_ids(of_model)}), so the model would learn or be measured the wrong way around: make the data "
            "set with label2id=model.config.label2id, or renumber its labels"
        )


def _label_ids(dataset: Any) -> Mapping[str, int]:
    """Return the number of each class in a data set; empty if the data set does not define them."""
    if isinstance(numbers := getattr(dataset, "label2id", None), Mapping):
        return numbers
    formatting = getattr(dataset, "format", None)
    is_transformed = isinstance(formatting, Mapping) and formatting.get("type") == "custom"  # may renumber labels
    for feature in [] if is_transformed else _label_features(getattr(dataset, "features", None)):
        if names := getattr(feature, "names", None):
            return {name: number for number, name in enumerate(names)}
    return {}


def _inner_datasets(dataset: Any) -> list[Any]:
    """Return the data sets that a wrapper of torch (Subset, ConcatDataset, ...) or of the Trainer contains."""
    several = getattr(dataset, "datasets", None)
    several = list(several.values()) if isinstance(several, Mapping) else several
    inner = getattr(dataset, "dataset", None)
    return [*([] if inner is None else [inner]), *(several if isinstance(several, list | tuple) else [])]


def _label_features(features: Any) -> Iterable[Any]:
    if not isinstance(features, Mapping):
        return []
    views = [feature for feature in features.values() if isinstance(feature, Mapping)]
    return [columns[name] for columns in (features, *views) for name in _LABEL_COLUMNS if name in columns]


def _class_of_name(name: Any) -> str:
    return canonical_label(name) or normalize_label(name)


def _describe_ids(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number}: {name}" for name, number in sorted(numbers.items(), key=lambda entry: entry[1]))


def datasets_with_epoch(dataset: Any) -> list[Any]:
    """Return the data set if it has `set_epoch`, otherwise the data sets with `set_epoch` that it wraps."""
    if hasattr(dataset, "set_epoch"):
        return [dataset]
    return [each for one in _inner_datasets(dataset) for each in datasets_with_epoch(one)]


def warn_about_lost_epochs(dataset: Any, args: Any) -> None:
    """Warn if a data set's `set_epoch` cannot change the copies of persistent loader workers.

    Args:
        dataset: The training set.
        args: The arguments of training.
    """
    if args.dataloader_num_workers == 0 or not args.dataloader_persistent_workers:
        return
    if lost := [each for each in datasets_with_epoch(dataset) if not _shares_memory(each)]:
        logger.warning(
            f"--dataloader_persistent_workers: set_epoch of {type(lost[0]).__name__} does not reach running workers, "
            "so items that depend on the epoch are the same in every epoch. Keep the epoch in shared memory, as in "
            "torch.zeros((), dtype=torch.int64).share_memory_(), or remove the option."
        )


def _shares_memory(dataset: Any) -> bool:
    values = list(getattr(dataset, "__dict__", {}).values())
    return any(
        value.is_shared() if isinstance(value, Tensor) else isinstance(value, _SHARED) for value in values
    ) or any(_shares_memory(value) for value in values if isinstance(value, Dataset))
