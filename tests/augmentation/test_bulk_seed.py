import numpy as np

from hf_gradalign.augmentation.bulk_seed import BulkSeed


def words(seed, count):
    return np.random.SFC64(BulkSeed(seed)).random_raw(count)


def test_the_seed_is_in_every_word():
    np.testing.assert_array_equal(BulkSeed(2**53 - 1).generate_state(3, np.uint64), [2**53 - 1] * 3)


def test_neighbouring_seeds_differ_in_half_of_the_bits_from_the_first_words_on():
    seeds = [*range(64), *(2**k for k in range(6, 53))]
    first = np.array([words(seed, 4) for seed in seeds])
    assert len(np.unique(first)) == first.size
    different = np.unpackbits((first[1:] ^ first[:-1]).view(np.uint8)).mean()
    assert abs(different - 0.5) < 0.01
    streams = np.array([words(seed, 1000).view(np.uint16)[:4000] for seed in range(50)], dtype=np.float64)
    correlations = np.corrcoef(streams)[~np.eye(50, dtype=bool)]
    assert np.abs(correlations).max() < 0.1
