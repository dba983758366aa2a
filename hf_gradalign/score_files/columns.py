"""The names of columns in score and key files, and the meaning of unnamed columns in the challenges' files."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hf_gradalign.data import canonical_label
from hf_gradalign.data.corpora.asvspoof import PHYSICAL_ACCESS

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
NO_SASV_SCORES = ("cm_score", "cm_scores", "asv_score")
NO_CM_SCORES = ("asv_score", "sasv_score")
SCORES = ("cm_score", "score", "scores", "cm_scores", "llr", "logit", "asv_score", "sasv_score")
NO_SCORES = (
    "duration", "dur", "length", "seconds", "sec", "start", "end", "samples", "n_samples", "num_samples", "frames",
    "n_frames", "num_frames", "sampling_rate", "sample_rate", "sr", "channels", "bitrate", "snr", "age", "year",
    "epoch", "fold", "index", "number", "row",
)
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

_SCORE_WORDS = frozenset(
    {"score", "scores", "prob", "probs", "probability", "logit", "logits", "llr", "likelihood", "posterior"}
)
_OTHER_NAMES = (*IDS, *LABELS, *NO_SCORES, *(name for names in OTHERS.values() for name in names))

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
    """Return whether a column has one of these names; `UtteranceID` counts as `utterance_id`."""
    return _bare_name(name) in _bare_names(wanted)


def _bare_name(name: str) -> str:
    return plain_name(name).replace("_", "")


@functools.lru_cache(maxsize=128)  # a line of a file may have tens of thousands of columns
def _bare_names(names: tuple[str, ...] | frozenset[str]) -> frozenset[str]:
    return frozenset(map(_bare_name, names))


def by_name(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Return the column whose name comes first among the wanted ones, in any spelling."""
    by_bare_name = {_bare_name(name): name for name in reversed(names)}  # the first of each name
    return next((by_bare_name[name] for name in map(_bare_name, wanted) if name in by_bare_name), None)


_COMMON_NAMES = {_bare_name(spelling): name for name, spellings in OTHERS.items() for spelling in spellings}


def class_of(name: str, label_map: Mapping[str, str] | None = None) -> str | None:
    """Return `spoof` or `bonafide` if the name of a column refers to one class, as `p_spoof` and `fake score` do."""
    parts = _parts(name)
    if parts & {"anti", "non", "not", "no"} and canonical_label(name, label_map) is None:
        return None
    words = re.split(r"[\W_]+", name.lower())
    pairs = [first + second for first, second in itertools.pairwise(words)]  # "bona_fide" is two words
    meanings = {canonical_label(part, label_map) for part in (name, *parts, *pairs)} - {None}
    return meanings.pop() if len(meanings) == 1 else None


def mentions_scores(name: str) -> bool:
    """Return whether a name contains a word for scores, such as `score_real` or `RealProb`."""
    return bool(_parts(name) & _SCORE_WORDS) or is_one_of(name, CONFIDENCES)


def says_otherwise(name: str) -> bool:
    """Return whether a column with this name has no scores but ids, labels, speakers, durations, ..."""
    return is_one_of(name, _OTHER_NAMES)


def _parts(name: str) -> set[str]:
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def common_name(name: str) -> str:
    """Return this project's name for a column."""
    return _COMMON_NAMES.get(_bare_name(name)) or plain_name(name)


def is_number(text: str | None) -> bool:
    """Return whether a value is a number, with a decimal point or comma. NaN and infinity count."""
    return text is not None and _NUMBER.fullmatch(text.strip()) is not None


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
        utterance: The column of utterance ids.
        label: The column of labels.
        score: The column of scores.

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
    """Return whether a table has the columns of the keys of ASVspoof 2021's physical access track."""
    if label_index != _PHYSICAL_LABEL:
        return False
    columns = [list(table.columns)[index] for index in PHYSICAL_ACCESS.values()]
    return subset_index == _PHYSICAL_SUBSET or all(
        _PHYSICAL_WORD.fullmatch(value) for column in columns for value in table.sample(column)
    )


def _has_physical_names(table: TextTable, utterance: str | None) -> bool:
    """Return whether utterances are of physical access. In keys of the first release, the other columns are unknown."""
    return utterance is not None and all(name.startswith("PA_") for name in table.sample(utterance))
