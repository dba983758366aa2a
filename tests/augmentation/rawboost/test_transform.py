import copy
import inspect
import json
import random

import audiomentations
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_gradalign.augmentation import RawBoost

SAMPLE_RATE = 16000
ALGORITHMS = range(1, 9)
LARGEST = np.finfo(np.float32).max


def noise_clip(shape=8000, level=0.3):
    return np.random.default_rng(0).uniform(-level, level, shape).astype(np.float32)


def frozen(samples, seed=0, **arguments):
    """A transform with its parameters drawn and frozen."""
    random.seed(seed)
    transform = RawBoost(**arguments)
    transform.randomize_parameters(samples, SAMPLE_RATE)
    transform.freeze_parameters()
    return transform


# The published method


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_direct_computation_on_speech(direct, speech, algorithm, seed):
    transform = frozen(speech[seed], seed=seed, algorithm=algorithm)
    expected = direct.rawboost(speech[seed], transform, SAMPLE_RATE)
    np.testing.assert_allclose(transform(speech[seed], SAMPLE_RATE), expected, rtol=0, atol=1e-5)
    assert np.abs(expected - speech[seed]).max() > 1e-4


@settings(max_examples=25, deadline=None)
@given(
    algorithm=st.sampled_from(ALGORITHMS),
    n_bands=st.integers(1, 6),
    n_powers=st.integers(1, 7),
    min_taps=st.integers(3, 60),
    extra_taps=st.integers(0, 200),
    gain_db=st.floats(-6, 6),
    seed=st.integers(0, 10_000),
)
def test_equals_the_direct_computation_for_other_settings(
    direct, algorithm, n_bands, n_powers, min_taps, extra_taps, gain_db, seed
):
    samples = noise_clip(3000)
    transform = frozen(
        samples,
        seed=seed,
        algorithm=algorithm,
        n_bands=n_bands,
        n_powers=n_powers,
        min_taps=min_taps,
        max_taps=min_taps + extra_taps,
        min_gain_db=gain_db,
        max_gain_db=gain_db + 3,
        max_impulsive_percent=60,
        impulsive_gain=5,
        min_snr_db=0,
    )
    expected = direct.rawboost(samples, transform, SAMPLE_RATE)
    np.testing.assert_allclose(transform(samples, SAMPLE_RATE), expected, rtol=0, atol=1e-5)


def test_defaults_are_the_published_ones():
    assert RawBoost().get_transform_init_args() == {
        "algorithm": 4,
        "n_bands": 5,
        "min_center_freq": 20,
        "max_center_freq": 8000,
        "min_bandwidth": 100,
        "max_bandwidth": 1000,
        "min_taps": 10,
        "max_taps": 100,
        "min_gain_db": 0,
        "max_gain_db": 0,
        "min_bias_db": 5,
        "max_bias_db": 20,
        "n_powers": 5,
        "max_impulsive_percent": 10,
        "impulsive_gain": 2,
        "min_snr_db": 10,
        "max_snr_db": 40,
        "p": 1,
    }


def draw_many(n_draws=400, sample_rate=SAMPLE_RATE, **arguments):
    transform, drawn = RawBoost(**arguments), []
    random.seed(0)
    for _ in range(n_draws):
        transform.randomize_parameters(noise_clip(10), sample_rate)
        drawn.append(copy.deepcopy(transform.parameters))
    return drawn


def assert_uniform(values, low, high):
    """All inside the range, near both ends, and with the mean and spread of a uniform distribution."""
    values = np.asarray(values, dtype=float)
    width = high - low
    assert low <= values.min() < low + 0.03 * width
    assert high - 0.03 * width < values.max() <= high
    assert values.mean() == pytest.approx((low + high) / 2, abs=0.05 * width)
    assert values.std() == pytest.approx(width / 12**0.5, rel=0.1)


def test_draws_are_uniform_over_the_published_ranges():
    drawn = draw_many()
    notches = [notch for each in drawn for notch in each["convolutive"]["notches"]]
    assert {len(each["convolutive"]["notches"]) for each in drawn} == {5}
    assert_uniform(np.concatenate([notch["center_freqs"] for notch in notches]), 20, 8000)
    assert_uniform(np.concatenate([notch["bandwidths"] for notch in notches]), 100, 1000)
    assert_uniform([each["impulsive"]["percent"] for each in drawn], 0, 10)
    assert_uniform([each["stationary"]["snr_db"] for each in drawn], 10, 40)
    assert {len(each["stationary"]["notch"]["center_freqs"]) for each in drawn} == {5}
    seeds = {each[kind]["seed"] for each in drawn for kind in ("impulsive", "stationary")}
    assert len(seeds) == 2 * len(drawn)


