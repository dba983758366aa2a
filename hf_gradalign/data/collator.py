"""Collates items of views into batches of model inputs, and finishes their augmentation on the accelerator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import SequenceFeatureExtractor
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import logging

from hf_gradalign.augmentation import BatchedRawBoost
from hf_gradalign.data.view_maker import DEFERRED
from hf_gradalign.models import SpoofDetectorFeatureExtractor
from hf_gradalign.models.clip_lengths import samples_taken, spreads_padding, without_cropping
from hf_gradalign.training import ViewBatchCollator
from hf_gradalign.utils.loader_workers import shared_number

logger = logging.get_logger(__name__)

ModelInputs = dict[str, Any]

_PROBE_SAMPLES = 1000


class ViewCollator(ViewBatchCollator):
    """Collates items of a `ViewDataset` or a `ClipDataset`.

    The model gets the windows of the data set. The window of a detector's feature extractor (`n_samples`) has no effect
    here, because it is for clips that are not cut yet.

    The feature extractor pads clips of different lengths, such as whole clips. If the model then gets no attention
    mask, or padding affects the model in spite of the mask (through a group norm over time, for example), losses and
    logits depend on the batch, and one warning says so. An attention mask that masks nothing is dropped, because it
    only costs time, unless the feature extractor is set to return one (`return_attention_mask`). In training, the mask
    of waveforms is dropped even then if the model does not need it, because transformers models copy it from the device
    in each pass.

    Views with deferred augmentation (`ViewDataset` with `defer`) are collated to waveforms and draws, which
    `DeferredAugmentation` turns into model inputs.

    Args:
        feature_extractor: The model's feature extractor, from `AutoFeatureExtractor`. Its output may be called
            `input_values` or `input_features`. Clips longer than it accepts raise a ValueError, because it would cut
            them.
    """

    def __init__(self, feature_extractor: FeatureExtractionMixin) -> None:
        self._clips = _ClipCollator(without_cropping(feature_extractor))
        super().__init__(self._clips)
        self.feature_extractor = feature_extractor

    def model_inputs(self, waveforms: Sequence[np.ndarray]) -> ModelInputs:
        """Return the model's inputs for waveforms of shape (time,) that have no labels, as for scoring."""
        return self._clips.model_inputs(waveforms)

    def use_model(self, model: Any) -> None:
        """Set the model that the batches are for, and find out how it handles masks. The trainer calls this.

        Args:
            model: A transformers model, with or without PEFT adapters.
        """
        self._clips.spreads_padding = spreads_padding(model)
        mask = inspect.signature(getattr(model, "get_base_model", lambda: model)().forward).parameters.get(
            "attention_mask"
        )
        self._clips.needs_mask = mask is None or mask.default is not None


class _ClipCollator:
    """Collates clips to model inputs, tensors of shape (batch, ...), and `labels`, int64 of shape (batch,).

    Attributes:
        spreads_padding: Whether padding is known to affect clips in the model in spite of an attention mask.
        needs_mask: Whether the model may need an attention mask that masks nothing.
    """

    def __init__(self, feature_extractor: FeatureExtractionMixin) -> None:
        self.feature_extractor = cast(SequenceFeatureExtractor, feature_extractor)
        self.spreads_padding = False
        self.needs_mask = True
        self._longest = 0  # clips up to this length are known not to be cut
        self._has_warned = shared_number(torch.bool)  # by any loader worker
        self._extract = _as_function(feature_extractor)
        # Some extractors always pad (to 30 s, for example), and some have no such argument.
        padding = inspect.signature(self._extract).parameters.get("padding")
        self._pads_on_request = padding is not None and padding.default is False

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> ModelInputs:
        if DEFERRED in items[0]:
            return _collate_deferred(items, self._keeps_full_mask(of_waveforms=True))
        labels = torch.tensor([item["labels"] for item in items], dtype=torch.int64)
        clips = [item["input_values"] for item in items]
        # transformers' extractors treat a list of tensors as a single clip.
        clips = [clip.numpy() if isinstance(clip, torch.Tensor) else clip for clip in clips]
        return {**self.model_inputs(clips), "labels": labels}

    def model_inputs(self, clips: Sequence[np.ndarray]) -> ModelInputs:
        """See `ViewCollator`."""
        self._refuse_long_clips(max(map(len, clips)))
        lengths_differ = len({len(clip) for clip in clips}) > 1
        padding = {"padding": True} if lengths_differ and self._pads_on_request else {}
        rate = self.feature_extractor.sampling_rate
        inputs = dict(self._extract(clips, sampling_rate=rate, return_tensors="pt", **padding))
        mask = inputs.get("attention_mask")
        if mask is not None and not self._keeps_full_mask("input_values" in inputs) and mask.all():
            del inputs["attention_mask"]
        if lengths_differ:
            self._warn_about_padding(mask is not None)
        return inputs

    def _keeps_full_mask(self, of_waveforms: bool) -> bool:
        """Return whether the model gets an attention mask that masks nothing."""
        return getattr(self.feature_extractor, "return_attention_mask", False) and (self.needs_mask or not of_waveforms)

    def _refuse_long_clips(self, n_samples: int) -> None:
        if n_samples <= self._longest:
            return
        taken = samples_taken(self.feature_extractor, n_samples)
        if taken < n_samples:
            rate = self.feature_extractor.sampling_rate
            raise ValueError(
                f"{type(self.feature_extractor).__name__} takes at most {taken / rate:.5g} s and would cut a clip of "
                f"{n_samples / rate:.5g} s: use shorter windows (window_seconds)"
            )
        self._longest = n_samples

    def _warn_about_padding(self, has_mask: bool) -> None:
        pads_to_longest = self._pads_on_request or isinstance(self.feature_extractor, SpoofDetectorFeatureExtractor)
        if self._has_warned or not (self.spreads_padding if has_mask else pads_to_longest):
            return
        self._has_warned.fill_(True)
        why = "padding affects this model in spite of its attention mask" if has_mask else "there is no attention mask"
        logger.warning(
            f"Clips of different lengths are padded, and {why}: losses and logits depend on which clips share a batch. "
            "Give all clips one length (window_seconds), or use a batch size of 1."
        )


