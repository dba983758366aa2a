import pickle

import numpy as np
import pytest
import torch
from tiny_detectors import make_classifier, make_detector
from torch.utils.data import DataLoader
from transformers import (
    ASTFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from hf_gradalign.augmentation import Codec, RawBoost, get_augmentation
from hf_gradalign.data import ClipDataset, DeferredAugmentation, ViewCollator, ViewDataset
from hf_gradalign.models import SpoofDetectorFeatureExtractor, small_feature_extractor
from hf_gradalign.training import GradientAlignmentArguments, GradientAlignmentTrainer

RATE = 16_000


def _items(*lengths):
    rng = np.random.default_rng(0)
    clips = [rng.normal(0, 0.1, length).astype(np.float32) for length in lengths]
    return [{"input_values": clip, "labels": index % 2} for index, clip in enumerate(clips)]


def test_an_ordinary_batch():
    items = _items(4000, 4000, 4000)
    batch = ViewCollator(Wav2Vec2FeatureExtractor(do_normalize=False))(items)
    assert set(batch) == {"input_values", "labels"}
    assert batch["labels"].dtype == torch.int64
    assert batch["labels"].tolist() == [0, 1, 0]
    assert batch["input_values"].dtype == torch.float32
    np.testing.assert_array_equal(batch["input_values"], np.stack([item["input_values"] for item in items]))


def test_a_batch_of_views():
    clean, augmented = _items(4000, 4000), _items(3000, 3000)
    items = [{"clean": one, "augmented": two} for one, two in zip(clean, augmented, strict=True)]
    collator = ViewCollator(Wav2Vec2FeatureExtractor())
    batch = collator(items)
    assert list(batch) == ["clean", "augmented"]
    for view, expected in (("clean", collator(clean)), ("augmented", collator(augmented))):
        assert set(batch[view]) == set(expected)
        for key, tensor in batch[view].items():
            torch.testing.assert_close(tensor, expected[key], rtol=0, atol=0)


@pytest.mark.parametrize("lengths", [(4000, 4000), (4000, 3000)])
def test_items_of_tensors(lengths):
    # As from a table of datasets with the format "torch".
    items = _items(*lengths)
    tensors = [{name: torch.as_tensor(value) for name, value in item.items()} for item in items]
    collator = ViewCollator(Wav2Vec2FeatureExtractor(do_normalize=True))
    for name, value in collator(items).items():
        assert torch.equal(collator(tensors)[name], value)


def test_the_extractor_normalizes_each_clip():
    batch = ViewCollator(Wav2Vec2FeatureExtractor(do_normalize=True))(_items(4000, 4000))
    torch.testing.assert_close(batch["input_values"].std(dim=1), torch.ones(2), atol=1e-3, rtol=0)


@pytest.mark.parametrize("wants_mask", [True, False])
@pytest.mark.parametrize("lengths", [(4000, 4000), (4000, 3000)])
def test_wav2vec2s_mask(wants_mask, lengths):
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=wants_mask)
    batch = ViewCollator(extractor)(_items(*lengths))
    assert batch["input_values"].shape == (2, 4000)
    assert ("attention_mask" in batch) == wants_mask
    if wants_mask:
        assert batch["attention_mask"].sum(dim=1).tolist() == list(lengths)


@pytest.mark.parametrize("lengths", [(4080, 4080), (4080, 2000)])
def test_input_features(lengths):
    batch = ViewCollator(SeamlessM4TFeatureExtractor())(_items(*lengths))
    assert set(batch) == {"input_features", "attention_mask", "labels"}
    assert bool(batch["attention_mask"].all()) == (lengths[0] == lengths[1])


class AlwaysMasks(Wav2Vec2FeatureExtractor):
    """Some extractors return a mask whatever their settings (for example ParakeetFeatureExtractor)."""

    def __call__(self, raw_speech, padding=False, **options):
        return super().__call__(raw_speech, padding=padding, **{**options, "return_attention_mask": True})


