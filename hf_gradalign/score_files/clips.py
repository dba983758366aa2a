"""Score and key files as columns, and the checks that both need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hf_gradalign.data import LABEL_NAMES, canonical_label
from hf_gradalign.metrics import TRIAL_TYPES
from hf_gradalign.score_files.errors import ScoreFileError
from hf_gradalign.utils.plain_text import BLANKS, stripped_column

StringColumn = pa.Array | pa.ChunkedArray

_DECIMAL_COMMA = r"[-+]?\d+,\d+([eE][-+]?\d+)?"
_THOUSANDS = r"[-+]?[1-9]\d{0,2}(,\d{3})+"


@dataclass(frozen=True)
class Verdicts:
    """What a score file says of clips that may be its system's predictions instead of the truth.

    Attributes:
        labels: 1 bona fide and 0 spoof; where it is not known which is which, two numbers, -1 for any further value.
        are_known: Whether it is known which is which.
        is_direction_given: Whether someone said what a high score means.
    """

    labels: NDArray[np.int64]
    are_known: bool = True
    is_direction_given: bool = False


@dataclass(frozen=True)
class Clips:
    """What a file says of clips, or of trials of speaker verification: columns of one length.

    Attributes:
        source: The file's name, for messages.
        utterance_ids: Unique names.
        scores: Higher for bona fide; None if the file has none.
        labels: 1 bona fide and 0 spoof; None if the file has none.
        trial_types: "target", "nontarget" or "spoof"; None if the file has none.
        columns: Further columns by name, strings.
        notes: What a reader should be told.
        other_ids: Names of clips that were left out on purpose, such as those of another subset.
        verdicts: Labels of a score file that may be predictions; None if there are none, or they are the truth.
    """

    source: str
    utterance_ids: pa.Array
    scores: NDArray[np.float64] | None = None
    labels: NDArray[np.int64] | None = None
    trial_types: NDArray | None = None
    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    other_ids: pa.Array | None = None
    verdicts: Verdicts | None = None

    def __len__(self) -> int:
        return len(self.utterance_ids)

    def scores_and_labels(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Both of each clip.

        Raises:
            ScoreFileError: If there are no scores or no labels.
        """
        if self.scores is None or self.labels is None:
            raise ScoreFileError(
                f"{self.source} has {'no scores' if self.scores is None else 'no labels'}: match_keys."
            )
        return self.scores, self.labels

    def at(self, places: NDArray[np.integer]) -> Clips:
        """The clips at these places, in that order."""
        taken = pa.array(places, pa.int64())
        return replace(
            self,
            utterance_ids=self.utterance_ids.take(taken),
            scores=None if self.scores is None else self.scores[places],
            labels=None if self.labels is None else self.labels[places],
            trial_types=None if self.trial_types is None else self.trial_types[places],
            columns={name: column.take(taken) for name, column in self.columns.items()},
            verdicts=None if self.verdicts is None else replace(self.verdicts, labels=self.verdicts.labels[places]),
        )


