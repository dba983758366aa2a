import pickle

import numpy as np
import pytest

from hf_gradalign.data import AudioDecodingError, ClipDataset, decode_audio

RATE = 16_000


@pytest.fixture
def dataset(write_clip, make_dataset):
    return make_dataset([write_clip("short.wav", 1000), write_clip("long.opus", 9000, subtype="OPUS")])


def test_the_leading_window_repeated_where_the_clip_is_short(dataset):
    clips = ClipDataset(dataset, sampling_rate=RATE, window_seconds=0.25)
    assert len(clips) == 2
    assert clips.window_samples == 4000
    short, long = (decode_audio(row["audio"], RATE) for row in dataset)
    np.testing.assert_array_equal(clips[0]["input_values"], np.tile(short, 4))
    np.testing.assert_array_equal(clips[1]["input_values"], long[:4000])
    assert [item["labels"] for item in (clips[0], clips[1])] == [0, 1]
    assert clips[0]["input_values"].dtype == np.float32


def test_a_window_in_samples(dataset):
    assert [len(item["input_values"]) for item in _items(dataset, window_samples=66_800)] == [66_800] * 2


def test_whole_clips(dataset):
    assert [len(item["input_values"]) for item in _items(dataset)] == [1000, 9000]


def test_resampled_clips(write_clip, make_dataset):
    dataset = make_dataset([write_clip("a.wav", 8000, rate=8000)])
    assert [len(item["input_values"]) for item in _items(dataset)] == [16_000]


def _items(dataset, **options):
    clips = ClipDataset(dataset, sampling_rate=RATE, **options)
    return [clips[index] for index in range(len(clips))]


@pytest.mark.parametrize("label2id", [{"bonafide": 0, "spoof": 1}, {"Bona-Fide": 0, "fake": 1}])
def test_a_model_that_numbers_the_classes_otherwise(dataset, label2id):
    assert [item["labels"] for item in _items(dataset, label2id=label2id)] == [1, 0]


@pytest.mark.parametrize(
    "label2id",
    [
        {"LABEL_0": 0, "LABEL_1": 1},
        {"spoof": 0},
        {"spoof": 0, "bonafide": 0},
        {"spoof": 0, "bonafide": 1, "noise": 2},
        {"spoof": 0, "fake": 1, "bonafide": 2},
    ],
)
def test_a_model_that_does_not_name_the_classes(dataset, label2id):
    with pytest.raises(ValueError, match="label2id must give spoof and bonafide a number each, not"):
        ClipDataset(dataset, sampling_rate=RATE, label2id=label2id)


def test_missing_columns(dataset):
    with pytest.raises(ValueError, match="lacks the columns label, utterance_id; load_corpus provides them"):
        ClipDataset(dataset.select_columns("audio"), sampling_rate=RATE)


def test_two_lengths(dataset):
    with pytest.raises(ValueError, match="Give window_seconds or window_samples, not both"):
        ClipDataset(dataset, sampling_rate=RATE, window_seconds=1, window_samples=5)


@pytest.mark.parametrize("length", [{"window_seconds": 0}, {"window_seconds": -1.0}, {"window_samples": 0}])
def test_no_length(dataset, length):
    with pytest.raises(ValueError, match="The window must be at least one sample long, not"):
        ClipDataset(dataset, sampling_rate=RATE, **length)


def test_a_bad_clip_is_named(make_dataset):
    with pytest.raises(AudioDecodingError, match=r"Cannot decode utt_0: there is no file gone.wav"):
        ClipDataset(make_dataset(["gone.wav"]), sampling_rate=RATE)[0]


def test_a_format_set_on_the_data_set_does_not_matter(dataset):
    assert isinstance(_items(dataset.with_format("torch", columns=["label"]))[0]["labels"], int)


def test_a_clip_is_decoded_once(make_dataset, write_clip, monkeypatch):
    dataset = ClipDataset(make_dataset([write_clip("a.wav"), write_clip("b.wav", seed=1)]), sampling_rate=16_000)
    first = [dataset[index]["input_values"] for index in range(2)]
    before = [samples.copy() for samples in first]
    for samples in first:
        samples *= 0  # an item is the caller's own
    monkeypatch.setattr("hf_gradalign.data.audio_dataset.decode_audio", None)
    for index in range(2):
        np.testing.assert_array_equal(dataset[index]["input_values"], before[index])
    assert pickle.loads(pickle.dumps(dataset))._kept == {}


def test_what_does_not_fit_is_decoded_again(make_dataset, write_clip, monkeypatch):
    monkeypatch.setattr("hf_gradalign.data.audio_dataset._KEPT_BYTES", 8000 * 4)
    dataset = ClipDataset(make_dataset([write_clip("a.wav"), write_clip("b.wav", seed=1)]), sampling_rate=16_000)
    items = [dataset[index]["input_values"] for index in (0, 1, 0, 1)]
    assert list(dataset._kept) == [0]
    np.testing.assert_array_equal(items[1], items[3])
