import random
import re

import audiomentations
import numpy as np
import pytest
import soundfile
from scipy.signal import correlate, resample_poly

from hf_gradalign.augmentation import Codec, codecs
from hf_gradalign.augmentation.codecs import ALL_CODECS, CODECS, EXTRA_CODECS, available_codecs

SAMPLE_RATE = 16000
RATES = [8000, 16000, 22050, 44100, 96000]
TELEPHONE = ["gsm", "mu_law", "a_law"]
LARGEST = np.finfo(np.float32).max

# Each codec at the ends and within what can be drawn by default, and at the ends of what can be asked for.
SETTINGS = [
    *(("mp3", kbps) for kbps in (6.0, 16.0, 33.3, 64.0, 320.0)),
    *(("opus", kbps) for kbps in (6.0, 16.0, 33.3, 64.0, 320.0)),
    *(("vorbis", quality) for quality in (0.0, 0.4, 1.0)),
    *((name, None) for name in TELEPHONE),
]
USUAL = (33.3, 0.4, None)


@pytest.fixture(scope="module")
def speech(speech):
    """A second and a half of each clip: enough for every codec."""
    return [clip[:24_000] for clip in speech]


def holding(name, setting):
    """A transform with these parameters frozen."""
    transform = Codec()
    transform.parameters = {"should_apply": True, "codec": name, "setting": setting}
    transform.freeze_parameters()
    return transform


def at_rate(samples, rate):
    divisor = np.gcd(rate, SAMPLE_RATE)
    return resample_poly(samples, rate // divisor, SAMPLE_RATE // divisor).astype(np.float32)


def seconds_late(before, after, rate):
    """Where the cross-correlation is greatest."""
    correlation = correlate(after.astype(float), before.astype(float))
    return (np.argmax(correlation) - (len(before) - 1)) / rate


def check_likeness(samples, coded, rate):
    """The same speech at the same time and level, but not the same samples."""
    assert coded.shape == samples.shape
    assert coded.dtype == np.float32
    assert np.isfinite(coded).all()
    assert abs(seconds_late(samples, coded, rate)) <= 2e-4
    assert np.corrcoef(coded, samples)[0, 1] > 0.7
    assert 0.6 < coded.std() / samples.std() < 1.4
    assert not np.array_equal(coded, samples)


def error_to_signal(before, after):
    return np.sum((after - before) ** 2) / np.sum(before**2)


# In time


# Each setting at one rate, and every rate with a setting of each codec; all others are slow.
@pytest.mark.parametrize(
    ("rate", "name", "setting"),
    [
        pytest.param(rate, name, setting, marks=() if rate == 8000 or setting in USUAL else pytest.mark.slow)
        for rate in RATES
        for name, setting in SETTINGS
    ],
)
def test_in_time_on_speech(speech, name, setting, rate):
    samples = at_rate(speech[0], rate)
    check_likeness(samples, holding(name, setting)(samples, rate), rate)


@pytest.mark.parametrize("n_samples", [1, 29, 576, 577, 1105, 1152, 15_001])
@pytest.mark.parametrize(("name", "setting"), [("mp3", 64.0), ("mp3", 8.0), *SETTINGS[-6:]])
def test_any_length(speech, name, setting, n_samples):
    samples = speech[0][8000:][:n_samples]
    for rate in (SAMPLE_RATE, 44100):
        coded = holding(name, setting)(samples, rate)
        assert coded.shape == samples.shape
        assert np.isfinite(coded).all()
    if n_samples > 4000:
        assert seconds_late(samples, holding(name, setting)(samples, SAMPLE_RATE), SAMPLE_RATE) == 0


def test_the_decoders_delay_is_taken_out_at_every_mp3_bit_rate(speech):
    # Only some bit rates have room for LAME's note on the delay. None may have a delay.
    for rate in (8000, 16000, 24000, 44100):
        samples = at_rate(speech[1][:20_000], rate)
        for kbps in (8, 16, 24, 32, 40, 48, 56, 64, 96, 128):
            assert seconds_late(samples, holding("mp3", kbps)(samples, rate), rate) == 0, (rate, kbps)


# What a codec does


@pytest.mark.parametrize("name", TELEPHONE)
def test_the_telephone_ends_at_4_khz(speech, name):
    samples = speech[0] + 0.05 * np.random.default_rng(0).standard_normal(len(speech[0])).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(holding(name, None)(samples, SAMPLE_RATE))) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    assert spectrum[frequencies > 4500].mean() < 1e-4 * spectrum[frequencies < 3500].mean()


