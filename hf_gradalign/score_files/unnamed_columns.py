"""The columns of ASVspoof's files, which have no header."""

from __future__ import annotations

from hf_gradalign.score_files.text_table import TextTable

SUBSETS = frozenset({"eval", "progress", "hidden", "hidden_track"})
_GENDERS = frozenset({"M", "F", "m", "f", "male", "female"})
# The words of the keys of ASVspoof 2021's deepfake track after the first eight, as its package calls them.
_DEEPFAKE_TRACK = dict(zip(range(8, 13), ("vocoder", "task", "team", "gender_pair", "language"), strict=True))


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
        Columns by the names that the project has for them (speaker, system, codec, condition, subset, gender, ...);
        those that nothing is known of by their numbers.
    """
    names = list(table.columns)
    places = {name: place for place, name in enumerate(names)}
    others: dict[str, str] = {}

    def call(name: str, place: int) -> None:
        if 0 <= place < len(names) and names[place] not in (utterance, label, score, *others.values()):
            others[name] = names[place]

    if utterance is not None and places[utterance] == 1:
        call("speaker", 0)
    if label is not None:
        call("system", places[label] - 1)
    subset = next((name for name in names if set(table.sample(name)) <= SUBSETS), None)
    if subset is not None:
        call("subset", places[subset])
        if places[subset] == 7:  # ASVspoof 2021, LA and DF
            call("codec", 2)
            call("condition", 3)
            for place, name in _DEEPFAKE_TRACK.items():
                call(name, place)
    elif len(names) >= 9:  # ASVspoof 5
        call("codec", 3)
    gender = next((name for name in names if set(table.sample(name)) <= _GENDERS), None)
    if gender is not None:
        call("gender", places[gender])
    for place in range(len(names)):
        call(names[place], place)
    return others
