"""Scores overlapping windows, and computes what they share only once.

The model's own `forward` scores the windows. The shared frames are computed once for a stretch of the recording, and
slices of them replace the output of a part of the model: its convolutions, or its whole encoder. Heads, merged layers
and calibration therefore work as usual, whatever the model's class. Other threads may use the model at the same time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, local
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hf_gradalign.models import SincConfig
from hf_gradalign.models.encoder_layers import count_frames
from hf_gradalign.scoring.windowing import Stretch

if TYPE_CHECKING:
    from hf_gradalign.scoring.scorer import SpoofScorer

Shared = Literal["nothing", "convolutions", "encoder"]
Forward = Callable[..., Any]

# transformers encoders that turn waveforms into frames by strided convolutions without padding.
_WAVEFORM_ENCODERS = ("data2vec-audio", "hubert", "unispeech-sat", "wav2vec2", "wav2vec2-conformer", "wavlm")
# How much of a recording is computed at a time.
_STRETCH_SECONDS = 20.0
# The context of an encoder before the first window and after the last one of a stretch.
_CONTEXT_SECONDS = 2.0


class WindowScoring(Protocol):
    """A way to score the windows of a stretch.

    Attributes:
        shared: What windows share.
        n_windows: Number of windows in a stretch.
        context: Number of samples that a stretch has before its first window and after its last.
    """

    shared: Shared
    n_windows: int
    context: int

    def scores(self, stretch: Stretch) -> Iterator[NDArray[np.float64]]:
        """Yield the scores of the stretch's windows, batch by batch."""
        ...


class SeparateWindows:
    """Scores each window separately. Works for any model."""

    shared: Shared = "nothing"
    context = 0

    def __init__(self, scorer: SpoofScorer, length: int) -> None:
        self.n_windows = scorer.batch_size
        self._scorer = scorer
        self._length = length

    def scores(self, stretch: Stretch) -> Iterator[NDArray[np.float64]]:
        """Yield the scores of the stretch's windows, batch by batch."""
        yield self._scorer.score_windows(stretch.windows(self._length))


