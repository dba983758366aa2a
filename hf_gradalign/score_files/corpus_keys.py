"""Labels of a corpus that `load_corpus` knows, in place of a key file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from hf_gradalign.data import load_corpus
from hf_gradalign.data.corpora import parse_corpus
from hf_gradalign.score_files.clips import Clips, flat, with_unique_ids


def names_corpus(text: str) -> bool:
    """Whether a text names a corpus: the demo corpus, one with a layout of its own, or one of the Arena's."""
    spec = parse_corpus(text)
    return spec.layout is not None or spec.is_arena or spec.is_demo


def read_keys_of_corpus(
    name_or_path: str,
    *,
    split: str = "test",
    subset: str | None = None,
    label_map: Mapping[str, str] | None = None,
) -> Clips:
    """Read the labels of a corpus, as training and scoring take it. No audio is opened.

    Args:
        name_or_path: A named corpus with its path (`in_the_wild:/data/itw`), `arena:NAME`, `demo`, a Hub id, ...
        split: Which split.
        subset: Of corpora that have some.
        label_map: What labels mean whose names do not say.

    Returns:
        The clips, with labels and what the corpus knows of them.

    Raises:
        CorpusError: As `load_corpus`.
        ScoreFileError: If an utterance is there twice with different labels.
    """
    dataset = load_corpus(name_or_path, splits=(split,), subset=subset, label_map=label_map)[split]
    names = [name for name in dataset.column_names if name != "audio"]
    table = dataset.select_columns(names).with_format("arrow")[:]
    columns = {
        name: flat(table[name])
        for name in names
        if name not in ("label", "utterance_id") and table[name].null_count < len(table) and _is_text(table[name].type)
    }
    labels = table["label"].to_numpy().astype(np.int64)
    if "system" in columns and not columns["system"].filter(pa.array(labels == 0)).drop_null():
        del columns["system"]  # bona fide clips alone have one, which is none
    clips = Clips(str(name_or_path), flat(table["utterance_id"]), labels=labels, columns=columns)
    return with_unique_ids(clips, "the label")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
