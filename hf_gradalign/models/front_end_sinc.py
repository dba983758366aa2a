"""Fixed band-pass filters of the raw waveform, in place of a self-supervised encoder."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .configuration_spoof_detector import SincConfig


class SincFrontEnd(PreTrainedModel):
    """Convolves waveforms with fixed sinc filters: the front end of AASIST and RawNet2.

    Ravanelli and Bengio, "Speaker recognition from raw waveform with SincNet" (SLT 2018, arXiv 1808.00158), with bands
    of equal width on the mel scale. There is nothing to train, and the filters are not part of the state dict.

    Args:
        config: The configuration.
    """

    config_class = SincConfig
    main_input_name = "input_values"
    input_modalities = "audio"
    # It has no attention, so every implementation works.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: SincConfig) -> None:
        super().__init__(config)
        self.filters: Tensor
        # Not on the meta device, from which only entries of the state dict come back.
        size = (config.num_filters, 1, config.kernel_size)
        self.register_buffer("filters", torch.empty(size, device="cpu"), persistent=False)
        self.reset_parameters()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Compute the filters."""
        config = self.config
        self.filters.copy_(sinc_filters(config.num_filters, config.kernel_size, config.sampling_rate)[:, None])

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple[Tensor, ...]:
        """Waveforms (B, time) to the outputs of the filters (B, time - taps + 1, filters) as `last_hidden_state`.

        Raises:
            ValueError: If the waveforms are shorter than the filters.
        """
        taps = self.config.kernel_size
        if input_values.shape[1] < taps:
            raise ValueError(f"a clip of {input_values.shape[1]} samples is shorter than the filters of {taps} taps")
        frames = conv1d(input_values.unsqueeze(1), self.filters).mT
        output = BaseModelOutput(frames, hidden_states=(frames,) if output_hidden_states else None)
        return output if return_dict is not False else output.to_tuple()

    def _get_feature_vector_attention_mask(self, length: int, attention_mask: Tensor) -> Tensor:
        """Return the mask of the outputs that depend only on real samples."""
        lengths = attention_mask.sum(1) - self.config.kernel_size + 1
        return torch.arange(length, device=attention_mask.device) < lengths[:, None]


def sinc_filters(num_filters: int, kernel_size: int, sampling_rate: int) -> Tensor:
    r"""Return band-pass filters that lie next to each other between 0 Hz and half the sampling rate.

    A filter with the edges f and g is, at tap n = -(N - 1) / 2, ..., (N - 1) / 2 and sampling rate r,
    :math:`w_n (2g/r \, \mathrm{sinc}(2gn/r) - 2f/r \, \mathrm{sinc}(2fn/r))`, with
    :math:`\mathrm{sinc}(x) = \sin(\pi x) / (\pi x)` and a symmetric Hamming window w.

    Args:
        num_filters: Number of filters.
        kernel_size: Number of taps N, which is odd.
        sampling_rate: Sampling rate in Hz.

    Returns:
        Shape (filters, taps), float32 on the CPU.
    """
    top = 2595 * np.log10(1 + sampling_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, num_filters + 1) / 2595) - 1)[:, None]
    taps = np.arange(kernel_size, dtype=np.float32) - (kernel_size - 1) / 2
    # Phases in float32, as in the published code: in float64, scores of its models change in the fifth digit.
    phases = (2 * edges).astype(np.float32) * taps / np.float32(sampling_rate)
    low_pass = 2 * edges / sampling_rate * np.sinc(phases)
    window = np.hamming(kernel_size).astype(np.float32)
    return torch.from_numpy(window * np.diff(low_pass, axis=0).astype(np.float32))
