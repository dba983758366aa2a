"""Check data sets when training starts: how they number the classes, their views, and their epochs."""

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
        # A collator of the user may choose a view, and a stream must not be started. They are checked by batch.
        if isinstance(trainer.data_collator, ViewBatchCollator) and _has_items(dataset):
            with _random_states_kept():
                item = dataset[0]
            refuse_views(item, f"the evaluation set {name}".rstrip())


def _has_items(dataset: Any) -> bool:
    return hasattr(dataset, "__getitem__") and has_length(dataset) and len(dataset) > 0


@contextmanager
def _random_states_kept() -> Generator[None]:
    """Let a data set draw as if it had not, so that a run does not depend on this check."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])


def check_labels(model: Any, dataset: Any) -> None:
    """Check that a data set and a model agree on the number of each class that both name.

    The numbers of a data set are its `label2id` (`hf_gradalign.data`), or the `ClassLabel` of its labels (datasets).
    Those of a model are in its configuration. Names count in any spelling.

    Raises:
        ValueError: If a class has one number in the data set and another one in the model.
    """
    numbers = _numbers(dataset)
    if not numbers:
        for one in _wrapped(dataset):
            check_labels(model, one)
    names = getattr(getattr(model, "config", None), "id2label", None) or {}
    of_model = {_meaning(name): int(number) for number, name in names.items()}
    of_dataset = {_meaning(name): int(number) for name, number in numbers.items()}
    wrong = [name for name in of_model.keys() & of_dataset.keys() if of_model[name] != of_dataset[name]]
    if wrong and len(of_model) > 1:
        raise ValueError(
            f"the labels of the data set ({_listing(of_dataset)}) are not those of the model ({_listing(of_model)}), "
            "which would learn or be measured the wrong way around: make the data set with "
            "label2id=model.config.label2id, or renumber its labels"
        )


def _numbers(dataset: Any) -> Mapping[str, int]:
    """Return the number of each class in a data set; empty if the data set does not say."""
    if isinstance(numbers := getattr(dataset, "label2id", None), Mapping):
        return numbers
    formatting = getattr(dataset, "format", None)
    is_transformed = isinstance(formatting, Mapping) and formatting.get("type") == "custom"  # which may renumber labels
    for feature in [] if is_transformed else _label_features(getattr(dataset, "features", None)):
        if names := getattr(feature, "names", None):
            return {name: number for number, name in enumerate(names)}
    return {}


def _wrapped(dataset: Any) -> list[Any]:
    """Return the data sets within one of torch's (Subset, ConcatDataset, ...) or a shard of the Trainer."""
    several = getattr(dataset, "datasets", None)
    several = list(several.values()) if isinstance(several, Mapping) else several
    inner = getattr(dataset, "dataset", None)
    return [*([] if inner is None else [inner]), *(several if isinstance(several, list | tuple) else [])]


def _label_features(features: Any) -> Iterable[Any]:
    if not isinstance(features, Mapping):
        return []
    views = [feature for feature in features.values() if isinstance(feature, Mapping)]
    return [columns[name] for columns in (features, *views) for name in _LABEL_COLUMNS if name in columns]


def _meaning(name: Any) -> str:
    return canonical_label(name) or normalize_label(name)


def _listing(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number}: {name}" for name, number in sorted(numbers.items(), key=lambda entry: entry[1]))


def datasets_with_epoch(dataset: Any) -> list[Any]:
    """Return a data set if it has `set_epoch`, and otherwise those that it wraps, as `Subset` and others do."""
    if hasattr(dataset, "set_epoch"):
        return [dataset]
    return [each for one in _wrapped(dataset) for each in datasets_with_epoch(one)]


def warn_of_lost_epochs(dataset: Any, args: Any) -> None:
    """Warn if a data set's `set_epoch` cannot change the copies of persistent loader workers.

    Args:
        dataset: The training set.
        args: The arguments of training.
    """
    if args.dataloader_num_workers == 0 or not args.dataloader_persistent_workers:
        return
    if lost := [each for each in datasets_with_epoch(dataset) if not _shares_memory(each)]:
        logger.warning(
            f"--dataloader_persistent_workers: set_epoch of {type(lost[0]).__name__} does not reach workers that are "
            "running, so items that depend on the epoch are the same in each. Keep the epoch in shared memory, as in "
            "torch.zeros((), dtype=torch.int64).share_memory_(), or leave out the option."
        )


def _shares_memory(dataset: Any) -> bool:
    values = list(getattr(dataset, "__dict__", {}).values())
    return any(
        value.is_shared() if isinstance(value, Tensor) else isinstance(value, _SHARED) for value in values
    ) or any(_shares_memory(value) for value in values if isinstance(value, Dataset))
