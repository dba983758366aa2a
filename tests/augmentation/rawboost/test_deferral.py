import random

import audiomentations
import numpy as np
import pytest
import torch

from hf_gradalign.augmentation import Codec, RawBoost, get_augmentation
from hf_gradalign.augmentation.rawboost.transform import draw_deferred, find_final_rawboost

RATE = 16_000


def finish(transform, samples, parameters):
    waveforms = torch.from_numpy(samples)[None]
    return find_final_rawboost(transform).batched()(waveforms, [parameters], RATE)[0].numpy()


@pytest.mark.parametrize(
    "name", ["rawboost", "rawboost5", "musan_rir+rawboost", "telephone+rawboost3", "codec+musan_rir+rawboost2"]
)
def test_deferred_and_direct_augmentation_agree(name, speech):
    transform = get_augmentation(name)
    for seed, clip in enumerate(speech):
        states = []
        results = []
        for deferred in (False, True):
            random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
            if deferred:
                results.append(finish(transform, *draw_deferred(transform, clip.copy(), RATE)))
            else:
                results.append(transform(clip.copy(), RATE))
            states.append((random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()))
        np.testing.assert_allclose(results[0], results[1], rtol=0, atol=1e-5)
        assert states[0] == states[1]


@pytest.mark.parametrize("outer", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("inner", [0.5, 1.0])
def test_probabilities(outer, inner, speech):
    transform = audiomentations.Compose([audiomentations.Gain(-6, -6, p=1.0), RawBoost(3, p=inner)], p=outer)
    for seed in range(8):
        random.seed(seed)
        expected = transform(speech[0], RATE)
        random.seed(seed)
        np.testing.assert_allclose(finish(transform, *draw_deferred(transform, speech[0], RATE)), expected, atol=1e-5)


def test_deferrable_augmentations():
    rawboost = RawBoost(5)
    assert find_final_rawboost(rawboost) is rawboost
    assert find_final_rawboost(audiomentations.Compose([Codec(), audiomentations.Compose([rawboost])])) is rawboost
    for other in (None, Codec(), audiomentations.Compose([rawboost, Codec()]), audiomentations.Compose([])):
        assert find_final_rawboost(other) is None
    assert find_final_rawboost(audiomentations.Compose([Codec(), rawboost], shuffle=True)) is None
    assert find_final_rawboost(audiomentations.OneOf([rawboost])) is None


def test_frozen_parameters_stay(speech):
    transform = RawBoost()
    random.seed(0)
    expected = transform(speech[0], RATE)
    transform.freeze_parameters()
    samples, parameters = draw_deferred(transform, speech[0], RATE)
    np.testing.assert_allclose(finish(transform, samples, parameters), expected, atol=1e-5)
    assert parameters == transform.parameters
    assert parameters is not transform.parameters


@pytest.mark.parametrize("scale", [1e-30, 1e10, 1e30])
def test_values_beyond_float32_are_not_deferred(scale, speech):
    transform = RawBoost(4)
    samples = (scale * speech[0]).astype(np.float32)
    random.seed(0)
    expected = transform(samples, RATE)
    random.seed(0)
    augmented, parameters = draw_deferred(transform, samples, RATE)
    assert parameters == {"should_apply": False}
    np.testing.assert_array_equal(augmented, expected)
