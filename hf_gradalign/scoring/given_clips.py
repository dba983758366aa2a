"""Clips in whatever form a caller has them."""

import os
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch

from hf_gradalign.audio.arrays import MOST_CHANNELS


def as_clips(clips: Any, sampling_rate: int | None = None) -> list[Any]:
    """A list of clips that a `ChunkDataset` takes.

    Args:
        clips: A sequence of clips, or one: paths, encoded files' bytes, waveforms (NumPy, torch, lists), or mappings
            with `array` and `sampling_rate`, or with `bytes` or `path`. An array of numbers is one clip, whatever its
            shape; so is a list of numbers, and one of many short lists (a clip by samples and channels). Any other
            list has a clip in each place.
        sampling_rate: Of the waveforms, in Hz.

    Raises:
        ValueError: If there is a number where a clip should be.
    """
    if isinstance(clips, str | bytes | bytearray | os.PathLike | Mapping) or _is_waveform(clips):
        clips = [clips]
    clips = list(clips)
    for place, clip in enumerate(clips):
        if isinstance(clip, Real):
            raise ValueError(
                f"clip {place} is the number {clip}. Give a waveform's rate as sampling_rate=..., or a clip as "
                '{"array": ..., "sampling_rate": ...}'
            )
    return [_as_clip(clip, sampling_rate) for clip in clips]


def _is_waveform(clips: Any) -> bool:
    if isinstance(clips, torch.Tensor):
        return True
    if isinstance(clips, np.ndarray):
        return clips.dtype.kind not in "OSU"  # arrays of paths, of bytes and of arrays are sequences
    if not isinstance(clips, list | tuple) or not clips:
        return False
    if all(isinstance(value, Real) for value in clips):
        return True
    return len(clips) > MOST_CHANNELS and all(
        isinstance(values, list | tuple)
        and 0 < len(values) <= MOST_CHANNELS
        and all(isinstance(value, Real) for value in values)
        for values in clips
    )


def name_of(clip: Any, place: int) -> str:
    """How a clip is called in messages: by its path, or else by its place."""
    path = clip.get("path") if isinstance(clip, Mapping) else clip
    return os.fspath(path) if isinstance(path, str | os.PathLike) else f"clip {place}"


def _as_clip(clip: Any, sampling_rate: int | None) -> Any:
    if hasattr(clip, "get_all_samples"):  # a torchcodec decoder, as datasets gives it for a decoded column
        samples = clip.get_all_samples()
        return {"array": samples.data.numpy(), "sampling_rate": samples.sample_rate}
    if isinstance(clip, bytearray | memoryview):
        return bytes(clip)
    if isinstance(clip, torch.Tensor | np.ndarray) or (
        isinstance(clip, Sequence) and not isinstance(clip, str | bytes)
    ):
        return {"array": clip, "sampling_rate": sampling_rate}
    return clip