def flat(column: StringColumn) -> pa.Array:
    """One array of strings, whatever the type was; whole numbers have no `.0`, and nothing stands around the values."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    text = column.cast(pa.string())
    # Most columns need no stripping, which takes time.
    return text if pc.utf8_trim(text, BLANKS + "\"'").equals(text) else stripped_column(text)


def read_labels(
    values: StringColumn, source: str, label_map: Mapping[str, str] | None
) -> tuple[NDArray[np.int64], NDArray | None]:
    """Labels, 1 bona fide and 0 spoof, and trial types where the values are such (target and nontarget are bona fide).

    Raises:
        ScoreFileError: If a label is missing or means neither class as far as is known.
    """
    encoded = flat(values).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    indices = encoded.indices.to_numpy(zero_copy_only=False)
    types = [name if name in TRIAL_TYPES else None for name in names]
    if {"target", "nontarget"} & set(types) and None not in types and not encoded.null_count:
        meanings = np.array([name != "spoof" for name in types], dtype=np.int64)
        return meanings[indices], np.array(types)[indices]
    known = [canonical_label(name, label_map) for name in names]
    unknown = [repr(name) for name, meaning in zip(names, known, strict=True) if meaning is None]
    if encoded.null_count:
        unknown.append("nothing")
    if unknown:
        shown = ", ".join(unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        raise ScoreFileError(
            f"{source}: labels should be bonafide or spoof, but there is {shown}. Say what each label means with "
            "--label_map, for example --label_map 0=spoof 1=bonafide, or which column has the labels with "
            "--label_column."
        )
    return np.array([LABEL_NAMES.index(name) for name in known], dtype=np.int64)[indices], None


def read_numbers(values: StringColumn, source: str, what: str) -> NDArray[np.float64]:
    """Numbers from strings, with a decimal point, a decimal comma or a percent sign (then fractions come of them).

    Raises:
        ScoreFileError: If one is not a finite number, or may have a decimal comma as well as one between thousands.
    """
    try:
        numbers = pc.cast(values, pa.float64())
    except pa.ArrowInvalid:
        numbers = _written_otherwise(flat(values), source, what)
    array = numbers.combine_chunks().to_numpy(zero_copy_only=False) if isinstance(numbers, pa.ChunkedArray) else numbers
    array = np.asarray(array, dtype=np.float64)
    n_bad = int(np.count_nonzero(~np.isfinite(array)))
    if n_bad:
        place = int(np.argmin(np.isfinite(array)))
        raise ScoreFileError(
            f"{source}: {n_bad} of {len(array)} {what}s are NaN or infinite, the first of them number {place + 1}. "
            "Score these clips again, or leave their lines out."
        )
    return array


def _written_otherwise(texts: pa.Array, source: str, what: str) -> pa.Array:
    """Numbers that are not written as Arrow reads them."""
    is_percentage = pc.all(pc.ends_with(texts, "%")).as_py()
    texts = pc.utf8_rtrim(texts, "% ") if is_percentage else texts
    has_comma = pc.match_substring_regex(texts, f"^{_DECIMAL_COMMA}$")
    # A decimal comma is one only in a file that has no decimal points.
    if pc.any(has_comma).as_py() and not pc.any(pc.match_substring(texts, ".")).as_py():
        if pc.all(pc.match_substring_regex(texts.filter(has_comma), f"^{_THOUSANDS}$")).as_py():
            raise ScoreFileError(
                f"{source}: {what}s such as {texts.filter(has_comma)[0]} may have a decimal comma or one between "
                "thousands. Write them with a decimal point."
            )
        texts = pc.replace_substring(texts, ",", ".")
    try:
        numbers = pc.cast(texts, pa.float64())
    except pa.ArrowInvalid:
        values = texts.to_pylist()
        place = next(place for place, text in enumerate(values) if not _is_number(text))  # as Arrow reads numbers
        raise ScoreFileError(f"{source}: {what} number {place + 1} is {values[place]!r}, which is no number.") from None
    return pc.divide(numbers, 100.0) if is_percentage else numbers


def with_unique_ids(clips: Clips, what: str) -> Clips:
    """The clips without lines that say the same twice.

    Raises:
        ScoreFileError: If a line has no id, or an id is there twice with different scores or labels.
    """
    names = pc.fill_null(clips.utterance_ids, "")
    n_nameless = pc.sum(pc.equal(names, "")).as_py() or 0
    if n_nameless:
        place = pc.index(names, "").as_py()
        raise ScoreFileError(
            f"{clips.source}: {n_nameless} of {len(clips)} lines have no utterance id, the first of them number "
            f"{place + 1}. Name these clips, leave their lines out, or say which column has the ids with --id_column."
        )
    encoded = names.dictionary_encode()
    if len(encoded.dictionary) == len(clips):
        return clips
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    for column in (clips.scores, clips.labels, clips.trial_types):
        if column is not None and (column != column[first][inverse]).any():
            place = int(np.argmax(column != column[first][inverse]))
            name = clips.utterance_ids[place].as_py()
            raise ScoreFileError(
                f"{clips.source}: {what} of {name!r} is there twice, and not the same: {column[first][inverse][place]} "
                f"and {column[place]}. {len(clips) - len(first)} of its {len(clips)} lines repeat an utterance id."
            )
    same = pa.array(first[inverse])
    differing = [name for name, column in clips.columns.items() if not column.equals(column.take(same))]
    how = "others word for word" if not differing else f"an utterance id, with another {' and '.join(differing)}"
    note = f"{len(clips) - len(first)} of {len(clips)} lines of {clips.source} repeat {how}: left out."
    return replace(clips.at(np.sort(first)), notes=(*clips.notes, note))


def _is_number(text: str | None) -> bool:
    try:
        pa.scalar(text, pa.string()).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True
