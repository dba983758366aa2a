"""The labels of a data set in the Arena's form: no audio is decoded, and from the Hub none is transferred."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from datasets import load_dataset
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import RemoteEntryNotFoundError

from hf_gradalign.data import map_labels
from hf_gradalign.data.corpora.arena import label_map_of, read_notes
from hf_gradalign.hub.arena.errors import ArenaError
from hf_gradalign.score_files import read_keys

_LABELS_FILE = "data/labels.parquet"


def read_labels(path: str | Path) -> dict[str, int]:
    """Labels of all subsets, which the Arena pools: 1 bona fide and 0 spoof, by utterance id.

    Args:
        path: A data set's folder or file, as `hf_gradalign.score_files.read_keys` takes it.

    Raises:
        ScoreFileError: As `read_keys`.
    """
    clips = read_keys(path, subset="all")
    return dict(zip(clips.utterance_ids.to_pylist(), np.asarray(clips.labels).tolist(), strict=True))


def hub_labels(dataset_id: str, commit: str, split: str, token: str | None = None) -> Mapping[str, int]:
    """Labels of a data set on the Hub: from its small file of them, or by streaming their column alone.

    Args:
        dataset_id: `organisation/name`.
        commit: Of the data set.
        split: The split.
        token: Access token; None takes the one that is logged in.

    Raises:
        ScoreFileError: If the file is not of the Arena's form.
        ArenaError: If the column is not: an utterance has no id, or two labels.
    """
    try:
        return read_labels(hf_hub_download(dataset_id, _LABELS_FILE, repo_type="dataset", revision=commit, token=token))
    except RemoteEntryNotFoundError:
        columns = ["notes", "label"]
        rows = load_dataset(dataset_id, split=split, streaming=True, revision=commit, token=token, columns=columns)
    names, values = [], []
    for row in rows:
        names.append(read_notes(row["notes"], 0)["utterance_id"] or "")
        values.append(row["label"])
    feature = (rows.features or {}).get("label")
    labels = map_labels(values, names=getattr(feature, "names", None), label_map=label_map_of(feature))
    found = dict(zip(names, labels, strict=True))
    if "" in found or len(found) < len(names):
        raise ArenaError(f"{dataset_id} at {commit} has clips without an utterance_id, or one that several have")
    return found
