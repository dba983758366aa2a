"""Export a trained detector, or another classifier of waveforms, as an ONNX file, and compare it with PyTorch.

python scripts/export_onnx.py runs/my-run --output detector.onnx
python scripts/export_onnx.py name/of-a-detector --revision v1 --output detector.onnx --n_samples 64000

The exported model takes `input_values`, float32 of shape (batch, n_samples) with any batch size, and returns `logits`
(batch, 2) for spoof and bona fide. The score is their difference, and a log-likelihood ratio if the model is calibrated
(hf-gradalign calibrate). Needs onnx, onnxruntime and onnxscript (the extra `onnx`).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_gradalign import export as onnx_export
from hf_gradalign.cli.command_parser import CommandParser
from hf_gradalign.cli.commands import CONVERSION_OPTIONS_HELP, conversion_options, set_up_libraries
from hf_gradalign.utils.file_locks import hold_output
from hf_gradalign.utils.files import require_free
from hf_gradalign.utils.messages import error_line


def main(argv: Sequence[str]) -> int:
    """Export from the command line and return the exit status."""
    parser = CommandParser("export", __doc__, "MODEL")
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="folder or Hub id of a detector, or the path of a published detector's file",
    )
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="the ONNX file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("--n_samples", type=int, help="length of the waveforms in samples (default: as in training)")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    parser.add_argument("--conversion_options", metavar="JSON", help=CONVERSION_OPTIONS_HELP)
    parser.add_argument("--bonafide_label", help="name or number of the bona fide label, if the label names do not say")
    parser.add_argument("--raw_scores", action="store_true", help="export a calibrated model without its calibration")
    parser.add_argument("--trust_remote_code", action="store_true", help="run modeling code that comes with the model")
    parser.add_argument("--no_progress", action="store_true", help="hide progress bars")
    arguments = parser.parse_args(argv)
    set_up_libraries(no_progress=arguments.no_progress)
    logging.getLogger("torch.onnx._internal.exporter").setLevel(logging.ERROR)  # warns about missing torchvision
    try:
        with hold_output(arguments.output):
            report = export(arguments)
    except (ValueError, OSError, ImportError, onnx_export.OnnxMismatchError) as error:
        print(error_line(error, arguments.output.parent), file=sys.stderr)
        return 2
    print(
        f"{report.path}: {report.size / 1e6:.1f} MB, opset {report.opset}, input_values (batch, {report.n_samples}) to "
        f"logits (batch, 2)\nlargest difference from PyTorch in batches of "
        f"{', '.join(map(str, report.check_batches))}: {report.largest_difference:.2e}"
    )
    return 0


def export(arguments: argparse.Namespace) -> onnx_export.OnnxReport:
    """Load the detector and export it.

    Raises:
        OSError: If the model does not exist, one of its files is broken, or the output exists.
        ValueError: If it is not a trained detector, its label names do not say which output is bona fide, or it takes
            whole clips and no length is given.
    """
    from hf_gradalign.scoring.model_loading import load_detector
    from hf_gradalign.scoring.windowing import choose_windowing

    name = arguments.model
    for path in (arguments.output, arguments.output.with_name(f"{arguments.output.name}.data")):
        require_free(path, arguments.overwrite)
    if arguments.output.is_dir():
        raise ValueError(f"--output {arguments.output} is a folder: pass a file, such as detector.onnx")
    hub_options: dict[str, Any] = {
        "revision": arguments.revision,
        "trust_remote_code": arguments.trust_remote_code,
        "conversion_options": conversion_options(arguments.conversion_options),
    }
    model, feature_extractor = load_detector(name, **hub_options)
    input_name = getattr(feature_extractor, "model_input_names")[0]  # noqa: B009  the stubs lack it
    if input_name != "input_values":
        raise ValueError(
            f"{name}, a {type(model).__name__}, takes {input_name}, not waveforms; only models that take waveforms can "
            "be exported"
        )
    windowing = choose_windowing(feature_extractor)
    n_samples = arguments.n_samples or (None if windowing.mode == "whole" else windowing.n_samples)
    if n_samples is None:
        raise ValueError(f"{name} takes whole clips, but an exported model takes clips of one length: pass --n_samples")
    return onnx_export.export_onnx(
        model,
        arguments.output,
        n_samples=n_samples,
        raw_scores=arguments.raw_scores,
        bonafide_label=arguments.bonafide_label,
    )
