"""A detector for the Arena's own tool: a class that loads a model, scores batches and unloads it."""

import gc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch

from hf_gradalign.data import BadAudioError
from hf_gradalign.scoring import SpoofScorer
from hf_gradalign.utils.settings_files import read_json_object

if TYPE_CHECKING:
    from hf_gradalign.scoring.model_loading import DType

_PREFIX = "HF_GRADALIGN_"
_NO = ("", "0", "false", "no", "off")


class GradAlignModel:
    """A detector, or any two-class transformers audio classifier, with the interface of the Arena's tool.

        HF_GRADALIGN_MODEL=runs/my-run speech-spoof-bench run --model-module hf_gradalign.hub.arena:GradAlignModel ...

    Or subclass it:

        class MyDetector(GradAlignModel):
            name = "my-detector"
            model = "you/my-detector"

    The environment variables `HF_GRADALIGN_MODEL`, `_NAME`, `_BATCH_SIZE`, `_DEVICE`, `_DTYPE`, `_REVISION`,
    `_CONVERSION_OPTIONS` (JSON), `_RMS_LEVEL`, `_RAW_SCORES` and `_TRUST_REMOTE_CODE` override the attributes, except
    for a subclass's `model` and `name`.

    If `score_batch` raises, the tool scores the batch's clips one by one, and counts those that raise again as skipped.
    It stops if more than 5 % are skipped. Clips that cannot be scored therefore raise here, and score files never
    contain NaN.

    Attributes:
        model: Folder or Hub id of the model, or a published detector: its Hub id or the path of its file.
        name: The system's name in the tool. Defaults to the last part of `model`.
        batch_size: Clips per batch, and windows per forward pass.
        expected_sample_rate: The rate in Hz that the tool resamples to. After loading, the model's rate.
        device: Where to compute. None uses the accelerator, if there is one.
        dtype: "float32", "bfloat16", "float16" or "auto". Published results use float32.
        trust_remote_code: Whether to run code that comes with the model.
        raw_scores: Whether to return a calibrated model's scores from before calibration.
        scorer_options: Other arguments of `SpoofScorer`.
    """

    model: str | os.PathLike[str] | None = None
    name: str = "hf_gradalign"
    batch_size: int = 16
    expected_sample_rate: int = 16_000
    device: str | None = None
    dtype: str = "float32"
    trust_remote_code: bool = False
    raw_scores: bool = False
    scorer_options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self) -> None:
        own = type(self)
        self._source = own.model if own.model is not None else _setting("MODEL")
        if own.name == GradAlignModel.name:
            named = Path(os.fspath(self._source)).name if self._source else own.name
            self.name = _setting("NAME") or named
        self.batch_size = _whole_number("BATCH_SIZE", own.batch_size)
        self.device = _setting("DEVICE") or own.device
        self.dtype = _setting("DTYPE") or own.dtype
        self.trust_remote_code = _switch("TRUST_REMOTE_CODE", own.trust_remote_code)
        self.raw_scores = _switch("RAW_SCORES", own.raw_scores)
        self._scorer: SpoofScorer | None = None

    def load(self) -> None:
        """Load the model. The tool calls this once.

        Raises:
            OSError: If there is no such model.
            ValueError: If no model is named, or an option is out of range.
        """
        if not self._source:
            raise ValueError(
                f"no model was chosen: set {_PREFIX}MODEL to a folder or Hub id, or set `model` in a subclass"
            )
        options: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        if self.raw_scores:
            options["raw_scores"] = True
        if revision := _setting("REVISION"):
            options["revision"] = revision
        if given := _setting("CONVERSION_OPTIONS"):
            options["conversion_options"] = read_json_object(
                given, f"{_PREFIX}CONVERSION_OPTIONS", '{"num_attention_heads": 8}'
            )
        if level := _setting("RMS_LEVEL"):
            try:
                options["rms_level"] = float(level)
            except ValueError:
                raise ValueError(f"{_PREFIX}RMS_LEVEL must be a number, not {level!r}") from None
        self._scorer = SpoofScorer(
            self._source,
            batch_size=self.batch_size,
            device=self.device,
            dtype=cast("DType", self.dtype),  # the scorer checks it
            **{**self.scorer_options, **options},
        )
        self.expected_sample_rate = self._scorer.sampling_rate

    def score_batch(self, audios: Sequence[np.ndarray], srs: Sequence[int]) -> list[float]:
        """Score clips.

        Args:
            audios: Floating-point waveforms in [-1, 1], shape (time,), or with channels, which are averaged.
            srs: Their sampling rates in Hz. Waveforms are resampled if the model's rate is different.

        Returns:
            One finite score per clip. Higher means bona fide.

        Raises:
            BadAudioError: If a clip is empty or has non-finite samples, or its score is not finite.
            RuntimeError: If the model is not loaded.
        """
        if self._scorer is None:
            raise RuntimeError("call load() before score_batch()")
        clips = [{"array": audio, "sampling_rate": int(rate)} for audio, rate in zip(audios, srs, strict=True)]
        try:
            return self._scorer.score(clips).tolist()
        except BadAudioError as error:  # in one line, because the tool logs it for each clip
            raise BadAudioError("; ".join(map(str, error.bad_clips)), error.bad_clips) from None

    def unload(self) -> None:
        """Free the model and the accelerator's memory."""
        self._scorer = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _setting(name: str) -> str | None:
    return os.environ.get(_PREFIX + name) or None


def _switch(name: str, default: bool) -> bool:
    given = _setting(name)
    return default if given is None else given.lower() not in _NO


def _whole_number(name: str, default: int) -> int:
    given = _setting(name)
    if given is None:
        return default
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"{_PREFIX}{name} must be a whole number of at least 1, not {given!r}")
    return int(given)
