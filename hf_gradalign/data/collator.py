"""Make a batch of model inputs from clips, once for each view."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import SequenceFeatureExtractor

from hf_gradalign.data.deferred_augmentation import DEFERRED, collate_deferred
from hf_gradalign.training import ViewBatchCollator

ModelInputs = dict[str, Any]


class ViewCollator(ViewBatchCollator):
    """Collate items of a `ViewDataset` or a `ClipDataset`.

    Args:
        feature_extractor: the model's, as `AutoFeatureExtractor` gives it; whether its output is called `input_values`
            or `input_features` does not matter.

    Clips of different lengths are padded as the feature extractor does it. An attention mask that masks nothing is
    left out unless the feature extractor is set to return one (`return_attention_mask`): it only costs time.

    Views whose augmentation was left to be done (`ViewDataset` with `defer`) come as waveforms and draws, which
    `DeferredAugmentation` makes model inputs of.
    """

    def __init__(self, feature_extractor: SequenceFeatureExtractor) -> None:
        super().__init__(_ClipCollator(feature_extractor))
        self.feature_extractor = feature_extractor


class _ClipCollator:
    """Model inputs, tensors of shape (batch, ...), and `labels`, int64 of shape (batch,), from single clips."""

    def __init__(self, feature_extractor: SequenceFeatureExtractor) -> None:
        self.feature_extractor = feature_extractor
        # Some extractors always pad (to 30 s, say) and must be left to it; some do not know the argument.
        padding = inspect.signature(feature_extractor.__call__).parameters.get("padding")
        self._pads_on_request = padding is not None and padding.default is False

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> ModelInputs:
        if DEFERRED in items[0]:
            return collate_deferred(items)
        clips = [item["input_values"] for item in items]
        lengths_differ = len({len(clip) for clip in clips}) > 1
        padding = {"padding": True} if lengths_differ and self._pads_on_request else {}
        features = self.feature_extractor(
            clips, sampling_rate=self.feature_extractor.sampling_rate, return_tensors="pt", **padding
        )
        inputs = dict(features)
        mask = inputs.get("attention_mask")
        if mask is not None and not getattr(self.feature_extractor, "return_attention_mask", False) and mask.all():
            del inputs["attention_mask"]
        inputs["labels"] = torch.tensor([item["labels"] for item in items], dtype=torch.int64)
        return inputs
