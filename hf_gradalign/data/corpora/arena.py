"""Data sets in the form of the Speech Anti-Spoofing Arena: `path`, `audio`, `label` and JSON `notes`, split `test`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Value
from datasets.features.features import FeatureType

from hf_gradalign.data.corpora.schema import BONA_FIDE_SYSTEM
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.label_map import says_nothing
from hf_gradalign.data.labels import LABEL_NAMES

LABEL_MAP = {"0": "bonafide", "1": "spoof"}
"""What the Arena's numbers mean where the column has no names."""

# What its data sets call the columns of the schema, the first that is there.
_NOTES = {
    "utterance_id": ("utterance_id",),
    "speaker": ("speaker_id", "speaker"),
    "system": ("attack_id", "attack", "system_id", "system"),
    "codec": ("codec",),
    "condition": ("transmission", "source", "condition", "attack_condition"),
    "language": ("language", "lang"),
    "gender": ("gender", "sex"),
    "subset": ("phase", "subset"),
}


def is_arena_folder(folder: Path) -> bool:
    """Whether a folder has the Arena's form: `eval.yaml` and `data/*.parquet`."""
    return (folder / "eval.yaml").is_file() and any((folder / "data").glob("*.parquet"))


def arena_files(folder: Path) -> dict[str, list[str]]:
    """The parquet files of a local data set by split.

    Raises:
        CorpusError: if the folder has not the Arena's form.
    """
    splits: dict[str, list[str]] = {}
    for path in sorted((folder / "data").glob("*-*.parquet")):
        splits.setdefault(path.name.partition("-")[0], []).append(str(path))
    if not splits:
        raise CorpusError(f"{folder} has not the Arena's form, eval.yaml and data/test-*.parquet.")
    return splits


def label_map_of(feature: FeatureType, said: Mapping[str, str] | None = None) -> Mapping[str, str] | None:
    """What labels mean, unless something was said of numbers: nothing need be said of labels that have names."""
    if isinstance(feature, ClassLabel) or any(says_nothing(label) for label in said or ()):
        return said
    return {**LABEL_MAP, **(said or {})}


def with_notes(dataset: Dataset) -> Dataset:
    """Add what the notes know (`utterance_id`, `speaker`, `system`, ...) to a data set in the common form."""
    if "notes" not in dataset.column_names:
        return dataset
    known: dict[str, list[str | None]] = {column: [] for column in _NOTES}
    table = dataset.select_columns(["notes", "label"]).with_format("arrow")
    for batch in table.iter(batch_size=10_000):
        for notes, label in zip(batch["notes"].to_pylist(), batch["label"].to_pylist(), strict=True):
            values = read_notes(notes, label)
            for column, entries in known.items():
                entries.append(values.get(column))
    for column, entries in known.items():
        if column == "utterance_id" and any(entry is None for entry in entries):
            continue  # the names made from the files are complete
        if column in dataset.column_names:
            dataset = dataset.remove_columns(column)
        dataset = dataset.add_column(column, entries, feature=Value("string"))
    return dataset


def read_notes(notes: str | None, label: int) -> dict[str, str | None]:
    """The schema's columns from a clip's notes.

    Args:
        notes: a JSON object, or anything else, which says nothing.
        label: index into `LABEL_NAMES`.
    """
    try:
        content = json.loads(notes or "{}")
    except ValueError:
        content = {}
    if not isinstance(content, dict):
        content = {}
    values = {column: _first(content, keys) for column, keys in _NOTES.items()}
    if label == LABEL_NAMES.index("bonafide"):
        values["system"] = BONA_FIDE_SYSTEM
    return values


def _first(content: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    return next((str(content[key]) for key in keys if content.get(key) not in (None, "")), None)
