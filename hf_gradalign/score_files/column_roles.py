"""Finds the columns of ids, labels and scores by their names, or by their values if they have no names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from hf_gradalign.data import canonical_label
from hf_gradalign.metrics import TRIAL_TYPES
from hf_gradalign.score_files.clips import ScoreFileError
from hf_gradalign.score_files.columns import (
    CONFIDENCES,
    IDS,
    LABELS,
    NO_CM_SCORES,
    NO_SASV_SCORES,
    PREDICTIONS,
    SCORES,
    TRIAL_LABELS,
    TRIAL_SCORES,
    TRUE_LABELS,
    by_name,
    class_of,
    common_name,
    is_number,
    is_one_of,
    mentions_scores,
    name_unnamed,
    plain_name,
    says_otherwise,
    usual_index_of_ids,
)

if TYPE_CHECKING:
    from hf_gradalign.score_files.table_reading import TextTable

# A number within other text, such as "[0.62]", but not in a path or a word.
_FRACTION = re.compile(r"(?<![\w./-])[-+]?\d*[.,]\d+(?![\w./])")


@dataclass(frozen=True)
class Roles:
    """The names of a table's columns by their role.

    Attributes:
        utterance: Utterance ids; None if there is no such column.
        label: Labels of clips or trials; None if there are none.
        score: Scores; None if there are none. If there is one column per class, the column of bona fide.
        others: Other columns by this project's names: speaker, system, codec, ..., otherwise as in the file.
        spoof_score: Scores of the class spoof, if there is one column per class.
        verdict: Labels that are or may be the system's predictions; None if there are none or they are known to be the
            ground truth.
        is_prediction: Whether the name of the verdicts says that they are predictions.
        notes: Notes for the user on the choice.
    """

    utterance: str | None
    label: str | None
    score: str | None
    others: dict[str, str] = field(default_factory=dict)
    spoof_score: str | None = None
    verdict: str | None = None
    is_prediction: bool = False
    notes: tuple[str, ...] = ()


def find_roles(
    table: TextTable,
    *,
    wants_score: bool,
    id_column: str | None = None,
    score_column: str | None = None,
    label_column: str | None = None,
    label_map: Mapping[str, str] | None = None,
    of_trials: bool = False,
) -> Roles:
    """Find the role of each column.

    Args:
        table: The file.
        wants_score: Whether there must be a column of scores.
        id_column: The column of ids: its name, or its number counted from 1. By default, it is found automatically.
        score_column: The column of scores, in the same form as `id_column`.
        label_column: The column of labels, in the same form.
        label_map: The meaning of labels with other names.
        of_trials: Whether to prefer scores and labels of speaker verification to those of countermeasures.

    Raises:
        ScoreFileError: If a named column is missing, or it is unclear which column has the scores.
    """
    names = list(table.columns)
    label = _named(table, label_column, "--label_column") or _find_label(table, label_map, of_trials)
    verdict = _find_prediction(table) if wants_score and table.has_header else None
    is_prediction = verdict is not None
    score, spoof_score = _named(table, score_column, "--score_column"), None
    if score is None and wants_score:
        score, spoof_score = _find_score(table, label, verdict, id_column, label_map, of_trials)
    utterance = _named(table, id_column, "--id_column") or _find_ids(table, label, score)
    if table.has_header:
        others = {common_name(name): name for name in names if name not in {utterance, label, score}}
    else:
        others = name_unnamed(table, utterance, label, score)
    if verdict is None and wants_score and not of_trials:
        verdict = _possible_prediction(table, label, label_map, others)
        if verdict != label and verdict in (utterance, score):
            verdict = None
    notes: tuple[str, ...] = ()
    if score is not None and score_column is None and table.has_header and not _is_named_for_scores(score, label_map):
        notes = (
            f"The scores of {table.source} are in its column {score!r}, because no other column could contain them.",
        )
    elif score is not None and score_column is None and is_one_of(score, NO_SASV_SCORES if of_trials else NO_CM_SCORES):
        wanted = "speaker verification that rejects spoofs (sasv-score)" if of_trials else "countermeasures (cm-score)"
        notes = (f"{table.source} has no scores of {wanted}. Its column {score!r} is evaluated instead.",)
    return Roles(utterance, label, score, others, spoof_score, verdict, is_prediction, notes)


def _named(table: TextTable, given: str | None, option: str) -> str | None:
    if given is None:
        return None
    names = list(table.columns)
    by_plain_name = {plain_name(name): name for name in names}
    if plain_name(given) in by_plain_name:
        return by_plain_name[plain_name(given)]
    if given.isdigit() and 1 <= int(given) <= len(names):
        return names[int(given) - 1]
    raise ScoreFileError(f"{table.source} has no column {given!r} ({option}). Its columns are {', '.join(names)}.")


def _find_label(table: TextTable, label_map: Mapping[str, str] | None, of_trials: bool) -> str | None:
    if table.has_header:
        label = by_name([*table.columns], TRIAL_LABELS if of_trials else LABELS)
        if label is not None and not is_one_of(label, TRUE_LABELS):
            # If there is also a column "ground_truth", "label" has predictions.
            truths = [name for name in table.columns if is_one_of(name, TRUE_LABELS)]
            label = next((name for name in truths if _has_only_labels(table, name, label_map)), label)
        return label
    for name in reversed(table.columns):  # keys come after attacks, whose values may look like labels
        if _has_only_labels(table, name, label_map):
            return name
    return None


def _find_prediction(table: TextTable) -> str | None:
    """Return the column of labels whose name says that they are predictions."""
    names = [name for name in table.columns if is_one_of(name, PREDICTIONS) and not _has_fractions(table, name)]
    return names[0] if names else None


def _possible_prediction(
    table: TextTable, label: str | None, label_map: Mapping[str, str] | None, others: Mapping[str, str]
) -> str | None:
    """Return the column of labels that may be predictions. In a file with attacks, labels are not predictions."""
    if label is None:
        columns = list(table.columns) if table.has_header else []
        return next((name for name in columns if _has_only_labels(table, name, label_map)), None)
    if table.has_header and is_one_of(label, TRUE_LABELS):
        return next((name for name in table.columns if name != label and is_one_of(name, LABELS)), None)
    is_our_own = table.has_header and [*table.columns][:2] == ["utterance_id", "score"]  # as `writing` writes them
    return None if is_our_own or "system" in others else label


def _has_only_labels(table: TextTable, name: str, label_map: Mapping[str, str] | None) -> bool:
    def is_label(value: str) -> bool:
        return value in TRIAL_TYPES or canonical_label(value, label_map) is not None

    return all(map(is_label, table.sample(name))) and all(map(is_label, pc.unique(table.columns[name]).to_pylist()))


def _find_score(
    table: TextTable,
    label: str | None,
    verdict: str | None,
    id_column: str | None,
    label_map: Mapping[str, str] | None,
    of_trials: bool,
) -> tuple[str, str | None]:
    """Return the column of scores, or the columns of bona fide and spoof scores."""
    names = list(table.columns)
    if table.has_header:
        score = by_name([*names, *table.unread], TRIAL_SCORES if of_trials else SCORES)
        if score in names:
            return score, None
        lists = [name for name in table.unread if _is_named_for_scores(name, label_map)]
        if lists:
            raise ScoreFileError(
                f"{table.source}: {', '.join(lists)} may be the scores, but contains lists or objects, which are not "
                "read. Write one number per utterance, or choose another column with --score_column."
            )
    if len(names) == 1:
        raise ScoreFileError(f"{table.source} has only one column. Scores need the utterance ids in another column.")
    ids = _named(table, id_column, "--id_column") or _likely_ids(table)
    free = [name for name in names if name not in (ids, label, verdict)]
    if table.has_header:
        free = [name for name in free if not says_otherwise(name)]
    numeric = [name for name in free if all(map(is_number, table.sample(name)))]
    # A column of scores with a single odd value must not lose its role to another column.
    damaged = [name for name in free if name not in numeric and _looks_like_scores(table, name)]
    rivals = [name for name in damaged if not table.has_header or _is_named_for_scores(name, label_map)]
    if len(numeric) == 1 and (not damaged or (not rivals and _is_named_for_scores(numeric[0], label_map))):
        return numeric[0], None
    if table.has_header and not rivals:
        by_class = {class_of(name, label_map): name for name in numeric}
        if len(numeric) == 2 and by_class.keys() == {"bonafide", "spoof"}:
            return by_class["bonafide"], by_class["spoof"]
        confidences = [name for name in numeric if is_one_of(name, CONFIDENCES)]
        if len(confidences) == 1:
            return confidences[0], None
    candidates = ", ".join([*numeric, *damaged]) or "none of them"
    odd = "".join(f" {_odd_value(table, name)}" for name in damaged)
    decisions = (
        "" if numeric or label is verdict is None else " Predicted labels cannot be ranked: evaluation needs scores."
    )
    what_to_do = "Correct the file, or say" if damaged else "Say"
    raise ScoreFileError(
        f"{table.source} has the columns {', '.join(names)}, and {candidates} could be the scores.{odd} {what_to_do} "
        f"which column it is with --score_column (its name, or its number counted from 1).{decisions}"
    )


def _likely_ids(table: TextTable) -> str | None:
    """Return the likely column of ids: the one with such a name, otherwise the first."""
    first = next(iter(table.columns))
    named = by_name([*table.columns], IDS) if table.has_header else None
    return named or (None if _has_fractions(table, first) else first)


def _is_named_for_scores(name: str, label_map: Mapping[str, str] | None) -> bool:
    return mentions_scores(name) or class_of(name, label_map) is not None


def _looks_like_scores(table: TextTable, name: str) -> bool:
    """Return whether a column with non-numeric values seems to have scores, by its name or most of its values."""
    if table.has_header and mentions_scores(name):
        return True
    values = table.sample(name)
    return 2 * sum(is_number(value) or _FRACTION.search(value) is not None for value in values) >= len(values)


def _odd_value(table: TextTable, name: str) -> str:
    values = table.sample(name)
    index = next(index for index, value in enumerate(values) if not is_number(value))
    return f"Value number {index + 1} of {name} is {values[index]!r}, which is not a number."


def _find_ids(table: TextTable, label: str | None, score: str | None) -> str | None:
    if table.has_header and (ids := by_name([*table.columns], IDS)) is not None:
        return ids
    names = list(table.columns)
    free = [name for name in names if name not in (label, score) and not _has_fractions(table, name)]
    if table.has_header:
        free = [name for name in free if not says_otherwise(name)]
    if not table.has_header and free:
        usual = names[usual_index_of_ids(names, label, score)]
        free = [usual, *free] if usual in free else free
    unique = next((name for name in free if _n_distinct(table, name) == table.n_rows), None)
    if unique is not None or table.has_header or not free:
        return unique
    # The file names some utterances twice. `with_unique_ids` checks this later.
    return max(free, key=lambda name: _n_distinct(table, name))


def _has_fractions(table: TextTable, name: str) -> bool:
    """Return whether a column has numbers that are not whole. Whole numbers may be names."""
    sample = table.sample(name)
    return all(map(is_number, sample)) and any(not text.strip().lstrip("+-").isdigit() for text in sample)


def _n_distinct(table: TextTable, name: str) -> int:
    return pc.count_distinct(table.columns[name]).as_py()
