"""Checks that clips can be decoded, before and during training, and that their samples are in range."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np
import torch
from datasets import Dataset, Features, Value
from numpy.typing import NDArray

from hf_gradalign.data.columns import with_encoded_audio
from hf_gradalign.data.decoding import AudioDecodingError, decode_clip
from hf_gradalign.utils.messages import check_choice, first_few

logger = logging.getLogger(__name__)

OnBadAudio = Literal["stop", "skip"]

_MAX_LISTED = 20
# Allows for the overshoot of resampling.
_HIGHEST_PEAK = 1.001
# Higher peaks look like integers.
_INTEGER_PEAK = 100
_INTEGER_BITS = (16, 24, 32)
# One step of 32-bit integers. Smaller differences between samples are only rounding.
_SMALLEST_STEP = 2.0**-31


@dataclass(frozen=True)
class BadClip:
    """A clip that cannot be decoded.

    Args:
        utterance_id: The clip's name in the corpus.
        path: The clip's file; None if the corpus contains bytes.
        reason: What is wrong with the clip.
    """

    utterance_id: str
    path: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.utterance_id}{f' ({self.path})' if self.path else ''}: {self.reason}"


class BadAudioError(ValueError):
    """Clips of a corpus cannot be decoded.

    Attributes:
        bad_clips: All bad clips, in the corpus' order.
    """

    def __init__(self, message: str, bad_clips: list[BadClip]) -> None:
        super().__init__(message)
        self.bad_clips = bad_clips


def check_audio(
    dataset: Dataset,
    sampling_rate: int | None = None,
    *,
    on_bad_audio: OnBadAudio = "stop",
    num_proc: int | None = None,
) -> Dataset:
    """Decode every clip once, so that a corrupt one does not end training hours later.

    Shows a progress bar. Warns of samples outside [-1, 1].

    Args:
        dataset: With the column `audio` (not decoded), and optionally `utterance_id`.
        sampling_rate: The rate that clips will be resampled to, in Hz. None checks them at their own rate.
        on_bad_audio: `stop` raises if any clip is bad. `skip` leaves bad clips out and warns.
        num_proc: Number of processes.

    Returns:
        The data set without its bad clips.

    Raises:
        BadAudioError: If there are bad clips and `on_bad_audio` is `stop`, or if all clips are bad.
        ValueError: If `on_bad_audio` is neither.
    """
    check_choice("on_bad_audio", on_bad_audio, OnBadAudio)
    dataset = with_encoded_audio(dataset.with_format(None))
    parallel = num_proc is not None and num_proc > 1
    checked = dataset.select_columns(["audio"]).map(
        _find_problem,
        input_columns="audio",
        remove_columns="audio",
        features=Features({"reason": Value("string"), "peak": Value("float32")}),
        fn_kwargs={"sampling_rate": sampling_rate, "single_thread": parallel},
        num_proc=num_proc if parallel else None,
        desc="Checking audio",
        # Not cached, because files may change while the table that names them stays the same.
        keep_in_memory=True,
    )
    _warn_about_out_of_range(dataset, checked["peak"][:])
    reasons = checked["reason"][:]
    bad = [index for index, reason in enumerate(reasons) if reason is not None]
    if not bad:
        return dataset
    bad_clips = [_bad_clip(dataset, index, reasons[index]) for index in bad]
    summary = f"{len(bad)} of {len(dataset)} clips cannot be decoded:\n{_list_clips(bad_clips)}"
    if len(bad) == len(dataset):
        raise BadAudioError(f"{summary}\nNo clip is left.", bad_clips)
    if on_bad_audio == "stop":
        raise BadAudioError(f"{summary}\nFix them, or leave them out with --on_bad_audio skip.", bad_clips)
    logger.warning("Left out: %s", summary)
    is_bad = set(bad)
    return dataset.select([index for index in range(len(dataset)) if index not in is_bad])


class BadAudioReport:
    """Reports bad clips in training: raises, or warns once per clip.

    Args:
        on_bad_audio: `stop` or `skip`.

    Raises:
        ValueError: If it is neither.
    """

    def __init__(self, on_bad_audio: OnBadAudio) -> None:
        check_choice("on_bad_audio", on_bad_audio, OnBadAudio)
        self._skips = on_bad_audio == "skip"
        self._reported: set[str] = set()

    def report(self, error: AudioDecodingError) -> None:
        """Report a bad clip.

        Raises:
            AudioDecodingError: `error`, unless bad clips are skipped.
        """
        if not self._skips:
            raise error
        message = str(error)
        if message not in self._reported:
            self._reported.add(message)
            logger.warning("Left out in training: %s", message)


class OutOfRangeClips:
    """Counts the clips with samples outside [-1, 1], as floating-point files and arrays allow.

    Attributes:
        n_clips: Number of these clips.
        peak: The largest absolute value.
        loudest: The clip with this value.
    """

    def __init__(self) -> None:
        self.n_clips = 0
        self.peak = 0.0
        self.loudest = ""

    def add(self, name: str, peak: float | None) -> None:
        """Count a clip if its peak is out of range. None stands for files that are always in range."""
        if is_out_of_range(peak):
            self.n_clips += 1
            if peak > self.peak:
                self.peak, self.loudest = peak, name

    def note(self, total: int) -> str | None:
        """Return a message about these clips among `total` clips; None if there are none."""
        if not self.n_clips:
            return None
        return (
            f"{self.n_clips} of {total} clips have samples outside [-1, 1]: up to {self.peak:.6g}, in {self.loudest}. "
            + _advice(self.peak)
            + "They are used unchanged, and their level affects models that do not normalize their input"
        )


def is_out_of_range(peak: float | None) -> TypeGuard[float]:
    """Return whether a peak (largest absolute value) is out of range. None stands for files always in range."""
    return peak is not None and peak > _HIGHEST_PEAK


def is_silent(samples: NDArray[np.float32]) -> bool:
    """Return whether all samples of a waveform, shape (time,), are equal."""
    return float(samples.max() - samples.min()) < _SMALLEST_STEP


def silence_note(names: Sequence[str], total: int) -> str | None:
    """Return a message about silent clips (`is_silent`) among `total` clips; None if there are none."""
    if not names:
        return None
    return (
        f"{len(names)} of {total} clips are silent in the part that the model scores (all samples are equal, perhaps "
        f"because channels cancel out): {first_few(names, _MAX_LISTED)}. Their scores say nothing about speech"
    )


def _advice(peak: float) -> str:
    bits = next((bits for bits in _INTEGER_BITS if _INTEGER_PEAK < peak <= 2 ** (bits - 1)), None)
    return "" if bits is None else f"They look like {bits}-bit integers: divide them by {2 ** (bits - 1)}. "


def _find_problem(audio: dict[str, Any] | None, sampling_rate: int | None, single_thread: bool) -> dict[str, Any]:
    if single_thread:
        torch.set_num_threads(1)  # OpenMP may hang in a forked process, and the processes would compete
    try:
        return {"reason": None, "peak": decode_clip(audio, sampling_rate).peak}
    except AudioDecodingError as error:
        return {"reason": error.reason, "peak": None}


def _warn_about_out_of_range(dataset: Dataset, peaks: list[float | None]) -> None:
    clips = OutOfRangeClips()
    for index, peak in enumerate(peaks):
        if is_out_of_range(peak):
            clips.add(_name(dataset[index], index), peak)
    if note := clips.note(len(dataset)):
        logger.warning("%s.", note)


def _name(row: dict[str, Any], index: int) -> str:
    return str(row.get("utterance_id", f"row {index}"))


def _bad_clip(dataset: Dataset, index: int, reason: str) -> BadClip:
    row = dataset[index]
    return BadClip(_name(row, index), (row["audio"] or {}).get("path"), reason)


def _list_clips(bad_clips: list[BadClip]) -> str:
    lines = [f"  {clip}" for clip in bad_clips[:_MAX_LISTED]]
    if len(bad_clips) > _MAX_LISTED:
        lines.append(f"  ... and {len(bad_clips) - _MAX_LISTED} more")
    return "\n".join(lines)
