import json
import random
import re

import audiomentations
import numpy as np
import pytest
import soundfile
import torch
import yaml

from hf_gradalign.augmentation import (
    Codec,
    MusanRir,
    RawBoost,
    available_augmentations,
    get_augmentation,
    recipe_name,
    recipes,
)

RAWBOOST_NAMES = ["rawboost", *(f"rawboost{algorithm}" for algorithm in range(1, 9))]
NAMES = [*RAWBOOST_NAMES, "codec", "musan_rir", "telephone", "time_frequency_mask"]


def write(folder, text, name="recipe.yaml"):
    path = folder / name
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text), encoding="utf-8")
    return path


def test_names():
    assert available_augmentations() == NAMES


@pytest.mark.parametrize("name", RAWBOOST_NAMES)
def test_rawboost_by_name(name):
    transform = get_augmentation(name)
    assert isinstance(transform, RawBoost)
    assert transform.algorithm == int(name.removeprefix("rawboost") or 4)
    assert transform.p == 1


def test_codec_by_name_and_in_a_file(tmp_path):
    transform = get_augmentation("codec")
    assert isinstance(transform, Codec)
    assert transform.p == 1
    entry = {"transform": "Codec", "codecs": ["opus", "gsm"], "max_kbps": 24, "p": 0.5}
    (codec,) = get_augmentation(write(tmp_path, [entry])).transforms
    assert (codec.codecs, codec.max_kbps, codec.p) == (("opus", "gsm"), 24, 0.5)
    with pytest.raises(ValueError, match=r"entry 1 \(Codec\): unknown codec 'celp'; available: mp3, "):
        get_augmentation(write(tmp_path, [{"transform": "Codec", "codecs": ["celp"]}]))


def test_recipes_with_their_options(tmp_path):
    assert get_augmentation("codec:opus:gsm").codecs == ("opus", "gsm")
    (tmp_path / "musan" / "speech").mkdir(parents=True)
    soundfile.write(tmp_path / "musan" / "speech" / "a.wav", np.zeros(100), 16_000)
    transform = get_augmentation(f"musan_rir:{tmp_path / 'musan'}")
    assert isinstance(transform, MusanRir)
    assert transform.sounds == [str(tmp_path / "musan")]
    assert transform.transforms[1].sounds_path == [str(tmp_path / "musan" / "speech" / "a.wav")]
    assert get_augmentation("musan_rir").sounds is None


def test_one_after_the_other(speech):
    chain = get_augmentation("rawboost2+codec:mu_law+time_frequency_mask")
    rawboost, codec, masks = chain.transforms
    assert (rawboost.algorithm, codec.codecs) == (2, ("mu_law",))
    random.seed(0)
    together = chain(speech[0], 16_000)
    random.seed(0)
    random.random()  # the composition's own probability
    expected = speech[0]
    for transform in (rawboost, codec, masks):
        expected = transform(expected, 16_000)
    np.testing.assert_array_equal(together, expected)


def test_a_file_in_a_chain(tmp_path):
    path = write(tmp_path, [{"transform": "Gain", "p": 1.0}])
    gain, rawboost = get_augmentation(f"{path}+rawboost").transforms
    assert isinstance(gain, audiomentations.Compose)
    assert isinstance(rawboost, RawBoost)


@pytest.mark.parametrize("name", ["musan_rir", "telephone", "time_frequency_mask", "codec", "musan_rir+rawboost"])
def test_recipes_augment_and_are_reproducible(name, speech):
    def run():
        random.seed(5), np.random.seed(5), torch.manual_seed(5)
        return [transform(clip, 16_000) for clip in speech[:2]]

    transform = get_augmentation(name)
    first = run()
    for before, once, again in zip(speech, first, run(), strict=False):
        assert once.dtype == np.float32
        assert once.shape == before.shape
        assert not np.array_equal(once, before)
        np.testing.assert_array_equal(once, again)


def test_a_telephone_call_has_the_telephones_band(speech):
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 32_000).astype(np.float32)
    call = get_augmentation("telephone")
    random.seed(1)
    power = np.mean([np.abs(np.fft.rfft(call(noise, 16_000))) ** 2 for _ in range(8)], axis=0)
    hertz = np.fft.rfftfreq(32_000, 1 / 16_000)
    inside = power[(hertz > 500) & (hertz < 3000)].mean()
    assert power[hertz > 4300].mean() < 1e-3 * inside
    assert power[hertz < 100].mean() < 0.05 * inside


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rawboost:5", r"rawboost:5: rawboost takes nothing after a colon; only codec:NAME:NAME\.\.\. and musan_rir"),
        ("codec:", r"codec:: there is nothing after a colon; use codec:NAME:NAME\.\.\."),
        ("codec:celp", "unknown codec 'celp'; available: mp3"),
        ("musan_rir:/no/where", "/no/where is neither a folder nor a data set on the Hub"),
        ("rawboost+", "unknown augmentation ''"),
        ("rawboost+rawboost9", "unknown augmentation 'rawboost9'"),
    ],
)
def test_mistakes_in_names_are_reported(name, message):
    with pytest.raises(ValueError, match=message):
        get_augmentation(name)


