import pickle
import random

import audiomentations
import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from torch.utils.data import DataLoader

from hf_gradalign.data import AudioDecodingError, ClipDataset, ViewDataset, decode_audio

RATE = 16_000
WINDOW = 2000


@pytest.fixture
def two_clips(write_clip, make_dataset):
    return make_dataset([write_clip("short.wav", 1000), write_clip("long.opus", 9000, subtype="OPUS")])


def test_the_leading_window_repeated_where_the_clip_is_short(two_clips):
    clips = ClipDataset(two_clips, sampling_rate=RATE, window_seconds=0.25)
    assert len(clips) == 2
    assert clips.window_samples == 4000
    short, long = (decode_audio(row["audio"], RATE) for row in two_clips)
    np.testing.assert_array_equal(clips[0]["input_values"], np.tile(short, 4))
    np.testing.assert_array_equal(clips[1]["input_values"], long[:4000])
    assert [item["labels"] for item in (clips[0], clips[1])] == [0, 1]
    assert clips[0]["input_values"].dtype == np.float32


def test_a_window_in_samples(two_clips):
    assert [len(item["input_values"]) for item in clips_of(two_clips, window_samples=66_800)] == [66_800] * 2


def test_whole_clips_of_a_clip_dataset(two_clips):
    assert [len(item["input_values"]) for item in clips_of(two_clips)] == [1000, 9000]


def test_resampled_clips(write_clip, make_dataset):
    dataset = make_dataset([write_clip("a.wav", 8000, rate=8000)])
    assert [len(item["input_values"]) for item in clips_of(dataset)] == [16_000]


def clips_of(two_clips, **options):
    clips = ClipDataset(two_clips, sampling_rate=RATE, **options)
    return [clips[index] for index in range(len(clips))]


@pytest.mark.parametrize("label2id", [{"bonafide": 0, "spoof": 1}, {"Bona-Fide": 0, "fake": 1}])
def test_label_ids_of_a_clip_dataset(two_clips, label2id):
    assert [item["labels"] for item in clips_of(two_clips, label2id=label2id)] == [1, 0]


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
def test_a_model_that_does_not_name_the_classes(two_clips, label2id):
    with pytest.raises(ValueError, match="label2id must give spoof and bonafide different numbers, not"):
        ClipDataset(two_clips, sampling_rate=RATE, label2id=label2id)


@pytest.mark.parametrize("convert", [list, Dataset.to_pandas, Dataset.to_iterable_dataset, lambda d: DatasetDict(x=d)])
def test_sources_that_are_not_data_sets(two_clips, convert):
    with pytest.raises(TypeError, match=r"must be a datasets\.Dataset, not .*StreamedViewDataset"):
        ClipDataset(convert(two_clips), sampling_rate=RATE)


def test_missing_columns(two_clips):
    with pytest.raises(ValueError, match="lacks the columns label, utterance_id; load_corpus provides them"):
        ClipDataset(two_clips.select_columns("audio"), sampling_rate=RATE)


def test_two_lengths(two_clips):
    with pytest.raises(ValueError, match="Give window_seconds or window_samples, not both"):
        ClipDataset(two_clips, sampling_rate=RATE, window_seconds=1, window_samples=5)


@pytest.mark.parametrize("length", [{"window_seconds": 0}, {"window_seconds": -1.0}, {"window_samples": 0}])
def test_no_length(two_clips, length):
    with pytest.raises(ValueError, match="The window must be at least one sample long, not"):
        ClipDataset(two_clips, sampling_rate=RATE, **length)


def test_a_bad_clip_is_named(make_dataset):
    with pytest.raises(AudioDecodingError, match=r"Cannot decode utt_0: the file gone.wav does not exist"):
        ClipDataset(make_dataset(["gone.wav"]), sampling_rate=RATE)[0]


def test_a_format_set_on_the_data_set_does_not_matter(two_clips):
    assert isinstance(clips_of(two_clips.with_format("torch", columns=["label"]))[0]["labels"], int)


def test_a_clip_is_decoded_once(make_dataset, write_clip, monkeypatch):
    dataset = ClipDataset(make_dataset([write_clip("a.wav"), write_clip("b.wav", seed=1)]), sampling_rate=16_000)
    first = [dataset[index]["input_values"] for index in range(2)]
    before = [samples.copy() for samples in first]
    for samples in first:
        samples *= 0  # callers may change an item
    monkeypatch.setattr("hf_gradalign.data.view_maker.decode_audio", None)
    for index in range(2):
        np.testing.assert_array_equal(dataset[index]["input_values"], before[index])
    assert pickle.loads(pickle.dumps(dataset))._cache == {}


def test_clips_that_do_not_fit_are_decoded_again(make_dataset, write_clip, monkeypatch):
    monkeypatch.setattr("hf_gradalign.data.datasets._CACHE_BYTES", 8000 * 4)
    dataset = ClipDataset(make_dataset([write_clip("a.wav"), write_clip("b.wav", seed=1)]), sampling_rate=16_000)
    items = [dataset[index]["input_values"] for index in (0, 1, 0, 1)]
    assert list(dataset._cache) == [0]
    np.testing.assert_array_equal(items[1], items[3])


