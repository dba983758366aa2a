"""Turns a model's outputs into scores: which output means what, and whether scores are calibrated."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_gradalign.metrics import Calibration
from hf_gradalign.models import output_labels
from hf_gradalign.models.stored_calibration import calibration_of, raw_logits
from hf_gradalign.scoring.progress import differences

logger = logging.get_logger(__name__)


class ModelOutputs:
    """Converts a model's outputs to scores: the bona fide logit minus the spoof logit. A missing logit counts as 0.

    Args:
        model: The model.
        bonafide_label: As for `output_labels`.
        label2id: As for `output_labels`.
        raw_scores: Whether to return the scores of a calibrated model before calibration.

    Attributes:
        calibration: The calibration of the scores; None if the model has none, or with `raw_scores`.

    Raises:
        ValueError: If the labels do not say which output is bona fide or differ from the calibration's labels, or the
            calibration is damaged.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        bonafide_label: str | None = None,
        label2id: Mapping[str, int] | None = None,
        *,
        raw_scores: bool = False,
    ) -> None:
        self._model = model
        id2label = cast("Mapping[int, str]", model.config.id2label)
        self._order = output_labels(id2label, label2id, bonafide_label)
        stored = calibration_of(model)
        self._fitted_with = None if stored is None else stored.get("windowing")
        self._undone = stored if raw_scores else None
        self.calibration = None if stored is None or raw_scores else Calibration.from_dict(stored)
        if stored is None:
            return
        calibrated = stored.get("outputs") or [id2label[index] for index in range(len(id2label))]
        if list(calibrated) != list(self._order):
            raise ValueError(
                f"the outputs of the model were calibrated as {', '.join(calibrated)}, but now they should mean "
                f"{', '.join(self._order)}: use the same bonafide_label (--bonafide_label) as in the calibration"
            )

    def warn_about_other_windows(self, settings: Mapping[str, Any]) -> None:
        """Warn if the calibration was fitted on scores with other window settings."""
        if self.calibration is None or self._fitted_with is None:
            return
        if differing := differences(self._fitted_with, settings):
            logger.warning(f"The calibration was fitted with other windows and may be wrong for these: {differing}.")

    def logits(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the logits of inputs on the model's device, shape (B, outputs)."""
        if self._undone is not None:
            return raw_logits(self._model, inputs, self._undone, self._order)
        return self._model(**inputs).logits

    def scores(self, logits: Sequence[torch.Tensor]) -> NDArray[np.float64]:
        """Return the scores of several batches of logits, shape (windows,)."""
        by_window = torch.cat(list(logits)).cpu().double().numpy()  # MPS has no float64
        bonafide, spoof = (
            by_window[:, self._order.index(name)] if name in self._order else np.zeros(len(by_window))
            for name in ("bonafide", "spoof")
        )
        return bonafide - spoof
