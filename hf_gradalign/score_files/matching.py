"""Bring scores and labels of the same utterances together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hf_gradalign.score_files.clips import Clips
from hf_gradalign.score_files.errors import ScoreFileError

# Of the keys that may lack a score before it is an error; the Arena's tool draws the line there too.
MAX_MISSING = 0.05
_SHOWN = 3
_ENDING = r"(?i)\.(wav|flac|mp3|ogg|opus|m4a|aac|sph)$"
_FOLDERS = r"^.*[/\\]"


def match_keys(scores: Clips, keys: Clips, *, allow_missing: bool = False) -> Clips:
    """The clips that have both a score and a label, in the keys' order.

    Names are compared as they are; where that leaves some without a partner, without the audio's file ending, and then
    without folders too, if that is unambiguous. What was done is told in the notes.

    Args:
        scores: Clips with scores.
        keys: Clips with labels.
        allow_missing: Whether more than `MAX_MISSING` of the keys may be without a score.

    Returns:
        Scores, labels and the further columns of both; of a column of both, the keys'.

    Raises:
        ScoreFileError: If no name is in both, if too many keys lack a score, or if names match ambiguously.
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
    return replace(
        kept, source=scores.source, scores=own.scores, columns={**own.columns, **kept.columns}, notes=tuple(notes)
    )


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
    best = _index(wanted, there)
    how = ""
    for pattern, described in (
        ((_ENDING,), "the audio files' endings"),
        ((_ENDING, _FOLDERS), "folders and the audio files' endings"),
    ):
        if (best >= 0).all():
            break
        short_wanted, short_there = _without(wanted, pattern), _without(there, pattern)
        places = _index(short_wanted, short_there)
        if np.count_nonzero(places >= 0) <= np.count_nonzero(best >= 0):
            continue
        for names, short, whose in ((wanted, short_wanted, wanted_source), (there, short_there, source)):
            if pair := _ambiguous(names, short):
                raise ScoreFileError(
                    f"Utterances of {source} and {wanted_source} would match without {described}, but {whose} has both "
                    f"{pair[0]!r} and {pair[1]!r}: name them alike in both files."
                )
        best, how = places, f"Utterances of {source} and {wanted_source} were matched without {described}."
    return best, how


def _index(wanted: pa.Array, there: pa.Array) -> NDArray[np.int64]:
    return pc.fill_null(pc.index_in(wanted, there), -1).to_numpy(zero_copy_only=False).astype(np.int64)


def _without(names: pa.Array, patterns: tuple[str, ...]) -> pa.Array:
    for pattern in patterns:
        names = pc.replace_substring_regex(names, pattern, "")
    return names


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
