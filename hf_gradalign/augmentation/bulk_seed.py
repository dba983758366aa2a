from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray


class BulkSeed(ISeedSequence):
    """A seed of 64 bits for `numpy.random.SFC64`, as that generator's author seeds it: in every word of its state.

    SFC64 runs its first rounds by itself, which is all the mixing that it needs; NumPy's general `SeedSequence` takes
    longer than some of the draws of a clip.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> NDArray[np.uint64]:
        """The words, of 64 bits each."""
        return np.full(n_words, self._seed, dtype)
