"""Metrics of spoofing countermeasures; `eer/` beside this file is the same as an `evaluate` module."""

from hf_gradalign.metrics.by_system import equal_error_rate_by_system
from hf_gradalign.metrics.det_curve import DetectionErrorCurve, detection_error_curve, equal_error_rate

__all__ = ["DetectionErrorCurve", "detection_error_curve", "equal_error_rate", "equal_error_rate_by_system"]
