"""Trying an augmentation finds what it lacks."""

import json
import random
import sys

import audiomentations
import numpy as np
import pytest
import soundfile
import torch
from encoded_audio import loud_then_quiet, mp3

from hf_gradalign.augmentation import Codec, MusanRir, RawBoost, get_augmentation
from hf_gradalign.augmentation.codecs import ALL_CODECS
from hf_gradalign.augmentation.preflight import try_augmentation

RATE = 16_000


@pytest.fixture
def recipe(tmp_path):
    def build(*entries):
        path = tmp_path / "recipe.json"
        path.write_text(json.dumps(entries))
        return get_augmentation(path)

    return build


@pytest.fixture
def without(monkeypatch):
    """Hide packages, whether installed or not."""

    def remove(*modules):
        for module in modules:
            monkeypatch.setitem(sys.modules, module, None)

    return remove


@pytest.fixture
def noises(tmp_path):
    folder = tmp_path / "noises"
    folder.mkdir()
    soundfile.write(folder / "good.wav", np.random.default_rng(0).normal(0, 0.1, 2 * RATE), RATE)
    return folder


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("Mp3Compression", "fast_mp3_augment", "fast-mp3-augment"),
        ("Limiter", "numpy_audio_limiter", "numpy-audio-limiter"),
        ("RoomSimulator", "pyroomacoustics", "pyroomacoustics"),
        ("LoudnessNormalization", "loudness", "loudness"),
    ],
)
def test_a_missing_package_is_named_as_pip_knows_it(recipe, without, capsys, name, module, package):
    without(module)
    augmentation = recipe({"transform": "Gain", "p": 0.5}, {"transform": name, "p": 0.001})
    with pytest.raises(ValueError, match=rf"^entry 2 \({name}\) needs pip install {package}$"):
        try_augmentation(augmentation, RATE)
    assert capsys.readouterr().err == ""  # audiomentations would print it too


def test_every_branch_is_tried(recipe, without):
    without("pyroomacoustics", "numpy_audio_limiter")
    rare = {"transform": "RoomSimulator", "p": 0.001}
    some = {"transform": "SomeOf", "num_transforms": 1, "p": 0.001, "transforms": [{"transform": "Gain"}, rare]}
    one = {"transform": "OneOf", "transforms": [{"transform": "Gain"}, some], "weights": [0.999, 0.001]}
    where = r"entry 1 \(OneOf\), entry 2 \(SomeOf\), entry 2 \(RoomSimulator\) needs pip install pyroomacoustics"
    with pytest.raises(ValueError, match=where):
        try_augmentation(recipe(one), RATE)


def test_transforms_of_noise_are_tested(recipe, without, noises):
    without("numpy_audio_limiter")
    entry = {"transform": "AddBackgroundNoise", "sounds_path": str(noises), "noise_transform": {"transform": "Limiter"}}
    with pytest.raises(ValueError, match=r"\(AddBackgroundNoise\), noise_transform \(Limiter\) needs pip install"):
        try_augmentation(recipe(entry), RATE)


def test_every_codec_is_tried(monkeypatch):
    def broken(self, samples, rate, setting):
        raise RuntimeError("no such encoder")

    monkeypatch.setattr(type(ALL_CODECS["g722"]), "code", broken)
    codec = Codec(("mp3", "gsm", "g722", "a_law"), p=0.01)
    with pytest.raises(ValueError, match="Codec fails on a second of noise: no such encoder"):
        try_augmentation(codec, RATE)
    assert codec.codecs == ("mp3", "gsm", "g722", "a_law")
    assert codec.p == 0.01


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"transform": "SomeOf", "num_transforms": 3, "transforms": [{"transform": "Gain"}]}, "Sample larger than"),
        ({"transform": "PeakingFilter", "min_center_freq": 9000, "max_center_freq": 12_000}, "NaN or infinite"),
    ],
)
def test_errors_of_rare_transforms_are_found(recipe, entry, message):
    augmentation = recipe({**entry, "p": 0.01})
    with pytest.raises(ValueError, match=rf"entry 1 \({entry['transform']}\) fails on a second of noise: .*{message}"):
        try_augmentation(augmentation, RATE)


