"""Matches scores and labels of the same utterances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hf_gradalign.score_files.clips import Clips, ScoreFileError
from hf_gradalign.score_files.predictions import resolve_with_keys
from hf_gradalign.utils.folder_listing import AUDIO_SUFFIXES
from hf_gradalign.utils.plain_text import composed_column

# The share of keys that may have no score. The Arena's tool has the same limit.
MAX_MISSING = 0.05
_MAX_EXAMPLES = 3
_EXTENSIONS = "|".join(sorted({suffix[1:] for suffix in AUDIO_SUFFIXES} | {"mp4", "aac", "sph", "webm", "wma", "amr"}))
AUDIO_EXTENSION = rf"(?i)\.({_EXTENSIONS})$"
_FOLDERS = r"^.*[/\\]"
_BASENAME = r"[^/\\]*$"
_NO_FOLDERS = "without folders"
_WHOLE_NUMBER = r"^0*(\d+?)(?:\.0+)?$"
# Changes to names that may be needed to match them, in the order in which they are tried, with their description.
_CHANGES: dict[str, Callable[[pa.Array], pa.Array]] = {
    "in one Unicode form (NFC)": composed_column,
    "without file extensions": lambda names: pc.replace_substring_regex(names, AUDIO_EXTENSION, ""),
    _NO_FOLDERS: lambda names: pc.replace_substring_regex(names, _FOLDERS, ""),
    "in lower case": pc.utf8_lower,
    "as whole numbers": lambda names: pc.replace_substring_regex(names, _WHOLE_NUMBER, r"\1"),
}


def match_keys(scores: Clips, keys: Clips, *, allow_missing: bool = False) -> Clips:
    """Return the clips that have both a score and a label, in the order of the keys.

    Names are first compared unchanged. If some do not match, they are compared in one Unicode form, without the audio
    file's extension, without folders, in lower case and as whole numbers (007, 7.0), as far as needed and unambiguous.
    A note says so. Folders are left out only if one name ends with the folders of the other: `a.wav` and `flac/a.wav`
    match, but `real/a.wav` and `fake/a.wav` do not.

    Labels in the score file are compared with the keys. If labels are predictions and scores their confidence, the
    scores are converted to bona fide scores.

    Args:
        scores: Clips with scores.
        keys: Clips with labels.
        allow_missing: Whether more than `MAX_MISSING` of the keys may have no score.

    Returns:
        Clips with scores, labels, and the other columns of both. If both have the same column, the one in the keys is
        used.

    Raises:
        ScoreFileError: If no name is in both, if too many keys have no score, if names match ambiguously, or if scores
            belong to predicted labels.
    """
    return with_few_missing(match_labels(scores, keys), scores, keys, allow_missing=allow_missing)


def with_few_missing(match: LabelMatch, scores: Clips, keys: Clips, *, allow_missing: bool = False) -> Clips:
    """Return the clips of a match, with notes about names that are in only one of the files.

    Raises:
        ScoreFileError: If too many keys have no score, unless `allow_missing`.
    """
    notes = list(match.clips.notes)
    if len(match.unlabeled):
        notes.append(
            f"{len(match.unlabeled)} of {len(scores)} utterances of {scores.source} have no label in {keys.source} "
            f"({examples(match.unlabeled)}), and are skipped."
        )
    if len(match.missing):
        description = (
            f"{len(match.missing)} of {len(keys)} utterances of {keys.source} have no score in {scores.source} "
            f"({examples(match.missing)})"
        )
        if len(match.missing) > MAX_MISSING * len(keys) and not allow_missing:
            raise ScoreFileError(
                f"{description}. That is more than {MAX_MISSING:.0%}: score them, or skip them with --partial."
            )
        notes.append(f"{description}. They are skipped, so the results are not comparable with those of all clips.")
    return replace(match.clips, notes=tuple(notes))


@dataclass(frozen=True)
class LabelMatch:
    """Scores that were matched with labels.

    Attributes:
        clips: Clips with scores and labels, in the order of the keys.
        missing: Names of keys without a score.
        unlabeled: Names of scores without a key, except those of clips that were skipped on purpose.
        was_confidence: Whether the scores were converted from the confidence of predicted labels.
    """

    clips: Clips
    missing: pa.Array
    unlabeled: pa.Array
    was_confidence: bool


def match_labels(scores: Clips, keys: Clips) -> LabelMatch:
    """Match like `match_keys`, but return the names that are in only one of the files, however many there are.

    Raises:
        ScoreFileError: As for `match_keys`, except for the number of keys without a score.
    """
    indices, how = match_names(keys.utterance_ids, scores.utterance_ids, keys.source, scores.source)
    matched = indices >= 0
    if not matched.any():
        raise ScoreFileError(
            f"No utterance of {scores.source} ({examples(scores.utterance_ids)}) is in {keys.source} "
            f"({examples(keys.utterance_ids)}).{_in_other_folders(keys.utterance_ids, scores.utterance_ids)} Check "
            "that both files have the same clips with the same names."
        )
    notes = [*keys.notes, *scores.notes, *([how] if how else [])]
    kept, scored = keys.take(np.flatnonzero(matched)), scores.take(indices[matched])
    if kept.labels is None:
        raise ScoreFileError(f"{keys.source} has no labels. Pass a file with labels as keys.")
    if scored.labels is not None and (n_different := int(np.count_nonzero(scored.labels != kept.labels))):
        notes.append(f"{n_different} labels in {scores.source} differ from {keys.source}, whose labels are used.")
    values, prediction_notes = resolve_with_keys(scored, kept.labels, keys.source)
    columns = {**scored.columns, **kept.columns}
    was_confidence = values is not scored.scores
    clips = replace(
        kept,
        source=scores.source,
        scores=values,
        columns=columns,
        notes=(*notes, *prediction_notes),
        score_form="confidence" if was_confidence else scored.score_form,
    )
    return LabelMatch(
        clips=clips,
        missing=keys.utterance_ids.filter(pa.array(~matched)),
        unlabeled=_unlabeled(scores, keys, indices[matched]),
        was_confidence=was_confidence,
    )


def match_systems(first: Clips, second: Clips) -> tuple[Clips, NDArray[np.float64], list[str]]:
    """Match the clips that two systems scored.

    Returns:
        Clips of the first system, scores of the second system for these clips, and notes for the user.

    Raises:
        ScoreFileError: If no utterance is in both, or their labels differ.
    """
    indices, how = match_names(first.utterance_ids, second.utterance_ids, first.source, second.source)
    matched = indices >= 0
    if not matched.any():
        raise ScoreFileError(
            f"No utterance of {second.source} ({examples(second.utterance_ids)}) is in {first.source} "
            f"({examples(first.utterance_ids)}).{_in_other_folders(first.utterance_ids, second.utterance_ids)} Two "
            "systems can be compared only on the same clips."
        )
    if second.scores is None:
        raise ScoreFileError(f"{second.source} has no scores. Pass a score file.")
    require_same_labels(first, second, indices, "KEYS")
    notes = [how] if how else []
    n_common = int(np.count_nonzero(matched))
    if n_common < max(len(first), len(second)):
        notes.append(
            f"{n_common} utterances are in both {first.source} ({len(first)}) and {second.source} ({len(second)}). "
            "The systems are compared on these."
        )
    return first.take(np.flatnonzero(matched)), second.scores[indices[matched]], notes


def require_same_labels(first: Clips, second: Clips, indices: NDArray[np.int64], option: str) -> None:
    """Check that two files with labels agree on the clips that are in both.

    Args:
        first: Clips.
        second: Other clips.
        indices: The index in `second` of each clip in `first`, or -1, shape (clips,).
        option: The option for the true labels, for the message.

    Raises:
        ScoreFileError: If labels differ.
    """
    if first.labels is None or second.labels is None:
        return
    in_both = np.flatnonzero(indices >= 0)
    differs = in_both[first.labels[in_both] != second.labels[indices[in_both]]]
    if len(differs):
        names = examples(first.utterance_ids.take(pa.array(differs)))
        raise ScoreFileError(
            f"{len(differs)} labels of {first.source} differ from those of {second.source} ({names}). Give the true "
            f"labels with {option}."
        )


def match_names(
    wanted: pa.Array, available: pa.Array, wanted_source: str, source: str
) -> tuple[NDArray[np.int64], str]:
    """Return the index of each wanted name among the available ones, or -1, and a note on changes to the names."""
    best, how = _index(wanted, available), ""
    tried: list[str] = []
    for change in _CHANGES:
        if (best >= 0).all():
            break
        tried.append(change)
        if _n_matches(wanted, available, tried) <= int(np.count_nonzero(best >= 0)):
            continue
        needed = _needed(wanted, available, tried)
        changed_wanted, changed_available = _changed(wanted, needed), _changed(available, needed)
        described = _described(needed)
        for names, changed, file in ((wanted, changed_wanted, wanted_source), (available, changed_available, source)):
            if pair := _ambiguous(names, changed):
                raise ScoreFileError(
                    f"Utterances of {source} and {wanted_source} would match {described}, but {file} has both "
                    f"{pair[0]!r} and {pair[1]!r}. Use the same names in both files."
                )
        best = _matches(wanted, available, needed)
        how = f"Utterances of {source} and {wanted_source} were matched {described}."
    return best, how


def _changed(names: pa.Array, changes: Sequence[str]) -> pa.Array:
    for change in changes:
        names = _CHANGES[change](names)
    return names


def _matches(wanted: pa.Array, available: pa.Array, changes: Sequence[str]) -> NDArray[np.int64]:
    indices = _index(_changed(wanted, changes), _changed(available, changes))
    if _NO_FOLDERS in changes:
        found = np.flatnonzero(indices >= 0)
        pairs = wanted.take(pa.array(found)), available.take(pa.array(indices[found]))
        indices[found[~_folders_agree(*pairs, changes)]] = -1
    return indices


def _n_matches(wanted: pa.Array, available: pa.Array, changes: Sequence[str]) -> int:
    return int(np.count_nonzero(_matches(wanted, available, changes) >= 0))


def _folders_agree(first: pa.Array, second: pa.Array, changes: Sequence[str]) -> NDArray[np.bool_]:
    """Return for each pair of names whether the folders of one are the last folders of the other."""
    changes = [change for change in changes if change != _NO_FOLDERS]
    folders = [
        _changed(pc.replace_substring_regex(names, _BASENAME, ""), changes).dictionary_encode()
        for names in (first, second)
    ]
    ours, theirs = ([_parts(folder) for folder in own.dictionary.to_pylist()] for own in folders)
    codes = [own.indices.to_numpy(zero_copy_only=False).astype(np.int64) for own in folders]
    pairs, inverse = np.unique(codes[0] * len(theirs) + codes[1], return_inverse=True)
    agree = [_is_end(ours[pair // len(theirs)], theirs[pair % len(theirs)]) for pair in pairs.tolist()]
    return np.array(agree, dtype=bool)[inverse]


def _parts(folder: str) -> list[str]:
    return [part for part in folder.replace("\\", "/").split("/") if part not in ("", ".")]


def _is_end(first: list[str], second: list[str]) -> bool:
    shorter, longer = sorted((first, second), key=len)
    return not shorter or longer[-len(shorter) :] == shorter


def _in_other_folders(wanted: pa.Array, available: pa.Array) -> str:
    """Return a sentence about names that differ only in their folders, if there are any."""
    indices = _index(_changed(wanted, [*_CHANGES]), _changed(available, [*_CHANGES]))
    pairs = np.flatnonzero(indices >= 0)
    if not len(pairs):
        return ""
    one, other = wanted[int(pairs[0])], available[int(indices[pairs[0]])]
    return f" File names recur in other folders, which are different clips: {one} and {other}."


def _needed(wanted: pa.Array, available: pa.Array, changes: Sequence[str]) -> list[str]:
    """Return the changes without which fewer names would match."""
    n_matches = _n_matches(wanted, available, changes)
    needed = list(changes)
    for change in changes[:-1]:  # the last change is needed
        fewer = [other for other in needed if other != change]
        if _n_matches(wanted, available, fewer) == n_matches:
            needed = fewer
    return needed


def _described(changes: Sequence[str]) -> str:
    removed = [change.removeprefix("without ") for change in reversed(changes) if change.startswith("without ")]
    others = [change for change in changes if not change.startswith("without ")]
    return " and ".join(([f"without {' and '.join(removed)}"] if removed else []) + others)


def _index(wanted: pa.Array, available: pa.Array) -> NDArray[np.int64]:
    return pc.fill_null(pc.index_in(wanted, available), -1).to_numpy(zero_copy_only=False).astype(np.int64)


def _ambiguous(names: pa.Array, changed: pa.Array) -> tuple[str, str] | None:
    counts = pc.value_counts(changed)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated) == 0:
        return None
    same = names.filter(pc.equal(changed, repeated[0]["values"]))
    return same[0].as_py(), same[1].as_py()


def _unlabeled(scores: Clips, keys: Clips, indices: NDArray[np.int64]) -> pa.Array:
    """Return the names of scores without a key, except those of clips that were skipped on purpose."""
    is_unmatched = np.ones(len(scores), dtype=bool)
    is_unmatched[indices] = False
    if keys.other_ids is not None:
        skipped, _ = match_names(scores.utterance_ids, keys.other_ids, scores.source, keys.source)
        is_unmatched &= skipped < 0
    return scores.utterance_ids.filter(pa.array(is_unmatched))


def examples(names: pa.Array) -> str:
    """Return the first names, for a message."""
    examples = ", ".join(names.slice(0, _MAX_EXAMPLES).to_pylist())
    return examples + (", ..." if len(names) > _MAX_EXAMPLES else "")
