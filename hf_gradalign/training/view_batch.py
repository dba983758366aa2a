"""A batch of views, and how to make one with a collator that knows of no views."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device
from transformers import default_data_collator
from transformers.trainer_utils import has_length


def is_view_batch(inputs: Any) -> bool:
    """Whether a batch (or an item) maps views to model inputs, rather than being model inputs itself."""
    return isinstance(inputs, Mapping) and len(inputs) > 0 and all(isinstance(v, Mapping) for v in inputs.values())


class ViewsWithIds(dict[str, Any]):
    """Views that know whose they are: an item of a data set, or a batch.

    Args:
        views: Model inputs by view.
        ids: What each item is called, to name it in messages.
    """

    def __init__(self, views: Mapping[str, Any], ids: Sequence[str] = ()) -> None:
        super().__init__(views)
        self.ids = tuple(ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ViewsWithIds":
        """The same on a device; accelerate's loaders, which would make a mapping without ids, call it."""
        return ViewsWithIds(send_to_device(dict(self), device, non_blocking=non_blocking), self.ids)


def with_longest_view(dataset: Any, length_column: str) -> Any:
    """A data set of views as the Trainer's samplers by length can read it: each item is its longest view.

    Args:
        dataset: Any data set.
        length_column: Column that has the items' lengths, where the data set is a table with one.

    Returns:
        The data set itself where its lengths are known or its items are ordinary ones.
    """
    has_lengths = length_column in (getattr(dataset, "column_names", None) or ())
    if not has_length(dataset) or has_lengths or not is_view_batch(dataset[0]):
        return dataset
    return _LongestViews(dataset)


class _LongestViews:
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if index >= len(self):
            raise IndexError(index)  # ends the iteration of a data set that has no __iter__
        item = self._dataset[index]
        names = next(iter(item.values()))
        return {name: max((view[name] for view in item.values()), key=_length) for name in names}


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") and getattr(value, "shape", True) != () else 0


class ViewBatchCollator:
    """Collates items of views, `{"clean": {...}, "augmented": {...}}`, view by view with an ordinary collator.

    The views may so be padded to different lengths. Ordinary items (evaluation) go to the ordinary collator as they
    are. `GradientAlignmentTrainer` does this by itself to the collator that it takes where none is given.

    Args:
        collator: Makes a batch of model inputs from a list of items, such as transformers' `default_data_collator`
            (which cannot do it with mappings of mappings) or `DataCollatorWithPadding(tokenizer)`.
    """

    def __init__(self, collator: Callable[[list[Any]], Mapping[str, Any]] = default_data_collator) -> None:
        self.collator = collator
        # The Trainer saves the tokenizer of its collator where it is given no processing_class.
        self.tokenizer = getattr(collator, "tokenizer", None)

    def __call__(self, items: Sequence[Any]) -> Mapping[str, Any]:
        """Collate items.

        Args:
            items: All of one kind, at least one.

        Returns:
            For items of views `{view: model inputs}`, in the order of the first item, with the items' ids where these
            have some (`ViewsWithIds`), else the model inputs alone.

        Raises:
            ValueError: If the items do not have the same views.
        """
        first = items[0]
        if not is_view_batch(first):
            return self.collator(list(items))
        other = next((item for item in items if set(item) != set(first)), None)
        if other is not None:
            raise ValueError(f"every item needs the same views, got {', '.join(first)} and {', '.join(other)}")
        batch = {view: self.collator([item[view] for item in items]) for view in first}
        ids = [name for item in items for name in getattr(item, "ids", ())]
        return ViewsWithIds(batch, ids) if ids else batch


__all__ = ["ViewBatchCollator", "ViewsWithIds", "is_view_batch", "with_longest_view"]
