"""Buckets, small enough here that gradients are cut and spread over several of them."""

from unittest.mock import patch

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_gradalign.alignment import buckets

CPU = torch.device("cpu")
SHAPES = st.sampled_from([(), (1,), (7,), (5, 4), (4, 5), (2, 3, 5), (0, 2)])
DTYPES = {torch.float32: 1e-6, torch.float64: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def draw_gradients(shapes, views, dtypes, seed):
    """K lists of gradients, some of them missing, some not contiguous."""
    generator = torch.Generator().manual_seed(seed)
    gradients = []
    for view in range(views):
        drawn = [torch.randn(shape, generator=generator).to(dtypes[p % 2]) for p, shape in enumerate(shapes)]
        drawn = [g.T.contiguous().T if g.ndim == 2 and view else g for g in drawn]
        missing = torch.rand(len(drawn), generator=generator) < 0.2
        gradients.append([None if is_missing else g for g, is_missing in zip(drawn, missing, strict=True)])
    return gradients


def check_sizes(bucket, size):
    """A bucket holds more only of one parameter: all of it if nothing is copied, otherwise one row."""
    for view in bucket.views:
        pieces = [piece for piece in view if piece is not None]
        assert len(bucket.parameters) == 1 or sum(piece.numel() for piece in pieces) <= size
        for piece in pieces:
            is_copied = piece.dtype.itemsize < 4 or not piece.is_contiguous()
            assert piece.numel() <= size or len(piece) == 1 or not is_copied


@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=5),
    views=st.integers(1, 3),
    dtypes=st.tuples(st.sampled_from(list(DTYPES)), st.sampled_from(list(DTYPES))),
    size=st.sampled_from([1, 6, 12, 2**20]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_products_and_sums_match_float64(shapes, views, dtypes, size, seed):
    gradients = draw_gradients(shapes, views, dtypes, seed)
    columns = list(zip(*[[None if g is None else g.double().clone() for g in view] for view in gradients], strict=True))
    index = [position % 2 for position in range(len(shapes))]
    weights = torch.randn(2, views, generator=torch.Generator().manual_seed(seed))
    with patch.object(buckets, "BUCKET_SIZE", size):
        for bucket in buckets.buckets(gradients, index):
            assert len({index[parameter] for parameter in bucket.parameters}) == 1
            check_sizes(bucket, size)
        products = buckets.products_in_buckets(gradients, CPU)
        buckets.combine_in_buckets_(gradients, weights, index)
    for position, column in enumerate(columns):
        for i, left in enumerate(column):
            for j, right in enumerate(column):
                expected = 0.0 if left is None or right is None else float((left * right).sum())
                assert abs(float(products[position, i, j]) - expected) <= 1e-5 * max(1, abs(expected))
        terms = [w * g for w, g in zip(weights[index[position]].double(), column, strict=True) if g is not None]
        result = next((view[position] for view in gradients if view[position] is not None), None)
        assert (result is None) == (not terms)
        if terms and result.numel():
            off = (result.double() - sum(terms)).abs().max()
            assert off <= DTYPES[result.dtype] * max(1, *(float(term.abs().max()) for term in terms)) * views
