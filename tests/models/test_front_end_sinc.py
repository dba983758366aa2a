"""The filters in front of AASIST on raw waveforms."""

import math

import pytest
import torch
from tiny_detectors import make_clips, make_config, make_detector
from transformers import AutoModelForAudioClassification

from hf_gradalign.models import SincConfig, SpoofDetectorConfig
from hf_gradalign.models.front_end_sinc import SincFrontEnd, sinc_filters


def make_front_end(**options):
    return SincFrontEnd(SincConfig(**options))


def test_filters_are_their_formula():
    filters = sinc_filters(70, 129, 16_000).double()
    top = 2595 * math.log10(1 + 8000 / 700)
    edges = [700 * (10 ** (top * i / 70 / 2595) - 1) for i in range(71)]
    taps = torch.arange(-64.0, 65, dtype=torch.float64)
    window = 0.54 + 0.46 * torch.cos(2 * math.pi * taps / 128)
    for index in (0, 1, 35, 69):
        low, high = (2 * f / 16_000 * torch.sinc(2 * f * taps / 16_000) for f in edges[index : index + 2])
        torch.testing.assert_close(filters[index], (high - low) * window, atol=2e-7, rtol=0)


def test_a_filter_passes_its_band():
    """The loudest filter for a tone is the one whose band the tone lies in."""
    front_end = make_front_end(num_filters=10, kernel_size=401)
    top = 2595 * math.log10(1 + 8000 / 700)
    time = torch.arange(4000) / 16_000
    for index in range(1, 10):
        tone = 700 * (10 ** (top * (index + 0.5) / 10 / 2595) - 1)
        energy = front_end(torch.sin(2 * math.pi * tone * time)[None]).last_hidden_state.square().sum(1)
        assert energy.argmax() == index


def test_outputs_are_the_convolution():
    front_end, clips = make_front_end(num_filters=12, kernel_size=31), make_clips(2, 100)
    output = front_end(clips, output_hidden_states=True)
    frames = output.last_hidden_state
    assert frames.shape == (2, 70, 12)
    expected = (clips[1, 5 : 5 + 31] * front_end.filters[3, 0]).sum()
    torch.testing.assert_close(frames[1, 5, 3], expected)
    assert output.hidden_states[0] is frames
    assert front_end(clips, return_dict=False)[0].equal(frames)


def test_an_even_number_of_taps_is_raised_by_one():
    assert SincConfig(kernel_size=128).kernel_size == SincConfig(kernel_size=129).kernel_size == 129
    with pytest.raises(ValueError, match="needs at least 3 filters of 3 taps, got 2 filters of 129"):
        SincConfig(num_filters=2)


def test_filters_are_computed_and_not_saved(tmp_path):
    model = make_detector("sinc")
    assert not any(name.startswith("backbone.") for name in model.state_dict())
    assert not list(model.backbone.parameters())
    model.save_pretrained(tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        loaded = AutoModelForAudioClassification.from_pretrained(tmp_path, dtype=dtype)
        assert loaded.backbone.filters.dtype == dtype
        assert torch.equal(loaded.backbone.filters, sinc_filters(12, 31, 16_000)[:, None].to(dtype))


def test_the_front_end_and_the_detector_have_one_sampling_rate(tmp_path):
    with pytest.raises(ValueError, match="the sinc front end is for 16000 Hz, and the detector for 8000 Hz"):
        make_config("sinc", sampling_rate=8000)
    config = make_config("sinc", backbone={"sampling_rate": 8000}, sampling_rate=8000)
    config.save_pretrained(tmp_path)
    loaded = SpoofDetectorConfig.from_pretrained(tmp_path)
    assert type(loaded.backbone_config) is SincConfig
    assert (loaded.backbone_config.sampling_rate, loaded.backbone_config.num_filters) == (8000, 12)


def test_a_clip_shorter_than_the_filters():
    with pytest.raises(ValueError, match="a clip of 30 samples is shorter than the filters of 31 taps"):
        make_front_end(num_filters=12, kernel_size=31)(make_clips(2, 30))
