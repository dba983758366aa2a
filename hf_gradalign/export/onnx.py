"""Detectors as ONNX files and as exported programs, for clips of one length in batches of any size."""

import copy
import errno
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

from hf_gradalign.utils.messages import require_room

TOLERANCE = 1e-3
_ONE_FILE_BYTES = 1_900_000_000  # an ONNX file ends at 2 GiB; what is larger has its weights in a file beside it
_LOUDNESS = 0.1  # standard deviation of the noise, about that of speech


class OnnxMismatchError(RuntimeError):
    """An exported model's logits are not PyTorch's."""


@dataclass(frozen=True)
class OnnxReport:
    """What was exported, and how well it agrees.

    Attributes:
        path: The file.
        n_samples: Samples of the waveforms that it takes.
        opset: Version of the ONNX operators.
        size: Bytes of the file and, of models of 2 GB and more, of `<name>.data` beside it.
        check_batches: Batch sizes that were compared.
        largest_difference: Largest absolute difference of a logit from PyTorch's.
    """

    path: Path
    n_samples: int
    opset: int
    size: int
    check_batches: tuple[int, ...]
    largest_difference: float


def export_onnx(
    model: PreTrainedModel, path: str | Path, *, n_samples: int = 66_800, check_batches: Sequence[int] = (1, 3)
) -> OnnxReport:
    """Write a detector as ONNX, and compare it with PyTorch on noise by onnxruntime on the CPU.

    The file's input is `input_values`, float32 of shape (batch, `n_samples`), as the model's feature extractor gives
    them for clips of one length; its output `logits`, float32 of shape (batch, 2), spoof and bona fide. The batch is
    of any size. A file whose logits are not PyTorch's is not left behind.

    Args:
        model: A detector (`SpoofDetectorForAudioClassification`) with any head, in float32. It stays as it is.
        path: The file; its folder is made, and a file of that name is replaced.
        n_samples: Samples of a waveform.
        check_batches: Batch sizes to compare, one at least.

    Returns:
        The report.

    Raises:
        ImportError: If onnx, onnxruntime or onnxscript is not installed.
        ValueError: If the model is not in float32 or does not take `n_samples`, or no batch size is given.
        OnnxMismatchError: If a logit differs by more than 0.001.
        OSError: If the file cannot be written there.
    """
    onnxruntime = _import_onnxruntime()
    if not check_batches or min(check_batches) < 1:
        raise ValueError(f"check_batches must be one batch size or more, of 1 and more, got {tuple(check_batches)}")
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    require_room(path.parent, sum(value.nbytes for value in model.state_dict().values()))
    path.parent.mkdir(parents=True, exist_ok=True)
    logits_of = _Logits(model)
    program = logits_of.export(n_samples)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        draft = Path(folder, path.name)  # under its own name: the file knows that of its data
        onnx_program = torch.onnx.export(
            program,
            f=str(draft),
            dynamo=True,
            verbose=False,
            input_names=["input_values"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            external_data=sum(t.nbytes for t in program.state_dict.values()) > _ONE_FILE_BYTES,
        )
        session = onnxruntime.InferenceSession(str(draft), providers=["CPUExecutionProvider"])
        difference = _largest_difference(session, logits_of, n_samples, check_batches)
        del session  # it has the files open
        if not difference <= TOLERANCE:  # nor NaN
            raise OnnxMismatchError(
                f"onnxruntime's logits differ from PyTorch's by up to {difference:.3g}, more than {TOLERANCE:g}: "
                f"{path} was not written"
            )
        # The data first: what names them comes when they are there. An older file must not take them for its own.
        files = sorted(Path(folder).iterdir(), reverse=True)
        size = sum(file.stat().st_size for file in files)
        if len(files) > 1:
            path.unlink(missing_ok=True)
        for file in files:
            os.replace(file, path.with_name(file.name))
    opset = onnx_program.model.opset_imports[""]
    return OnnxReport(path, n_samples, opset, size, tuple(check_batches), difference)


def export_program(model: PreTrainedModel, *, n_samples: int = 66_800) -> ExportedProgram:
    """A detector as a graph by `torch.export`: for `torch.export.save`, AOTInductor, ExecuTorch and the like.

    Args:
        model: A detector (`SpoofDetectorForAudioClassification`) with any head, in float32. It stays as it is, and
            the program has weights of its own.
        n_samples: Samples of a waveform.

    Returns:
        The program, on the CPU and in evaluation mode; its `module()` takes waveforms, float32 of shape
        (B, `n_samples`) for any B, to logits (B, 2).

    Raises:
        ValueError: If the model is not in float32, or does not take `n_samples`.
    """
    return _Logits(model).export(n_samples)


class _Logits(nn.Module):
    """A copy of a detector that gives nothing but the logits, in a state that exports.

    On the CPU, for there mamba is computed in operators that every runtime has; and with eager attention, the one that
    every encoder exports with (with sdpa a wav2vec 2.0 Conformer does not).
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()} - {"float32"})
        if dtypes:
            raise ValueError(f"a model in float32 is exported, this one has {', '.join(dtypes)}: call model.float()")
        self.model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        self.model.set_attn_implementation("eager")

    def forward(self, input_values: Tensor) -> Tensor:
        """Waveforms (B, time) to logits (B, 2)."""
        return self.model(input_values).logits

    def export(self, n_samples: int) -> ExportedProgram:
        """The graph for any batch size."""
        try:
            example = noise(2, n_samples)  # of one clip, torch.export would take the batch for fixed
            with torch.no_grad():
                self(example)
        except RuntimeError as error:
            raise ValueError(f"the model does not take waveforms of {n_samples} samples: {error}") from error
        with torch.no_grad():
            return torch.export.export(self, (example,), dynamic_shapes=({0: Dim("batch")},), strict=False)


def noise(batch: int, n_samples: int) -> Tensor:
    """Waveforms (batch, n_samples) of about a speech signal's level, the same each time."""
    return _LOUDNESS * torch.randn(batch, n_samples, generator=torch.Generator().manual_seed(batch))


@torch.no_grad()
def _largest_difference(session: Any, logits_of: _Logits, n_samples: int, batches: Sequence[int]) -> float:
    differences = []
    for batch in batches:
        waveforms = noise(batch, n_samples)
        (logits,) = session.run(["logits"], {"input_values": waveforms.numpy()})
        differences.append((torch.from_numpy(logits) - logits_of(waveforms)).abs().max())
    return float(torch.stack(differences).max())


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
