"""Seed the global random number generators for one block and give them back as they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded_generators(seed: np.random.SeedSequence) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators inside the block, and restore their states after it.

    audiomentations and much else draws from them. Of torch's only the CPU's is touched: a forked loader worker must
    not wake CUDA, which `torch.manual_seed` would.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.default_generator.get_state()
    for_python, for_numpy, for_torch = seed.spawn(3)
    try:
        random.seed(int.from_bytes(for_python.generate_state(4).tobytes(), "little"))
        np.random.seed(for_numpy.generate_state(4))
        torch.default_generator.manual_seed(int(for_torch.generate_state(1, np.uint64)[0] >> 1))
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.default_generator.set_state(torch_state)
