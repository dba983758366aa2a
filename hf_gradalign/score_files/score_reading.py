"""Read score files of any system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hf_gradalign.score_files.clips import (
    Clips,
    ScoreFileError,
    ScoreForm,
    Verdicts,
    as_text,
    read_labels,
    read_numbers,
    with_unique_ids,
)
from hf_gradalign.score_files.column_roles import Roles, find_roles
from hf_gradalign.score_files.columns import CONFIDENCES, class_of, is_one_of
from hf_gradalign.score_files.predictions import (
    ScoreIs,
    combine_classes,
    combine_pairs,
    from_confidence,
    is_confidence,
    refuse_confidence,
    refuse_decisions,
    resolve_named_predictions,
    resolve_with_keys,
)
from hf_gradalign.score_files.table_reading import TextTable, read_table


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

    These formats need no options: `utterance score` (ASVspoof 2021, the Arena, and this project), `utterance attack key
    score` (ASVspoof 2019), `speaker utterance score key`, `speaker utterance attack key score`, and files with a
    header, such as `filename cm-score` of ASVspoof 5. Columns are separated by blanks, tabs, commas, semicolons or
    bars. JSON, JSON Lines and Parquet work too. Scores of both classes (one column per class, or one line per class and
    utterance) are combined: into the probability of bona fide if they sum to 1, else into bona fide minus spoof.

    Predicted labels do not count as the truth. If scores are certain to be their confidence (the best class of
    transformers' classification pipeline), they are converted to the probability of bona fide.

    Args:
        path: The file.
        id_column: The column with utterance ids: its name, or its number counted from 1. Default: found automatically.
        score_column: The column with scores, in the same form as `id_column`.
        label_column: The column with the true labels, in the same form.
        label_map: The meaning of labels whose names do not tell it.
        higher_is: The class that a high score means. Scores for "spoof" are negated. The default is bona fide; it is an
            error if the file says otherwise.
        score_is: "confidence" if scores are the probability of the label in the file, "score" to rank them as they are.
            Default: detected from the file.
        of_trials: Whether to prefer scores of speaker verification (`sasv-score`) to those of countermeasures.
        has_keys: Whether labels come from another file. Labels in this file are then ignored if their meaning is
            unclear, with a note. `match_keys` checks whether they are predictions.

    Returns:
        The clips, with scores, and with labels if the file has them.

    Raises:
        ScoreFileError: If the file cannot be read, the role of its columns is unclear, a score is not a finite number,
            an utterance has two scores, or scores are decisions or belong to predicted labels.
    """
    table = read_table(path, (id_column, score_column, label_column))
    roles = find_roles(
        table,
        wants_score=True,
        id_column=id_column,
        score_column=score_column,
        label_column=label_column,
        label_map=label_map,
        of_trials=of_trials,
    )
    assert roles.score is not None, "find_roles raises if there is no score"
    scores = read_numbers(table.columns[roles.score], table.source, "score")
    form: ScoreForm = "as written"
    if roles.spoof_score is not None:
        spoof_scores = read_numbers(table.columns[roles.spoof_score], table.source, "score")
        scores, form = combine_classes(scores, spoof_scores, table.source)
    elif table.has_header and higher_is is None and class_of(roles.score) == "spoof":
        raise ScoreFileError(
            f"{table.source}: the name of the column {roles.score!r} refers to spoof. Use --higher_is spoof if a high "
            "score means spoof, or --higher_is bonafide if not."
        )
    clips = _with_own_labels(table, roles, label_map, label_column, has_keys)
    clips = replace(clips, scores=scores, score_form=form)
    verdicts = _verdicts(table, roles, scores, label_map, higher_is is not None)
    if verdicts is not None:
        clips = replace(clips, verdicts=verdicts)
        if (paired := combine_pairs(clips)) is not None:
            return with_unique_ids(paired)
    resolved = _resolve_scores(clips, scores, roles, higher_is, score_is, has_keys)
    if higher_is == "spoof" and resolved.scores is scores and roles.spoof_score is None:
        resolved = replace(resolved, scores=-scores, score_form="negated")
    if label_column is not None or (has_keys and score_is is not None):
        resolved = replace(resolved, verdicts=None)  # the user said what labels and scores are
    return with_unique_ids(resolved)


