"""What the columns of score and key files mean: by their names, or by their values if they have no names."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from hf_gradalign.data import canonical_label
from hf_gradalign.data.corpora.asvspoof import PHYSICAL_ACCESS
from hf_gradalign.metrics import TRIAL_TYPES
from hf_gradalign.score_files.clips import ScoreFileError

if TYPE_CHECKING:
    from hf_gradalign.score_files.table_reading import TextTable  # it imports this module

# Names as `plain_name` writes them.
# fmt: off
IDS = (
    "utterance_id", "utt_id", "utterance", "utt", "filename", "file_name", "file", "trial_anon", "trial", "audio_id",
    "audio", "wav", "path", "id", "name", "file_path", "file_id", "audio_path", "audio_file", "audio_file_name",
    "wav_path", "wav_file", "utterance_name", "utt_name", "clip_id", "clip", "sample_id", "recording_id", "segment_id",
)
TRUE_LABELS = (
    "cm_label", "ground_truth", "true_label", "true_class", "y_true", "truth", "gt", "key", "cm_key", "asv_label",
    "sasv_label", "trial_type",
)
LABELS = (
    "cm_label", "label", "labels", "key", "cm_key", "class", "ground_truth", "target", "asv_label", "sasv_label",
    "trial_type", *TRUE_LABELS,
)
PREDICTIONS = (
    "prediction", "predictions", "predicted", "predicted_label", "predicted_class", "pred", "preds", "pred_label",
    "pred_class", "predicted_key", "label_pred", "y_pred", "decision", "verdict", "hypothesis", "output_label",
)
CONFIDENCES = ("confidence", "conf", "certainty", "max_probability", "max_prob", "max_score", "top_score")
TRIAL_LABELS = ("asv_label", "sasv_label", "trial_type", "label", "key")
SCORES = ("cm_score", "score", "scores", "cm_scores", "llr", "logit", "asv_score", "sasv_score")
TRIAL_SCORES = ("sasv_score", "asv_score", "score", "scores", "cm_score")
OTHERS = {
    "speaker": ("speaker", "speaker_id", "spk", "tar_spk_anon"),
    "system": ("system", "attack", "attack_id", "attack_anon", "attack_label", "system_id"),
    "subset": ("subset", "phase"),
    "codec": ("codec",),
    "language": ("language",),
    # As in the evaluation package of ASVspoof 2021 for physical access.
    "distance_to_asv": ("distance_to_asv", "dis_to_asv"),
    "attacker_room": ("attacker_room", "att_room"),
    "attacker_mic": ("attacker_mic", "att_mic"),
    "replay_device": ("replay_device", "att_d"),
    "distance_to_talker": ("distance_to_talker", "att_to_spk"),
}
# fmt: on

# Names that may also be values do not identify a header.
_AMBIGUOUS = frozenset({"target", "audio", "name", "trial", "id", "clip", "gt", "truth", "pred", "predicted", "conf"})
HEADER_WORDS = frozenset(
    {*IDS, *LABELS, *PREDICTIONS, *SCORES, *CONFIDENCES, *(name for names in OTHERS.values() for name in names)}
    - _AMBIGUOUS
)
"""No utterance, speaker, attack or codec has such a name, so a first line with one of them is a header."""

_NUMBER = re.compile(r"([-+]?(\d+\.?\d*|\.\d+|\d+,\d+)([eE][-+]?\d+)?|nan|[-+]?inf) ?%?", re.IGNORECASE)

SUBSETS = frozenset({"eval", "progress", "hidden", "hidden_track", "hidden_track_1", "hidden_track_2"})
_TRIMS = frozenset({"trim", "notrim"})
_GENDERS = frozenset({"M", "F", "m", "f", "male", "female"})
# The words after the first eight in the keys of ASVspoof 2021's deepfake track, as its package names them.
_DEEPFAKE_TRACK = dict(zip(range(8, 13), ("vocoder", "task", "team", "gender_pair", "language"), strict=True))
# ASVspoof 2019's environments are three letters for room size, reverberation and distance to the microphone. 2021's
# physical access has a word for each of room, microphone and distance, of a letter and a number.
_ENVIRONMENT = re.compile(r"[abc]{3}")
_PHYSICAL_WORD = re.compile(r"[A-Za-z]\d+|-")
_PHYSICAL_LABEL, _PHYSICAL_SUBSET = 9, 11


def plain_name(name: str) -> str:
    """Return the name of a column in lower case, with underscores for hyphens and spaces."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def is_one_of(name: str, wanted: tuple[str, ...] | frozenset[str]) -> bool:
    """Whether a column has one of these names; `UtteranceID` counts as `utterance_id`."""
    return _bare_name(name) in _bare_names(wanted)