def test_names_of_recipes():
    assert recipe_name("musan_rir:/data/musan:/data/RIRS_NOISES+rawboost5") == "musan_rir+rawboost5"
    assert recipe_name("codec:g722") == "codec"
    assert recipe_name("telephone") == "telephone"
    assert recipe_name("noise.yaml") is recipe_name("noise.yaml+codec") is recipe_name("clean") is None


def test_recipes_in_a_file(tmp_path):
    entries = [
        {"transform": "OneOf", "transforms": [{"recipe": "telephone"}, {"recipe": "codec:opus"}]},
        {"recipe": "rawboost3"},
    ]
    one_of, rawboost = get_augmentation(write(tmp_path, entries)).transforms
    assert [type(each).__name__ for each in one_of.transforms] == ["Compose", "Codec"]
    assert rawboost.algorithm == 3
    with pytest.raises(ValueError, match=r"recipe\.yaml: entry 1: unknown augmentation 'rawboost9'"):
        get_augmentation(write(tmp_path, [{"recipe": "rawboost9"}]))
    with pytest.raises(
        ValueError, match=r"entry 1: expected a mapping with the key 'transform', or {recipe: NAME} alone"
    ):
        get_augmentation(write(tmp_path, [{"recipe": "rawboost", "p": 0.5}]))


def test_file_that_includes_itself_is_refused(tmp_path):
    inner, outer = tmp_path / "inner.yaml", tmp_path / "outer.yaml"
    inner.write_text(f"- {{recipe: rawboost+{outer}}}")
    outer.write_text(f"- {{recipe: {inner}}}\n- {{recipe: {tmp_path / 'plain.yaml'}}}")
    with pytest.raises(
        ValueError, match=r"outer\.yaml: entry 1: .*inner\.yaml: entry 1: .*outer\.yaml contains itself as an entry"
    ):
        get_augmentation(outer)
    (tmp_path / "plain.yaml").write_text("- {transform: RawBoost}")
    inner.write_text(f"- {{recipe: {tmp_path / 'plain.yaml'}}}")
    assert len(get_augmentation(outer).transforms) == 2  # a file may come twice


def test_own_transforms_in_a_file(tmp_path):
    entries = [
        {"transform": "MusanRir", "p": 0.5},
        {"transform": "AddBabble", "min_talkers": 4},
        {"transform": "Reverberation", "p": 0.3},
        {"transform": "FrequencyMask", "max_width": 800},
        {"transform": "PacketLoss", "max_percent": 20},
    ]
    built = get_augmentation(write(tmp_path, entries)).transforms
    assert [type(each).__name__ for each in built] == [entry["transform"] for entry in entries]
    assert (built[0].p, built[1].min_talkers, built[2].p, built[3].max_width) == (0.5, 4, 0.3, 800)


@pytest.mark.parametrize("name", ["rawboost9", "rawboost0", "", "missing.yaml"])
def test_unknown_names_are_refused_with_the_list(name):
    with pytest.raises(ValueError, match=f"unknown augmentation .*: give one of {', '.join(NAMES)}, or the path"):
        get_augmentation(name)


@pytest.mark.parametrize("file_name", ["recipe.yaml", "recipe.yml", "recipe.json"])
def test_a_file_of_transforms(tmp_path, file_name):
    entries = [
        {"transform": "AddGaussianNoise", "min_amplitude": 0.01, "max_amplitude": 0.02, "p": 1.0},
        {"transform": "RawBoost", "algorithm": 2, "impulsive_gain": 3},
    ]
    path = write(tmp_path, json.dumps(entries) if file_name.endswith("json") else entries, file_name)
    for given in (path, str(path)):
        compose = get_augmentation(given)
        assert isinstance(compose, audiomentations.Compose)
        noise, rawboost = compose.transforms
        assert isinstance(noise, audiomentations.AddGaussianNoise)
        assert (noise.min_amplitude, noise.max_amplitude, noise.p) == (0.01, 0.02, 1.0)
        assert (rawboost.algorithm, rawboost.impulsive_gain, rawboost.p) == (2, 3, 1)


def test_json_may_be_indented_with_tabs(tmp_path):
    path = write(tmp_path, '[\n\t{\n\t\t"transform": "PolarityInversion",\n\t\t"p": 1.0\n\t}\n]', "recipe.json")
    assert len(get_augmentation(path).transforms) == 1


def test_the_composition_augments(tmp_path):
    path = write(tmp_path, [{"transform": "PolarityInversion", "p": 1.0}, {"transform": "RawBoost", "algorithm": 3}])
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 4000).astype(np.float32)
    random.seed(0)
    noisy = get_augmentation(path)(samples, 16000)
    assert np.corrcoef(noisy, samples)[0, 1] < -0.9
    assert not np.array_equal(noisy, -samples)