@pytest.mark.parametrize(("name", "low", "high"), [("mp3", 16, 64), ("opus", 8, 64), ("vorbis", 0, 1)])
def test_less_is_lost_with_more_bits(speech, name, low, high):
    errors = [error_to_signal(speech[0], holding(name, x)(speech[0], SAMPLE_RATE)) for x in (low, high)]
    assert errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("name", ["mp3", "opus"])
@pytest.mark.parametrize("kbps", [32, pytest.param(48, marks=pytest.mark.slow), 64])
def test_takes_the_bit_rate_asked_for(speech, monkeypatch, name, rate, kbps):
    sizes = []
    write = soundfile.write

    def measure(file, *args, **options):
        write(file, *args, **options)
        sizes.append(len(file.getvalue()))

    monkeypatch.setattr(codecs.soundfile, "write", measure)
    samples = at_rate(np.concatenate(speech[:2]), rate)
    holding(name, kbps)(samples, rate)
    # A frame more or less, headers, and Opus's variable rate.
    assert sizes[0] * 8 / 1000 / (len(samples) / rate) == pytest.approx(kbps, rel=0.2)


def test_g711_is_the_standards():
    # Decoded mu-law has 15 magnitudes of 16 steps a sign, the least step being 8 of 32768 (ITU-T G.711).
    ramp = np.linspace(-1, 1, 20_001, dtype=np.float32)
    levels = np.unique(np.round(holding("mu_law", None)(ramp, 8000) * 32768))
    assert len(levels) == 255
    assert np.diff(levels).min() == 8
    assert levels.max() == 32124
    assert len(np.unique(holding("a_law", None)(ramp, 8000))) == 256


def test_the_level_stays_above_full_scale(speech):
    samples = 5 * speech[0] / np.abs(speech[0]).max()
    for name, setting in SETTINGS:
        loud = holding(name, setting)(samples, SAMPLE_RATE)
        np.testing.assert_allclose(loud, 5 * holding(name, setting)(samples / 5, SAMPLE_RATE), atol=0.05)


# Draws


def test_draws_every_codec_and_its_setting():
    transform, drawn = Codec(min_kbps=20, max_kbps=30, min_vorbis_quality=0.2, max_vorbis_quality=0.4), {}
    random.seed(0)
    for _ in range(1200):
        transform.randomize_parameters(np.zeros(10, np.float32), SAMPLE_RATE)
        drawn.setdefault(transform.parameters["codec"], []).append(transform.parameters["setting"])
    assert set(drawn) == set(CODECS)
    for name, values in drawn.items():
        assert len(values) == pytest.approx(200, abs=50)
        if name in TELEPHONE:
            assert set(values) == {None}
        else:
            low, high = (0.2, 0.4) if name == "vorbis" else (20, 30)
            assert low <= min(values) < max(values) <= high
            assert np.mean(values) == pytest.approx((low + high) / 2, rel=0.1)


def test_seeding_reproduces(speech):
    transform = Codec()

    def run(seed):
        random.seed(seed)
        return [transform(speech[0], SAMPLE_RATE) for _ in range(4)]

    first = run(1)
    assert not all(np.array_equal(a, b) for a, b in zip(first, run(2), strict=True))
    for a, b in zip(first, run(1), strict=True):
        np.testing.assert_array_equal(a, b)


def test_p_is_the_share_of_calls_that_change_the_clip():
    samples = np.linspace(-0.5, 0.5, 100, dtype=np.float32)
    transform = Codec(["mu_law"], p=0.3)
    random.seed(0)
    changed = [not np.array_equal(transform(samples, 8000), samples) for _ in range(500)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.08)


# Samples


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_silence_stays_next_to_silence(name, setting):
    for samples in (np.zeros(5000, np.float32), np.zeros((2, 300), np.float32), np.zeros(1, np.float32)):
        coded = holding(name, setting)(samples, SAMPLE_RATE)
        assert coded.shape == samples.shape
        assert np.abs(coded).max() <= 32 / 32768