def _resolve_scores(
    clips: Clips,
    scores: NDArray[np.float64],
    roles: Roles,
    higher_is: str | None,
    score_is: ScoreIs | None,
    has_keys: bool,
) -> Clips:
    """Return bona fide scores, as far as the file and the options tell."""
    if score_is == "score":
        return clips
    if score_is == "confidence":
        if clips.verdicts is None:
            raise ScoreFileError(
                f"--score_is confidence needs predicted labels, but {clips.source} has none. Add them, or leave the "
                "option out."
            )
        converted = from_confidence(scores, clips.verdicts, clips.source)
        # Predictions are not the truth.
        labels = None if roles.verdict == roles.label else clips.labels
        return replace(clips, scores=converted, labels=labels, score_form="confidence")
    refuse_decisions(scores, clips.source)
    if clips.verdicts is None:
        if roles.score is not None and is_one_of(roles.score, CONFIDENCES) and is_confidence(scores):
            raise ScoreFileError(
                f"{clips.source} has a column {roles.score!r} but no labels, so it is unknown which class it is the "
                "confidence of. Write the score of bona fide, or use --score_is score if it is that."
            )
        return clips
    if roles.is_prediction:
        return replace(resolve_named_predictions(clips), verdicts=None)
    if higher_is == "spoof" and is_confidence(scores):
        raise ScoreFileError(
            f"No score of {clips.source} is below one half, so they may be the confidence of predicted labels. Use "
            "--score_is confidence if they are, or --score_is score if they are scores of spoof."
        )
    if has_keys:
        return clips
    if roles.label not in (None, roles.verdict) and clips.labels is not None:  # the file has its own keys
        bonafide_scores, notes = resolve_with_keys(clips, clips.labels, f"its column {roles.label!r}")
        form = clips.score_form if bonafide_scores is clips.scores else "confidence"
        return replace(clips, scores=bonafide_scores, verdicts=None, notes=(*clips.notes, *notes), score_form=form)
    refuse_confidence(clips)
    return clips


def _with_own_labels(
    table: TextTable, roles: Roles, label_map: Mapping[str, str] | None, label_column: str | None, has_keys: bool
) -> Clips:
    try:
        return clips_of(table, roles, label_map)
    except ScoreFileError:
        if not has_keys or label_column is not None:
            raise
        clips = clips_of(table, replace(roles, label=None), label_map)
        note = f"The meaning of the labels in {table.source} is unclear, so they are not used."
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
        codes = as_text(table.columns[roles.verdict]).dictionary_encode().indices.to_numpy(zero_copy_only=False)
        if codes.max() > 1 and not is_confidence(scores):
            return None  # more than two classes
        return Verdicts(np.where(codes > 1, -1, codes).astype(np.int64), False, is_direction_given)
    return None if types is not None else Verdicts(labels, True, is_direction_given)


def clips_of(table: TextTable, roles: Roles, label_map: Mapping[str, str] | None) -> Clips:
    """Return the clips of a table without their scores.

    Raises:
        ScoreFileError: If a label is missing, or its meaning is unknown.
    """
    columns = {name: as_text(table.columns[column]) for name, column in roles.others.items()}
    labels = types = None
    notes = (*table.notes, *roles.notes)
    if roles.label is not None:
        labels, types = read_labels(table.columns[roles.label], table.source, label_map)
    if roles.utterance is not None:
        ids = as_text(table.columns[roles.utterance])
        # Trials of speaker verification have the same utterance with several claimed speakers.
        if types is not None or table.has_header:
            ids = _with_speakers(ids, columns)
    else:
        ids = pa.array([str(number) for number in range(1, table.n_rows + 1)])
        notes = (*notes, f"{table.source} has no utterance ids. Its lines are numbered instead.")
    if labels is not None and "system" in columns:
        columns["system"] = pc.if_else(pa.array(labels == 1), "-", columns["system"])
    return Clips(table.source, ids, labels=labels, trial_types=types, columns=columns, notes=notes)


def _with_speakers(ids: pa.Array, columns: Mapping[str, pa.Array]) -> pa.Array:
    if "speaker" not in columns or pc.count_distinct(ids).as_py() == len(ids):
        return ids
    pairs = pc.binary_join_element_wise(columns["speaker"], ids, " ")
    return pairs if pc.count_distinct(pairs).as_py() == len(pairs) else ids
