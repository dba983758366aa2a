import contextlib
import random

import numpy as np
import torch

from hf_gradalign.data import seeded_generators


def _draw():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_the_block_is_reproducible():
    with seeded_generators(np.random.SeedSequence(7)):
        first = _draw()
    with seeded_generators(np.random.SeedSequence(7)):
        again = _draw()
    with seeded_generators(np.random.SeedSequence(8)):
        other = _draw()
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert len(set(first)) == 3


def test_the_callers_generators_are_left_alone():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = [_draw(), _draw()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = _draw()
    with contextlib.suppress(KeyError), seeded_generators(np.random.SeedSequence(7)):
        _draw()
        raise KeyError
    assert [first, _draw()] == expected
