"""RawBoost on batches of waveforms, on any device."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_gradalign.augmentation.base import check_integer, check_number
from hf_gradalign.augmentation.rawboost.filters import NotchFilter, block_length, longest_reach, notch_responses
from hf_gradalign.augmentation.rawboost.noises import (
    ALGORITHMS,
    MAX_IMPULSIVE_GAIN,
    add_convolutive_noise,
    add_impulsive_noise,
    add_stationary_noise,
    combine_noises,
    draw_white_noise,
    impulse_factors,
)

Draws = dict[str, Any]
"""The random part of a batch by name: plain numbers, and tensors whose first axis is the batch."""


class BatchedRawBoost:
    """RawBoost for a whole batch at once, in torch, on the device of the waveforms.

    Takes the parameters that `RawBoost.randomize_parameters` drew, and matches `RawBoost` to about 1e-6 of full scale.
    The result depends only on the waveforms and their parameters. Bulk noise is drawn on the host from the parameters'
    seeds and then moved to the device, so that it is the same on every device.

        drawn = []
        for _ in waveforms:
            rawboost.randomize_parameters(samples, sample_rate)
            drawn.append(rawboost.parameters)
        augmented = BatchedRawBoost(rawboost.algorithm)(waveforms.to("cuda"), drawn, sample_rate)

    Args:
        algorithm: The algorithm that the parameters were drawn for, 1 to 8.
        impulsive_gain: Strength of impulsive noise relative to the signal.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(self, algorithm: int = 4, impulsive_gain: float = 2.0) -> None:
        self.algorithm = check_integer("algorithm", algorithm, 1, len(ALGORITHMS))
        self.impulsive_gain = check_number("impulsive_gain", impulsive_gain, 0, MAX_IMPULSIVE_GAIN)

    def __call__(
        self,
        waveforms: Tensor,
        parameters: Sequence[Mapping[str, Any]],
        sample_rate: int,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> Tensor:
        """Augment a batch.

        Args:
            waveforms: Finite floating-point waveforms of shape (batch, samples), padded at the end.
            parameters: `RawBoost.parameters` of each waveform.
            sample_rate: In Hz.
            lengths: Number of samples of each waveform, of shape (batch,). None if nothing is padded.

        Returns:
            A new tensor of the same shape, type and device. Padding is 0.

        Raises:
            ValueError: If the waveforms are not floating-point or not a batch, the number of parameters or lengths
                differs from the number of waveforms, a length is out of range, or parameters are missing.
        """
        if waveforms.ndim != 2 or not waveforms.is_floating_point():
            raise ValueError(
                "BatchedRawBoost takes floating-point waveforms of shape (batch, samples); got "
                f"{waveforms.dtype} of shape {tuple(waveforms.shape)}"
            )
        batch, time = waveforms.shape
        n_samples = [time] * batch if lengths is None else [int(length) for length in lengths]
        if len(parameters) != batch or len(n_samples) != batch:
            raise ValueError(
                f"{batch} waveforms need as many parameters and lengths; got {len(parameters)} and {len(n_samples)}"
            )
        if not all(0 < n <= time for n in n_samples):
            raise ValueError(f"lengths must be in [1, {time}]; got {n_samples}")
        draws = _to_device(self.prepare(parameters, n_samples, sample_rate, time), waveforms.device)
        ragged = None if lengths is None else torch.as_tensor(lengths, device=waveforms.device)
        return self.apply(waveforms, draws, ragged)

    def prepare(
        self,
        parameters: Sequence[Mapping[str, Any]],
        n_samples: Sequence[int],
        sample_rate: int,
        width: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Draws:
        """Design a batch's filters and draw its bulk noise. Runs on the host, so loader workers can do it.

        Args:
            parameters: The drawn parameters of each waveform.
            n_samples: The length of each waveform.
            sample_rate: In Hz.
            width: The padded length. Defaults to the longest waveform's length.
            dtype: Type of the filters' responses.

        Returns:
            Draws on the CPU, padded with zeros along time.

        Raises:
            ValueError: If parameters are missing, or waveforms have different numbers of filters.
        """
        applied = [bool(drawn["should_apply"]) for drawn in parameters]
        draws: Draws = {} if all(applied) else {"should_apply": torch.tensor(applied)}
        if not any(applied):
            return draws
        kinds = ALGORITHMS[self.algorithm]
        for i, drawn in enumerate(parameters):
            if applied[i] and (missing := [kind for kind in kinds if kind not in drawn]):
                raise ValueError(
                    f"algorithm {self.algorithm} needs the parameter {missing[0]!r}; the parameters of waveform {i} "
                    f"are {', '.join(drawn)}"
                )
        # Waveforms that stay unchanged get placeholder parameters.
        placeholder = next(own for own in parameters if own["should_apply"])
        filled = [own if own["should_apply"] else placeholder for own in parameters]
        if "convolutive" in kinds or "stationary" in kinds:
            notches = [_notches_of(each, kinds) for each in filled]
            draws["reach"] = longest_reach(notches)
            responses = notch_responses(notches, sample_rate, block_length(draws["reach"]))
            draws["responses"] = torch.from_numpy(responses).to(dtype)
        if "impulsive" in kinds:
            impulses = [each["impulsive"] | {"gain": self.impulsive_gain} for each in filled]
            draws["impulses"] = _draw_padded(impulse_factors, impulses, n_samples, width)
        if "stationary" in kinds:
            draws["snr_db"] = torch.tensor([each["stationary"]["snr_db"] for each in filled])
            seeds = [{"seed": each["stationary"]["seed"]} for each in filled]
            draws["white"] = _draw_padded(draw_white_noise, seeds, n_samples, width)
        return draws

    @torch.no_grad()
    def apply(self, waveforms: Tensor, draws: Draws, lengths: Tensor | None = None) -> Tensor:
        """Apply prepared draws on their device, without synchronizing with the host.

        Args:
            waveforms: As for `__call__`.
            draws: From `prepare`, moved to the device.
            lengths: As for `__call__`, on the device.

        Returns:
            As for `__call__`.
        """
        dtype = waveforms.dtype
        waveforms = waveforms.to(dtype if dtype == torch.float64 else torch.float32)
        mask = None
        if lengths is not None:
            mask = (torch.arange(waveforms.shape[-1], device=waveforms.device) < lengths[:, None]).to(waveforms.dtype)
            waveforms = waveforms * mask
        applied = draws.get("should_apply")
        if set(draws) == {"should_apply"}:
            return waveforms.to(dtype, copy=True)

        def add(kind: str, samples: Tensor) -> Tensor:
            if kind == "convolutive":
                own = draws["responses"][:, :-1] if "white" in draws else draws["responses"]
                return add_convolutive_noise(samples, own, draws["reach"], mask)
            if kind == "impulsive":
                return add_impulsive_noise(samples, draws["impulses"].to(samples.dtype))
            white = draws["white"].to(samples.dtype)
            last = draws["responses"][:, -1:]
            return add_stationary_noise(samples, white, last, draws["snr_db"], draws["reach"], mask)

        noisy = combine_noises(self.algorithm, waveforms, add)
        if applied is not None:
            noisy = torch.where(applied[:, None], noisy, waveforms)
        return noisy.to(dtype)


def _notches_of(parameters: Mapping[str, Any], kinds: Sequence[str]) -> list[NotchFilter]:
    """Return the filters of convolutive noise, then the filter of stationary noise, whose gain has no effect."""
    notches = [*parameters["convolutive"]["notches"]] if "convolutive" in kinds else []
    if "stationary" in kinds:
        notches.append(parameters["stationary"]["notch"] | {"gain_db": 0.0})
    return notches


def _draw_padded(
    draw: Callable[..., Tensor], parameters: Sequence[Mapping[str, Any]], n_samples: Sequence[int], width: int | None
) -> Tensor:
    """Draw a series for each waveform, and pad them with zeros to one length."""
    rows = [draw(n, **each) for n, each in zip(n_samples, parameters, strict=True)]
    width = max(n_samples) if width is None else width
    if all(len(row) == width for row in rows):
        return torch.stack(rows) if len(rows) > 1 else rows[0][None]
    padded = rows[0].new_zeros(len(rows), width)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded


def _to_device(draws: Any, device: torch.device) -> Any:
    if isinstance(draws, dict):
        return {key: _to_device(value, device) for key, value in draws.items()}
    return draws.to(device) if isinstance(draws, Tensor) else draws
