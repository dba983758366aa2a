"""Reads labels over time: RTTM, or the arrays of labels that come with PartialSpoof."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.data import LABEL_NAMES, canonical_label
from hf_gradalign.data.labels import is_no_label
from hf_gradalign.labels import normalize_label
from hf_gradalign.metrics import Ranges
from hf_gradalign.score_files.array_pickles import load_object_array
from hf_gradalign.score_files.clips import ScoreFileError
from hf_gradalign.score_files.rttm import NOT_SCORED, Turn, read_rttm
from hf_gradalign.utils.messages import first_few

# In the arrays of PartialSpoof.
PARTIALSPOOF = {"0": "spoof", "1": "bonafide"}
# Labels of time that is neither bona fide nor spoofed speech, and is not scored.
_SILENCE = {"sil", "silence", "pause", "nonspeech", "noise", "music", normalize_label(NOT_SCORED)}
_RESOLUTION = re.compile(r"_(\d+(?:\.\d+)?)$")
FOREVER = 1e9
"""The end of labels that hold until their recording ends, in seconds."""


@dataclass(frozen=True)
class SegmentLabels:
    """Labels over time, 1 bona fide and 0 spoof, of several recordings.

    Attributes:
        source: The name of the file, for messages.
        recordings: Labels by recording.
        ends: Where the labels of each recording end, in seconds, including those that are not scored.
        resolution: Length of a label in seconds; None if labels have any length.
        rest_is_bonafide: Whether time without a label is bona fide, because the file has only spoofed turns. Otherwise
            it is not scored.
    """

    source: str
    recordings: dict[str, Ranges]
    ends: dict[str, float]
    resolution: float | None = None
    rest_is_bonafide: bool = False


def read_segment_labels(
    path: str | Path, *, label_map: Mapping[str, str] | None = None, resolution: float | None = None
) -> SegmentLabels:
    """Read labels over time.

    Args:
        path: An RTTM file, whose names are labels, or a `.npy` file with a dictionary of label arrays by recording, as
            PartialSpoof has them (`dev_seglab_0.02.npy`; 0 is spoof and 1 is bona fide). No code in a `.npy` file is
            run.
        label_map: The meaning of other labels, as from `parse_label_map`. Silence, noise and missing labels are known,
            and are not scored.
        resolution: Length of a label of a `.npy` file in seconds. Defaults to the number at the end of its name.

    Raises:
        ScoreFileError: If the file cannot be read, or a label's meaning is unknown.
        OSError: If there is no such file.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return _read_arrays(path, PARTIALSPOOF if label_map is None else label_map, resolution)
    turns = read_rttm(path)
    names = {turn.name for of_recording in turns.values() for turn in of_recording}
    meaning = _meanings(names, path, label_map)
    rest_is_bonafide = 1 not in meaning.values()
    return SegmentLabels(
        str(path),
        {name: _ranges_of_turns(of_recording, meaning, rest_is_bonafide) for name, of_recording in turns.items()},
        {name: max(turn.end for turn in of_recording) for name, of_recording in turns.items()},
        rest_is_bonafide=rest_is_bonafide,
    )


def _read_arrays(path: Path, label_map: Mapping[str, str], resolution: float | None) -> SegmentLabels:
    content = load_object_array(path)
    if not isinstance(content, dict) or not content:
        raise ScoreFileError(
            f"{path} does not contain a dictionary of labels by recording, as PartialSpoof's files do."
        )
    if resolution is None:
        if not (found := _RESOLUTION.search(path.stem)):
            raise ScoreFileError(
                f"The name of {path} does not end in the length of a label, like dev_seglab_0.02.npy. Say how many "
                "seconds a label lasts with --label_resolution."
            )
        resolution = float(found[1])
    if not 0 < resolution < np.inf:
        raise ScoreFileError(f"A label of {path} cannot last {resolution} s.")
    arrays: dict[str, NDArray] = {}
    for name, values in content.items():
        array = np.asarray(values)
        if not isinstance(name, str) or array.ndim != 1:
            raise ScoreFileError(f"{path} has no list of labels for {name!r}.")
        arrays[name] = np.array([_text(value) for value in array.tolist()]) if array.dtype.kind in "OS" else array
    distinct = {_text(value) for array in arrays.values() for value in np.unique(array).tolist()}
    meaning = _meanings(distinct, path, label_map)
    ranges = {name: _ranges_of_array(array, meaning, resolution) for name, array in arrays.items()}
    ends = {name: len(array) * resolution for name, array in arrays.items()}
    return SegmentLabels(str(path), ranges, ends, resolution)


def _meanings(names: set[str], path: Path, label_map: Mapping[str, str] | None) -> dict[str, int | None]:
    """Return 1, 0, or None for labels that are not scored, by name."""
    meanings: dict[str, int | None] = {}
    unknown = []
    for name in names:
        label = canonical_label(name, label_map)
        if label is not None:
            meanings[name] = LABEL_NAMES.index(label)
        elif normalize_label(name) in _SILENCE or is_no_label(name, label_map):
            meanings[name] = None
        else:
            unknown.append(name)
    if unknown:
        raise ScoreFileError(
            f"Cannot tell which labels of {path} mean spoof and which bona fide: {first_few(sorted(unknown), 10)}. Say "
            "what each means with --label_map, for example --label_map A07=spoof speaker1=bonafide."
        )
    return meanings


def _ranges_of_turns(turns: Sequence[Turn], meaning: Mapping[str, int | None], rest_is_bonafide: bool) -> Ranges:
    """Return the ranges of turns. Where turns overlap, unscored time takes precedence, then spoof."""
    whole = (0.0, FOREVER) if rest_is_bonafide else ()
    edges = np.unique([*whole, *(time for turn in turns for time in (turn.start, turn.end))])
    values = np.full(max(len(edges) - 1, 0), 1.0 if rest_is_bonafide else np.nan)
    for wanted in (1, 0, None):
        for turn in turns:
            if meaning[turn.name] == wanted:
                covered = slice(np.searchsorted(edges, turn.start), np.searchsorted(edges, turn.end))
                values[covered] = np.nan if wanted is None else wanted
    kept = ~np.isnan(values)
    return Ranges(edges[:-1][kept], edges[1:][kept], values[kept])


def _ranges_of_array(array: NDArray, meaning: Mapping[str, int | None], resolution: float) -> Ranges:
    changes = np.flatnonzero(array[1:] != array[:-1]) + 1
    starts = np.append(0, changes)[: len(array)]
    ends = np.append(changes, len(array))[: len(array)]
    values = np.array([meaning[_text(array[start].item())] for start in starts], dtype=np.float64)
    kept = ~np.isnan(values)
    return Ranges(starts[kept] * resolution, ends[kept] * resolution, values[kept])


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
