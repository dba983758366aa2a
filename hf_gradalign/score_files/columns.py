"""Which column of a table means what: by its name, or by its values where columns have no names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow.compute as pc

from hf_gradalign.data import canonical_label
from hf_gradalign.data.corpora.asvspoof import PHYSICAL_ACCESS
from hf_gradalign.metrics import TRIAL_TYPES
from hf_gradalign.score_files.column_names import (
    CONFIDENCES,
    IDS,
    LABELS,
    PREDICTIONS,
    SCORES,
    TRIAL_LABELS,
    TRIAL_SCORES,
    TRUE_LABELS,
    class_of,
    common_name,
    is_one_of,
    plain_name,
)
from hf_gradalign.score_files.errors import ScoreFileError
from hf_gradalign.score_files.text_table import TextTable, is_number


@dataclass(frozen=True)
class Roles:
    """Names of a table's columns.

    Attributes:
        utterance: The utterance ids; None if no column can be that.
        label: The labels, of clips or of trials; None if there are none.
        score: The scores; None if there are none. Where there is a column per class, that of bona fide.
        others: Further columns, by what to call them: speaker, system, codec, ..., else as in the file.
        spoof_score: The scores of the class spoof, where there is a column per class.
        verdict: Labels that are, or may be, the system's predictions; None if there are none, or it is known that they
            are the truth.
        is_prediction: Whether the verdicts' name says that they are predictions.
    """

    utterance: str | None
    label: str | None
    score: str | None
    others: dict[str, str] = field(default_factory=dict)
    spoof_score: str | None = None
    verdict: str | None = None
    is_prediction: bool = False


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
    """Find out which column is what.

    Args:
        table: The file.
        wants_score: Whether there must be a column of scores.
        id_column: The ids' column: its name, or its number, counted from 1. Found if not given, as the next two.
        score_column: The scores' column.
        label_column: The labels' column.
        label_map: What labels mean whose names do not say.
        of_trials: Whether scores and labels of speaker verification are looked for before those of countermeasures.

    Raises:
        ScoreFileError: If a named column is not there, or it is not clear which one holds the scores.
    """
    names = list(table.columns)
    label = _named(table, label_column, "--label_column") or _find_label(table, label_map, of_trials)
    verdict = _find_prediction(table, label_map) if wants_score and table.has_header else None
    is_prediction = verdict is not None
    score, spoof_score = _named(table, score_column, "--score_column"), None
    if score is None and wants_score:
        score, spoof_score = _find_score(table, label, verdict, id_column, label_map, of_trials)
    utterance = _named(table, id_column, "--id_column") or _find_ids(table, label, score)
    taken = {utterance, label, score}
    others = {} if not table.has_header else {common_name(name): name for name in names if name not in taken}
    if not table.has_header:
        others = name_unnamed(table, utterance, label, score)
    if verdict is None and wants_score and not of_trials:
        verdict = _possible_prediction(table, label, label_map, others)
        if verdict != label and verdict in (utterance, score):
            verdict = None
    return Roles(utterance, label, score, others, spoof_score, verdict, is_prediction)


def _named(table: TextTable, given: str | None, option: str) -> str | None:
    if given is None:
        return None
    names = list(table.columns)
    by_plain_name = {plain_name(name): name for name in names}
    if plain_name(given) in by_plain_name:
        return by_plain_name[plain_name(given)]
    if given.isdigit() and 1 <= int(given) <= len(names):
        return names[int(given) - 1]
    raise ScoreFileError(f"{table.source} has no column {given!r} ({option}); its columns are {', '.join(names)}.")


def _find_label(table: TextTable, label_map: Mapping[str, str] | None, of_trials: bool) -> str | None:
    if table.has_header:
        found = _by_name(table, TRIAL_LABELS if of_trials else LABELS)
        if found is not None and not is_one_of(found, TRUE_LABELS):
            # Where there is a "ground_truth" too, a "label" is a prediction.
            truths = [name for name in table.columns if is_one_of(name, TRUE_LABELS)]
            found = next((name for name in truths if _all_labels(table, name, label_map)), found)
        return found
    for name in reversed(table.columns):  # keys stand behind attacks, whose values may be such words too
        if _all_labels(table, name, label_map):
            return name
    return None


def _find_prediction(table: TextTable, label_map: Mapping[str, str] | None) -> str | None:
    """Labels whose name says that they are predictions."""
    named = [name for name in table.columns if is_one_of(name, PREDICTIONS) and not _has_fractions(table, name)]
    return named[0] if named else None


def _possible_prediction(
    table: TextTable, label: str | None, label_map: Mapping[str, str] | None, others: Mapping[str, str]
) -> str | None:
    """Labels of a score file that may be predictions, which they are not in a file that knows the attacks."""
    if label is None:
        columns = list(table.columns) if table.has_header else []
        return next((name for name in columns if _all_labels(table, name, label_map)), None)
    if table.has_header and is_one_of(label, TRUE_LABELS):
        return next((name for name in table.columns if name != label and is_one_of(name, LABELS)), None)
    is_own = table.has_header and [*table.columns][:2] == ["utterance_id", "score"]  # as this project writes them
    return None if is_own or "system" in others else label


def _all_labels(table: TextTable, name: str, label_map: Mapping[str, str] | None) -> bool:
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
    """The column of scores; where there is one per class, that of bona fide and that of spoof."""
    if table.has_header:
        found = _by_name(table, TRIAL_SCORES if of_trials else SCORES)
        if found is not None:
            return found, None
    names = list(table.columns)
    ids = _named(table, id_column, "--id_column") or names[0]
    numeric = [name for name in names if name not in (ids, label, verdict) and all(map(is_number, table.sample(name)))]
    if len(numeric) == 1:
        return numeric[0], None
    if table.has_header and len(numeric) == 2:
        by_class = {class_of(name, label_map): name for name in numeric}
        if by_class.keys() == {"bonafide", "spoof"}:
            return by_class["bonafide"], by_class["spoof"]
    confidences = [name for name in numeric if is_one_of(name, CONFIDENCES)]
    if table.has_header and len(confidences) == 1:
        return confidences[0], None
    if len(names) == 1:
        raise ScoreFileError(f"{table.source} has one column: scores need the utterances' names in another one.")
    shown = ", ".join(numeric) if numeric else "none of them"
    decisions = (
        "" if numeric or label is verdict is None else " Predicted labels cannot be ranked: evaluation takes scores."
    )
    raise ScoreFileError(
        f"{table.source} has the columns {', '.join(names)}, and {shown} hold numbers that might be the scores; say "
        f"which one with --score_column (its name, or its number counted from 1).{decisions}"
    )


def _find_ids(table: TextTable, label: str | None, score: str | None) -> str | None:
    if table.has_header and (found := _by_name(table, IDS)) is not None:
        return found
    names = list(table.columns)
    free = [name for name in names if name not in (label, score) and not _has_fractions(table, name)]
    if not table.has_header and free:
        usual = names[usual_place_of_ids(names, label, score)]
        free = [usual, *free] if usual in free else free
    unique = next((name for name in free if _n_distinct(table, name) == table.n_rows), None)
    if unique is not None or table.has_header or not free:
        return unique
    # Then the file names some utterances twice, which is told when ids are checked.
    return max(free, key=lambda name: _n_distinct(table, name))


def _has_fractions(table: TextTable, name: str) -> bool:
    """Whether a column is of numbers that are no names, which whole numbers may be."""
    sample = table.sample(name)
    return all(map(is_number, sample)) and any(not text.strip().lstrip("+-").isdigit() for text in sample)


def _n_distinct(table: TextTable, name: str) -> int:
    return pc.count_distinct(table.columns[name]).as_py()


def _by_name(table: TextTable, wanted: Sequence[str]) -> str | None:
    return next((column for name in wanted for column in table.columns if is_one_of(column, (name,))), None)


SUBSETS = frozenset({"eval", "progress", "hidden", "hidden_track", "hidden_track_1", "hidden_track_2"})
_TRIMS = frozenset({"trim", "notrim"})
_GENDERS = frozenset({"M", "F", "m", "f", "male", "female"})
# The words of the keys of ASVspoof 2021's deepfake track after the first eight, as its package calls them.
_DEEPFAKE_TRACK = dict(zip(range(8, 13), ("vocoder", "task", "team", "gender_pair", "language"), strict=True))
# ASVspoof 2019's environments are three letters for room size, reverberation and distance to the microphone; 2021's
# physical access says room, microphone and distance in words of a letter and a number.
_ENVIRONMENT = re.compile(r"[abc]{3}")
_PHYSICAL_WORD = re.compile(r"[A-Za-z]\d+|-")
_PHYSICAL_LABEL, _PHYSICAL_SUBSET = 9, 11


def usual_place_of_ids(names: list[str], label: str | None, score: str | None) -> int:
    """Where ASVspoof's files have the utterance."""
    label_place = names.index(label) if label is not None else len(names)
    score_place = names.index(score) if score is not None else len(names)
    if score is None:  # speaker utterance ... key, or utterance key
        return 1 if label_place >= 3 else max(label_place - 1, 0)
    if label_place > score_place:  # [speaker] utterance score [key]
        return max(score_place - 1, 0)
    return max(label_place - 2, 0)  # [speaker] utterance attack key score


