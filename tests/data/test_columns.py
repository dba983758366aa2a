import datasets
import numpy as np
import pytest
import soundfile
from datasets import Array2D, Audio, ClassLabel, Dataset, Features, List, Value

from hf_gradalign.data import ClipDataset, CorpusError, check_audio, decode_audio, load_corpus, stream_corpus
from hf_gradalign.data.columns import with_encoded_audio

RATE = 16_000


@pytest.fixture
def waveforms(make_samples):
    return [make_samples(400 + 10 * number, seed=number).astype(np.float32) for number in range(3)]


@pytest.fixture
def decoded(waveforms):
    """A data set of decoded clips, as `datasets` before 4 and many scripts write them."""
    audio = [{"path": f"{n}.wav", "array": wave, "sampling_rate": RATE} for n, wave in enumerate(waveforms)]
    features = Features(
        {
            "audio": {"path": Value("string"), "array": List(Value("float32")), "sampling_rate": Value("int64")},
            "label": Value("string"),
        }
    )
    return Dataset.from_dict({"audio": audio, "label": ["real", "fake", "real"]}, features=features)


def heard(dataset, rate=RATE):
    return [decode_audio(row["audio"], rate) for row in dataset]


@pytest.mark.parametrize("how", ["parquet", "arrow", "saved"])
def test_a_column_of_decoded_clips(decoded, waveforms, tmp_path, how):
    if how == "parquet":
        decoded.to_parquet(tmp_path / "set" / "test.parquet")
        corpora = [tmp_path / "set", tmp_path / "set" / "test.parquet"]
    elif how == "arrow":
        decoded.save_to_disk(tmp_path / "saved")
        (tmp_path / "set").mkdir()
        [file] = (tmp_path / "saved").glob("*.arrow")
        corpora = [file.rename(tmp_path / "set" / "test.arrow")]
    else:
        decoded.save_to_disk(tmp_path / "saved")
        corpora = [tmp_path / "saved"]
    for corpus in corpora:
        split = load_corpus(corpus, splits=("test",))["test"]
        assert split["utterance_id"][:] == ["0", "1", "2"]
        assert split["label"][:] == [1, 0, 1]
        assert split.features["audio"] == datasets.Audio(decode=False)
        for samples, wave in zip(heard(split), waveforms, strict=True):
            np.testing.assert_array_equal(samples, wave)


def test_a_stream_of_decoded_clips(decoded, waveforms, tmp_path):
    decoded.to_parquet(tmp_path / "train.parquet")
    rows = list(stream_corpus(str(tmp_path / "train.parquet")))
    assert [row["label"] for row in rows] == [1, 0, 1]
    for samples, wave in zip(heard(rows), waveforms, strict=True):
        np.testing.assert_array_equal(samples, wave)


def test_data_sets_that_are_given_as_objects(decoded, waveforms):
    clips = decoded.add_column("utterance_id", list("abc")).remove_columns("label").add_column("label", [1, 0, 1])
    clips = clips.cast_column("label", ClassLabel(names=["spoof", "bonafide"]))
    assert check_audio(clips)["utterance_id"][:] == ["a", "b", "c"]
    for item, wave in zip(ClipDataset(clips, sampling_rate=RATE), waveforms, strict=True):
        np.testing.assert_array_equal(item["input_values"], wave)


def test_arrays_beside_their_rates(waveforms, tmp_path):
    columns = {"speech": waveforms, "sampling_rate": [RATE] * 3, "label": ["real", "fake", "fake"]}
    Dataset.from_dict(columns).to_parquet(tmp_path / "test.parquet")
    options = {"audio_column": "speech"}
    split = load_corpus(tmp_path / "test.parquet", splits=("test",), **options)["test"]
    rows = list(stream_corpus(str(tmp_path / "test.parquet"), split="test", **options))
    for clips in (split, rows):
        for samples, wave in zip(heard(clips), waveforms, strict=True):
            np.testing.assert_array_equal(samples, wave)


def test_encoded_clips_stay_as_they_are():
    clips = Dataset.from_dict({"audio": ["a.wav"]}).cast_column("audio", Audio(decode=False))
    assert with_encoded_audio(clips) is clips
    for other in (Audio(decode=True), Audio(16_000, decode=False)):
        assert with_encoded_audio(clips.cast_column("audio", other)).features["audio"] == Audio(decode=False)


@pytest.mark.parametrize("dtype", ["int16", "int32", "float64", "float16"])
def test_types_of_samples(dtype, waveforms):
    scale = np.iinfo(dtype).max if dtype.startswith("int") else 1
    array = (waveforms[0] * scale).astype(dtype)
    features = Features({"audio": {"array": List(Value(dtype)), "sampling_rate": Value("int32")}})
    clips = Dataset.from_dict({"audio": [{"array": array, "sampling_rate": RATE}]}, features=features)
    [samples] = heard(with_encoded_audio(clips))
    np.testing.assert_allclose(samples, waveforms[0], atol=1e-3 if dtype == "float16" else 5e-5)


@pytest.mark.parametrize("kind", ["lists", "array"])
@pytest.mark.parametrize("channels_first", [True, False])
def test_several_channels(kind, channels_first, make_samples):
    stereo = make_samples(400, channels=2).astype(np.float32)
    array = stereo.T if channels_first else stereo
    feature = Array2D(array.shape, "float32") if kind == "array" else List(List(Value("float32")))
    features = Features({"audio": {"array": feature, "sampling_rate": Value("int64")}})
    clips = Dataset.from_dict({"audio": [{"array": array, "sampling_rate": RATE}]}, features=features)
    [samples] = heard(with_encoded_audio(clips))
    np.testing.assert_allclose(samples, stereo.mean(axis=1), atol=1e-7)


def test_unreadable_clips_are_left_to_the_check(decoded):
    bad = [None, {"path": "b", "array": None, "sampling_rate": RATE}, {"path": "c", "array": [], "sampling_rate": RATE}]
    bad.append({"path": "d", "array": [0.1, float("nan")], "sampling_rate": RATE})
    clips = Dataset.from_dict({"audio": [*bad, decoded[0]["audio"]]}, features=decoded.select_columns("audio").features)
    assert len(check_audio(clips, on_bad_audio="skip")) == 1


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ({"array": [1, 2]}, "holds arrays without a sampling_rate"),
        ({"array": [1, 2], "sampling_rate": RATE}, "holds arrays of int64. Give samples as floats"),
        ({"array": [0.1, 0.2], "sampling_rate": 0}, "with a sampling_rate of 0. Give it in Hz"),
    ],
)
def test_arrays_without_a_scale_or_rate_are_refused(clip, message):
    with pytest.raises(CorpusError, match=message):
        with_encoded_audio(Dataset.from_dict({"audio": [clip]}))


def test_encoded_columns_are_left_alone(tmp_path, waveforms):
    soundfile.write(tmp_path / "a.wav", waveforms[0], RATE, subtype="FLOAT")
    for value in (str(tmp_path / "a.wav"), (tmp_path / "a.wav").read_bytes()):
        [samples] = heard(with_encoded_audio(Dataset.from_dict({"audio": [value]})))
        np.testing.assert_array_equal(samples, waveforms[0])
