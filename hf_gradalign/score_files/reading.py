"""Read score files and key files of whatever system and corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hf_gradalign.score_files.both_classes import of_both_classes, of_pairs
from hf_gradalign.score_files.clips import Clips, Verdicts, flat, read_labels, read_numbers, with_unique_ids
from hf_gradalign.score_files.column_names import CONFIDENCES, class_of, is_one_of
from hf_gradalign.score_files.columns import Roles, find_roles
from hf_gradalign.score_files.errors import ScoreFileError
from hf_gradalign.score_files.json_table import TextTable, read_table
from hf_gradalign.score_files.parquet_keys import is_parquet, read_parquet_keys
from hf_gradalign.score_files.predictions import (
    ScoreIs,
    from_confidence,
    is_confidence,
    refuse_confidence,
    refuse_decisions,
    settle_named,
    settle_with_keys,
)

DEFAULT_SUBSET = "eval"
_KEY_FILES = ("trial_metadata.txt", "CM/trial_metadata.txt", "meta.csv")
_SUBSET_SPELLINGS = dict.fromkeys(("hidden_track", "hidden_track_1", "hidden_track_2"), "hidden")


def read_scores(
    path: str | Path,
    *,
    id_column: str | None = None,
    score_column: str | None = None,
    label_column: str | None = None,
    label_map: Mapping[str, str] | None = None,
    higher_is: Literal["bonafide", "spoof"] | None = None,
    score_is: ScoreIs | None = None,
    of_trials: bool = False,
    has_keys: bool = False,
) -> Clips:
    """Read a score file.

    Read without being told more: `utterance score` (2021 and the Arena, and what this project writes), `utterance
    attack key score` (ASVspoof 2019), `speaker utterance score key`, `speaker utterance attack key score`, and files
    with a header, such as ASVspoof 5's `filename cm-score`; apart by blanks, tabs, commas, semicolons or bars; JSON,
    JSON Lines and parquet. Both classes' scores (a column per class, or a line per class and utterance) become one:
    the probability of bona fide where they add up to 1, else bona fide minus spoof.

    Labels that are predictions are not taken for the truth. Their confidence (the best class of transformers'
    classification pipeline) is turned into the probability of bona fide where it is sure to be that.

    Args:
        path: The file.
        id_column: The column with utterance ids: its name, or its number counted from 1. Found by itself, as the next
            two, unless it is not clear.
        score_column: The column with scores.
        label_column: The column with the true labels, if there is one.
        label_map: What labels mean whose names do not say.
        higher_is: Which class a high score speaks for; scores for "spoof" are turned. By default bona fide, unless the
            file says otherwise, which is an error.
        score_is: "confidence" if scores are the probability of the label in the file, "score" if they are to be ranked
            as they are. By default it is looked for in the file.
        of_trials: Whether to take the scores of speaker verification (`sasv-score`) before those of countermeasures.
        has_keys: Whether labels come from another file. The file's own are then left aside if it is not clear what
            they mean, and a note says so; whether they are predictions is seen by `match_keys`.

    Returns:
        The clips, with scores, and labels if the file has them.

    Raises:
        ScoreFileError: If the file cannot be read, its columns are not clear, a score is no finite number, an
            utterance has two scores, or scores are decisions or belong to predicted labels.
    """
    table = read_table(path)
    roles = find_roles(
        table,
        wants_score=True,
        id_column=id_column,
        score_column=score_column,
        label_column=label_column,
        label_map=label_map,
        of_trials=of_trials,
    )
    scores = read_numbers(table.columns[roles.score], table.source, "score")
    if roles.spoof_score is not None:
        scores = of_both_classes(scores, read_numbers(table.columns[roles.spoof_score], table.source, "score"))
    elif table.has_header and higher_is is None and class_of(roles.score) == "spoof":
        raise ScoreFileError(
            f"{table.source}: the column {roles.score!r} is named for spoof. Say --higher_is spoof if a high score "
            "means spoof, or --higher_is bonafide."
        )
    clips = replace(_with_own_labels(table, roles, label_map, label_column, has_keys), scores=scores)
    verdicts = _verdicts(table, roles, scores, label_map, higher_is is not None)
    if verdicts is not None:
        clips = replace(clips, verdicts=verdicts)
        if (paired := of_pairs(clips)) is not None:
            return with_unique_ids(paired, "the score")
    settled = _settled(clips, roles, higher_is, score_is, has_keys)
    if higher_is == "spoof" and settled.scores is clips.scores and roles.spoof_score is None:
        settled = replace(settled, scores=-scores)
    if label_column is not None or (has_keys and score_is is not None):
        settled = replace(settled, verdicts=None)  # it has been said what labels and scores are
    return with_unique_ids(settled, "the score")


def _settled(clips: Clips, roles: Roles, higher_is: str | None, score_is: ScoreIs | None, has_keys: bool) -> Clips:
    """Scores of bona fide, where the file and what is said of it tell."""
    if score_is == "score":
        return clips
    if score_is == "confidence":
        if clips.verdicts is None:
            raise ScoreFileError(f"{clips.source} has no labels that its scores could be the confidence of.")
        scores = from_confidence(clips.scores, clips.verdicts, clips.source)
        # Predictions are no truth.
        return replace(clips, scores=scores, labels=None if roles.verdict == roles.label else clips.labels)
    refuse_decisions(clips.scores, clips.source)
    if clips.verdicts is None:
        if is_one_of(roles.score, CONFIDENCES) and is_confidence(clips.scores):
            raise ScoreFileError(
                f"{clips.source} has a column {roles.score!r} and no labels, so of which class it is the confidence is "
                "not known. Write the score of bona fide, or say --score_is score if it is that."
            )
        return clips
    if roles.is_prediction:
        return replace(settle_named(clips), verdicts=None)
    if higher_is == "spoof" and is_confidence(clips.scores):
        raise ScoreFileError(
            f"No score of {clips.source} is below one half, as where scores are the confidence of predicted labels. "
            "Say --score_is confidence if they are, or --score_is score if they are of spoof."
        )
    if has_keys:
        return clips
    if roles.label not in (None, roles.verdict) and clips.labels is not None:  # the file has its own keys
        scores, told = settle_with_keys(clips, clips.labels, f"its column {roles.label!r}")
        return replace(clips, scores=scores, verdicts=None, notes=(*clips.notes, *told))
    refuse_confidence(clips)
    return clips


def _with_own_labels(
    table: TextTable, roles: Roles, label_map: Mapping[str, str] | None, label_column: str | None, has_keys: bool
) -> Clips:
    try:
        return _clips_of(table, roles, label_map)
    except ScoreFileError:
        if not has_keys or label_column is not None:
            raise
        clips = _clips_of(table, replace(roles, label=None), label_map)
        note = f"What the labels in {table.source} mean is not clear: only those of the keys were taken."
        return replace(clips, notes=(*clips.notes, note))


def _verdicts(
    table: TextTable,
    roles: Roles,
    scores: NDArray[np.float64],
    label_map: Mapping[str, str] | None,
    is_direction_given: bool,
) -> Verdicts | None:
    if roles.verdict is None:
        return None
    try:
        labels, types = read_labels(table.columns[roles.verdict], table.source, label_map)
    except ScoreFileError:
        codes = flat(table.columns[roles.verdict]).dictionary_encode().indices.to_numpy(zero_copy_only=False)
        if codes.max() > 1 and not is_confidence(scores):
            return None  # not of two classes
        return Verdicts(np.where(codes > 1, -1, codes).astype(np.int64), False, is_direction_given)
    return None if types is not None else Verdicts(labels, True, is_direction_given)


def read_keys(
    path: str | Path,
    *,
    subset: str | None = None,
    id_column: str | None = None,
    label_column: str | None = None,
    label_map: Mapping[str, str] | None = None,
    of_trials: bool = False,
) -> Clips:
    """Read a file with the labels: a protocol or keys of ASVspoof, a `meta.csv`, any table, a data set of the Arena.

    Args:
        path: The file, or a folder with `trial_metadata.txt`, `CM/trial_metadata.txt`, `meta.csv` or `data/*.parquet`
            in it. Audio in parquet files is not read.
        subset: Of keys with subsets (ASVspoof 2021): `eval`, which is the default, `progress`, `hidden` or `all`.
        id_column: See `read_scores`.
        label_column: See `read_scores`.
        label_map: See `read_scores`.
        of_trials: Whether to take the labels of speaker verification (`asv-label`) before those of countermeasures.

    Returns:
        The clips, with labels.

    Raises:
        ScoreFileError: If the file cannot be read, has no labels, has no such subset, or an utterance has two labels.
    """
    path = Path(path)
    if is_parquet(path):
        clips = read_parquet_keys(path, id_column=id_column, label_column=label_column, label_map=label_map)
    else:
        table = read_table(_require_key_file(path) if path.is_dir() else path)
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
                f"{table.source} has no column with labels among {', '.join(table.columns)}; say which one it is with "
                "--label_column, and what the labels mean with --label_map."
            )
        if roles.utterance is None:
            raise ScoreFileError(
                f"{table.source} has no column with utterance ids among {', '.join(table.columns)}; say which one it "
                "is with --id_column."
            )
        clips = _clips_of(table, roles, label_map)
    return with_unique_ids(_of_subset(clips, subset), "the label")


def _clips_of(table: TextTable, roles: Roles, label_map: Mapping[str, str] | None) -> Clips:
    columns = {name: flat(table.columns[column]) for name, column in roles.others.items()}
    labels = types = None
    notes: tuple[str, ...] = ()
    if roles.label is not None:
        labels, types = read_labels(table.columns[roles.label], table.source, label_map)
    if roles.utterance is not None:
        ids = flat(table.columns[roles.utterance])
        # Trials of speaker verification: the same utterance with several claimed speakers.
        if types is not None or table.has_header:
            ids = _with_speakers(ids, columns)
    else:
        ids = pa.array([str(number) for number in range(1, table.n_rows + 1)])
        notes = (f"{table.source} has no utterance ids: its lines are numbered.",)
    if labels is not None and "system" in columns:
        columns["system"] = pc.if_else(pa.array(labels == 1), "-", columns["system"])
    return Clips(table.source, ids, labels=labels, trial_types=types, columns=columns, notes=notes)


def _with_speakers(ids: pa.Array, columns: Mapping[str, pa.Array]) -> pa.Array:
    if "speaker" not in columns or pc.count_distinct(ids).as_py() == len(ids):
        return ids
    pairs = pc.binary_join_element_wise(columns["speaker"], ids, " ")
    return pairs if pc.count_distinct(pairs).as_py() == len(pairs) else ids


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
        there = f"only {', '.join(sorted(names))}" if names else "nor any other"
        raise ScoreFileError(f"{clips.source} has no subset {subset!r}, {there}. Leave --subset out, or name another.")
    spelled = [name for name, common in {**_SUBSET_SPELLINGS, wanted: wanted}.items() if common == wanted]
    chosen = pc.is_in(column, pa.array(spelled)).to_numpy(zero_copy_only=False)
    kept = clips.at(np.flatnonzero(chosen))
    note = f"Subset {wanted} of {clips.source}: {len(kept)} of {len(clips)} clips."
    others = clips.utterance_ids.filter(pa.array(~chosen))
    return replace(kept, notes=(*clips.notes, note) if len(kept) < len(clips) else clips.notes, other_ids=others)


def key_file(folder: Path) -> Path | None:
    """The key file of a folder that is known by its name; None where there is none."""
    return next((folder / name for name in _KEY_FILES if (folder / name).is_file()), None)


def _require_key_file(folder: Path) -> Path:
    if (path := key_file(folder)) is None:
        raise ScoreFileError(
            f"{folder} is a folder without {', '.join(_KEY_FILES)} or data/*.parquet in it: name the file with the "
            "labels."
        )
    return path
