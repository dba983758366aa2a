"""What scores depend on, so that a scoring is never continued, or taken for done, with anything else."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hf_gradalign.scoring.scorer import SpoofScorer


def describe_scoring(scorer: SpoofScorer, utterance_ids: Sequence[str], **further: Any) -> dict[str, Any]:
    """Everything that a score file is the result of, ready for JSON.

    Args:
        scorer: The scorer.
        utterance_ids: Of the clips, in order.
        further: What else the file depends on.

    Returns:
        Settings by name; digests stand for the model's weights and the list of clips.
    """
    windowing = scorer.windowing
    return {
        "model_sha256": digest_of_weights(scorer.model),
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
        **further,
    }


def digest_of_weights(model: nn.Module) -> str:
    """SHA-256 over all of a model's parameters and buffers, their names included; a second per GiB."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        data = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(data.numpy())
    return digest.hexdigest()
