"""Random view gradients for property tests: equal, opposed, zero and of very different length."""

import torch
from hypothesis import strategies as st

OUR_METHODS = ("none", "pcgrad", "gradvac", "cagrad")


@st.composite
def gradient_rows(draw, min_views=2, max_views=2, dimension=5):
    """A float64 matrix of shape (K, dimension), one row per view."""
    views = draw(st.integers(min_views, max_views))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    rows = torch.randn(views, dimension, generator=generator, dtype=torch.float64)
    for i in range(1, views):
        kind = draw(st.sampled_from(["free", "free", "free", "parallel", "opposed", "zero", "conflicting"]))
        if kind == "parallel":
            rows[i] = rows[0]
        elif kind == "opposed":
            rows[i] = -rows[0]
        elif kind == "zero":
            rows[i] = 0
        elif kind == "conflicting":
            rows[i] -= 2 * rows[0]
        rows[i] *= draw(st.sampled_from([1.0, 1.0, 1e-3, 1e3]))
    return rows


@st.composite
def gradient_batches(draw, min_views=2, max_views=2, size=16, dimension=5, degenerate=True):
    """Many matrices from one seed: float64 of shape (size, K, dimension), all of rank K unless `degenerate`."""
    views = draw(st.integers(min_views, max_views))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    rows = torch.randn(size, views, dimension, generator=generator, dtype=torch.float64)
    for batch in rows:
        for i in range(1, views):
            kind, scale = torch.randint(8, (2,), generator=generator).tolist()
            if kind < 3 and degenerate:
                batch[i] = batch[0] * (1, -1, 0)[kind]
            elif kind == 3:
                batch[i] -= 2 * batch[0]
            batch[i] *= {0: 1e-3, 1: 1e3}.get(scale, 1.0)
    return rows
