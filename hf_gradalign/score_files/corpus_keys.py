"""Labels of a corpus that `load_corpus` knows, in place of a key file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_gradalign.data import CorpusError, load_corpus
from hf_gradalign.data.corpora import parse_corpus
from hf_gradalign.score_files.clips import Clips, flat
from hf_gradalign.score_files.errors import ScoreFileError
from hf_gradalign.score_files.parquet_keys import is_parquet
from hf_gradalign.score_files.reading import key_file
from hf_gradalign.utils.folder_listing import list_folder


def names_corpus(text: str) -> bool:
    """Whether a text names a corpus in place of a key file.

    That is the demo corpus, one with a layout of its own, one of the Arena's, or a folder of audio with labels (in
    `metadata.csv` or `metadata.jsonl`, in folders by class, ...) in which there is no key file that is known.
    """
    path = Path(text)
    if path.exists():
        return path.is_dir() and key_file(path) is None and not is_parquet(path) and bool(list_folder(path).audio)
    spec = parse_corpus(text)
    return spec.layout is not None or spec.is_arena or spec.is_demo


def read_keys_of_corpus(
    name_or_path: str,
    *,
    split: str = "test",
    subset: str | None = None,
    label_map: Mapping[str, str] | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
) -> Clips:
    """Read the labels of a corpus, as training and scoring take it. No audio is opened.

    Args:
        name_or_path: A named corpus with its path (`in_the_wild:/data/itw`), `arena:NAME`, `demo`, a Hub id, ...
        split: Which split.
        subset: Of corpora that have some.
        label_map: What labels mean whose names do not say.
        label_column: The column with labels, of a corpus without a layout of its own.
        id_column: The column with utterance ids, likewise.

    Returns:
        The clips that have labels, and what the corpus knows of them.

    Raises:
        CorpusError: As `load_corpus`.
        ScoreFileError: If no clip has a label.
    """
    columns = {"label_column": label_column or "label", "id_column": id_column}
    try:
        corpus = load_corpus(
            name_or_path, splits=(split,), subset=subset, label_map=label_map, require_labels=False, **columns
        )
    except CorpusError as error:
        text = (
            str(error).replace("--label_column_name", "--label_column").replace("--id_column_name", "--key_id_column")
        )
        raise CorpusError(text) from error
    dataset = corpus[split]
    names = [name for name in dataset.column_names if name != "audio"]
    table = dataset.select_columns(names).with_format("arrow")[:]
    columns = {
        name: flat(table[name])
        for name in names
        if name not in ("label", "utterance_id") and table[name].null_count < len(table) and _is_text(table[name].type)
    }
    has_label = pc.is_valid(table["label"])
    labels = pc.fill_null(table["label"], -1).to_numpy().astype(np.int64)
    if "system" in columns and not columns["system"].filter(pa.array(labels == 0)).drop_null():
        del columns["system"]  # bona fide clips alone have one, which is none
    clips = Clips(str(name_or_path), flat(table["utterance_id"]), labels=labels, columns=columns)
    kept = np.flatnonzero(has_label)
    if len(kept) == 0:
        raise ScoreFileError(f"None of the {len(clips)} clips of {name_or_path}, split {split}, has a label.")
    if len(kept) < len(clips):
        note = f"{len(clips) - len(kept)} of {len(clips)} clips of {name_or_path} have no label: they are left out."
        others = clips.utterance_ids.filter(pc.invert(has_label))
        clips = replace(clips.at(kept), notes=(note,), other_ids=others)
    return clips


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
