"""Detectors for other runtimes than PyTorch."""

from hf_gradalign.export.onnx import OnnxMismatchError, OnnxReport, export_onnx, export_program

__all__ = ["OnnxMismatchError", "OnnxReport", "export_onnx", "export_program"]
