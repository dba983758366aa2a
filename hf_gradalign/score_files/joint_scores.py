"""Joins the scores of several systems for the same clips, and records which clips each file lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hf_gradalign.score_files.clips import Clips, ScoreFileError, ScoreForm
from hf_gradalign.score_files.matching import MAX_MISSING, examples, match_labels, match_names, require_same_labels
from hf_gradalign.score_files.predictions import unlabeled_scores, with_own_labels
from hf_gradalign.score_files.writing import write_table


@dataclass(frozen=True)
class JointScores:
    """Scores of several systems for the clips that all of them scored.

    Attributes:
        sources: The score files, length `systems`.
        clips: The clips, with labels if there are keys, and without scores.
        scores: Shape (clips, systems).
        were_confidences: Whether the scores of each file were converted from the confidence of predicted labels, which
            only keys can tell.
        score_forms: How the scores of each system were made from those in its file.
        n_wanted: The number of clips in the keys or, without keys, in any of the files.
        missing: Names of clips that a file lacks, by file. The keys may be one of them.
        notes: Notes for the user on how the files were read and matched.
    """

    sources: tuple[str, ...]
    clips: Clips
    scores: NDArray[np.float64]
    were_confidences: tuple[bool, ...]
    score_forms: tuple[ScoreForm, ...]
    n_wanted: int
    missing: dict[str, pa.Array]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def names(self) -> tuple[str, ...]:
        """Distinct names of the files: with as many folders as needed, and with numbers for the same file."""
        parts = [PurePath(source).parts for source in self.sources]
        for length in range(1, max(map(len, parts)) + 1):
            names = ["/".join(own[-length:]) for own in parts]
            if len(set(names)) == len(set(parts)):
                break
        return tuple(
            name if names.count(name) == 1 else f"{name} ({names[: number + 1].count(name)})"
            for number, name in enumerate(names)
        )

    @property
    def labels(self) -> NDArray[np.int64]:
        """1 bona fide and 0 spoof, shape (clips,).

        Raises:
            ScoreFileError: If the scores were joined without keys.
        """
        if self.clips.labels is None:
            raise ScoreFileError("These scores have no labels. Join them with keys.")
        return self.clips.labels

    def describe_missing(self) -> str | None:
        """Describe how many clips each file lacks, with a few names; None if no file lacks any."""
        if not self.missing:
            return None
        lacking = "; ".join(f"{source} lacks {len(ids)} ({examples(ids)})" for source, ids in self.missing.items())
        return f"{len(self)} of {self.n_wanted} utterances are in all files; {lacking}."

    def require_complete(self) -> None:
        """Raise ScoreFileError if more than `MAX_MISSING` of the clips have no score in one of the files."""
        if self.n_wanted - len(self) > MAX_MISSING * self.n_wanted:
            raise ScoreFileError(
                f"{self.describe_missing()} More than {MAX_MISSING:.0%} are missing: score them, or skip them with "
                "--partial."
            )

    def write_missing(self, path: str | Path) -> None:
        """Write a table of the missing clips: a file and an utterance id per line, with a header and tabs."""
        rows = [(source, name) for source, ids in self.missing.items() for name in ids.to_pylist()]
        write_table(path, {"file": [source for source, _ in rows], "lacks": [name for _, name in rows]})


def join_systems(systems: Sequence[Clips], keys: Clips | None = None, *, allow_missing: bool = False) -> JointScores:
    """Match the scores of several systems, and labels if there are any, by the names of the clips.

    Names are compared as in `match_keys`. Clips without a score in one of the files are skipped, and listed in
    `missing`.

    Args:
        systems: Clips with scores, one per system.
        keys: Clips with labels. Without them, scores are joined without labels; see `own_keys`.
        allow_missing: Whether more than `MAX_MISSING` of the clips may lack a score in one of the files.

    Returns:
        The scores, in the order of the keys or, without keys, of the first file.

    Raises:
        ScoreFileError: If no clip or too few clips are in all files; also as for `match_keys`.
    """
    joint = _join_files(systems) if keys is None else _join_with_keys(systems, keys)
    if not len(joint):
        raise ScoreFileError(f"{joint.describe_missing()} Check that the files are of the same clips.")
    if not allow_missing:
        joint.require_complete()
    return joint


def own_keys(systems: Sequence[Clips]) -> tuple[list[Clips], Clips]:
    """Return the systems and keys for score files that have labels.

    Labels are from the file that has the most. They must agree with the labels in the other files.

    Raises:
        ScoreFileError: If no file has labels, they look like predictions, or they differ.
    """
    if all(system.labels is None for system in systems):
        raise ScoreFileError(
            f"None of {', '.join(system.source for system in systems)} contains true labels: pass a file with them as "
            "--keys."
        )
    systems = [system if system.labels is None else with_own_labels(system) for system in systems]
    labeled = [system for system in systems if system.labels is not None]
    chosen = max(labeled, key=len)
    for other in labeled:
        indices, _ = match_names(chosen.utterance_ids, other.utterance_ids, chosen.source, other.source)
        require_same_labels(chosen, other, indices, "--keys")
    return systems, replace(chosen, scores=None, notes=())


def _join_with_keys(systems: Sequence[Clips], keys: Clips) -> JointScores:
    keys.require_no_trials()
    matches = [match_labels(system, keys) for system in systems]
    scores = np.full((len(keys), len(systems)), np.nan)
    columns: dict[str, pa.Array] = {}
    for index, match in enumerate(matches):
        rows = pc.index_in(match.clips.utterance_ids, keys.utterance_ids).to_numpy(zero_copy_only=False)
        scores[rows, index] = match.clips.scores
        for name, column in match.clips.columns.items():
            if name not in columns:
                columns[name] = _spread(column, rows, len(keys))
    missing = {system.source: match.missing for system, match in zip(systems, matches, strict=True)}
    unlabeled = pa.concat_arrays([match.unlabeled.cast(pa.string()) for match in matches]).unique()
    return _make_joint(
        systems,
        replace(keys, columns=columns),
        scores,
        {**missing, keys.source: unlabeled},
        [note for match in matches for note in match.clips.notes],
        [match.clips.score_form for match in matches],
        were_confidences=tuple(match.was_confidence for match in matches),
    )


def _join_files(systems: Sequence[Clips]) -> JointScores:
    names, notes = systems[0].utterance_ids, list(systems[0].notes)
    for system in systems[1:]:
        found, how = match_names(system.utterance_ids, names, system.source, systems[0].source)
        names = pa.concat_arrays([names, system.utterance_ids.filter(pa.array(found < 0))])
        notes += [*system.notes, *([how] if how else [])]
    scores = np.full((len(names), len(systems)), np.nan)
    missing = {}
    for index, system in enumerate(systems):
        rows, _ = match_names(names, system.utterance_ids, "the other files", system.source)
        scores[rows >= 0, index] = unlabeled_scores(system)[rows[rows >= 0]]
        missing[system.source] = names.filter(pa.array(rows < 0))
    forms = [system.score_form for system in systems]
    return _make_joint(systems, Clips(systems[0].source, names), scores, missing, notes, forms)


def _make_joint(
    systems: Sequence[Clips],
    clips: Clips,
    scores: NDArray[np.float64],
    missing: dict[str, pa.Array],
    notes: Sequence[str],
    score_forms: Sequence[ScoreForm],
    were_confidences: tuple[bool, ...] | None = None,
) -> JointScores:
    in_all = ~np.isnan(scores).any(axis=1)
    return JointScores(
        sources=tuple(system.source for system in systems),
        clips=clips.take(np.flatnonzero(in_all)),
        scores=scores[in_all],
        were_confidences=were_confidences or (False,) * len(systems),
        score_forms=tuple(score_forms),
        n_wanted=len(clips),
        missing={source: ids for source, ids in missing.items() if len(ids)},
        notes=tuple(dict.fromkeys(notes)),
    )


def _spread(column: pa.Array, rows: NDArray[np.int64], length: int) -> pa.Array:
    """Return a column with its values at these rows, and null elsewhere."""
    indices = np.full(length, -1)
    indices[rows] = np.arange(len(rows))
    return column.take(pa.array(indices, mask=indices < 0))