def draw_everywhere(samples, sample_rate):
    """An augmentation that draws from all three global generators, and works in place."""
    samples *= np.float32(random.random())
    samples += np.random.rand(len(samples)).astype(np.float32)
    samples += torch.rand(len(samples)).numpy()
    return samples


def identity_collator(items):
    return items


@pytest.fixture
def dataset(write_clip, make_dataset):
    names = ["a.wav", "b.flac", "c.opus", "d.wav", "e.wav", "f.mp3"]
    lengths = [5000, 9000, 5000, 1000, 2000, 6000]
    subtypes = [None, None, "OPUS", None, None, None]
    clips = zip(names, lengths, subtypes, strict=True)
    return make_dataset(
        [write_clip(name, length, subtype=subtype, seed=seed) for seed, (name, length, subtype) in enumerate(clips)]
    )


VIEWS = {"clean": None, "augmented": draw_everywhere}


def _make(dataset, views=VIEWS, **options):
    return ViewDataset(dataset, views, **{"sampling_rate": RATE, "window_samples": WINDOW, "seed": 3, **options})


def _bits(items):
    return [
        (index, view, model_item["labels"], model_item["input_values"].tobytes())
        for index, item in enumerate(items)
        for view, model_item in item.items()
    ]


def _all(views):
    return _bits(views[index] for index in range(len(views)))


def _differ(left, right):
    return [bool((left[view]["input_values"] != right[view]["input_values"]).any()) for view in left]


def test_the_form_of_an_item(dataset):
    views = _make(dataset)
    assert len(views) == 6
    for index in range(6):
        item = views[index]
        assert list(item) == ["clean", "augmented"]
        for model_item in item.values():
            assert model_item["input_values"].shape == (WINDOW,)
            assert model_item["input_values"].dtype == np.float32
            assert model_item["labels"] == index % 2


def test_an_item_depends_on_seed_epoch_and_index_alone(dataset):
    views = _make(dataset)
    expected = _all(views)
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    views[4], views[2]
    assert _all(views) == expected
    assert _all(_make(dataset)) == expected
    assert _bits([views[-1]]) == _bits([views[5]])
    assert all(_differ(views[0], _make(dataset, seed=4)[0]))
    views.set_epoch(1)
    assert views.epoch == 1
    assert all(_differ(views[0], _make(dataset)[0]))
    views.set_epoch(0)
    assert _all(views) == expected


def test_the_callers_generators_are_left_alone(dataset):
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    _make(dataset)[0]
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_all_views_show_the_same_stretch(dataset):
    def negate(samples, sample_rate):
        assert sample_rate == RATE
        return -samples

    views = _make(dataset, {"clean": None, "negative": negate})
    for epoch in range(3):
        views.set_epoch(epoch)
        for index in range(6):
            clean, negative = views[index].values()
            np.testing.assert_array_equal(clean["input_values"], -negative["input_values"])


@pytest.mark.parametrize("augment", ["utterance", "window"])
def test_a_view_does_not_depend_on_the_others(dataset, augment):
    both = _make(dataset, augment=augment)
    for view, transform in VIEWS.items():
        alone = _make(dataset, {view: transform}, augment=augment)
        more = _make(dataset, {"first": draw_everywhere, view: transform}, augment=augment)
        for index in range(6):
            expected = both[index][view]["input_values"]
            np.testing.assert_array_equal(alone[index][view]["input_values"], expected)
            np.testing.assert_array_equal(more[index][view]["input_values"], expected)


def test_the_same_transform_draws_again_in_each_view_and_item(dataset):
    views = _make(dataset, {"one": draw_everywhere, "two": draw_everywhere})
    one, two = views[0].values()
    assert (one["input_values"] != two["input_values"]).any()


def test_views_share_no_memory(dataset):
    item = _make(dataset, {"one": None, "two": None})[0]
    assert not np.shares_memory(item["one"]["input_values"], item["two"]["input_values"])


def test_the_clean_view_is_a_stretch_of_the_clip_and_moves_with_the_epoch(dataset):
    views = _make(dataset, {"clean": None})
    whole = decode_audio(dataset[1]["audio"], RATE)
    starts = set()
    for epoch in range(5):
        views.set_epoch(epoch)
        window = views[1]["clean"]["input_values"]
        found = [start for start in range(9000 - WINDOW + 1) if np.array_equal(whole[start : start + WINDOW], window)]
        assert len(found) == 1
        starts.update(found)
    assert len(starts) == 5


def test_the_leading_stretch(dataset):
    views = _make(dataset, {"clean": None}, crop="leading", window_samples=None, window_seconds=0.125)
    views.set_epoch(5)
    whole = decode_audio(dataset[1]["audio"], RATE)
    np.testing.assert_array_equal(views[1]["clean"]["input_values"], whole[:2000])


