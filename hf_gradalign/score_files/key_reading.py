"""Reads labels from key files and protocols, from Parquet files such as the Arena's, or from a corpus.

Audio in Parquet files and corpora is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import ClassLabel, Features
from numpy.typing import NDArray

from hf_gradalign.data import CorpusError, load_corpus
from hf_gradalign.data.corpora import parse_corpus
from hf_gradalign.data.corpora.arena import LABEL_MAP, read_notes
from hf_gradalign.data.readers.class_numbering import require_one_numbering
from hf_gradalign.score_files.clips import Clips, ScoreFileError, as_text, read_labels, with_unique_ids
from hf_gradalign.score_files.column_roles import find_roles
from hf_gradalign.score_files.columns import IDS, LABELS, is_one_of
from hf_gradalign.score_files.score_reading import clips_of
from hf_gradalign.score_files.table_reading import read_table
from hf_gradalign.utils.folder_listing import list_folder, similar_path

DEFAULT_SUBSET = "eval"
_SUBSET_SPELLINGS = dict.fromkeys(("hidden_track", "hidden_track_1", "hidden_track_2"), "hidden")
_KEY_FILES = ("trial_metadata.txt", "CM/trial_metadata.txt", "meta.csv")
_AUDIO = "audio"
_USUAL_LABELS = ("label", "labels", "key", *LABELS)
_USUAL_IDS = ("utterance_id", "id", "path", "file", "file_name", *IDS)
_ARENA_LABELS = "labels.parquet"


def read_keys(
    path: str | Path,
    *,
    subset: str | None = None,
    id_column: str | None = None,
    label_column: str | None = None,
    label_map: Mapping[str, str] | None = None,
    of_trials: bool = False,
) -> Clips:
    """Read a file with labels: a protocol or keys of ASVspoof, a `meta.csv`, any table, or a data set of the Arena.

    Args:
        path: The file, or a folder that contains `trial_metadata.txt`, `CM/trial_metadata.txt`, `meta.csv` or
            `data/*.parquet`. Audio in Parquet files is not read.
        subset: For keys with subsets (ASVspoof 2021): `eval` (the default), `progress`, `hidden` or `all`.
        id_column: See `read_scores`.
        label_column: See `read_scores`.
        label_map: See `read_scores`.
        of_trials: Whether to prefer labels of speaker verification (`asv-label`) to those of countermeasures.

    Returns:
        The clips, with labels.

    Raises:
        ScoreFileError: If the file cannot be read, has no labels, has no such subset, or an utterance has two labels.
    """
    path = Path(path)
    if is_parquet(path):
        clips = read_parquet_keys(path, id_column=id_column, label_column=label_column, label_map=label_map)
    else:
        table = read_table(_require_key_file(path) if path.is_dir() else path, (id_column, label_column))
        roles = find_roles(
            table,
            wants_score=False,
            id_column=id_column,
            label_column=label_column,
            label_map=label_map,
            of_trials=of_trials,
        )
        if roles.label is None:
            raise ScoreFileError(
                f"{table.source} has no column with labels among {', '.join(table.columns)}. Specify the column with "
                "--label_column, and what the labels mean with --label_map."
            )
        if roles.utterance is None:
            raise ScoreFileError(
                f"{table.source} has no column with utterance ids among {', '.join(table.columns)}. Specify it with "
                "--id_column."
            )
        clips = clips_of(table, roles, label_map)
    return with_unique_ids(_of_subset(clips, subset))


def _of_subset(clips: Clips, subset: str | None) -> Clips:
    column = clips.columns.get("subset")
    names = set() if column is None else {str(name) for name in pc.unique(column).to_pylist()}
    wanted = subset or DEFAULT_SUBSET
    if wanted not in names:
        wanted = _SUBSET_SPELLINGS.get(wanted, wanted)
    names |= {_SUBSET_SPELLINGS.get(name, name) for name in names}
    if subset == "all" or (subset is None and DEFAULT_SUBSET not in names):
        return clips
    if wanted not in names:
        available = f"Its subsets are {', '.join(sorted(names))}" if names else "It has no subsets"
        raise ScoreFileError(
            f"{clips.source} has no subset {subset!r}. {available}: leave --subset out, or name another one."
        )
    spellings = [name for name, common in {**_SUBSET_SPELLINGS, wanted: wanted}.items() if common == wanted]
    chosen = pc.is_in(column, pa.array(spellings)).to_numpy(zero_copy_only=False)
    kept = clips.take(np.flatnonzero(chosen))
    note = f"Subset {wanted} of {clips.source}: {len(kept)} of {len(clips)} clips."
    others = clips.utterance_ids.filter(pa.array(~chosen))
    return replace(kept, notes=(*clips.notes, note) if len(kept) < len(clips) else clips.notes, other_ids=others)


def key_file(folder: Path) -> Path | None:
    """Return the key file in a folder, if it has one of the known names."""
    return next((folder / name for name in _KEY_FILES if (folder / name).is_file()), None)


def _require_key_file(folder: Path) -> Path:
    if (path := key_file(folder)) is None:
        raise ScoreFileError(
            f"{folder} is a folder without {', '.join(_KEY_FILES)} or data/*.parquet in it. Give the path of the file "
            "with the labels."
        )
    return path


def is_parquet(path: Path) -> bool:
    """Return whether a path is a Parquet file, or a folder with Parquet files of a data set."""
    return path.suffix == ".parquet" or (path.is_dir() and bool(_parquet_files(path)))


def read_parquet_keys(
    path: Path,
    *,
    id_column: str | None = None,
    label_column: str | None = None,
    label_map: Mapping[str, str] | None = None,
) -> Clips:
    """Read labels from Parquet files.

    Names of labels come from the schema of the files, or from `label_map`. In a data set of the Arena, 0 is bona fide
    and 1 is spoof. It has `eval.yaml` in its folder, or a column `notes` whose values are all JSON objects with an
    `utterance_id`. The notes give ids, speakers, systems and so on.

    Raises:
        ScoreFileError: If there is no such file, or it has no labels, no ids, or labels of unknown meaning.
    """
    files = _parquet_files(path)
    if not files:
        raise ScoreFileError(f"There is no file {path}.{similar_path(Path(path))}")
    try:
        return _read_parquet(path, files, id_column, label_column, label_map)
    except ScoreFileError:
        raise
    except (OSError, pa.ArrowException, KeyError, TypeError, AttributeError, ValueError) as error:
        # `datasets` raises the last four if it misinterprets metadata in the schema.
        raise ScoreFileError(f"Cannot read {path}: {error!r}") from error


def _read_parquet(
    path: Path,
    files: list[Path],
    id_column: str | None,
    label_column: str | None,
    label_map: Mapping[str, str] | None,
) -> Clips:
    schema = pq.read_schema(files[0])
    names = [name for name in schema.names if name != _AUDIO]
    table = pa.concat_tables([pq.read_table(file, columns=names) for file in files])
    source = str(path)
    has_notes = "notes" in names and _are_arena_notes(table["notes"])
    label = _column(source, names, label_column, _USUAL_LABELS, "labels", "--label_column")
    values = table[label]
    kinds = {str(file): Features.from_arrow_schema(pq.read_schema(file)).get(label) for file in files}
    try:
        require_one_numbering(kinds, label, label_map)
    except CorpusError as error:
        raise ScoreFileError(str(error)) from error
    kind = kinds[str(files[0])]
    if isinstance(kind, ClassLabel):
        numbers = values.combine_chunks().cast(pa.int64())
        numbers = pc.if_else(pc.less(numbers, 0), None, numbers)  # -1 means no label
        values = pa.array(kind.names, pa.string()).take(numbers)
    elif label_map is None and (has_notes or _is_of_arena(files[0])):
        label_map = LABEL_MAP
    labels, types = read_labels(as_text(values), source, label_map)
    columns = {name: as_text(table[name]) for name in names if name != label and _is_plain(table.schema.field(name))}
    if has_notes:
        del columns["notes"]
        columns |= _from_notes(table["notes"], labels)
    ids = columns.pop(_column(source, list(columns), id_column, _USUAL_IDS, "utterance ids", "--id_column"))
    return Clips(source, ids, labels=labels, trial_types=types, columns=columns)


def _parquet_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        tests = sorted(path.glob("data/test-*.parquet")) or sorted(path.glob("test-*.parquet"))
        labels = sorted(path.glob(f"data/{_ARENA_LABELS}")) + sorted(path.glob(_ARENA_LABELS))
        return tests or labels[:1]
    return sorted(path.parent.glob(path.name))


def _column(source: str, names: list[str], given: str | None, usual: tuple[str, ...], what: str, option: str) -> str:
    if given in names:
        return given
    wanted = usual if given is None else (given,)
    match = next((name for other in wanted for name in names if is_one_of(name, (other,))), None)
    if match is None:
        looked_for = given or " or ".join(wanted[:3])
        raise ScoreFileError(
            f"{source} has no column {looked_for} with {what} among {', '.join(names)}. Specify it with {option}."
        )
    return match


def _is_plain(field: pa.Field) -> bool:
    return not pa.types.is_nested(field.type) and not pa.types.is_null(field.type)


def _is_of_arena(file: Path) -> bool:
    return any((folder / "eval.yaml").is_file() for folder in (file.parent, file.parent.parent))


def _are_arena_notes(notes: pa.ChunkedArray) -> bool:
    is_text = pa.types.is_string(notes.type) or pa.types.is_large_string(notes.type)
    return is_text and all(read_notes(text, 0)["utterance_id"] for text in notes.to_pylist())


def _from_notes(notes: pa.ChunkedArray, labels: NDArray[np.int64]) -> dict[str, pa.Array]:
    rows = [read_notes(text, label) for text, label in zip(notes.to_pylist(), labels, strict=True)]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {name: pa.array(values, pa.string()) for name, values in columns.items() if any(values)}


def names_corpus(text: str) -> bool:
    """Return whether a text names a corpus and not a key file.

    A corpus is the demo corpus, a named corpus, a data set of the Arena, or a folder of audio with labels (in
    `metadata.csv` or `metadata.jsonl`, in folders by class, ...) that contains no known key file.
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
    """Read the labels of a corpus that training and scoring accept. No audio is opened.

    Args:
        name_or_path: A named corpus with its path (`in_the_wild:/data/itw`), `arena:NAME`, `demo`, a Hub id, ...
        split: The split.
        subset: The subset, for corpora that have subsets.
        label_map: The meaning of labels with other names.
        label_column: The column with labels, for a corpus without its own layout.
        id_column: The column with utterance ids, for a corpus without its own layout.

    Returns:
        The clips that have labels, with the other columns of the corpus.

    Raises:
        CorpusError: As for `load_corpus`.
        ScoreFileError: If no clip has a label.
    """
    try:
        corpus = load_corpus(
            name_or_path,
            splits=(split,),
            subset=subset,
            on_missing_audio="keep",  # labels need no audio
            label_map=label_map,
            require_labels=False,
            label_column=label_column or "label",
            id_column=id_column,
        )
    except CorpusError as error:
        message = str(error).replace("--label_column_name", "--label_column")
        raise CorpusError(message.replace("--id_column_name", "--key_id_column")) from error
    dataset = corpus[split]
    names = [name for name in dataset.column_names if name != _AUDIO]
    table = dataset.select_columns(names).with_format("arrow")[:]
    columns = {
        name: as_text(table[name])
        for name in names
        if name not in ("label", "utterance_id") and table[name].null_count < len(table) and _is_text(table[name].type)
    }
    has_label = pc.is_valid(table["label"])
    labels = pc.fill_null(table["label"], -1).to_numpy().astype(np.int64)
    if "system" in columns and not columns["system"].filter(pa.array(labels == 0)).drop_null():
        del columns["system"]  # only bona fide clips have a value, which means no system
    clips = Clips(str(name_or_path), as_text(table["utterance_id"]), labels=labels, columns=columns)
    kept = np.flatnonzero(has_label)
    if len(kept) == 0:
        raise ScoreFileError(
            f"None of the {len(clips)} clips of {name_or_path}, split {split}, has a label. Choose another split with "
            "--split, or use a key file."
        )
    if len(kept) < len(clips):
        note = f"{len(clips) - len(kept)} of {len(clips)} clips of {name_or_path} have no label, and are skipped."
        others = clips.utterance_ids.filter(pc.invert(has_label))
        clips = replace(clips.take(kept), notes=(note,), other_ids=others)
    return clips


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
