"""Properties of all transforms: float32 output, channels, frozen parameters, checks of arguments."""

import copy
import json
import math
import multiprocessing
import pickle
import random

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hf_gradalign.augmentation import AddBabble, Codec, FrequencyMask, PacketLoss, RawBoost, Reverberation
from hf_gradalign.augmentation.base import check_integer, check_number, check_ordered
from hf_gradalign.augmentation.codecs import CODECS
from hf_gradalign.augmentation.rawboost import ALGORITHMS

SAMPLE_RATE = 16_000
LARGEST = np.finfo(np.float32).max
TRANSFORMS = [*(RawBoost(algorithm) for algorithm in ALGORITHMS), *(Codec(name) for name in CODECS)]
TRANSFORMS += [AddBabble(), FrequencyMask(), PacketLoss(), Reverberation()]
TRANSFORMS_ONCE = [RawBoost(), *TRANSFORMS[-5:]]


def shown(transform):
    return type(transform).__name__


@settings(max_examples=80, deadline=None)
@given(
    samples=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=1, min_side=1, max_side=40),
        elements=st.floats(-float(LARGEST), float(LARGEST), width=32),
    ),
    rate=st.sampled_from([8000, 16_000, 44_100]),
    seed=st.integers(0, 1000),
    transform=st.sampled_from([*TRANSFORMS, Codec(min_kbps=6, max_kbps=320)]),
)
def test_output_is_finite_float32(samples, rate, seed, transform):
    random.seed(seed)
    changed = transform(samples, rate)
    assert changed.dtype == np.float32
    assert changed.shape == samples.shape
    assert np.isfinite(changed).all()


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
@pytest.mark.parametrize("transform", TRANSFORMS_ONCE, ids=shown)
def test_empty_clips_come_back_unchanged(transform, shape):
    samples = np.zeros(shape, dtype=np.float32)
    assert transform(samples, SAMPLE_RATE) is samples
    assert transform.apply(samples, SAMPLE_RATE) is samples


@pytest.mark.parametrize("transform", TRANSFORMS_ONCE, ids=shown)
def test_channels_are_transformed_independently(speech, transform):
    samples = np.stack([speech[0][:8000], 10 * speech[1][:8000]])
    transform = copy.deepcopy(transform)
    random.seed(0)
    transform.randomize_parameters(samples, SAMPLE_RATE)
    transform.freeze_parameters()
    together = transform(samples, SAMPLE_RATE)
    assert not np.array_equal(together, samples)
    for channel in range(2):
        np.testing.assert_array_equal(together[channel], transform(samples[channel], SAMPLE_RATE))


def test_frozen_parameters_repeat_to_the_bit_after_json_and_pickling(speech, tmp_path):
    recording = str(tmp_path / "recording.wav")
    soundfile.write(recording, speech[1], SAMPLE_RATE)
    for drawn in [*TRANSFORMS, Codec(CODECS), AddBabble([recording]), Reverberation([recording])]:
        frozen = copy.deepcopy(drawn)
        random.seed(1)
        expected = drawn(speech[0], SAMPLE_RATE)
        frozen.parameters = json.loads(json.dumps(drawn.serialize_parameters()))
        frozen.freeze_parameters()
        before = random.getstate(), pickle.dumps(np.random.get_state())
        for transform in (frozen, frozen, pickle.loads(pickle.dumps(frozen))):
            np.testing.assert_array_equal(transform(speech[0], SAMPLE_RATE), expected)
        assert before == (random.getstate(), pickle.dumps(np.random.get_state()))
        assert frozen.serialize_parameters() == drawn.serialize_parameters()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_leaves_its_input_alone(speech, dtype):
    samples = speech[0].astype(dtype)
    before = samples.copy()
    for transform in TRANSFORMS:
        transform(samples, SAMPLE_RATE)
        np.testing.assert_array_equal(samples, before)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(10, np.int16), r" takes floating-point samples; got int16: convert them and scale them to \[-1, 1\]"),
        (np.zeros((1, 2, 3), np.float32), r"must have shape \(samples,\) or \(channels, samples\); got \(1, 2, 3\)"),
        (np.array([0, np.nan, np.inf], np.float32), "samples must be finite; 2 of 3 are NaN or infinite"),
        (np.array([0, -np.inf], np.float32), "samples must be finite; 1 of 2 are NaN or infinite"),
    ],
)
@pytest.mark.parametrize("transform", TRANSFORMS_ONCE, ids=shown)
def test_unfit_samples_are_refused(transform, samples, message):
    with pytest.raises(ValueError, match=message) as refusal:
        transform(samples, SAMPLE_RATE)
    if samples.dtype == np.int16:
        assert str(refusal.value).startswith(shown(transform))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process")