def test_transforms_nest(tmp_path):
    path = write(
        tmp_path,
        [
            {
                "transform": "OneOf",
                "p": 0.5,
                "transforms": [{"transform": "RawBoost", "algorithm": 5}, {"transform": "Gain", "p": 1.0}],
            }
        ],
    )
    (one_of,) = get_augmentation(path).transforms
    assert isinstance(one_of, audiomentations.OneOf)
    assert one_of.p == 0.5
    assert [type(transform).__name__ for transform in one_of.transforms] == ["RawBoost", "Gain"]


@pytest.mark.parametrize("text", ["[{transform: Gain", "{\x00}", "\t- a"])
def test_broken_files_are_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"recipe\.yaml: not a readable YAML or JSON file: "):
        get_augmentation(write(tmp_path, text))


def test_broken_json_and_bytes_that_are_not_text_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"recipe\.json: not a readable YAML or JSON file: "):
        get_augmentation(write(tmp_path, "[1, ", "recipe.json"))
    path = tmp_path / "audio.wav"
    path.write_bytes(b"RIFF\xff\xfe\x00\x00")
    with pytest.raises(ValueError, match=r"audio\.wav: not a readable YAML or JSON file: "):
        get_augmentation(path)


@pytest.mark.parametrize("text", ["", "[]", "transform: Gain", "3"])
def test_anything_but_a_list_is_refused(tmp_path, text):
    with pytest.raises(
        ValueError, match=r"recipe\.yaml: expected a list with at least one {transform: NAME, ...}; got"
    ):
        get_augmentation(write(tmp_path, text))


@pytest.mark.parametrize("entry", ["Gain", {"name": "Gain"}, 3, None])
def test_entries_without_a_transform_are_refused(tmp_path, entry):
    path = write(tmp_path, [{"transform": "Gain"}, entry])
    with pytest.raises(ValueError, match=r"entry 2: expected a mapping with the key 'transform', or .*; got "):
        get_augmentation(path)


@pytest.mark.parametrize("name", ["Gian", "core", "BaseWaveformTransform", "os.system", 3, []])
def test_unknown_transforms_are_refused_with_the_list(tmp_path, name):
    message = rf"entry 1: unknown transform {re.escape(repr(name))}; available: AddBabble, .*RawBoost, .*TimeStretch"
    with pytest.raises(ValueError, match=message):
        get_augmentation(write(tmp_path, [{"transform": name}]))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"transform": "Lambda"}, "Lambda takes a function"),
        ({"transform": "Resample", "p": 0.5}, "Resample changes the sampling rate, .*: remove it"),
        ({"transform": "Trim"}, "Trim changes the length of clips"),
        ({"transform": "OneOf", "transforms": [{"transform": "RepeatPart"}]}, "RepeatPart changes the length"),
        (
            {"transform": "TimeStretch", "leave_length_unchanged": False},
            r"\(TimeStretch\): leave_length_unchanged must be true, because the transform otherwise changes the length",
        ),
    ],
)
def test_transforms_that_change_rate_or_length_are_refused(tmp_path, entry, message):
    with pytest.raises(ValueError, match=f"entry 1.*{message}"):
        get_augmentation(write(tmp_path, [entry]))


def test_no_other_transform_of_audiomentations_changes_the_length(speech):
    """Their versions may add one; those that need arguments or packages are left out."""
    for name, transform in recipes._TRANSFORMS.items():
        try:
            augmented = transform(p=1.0)(speech[0].copy(), 16_000)
        except (TypeError, ImportError):
            continue
        assert len(augmented) == len(speech[0]), name


def test_unknown_arguments_are_refused_with_the_list(tmp_path):
    path = write(tmp_path, [{"transform": "Gain", "gain": 3}])
    with pytest.raises(
        ValueError, match=r"entry 1 \(Gain\): unknown argument 'gain'; it takes min_gain_db, max_gain_db"
    ):
        get_augmentation(path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"transform": "RawBoost", "algorithm": 9}, r"\(RawBoost\): algorithm must be an integer in \[1, 8\]; got 9"),
        ({"transform": "AddGaussianSNR", "min_snr_db": 9, "max_snr_db": 1}, r"\(AddGaussianSNR\): min_snr_db must not"),
        ({"transform": "AddBackgroundNoise"}, r"\(AddBackgroundNoise\): .*missing 1 required .*'sounds_path'"),
        ({"transform": "Gain", "p": 2}, r"\(Gain\): AssertionError for {'p': 2}"),
        (
            {"transform": "OneOf", "transforms": [{"transform": "Gain", "gain": 3}]},
            r"\(OneOf\) \(Gain\): unknown argument 'gain'",
        ),
    ],
)
def test_impossible_arguments_are_refused_with_the_place(tmp_path, entry, message):
    with pytest.raises(ValueError, match=r"recipe\.yaml: entry 1 " + message):
        get_augmentation(write(tmp_path, [entry]))
