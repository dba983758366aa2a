"""The columns of ASVspoof's files, which have no header."""

from __future__ import annotations

import re

from hf_gradalign.data.corpora.asvspoof2021 import PHYSICAL_ACCESS
from hf_gradalign.score_files.text_table import TextTable

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