def test_masks_without_padding_are_left_out():
    collator = ViewCollator(AlwaysMasks(return_attention_mask=False))
    assert set(collator(_items(4000, 4000))) == {"input_values", "labels"}
    assert collator(_items(4000, 3000))["attention_mask"].sum(dim=1).tolist() == [4000, 3000]
    assert "attention_mask" in ViewCollator(AlwaysMasks(return_attention_mask=True))(_items(4000, 4000))


class NeedsMask(torch.nn.Module):
    def forward(self, input_values, attention_mask, labels=None):
        """As some models with code of their own."""


def test_training_keeps_such_a_mask_for_models_that_need_it():
    for model, expected in ((make_classifier(), False), (make_detector(), False), (NeedsMask(), True)):
        collator = ViewCollator(Wav2Vec2FeatureExtractor(return_attention_mask=True))
        collator.use_model(model)
        assert ("attention_mask" in collator(_items(4000, 4000))) == expected
        assert "attention_mask" in collator(_items(4000, 3000))
    features = ViewCollator(SeamlessM4TFeatureExtractor())
    features.use_model(make_classifier())
    assert "attention_mask" in features(_items(4080, 4080))


@pytest.mark.parametrize(
    ("extractor", "name", "frames"),
    [(ASTFeatureExtractor(max_length=100), "input_values", 100), (WhisperFeatureExtractor(), "input_features", 3000)],
)
@pytest.mark.parametrize("lengths", [(4000, 4000), (4000, 3000)])
def test_extractors_that_always_pad_are_left_to_it(extractor, name, frames, lengths):
    batch = ViewCollator(extractor)(_items(*lengths))
    assert frames in batch[name].shape
    assert batch[name].shape[0] == 2
    assert batch["labels"].tolist() == [0, 1]


@pytest.mark.parametrize("extractor", [ASTFeatureExtractor(max_length=100), WhisperFeatureExtractor(chunk_length=1)])
def test_clips_that_the_extractor_would_cut_are_refused(extractor):
    collator = ViewCollator(extractor)
    assert len(collator(_items(16_000, 3000))["labels"]) == 2
    with pytest.raises(ValueError, match=rf"{type(extractor).__name__} takes at most 1(\.015)? s and would cut .* 2 s"):
        collator(_items(32_000, 3000))


def test_a_detector_s_extractor_takes_the_windows_as_they_are():
    extractor = SpoofDetectorFeatureExtractor(n_samples=3000)
    items = _items(4000, 4000)
    batch = ViewCollator(extractor)(items)
    np.testing.assert_array_equal(batch["input_values"], np.stack([item["input_values"] for item in items]))
    assert ViewCollator(extractor)(_items(4000, 2000))["attention_mask"].sum(dim=1).tolist() == [4000, 2000]
    assert extractor.n_samples == 3000


@pytest.fixture
def padding_warnings(caplog):
    """The warnings of a collator for batches with these lengths of clips."""

    def collect(collator, *batches):
        caplog.clear()
        for lengths in batches:
            collator(_items(*lengths))
        return [record.getMessage() for record in caplog.records]

    return collect


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("has_mask", [False, True])
def test_padding_that_changes_the_losses_is_reported_once(norm, has_mask, padding_warnings):
    collator = ViewCollator(Wav2Vec2FeatureExtractor(return_attention_mask=has_mask))
    collator.use_model(make_classifier(feat_extract_norm=norm))
    assert not padding_warnings(collator, (400, 400))
    told = padding_warnings(collator, (400, 300), (400, 300))
    told += padding_warnings(pickle.loads(pickle.dumps(collator)), (400, 300))
    if has_mask and norm == "layer":
        assert not told
    else:
        assert len(told) == 1
        assert ("in spite of its attention mask" if has_mask else "no attention mask") in told[0]
        assert "window_seconds" in told[0]


def test_extractors_that_pad_to_a_fixed_length_do_not_warn(padding_warnings):
    assert not padding_warnings(ViewCollator(WhisperFeatureExtractor()), (4000, 3000))