def _as_function(feature_extractor: FeatureExtractionMixin) -> Callable[..., Mapping[str, Any]]:
    # The base class has no __call__, but all subclasses do.
    return cast("Callable[..., Mapping[str, Any]]", feature_extractor)


def _collate_deferred(items: Sequence[Mapping[str, Any]], wants_mask: bool) -> dict[str, Any]:
    """Collate clips with deferred augmentation. Runs in the loader workers.

    Args:
        items: Items of one view of a `ViewDataset` with `defer`.
        wants_mask: Whether the model gets an attention mask, although windows have no padding.

    Returns:
        `input_values`, float32 of shape (B, time), padded with zeros; `labels`, int64 of shape (B,); and `deferred`:
        `lengths` of the clips and `starts` of their windows, int64 of shape (B,), `draws` from
        `BatchedRawBoost.prepare`, including bulk noise, and `settings` of RawBoost and the window.
    """
    clips = [item["input_values"] for item in items]
    lengths = [len(clip) for clip in clips]
    padded = torch.zeros(len(clips), max(lengths))
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    deferred = [item[DEFERRED] for item in items]
    settings = deferred[0]["settings"]
    rawboost = BatchedRawBoost(settings["algorithm"], settings["impulsive_gain"])
    return {
        "input_values": padded,
        "labels": torch.tensor([item["labels"] for item in items], dtype=torch.int64),
        DEFERRED: {
            "lengths": torch.tensor(lengths),
            "starts": torch.tensor([each["start"] for each in deferred]),
            "draws": rawboost.prepare([each["parameters"] for each in deferred], lengths, settings["sampling_rate"]),
            "settings": settings,
            "wants_mask": wants_mask,
        },
    }


class DeferredAugmentation:
    """Finishes deferred augmentation on the batch's device: applies RawBoost, cuts the window, and normalizes.

    Use it as `GradientAlignmentTrainer(..., batch_transform=DeferredAugmentation(feature_extractor))` with a
    `ViewCollator` and a `ViewDataset` with `defer`. Training is the same as without deferral, up to float32 precision.
    Other batches and views stay unchanged. Nothing waits for the device.

    Args:
        feature_extractor: The model's feature extractor. It must either leave waveforms unchanged or normalize each to
            zero mean and unit variance, which this class does instead. This is checked on a clip. As in a
            `ViewCollator`, the window of a detector's feature extractor has no effect.

    Raises:
        ValueError: If the feature extractor does anything else.
    """

    def __init__(self, feature_extractor: FeatureExtractionMixin) -> None:
        self._normalizes = bool(getattr(feature_extractor, "do_normalize", False))
        self._epsilon = getattr(feature_extractor, "normalization_epsilon", 1e-7)  # that of transformers
        self._mask_type: torch.dtype | None = None
        clip = np.random.default_rng(0).uniform(-0.5, 0.7, _PROBE_SAMPLES).astype(np.float32)
        extract = _as_function(without_cropping(feature_extractor))
        rate = cast(SequenceFeatureExtractor, feature_extractor).sampling_rate
        expected = dict(extract([clip], sampling_rate=rate, return_tensors="pt"))
        mask = expected.get("attention_mask")
        if mask is not None and getattr(feature_extractor, "return_attention_mask", False):
            self._mask_type = mask.dtype
        actual = self._normalize(torch.from_numpy(clip)[None])
        values = expected.get("input_values")
        if values is None or values.shape != actual.shape or not torch.allclose(values, actual, atol=1e-5):
            raise ValueError(
                f"{type(feature_extractor).__name__} does more than normalize a waveform, which cannot be done on the "
                "accelerator; remove --augment_on_device, so that the loader's workers augment"
            )

    def __call__(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Finish a batch of views.

        Args:
            batch: From a `ViewCollator`, moved to the device.

        Returns:
            The batch with every view's model inputs. Views without deferred augmentation are returned as they are.
        """
        if not any(isinstance(inputs, Mapping) and DEFERRED in inputs for inputs in batch.values()):
            return batch
        return {view: self._finish(inputs) for view, inputs in batch.items()}

    @torch.no_grad()
    def _finish(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        if DEFERRED not in inputs:
            return inputs
        deferred, waveforms = inputs[DEFERRED], inputs["input_values"]
        settings, lengths = deferred["settings"], deferred["lengths"]
        rawboost = BatchedRawBoost(settings["algorithm"], settings["impulsive_gain"])
        augmented = rawboost.apply(waveforms, deferred["draws"], lengths)
        # Equals `repeat_pad(crop(...))`.
        window = settings["window_samples"]
        times = torch.arange(window, device=waveforms.device) % lengths[:, None]
        windows = augmented.gather(1, deferred["starts"][:, None] + times)
        finished = {"input_values": self._normalize(windows)}
        if self._mask_type is not None and deferred["wants_mask"]:
            finished["attention_mask"] = torch.ones(windows.shape, dtype=self._mask_type, device=windows.device)
        return {**finished, "labels": inputs["labels"]}

    def _normalize(self, windows: Tensor) -> Tensor:
        """Normalize windows (B, time) as the feature extractor does."""
        if not self._normalizes:
            return windows
        variance, mean = torch.var_mean(windows, dim=-1, keepdim=True, correction=0)
        return (windows - mean) / torch.sqrt(variance + self._epsilon)
