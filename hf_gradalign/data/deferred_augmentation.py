"""RawBoost on the accelerator: a batch of views whose augmentation was only drawn becomes one of model inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import SequenceFeatureExtractor

from hf_gradalign.augmentation import BatchedRawBoost

DEFERRED = "deferred"
"""The key, among a view's model inputs, of what is still to be done to its waveforms."""

_PROBE_SAMPLES = 1000


def collate_deferred(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Put clips whose augmentation is still to be done into a batch; done by the loader's workers.

    Args:
        items: Of one view of a `ViewDataset` with `defer`.

    Returns:
        `input_values`, float32 of shape (B, time), shorter clips padded with zeros; `labels`, int64 of shape (B,); and
        `deferred`: `lengths` and `starts` (of each clip, and of its window; int64 of shape (B,)), `draws` (what
        `BatchedRawBoost.prepare` gives, bulk noise included) and RawBoost's and the window's plain numbers.
    """
    clips = [item["input_values"] for item in items]
    lengths = [len(clip) for clip in clips]
    padded = torch.zeros(len(clips), max(lengths))
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    own = [item[DEFERRED] for item in items]
    settings = own[0]["settings"]
    rawboost = BatchedRawBoost(settings["algorithm"], settings["impulsive_gain"])
    return {
        "input_values": padded,
        "labels": torch.tensor([item["labels"] for item in items], dtype=torch.int64),
        DEFERRED: {
            "lengths": torch.tensor(lengths),
            "starts": torch.tensor([each["start"] for each in own]),
            "draws": rawboost.prepare([each["parameters"] for each in own], lengths, settings["sampling_rate"]),
            "settings": settings,
        },
    }


class DeferredAugmentation:
    """Augments, cuts and normalises what loader workers left undone, on the device on which the batch is.

    For `GradientAlignmentTrainer(..., batch_transform=DeferredAugmentation(feature_extractor))` with a `ViewDataset`
    with `defer` and a `ViewCollator`: the same training run as without, to the precision of float32. Batches and views
    that nothing was left of to do pass unchanged. The host does not wait for the device.

    Args:
        feature_extractor: The model's. It must take waveforms as they are or normalise each to zero mean and unit
            variance, which is what is done here in its place; it is tried out on a clip.

    Raises:
        ValueError: If the feature extractor does anything else.
    """

    def __init__(self, feature_extractor: SequenceFeatureExtractor) -> None:
        self._normalises = bool(getattr(feature_extractor, "do_normalize", False))
        self._mask_type: torch.dtype | None = None
        clip = np.random.default_rng(0).uniform(-0.5, 0.7, _PROBE_SAMPLES).astype(np.float32)
        expected = dict(feature_extractor([clip], sampling_rate=feature_extractor.sampling_rate, return_tensors="pt"))
        mask = expected.get("attention_mask")
        if mask is not None and getattr(feature_extractor, "return_attention_mask", False):
            self._mask_type = mask.dtype
        found = self._model_inputs(torch.from_numpy(clip)[None])["input_values"]
        values = expected.get("input_values")
        if values is None or values.shape != found.shape or not torch.allclose(values, found, atol=1e-5):
            raise ValueError(
                f"{type(feature_extractor).__name__} does more to a waveform than to normalise it, which is not done "
                "on the accelerator; let the loader's workers augment (without --augment_on_device)"
            )

    def __call__(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Finish a batch of views.

        Args:
            batch: From a `ViewCollator`, moved to the device.

        Returns:
            The batch with every view's model inputs; those of views that were finished are the same objects.
        """
        return {view: self._finish(inputs) for view, inputs in batch.items()} if _is_deferred(batch) else batch

    @torch.no_grad()
    def _finish(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        if DEFERRED not in inputs:
            return inputs
        left, waveforms = inputs[DEFERRED], inputs["input_values"]
        settings, lengths = left["settings"], left["lengths"]
        rawboost = BatchedRawBoost(settings["algorithm"], settings["impulsive_gain"])
        augmented = rawboost.apply(waveforms, left["draws"], lengths)
        # The window, repeated where the clip is shorter: as `repeat_pad(crop(...))` does it.
        window = settings["window_samples"]
        times = torch.arange(window, device=waveforms.device) % lengths.clamp(max=window)[:, None]
        windows = augmented.gather(1, left["starts"][:, None] + times)
        return {**self._model_inputs(windows), "labels": inputs["labels"]}

    def _model_inputs(self, windows: Tensor) -> dict[str, Tensor]:
        """What the feature extractor makes of windows of shape (B, time)."""
        if self._normalises:
            variance, mean = torch.var_mean(windows, dim=-1, keepdim=True, correction=0)
            windows = (windows - mean) / torch.sqrt(variance + 1e-7)
        inputs = {"input_values": windows}
        if self._mask_type is not None:
            inputs["attention_mask"] = torch.ones(windows.shape, dtype=self._mask_type, device=windows.device)
        return inputs


def _is_deferred(batch: Any) -> bool:
    return any(isinstance(inputs, Mapping) and DEFERRED in inputs for inputs in batch.values())
