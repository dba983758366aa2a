import random

import numpy as np
import pytest
import torch

from hf_gradalign.augmentation import BatchedRawBoost, RawBoost
from hf_gradalign.augmentation.base import single_thread

SAMPLE_RATE = 16000
ALGORITHMS = range(1, 9)


def drawn(transform, n_clips, seed=0):
    """A transform's parameters for this many clips."""
    random.seed(seed)
    parameters = []
    for _ in range(n_clips):
        transform.randomize_parameters(np.zeros(1, np.float32), SAMPLE_RATE)
        parameters.append(transform.parameters)
    assert n_clips == 1 or transform.p < 1 or parameters[0] != parameters[1]
    return parameters


def one_by_one(transform, clips, parameters):
    """The transform's own result for each clip."""
    transform.freeze_parameters()
    results = []
    for clip, own in zip(clips, parameters, strict=True):
        transform.parameters = own
        results.append(transform(clip, SAMPLE_RATE))
    return results


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_equals_the_transform_of_each_clip(speech, algorithm):
    transform = RawBoost(algorithm)
    clips = [clip[:20_000] for clip in speech]
    parameters = drawn(transform, len(clips))
    batch = transform.batched()(torch.from_numpy(np.stack(clips)), parameters, SAMPLE_RATE)
    assert batch.dtype == torch.float32
    for row, expected in zip(batch, one_by_one(transform, clips, parameters), strict=True):
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("as_tensor", [True, False])
def test_shorter_clips_are_augmented_as_if_alone(speech, algorithm, as_tensor):
    transform = RawBoost(algorithm, max_impulsive_percent=50)
    lengths = [30_000, 1, 9000, 20_017]
    padded = np.full((4, 31_000), 0.7, np.float32)  # samples after a clip's end do not count
    clips = [clip[5000:][:length] for clip, length in zip(speech, lengths, strict=True)]
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip)] = clip
    parameters = drawn(transform, 4)
    given = torch.tensor(lengths) if as_tensor else lengths
    batch = transform.batched()(torch.from_numpy(padded), parameters, SAMPLE_RATE, given)
    for row, length, expected in zip(batch, lengths, one_by_one(transform, clips, parameters), strict=True):
        np.testing.assert_allclose(row[:length], expected, rtol=0, atol=1e-5)
        assert not row[length:].any()


def test_other_settings(speech):
    transform = RawBoost(4, n_bands=2, n_powers=3, max_taps=701, impulsive_gain=4, min_gain_db=-6, min_snr_db=0)
    clips = [clip[:12_000] for clip in speech]
    parameters = drawn(transform, 4)
    batch = BatchedRawBoost(4, impulsive_gain=4)(torch.from_numpy(np.stack(clips)), parameters, SAMPLE_RATE)
    for row, expected in zip(batch, one_by_one(transform, clips, parameters), strict=True):
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_clips_that_are_left_alone(speech, p):
    transform = RawBoost(4, p=p)
    waveforms = torch.from_numpy(np.stack([clip[:5000] for clip in speech * 2]))
    parameters = drawn(transform, 8)
    left_alone = [not own["should_apply"] for own in parameters]
    assert any(left_alone)
    batch = transform.batched()(waveforms, parameters, SAMPLE_RATE)
    same = [torch.equal(row, before) for row, before in zip(batch, waveforms, strict=True)]
    assert same == left_alone
    assert batch.data_ptr() != waveforms.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_keeps_the_type(speech, dtype):
    transform = RawBoost()
    waveforms = torch.from_numpy(speech[0][None, :5000]).to(dtype)
    parameters = drawn(transform, 1)
    augmented = transform.batched()(waveforms, parameters, SAMPLE_RATE)
    assert augmented.dtype == dtype
    expected = transform.batched()(waveforms.float(), parameters, SAMPLE_RATE)
    torch.testing.assert_close(augmented.float(), expected, atol=1e-5 if dtype == torch.float64 else 1e-2, rtol=0)


