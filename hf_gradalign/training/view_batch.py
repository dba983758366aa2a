"""Batches of views, and a collator that makes them with any other collator."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object, send_to_device
from transformers import default_data_collator
from transformers.trainer_utils import has_length


def is_view_batch(inputs: Any) -> bool:
    """Return whether a batch or item maps views to model inputs, rather than being model inputs."""
    return isinstance(inputs, Mapping) and len(inputs) > 0 and all(isinstance(v, Mapping) for v in inputs.values())


class ViewsWithIds(dict[str, Any]):
    """The views of an item or a batch, with the ids of the items.

    Args:
        views: Model inputs by view.
        ids: Id of each item, for messages.
    """

    def __init__(self, views: Mapping[str, Any], ids: Sequence[str] = ()) -> None:
        super().__init__(views)
        self.ids = tuple(ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ViewsWithIds":
        """Move the views to a device and keep the ids. accelerate's loaders call this."""
        return ViewsWithIds(send_to_device(dict(self), device, non_blocking=non_blocking), self.ids)


def refuse_views(inputs: Any, what: str) -> None:
    """Check that a batch or item of an evaluation has no views.

    Raises:
        ValueError: If there are views; the message begins with `what`.
    """
    if is_view_batch(inputs):
        first = next(iter(inputs))
        raise ValueError(
            f"{what} has views ({', '.join(inputs)}), but an evaluation takes ordinary model inputs: use one view, as "
            f"in [item[{first!r}] for item in dataset], or several data sets by name, eval_dataset={{{first!r}: ...}}"
        )


def check_same_views(views: Sequence[str]) -> None:
    """Check that the batches of all processes have the same views in the same order. Every process must call this.

    Raises:
        ValueError: If they differ. DDP would average the gradients of different views.
    """
    of_processes = gather_object([list(views)])
    if any(others != of_processes[0] for others in of_processes):
        listing = "; ".join(f"process {rank}: {', '.join(names)}" for rank, names in enumerate(of_processes))
        raise ValueError(f"the batches of all processes need the same views in the same order, got {listing}")


def explain_failed_collator(collator: Any, dataset: Any, error: Exception) -> None:
    """Raise a helpful error if a collator failed because it cannot handle views.

    Args:
        collator: The collator.
        dataset: The training set.
        error: The error raised while a batch was made.

    Raises:
        ValueError: If the collator fails on an item with views, but not on one of its views.
    """
    if isinstance(collator, ViewBatchCollator) or not _is_sized(dataset):
        return
    try:
        item = dataset[0]
    except Exception:  # then the collator did not fail
        return
    if not is_view_batch(item):
        return
    try:
        collator([item])
    except Exception as its:  # any type; an error from a loader's worker includes its traceback
        try:
            collator([next(iter(item.values()))])
        except Exception:  # then it fails for another reason, such as too few items
            return
        raise ValueError(
            f"the data_collator fails on items with views ({', '.join(item)}): {type(its).__name__}: {its}. To apply "
            "it to each view, use data_collator=ViewBatchCollator(collator)"
        ) from error


def is_transformers_collator(collator: Any) -> bool:
    """Return whether a collator is from transformers. None of those handles views."""
    module = getattr(collator, "__module__", None) or type(collator).__module__
    return module.startswith("transformers.")


def _describe_mixed_item(item: Any) -> str | None:
    if not isinstance(item, Mapping):
        return None
    views = [name for name, value in item.items() if isinstance(value, Mapping)]
    others = [str(name) for name in item if name not in views]
    if not views or not others:
        return None
    return (
        f"an item has {', '.join(others)} next to mappings ({', '.join(views)}). If the mappings are views, each needs "
        f"all model inputs, labels too, and nothing may be next to them: {{{views[0]!r}: {{..., {others[0]!r}: ...}}, "
        "...}"
    )


def wrap_longest_views(dataset: Any, length_column: str) -> Any:
    """Wrap a data set of views so that each item is its longest view, for samplers that group by length.

    Args:
        dataset: Any data set.
        length_column: Column with the items' lengths, if the data set is a table that has one.

    Returns:
        The wrapped data set. The data set itself if its lengths are known or its items are not views.
    """
    has_lengths = length_column in (getattr(dataset, "column_names", None) or ())
    if has_lengths or not _is_sized(dataset) or not is_view_batch(dataset[0]):
        return dataset
    return _LongestViews(dataset)


def _is_sized(dataset: Any) -> bool:
    return has_length(dataset)


class _LongestViews:
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= len(self):
            raise IndexError(index)  # ends iteration, since there is no __iter__
        item = self._dataset[index]
        names = next(iter(item.values()))
        return {name: max((view[name] for view in item.values()), key=_length) for name in names}


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") and getattr(value, "shape", True) != () else 0


class ViewBatchCollator:
    """Collates items of views, `{"clean": {...}, "augmented": {...}}`, view by view with an ordinary collator.

    Views may therefore be padded to different lengths. Ordinary items, as in evaluations, go to the collator unchanged.
    `GradientAlignmentTrainer` wraps its default collator in this class.

    Args:
        collator: Makes a batch of model inputs from a list of items, such as transformers' `default_data_collator` or
            `DataCollatorWithPadding(tokenizer)`.

    Attributes:
        left_out: Name of an entry of the items that is not for the model, such as lengths that the trainer groups by.
    """

    def __init__(self, collator: Callable[[list[Any]], Mapping[str, Any]] = default_data_collator) -> None:
        self.collator = collator
        self.left_out: str | None = None
        # Without a processing_class, the Trainer saves the tokenizer of its collator.
        self.tokenizer = getattr(collator, "tokenizer", None)

    def __call__(self, items: Sequence[Any]) -> Mapping[str, Any]:
        """Collate items.

        Args:
            items: One or more items, either all with views or all without.

        Returns:
            `{view: model inputs}` for items with views, in the order of the first item, as `ViewsWithIds` if the items
            have ids. Otherwise the model inputs.

        Raises:
            ValueError: If the items do not have the same views, or have model inputs next to views.
        """
        if self.left_out is not None and isinstance(items[0], Mapping) and self.left_out in items[0]:
            others = [{name: value for name, value in item.items() if name != self.left_out} for item in items]
            items = others if is_view_batch(others[0]) else items  # without views, it may be a model input
        first = items[0]
        if not is_view_batch(first):
            try:
                return self.collator(list(items))
            except (ValueError, TypeError, RuntimeError, KeyError) as error:
                if problem := _describe_mixed_item(first):
                    raise ValueError(problem) from error
                raise
        other = next((item for item in items if set(item) != set(first)), None)
        if other is not None:
            raise ValueError(f"every item needs the same views, got {', '.join(first)} and {', '.join(other)}")
        batch = {view: self.collator([item[view] for item in items]) for view in first}
        ids = [name for item in items for name in getattr(item, "ids", ())]
        return ViewsWithIds(batch, ids) if ids else batch

    def use_model(self, model: Any) -> None:
        """Tell the collator which model the batches are for. The trainer calls this; here it has no effect."""
