"""What a dry run trains where there is no data and no network: random weights, synthetic clips."""

import io
from typing import Any

import datasets
import numpy as np
import soundfile
from datasets import Dataset
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from transformers import AutoConfig, PretrainedConfig

from hf_gradalign.models import ID2LABEL
from hf_gradalign.models.configuration_spoof_detector import XLS_R_300M

_BUILT_IN: dict[str, dict[str, Any]] = {"facebook/wav2vec2-xls-r-300m": XLS_R_300M}


def is_out_of_reach(error: BaseException) -> bool:
    """Whether an error means that the Hub was not reached, rather than that it has no such model."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def stand_in_config(name: str, **hub_options: Any) -> PretrainedConfig | None:
    """The configuration of a model whose weights are not to be had: the Hub's from the cache, or a built-in one.

    Args:
        name: Hub id.
        hub_options: `revision`, `cache_dir`, `trust_remote_code`.

    Returns:
        The configuration; None where neither is there.
    """
    try:
        return AutoConfig.from_pretrained(name, local_files_only=True, **hub_options)
    except OSError:
        fields = _BUILT_IN.get(name)
    if fields is None:
        return None
    fields = dict(fields)
    return AutoConfig.for_model(fields.pop("model_type"), **fields)


_PITCH = (90.0, 250.0)  # Hz


def synthetic_clips(count: int, seconds: float, sampling_rate: int, prefix: str) -> Dataset:
    """Clips of a buzz in noise, spoof and bona fide in turn, as FLAC in memory.

    Half of them are a fifth longer than `seconds` and half a fifth shorter, so that both cutting and repeating are
    tried. Always the same.

    Args:
        count: How many, at least 1.
        seconds: About how long.
        sampling_rate: In Hz.
        prefix: Of their `utterance_id`.

    Returns:
        Columns `audio` (encoded), `label` (0 spoof, 1 bona fide), `utterance_id` and `system`.
    """
    generator = np.random.default_rng(0)
    columns: dict[str, list] = {"audio": [], "label": [], "utterance_id": [], "system": []}
    for index in range(count):
        label = index % len(ID2LABEL)
        times = np.arange(max(1, round(seconds * (0.8, 1.2)[index // 2 % 2] * sampling_rate))) / sampling_rate
        phase = 2 * np.pi * generator.uniform(*_PITCH) * times
        buzz = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 6))
        samples = 0.1 * buzz + 0.01 * generator.standard_normal(len(times))
        content = io.BytesIO()
        soundfile.write(content, samples, sampling_rate, format="FLAC")
        name = f"{prefix}_{index}"
        columns["audio"].append({"bytes": content.getvalue(), "path": f"{name}.flac"})
        columns["label"].append(label)
        columns["utterance_id"].append(name)
        columns["system"].append("-" if label else "synthetic")
    return Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))


__all__ = ["is_out_of_reach", "stand_in_config", "synthetic_clips"]
