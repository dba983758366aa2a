"""The content of score and key files as columns, and the checks that both kinds of files need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hf_gradalign.data import LABEL_NAMES, canonical_label
from hf_gradalign.data.arrow import Column, flat
from hf_gradalign.metrics import TRIAL_TYPES
from hf_gradalign.utils.messages import first_few
from hf_gradalign.utils.plain_text import BLANKS, stripped_column

_DECIMAL_COMMA = r"[-+]?\d+,\d+([eE][-+]?\d+)?"
_THOUSANDS = r"[-+]?[1-9]\d{0,2}(,\d{3})+"


ScoreForm = Literal["as written", "negated", "probability", "difference", "confidence"]
"""How scores were made from those in a file. "probability" and "difference" combine the scores of both classes, and
"confidence" is the probability of bona fide from that of the predicted label."""


class ScoreFileError(ValueError):
    """A score or key file that cannot be used. The message says what is wrong and what to do."""


@dataclass(frozen=True)
class Verdicts:
    """Labels in a score file that may be predictions of the system instead of the ground truth.

    Attributes:
        labels: 1 bona fide and 0 spoof. If it is unknown which is which, 0 and 1 in any order, and -1 for other values.
        are_known: Whether it is known which label is which.
        is_direction_given: Whether the user said what a high score means.
    """

    labels: NDArray[np.int64]
    are_known: bool = True
    is_direction_given: bool = False


@dataclass(frozen=True)
class Clips:
    """The content of a file about clips, or about trials of speaker verification, as columns of the same length.

    Attributes:
        source: The name of the file, for messages.
        utterance_ids: Unique names.
        scores: Higher for bona fide; None if the file has none.
        labels: 1 bona fide and 0 spoof; None if the file has none.
        trial_types: "target", "nontarget" or "spoof"; None if the file has none.
        columns: Other columns by name, as strings.
        notes: Notes for the user on how the file was read.
        other_ids: Names of clips that were skipped on purpose, such as those of another subset.
        verdicts: Labels of a score file that may be predictions; None if there are none or they are the ground truth.
        score_form: How the scores were made from those in the file.
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
    score_form: ScoreForm = "as written"

    def __len__(self) -> int:
        return len(self.utterance_ids)

    def scores_and_labels(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the scores and the labels.

        Raises:
            ScoreFileError: If there are no scores or no labels.
        """
        if self.scores is None or self.labels is None:
            missing = "scores" if self.scores is None else "labels"
            raise ScoreFileError(f"{self.source} has no {missing}. Combine scores and labels with match_keys.")
        return self.scores, self.labels

    def require_no_trials(self) -> None:
        """Raise ScoreFileError if these are trials of speaker verification, which have two kinds of bona fide clips."""
        if self.trial_types is not None:
            raise ScoreFileError(
                f"{self.source} has trials of speaker verification (labels that are target, nontarget or spoof), but "
                "log-likelihood ratios are of bona fide against spoof. Give keys with these two labels."
            )

    def scores_and_verdicts(self) -> tuple[NDArray[np.float64], Verdicts]:
        """Return the scores and the verdicts of a score file that has both."""
        assert self.scores is not None, "the caller knows that there are scores"
        assert self.verdicts is not None, "the caller knows that there are verdicts"
        return self.scores, self.verdicts

    def take(self, indices: NDArray[np.integer]) -> Clips:
        """Return the clips at these indices, in that order."""
        taken = pa.array(indices, pa.int64())
        return replace(
            self,
            utterance_ids=self.utterance_ids.take(taken),
            scores=None if self.scores is None else self.scores[indices],
            labels=None if self.labels is None else self.labels[indices],
            trial_types=None if self.trial_types is None else self.trial_types[indices],
            columns={name: column.take(taken) for name, column in self.columns.items()},
            verdicts=None if self.verdicts is None else replace(self.verdicts, labels=self.verdicts.labels[indices]),
        )


def as_text(column: Column) -> pa.Array:
    """Return a column as one array of strings, without quotes or blanks around values and `.0` after whole numbers."""
    column = flat(column)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    text = column.cast(pa.string())
    # Most columns have nothing to strip, and checking is faster than stripping.
    return text if pc.utf8_trim(text, BLANKS + "\"'").equals(text) else stripped_column(text)


def read_labels(
    values: Column, source: str, label_map: Mapping[str, str] | None
) -> tuple[NDArray[np.int64], NDArray | None]:
    """Convert values to labels (1 bona fide, 0 spoof), and also to trial types if they are trial types.

    Target and nontarget trials are bona fide.

    Raises:
        ScoreFileError: If a label is missing, or its meaning is unknown.
    """
    encoded = as_text(values).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    indices = encoded.indices.to_numpy(zero_copy_only=False)
    types = [name if name in TRIAL_TYPES else None for name in names]
    if {"target", "nontarget"} & set(types) and None not in types and not encoded.null_count:
        meanings = np.array([name != "spoof" for name in types], dtype=np.int64)
        return meanings[indices], np.array(types)[indices]
    known = [canonical_label(name, label_map) for name in names]
    unknown = [repr(name) for name, meaning in zip(names, known, strict=True) if meaning is None]
    if encoded.null_count:
        unknown.append("an empty value")
    if unknown:
        raise ScoreFileError(
            f"{source}: labels must be bonafide or spoof; found {first_few(unknown, 10)}. Say what each label means "
            "with --label_map, for example --label_map 0=spoof 1=bonafide, or choose the column of labels with "
            "--label_column."
        )
    return np.array([LABEL_NAMES.index(name) for name in known if name], dtype=np.int64)[indices], None


def read_numbers(values: Column, source: str, what: str) -> NDArray[np.float64]:
    """Convert strings to numbers. They may have a decimal point, a decimal comma, or a percent sign (25 % gives 0.25).

    Raises:
        ScoreFileError: If a value is not a finite number, or if its comma could also separate thousands.
    """
    try:
        numbers = pc.cast(values, pa.float64())
    except pa.ArrowInvalid:
        numbers = _parse_other_notation(as_text(values), source, what)
    array = np.asarray(flat(numbers).to_numpy(zero_copy_only=False), dtype=np.float64)
    n_bad = int(np.count_nonzero(~np.isfinite(array)))
    if n_bad:
        index = int(np.argmin(np.isfinite(array)))
        raise ScoreFileError(
            f"{source}: {n_bad} of {len(array)} {what}s are NaN or infinite; the first is number {index + 1}. "
            "Score these clips again, or remove their lines."
        )
    return array


def with_unique_ids(clips: Clips) -> Clips:
    """Return the clips without lines that repeat others.

    Raises:
        ScoreFileError: If a line has no id, or an id has two different scores or labels.
    """
    names = pc.fill_null(clips.utterance_ids, "")
    n_nameless = pc.sum(pc.equal(names, "")).as_py() or 0
    if n_nameless:
        index = pc.index(names, "").as_py()
        raise ScoreFileError(
            f"{clips.source}: {n_nameless} of {len(clips)} lines have no utterance id; the first is number "
            f"{index + 1}. Name these clips, remove their lines, or say which column has the ids with --id_column."
        )
    encoded = names.dictionary_encode()
    if len(encoded.dictionary) == len(clips):
        return clips
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    names_of_labels = None if clips.labels is None else np.array(LABEL_NAMES)[clips.labels]
    for what, column in (("score", clips.scores), ("label", names_of_labels), ("trial type", clips.trial_types)):
        if column is not None and (column != column[first][inverse]).any():
            index = int(np.argmax(column != column[first][inverse]))
            name = clips.utterance_ids[index].as_py()
            raise ScoreFileError(
                f"{clips.source}: {name!r} has two values of the {what}: {column[first][inverse][index]} and "
                f"{column[index]}. {len(clips) - len(first)} of {len(clips)} lines repeat an utterance id. Remove the "
                "wrong ones."
            )
    same = pa.array(first[inverse])
    differing = [name for name, column in clips.columns.items() if not column.equals(column.take(same))]
    how = "other lines exactly" if not differing else f"an utterance id, with another {' and '.join(differing)}"
    note = f"{len(clips) - len(first)} of {len(clips)} lines of {clips.source} repeat {how}, and are skipped."
    return replace(clips.take(np.sort(first)), notes=(*clips.notes, note))


def _parse_other_notation(texts: pa.Array, source: str, what: str) -> pa.Array:
    """Parse numbers in notations that Arrow does not read."""
    is_percentage = pc.all(pc.ends_with(texts, "%")).as_py()
    texts = pc.utf8_rtrim(texts, "% ") if is_percentage else texts
    has_comma = pc.match_substring_regex(texts, f"^{_DECIMAL_COMMA}$")
    # A comma can be a decimal comma only if the file has no decimal points.
    if pc.any(has_comma).as_py() and not pc.any(pc.match_substring(texts, ".")).as_py():
        if pc.all(pc.match_substring_regex(texts.filter(has_comma), f"^{_THOUSANDS}$")).as_py():
            raise ScoreFileError(
                f"{source}: the comma in {what}s such as {texts.filter(has_comma)[0]} may be a decimal comma or "
                "separate thousands. Write them with a decimal point."
            )
        texts = pc.replace_substring(texts, ",", ".")
    try:
        numbers = pc.cast(texts, pa.float64())
    except pa.ArrowInvalid:
        values = texts.to_pylist()
        index = next(index for index, text in enumerate(values) if not _is_arrow_number(text))
        raise ScoreFileError(
            f"{source}: {what} number {index + 1} is {values[index]!r}, which is not a number."
        ) from None
    return pc.divide(numbers, 100.0) if is_percentage else numbers


def _is_arrow_number(text: str | None) -> bool:
    try:
        pa.scalar(text, pa.string()).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True
