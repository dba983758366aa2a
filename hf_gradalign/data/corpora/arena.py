"""Data sets of the Speech Anti-Spoofing Arena: columns `path`, `audio`, `label` and JSON `notes`, split `test`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Value
from datasets.features.features import FeatureType

from hf_gradalign.data.corpora.layout import BONA_FIDE_SYSTEM
from hf_gradalign.data.labels import LABEL_NAMES, is_ambiguous
from hf_gradalign.data.request import CorpusError

ARENA_OWNER = "SpeechAntiSpoofingBenchmarks"
"""The Arena's organization on the Hub."""

# The names known here. Other names are used as given.
_NAMES = (
    "ADD2023_track12_test_r1",
    "ASVspoof2019_LA",
    "ASVspoof2021_DF",
    "ASVspoof2021_LA",
    "ASVspoof5",
    "ArAD",
    "CD-ADD",
    "CFAD",
    "DECRO",
    "DFADD",
    "DeepVoice",
    "EmoSpoofTTS",
    "HABLA",
    "InTheWild",
    "LRLspoof",
    "LibriSeVoc",
    "ODSS",
    "PyAra",
    "SONAR",
    "XMAD",
)

LABEL_MAP = {"0": "bonafide", "1": "spoof"}
"""The meaning of the Arena's numbers, for columns without names."""

# The keys in `notes` for each standard column. The first existing key is used.
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


def arena_repository(name: str) -> str:
    """Return the Hub repository of a data set of the Arena.

    Args:
        name: Name of the data set. For known data sets, case, hyphens, underscores and spaces do not matter. Names with
            an owner (`owner/name`) are used as given.
    """
    if "/" in name:
        return name
    known = {name_key(known): known for known in _NAMES}
    return f"{ARENA_OWNER}/{known.get(name_key(name), name)}"


def name_key(name: str) -> str:
    """Return a corpus' name for comparisons: lower case, without hyphens, underscores, dots and spaces."""
    return re.sub(r"[\s_.-]+", "", name).lower()


def is_arena_folder(folder: Path) -> bool:
    """Return whether a folder has the Arena's format: `eval.yaml` and `data/*.parquet`."""
    return (folder / "eval.yaml").is_file() and any((folder / "data").glob("*.parquet"))


def arena_files(folder: Path) -> dict[str, list[str]]:
    """Return the parquet files of a local data set by split.

    Raises:
        CorpusError: If the folder does not have the Arena's format.
    """
    splits: dict[str, list[str]] = {}
    for path in sorted((folder / "data").glob("*-*.parquet")):
        splits.setdefault(path.name.partition("-")[0], []).append(str(path))
    if not splits:
        raise CorpusError(f"{folder} does not have the Arena's format, eval.yaml and data/test-*.parquet.")
    return splits


def label_map_of(feature: FeatureType | None, given: Mapping[str, str] | None = None) -> Mapping[str, str] | None:
    """Return the label map of an Arena column: `given` or, for numbers without names, the Arena's own."""
    if isinstance(feature, ClassLabel) or any(is_ambiguous(label) for label in given or ()):
        return given
    return {**LABEL_MAP, **(given or {})}


def with_notes(dataset: Dataset) -> Dataset:
    """Add the values in `notes` (`utterance_id`, `speaker`, `system`, ...) to a data set with the standard columns."""
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
            continue  # ids from file names are already complete
        if column in dataset.column_names:
            dataset = dataset.remove_columns(column)
        dataset = dataset.add_column(column, entries, feature=Value("string"))
    return dataset


def read_notes(notes: str | None, label: int) -> dict[str, str | None]:
    """Return the standard columns from a clip's notes.

    Args:
        notes: A JSON object. Anything else is ignored.
        label: Index into `LABEL_NAMES`.
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
