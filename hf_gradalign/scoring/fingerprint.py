"""Fingerprint of everything that affects scores, checked on resume."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from hf_gradalign.metrics import Calibration
from hf_gradalign.scoring.scorer import SpoofScorer

# Other audio with the same names (another folder, or a re-encoded copy) differs nearly everywhere, so a sample is
# enough.
_MAX_CLIPS = 64
_MAX_BYTES = 2**16


def describe_scoring(
    scorer: SpoofScorer,
    utterance_ids: Sequence[str],
    audio: Sequence[Mapping[str, Any] | None],
    model_sha256: str | None = None,
    **further: Any,
) -> dict[str, Any]:
    """Describe everything that affects the scores in a score file, for JSON.

    Args:
        scorer: The scorer.
        utterance_ids: The clips' ids, in order.
        audio: The clips' audio, as `{"bytes", "path"}`.
        model_sha256: `digest_of_weights(scorer.model)`, if already known.
        further: Other settings that the file depends on.

    Returns:
        Settings by name, with digests of the model's weights, the list of clips and their audio.
    """
    return {
        "model_sha256": model_sha256 or digest_of_weights(scorer.model),
        "feature_extractor": type(scorer.feature_extractor).__name__,
        "sampling_rate": scorer.sampling_rate,
        **scorer.windowing.settings,
        "rms_level": scorer.rms_level,
        "dtype": scorer.dtype,
        "batch_size": scorer.batch_size,
        "clips": len(utterance_ids),
        "clips_sha256": hashlib.sha256("\n".join(utterance_ids).encode()).hexdigest(),
        "audio_sha256": digest_of_audio(audio),
        # Only if set, so that unfinished score files of earlier versions can be resumed.
        **({} if scorer.calibration is None else {"calibration": _shorten_calibration(scorer.calibration)}),
        **({"raw_scores": True} if scorer.raw_scores else {}),
        **further,
    }


def _shorten_calibration(calibration: Calibration) -> dict[str, Any]:
    """Return how a calibration changes scores, with a digest of its knots to keep messages short."""
    content = calibration.as_dict()
    if "knots" in content:
        content["knots"] = "sha256:" + hashlib.sha256(json.dumps(content["knots"]).encode()).hexdigest()
    return content


def digest_of_audio(audio: Sequence[Mapping[str, Any] | None]) -> str:
    """Return a SHA-256 of the size, start and end of up to 64 evenly spaced encoded clips, without their paths."""
    digest = hashlib.sha256()
    for index in np.unique(np.linspace(0, len(audio) - 1, _MAX_CLIPS).round().astype(int)).tolist():
        size, ends = _size_and_ends(audio[index] or {})
        digest.update(f"{index} {size}\n".encode() + ends)
    return digest.hexdigest()


def _size_and_ends(clip: Mapping[str, Any]) -> tuple[int, bytes]:
    """Return a clip's size in bytes (0 if its file does not exist), and its first and last bytes."""
    if clip.get("bytes") is not None:
        return len(clip["bytes"]), clip["bytes"][:_MAX_BYTES] + clip["bytes"][-_MAX_BYTES:]
    try:
        with open(clip.get("path") or "", "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(_MAX_BYTES)
            file.seek(max(size - _MAX_BYTES, 0))
            return size, start + file.read(_MAX_BYTES)
    except OSError:
        return 0, b""


def digest_of_weights(model: nn.Module) -> str:
    """Return a SHA-256 of a model's parameters and buffers and their names. Takes a second per GiB.

    Weights are copied from an accelerator on a separate stream, so this does not wait for a running model.
    """
    digest = hashlib.sha256()
    tensors = sorted(model.state_dict().items())
    with _separate_stream(next((tensor.device for _, tensor in tensors), torch.device("cpu"))):
        for name, tensor in tensors:
            data = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(data.numpy())
    return digest.hexdigest()


def _separate_stream(device: torch.device) -> AbstractContextManager[Any]:
    if device.type != "cuda":
        return nullcontext()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))  # wait until the weights are written
    return torch.cuda.stream(stream)