def test_the_trainer_gives_the_collator_its_model(tmp_path, padding_warnings):
    collator = ViewCollator(Wav2Vec2FeatureExtractor(return_attention_mask=True))
    model = make_classifier(feat_extract_norm="group")
    GradientAlignmentTrainer(model, GradientAlignmentArguments(str(tmp_path), use_cpu=True), data_collator=collator)
    assert len(padding_warnings(collator, (400, 300))) == 1
    GradientAlignmentTrainer(
        torch.nn.Linear(2, 2), GradientAlignmentArguments(str(tmp_path), use_cpu=True), data_collator=collator
    )


def test_the_rate_is_the_extractors():
    # The extractor refuses other values.
    batch = ViewCollator(Wav2Vec2FeatureExtractor(sampling_rate=8000))(_items(100))
    assert batch["input_values"].shape == (1, 100)


def test_it_can_be_sent_to_a_spawned_worker():
    collator = pickle.loads(pickle.dumps(ViewCollator(Wav2Vec2FeatureExtractor())))
    torch.testing.assert_close(
        collator(_items(500, 400))["input_values"],
        ViewCollator(Wav2Vec2FeatureExtractor())(_items(500, 400))["input_values"],
    )


def test_takes_items_of_the_data_sets(write_clip, make_dataset):
    dataset = make_dataset([write_clip("a.wav", 900), write_clip("b.wav", 1200)])
    collator = ViewCollator(Wav2Vec2FeatureExtractor())
    clips = ClipDataset(dataset, sampling_rate=RATE, window_samples=1000)
    views = ViewDataset(dataset, {"clean": None}, sampling_rate=RATE, window_samples=1000)
    assert collator([clips[0], clips[1]])["input_values"].shape == (2, 1000)
    assert collator([views[0], views[1]])["clean"]["input_values"].shape == (2, 1000)


RATE = 16_000
WINDOW = 4000
LENGTHS = [6000, 9000, 4000, 1000, 20_000]
EXTRACTORS = [
    small_feature_extractor(),
    Wav2Vec2FeatureExtractor(do_normalize=False),
    Wav2Vec2FeatureExtractor(return_attention_mask=True),
    SpoofDetectorFeatureExtractor(n_samples=500, do_normalize=True),
    SpoofDetectorFeatureExtractor(n_samples=None, do_normalize=True, normalization_epsilon=1e-3),
]


@pytest.fixture
def dataset(write_clip, make_dataset):
    return make_dataset([write_clip(f"{seed}.wav", length, seed=seed) for seed, length in enumerate(LENGTHS)])


def _views():
    return {
        "clean": None,
        "rawboost": RawBoost(),
        "sometimes": RawBoost(5, p=0.5),
        "codec": Codec(["mu_law"]),
        "both": get_augmentation("codec:a_law+rawboost3"),
    }


def _make(dataset, views=None, **options):
    defaults = {"sampling_rate": RATE, "window_samples": WINDOW, "rms_level": 0.1, "seed": 3}
    return ViewDataset(dataset, views or _views(), **{**defaults, **options})


def _assert_same(batch, expected):
    assert list(batch) == list(expected)
    for view, inputs in expected.items():
        assert list(batch[view]) == list(inputs)
        for name, values in inputs.items():
            assert batch[view][name].dtype == values.dtype
            torch.testing.assert_close(batch[view][name], values, rtol=0, atol=5e-5 if name == "input_values" else 0)


