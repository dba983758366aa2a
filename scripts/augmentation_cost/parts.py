"""Algorithm 4 of RawBoost in parts that can be timed by themselves."""

import numpy as np
import torch

from augmentation_cost.speech import SAMPLE_RATE
from hf_gradalign.augmentation import RawBoost
from hf_gradalign.augmentation.rawboost.filters import block_length, notch_responses
from hf_gradalign.augmentation.rawboost.noises import (
    add_convolutive_noise,
    add_impulsive_noise,
    add_stationary_noise,
    draw_white_noise,
    impulse_factors,
)

PARTS = {
    "whole": "all of it",
    "parameters": "drawing parameters",
    "white_noise": "white noise",
    "impulses": "where impulses are, and how strong (no permutation)",
    "filter_design": "designing six filters of five bands",
    "convolutive": "powers, five FFTs, one inverse (convolutive)",
    "impulsive": "impulsive",
    "stationary": "filtering the noise and adding it (stationary)",
}


class RawBoostParts:
    """The parts, by the names in `PARTS`, of one clip and one draw.

    Args:
        clip: Float32 of shape (samples,).
    """

    def __init__(self, clip: np.ndarray) -> None:
        self._clip = clip
        self._transform = RawBoost()
        self.parameters()
        self._drawn = self._transform.parameters
        self._draws = self._transform.batched().prepare([self._drawn], [len(clip)], SAMPLE_RATE)
        self._waveform = torch.from_numpy(clip)[None]
        self._reach, self._responses = self._draws["reach"], self._draws["responses"]

    def whole(self) -> None:
        """Everything, with another draw each time."""
        self._transform(self._clip, SAMPLE_RATE)

    def parameters(self) -> None:
        """The numbers that `parameters` holds."""
        self._transform.randomize_parameters(self._clip, SAMPLE_RATE)

    def white_noise(self) -> None:
        """The stationary noise before it is filtered."""
        draw_white_noise(len(self._clip), self._drawn["stationary"]["seed"])

    def impulses(self) -> None:
        """The impulsive noise's positions and factors."""
        impulse_factors(len(self._clip), **self._drawn["impulsive"], gain=2.0)

    def filter_design(self) -> None:
        """From drawn numbers to frequency responses."""
        notches = [*self._drawn["convolutive"]["notches"], self._drawn["stationary"]["notch"]]
        notch_responses([notches], SAMPLE_RATE, block_length(self._reach))

    @torch.inference_mode()
    def convolutive(self) -> None:
        """The first noise, its filters being there."""
        add_convolutive_noise(self._waveform, self._responses[:, :-1], self._reach)

    @torch.inference_mode()
    def impulsive(self) -> None:
        """The second noise, its factors being there."""
        add_impulsive_noise(self._waveform, self._draws["impulses"])

    @torch.inference_mode()
    def stationary(self) -> None:
        """The third noise, its filter and white noise being there."""
        draws = self._draws
        add_stationary_noise(self._waveform, draws["white"], self._responses[:, -1:], draws["snr_db"], self._reach)
