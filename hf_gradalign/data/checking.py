"""Decode every clip once before training, so that a corrupt one does not end it hours later."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset, Features, Value

from hf_gradalign.data.bad_audio import OnBadAudio, check_on_bad_audio
from hf_gradalign.data.decoding import AudioDecodingError, decode_clip
from hf_gradalign.data.encoded_audio import with_encoded_audio
from hf_gradalign.data.out_of_range import OutOfRangeClips, is_out_of_range

logger = logging.getLogger(__name__)

_SHOWN = 20


@dataclass(frozen=True)
class BadClip:
    """A clip that cannot be decoded.

    Args:
        utterance_id: its name in the corpus.
        path: its file, None where the corpus holds bytes only.
        reason: what is wrong with it.
    """

    utterance_id: str
    path: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.utterance_id}{f' ({self.path})' if self.path else ''}: {self.reason}"


class BadAudioError(ValueError):
    """Clips of a corpus cannot be decoded.

    Attributes:
        bad_clips: all of them, in the corpus' order.
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
    """Decode every clip once, with a progress bar; a note in the log says whether samples lie outside [-1, 1].

    Args:
        dataset: with the columns `audio` (not decoded) and, if there is one, `utterance_id`.
        sampling_rate: the rate that clips will be resampled to, in Hz; None checks them at their own.
        on_bad_audio: `stop` raises if any clip is bad; `skip` leaves bad clips out and logs a warning that lists them.
        num_proc: processes that share the work.

    Returns:
        The data set, without its bad clips.

    Raises:
        BadAudioError: if there are bad clips and `on_bad_audio` is `stop`, or if all clips are bad.
        ValueError: if `on_bad_audio` is neither.
    """
    check_on_bad_audio(on_bad_audio)
    dataset = with_encoded_audio(dataset.with_format(None))
    parallel = num_proc is not None and num_proc > 1
    checked = dataset.select_columns(["audio"]).map(
        _reason,
        input_columns="audio",
        remove_columns="audio",
        features=Features({"reason": Value("string"), "peak": Value("float32")}),
        fn_kwargs={"sampling_rate": sampling_rate, "one_thread": parallel},
        num_proc=num_proc if parallel else None,
        desc="Checking audio",
        # And not in the cache: the files may change though the table that names them does not.
        keep_in_memory=True,
    )
    _tell_of_out_of_range(dataset, checked["peak"][:])
    reasons = checked["reason"][:]
    bad = [index for index, reason in enumerate(reasons) if reason is not None]
    if not bad:
        return dataset
    bad_clips = [_bad_clip(dataset, index, reasons[index]) for index in bad]
    summary = f"{len(bad)} of {len(dataset)} clips cannot be decoded:\n{_listed(bad_clips)}"
    if len(bad) == len(dataset):
        raise BadAudioError(f"{summary}\nNo clip is left.", bad_clips)
    if on_bad_audio == "stop":
        raise BadAudioError(f"{summary}\nFix them, or leave them out with --on_bad_audio skip.", bad_clips)
    logger.warning("Left out: %s", summary)
    is_bad = set(bad)
    return dataset.select([index for index in range(len(dataset)) if index not in is_bad])


def _reason(audio: dict[str, Any] | None, sampling_rate: int | None, one_thread: bool) -> dict[str, Any]:
    if one_thread:
        torch.set_num_threads(1)  # In a forked process OpenMP may hang, and the processes would compete anyway.
    try:
        return {"reason": None, "peak": decode_clip(audio, sampling_rate).peak}
    except AudioDecodingError as error:
        return {"reason": error.reason, "peak": None}


def _tell_of_out_of_range(dataset: Dataset, peaks: list[float | None]) -> None:
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


def _listed(bad_clips: list[BadClip]) -> str:
    lines = [f"  {clip}" for clip in bad_clips[:_SHOWN]]
    if len(bad_clips) > _SHOWN:
        lines.append(f"  ... and {len(bad_clips) - _SHOWN} more")
    return "\n".join(lines)