@pytest.mark.parametrize("transform", TRANSFORMS_ONCE, ids=shown)
@pytest.mark.parametrize("kind", ["reversed", "every other", "read-only", "big-endian", "long double"])
@pytest.mark.filterwarnings("error")
def test_any_array_of_samples(speech, transform, kind):
    clip = speech[0][:2000]
    frozen = clip.copy()
    frozen.flags.writeable = False
    arrays = {
        "reversed": clip[::-1].copy()[::-1],  # as from audiomentations' Reverse
        "every other": np.repeat(clip, 2)[::2],
        "read-only": frozen,
        "big-endian": clip.astype(">f4"),
        "long double": clip.astype(np.longdouble),
    }
    results = []
    for samples in (clip, arrays[kind]):
        random.seed(1)
        np.random.seed(1)
        results.append(transform(samples, SAMPLE_RATE))
    np.testing.assert_allclose(results[1], results[0], atol=1e-6)


@pytest.mark.parametrize("samples", [[0.1, 0.2], torch.zeros(10)], ids=["list", "tensor"])
def test_only_arrays_are_accepted(samples):
    with pytest.raises(ValueError, match=r"RawBoost takes a NumPy array; got (list|Tensor): convert the samples"):
        RawBoost()(samples, SAMPLE_RATE)


def test_works_in_a_process_that_was_forked_from_one_with_threads(speech):
    """Fork like `datasets.map`. With more than one thread, torch would wait forever."""

    def work():
        torch.set_num_threads(2)
        for transform in TRANSFORMS:
            transform(speech[0], SAMPLE_RATE)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.randn(1_000_000).exp()  # the threads are started
        child = multiprocessing.get_context("fork").Process(target=work, daemon=True)
        child.start()
        child.join(timeout=60)
        assert child.exitcode == 0
    finally:
        child.kill()
        torch.set_num_threads(before)


def test_numbers_come_back_as_plain_floats():
    for value in (1, 1.0, np.float32(1), np.int64(1)):
        assert type(check_number("x", value, 0, math.inf)) is float


def test_integers_come_back_as_plain_ints():
    assert type(check_integer("x", np.int64(3), 1)) is int


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1, True, "0.5", None])
def test_numbers_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=r"x must be a finite number in \[0, 1\]; got "):
        check_number("x", value, 0, 1)


def test_a_number_without_upper_limit_says_so():
    with pytest.raises(ValueError, match=r"x must be a finite number >= 0; got -1"):
        check_number("x", -1, 0, math.inf)


@pytest.mark.parametrize("value", [0, 6, 2.0, True, "2", None])
def test_integers_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=r"x must be an integer in \[1, 5\]; got "):
        check_integer("x", value, 1, 5)


def test_an_integer_without_upper_limit_says_so():
    with pytest.raises(ValueError, match=r"x must be an integer >= 1; got 0"):
        check_integer("x", 0, 1)


def test_order():
    check_ordered("min_x", 1, "max_x", 1)
    with pytest.raises(ValueError, match=r"min_x must be <= max_x; got min_x=2 and max_x=1"):
        check_ordered("min_x", 2, "max_x", 1)