def test_lengths_are_rounded_down_and_made_odd():
    taps = np.concatenate([each["stationary"]["notch"]["taps"] for each in draw_many()])
    lengths, counts = np.unique(taps, return_counts=True)
    # 10.0 to 11.99 gives 11, and so on to 98.0 to 99.99: 45 lengths, equally likely.
    np.testing.assert_array_equal(lengths, range(11, 100, 2))
    assert counts.min() > 15
    assert draw_many(1, min_taps=10, max_taps=10)[0]["stationary"]["notch"]["taps"] == [11] * 5
    assert draw_many(1, min_taps=11, max_taps=11)[0]["stationary"]["notch"]["taps"] == [11] * 5


def test_gain_is_lowered_once_for_all_higher_powers():
    gains = np.array([[notch["gain_db"] for notch in each["convolutive"]["notches"]] for each in draw_many(n_powers=4)])
    np.testing.assert_array_equal(gains[:, 0], 0)
    for power in (1, 2, 3):
        assert_uniform(gains[:, power], -20, -5)


def test_bias_lowers_each_end_of_the_gain():
    gains = np.array(
        [
            [notch["gain_db"] for notch in each["convolutive"]["notches"]]
            for each in draw_many(min_gain_db=-10, max_gain_db=20, min_bias_db=1, max_bias_db=2)
        ]
    )
    assert_uniform(gains[:, 0], -10, 20)
    assert_uniform(gains[:, 4], -11, 18)


def test_centers_stay_below_half_the_sample_rate():
    drawn = draw_many(sample_rate=8000, algorithm=3)
    assert_uniform(np.concatenate([each["stationary"]["notch"]["center_freqs"] for each in drawn]), 20, 4000)


def test_each_algorithm_draws_only_its_parameters():
    kinds = {algorithm: set(draw_many(1, algorithm=algorithm)[0]) - {"should_apply"} for algorithm in ALGORITHMS}
    first, second, third = {"convolutive"}, {"impulsive"}, {"stationary"}
    assert kinds == {
        1: first,
        2: second,
        3: third,
        4: first | second | third,
        5: first | second,
        6: first | third,
        7: second | third,
        8: first | second,
    }


@pytest.mark.parametrize("algorithm", [1, 2, 5, 8])
def test_peak_is_at_most_1_where_promised(algorithm):
    samples = noise_clip(level=5)
    assert np.abs(frozen(samples, algorithm=algorithm)(samples, SAMPLE_RATE)).max() == 1


# Chance


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_seeding_reproduces(algorithm):
    samples, transform = noise_clip(), RawBoost(algorithm)

    def run(seed):
        random.seed(seed)
        return transform(samples, SAMPLE_RATE)

    first = run(1)
    assert not np.array_equal(run(2), first)
    np.testing.assert_array_equal(run(1), first)


def test_every_call_draws_again():
    samples, transform = noise_clip(), RawBoost()
    assert not np.array_equal(transform(samples, SAMPLE_RATE), transform(samples, SAMPLE_RATE))


def test_frozen_parameters_fit_other_lengths_and_sample_rates(direct):
    transform = frozen(noise_clip(8000))
    for n_samples in (1, 2, 479, 20_000):
        samples = noise_clip(n_samples)
        assert transform(samples, SAMPLE_RATE).shape == (n_samples,)
    samples = noise_clip(5000)
    np.testing.assert_allclose(
        transform(samples, SAMPLE_RATE), direct.rawboost(samples, transform, SAMPLE_RATE), atol=1e-5
    )
    assert np.isfinite(transform(samples, 4000)).all()


def test_p_is_the_share_of_calls_that_change_the_clip():
    samples, transform = noise_clip(100), RawBoost(algorithm=3, p=0.3)
    random.seed(0)
    changed = [not np.array_equal(transform(samples, SAMPLE_RATE), samples) for _ in range(500)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.08)
    np.testing.assert_array_equal(RawBoost(p=0)(samples, SAMPLE_RATE), samples)