@pytest.mark.parametrize(
    ("extractor", "augment"),
    [
        *((extractor, "window") for extractor in EXTRACTORS),
        (EXTRACTORS[0], "utterance"),
        *(pytest.param(extractor, "utterance", marks=pytest.mark.slow) for extractor in EXTRACTORS[1:]),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_batches_are_those_without_deferral(dataset, augment, extractor):
    collator, finish = ViewCollator(extractor), DeferredAugmentation(extractor)
    whole, deferred = _make(dataset, augment=augment), _make(dataset, augment=augment, defer=True)
    for epoch in range(2):
        if epoch:
            collator.use_model(make_classifier())  # which can do without a mask
        whole.set_epoch(epoch), deferred.set_epoch(epoch)
        indices = range(len(dataset))
        batch = collator([deferred[index] for index in indices])
        assert {view for view, inputs in batch.items() if "deferred" in inputs} == {"rawboost", "sometimes", "both"}
        _assert_same(finish(batch), collator([whole[index] for index in indices]))


def test_other_views_and_batches_pass_unchanged(dataset):
    finish, collator = DeferredAugmentation(small_feature_extractor()), ViewCollator(small_feature_extractor())
    whole = collator([_make(dataset)[0]])
    assert finish(whole) is whole
    ordinary = whole["clean"]
    assert finish(ordinary) is ordinary
    batch = collator([_make(dataset, defer=True)[0]])
    assert finish(batch)["clean"] is batch["clean"]


def test_an_item_depends_on_seed_epoch_and_index_alone(dataset):
    first = _make(dataset, defer=True)
    again = _make(dataset, defer=True)
    again[3], again[1]
    for index in range(len(dataset)):
        for view, item in first[index].items():
            other = again[index][view]
            np.testing.assert_array_equal(item["input_values"], other["input_values"])
            assert item.get("deferred") == other.get("deferred")
    again.set_epoch(1)
    assert first[0]["rawboost"]["deferred"]["parameters"] != again[0]["rawboost"]["deferred"]["parameters"]


def test_workers_and_pinning_take_the_batches(dataset):
    """The content of a batch must survive the transfer from worker to device: tensors, mappings and plain numbers."""
    collator, finish = ViewCollator(small_feature_extractor()), DeferredAugmentation(small_feature_extractor())
    loader = DataLoader(_make(dataset, defer=True), batch_size=3, collate_fn=collator, num_workers=1)
    expected = DataLoader(_make(dataset), batch_size=3, collate_fn=collator)
    for batch, whole in zip(loader, expected, strict=True):
        _assert_same(finish(batch), whole)

    def check(value):
        if isinstance(value, dict):
            return all(check(each) for each in value.values())
        return isinstance(value, torch.Tensor | int | float)

    assert check(batch)


def test_a_deferring_data_set_can_be_sent_to_a_spawned_worker(dataset):
    deferred = pickle.loads(pickle.dumps(_make(dataset, defer=True)))
    assert deferred[0]["rawboost"]["deferred"] == _make(dataset, defer=True)[0]["rawboost"]["deferred"]


@pytest.mark.parametrize(
    "extractor",
    [ASTFeatureExtractor(), WhisperFeatureExtractor()],
    ids=lambda extractor: type(extractor).__name__,
)
def test_extractors_with_further_steps_are_refused(extractor):
    with pytest.raises(ValueError, match=f"{type(extractor).__name__} does more than normalize a waveform"):
        DeferredAugmentation(extractor)


def test_refuses_augmentations_that_cannot_be_deferred(dataset):
    with pytest.raises(ValueError, match=r"None of the views clean, codec ends with RawBoost, .*Remove defer"):
        _make(dataset, {"clean": None, "codec": Codec()}, defer=True)
    with pytest.raises(ValueError, match="needs a window"):
        _make(dataset, window_samples=None, defer=True)


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
def test_on_the_accelerator(dataset):
    collator, finish = ViewCollator(small_feature_extractor()), DeferredAugmentation(small_feature_extractor())
    indices = range(len(dataset))

    def moved(value):
        if isinstance(value, dict):
            return {key: moved(each) for key, each in value.items()}
        return value.to(torch.accelerator.current_accelerator()) if isinstance(value, torch.Tensor) else value

    batch = finish(moved(collator([_make(dataset, defer=True)[index] for index in indices])))
    batch = {view: {name: values.cpu() for name, values in inputs.items()} for view, inputs in batch.items()}
    _assert_same(batch, collator([_make(dataset)[index] for index in indices]))
