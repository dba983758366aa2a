"""Export detectors to runtimes other than PyTorch."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.export.onnx import OnnxMismatchError, OnnxReport, export_onnx, export_program
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = ["OnnxMismatchError", "OnnxReport", "export_onnx", "export_program"]
