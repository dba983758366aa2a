"""Scores clips with a trained model."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel, SequenceFeatureExtractor
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import logging

from hf_gradalign.data import BadAudioError, BadClip, ViewCollator
from hf_gradalign.data.checking import OutOfRangeClips, silence_note
from hf_gradalign.metrics import Calibration
from hf_gradalign.models.clip_lengths import padding_is_harmless, without_cropping
from hf_gradalign.scoring.chunks import Chunk, ChunkDataset, ChunkPieces, as_clips, clip_name, ignore_interrupts
from hf_gradalign.scoring.model_loading import (
    DType,
    autocast,
    default_worker_count,
    load_detector,
    require_usable_weights,
    resolve_dtype,
    usable_device,
)
from hf_gradalign.scoring.model_outputs import ModelOutputs
from hf_gradalign.scoring.progress import ScoredPart, finite_or_none
from hf_gradalign.scoring.timeline import Timeline, score_timeline
from hf_gradalign.scoring.verdict import Verdict, rule_for
from hf_gradalign.scoring.windowing import Combination, WindowMode, choose_windowing
from hf_gradalign.utils.loader_workers import pins_memory, start_worker

logger = logging.get_logger(__name__)


class SpoofScorer:
    """Scores clips with a model: the bona fide logit minus the spoof logit. Higher means bona fide.

    For a model with one output, the score is that output, or its negative if the output stands for spoof. Scores of a
    calibrated model (`hf-gradalign calibrate`) are log-likelihood ratios.

        SpoofScorer("runs/my-run").score(["a.wav", "b.flac"])

    Args:
        model: A model, or the folder or Hub id of a trained audio classifier: a detector of this package, or any
            transformers classifier whose two labels tell which is bona fide.
        feature_extractor: The model's feature extractor. Only needed if `model` is not a name.
        batch_size: Windows (or whole clips) per forward pass.
        device: Where to compute. Defaults to the accelerator, if there is one.
        dtype: "float32"; "bfloat16" or "float16" with autocast; or "auto", which is bfloat16 on accelerators that
            support it. Half precision changes scores, and error rates, a little.
        windows: "first" scores the leading window (the usual protocol), "all" scores windows from start to end and
            combines their scores, "whole" scores the whole clip, in batches by length if that does not change the
            score. Defaults to the setting saved with the model.
        window_seconds: Length of a window. Defaults to the length saved with the model, otherwise 4.175 s.
        hop_seconds: Distance between the starts of windows for "all". Defaults to the length of a window.
        combine: "mean", "median", "min" (the most suspicious window) or "max" of the windows' scores.
        rms_level: Scale clips to this root mean square first. For models that were trained this way and do not
            normalize their input.
        bonafide_label: Name (or number) of the bona fide label, if the names do not tell. "none" for a model with one
            output that is higher for spoof.
        num_workers: Processes that decode audio. 0 decodes in this process, None chooses a number for this machine.
        raw_scores: Whether to return the scores of a calibrated model before calibration.
        hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`, for a model given by name.

    Attributes:
        model: The model, in evaluation mode, on its device.
        feature_extractor: Makes the model's inputs from windows of any length.
        windowing: Which windows of a clip are scored.
        sampling_rate: The model's sampling rate in Hz.
        device: The device of the model.
        dtype: "float32", "bfloat16" or "float16".
        raw_scores: Whether scores are those before calibration.

    Raises:
        OSError: If there is no such model.
        ValueError: If an argument is out of range, the model was not trained to classify or has no config, its weights
            are not float32 and `dtype` is "float32", or its labels do not tell which is bona fide.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | PreTrainedModel,
        feature_extractor: FeatureExtractionMixin | None = None,
        *,
        batch_size: int = 16,
        device: str | torch.device | None = None,
        dtype: DType = "float32",
        windows: WindowMode | None = None,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
        combine: Combination = "mean",
        rms_level: float | None = None,
        bonafide_label: str | None = None,
        num_workers: int | None = 0,
        raw_scores: bool = False,
        **hub_options: Any,
    ) -> None:
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, not {num_workers}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if rms_level is not None and not 0 < rms_level <= 1:
            raise ValueError(f"rms_level must be above 0 and at most 1, not {rms_level}")
        self.device = usable_device(device)
        label2id = None  # for a model object, use only id2label, because users may have set only that
        if isinstance(model, str | os.PathLike):
            model, feature_extractor = load_detector(
                os.fspath(model), feature_extractor=feature_extractor, **hub_options
            )
            label2id = cast("Mapping[str, int] | None", model.config.label2id)
        elif feature_extractor is None:
            raise ValueError("a model object needs its feature_extractor")
        elif not hasattr(model, "config"):
            raise ValueError(f"a {type(model).__name__} has no config: pass the transformers model that it contains")
        self.raw_scores = raw_scores
        self.outputs = ModelOutputs(model, bonafide_label, label2id, raw_scores=raw_scores)
        self.windowing = choose_windowing(feature_extractor, windows, window_seconds, hop_seconds, combine)
        self.dtype = resolve_dtype(dtype, self.device)
        require_usable_weights(model, self.dtype)
        self.model = model.to(self.device).eval()
        self.feature_extractor = without_cropping(feature_extractor)
        self.sampling_rate: int = cast(SequenceFeatureExtractor, feature_extractor).sampling_rate
        self._collator = ViewCollator(self.feature_extractor)
        self.batch_size = batch_size
        self.rms_level = rms_level
        self.num_workers = default_worker_count(self.device) if num_workers is None else num_workers
        self.outputs.warn_about_other_windows({**self.windowing.settings, "rms_level": rms_level})

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of the scores; None if the model has none, or with `raw_scores`."""
        return self.outputs.calibration

    def score(
        self,
        clips: Any,
        sampling_rate: int | None = None,
        *,
        on_bad_audio: Literal["stop", "nan"] = "stop",
        progress: bool = False,
    ) -> NDArray[np.float64]:
        """Score clips.

        Args:
            clips: One clip or a sequence of clips: paths, encoded files' bytes, waveforms, or mappings with `array` and
                `sampling_rate`, or with `bytes` or `path`. Waveforms are NumPy arrays, tensors or lists of numbers of
                shape (time,), or (time, channels) or (channels, time) with up to 8 channels, which are averaged: floats
                in [-1, 1], int16 or int32. An array is one clip. Pass several clips as a list of arrays.
            sampling_rate: The sampling rate in Hz of waveforms without their own, a positive whole number. Defaults to
                the model's.
            on_bad_audio: "stop" raises if clips cannot be scored. "nan" scores them as NaN and warns.
            progress: Whether to show a progress bar.

        Returns:
            Scores of shape (clips,), in the order of the clips. Higher means bona fide.

        Raises:
            BadAudioError: If clips cannot be scored. `bad_clips` lists all of them.
            ValueError: If `on_bad_audio` is neither, a clip is a number, or a sampling rate is not a positive whole
                number.
        """
        return self._score(clips, sampling_rate, on_bad_audio, progress)[0]

    def predict(
        self,
        clips: Any,
        sampling_rate: int | None = None,
        *,
        p_spoof: float = 0.05,
        c_miss: float = 1.0,
        c_fa: float = 10.0,
        undecided_band: float = 0.0,
        on_bad_audio: Literal["stop", "nan"] = "stop",
        progress: bool = False,
    ) -> list[Verdict]:
        """Decide about clips. The default prior and costs are those of ASVspoof 5.

        A model that is not calibrated gives only labels, by the sign of the score, with one warning.

        Args:
            clips: As for `score`.
            sampling_rate: As for `score`.
            p_spoof: Prior probability of a spoof, in (0, 1).
            c_miss: Cost of taking bona fide speech for a spoof, positive.
            c_fa: Cost of taking a spoof for bona fide speech, positive.
            undecided_band: Clips whose log-likelihood ratio is closer to the threshold than this, in nats, are
                undecided. With 0, all are decided. Needs a calibrated model.
            on_bad_audio: As for `score`. With "nan", clips that cannot be scored get the label None.
            progress: As for `score`.

        Returns:
            One verdict per clip. Silent clips are undecided.

        Raises:
            BadAudioError: As for `score`.
            ValueError: As for `score`; or if a number is out of range, or `undecided_band` needs a calibrated model.
        """
        rule = rule_for(self, p_spoof, c_miss, c_fa, undecided_band)
        return rule.decide(*self._score(clips, sampling_rate, on_bad_audio, progress))

    def timeline(
        self,
        clip: Any,
        sampling_rate: int | None = None,
        *,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
        share_encoder: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> Timeline:
        """Score overlapping windows of a recording, to see where in it the scores change.

            SpoofScorer("runs/my-run").timeline("interview.wav", hop_seconds=0.1)

        Recordings may last for hours: they are decoded and scored piece by piece.

        Args:
            clip: One clip, as for `score`.
            sampling_rate: A waveform's sampling rate in Hz. Defaults to the model's.
            window_seconds: Length of a window, at least 0.1 s. Defaults to the scorer's.
            hop_seconds: Distance between the starts of windows, at most the length of one. Defaults to the scorer's if
                it has one, otherwise 0.5 s.
            share_encoder: Compute the frames of an encoder of waveforms (wav2vec 2.0, HuBERT, WavLM, ...) once for 20 s
                of the recording, not once for each window. With small hops, this is many times cheaper, but frames then
                depend on up to 22 s on either side of a window, so scores differ from those of separate windows. Other
                models ignore this option. Convolutions are always shared where this does not change scores.
            progress: Called after each batch of windows with the fraction of the recording that has been scored, as far
                as its length is known. An exception raised by this function ends the scoring.

        Returns:
            The scores by time.

        Raises:
            BadAudioError: If the recording cannot be scored.
            ValueError: If there is not exactly one clip, or a length is out of range.
        """
        return score_timeline(
            self,
            clip,
            sampling_rate,
            window_seconds=window_seconds,
            hop_seconds=hop_seconds,
            share_encoder=share_encoder,
            progress=progress,
        )

    def model_inputs(self, windows: Sequence[NDArray[np.float32]]) -> dict[str, torch.Tensor]:
        """Return the model's inputs for windows of one length, waveforms of shape (time,)."""
        return self._collator.model_inputs(windows)

    def score_windows(self, windows: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Score windows of one length, waveforms of shape (time,), in one forward pass. Shape (windows,)."""
        try:
            return self.outputs.scores([self._forward(self.model_inputs(windows))])
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            raise self._too_many_windows(len(windows)) from error

    def chunks(self, clips: Sequence[Any]) -> ChunkDataset:
        """Split clips into chunks for `score_chunks`."""
        return ChunkDataset(
            clips,
            feature_extractor=self.feature_extractor,
            windowing=self.windowing,
            batch_size=self.batch_size,
            pads=padding_is_harmless(self.model, self.feature_extractor),
            rms_level=self.rms_level,
        )

    def score_chunks(
        self,
        chunks: ChunkDataset,
        numbers: Sequence[int] | None = None,
        on_part: Callable[[Chunk, ScoredPart], None] | None = None,
        parts: Mapping[int, ScoredPart] | None = None,
    ) -> Iterator[tuple[Chunk, NDArray[np.float64]]]:
        """Score chunks in order, while loader workers decode the next ones.

        Args:
            chunks: From `chunks`.
            numbers: The numbers of the chunks, in order. Defaults to all.
            on_part: Called with each piece of a chunk except the last, and with the scores of its windows.
            parts: Windows that have been scored before, by the number of their chunk.

        Yields:
            Each chunk, and the scores of its clips, shape (clips,): NaN for bad audio.
        """
        parts = dict(parts or {})
        begun: dict[int, Chunk] = {}
        # Start the next chunk on the accelerator before waiting for the scores of the last one.
        before: tuple[Chunk, list[torch.Tensor]] | None = None
        numbers = range(len(chunks)) if numbers is None else numbers
        for piece in self._loader(chunks, numbers, {n: len(part.owners) for n, part in parts.items()}):
            if piece.number in parts:
                begun[piece.number] = Chunk.resumed(parts.pop(piece.number), piece.first)
            chunk = begun.pop(piece.number, None) or Chunk(piece.number, piece.n_clips)
            chunk.n_clips = piece.n_clips
            chunk.bad |= piece.bad
            chunk.loud |= piece.loud
            chunk.silent |= piece.silent
            logits = [
                self._forward_within_memory(batch, owners, chunk)
                for batch, owners in zip(piece.batches, piece.owners, strict=True)
            ]
            chunk.owners += piece.owners
            if not piece.is_last:
                begun[piece.number] = chunk
                scores = self.outputs.scores(logits)
                chunk.window_scores.append(scores)
                if on_part is not None:
                    owners = np.concatenate(piece.owners).tolist()
                    on_part(piece, ScoredPart(piece.number, piece.first, owners, finite_or_none(scores)))
                continue
            if before is not None:
                yield before[0], self._clip_scores(*before)
            before = (chunk, logits)
        if before is not None:
            yield before[0], self._clip_scores(*before)

    def _score(
        self, clips: Any, sampling_rate: int | None, on_bad_audio: Literal["stop", "nan"], progress: bool
    ) -> tuple[NDArray[np.float64], set[int]]:
        """Score clips for `score`, and also return the indices of silent clips."""
        if on_bad_audio not in ("stop", "nan"):
            raise ValueError(f"on_bad_audio must be stop or nan, not {on_bad_audio!r}")
        clips = as_clips(clips, sampling_rate)
        scores = np.full(len(clips), np.nan)
        bad, loud, silent = [], OutOfRangeClips(), set()
        chunks = self.chunks(clips)
        with tqdm(total=len(clips), unit="clip", desc="Scoring", disable=not progress) as bar:
            for chunk, chunk_scores in self.score_chunks(chunks):
                start, stop = chunks.bounds(chunk.number)
                names = [clip_name(clip, index) for index, clip in enumerate(clips[start:stop], start)]
                scores[start:stop] = chunk_scores
                bad += [BadClip(names[index], None, reason) for index, reason in sorted(chunk.bad.items())]
                for index, peak in chunk.loud.items():
                    loud.add(names[index], peak)
                silent |= {start + index for index in chunk.silent}
                bar.update(stop - start)
        silent_names = [clip_name(clips[index], index) for index in sorted(silent)]
        for note in filter(None, (loud.note(len(clips)), silence_note(silent_names, len(clips)))):
            logger.warning(f"{note}.")
        if bad:
            listed = "\n".join(f"  {clip}" for clip in bad[:20]) + (f"\n  ... {len(bad) - 20} more" * (len(bad) > 20))
            message = f"{len(bad)} of {len(clips)} clips cannot be scored:\n{listed}"
            if on_bad_audio == "stop":
                raise BadAudioError(f'{message}\nFix them, or score them as NaN with on_bad_audio="nan".', bad)
            logger.warning(f"Scored as NaN: {message}")
        return scores, silent

    def _loader(
        self, chunks: ChunkDataset, numbers: Sequence[int], n_done: Mapping[int, int] | None = None
    ) -> Iterable[Chunk]:
        return DataLoader(
            ChunkPieces(chunks, numbers, n_done or {}),
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=pins_memory(self.device),
            worker_init_fn=partial(start_worker, then=ignore_interrupts),
        )

    def _forward_within_memory(
        self, batch: dict[str, torch.Tensor], owners: NDArray[np.int64], chunk: Chunk
    ) -> torch.Tensor:
        try:
            return self._forward(batch)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            if self.windowing.mode != "whole":
                raise self._too_many_windows(len(owners)) from error
        if len(owners) > 1:  # whole clips one by one
            rows = [{name: tensor[row : row + 1] for name, tensor in batch.items()} for row in range(len(owners))]
            alone = [self._forward_within_memory(row, owners[n : n + 1], chunk) for n, row in enumerate(rows)]
            return torch.cat(alone)
        chunk.bad[int(owners[0])] = (
            f"{self.device} does not have enough memory for the whole clip: use windows 'all' (--windows all)"
        )
        return torch.full((1, self.model.config.num_labels), torch.nan, device=self.device)

    def _too_many_windows(self, n_windows: int) -> ValueError:
        problem = f"{self.device} does not have enough memory for {n_windows} windows at once"
        return ValueError(f"{problem}: use a smaller batch size (--batch_size)")

    def _forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        inputs = {name: x.to(self.device, non_blocking=pins_memory(self.device)) for name, x in batch.items()}
        with torch.inference_mode(), autocast(self.device, self.dtype):
            return self.outputs.logits(inputs)

    def _clip_scores(self, chunk: Chunk, logits: list[torch.Tensor]) -> NDArray[np.float64]:
        return chunk.clip_scores(self.outputs.scores(logits) if logits else np.empty(0), self.windowing)
