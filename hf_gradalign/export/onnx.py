"""Exports detectors to ONNX and `torch.export`, for clips of one length in batches of any size."""

import copy
import errno
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from transformers import PreTrainedModel

from hf_gradalign.models import WINDOW_SAMPLES, output_labels
from hf_gradalign.models.label_order import score_of, signs_of
from hf_gradalign.models.score_calibration import apply_calibration
from hf_gradalign.models.stored_calibration import calibration_of, raw_logits
from hf_gradalign.utils.messages import require_space

TOLERANCE = 1e-3
_ONE_FILE_BYTES = 1_900_000_000  # ONNX files are limited to 2 GiB; weights of larger models go to a second file
_NOISE_LEVEL = 0.1  # standard deviation, similar to that of speech


class OnnxMismatchError(RuntimeError):
    """The logits of an exported model differ from PyTorch's."""


@dataclass(frozen=True)
class OnnxReport:
    """Report of an export to ONNX.

    Attributes:
        path: The file.
        n_samples: Number of samples of its input waveforms.
        opset: Version of the ONNX operators.
        size: Bytes of the file and, for models of 2 GB and more, of `<name>.data` next to it.
        check_batches: Batch sizes that were compared.
        largest_difference: Largest absolute difference between a logit and PyTorch's.
    """

    path: Path
    n_samples: int
    opset: int
    size: int
    check_batches: tuple[int, ...]
    largest_difference: float


def export_onnx(
    model: PreTrainedModel,
    path: str | Path,
    *,
    n_samples: int = WINDOW_SAMPLES,
    check_batches: Sequence[int] = (1, 3),
    raw_scores: bool = False,
    bonafide_label: str | None = None,
) -> OnnxReport:
    """Export a detector to ONNX, and compare onnxruntime on the CPU with PyTorch on noise.

    The file's input is `input_values`, float32 of shape (batch, `n_samples`), as from the model's feature extractor.
    Its output is `logits`, float32 of shape (batch, 2), for spoof and bona fide, whatever the order of the model's
    outputs. A single output z becomes -z / 2 and z / 2. The batch may have any size. A file whose logits differ from
    PyTorch's is deleted.

    If the model is calibrated, so are the logits, and the file's metadata has the `calibration` as JSON.

    Args:
        model: A detector (`SpoofDetectorForAudioClassification`) with any head, in float32. It is not changed.
        path: The file. Its folder is created, and an existing file is replaced.
        n_samples: Number of samples of a waveform.
        check_batches: One or more batch sizes to compare.
        raw_scores: Whether to export a calibrated model without its calibration.
        bonafide_label: Name or number of the bona fide label, if the label names do not tell; "none" for a model with
            one output that is higher for spoof.

    Returns:
        The report.

    Raises:
        ImportError: If onnx, onnxruntime or onnxscript is not installed.
        ValueError: If the model is not in float32 or does not accept `n_samples`, its labels do not tell which of one
            or two outputs is bona fide, or no batch size is given.
        OnnxMismatchError: If a logit differs by more than 0.001 (for a calibrated model, before calibration).
        OSError: If the file cannot be written.
    """
    onnxruntime = _import_onnxruntime()
    if not check_batches or min(check_batches) < 1:
        raise ValueError(f"check_batches must be one or more batch sizes of at least 1, got {tuple(check_batches)}")
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    logits_of = _Logits(model, raw_scores, bonafide_label)
    require_space(path.parent, sum(value.nbytes for value in model.state_dict().values()))
    path.parent.mkdir(parents=True, exist_ok=True)
    program = logits_of.export(n_samples)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        draft = Path(folder, path.name)  # with the final name, because the file contains the name of its data file
        onnx_program = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=["input_values"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
        )
        assert onnx_program is not None  # with dynamo
        if logits_of.calibration is not None:
            onnx_program.model.metadata_props["calibration"] = json.dumps(logits_of.calibration)
        large = sum(t.nbytes for t in program.state_dict.values()) > _ONE_FILE_BYTES
        onnx_program.save(str(draft), external_data=large)
        session = onnxruntime.InferenceSession(str(draft), providers=["CPUExecutionProvider"])
        difference, excess = _largest_difference(session, logits_of, n_samples, check_batches)
        del session  # it keeps the files open
        if not excess <= 0:  # also true for NaN
            raise OnnxMismatchError(
                f"onnxruntime's logits differ from PyTorch's by up to {difference:.3g}, more than {TOLERANCE:g}"
                f"{' before calibration' if logits_of.calibration else ''}: {path} was not written"
            )
        # The data file first, before the file that refers to it. An older file must not use the new data.
        files = sorted(Path(folder).iterdir(), reverse=True)
        size = sum(file.stat().st_size for file in files)
        if len(files) > 1:
            path.unlink(missing_ok=True)
        for file in files:
            os.replace(file, path.with_name(file.name))
    opset = onnx_program.model.opset_imports[""]
    return OnnxReport(path, n_samples, opset, size, tuple(check_batches), difference)


