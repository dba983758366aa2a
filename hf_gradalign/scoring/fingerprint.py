"""What scores depend on, so that a scoring is never continued, or taken for done, with anything else."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from hf_gradalign.scoring.scorer import SpoofScorer

# Other audio of the same names (another folder, a copy through a codec) differs nearly everywhere: a few clips tell it.
_CLIPS_LOOKED_AT = 64
_BYTES_LOOKED_AT = 2**16


def describe_scoring(
    scorer: SpoofScorer,
    utterance_ids: Sequence[str],
    audio: Sequence[Mapping[str, Any] | None],
    model_sha256: str | None = None,
    **further: Any,
) -> dict[str, Any]:
    """Everything that a score file is the result of, ready for JSON.

    Args:
        scorer: The scorer.
        utterance_ids: Of the clips, in order.
        audio: Of the clips, `{"bytes", "path"}` each.
        model_sha256: `digest_of_weights(scorer.model)`, where it is known already.
        further: What else the file depends on.

    Returns:
        Settings by name; digests stand for the model's weights, the list of clips and their audio.
    """
    windowing = scorer.windowing
    return {
        "model_sha256": model_sha256 or digest_of_weights(scorer.model),
        "feature_extractor": type(scorer.feature_extractor).__name__,
        "sampling_rate": scorer.sampling_rate,
        "windows": windowing.mode,
        "window_samples": None if windowing.mode == "whole" else windowing.n_samples,
        "hop_samples": windowing.hop_samples if windowing.mode == "all" else None,
        "combine": windowing.combine if windowing.mode == "all" else None,
        "rms_level": scorer.rms_level,
        "dtype": scorer.dtype,
        "batch_size": scorer.batch_size,
        "clips": len(utterance_ids),
        "clips_sha256": hashlib.sha256("\n".join(utterance_ids).encode()).hexdigest(),
        "audio_sha256": digest_of_audio(audio),
        **further,
    }


def digest_of_audio(audio: Sequence[Mapping[str, Any] | None]) -> str:
    """SHA-256 over the size, start and end of up to 64 clips, evenly spread, as encoded; wherever the files lie."""
    digest = hashlib.sha256()
    for place in np.unique(np.linspace(0, len(audio) - 1, _CLIPS_LOOKED_AT).round().astype(int)).tolist():
        size, ends = _size_and_ends(audio[place] or {})
        digest.update(f"{place} {size}\n".encode() + ends)
    return digest.hexdigest()


def _size_and_ends(clip: Mapping[str, Any]) -> tuple[int, bytes]:
    """How many bytes a clip has, and the first and last of them; none of a file that is not there."""
    if clip.get("bytes") is not None:
        return len(clip["bytes"]), clip["bytes"][:_BYTES_LOOKED_AT] + clip["bytes"][-_BYTES_LOOKED_AT:]
    try:
        with open(clip.get("path") or "", "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(_BYTES_LOOKED_AT)
            file.seek(max(size - _BYTES_LOOKED_AT, 0))
            return size, start + file.read(_BYTES_LOOKED_AT)
    except OSError:
        return 0, b""


def digest_of_weights(model: nn.Module) -> str:
    """SHA-256 over all of a model's parameters and buffers, their names included; a second per GiB.

    Weights come from an accelerator by a stream of their own, so that a model that computes meanwhile is not waited
    for.
    """
    digest = hashlib.sha256()
    tensors = sorted(model.state_dict().items())
    with _stream_of_its_own(next((tensor.device for _, tensor in tensors), torch.device("cpu"))):
        for name, tensor in tensors:
            data = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(data.numpy())
    return digest.hexdigest()


def _stream_of_its_own(device: torch.device) -> AbstractContextManager[Any]:
    if device.type != "cuda":
        return nullcontext()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))  # what is still writing the weights comes first
    return torch.cuda.stream(stream)