# Samples


# Arguments

RANGES = {
    "algorithm": ([0, 9, -1, 4.0, True, "4"], r"an integer in \[1, 8\]"),
    "n_bands": ([0, -1, 2.5], "an integer >= 1"),
    "min_center_freq": ([-1, np.nan, np.inf], "a finite number >= 0"),
    "max_center_freq": ([-1, np.nan, np.inf], "a finite number >= 0"),
    "min_bandwidth": ([-100, np.nan, np.inf], "a finite number >= 0"),
    "max_bandwidth": ([-100, np.nan, np.inf], "a finite number >= 0"),
    "min_taps": ([0, -5, 10.5], "an integer >= 1"),
    "max_taps": ([0, -5, 10.5], "an integer >= 1"),
    "min_gain_db": ([-201, np.nan, -np.inf], r"a finite number in \[-200, 200\]"),
    "max_gain_db": ([201, np.nan, np.inf], r"a finite number in \[-200, 200\]"),
    "min_bias_db": ([-1, 201, np.nan], r"a finite number in \[0, 200\]"),
    "max_bias_db": ([-1, 201, np.nan], r"a finite number in \[0, 200\]"),
    "n_powers": ([0, 8, 1.5], r"an integer in \[1, 7\]"),
    "max_impulsive_percent": ([-1, 100.1, np.nan], r"a finite number in \[0, 100\]"),
    "impulsive_gain": ([-1, 1e7, np.nan], r"a finite number in \[0, 1e\+06\]"),
    "min_snr_db": ([-201, np.nan, "10"], r"a finite number in \[-200, 200\]"),
    "max_snr_db": ([201, np.nan, None], r"a finite number in \[-200, 200\]"),
    "p": ([-0.1, 1.1, np.nan], r"a finite number in \[0, 1\]"),
}


def test_every_argument_has_a_refusal():
    assert set(RANGES) == set(inspect.signature(RawBoost).parameters)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (values, _) in RANGES.items() for value in values])
def test_impossible_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be {RANGES[name][1]}; got "):
        RawBoost(**{name: value})


@pytest.mark.parametrize(
    ("quantity", "low", "high"),
    [
        ("center_freq", 500, 400),
        ("bandwidth", 500, 400),
        ("taps", 51, 50),
        ("gain_db", 1, 0),
        ("bias_db", 6, 5),
        ("snr_db", 20, 10),
    ],
)
def test_ranges_upside_down_are_refused(quantity, low, high):
    with pytest.raises(ValueError, match=f"^min_{quantity} must be <= max_{quantity}; got min_{quantity}={low}"):
        RawBoost(**{f"min_{quantity}": low, f"max_{quantity}": high})


def test_centers_beyond_the_audio_are_refused_at_the_call():
    message = r"min_center_freq=4000 Hz must be below half the sample rate, which is 8000 Hz"
    with pytest.raises(ValueError, match=message):
        RawBoost(min_center_freq=4000)(noise_clip(), 8000)
    RawBoost(algorithm=2, min_center_freq=4000)(noise_clip(), 8000)  # without a notch filter


# As one of audiomentations' transforms


def test_in_a_composition(speech):
    compose = audiomentations.Compose([RawBoost(5, p=1.0), audiomentations.Gain(-6, -6, p=1.0)])
    random.seed(3)
    composed = compose(samples=speech[0], sample_rate=SAMPLE_RATE)
    random.seed(3)
    random.random()  # the composition's own probability
    np.testing.assert_allclose(composed, RawBoost(5)(speech[0], SAMPLE_RATE) * 10 ** (-6 / 20), atol=1e-6)


def test_is_rebuilt_from_its_arguments_and_says_them():
    transform = RawBoost(algorithm=8, max_taps=50, min_snr_db=np.float32(12), p=0.25)
    arguments = transform.get_transform_init_args()
    rebuilt = RawBoost(**json.loads(json.dumps(arguments)))
    assert rebuilt.get_transform_init_args() == arguments
    assert transform.to_dict()["transform"]["max_taps"] == 50
    representation = repr(transform)
    assert representation.startswith("RawBoost(")
    for part in ("algorithm=8", "max_taps=50", "min_snr_db=12.0", "p=0.25"):
        assert part in representation