def _bare_name(name: str) -> str:
    return plain_name(name).replace("_", "")


@functools.lru_cache(maxsize=128)  # a line of a file may have tens of thousands of columns
def _bare_names(names: tuple[str, ...] | frozenset[str]) -> frozenset[str]:
    return frozenset(map(_bare_name, names))


_COMMON_NAMES = {_bare_name(spelling): name for name, spellings in OTHERS.items() for spelling in spellings}


def class_of(name: str, label_map: Mapping[str, str] | None = None) -> str | None:
    """Return `spoof` or `bonafide` if the name of a column refers to one class, as `p_spoof` and `fake score` do."""
    parts = {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    if parts & {"anti", "non", "not", "no"} and canonical_label(name, label_map) is None:
        return None
    words = re.split(r"[\W_]+", name.lower())
    pairs = [first + second for first, second in itertools.pairwise(words)]  # "bona_fide" is two words
    meanings = {canonical_label(part, label_map) for part in (name, *parts, *pairs)} - {None}
    return meanings.pop() if len(meanings) == 1 else None


def common_name(name: str) -> str:
    """Return this project's name for a column."""
    return _COMMON_NAMES.get(_bare_name(name)) or plain_name(name)


def is_number(text: str | None) -> bool:
    """Whether a value is a number, with a decimal point or comma; NaN and infinity count."""
    return text is not None and _NUMBER.fullmatch(text.strip()) is not None


@dataclass(frozen=True)
class Roles:
    """The names of a table's columns by their role.

    Attributes:
        utterance: Utterance ids; None if there is no such column.
        label: Labels of clips or trials; None if there are none.
        score: Scores; None if there are none. If there is one column per class, that of bona fide.
        others: Other columns by this project's name for them: speaker, system, codec, ..., else as in the file.
        spoof_score: Scores of the class spoof, if there is one column per class.
        verdict: Labels that are, or may be, the system's predictions; None if there are none, or if they are known to
            be the truth.
        is_prediction: Whether the name of the verdicts says that they are predictions.
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
    """Find the role of each column.

    Args:
        table: The file.
        wants_score: Whether there must be a column of scores.
        id_column: The column of ids: its name, or its number counted from 1. Default: found automatically.
        score_column: The column of scores, likewise.
        label_column: The column of labels, likewise.
        label_map: The meaning of labels whose names do not tell it.
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
    raise ScoreFileError(f"{table.source} has no column {given!r} ({option}). Its columns are {', '.join(names)}.")


def _find_label(table: TextTable, label_map: Mapping[str, str] | None, of_trials: bool) -> str | None:
    if table.has_header:
        label = _by_name(table, TRIAL_LABELS if of_trials else LABELS)
        if label is not None and not is_one_of(label, TRUE_LABELS):
            # If there is also a "ground_truth", a "label" is a prediction.
            truths = [name for name in table.columns if is_one_of(name, TRUE_LABELS)]
            label = next((name for name in truths if _has_only_labels(table, name, label_map)), label)
        return label
    for name in reversed(table.columns):  # keys come after attacks, whose values may look like labels
        if _has_only_labels(table, name, label_map):
            return name
    return None


def _find_prediction(table: TextTable) -> str | None:
    """Find labels whose name says that they are predictions."""
    names = [name for name in table.columns if is_one_of(name, PREDICTIONS) and not _has_fractions(table, name)]
    return names[0] if names else None


def _possible_prediction(
    table: TextTable, label: str | None, label_map: Mapping[str, str] | None, others: Mapping[str, str]
) -> str | None:
    """Find labels of a score file that may be predictions. In a file that knows the attacks, they are not."""
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
    """Find the column of scores, or the columns of bona fide and spoof scores."""
    if table.has_header:
        score = _by_name(table, TRIAL_SCORES if of_trials else SCORES)
        if score is not None:
            return score, None
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
        raise ScoreFileError(f"{table.source} has only one column. Scores need the utterance ids in another column.")
    candidates = ", ".join(numeric) if numeric else "none of them"
    decisions = (
        "" if numeric or label is verdict is None else " Predicted labels cannot be ranked: evaluation needs scores."
    )
    raise ScoreFileError(
        f"{table.source} has the columns {', '.join(names)}, and {candidates} could be the scores. Say which column "
        f"it is with --score_column (its name, or its number counted from 1).{decisions}"
    )


def _find_ids(table: TextTable, label: str | None, score: str | None) -> str | None:
    if table.has_header and (ids := _by_name(table, IDS)) is not None:
        return ids
    names = list(table.columns)
    free = [name for name in names if name not in (label, score) and not _has_fractions(table, name)]
    if not table.has_header and free:
        usual = names[usual_index_of_ids(names, label, score)]
        free = [usual, *free] if usual in free else free
    unique = next((name for name in free if _n_distinct(table, name) == table.n_rows), None)
    if unique is not None or table.has_header or not free:
        return unique
    # The file names some utterances twice. `with_unique_ids` checks this later.
    return max(free, key=lambda name: _n_distinct(table, name))


def _has_fractions(table: TextTable, name: str) -> bool:
    """Whether a column has numbers that are not whole. Whole numbers may be names."""
    sample = table.sample(name)
    return all(map(is_number, sample)) and any(not text.strip().lstrip("+-").isdigit() for text in sample)


def _n_distinct(table: TextTable, name: str) -> int:
    return pc.count_distinct(table.columns[name]).as_py()


def _by_name(table: TextTable, wanted: Sequence[str]) -> str | None:
    by_bare_name = {_bare_name(column): column for column in reversed(table.columns)}  # the first of each name
    return next((by_bare_name[name] for name in map(_bare_name, wanted) if name in by_bare_name), None)


def usual_index_of_ids(names: list[str], label: str | None, score: str | None) -> int:
    """Return the index of the column that has the utterance ids in ASVspoof's files."""
    label_index = names.index(label) if label is not None else len(names)
    score_index = names.index(score) if score is not None else len(names)
    if score is None:  # speaker utterance ... key, or utterance key
        return 1 if label_index >= 3 else max(label_index - 1, 0)
    if label_index > score_index:  # [speaker] utterance score [key]
        return max(score_index - 1, 0)
    return max(label_index - 2, 0)  # [speaker] utterance attack key score


def name_unnamed(table: TextTable, utterance: str | None, label: str | None, score: str | None) -> dict[str, str]:
    """Name the other columns of protocols, keys and score files of ASVspoof 2019 to 5 by their positions.

    Args:
        table: A file without a header.
        utterance: Its column of utterance ids.
        label: Its column of labels.
        score: Its column of scores.

    Returns:
        Columns by this project's names (speaker, system, codec, condition, subset, gender, asv_room, replay_device,
        ...). Unknown columns keep their numbers.
    """
    names = list(table.columns)
    index_of = {name: index for index, name in enumerate(names)}
    others: dict[str, str] = {}

    def assign(name: str, index: int) -> None:
        if 0 <= index < len(names) and names[index] not in (utterance, label, score, *others.values()):
            others[name] = names[index]

    if utterance is not None and index_of[utterance] == 1:
        assign("speaker", 0)
    subset = next((name for name in names if set(table.sample(name)) <= SUBSETS), None)
    subset_index = None if subset is None else index_of[subset]
    label_index = None if label is None else index_of[label]
    if _is_physical(table, label_index, subset_index):
        for name, index in PHYSICAL_ACCESS.items():
            assign(name, index)
    elif label_index is not None and not (subset is not None and _has_physical_names(table, utterance)):
        assign("system", label_index - 1)
    if subset_index is not None:
        assign("subset", subset_index)
    if subset_index == 7:  # ASVspoof 2021, LA and DF
        assign("codec", 2)
        assign("condition", 3)
        for index, name in _DEEPFAKE_TRACK.items():
            assign(name, index)
    elif subset is None and len(names) >= 9:  # ASVspoof 5
        assign("codec", 3)
    for name, matches in (
        ("gender", lambda value: value in _GENDERS),
        ("trim", lambda value: value in _TRIMS),
        ("environment", _ENVIRONMENT.fullmatch),
    ):
        column = next((column for column in names if all(map(matches, table.sample(column)))), None)
        if column is not None:
            assign(name, index_of[column])
    for index, name in enumerate(names):
        assign(name, index)
    return others


def _is_physical(table: TextTable, label_index: int | None, subset_index: int | None) -> bool:
    """Whether a table has the columns of the keys of ASVspoof 2021's physical access."""
    if label_index != _PHYSICAL_LABEL:
        return False
    columns = [list(table.columns)[index] for index in PHYSICAL_ACCESS.values()]
    return subset_index == _PHYSICAL_SUBSET or all(
        _PHYSICAL_WORD.fullmatch(value) for column in columns for value in table.sample(column)
    )


def _has_physical_names(table: TextTable, utterance: str | None) -> bool:
    """Whether utterances are of physical access. In keys of the first release, the other columns are unknown."""
    return utterance is not None and all(name.startswith("PA_") for name in table.sample(utterance))