@pytest.mark.parametrize("augment", ["utterance", "window"])
def test_short_clips_are_repeated_after_the_transform(dataset, augment):
    lengths = []

    def listen(samples, sample_rate):
        lengths.append(len(samples))
        return samples

    item = _make(dataset, {"view": listen}, augment=augment)[3]
    np.testing.assert_array_equal(item["view"]["input_values"], np.tile(decode_audio(dataset[3]["audio"], RATE), 2))
    assert lengths == [1000]


@pytest.mark.parametrize(("augment", "seen"), [("utterance", 9000), ("window", WINDOW)])
def test_lengths_that_a_transform_sees(dataset, augment, seen):
    lengths = []

    def listen(samples, sample_rate):
        lengths.append(len(samples))
        return samples

    views = _make(dataset, {"clean": None, "augmented": listen}, augment=augment)
    clean, augmented = views[1].values()
    assert lengths == [seen]
    np.testing.assert_array_equal(clean["input_values"], augmented["input_values"])


@pytest.mark.parametrize("augment", ["utterance", "window"])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_transform_may_change_the_length(dataset, augment, factor):
    def change(samples, sample_rate):
        return np.repeat(samples, 2) if factor == 2 else samples[::factor]

    item = _make(dataset, {"view": change}, augment=augment)[1]
    assert item["view"]["input_values"].shape == (WINDOW,)


def test_whole_clips(dataset):
    item = _make(dataset, window_samples=None)[1]
    assert [len(model_item["input_values"]) for model_item in item.values()] == [9000, 9000]


def test_audiomentations(dataset):
    transform = audiomentations.Compose(
        [audiomentations.AddGaussianNoise(p=0.5), audiomentations.Gain(p=0.5), audiomentations.TimeStretch(p=0.5)],
        shuffle=True,
    )
    first, second = _make(dataset, {"view": transform}), _make(dataset, {"view": transform})
    second[4], second[1]
    assert _all(first) == _all(second)


def test_a_model_that_numbers_the_classes_differently(dataset):
    views = _make(dataset, label2id={"bonafide": 0, "spoof": 1})
    assert [views[index]["clean"]["labels"] for index in range(3)] == [1, 0, 1]


def _of_workers(views, num_workers, method="fork"):
    context = method if num_workers else None
    loader = DataLoader(
        views, batch_size=2, num_workers=num_workers, multiprocessing_context=context, collate_fn=identity_collator
    )
    return _bits(item for batch in loader for item in batch)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("augment", [pytest.param("utterance", marks=pytest.mark.slow), "window"])
def test_any_number_of_workers_gives_the_same_bits(dataset, augment):
    views = _make(dataset, augment=augment)
    views.set_epoch(2)
    expected = _all(views)
    for num_workers in (0, 1, 2, 4):
        assert _of_workers(views, num_workers) == expected


@pytest.mark.slow
def test_spawned_workers_give_the_same_bits(dataset):
    transform = audiomentations.AddGaussianNoise(p=1.0)
    views = _make(dataset, {"clean": None, "augmented": transform})
    views.set_epoch(2)
    assert _of_workers(views, 1, "spawn") == _all(views)


def test_running_workers_see_a_new_epoch(dataset):
    views = _make(dataset)
    loader = DataLoader(views, batch_size=2, num_workers=2, persistent_workers=True, collate_fn=identity_collator)
    for epoch in (0, 1, 0):
        views.set_epoch(epoch)
        seen = _bits(item for batch in loader for item in batch)
        assert seen == _all(views)
        if epoch:
            assert seen != _all(_make(dataset))


@pytest.mark.parametrize("augment", ["utterance", "window"])
@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.zeros((1, 50)), r"view 'augmented' returned an array of shape \(1, 50\) for utt_1"),
        (np.zeros(50, np.int16), r"view 'augmented' returned samples of type int16 for utt_1"),
        (np.zeros(0), r"view 'augmented' returned an array of shape \(0,\) for utt_1"),
        (np.array([0, np.nan]), r"view 'augmented' returned NaN or infinite samples for utt_1"),
        (np.array([0, 1e300]), r"view 'augmented' returned NaN or infinite samples for utt_1"),
    ],
)
def test_invalid_results_of_a_transform(dataset, augment, result, message):
    views = _make(dataset, {"clean": None, "augmented": lambda samples, sample_rate: result}, augment=augment)
    with pytest.raises(ValueError, match=message):
        views[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": {}}, "views must name at least one view"),
        ({"crop": "centre"}, "crop must be one of random, leading, not 'centre'"),
        ({"augment": "batch"}, "augment must be one of utterance, window, not 'batch'"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
    ],
)
def test_arguments_out_of_range(dataset, options, message):
    with pytest.raises(ValueError, match=message):
        _make(dataset, **options)


def test_a_negative_epoch(dataset):
    with pytest.raises(ValueError, match="epoch must be at least 0, not -1"):
        _make(dataset).set_epoch(-1)


@pytest.mark.parametrize("index", [6, -7])
def test_an_index_out_of_range(dataset, index):
    with pytest.raises(IndexError):
        _make(dataset)[index]
