import pickle

import numpy as np
import pytest
import torch
from transformers import (
    ASTFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from hf_gradalign.data import ClipDataset, ViewCollator, ViewDataset

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


def test_the_extractor_normalises_each_clip():
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
    """Some extractors give a mask whatever they are set to (ParakeetFeatureExtractor, for one)."""

    def __call__(self, raw_speech, padding=False, **options):
        return super().__call__(raw_speech, padding=padding, **{**options, "return_attention_mask": True})


def test_a_mask_that_masks_nothing_and_is_not_wanted_is_left_out():
    collator = ViewCollator(AlwaysMasks(return_attention_mask=False))
    assert set(collator(_items(4000, 4000))) == {"input_values", "labels"}
    assert collator(_items(4000, 3000))["attention_mask"].sum(dim=1).tolist() == [4000, 3000]
    assert "attention_mask" in ViewCollator(AlwaysMasks(return_attention_mask=True))(_items(4000, 4000))


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


def test_the_rate_is_the_extractors():
    # The extractor would refuse any other.
    batch = ViewCollator(Wav2Vec2FeatureExtractor(sampling_rate=8000))(_items(100))
    assert batch["input_values"].shape == (1, 100)


def test_it_can_be_sent_to_a_spawned_worker():
    collator = pickle.loads(pickle.dumps(ViewCollator(Wav2Vec2FeatureExtractor())))
    torch.testing.assert_close(
        collator(_items(500, 400))["input_values"],
        ViewCollator(Wav2Vec2FeatureExtractor())(_items(500, 400))["input_values"],
    )


def test_it_takes_what_the_data_sets_give(write_clip, make_dataset):
    dataset = make_dataset([write_clip("a.wav", 900), write_clip("b.wav", 1200)])
    collator = ViewCollator(Wav2Vec2FeatureExtractor())
    clips = ClipDataset(dataset, sampling_rate=RATE, window_samples=1000)
    views = ViewDataset(dataset, {"clean": None}, sampling_rate=RATE, window_samples=1000)
    assert collator([clips[0], clips[1]])["input_values"].shape == (2, 1000)
    assert collator([views[0], views[1]])["clean"]["input_values"].shape == (2, 1000)
