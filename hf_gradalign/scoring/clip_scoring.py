"""Score clips into arrays, with messages on those that cannot be scored or whose scores may mislead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers.utils import logging

from hf_gradalign.data import BadAudioError, BadClip
from hf_gradalign.data.checking import OutOfRangeClips, silence_note
from hf_gradalign.scoring.chunks import as_clips, name_of

if TYPE_CHECKING:
    from hf_gradalign.scoring.scorer import SpoofScorer

logger = logging.get_logger(__name__)


def score_clips(
    scorer: SpoofScorer,
    clips: Any,
    sampling_rate: int | None = None,
    *,
    on_bad_audio: Literal["stop", "nan"] = "stop",
    progress: bool = False,
) -> tuple[NDArray[np.float64], set[int]]:
    """Score clips. Same as `SpoofScorer.score`, but also returns which clips are silent.

    Returns:
        Scores of shape (clips,), and the indices of silent clips.
    """
    if on_bad_audio not in ("stop", "nan"):
        raise ValueError(f"on_bad_audio must be stop or nan, not {on_bad_audio!r}")
    clips = as_clips(clips, sampling_rate)
    scores = np.full(len(clips), np.nan)
    bad: list[BadClip] = []
    loud = OutOfRangeClips()
    silent: set[int] = set()
    chunks = scorer.chunks(clips)
    with tqdm(total=len(clips), unit="clip", desc="Scoring", disable=not progress) as bar:
        for chunk, chunk_scores in scorer.score_chunks(chunks):
            start, stop = chunks.bounds(chunk.number)
            scores[start:stop] = chunk_scores
            bad += [
                BadClip(name_of(clips[start + index], start + index), None, reason)
                for index, reason in sorted(chunk.bad.items())
            ]
            for index, peak in chunk.loud.items():
                loud.add(name_of(clips[start + index], start + index), peak)
            silent |= {start + index for index in chunk.silent}
            bar.update(stop - start)
    silent_names = [name_of(clips[index], index) for index in sorted(silent)]
    for note in (loud.note(len(clips)), silence_note(silent_names, len(clips))):
        if note:
            logger.warning(f"{note}.")
    if bad:
        listed = "\n".join(f"  {clip}" for clip in bad[:20]) + (f"\n  ... {len(bad) - 20} more" * (len(bad) > 20))
        message = f"{len(bad)} of {len(clips)} clips cannot be scored:\n{listed}"
        if on_bad_audio == "stop":
            raise BadAudioError(f'{message}\nFix them, or score them as NaN with on_bad_audio="nan".', bad)
        logger.warning(f"Scored as NaN: {message}")
    return scores, silent
