"""Bring scores and labels of the same utterances together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hf_gradalign.score_files.clips import Clips
from hf_gradalign.score_files.errors import ScoreFileError
from hf_gradalign.score_files.predictions import settle_with_keys
from hf_gradalign.utils.folder_listing import AUDIO_SUFFIXES

# Of the keys that may lack a score before it is an error; the Arena's tool draws the line there too.
MAX_MISSING = 0.05
_SHOWN = 3
_ENDINGS = "|".join(sorted({suffix[1:] for suffix in AUDIO_SUFFIXES} | {"mp4", "aac", "sph", "webm", "wma", "amr"}))
_ENDING = rf"(?i)\.({_ENDINGS})$"
_FOLDERS = r"^.*[/\\]"
_WHOLE_NUMBER = r"^0*(\d+?)(?:\.0+)?$"
# What does not matter in names where it must not, one thing after another, and how it is told of.
_CHANGES: dict[str, Callable[[pa.Array], pa.Array]] = {
    "in one Unicode form (NFC)": lambda names: pc.utf8_normalize(names, form="NFC"),
    "without the audio files' endings": lambda names: pc.replace_substring_regex(names, _ENDING, ""),
    "without folders": lambda names: pc.replace_substring_regex(names, _FOLDERS, ""),
    "in lower case": pc.utf8_lower,
    "as whole numbers": lambda names: pc.replace_substring_regex(names, _WHOLE_NUMBER, r"\1"),
}


def match_keys(scores: Clips, keys: Clips, *, allow_missing: bool = False) -> Clips:
    """The clips that have both a score and a label, in the keys' order.

    Names are compared as they are; where that leaves some without a partner, in one Unicode form, without the audio's
    file ending, without folders, in lower case and as whole numbers (007, 7.0), one after the other, as far as it is
    needed and if that is unambiguous. What was done is told in the notes.

    Labels in the score file are compared with the keys: where they are predictions and the scores their confidence,
    these are turned into scores of bona fide.

    Args:
        scores: Clips with scores.
        keys: Clips with labels.
        allow_missing: Whether more than `MAX_MISSING` of the keys may be without a score.

    Returns:
        Scores, labels and the further columns of both; of a column of both, the keys'.

    Raises:
        ScoreFileError: If no name is in both, if too many keys lack a score, if names match ambiguously, or if scores
            belong to predicted labels.
    """
    places, how = _places_of(keys.utterance_ids, scores.utterance_ids, keys.source, scores.source)
    found = places >= 0
    if not found.any():
        raise ScoreFileError(
            f"No utterance of {scores.source} ({_examples(scores.utterance_ids)}) is in {keys.source} "
            f"({_examples(keys.utterance_ids)}): these are not of the same clips, or name them otherwise."
        )
    notes = [*keys.notes, *scores.notes, *([how] if how else [])]
    missing = keys.utterance_ids.filter(pa.array(~found))
    if len(missing):
        told = (
            f"{len(missing)} of {len(keys)} utterances of {keys.source} have no score in {scores.source} "
            f"({_examples(missing)})"
        )
        if len(missing) > MAX_MISSING * len(keys) and not allow_missing:
            raise ScoreFileError(
                f"{told}. That is more than {MAX_MISSING:.0%}: score them, or evaluate what there is with --partial."
            )
        notes.append(f"{told}: they are left out, and the figures do not compare with those of all clips.")
    if note := _unknown(scores, keys, places[found]):
        notes.append(note)
    kept, own = keys.at(np.flatnonzero(found)), scores.at(places[found])
    if own.labels is not None and (n_other := int(np.count_nonzero(own.labels != kept.labels))):
        notes.append(f"{n_other} labels in {scores.source} are not those of {keys.source}: the latter were taken.")
    values, told = settle_with_keys(own, kept.labels, keys.source)
    columns = {**own.columns, **kept.columns}
    return replace(kept, source=scores.source, scores=values, columns=columns, notes=(*notes, *told))


def match_systems(first: Clips, second: Clips) -> tuple[Clips, NDArray[np.float64], list[str]]:
    """The clips that two systems scored, of the first, and the second's scores of them.

    Returns:
        Clips of the first, scores of the second, and what should be told.

    Raises:
        ScoreFileError: If no utterance is in both.
    """
    places, how = _places_of(first.utterance_ids, second.utterance_ids, first.source, second.source)
    found = places >= 0
    if not found.any():
        raise ScoreFileError(
            f"No utterance of {second.source} ({_examples(second.utterance_ids)}) is in {first.source} "
            f"({_examples(first.utterance_ids)}): two systems are compared on the same clips."
        )
    if second.scores is None:
        raise ScoreFileError(f"{second.source} has no scores.")
    notes = [how] if how else []
    n_common = int(np.count_nonzero(found))
    if n_common < max(len(first), len(second)):
        notes.append(
            f"{n_common} utterances are in both {first.source} ({len(first)}) and {second.source} ({len(second)}): "
            "the systems are compared on those."
        )
    return first.at(np.flatnonzero(found)), second.scores[places[found]], notes


def _places_of(wanted: pa.Array, there: pa.Array, wanted_source: str, source: str) -> tuple[NDArray[np.int64], str]:
    """Where each wanted name is among those that are there, -1 where it is not, and how names had to be changed."""
    best, how = _index(wanted, there), ""
    tried: list[str] = []
    for change in _CHANGES:
        if (best >= 0).all():
            break
        tried.append(change)
        n_found = int(np.count_nonzero(best >= 0))
        if _n_found(wanted, there, tried) <= n_found:
            continue
        needed = _needed(wanted, there, tried)
        short_wanted, short_there = _changed(wanted, needed), _changed(there, needed)
        described = _described(needed)
        for names, short, whose in ((wanted, short_wanted, wanted_source), (there, short_there, source)):
            if pair := _ambiguous(names, short):
                raise ScoreFileError(
                    f"Utterances of {source} and {wanted_source} would match {described}, but {whose} has both "
                    f"{pair[0]!r} and {pair[1]!r}: name them alike in both files."
                )
        best = _index(short_wanted, short_there)
        how = f"Utterances of {source} and {wanted_source} were matched {described}."
    return best, how


def _changed(names: pa.Array, changes: Sequence[str]) -> pa.Array:
    for change in changes:
        names = _CHANGES[change](names)
    return names


def _n_found(wanted: pa.Array, there: pa.Array, changes: Sequence[str]) -> int:
    return int(np.count_nonzero(_index(_changed(wanted, changes), _changed(there, changes)) >= 0))


def _needed(wanted: pa.Array, there: pa.Array, changes: Sequence[str]) -> list[str]:
    """Those of the changes without which fewer names would match."""
    n_found = _n_found(wanted, there, changes)
    needed = list(changes)
    for change in changes[:-1]:  # the last one is why there are more
        fewer = [other for other in needed if other != change]
        if _n_found(wanted, there, fewer) == n_found:
            needed = fewer
    return needed


def _described(changes: Sequence[str]) -> str:
    removed = [change.removeprefix("without ") for change in reversed(changes) if change.startswith("without ")]
    others = [change for change in changes if not change.startswith("without ")]
    return " and ".join(([f"without {' and '.join(removed)}"] if removed else []) + others)


def _index(wanted: pa.Array, there: pa.Array) -> NDArray[np.int64]:
    return pc.fill_null(pc.index_in(wanted, there), -1).to_numpy(zero_copy_only=False).astype(np.int64)


def _ambiguous(names: pa.Array, short: pa.Array) -> tuple[str, str] | None:
    counts = pc.value_counts(short)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated) == 0:
        return None
    same = names.filter(pc.equal(short, repeated[0]["values"]))
    return same[0].as_py(), same[1].as_py()


def _unknown(scores: Clips, keys: Clips, places: NDArray[np.int64]) -> str | None:
    """What to tell of scores without a key; those of clips that were left out on purpose are not told of."""
    without = np.ones(len(scores), dtype=bool)
    without[places] = False
    if keys.other_ids is not None:
        known, _ = _places_of(scores.utterance_ids, keys.other_ids, scores.source, keys.source)
        without &= known < 0
    names = scores.utterance_ids.filter(pa.array(without))
    if len(names) == 0:
        return None
    return (
        f"{len(names)} of {len(scores)} utterances of {scores.source} have no label in {keys.source} "
        f"({_examples(names)}): left out."
    )


def _examples(names: pa.Array) -> str:
    shown = ", ".join(names.slice(0, _SHOWN).to_pylist())
    return shown + (", ..." if len(names) > _SHOWN else "")