def test_composes(speech):
    compose = audiomentations.Compose([audiomentations.Gain(p=1.0), Codec(["gsm"])])
    assert compose(speech[0], SAMPLE_RATE).shape == speech[0].shape


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codecs": []}, "codecs must name at least one of mp3, vorbis, opus, gsm, mu_law, a_law, g722, aac, "),
        ({"codecs": ["mp3", "celp"]}, "unknown codec 'celp'; available: mp3, vorbis, opus, gsm, mu_law, a_law, g722, "),
        ({"min_kbps": 5}, "min_kbps must be a finite number in [6, 320]; got 5"),
        ({"max_kbps": 321}, "max_kbps must be a finite number in [6, 320]; got 321"),
        ({"min_kbps": 65}, "min_kbps must be <= max_kbps; got min_kbps=65.0 and max_kbps=64.0"),
        ({"min_vorbis_quality": -0.1}, "min_vorbis_quality must be a finite number in [0, 1]; got -0.1"),
        ({"max_vorbis_quality": True}, "max_vorbis_quality must be a finite number in [0, 1]; got True"),
        ({"min_vorbis_quality": 0.5, "max_vorbis_quality": 0.4}, "min_vorbis_quality must be <= max_vorbis_quality"),
        ({"p": 2}, "p must be a finite number in [0, 1]; got 2"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Codec(**arguments)


def test_missing_codec_error_lists_the_installed_ones(monkeypatch):
    formats = {name: full for name, full in soundfile.available_formats().items() if name != "MP3"}
    monkeypatch.setattr(codecs.soundfile, "available_formats", lambda: formats)
    monkeypatch.setattr(codecs.soundfile, "available_subtypes", lambda format: {"GSM610": "", "VORBIS": ""})
    monkeypatch.setattr(codecs, "find_spec", lambda name: None)
    message = (
        r"these codecs cannot be used here: mp3: the installed libsndfile cannot write it; .*; opus: .*; "
        r"g722: it needs the package G722: pip install G722\. "
        "Available: vorbis, gsm, aac, (amr_nb, )?g723_1$"
    )
    with pytest.raises(ValueError, match=message):
        Codec(["mp3", "gsm", "opus", "g722"])
    assert Codec(["gsm"]).codecs == ("gsm",)


def test_a_pyav_without_the_codec_is_refused(monkeypatch):
    monkeypatch.setattr("av.codec.codecs_available", {"aac"})
    with pytest.raises(ValueError, match="amr_nb: the installed PyAV was built without libopencore_amrnb"):
        Codec(["aac", "amr_nb"])


# With packages of their own


def skip_without(*names):
    """PyAV's wheels from 19 on have no AMR encoder, for one."""
    for name in names:
        if (reason := ALL_CODECS[name].unavailable_reason()) is not None:
            pytest.skip(f"{name}: {reason}")


@pytest.mark.parametrize("name", EXTRA_CODECS)
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_codecs_of_other_packages_are_in_time(speech, name, rate):
    skip_without(name)
    samples = at_rate(speech[0], rate)
    for setting in ALL_CODECS[name].choices[::7] or (16.0, 64.0):
        check_likeness(samples, holding(name, setting)(samples, rate), rate)


@pytest.mark.parametrize("name", EXTRA_CODECS)
@pytest.mark.parametrize("n_samples", [1, 2, 161, 1025])
def test_codecs_of_other_packages_take_any_length(speech, name, n_samples):
    skip_without(name)
    samples = speech[0][8000:][:n_samples]
    transform = holding(name, (ALL_CODECS[name].choices or (32.0,))[0])
    coded = transform(samples, SAMPLE_RATE)
    assert coded.shape == samples.shape
    np.testing.assert_array_equal(transform(samples, SAMPLE_RATE), coded)


def test_less_is_lost_with_more_bits_of_other_packages(speech):
    pytest.importorskip("av"), pytest.importorskip("G722")
    for name, low, high in (("aac", 12.0, 64.0), ("g722", 48.0, 64.0)):
        errors = [error_to_signal(speech[0], holding(name, x)(speech[0], SAMPLE_RATE)) for x in (low, high)]
        assert errors[1] < 0.6 * errors[0], name


def test_bit_rates_that_a_codec_has_are_drawn_from():
    skip_without("g722", "amr_nb")
    transform, drawn = Codec(["g722", "amr_nb", "aac"], min_kbps=20, max_kbps=30), {}
    random.seed(0)
    for _ in range(300):
        transform.randomize_parameters(np.zeros(10, np.float32), SAMPLE_RATE)
        drawn.setdefault(transform.parameters["codec"], set()).add(transform.parameters["setting"])
    assert drawn["g722"] == {48.0, 56.0, 64.0}
    assert drawn["amr_nb"] == {4.75, 5.15, 5.9, 6.7, 7.4, 7.95, 10.2, 12.2}
    assert 20 <= min(drawn["aac"]) < max(drawn["aac"]) <= 30


def test_one_codec_may_be_given_by_its_name():
    assert Codec("opus").codecs == ("opus",)


def test_defaults():
    assert available_codecs()[:6] == tuple(CODECS)
    assert Codec().get_transform_init_args() == {
        "codecs": ("mp3", "vorbis", "opus", "gsm", "mu_law", "a_law"),
        "min_kbps": 16,
        "max_kbps": 64,
        "min_vorbis_quality": 0,
        "max_vorbis_quality": 1,
        "p": 1,
    }
