import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from hf_gradalign.augmentation import Codec, RawBoost, get_augmentation
from hf_gradalign.data import DeferredAugmentation, ViewCollator, ViewDataset
from hf_gradalign.models import SpoofDetectorFeatureExtractor, small_feature_extractor

RATE = 16_000
WINDOW = 4000
LENGTHS = [6000, 9000, 4000, 1000, 20_000]
EXTRACTORS = [
    small_feature_extractor(),
    Wav2Vec2FeatureExtractor(do_normalize=False),
    Wav2Vec2FeatureExtractor(return_attention_mask=True),
    SpoofDetectorFeatureExtractor(n_samples=None, do_normalize=True),
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


@pytest.mark.parametrize("augment", ["utterance", "window"])
@pytest.mark.parametrize("extractor", EXTRACTORS, ids=lambda extractor: type(extractor).__name__)
def test_batches_are_those_without_deferral(dataset, augment, extractor):
    collator, finish = ViewCollator(extractor), DeferredAugmentation(extractor)
    whole, deferred = _make(dataset, augment=augment), _make(dataset, augment=augment, defer=True)
    for epoch in range(2):
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
    """What is in a batch must survive the way from a worker to the device: tensors, mappings and plain numbers."""
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


def test_it_can_be_sent_to_a_spawned_worker(dataset):
    deferred = pickle.loads(pickle.dumps(_make(dataset, defer=True)))
    assert deferred[0]["rawboost"]["deferred"] == _make(dataset, defer=True)[0]["rawboost"]["deferred"]


@pytest.mark.parametrize(
    "extractor",
    [ASTFeatureExtractor(), WhisperFeatureExtractor(), SpoofDetectorFeatureExtractor(n_samples=500)],
    ids=lambda extractor: type(extractor).__name__,
)
def test_extractors_that_do_more_are_refused(extractor):
    with pytest.raises(ValueError, match=f"{type(extractor).__name__} does more to a waveform than to normalise it"):
        DeferredAugmentation(extractor)


def test_what_cannot_be_deferred_is_refused(dataset):
    with pytest.raises(ValueError, match=r"No view ends with RawBoost, .*: clean, codec\. Leave out defer"):
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
