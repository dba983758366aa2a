"""Whether a data set numbers the classes as the model does."""

from collections.abc import Iterable, Mapping
from typing import Any

from hf_gradalign.labels import canonical_label, normalize_label

_COLUMNS = ("labels", "label")


def check_labels(model: Any, dataset: Any) -> None:
    """Check that a data set and a model agree on the number of each class that both name.

    The numbers of a data set are its `label2id` (`hf_gradalign.data`), or the `ClassLabel` of its labels (datasets).
    Those of a model are in its configuration. Names count in any spelling.

    Raises:
        ValueError: If a class has one number in the data set and another one in the model.
    """
    names = getattr(getattr(model, "config", None), "id2label", None) or {}
    of_model = {_meaning(name): int(number) for number, name in names.items()}
    of_dataset = {_meaning(name): int(number) for name, number in _numbers(dataset).items()}
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
    inner = getattr(dataset, "dataset", None)  # of torch's Subset and the Trainer's shards
    return {} if inner is None else _numbers(inner)


def _label_features(features: Any) -> Iterable[Any]:
    if not isinstance(features, Mapping):
        return []
    views = [feature for feature in features.values() if isinstance(feature, Mapping)]
    return [columns[name] for columns in (features, *views) for name in _COLUMNS if name in columns]


def _meaning(name: Any) -> str:
    return canonical_label(name) or normalize_label(name)


def _listing(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number}: {name}" for name, number in sorted(numbers.items(), key=lambda entry: entry[1]))