def test_a_change_of_the_length_is_refused():
    def half(samples, sample_rate):
        return samples[::2]

    with pytest.raises(ValueError, match=r"function fails .*: changes the length from 16000 to 8000 samples"):
        try_augmentation(half, RATE)


def _no_audio(path):
    path.write_bytes(b"\x00\x00\x00\x20ftypM4A \x00\x00\x02\x00" + bytes(200))


def _cut(path):
    samples = np.random.default_rng(1).normal(0, 0.1, RATE)
    soundfile.write(path.with_suffix(".flac"), samples, RATE)
    content = path.with_suffix(".flac").read_bytes()
    path.with_suffix(".flac").unlink()
    path.write_bytes(content[: len(content) // 2])


def _joined(path):
    soundfile.write(path, np.zeros(RATE), RATE)
    path.write_bytes(2 * path.read_bytes())


BAD = {
    "without_a_header.mp3": lambda path: path.write_bytes(mp3(loud_then_quiet(), header=False)),
    "joined.flac": _joined,
    "voice_note.m4a": _no_audio,
    "empty.wav": lambda path: soundfile.write(path, np.zeros(0), RATE),
    "nothing.wav": lambda path: path.write_bytes(b""),
    "page.mp3": lambda path: path.write_text("<!DOCTYPE html><title>404</title>"),
    "cut.ogg": _cut,
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize(
    ("transform", "argument"),
    [
        ("AddBackgroundNoise", "sounds_path"),
        ("AddShortNoises", "sounds_path"),
        ("ApplyImpulseResponse", "ir_path"),
        ("AddBabble", "sounds_path"),
        ("Reverberation", "ir_path"),
    ],
)
def test_recordings_that_cannot_be_read_are_listed(recipe, noises, name, transform, argument):
    BAD[name](noises / name)
    augmentation = recipe({"transform": transform, argument: str(noises), "p": 0.01})
    with pytest.raises(
        ValueError, match=rf"entry 1 \({transform}\): 1 of 2 recordings cannot be read:\n  .*{name}: "
    ) as e:
        try_augmentation(augmentation, RATE)
    assert "good.wav" not in str(e.value)
    assert "Convert them to WAV or FLAC" in str(e.value)


def test_recordings_of_musans_layout(tmp_path, noises):
    (tmp_path / "musan" / "noise").mkdir(parents=True)
    _no_audio(tmp_path / "musan" / "noise" / "a.m4a")
    with pytest.raises(ValueError, match=r"MusanRir, entry 1 \(AddBackgroundNoise\): 1 of 1 recordings"):
        try_augmentation(MusanRir(str(tmp_path / "musan")), RATE)


def test_missing_recording(recipe, tmp_path):
    augmentation = recipe({"transform": "AddBackgroundNoise", "sounds_path": str(tmp_path / "gone.wav")})
    with pytest.raises(ValueError, match=r"gone\.wav: the file does not exist"):
        try_augmentation(augmentation, RATE)


@pytest.mark.parametrize("name", ["rawboost", "codec", "musan_rir+rawboost5", "telephone", "time_frequency_mask"])
def test_recipes_by_name_pass_and_stay_as_they_are(name, speech):
    tried, other = get_augmentation(name), get_augmentation(name)
    try_augmentation(tried, RATE)
    try_augmentation(tried, RATE, "cpu")
    outcomes = []
    for augmentation in (tried, other):
        random.seed(2), np.random.seed(2), torch.manual_seed(2)
        outcomes.append([augmentation(clip, RATE) for clip in speech[:3]])
    for first, second in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_form_for_the_accelerator_is_tried_too(monkeypatch):
    def broken(self, *args, **options):
        raise RuntimeError("no kernel image is available")

    chain = audiomentations.Compose([audiomentations.Gain(p=1.0), RawBoost(p=0.01)], p=0.01)
    monkeypatch.setattr("hf_gradalign.augmentation.rawboost.batched.BatchedRawBoost.__call__", broken)
    try_augmentation(chain, RATE)
    with pytest.raises(ValueError, match="RawBoost on cpu fails on a second of noise: no kernel image"):
        try_augmentation(chain, RATE, "cpu")