def test_silence_stays_silence():
    transform = RawBoost()
    assert not transform.batched()(torch.zeros(2, 3000), drawn(transform, 2), SAMPLE_RATE).any()


def test_leaves_its_input_and_the_generators_alone(speech):
    transform = RawBoost()
    waveforms = torch.from_numpy(np.stack([clip[:5000] for clip in speech])).requires_grad_()
    before, parameters = waveforms.detach().clone(), drawn(transform, 4)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    augmented = transform.batched()(waveforms, parameters, SAMPLE_RATE, [5000, 4000, 3000, 2000])
    assert not augmented.requires_grad
    assert torch.equal(waveforms, before)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_the_result_can_go_into_a_model(speech):
    """Tensors from torch's inference mode would fail here."""
    augmented = torch.from_numpy(RawBoost()(speech[0][:5000], SAMPLE_RATE))[None]
    batch = BatchedRawBoost()(augmented, drawn(RawBoost(), 1), SAMPLE_RATE)
    layer = torch.nn.Linear(5000, 1)
    for given in (augmented, batch):
        layer(given).sum().backward()
    assert layer.weight.grad.any()


def test_prepared_draws_are_on_the_host_and_are_tensors_and_numbers():
    transform = RawBoost()
    draws = transform.batched().prepare(drawn(transform, 3), [400, 100, 300], SAMPLE_RATE, width=500)
    assert draws["white"].shape == draws["impulses"].shape == (3, 500)
    assert draws["responses"].shape == (3, 6, 1025)
    assert draws["responses"].dtype == torch.float32
    assert not draws["white"][1, 100:].any()
    assert draws["white"][1, :100].any()


@pytest.mark.parametrize(
    ("lengths", "n_drawn", "message"),
    [
        (None, 1, "2 waveforms need as many parameters and lengths; got 1 and 2"),
        ([10], 2, "2 waveforms need as many parameters and lengths; got 2 and 1"),
        ([10, 0], 2, r"lengths must be in \[1, 100\]; got \[10, 0\]"),
        ([101, 10], 2, r"lengths must be in \[1, 100\]; got \[101, 10\]"),
    ],
)
def test_batches_that_do_not_fit_are_refused(lengths, n_drawn, message):
    transform = RawBoost()
    with pytest.raises(ValueError, match=message):
        transform.batched()(torch.zeros(2, 100), drawn(transform, n_drawn), SAMPLE_RATE, lengths)


@pytest.mark.parametrize("waveforms", [torch.ones(2, 100, dtype=torch.int16), torch.zeros(100), torch.zeros(2, 1, 100)])
def test_other_inputs_than_batches_are_refused(waveforms):
    with pytest.raises(ValueError, match=r"floating-point waveforms of shape \(batch, samples\); got torch\."):
        BatchedRawBoost()(waveforms, drawn(RawBoost(), 2), SAMPLE_RATE)


def test_parameters_of_another_algorithm_are_refused():
    message = "algorithm 4 needs the parameter 'convolutive'; the parameters of waveform 0 are should_apply, impulsive"
    with pytest.raises(ValueError, match=message):
        BatchedRawBoost(4)(torch.zeros(1, 100), drawn(RawBoost(2), 1), SAMPLE_RATE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"algorithm": 9}, r"algorithm must be an integer in \[1, 8\]"), ({"impulsive_gain": -1}, "impulsive_gain must")],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BatchedRawBoost(**arguments)


def test_one_thread_is_for_the_block_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with single_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_clip_is_augmented_to_the_same_bits_with_any_number_of_threads(speech):
    transform = RawBoost()
    random.seed(0)
    transform.randomize_parameters(speech[0], SAMPLE_RATE)
    transform.freeze_parameters()
    expected, before = transform(speech[0], SAMPLE_RATE), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        np.testing.assert_array_equal(transform(speech[0], SAMPLE_RATE), expected)
    finally:
        torch.set_num_threads(before)
