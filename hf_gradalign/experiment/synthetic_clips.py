"""Clips that sound like nothing, to try a run's settings on."""

import io

import datasets
import numpy as np
import soundfile
from datasets import Dataset

from hf_gradalign.models import ID2LABEL

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


__all__ = ["synthetic_clips"]