def name_unnamed(table: TextTable, utterance: str | None, label: str | None, score: str | None) -> dict[str, str]:
    """What further columns are: of protocols, keys and score files of ASVspoof 2019 to 5, by their places.

    Args:
        table: A file without a header.
        utterance: Its column of utterance ids.
        label: Its column of labels.
        score: Its column of scores.

    Returns:
        Columns by the names that the project has for them (speaker, system, codec, condition, subset, gender,
        asv_room, replay_device, ...); those that nothing is known of by their numbers.
    """
    names = list(table.columns)
    places = {name: place for place, name in enumerate(names)}
    others: dict[str, str] = {}

    def call(name: str, place: int) -> None:
        if 0 <= place < len(names) and names[place] not in (utterance, label, score, *others.values()):
            others[name] = names[place]

    if utterance is not None and places[utterance] == 1:
        call("speaker", 0)
    subset = next((name for name in names if set(table.sample(name)) <= SUBSETS), None)
    subset_place = None if subset is None else places[subset]
    label_place = None if label is None else places[label]
    if _is_physical(table, label_place, subset_place):
        for name, place in PHYSICAL_ACCESS.items():
            call(name, place)
    elif label_place is not None and not (subset is not None and _has_physical_names(table, utterance)):
        call("system", label_place - 1)
    if subset is not None:
        call("subset", subset_place)
    if subset_place == 7:  # ASVspoof 2021, LA and DF
        call("codec", 2)
        call("condition", 3)
        for place, name in _DEEPFAKE_TRACK.items():
            call(name, place)
    elif subset is None and len(names) >= 9:  # ASVspoof 5
        call("codec", 3)
    for name, is_it in (
        ("gender", lambda value: value in _GENDERS),
        ("trim", lambda value: value in _TRIMS),
        ("environment", _ENVIRONMENT.fullmatch),
    ):
        found = next((column for column in names if all(map(is_it, table.sample(column)))), None)
        if found is not None:
            call(name, places[found])
    for place in range(len(names)):
        call(names[place], place)
    return others


def _is_physical(table: TextTable, label_place: int | None, subset_place: int | None) -> bool:
    """Whether a table has the columns of the keys of ASVspoof 2021's physical access."""
    if label_place != _PHYSICAL_LABEL:
        return False
    columns = [list(table.columns)[place] for place in PHYSICAL_ACCESS.values()]
    return subset_place == _PHYSICAL_SUBSET or all(
        _PHYSICAL_WORD.fullmatch(value) for column in columns for value in table.sample(column)
    )


def _has_physical_names(table: TextTable, utterance: str | None) -> bool:
    """Whether utterances are of physical access; keys of the first release do not say what their columns are."""
    return utterance is not None and all(name.startswith("PA_") for name in table.sample(utterance))
