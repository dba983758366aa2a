from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray


class BulkSeed(ISeedSequence):
    """A seed of 64 bits for `numpy.random.SFC64`, which is put into every word of its state.

    NumPy discards SFC64's first rounds, and after these neighbouring seeds have nothing in common (tests); the general
    `SeedSequence` would take as long as some of a clip's draws.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> NDArray[np.uint64]:
        """The words, of 64 bits each."""
        return np.full(n_words, self._seed, dtype)
