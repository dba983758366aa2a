#!/usr/bin/env python
"""Write a trained detector as an ONNX file, and compare it with PyTorch.

python scripts/export_onnx.py runs/my-run --output detector.onnx
python scripts/export_onnx.py name/of-a-detector --revision v1 --output detector.onnx --n_samples 64000

The file takes `input_values`, float32 of shape (batch, n_samples) for any batch, and gives `logits` (batch, 2), spoof
and bona fide. Needs onnx, onnxruntime and onnxscript (the extra `onnx`).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub.errors import HFValidationError
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification

import hf_gradalign  # noqa: F401  (makes torchaudio importable before transformers looks for it)
from hf_gradalign.export import OnnxMismatchError, OnnxReport, export_onnx
from hf_gradalign.models import SpoofDetectorConfig
from hf_gradalign.plain_text import plain_text


def main(argv: Sequence[str]) -> int:
    """Export from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL_DIR_OR_ID", help="a detector's folder, or its Hub id")
    parser.add_argument("--output", metavar="FILE", type=Path, required=True)
    parser.add_argument("--n_samples", type=int, help="of a waveform; by default what its feature extractor gives")
    parser.add_argument("--revision", help="of a model on the Hub")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that the model brings along")
    arguments = parser.parse_args(argv)
    try:
        report = export(arguments)
    except (ValueError, OSError, ImportError, OnnxMismatchError) as error:
        print(f"error: {plain_text(error)}", file=sys.stderr)
        return 2
    print(
        f"{report.path}: {report.size / 1e6:.1f} MB, opset {report.opset}, input_values (batch, {report.n_samples}) to "
        f"logits (batch, 2)\nlargest difference from PyTorch in batches of "
        f"{', '.join(map(str, report.check_batches))}: {report.largest_difference:.2e}"
    )
    return 0


def export(arguments: argparse.Namespace) -> OnnxReport:
    """Load the detector and export it.

    Raises:
        OSError: If there is no such model.
        ValueError: If it is no detector, or takes whole clips and no length is given.
    """
    name = arguments.model
    hub_options = {"revision": arguments.revision, "trust_remote_code": arguments.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(name, **hub_options)
    except (OSError, HFValidationError) as error:
        if Path(name).is_dir():
            raise
        raise OSError(f"there is no folder {name}, and no such model came from the Hub: {error}") from error
    if config.model_type != SpoofDetectorConfig.model_type:
        raise ValueError(f"{name} is no detector with a head of hf_gradalign, but a {config.model_type} model")
    n_samples = arguments.n_samples
    if n_samples is None:
        n_samples = getattr(AutoFeatureExtractor.from_pretrained(name, **hub_options), "n_samples", None)
    if n_samples is None:
        raise ValueError(f"{name} takes whole clips, and an exported one clips of one length: give --n_samples")
    model = AutoModelForAudioClassification.from_pretrained(name, dtype=torch.float32, **hub_options)
    return export_onnx(model, arguments.output, n_samples=n_samples)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
