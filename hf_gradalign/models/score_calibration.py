"""Applies the calibration in a model's configuration, which turns its logits into a log-likelihood ratio."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)


def check_calibration(content: Any) -> dict[str, Any]:
    """Check the `calibration` of a configuration.

    It is a mapping with `method` "affine" and the numbers `slope` (positive) and `offset`, or with `method` "pav" and
    `knots`, pairs of a score and its log-likelihood ratio, both ascending. Other entries say where it comes from
    (`hf-gradalign calibrate`).

    Args:
        content: The mapping.

    Returns:
        The calibration as a dictionary.

    Raises:
        ValueError: If an entry is missing or out of its range.
    """
    method = content.get("method") if isinstance(content, Mapping) else None
    if method == "affine":
        slope, offset = content.get("slope"), content.get("offset")
        is_sound = _is_number(slope) and _is_number(offset) and slope > 0
    elif method == "pav":
        knots = content.get("knots")
        is_sound = isinstance(knots, list | tuple) and len(knots) >= 2
        is_sound = is_sound and all(
            isinstance(knot, list | tuple) and len(knot) == 2 and all(map(_is_number, knot)) for knot in knots
        )
        is_sound = is_sound and all(low[0] < high[0] and low[1] <= high[1] for low, high in pairwise(knots))
    else:
        is_sound = False
    if not is_sound:
        raise ValueError(
            "the calibration in the model's configuration is damaged: remove the entry calibration from config.json, "
            "or calibrate the model again"
        )
    return dict(content)


def calibrated_logits(logits: Tensor, calibration: Mapping[str, Any], id2label: Mapping[int, str]) -> Tensor:
    """Return logits whose difference is a log-likelihood ratio.

    Args:
        logits: Shape (B, 2), or (B, 1) for a single output.
        calibration: From the configuration.
        id2label: The names of the outputs: spoof and bonafide, or one of them.

    Returns:
        `(-r / 2, r / 2)` for spoof and bona fide, in the order of the outputs, where r is the ratio. A single output
        becomes r, or -r if it stands for spoof. Float32, also for logits in half precision, whose steps would be too
        coarse for a ratio.

    Raises:
        ValueError: If the outputs have other names.
    """
    names = [id2label[index] for index in range(len(id2label))]
    if sorted(names) not in (["bonafide", "spoof"], ["bonafide"], ["spoof"]):
        raise ValueError(
            f"a calibrated model needs outputs named spoof and bonafide, not {', '.join(names)}: set id2label, or pass "
            "raw_logits=True"
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    signs = logits.new_tensor([1.0 if name == "bonafide" else -1.0 for name in names])
    ratios = apply_calibration((logits * signs).sum(1, keepdim=True), calibration)
    return signs * ratios / len(names)


def apply_calibration(scores: Tensor, calibration: Mapping[str, Any]) -> Tensor:
    """Map scores, of any shape and in float32 or float64, to log-likelihood ratios."""
    if calibration["method"] == "affine":
        return calibration["slope"] * scores + calibration["offset"]
    knots = scores.new_tensor(calibration["knots"])
    starts, ratios = knots[:, 0], knots[:, 1]
    # How far the score is through each interval, from 0 to 1. Unlike a search, this can be exported.
    shares = ((scores[..., None] - starts[:-1]) / (starts[1:] - starts[:-1])).clamp(0, 1)
    return ratios[0] + (shares * (ratios[1:] - ratios[:-1])).sum(-1)


def drop_calibration(config: PretrainedConfig | None) -> None:
    """Remove the calibration from the configuration of a model in training, because training makes it wrong.

    Args:
        config: The configuration, if the model has one. That of its encoder is changed too.
    """
    parts = [config, getattr(config, "backbone_config", None)]
    calibrated = [part for part in parts if isinstance(getattr(part, "calibration", None), Mapping)]
    for part in calibrated:
        # Do not set it to None, so that config.json is the same as for models that never had one.
        delattr(part, "calibration")
    if calibrated:
        logger.warning(
            "The model was calibrated, and training changes its scores, so the trained model has no calibration. To "
            "calibrate it: hf-gradalign calibrate."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


__all__ = ["apply_calibration", "calibrated_logits", "check_calibration", "drop_calibration"]
