"""Clips in whatever form a caller has them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch


def as_clips(clips: Any, sampling_rate: int | None = None) -> list[Any]:
    """A list of clips that a `ChunkDataset` takes.

    Args:
        clips: A sequence of clips, or one: paths, encoded files' bytes, waveforms (NumPy, torch, lists), or mappings
            with `array` and `sampling_rate`, or with `bytes` or `path`.
        sampling_rate: Of the waveforms, in Hz.
    """
    is_waveform = isinstance(clips, np.ndarray | torch.Tensor) and clips.ndim == 1
    if is_waveform or isinstance(clips, str | bytes | os.PathLike | Mapping):
        clips = [clips]
    return [_as_clip(clip, sampling_rate) for clip in clips]


def name_of(clip: Any, place: int) -> str:
    """How a clip is called in messages: by its path, or else by its place."""
    path = clip.get("path") if isinstance(clip, Mapping) else clip
    return os.fspath(path) if isinstance(path, str | os.PathLike) else f"clip {place}"


def _as_clip(clip: Any, sampling_rate: int | None) -> Any:
    if hasattr(clip, "get_all_samples"):  # a torchcodec decoder, as datasets gives it for a decoded column
        samples = clip.get_all_samples()
        return {"array": samples.data.numpy(), "sampling_rate": samples.sample_rate}
    if isinstance(clip, torch.Tensor):
        clip = clip.detach().cpu().numpy()
    if isinstance(clip, np.ndarray) or (isinstance(clip, Sequence) and not isinstance(clip, str | bytes)):
        return {"array": np.asarray(clip), "sampling_rate": sampling_rate}
    return clip
