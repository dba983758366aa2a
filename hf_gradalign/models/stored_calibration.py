"""Calibrations of models of any class: applied by the model, or folded into the layer that computes its logits."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import logging

from hf_gradalign.models.label_order import digest_of_layer, layers_of_rows, logits_of_noise, score_of, signs_of
from hf_gradalign.models.score_calibration import check_calibration

logger = logging.get_logger(__name__)


def calibration_of(model: PreTrainedModel) -> dict[str, Any] | None:
    """Return the calibration of a model's logits; None if there is none.

    Raises:
        ValueError: If it is damaged.
    """
    content = getattr(model.config, "calibration", None)
    if content is None:
        return None
    content = check_calibration(content)
    if not _is_folded(content):
        if applies_calibration(model):
            return content
        logger.warning(
            f"The model's configuration has a calibration, but {type(model).__name__} does not apply it. Its scores "
            "are not log-likelihood ratios. If the model comes with its code, the code is from an older version: load "
            "the model without trust_remote_code, or calibrate it again with hf-gradalign calibrate, which updates "
            "the code."
        )
        return None
    # A process that was killed while it stored a calibration may have left the weights of the previous one.
    for folded in (content, content.get("previous")):
        if folded and folded["layer_sha256"] == digest_of_layer(model, folded["layer"]):
            return folded
    logger.warning(
        "The model's configuration has a calibration, but it does not belong to these weights, which were changed "
        "since. Its scores are not log-likelihood ratios. Calibrate it again: hf-gradalign calibrate."
    )
    return None


def applies_calibration(model: PreTrainedModel) -> bool:
    """Return whether a model's class applies the calibration of its configuration to the logits that it returns."""
    whole: Any = model
    if hasattr(whole, "get_base_model"):  # a PEFT model, whose forward takes any argument
        whole = whole.get_base_model()
    return "raw_logits" in inspect.signature(whole.forward).parameters


def raw_logits(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], calibration: Mapping[str, Any], order: tuple[str, ...]
) -> Tensor:
    """Return the logits of a calibrated model without its calibration.

    Args:
        model: The model.
        inputs: What it takes.
        calibration: From `calibration_of`.
        order: The meaning of its outputs, from `output_labels`.

    Returns:
        Logits of shape (B, outputs). For a folded calibration, only the difference of the logits is as before.
    """
    if not _is_folded(calibration):
        return model(**inputs, raw_logits=True).logits
    logits = model(**inputs).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    scores = (score_of(logits, order) - calibration["offset"]) / calibration["slope"]
    return signs_of(order, logits) * scores[:, None] / len(order)


@torch.no_grad()
def fold_calibration(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    order: tuple[str, ...],
    slope: float,
    offset: float,
) -> dict[str, Any]:
    """Change the layer that computes the logits, so that a model's score s becomes `slope * s + offset`.

    The layer is not guessed from names. It is the layer whose change has this effect on the logits of noise. Two logits
    become (-r / 2, r / 2) for spoof and bona fide.

    Args:
        model: A classifier with the outputs `order`, in float32. Changed in place.
        feature_extractor: Its feature extractor.
        order: The meaning of its outputs, from `output_labels`.
        slope: Positive.
        offset: In nats.

    Returns:
        `folded`, `outputs`, `layer` and `layer_sha256`: they tell later whether the weights and labels are still the
        same.

    Raises:
        ValueError: If no layer with a bias has this effect, or more than one.
    """
    before = logits_of_noise(model, feature_extractor)
    expected = slope * score_of(before, order) + offset
    fitting: dict[str, dict[str, Tensor]] = {}
    for name, layer in layers_of_rows(model, len(order)):
        module = model.get_submodule(name)
        if set(dict(module.named_parameters())) != {"weight", "bias"}:
            continue
        originals = [parameter.data for parameter in layer]
        _fold_rows(module, order, slope, offset)
        after = logits_of_noise(model, feature_extractor)
        if torch.allclose(score_of(after, order), expected, 1e-3, 1e-4):
            fitting[name] = {key: parameter.data for key, parameter in module.named_parameters()}
        for parameter, data in zip(layer, originals, strict=True):
            parameter.data = data
    if len(fitting) != 1:
        raise ValueError(
            f"the calibration should become part of one layer of this {type(model).__name__}, with a weight and a bias "
            f"per output; layers that fit: {', '.join(fitting) or 'none'}. Apply it to score files instead (--apply)"
        )
    ((name, changed),) = fitting.items()
    for key, parameter in model.get_submodule(name).named_parameters():
        parameter.data = changed[key]
    return {"folded": True, "outputs": list(order), "layer": name, "layer_sha256": digest_of_layer(model, name)}


def _fold_rows(module: nn.Module, order: tuple[str, ...], slope: float, offset: float) -> None:
    for key, parameter in module.named_parameters():
        # Compute in float64, so that only the result is rounded.
        rows = parameter.data.double()
        signs = signs_of(order, rows).reshape(-1, *[1] * (rows.ndim - 1))
        score = slope * (signs * rows).sum(0, keepdim=True) + (offset if key == "bias" else 0.0)
        parameter.data = (signs * score / len(order)).to(parameter.dtype).contiguous()


def _is_folded(content: Mapping[str, Any]) -> bool:
    return bool(content.get("folded"))