class _SharedPart(ABC):
    """Runs a part of the model once for a stretch, and gives the rest of the model slices of the part's frames.

    Args:
        scorer: The scorer.
        part: The part of the scorer's model.
        length: Length of a window in samples.
        hop: Distance between windows in samples.
        stride: Distance between the part's frames in samples.
        n_frames: Number of the part's frames for one window.
        time: The dimension of frames in the part's output, a tensor or a `ModelOutput` of tensors.
    """

    shared: Shared
    context = 0

    def __init__(
        self, scorer: SpoofScorer, part: nn.Module, length: int, hop: int, *, stride: int, n_frames: int, time: int = 1
    ) -> None:
        seconds_of_batch = hop * scorer.batch_size / scorer.sampling_rate
        self.n_windows = scorer.batch_size * max(1, round(_STRETCH_SECONDS / seconds_of_batch))
        self._scorer = scorer
        self._part = part
        self._length = length
        self._stride = stride
        self._n_frames = n_frames
        self._time = time

    def scores(self, stretch: Stretch) -> Iterator[NDArray[np.float64]]:
        """Yield the scores of the stretch's windows, batch by batch."""
        computed: dict[int, Any] = {}
        windows = stretch.windows(self._length)
        for first in range(0, len(windows), self._scorer.batch_size):
            batch = slice(first, first + self._scorer.batch_size)
            with _divert_forward(self._part, self._make_forward(stretch, stretch.starts[batch], computed)):
                scores = self._scorer.score_windows(windows[batch])
            yield scores

    def _make_forward(self, stretch: Stretch, starts: list[int], computed: dict[int, Any]) -> Forward:
        """Return a function to call instead of the part's own `forward`, for some windows.

        The part's output for the stretch is kept in `computed`.
        """

        def forward(own: Forward, inputs: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Any:
            slices = []
            for start in starts:
                begin, end = self._span(stretch, start)
                if begin not in computed:
                    samples = stretch.samples[begin - stretch.first : end - stretch.first]
                    values = self._scorer.model_inputs([samples])["input_values"].to(inputs.device)
                    computed[begin] = own(values, **options)
                first = round((start - begin) / self._stride)
                slices.append(_slice_output(computed[begin], first, self._n_frames, self._time))
            return _join_outputs(slices)

        return forward

    @abstractmethod
    def _span(self, stretch: Stretch, start: int) -> tuple[int, int]:
        """Return the samples of the recording, as (start, stop), that the part gets for a window."""


class SharedConvolutions(_SharedPart):
    """Computes convolutions once for windows that share frames: those a multiple of the stride apart.

    Scores are those of separate windows, up to rounding. This needs convolutions without padding and without
    normalization over time, and inputs that are the unchanged samples.
    """

    shared: Shared = "convolutions"

    def is_cheaper(self, hop: int) -> bool:
        """Return whether this computes less than separate windows do."""
        n_phases = self._stride // math.gcd(hop, self._stride)
        return n_phases * ((self.n_windows - 1) * hop + self._length) < self.n_windows * self._length

    def _span(self, stretch: Stretch, start: int) -> tuple[int, int]:
        starts = [other for other in stretch.starts if (other - start) % self._stride == 0]
        return starts[0], starts[-1] + self._length


class SharedEncoder(_SharedPart):
    """Computes the encoder once for a stretch.

    The frames also depend on the audio around a window: on the stretch and `context` samples on either side of it.
    Scores therefore differ from those of separate windows. Windows start at the nearest frame.
    """

    shared: Shared = "encoder"

    def __init__(self, scorer: SpoofScorer, part: nn.Module, length: int, hop: int, **options: int) -> None:
        super().__init__(scorer, part, length, hop, **options)
        self.context = round(_CONTEXT_SECONDS * scorer.sampling_rate)

    def _span(self, stretch: Stretch, start: int) -> tuple[int, int]:
        return stretch.first, stretch.first + len(stretch.samples)


def window_scoring(scorer: SpoofScorer, length: int, hop: int, share_encoder: bool = False) -> WindowScoring:
    """Choose how to score overlapping windows.

    Args:
        scorer: The scorer.
        length: Length of a window in samples.
        hop: Distance between windows in samples.
        share_encoder: Whether windows may share an encoder's frames, which changes scores.
    """
    separate = SeparateWindows(scorer, length)
    model = scorer.model
    encoder = getattr(model, model.base_model_prefix, None)
    config = getattr(encoder, "config", None)
    if encoder is None or config is None or hop == length:
        return separate
    if config.model_type == SincConfig.model_type:
        n_frames = length - config.kernel_size + 1
        shared = SharedConvolutions(scorer, encoder, length, hop, stride=1, n_frames=n_frames)
    elif config.model_type in _WAVEFORM_ENCODERS and not getattr(config, "add_adapter", False):
        frames = {"stride": math.prod(config.conv_stride), "n_frames": count_frames(config, length)}
        if share_encoder:
            return SharedEncoder(scorer, encoder, length, hop, **frames)
        if getattr(config, "feat_extract_norm", "layer") != "layer":
            return separate
        shared = SharedConvolutions(scorer, encoder.feature_extractor, length, hop, **frames, time=2)
    else:
        return separate
    return shared if _takes_bare_samples(scorer) and shared.is_cheaper(hop) else separate


@dataclass
class _Diversion:
    """A part's original `forward`, whether the instance itself had it, and how many threads divert it."""

    own: Forward
    is_of_instance: bool
    n_users: int = 0


_diversions: dict[nn.Module, _Diversion] = {}
_lock = Lock()
_of_this_thread = local()


@contextmanager
def _divert_forward(part: nn.Module, forward: Forward) -> Generator[None]:
    """In this thread, make a part of a model call `forward(original_forward, *arguments)` instead."""
    with _lock:
        if part not in _diversions:
            _diversions[part] = diversion = _Diversion(part.forward, "forward" in vars(part))

            def dispatch(*arguments: Any, **options: Any) -> Any:
                of_part, forward = getattr(_of_this_thread, "diversion", (None, None))
                if of_part is not part or forward is None:
                    return diversion.own(*arguments, **options)
                return forward(diversion.own, *arguments, **options)

            part.forward = dispatch
        _diversions[part].n_users += 1
    _of_this_thread.diversion = (part, forward)
    try:
        yield
    finally:
        del _of_this_thread.diversion
        with _lock:
            diversion = _diversions[part]
            diversion.n_users -= 1
            if not diversion.n_users:
                del _diversions[part], part.forward
                if diversion.is_of_instance:
                    part.forward = diversion.own


def _takes_bare_samples(scorer: SpoofScorer) -> bool:
    """Return whether the feature extractor leaves samples unchanged. Most normalize each window separately."""
    samples = np.linspace(-0.5, 0.7, 1000, dtype=np.float32)
    values = scorer.model_inputs([samples]).get("input_values")
    return values is not None and torch.equal(values[0], torch.from_numpy(samples))


def _slice_output(output: Any, first: int, n_frames: int, time: int) -> Any:
    """Cut frames out of a tensor, or out of all tensors of a `ModelOutput`."""
    if isinstance(output, Tensor):
        return output.narrow(time, min(first, output.shape[time] - n_frames), n_frames)
    if isinstance(output, tuple):
        return tuple(_slice_output(each, first, n_frames, time) for each in output)
    return type(output)(**{name: _slice_output(value, first, n_frames, time) for name, value in output.items()})


def _join_outputs(outputs: list[Any]) -> Any:
    """Join the outputs of single windows to the output of a batch."""
    if isinstance(outputs[0], Tensor):
        return torch.cat(outputs)
    if isinstance(outputs[0], tuple):
        return tuple(map(_join_outputs, map(list, zip(*outputs, strict=True))))
    return type(outputs[0])(**{name: _join_outputs([output[name] for output in outputs]) for name in outputs[0]})
