import numpy as np
import pytest
import torch

from hf_gradalign.audio import AudioDecodingError, sound_of_array

STEREO = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 2))
MONO = STEREO.mean(axis=1).astype(np.float32)


@pytest.mark.parametrize("transpose", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        np.asarray,
        lambda x: x.astype(np.float32),
        torch.from_numpy,
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: x.tolist(),
        lambda x: tuple(map(tuple, x.tolist())),
    ],
)
def test_channels_lie_on_the_shorter_side(make, transpose):
    sound = sound_of_array(make(STEREO.T.copy() if transpose else STEREO), 16_000)
    np.testing.assert_allclose(sound.samples, MONO, atol=1e-7)
    assert sound.samples.dtype == np.float32


@pytest.mark.parametrize("shape", [(4000,), (4000, 1), (1, 4000), (1, 1), (8, 9)])
def test_shapes(shape):
    n_samples = max(shape)
    assert sound_of_array(np.full(shape, 0.25), 16_000).samples.tolist() == [0.25] * n_samples


@pytest.mark.parametrize("shape", [(9, 4000), (4000, 9), (2, 2), (2, 2, 2), (1, 2, 4000), ()])
def test_ambiguous_shapes_are_refused(shape):
    with pytest.raises(AudioDecodingError, match=r"is not a clip.* several clips as a list of arrays"):
        sound_of_array(np.zeros(shape), 16_000)


@pytest.mark.parametrize(("dtype", "scale"), [("int16", 2**15), ("int32", 2**31)])
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_integers_have_their_range(dtype, scale, make):
    sound = sound_of_array(make(np.array([[0, scale // 2, -scale], [0, scale // 2, 0]] * 1, dtype)), 16_000)
    assert sound.samples.tolist() == [0, 0.5, -0.5]
    assert sound.peak is None


@pytest.mark.parametrize(
    "array", [np.arange(9), [1, 2, 3], np.zeros(9, np.uint8), np.zeros(9, bool), np.zeros(9, complex), np.array(["a"])]
)
def test_types_without_a_scale_are_refused(array):
    with pytest.raises(
        AudioDecodingError, match=r"its samples are \S+: pass floating-point samples in \[-1, 1\], or int16"
    ):
        sound_of_array(array, 16_000)


def test_what_is_not_sound():
    with pytest.raises(AudioDecodingError, match="it is empty"):
        sound_of_array(np.zeros((0, 2)), 16_000)
    with pytest.raises(AudioDecodingError, match="NaN or infinite"):
        sound_of_array([0.1, float("nan")], 16_000)
    with pytest.raises(AudioDecodingError, match=r"its samples reach 1e\+20, more than those of any recording"):
        sound_of_array([0.1, -1e20], 16_000)
    with pytest.raises(AudioDecodingError, match="different lengths"):
        sound_of_array([[0.1, 0.2], [0.1]], 16_000)


def test_half_precision():
    samples = torch.from_numpy(MONO).to(torch.bfloat16)
    np.testing.assert_array_equal(sound_of_array(samples, 16_000).samples, samples.float().numpy())


def test_the_peak():
    assert sound_of_array(np.array([0.1, -3000.0]), 16_000).peak == 3000