def export_program(
    model: PreTrainedModel,
    *,
    n_samples: int = WINDOW_SAMPLES,
    raw_scores: bool = False,
    bonafide_label: str | None = None,
) -> ExportedProgram:
    """Export a detector with `torch.export`, for `torch.export.save`, AOTInductor, ExecuTorch etc.

    Args:
        model: A detector (`SpoofDetectorForAudioClassification`) with any head, in float32. It is not changed, and the
            program has its own copy of the weights.
        n_samples: Number of samples of a waveform.
        raw_scores: Whether to export a calibrated model without its calibration.
        bonafide_label: As for `export_onnx`.

    Returns:
        The program, on the CPU and in evaluation mode. Its `module()` maps waveforms, float32 of shape
        (B, `n_samples`) for any B, to logits (B, 2) for spoof and bona fide.

    Raises:
        ValueError: As for `export_onnx`.
    """
    return _Logits(model, raw_scores, bonafide_label).export(n_samples)


class _Logits(nn.Module):
    """A copy of a detector for export, which returns only the logits for spoof and bona fide.

    The copy is on the CPU, where mamba uses operators that every runtime has, and uses eager attention, which works for
    every encoder (sdpa fails for a wav2vec 2.0 Conformer).
    """

    def __init__(self, model: PreTrainedModel, raw_scores: bool, bonafide_label: str | None) -> None:
        super().__init__()
        dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()} - {"float32"})
        if dtypes:
            raise ValueError(
                f"only models in float32 can be exported, but this one has {', '.join(dtypes)}: call model.float()"
            )
        weights = (value for name, value in model.state_dict().items() if not name.endswith("_extra_state"))
        if not all(isinstance(value, Tensor) and not value.is_quantized for value in weights):
            raise ValueError(
                "only models in float32 can be exported, but this one is quantized: export the model before it is "
                "quantized, then quantize the ONNX file"
            )
        self.model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        self.model.set_attn_implementation("eager")
        stored = calibration_of(model)
        self.calibration = None if raw_scores else stored
        self._undone = stored if raw_scores else None
        config: Any = model.config
        self._order = output_labels(config.id2label, config.label2id, bonafide_label)
        if stored is not None and tuple(stored.get("outputs") or self._order) != self._order:
            raise ValueError(
                f"the outputs of the model were calibrated as {', '.join(stored['outputs'])}, but now they should mean "
                f"{', '.join(self._order)}: use the same bonafide_label (--bonafide_label) as in the calibration"
            )

    def forward(self, input_values: Tensor) -> Tensor:
        """Return the logits (B, 2) of waveforms (B, time)."""
        if self._undone is not None:
            logits = raw_logits(self.model, {"input_values": input_values}, self._undone, self._order)
        else:
            logits = self.model(input_values).logits
        if len(self._order) == 1:
            half = logits * signs_of(self._order, logits) / 2
            return torch.cat([-half, half], 1)
        return logits if self._order[1] == "bonafide" else logits.flip(1)

    def tolerance(self, waveforms: Tensor) -> Tensor:
        """Return how much logits may differ from PyTorch's, shape (B, 1) or (). A calibration magnifies differences."""
        if self.calibration is None:
            return torch.tensor(TOLERANCE)
        inputs = {"input_values": waveforms}
        scores = score_of(raw_logits(self.model, inputs, self.calibration, self._order), self._order)
        low, high = (apply_calibration(scores + shift, self.calibration) for shift in (-2 * TOLERANCE, 2 * TOLERANCE))
        return TOLERANCE + (high - low)[:, None]

    def export(self, n_samples: int) -> ExportedProgram:
        """Export the graph for any batch size."""
        kind = type(self.model).__name__
        if self.model.main_input_name != "input_values":
            raise ValueError(
                f"a {kind} takes {self.model.main_input_name}, but only models that take waveforms can be exported"
            )
        try:
            example = noise(2, n_samples)  # with a batch of one, torch.export would fix the batch size
            with torch.no_grad():
                self(example)
        # For example an AST, whose spectrograms have the same name as waveforms.
        except (RuntimeError, IndexError) as error:
            raise ValueError(f"a {kind} does not accept waveforms of {n_samples} samples: {error}") from error
        with torch.no_grad():
            return torch.export.export(self, (example,), dynamic_shapes=({0: Dim("batch")},), strict=False)


def noise(batch: int, n_samples: int) -> Tensor:
    """Return noise (batch, n_samples) at about the level of speech, the same each time."""
    return _NOISE_LEVEL * torch.randn(batch, n_samples, generator=torch.Generator().manual_seed(batch))


@torch.no_grad()
def _largest_difference(
    session: Any, logits_of: _Logits, n_samples: int, batches: Sequence[int]
) -> tuple[float, float]:
    """Return the largest difference of a logit, and the largest amount by which a difference exceeds the tolerance."""
    differences, excesses = [], []
    for batch in batches:
        waveforms = noise(batch, n_samples)
        (logits,) = session.run(["logits"], {"input_values": waveforms.numpy()})
        difference = (torch.from_numpy(logits) - logits_of(waveforms)).abs()
        differences.append(difference.max())
        excesses.append((difference - logits_of.tolerance(waveforms)).max())
    return float(torch.stack(differences).max()), float(torch.stack(excesses).max())


def _import_onnxruntime() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"exporting to ONNX needs {error.name}, which is not installed: pip install onnx onnxruntime onnxscript"
        ) from error
    return onnxruntime
