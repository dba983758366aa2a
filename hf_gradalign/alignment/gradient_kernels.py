"""Triton kernels for products and weighted sums of the views' gradients, in three launches for a whole model.

The kernels find the gradients through a table of addresses (`gradient_table`), so the number of parameters does not
matter. Each parameter is split into chunks of `CHUNK` elements. One program handles one chunk: it reads each view's
part once and adds up the products, or writes the weighted sum. A second kernel adds up the products of a parameter's
chunks. Every sum has a fixed order, so results are the same to the bit from run to run.
"""

import triton
import triton.language as tl

CHUNK = 16_384
"""Elements of one view that a program reads: enough to outweigh the address lookups, and few enough that a model of a
few million parameters still occupies every multiprocessor."""
BLOCK = 4_096
"""Elements of one view that a program holds in registers."""


@triton.jit(do_not_specialize=["parameters", "chunks"])
def products_kernel(
    addresses,  # int64 (K + 1, P): address of each view's gradients, 0 for none
    parameter_of_chunk,  # int32 (chunks,)
    first_chunk,  # int32 (P + 1,)
    sizes,  # int64 (P,): elements of a gradient
    pairs,  # int32 (pairs, 2): views
    sums,  # float32 or float64 (pairs, 3, chunks): left.left, left.right, right.right
    parameters,
    chunks,
    TYPE: tl.constexpr,
    WIDE: tl.constexpr,
    ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add up the products of each pair of views within each chunk."""
    chunk, pair = tl.program_id(0), tl.program_id(1)
    parameter = tl.load(parameter_of_chunk + chunk)
    left_address = tl.load(addresses + tl.load(pairs + 2 * pair) * parameters + parameter)
    right_address = tl.load(addresses + tl.load(pairs + 2 * pair + 1) * parameters + parameter)
    has_left, has_right = left_address != 0, right_address != 0
    start = (chunk - tl.load(first_chunk + parameter)).to(tl.int64) * CHUNK
    count = tl.minimum(tl.load(sizes + parameter) - start, CHUNK)
    count = tl.where(has_left | has_right, count, 0)
    # A view without a gradient reads the other view's and uses zeros, so the loops need no condition.
    left = tl.where(has_left, left_address, right_address).to(tl.pointer_type(TYPE))
    right = tl.where(has_right, right_address, left_address).to(tl.pointer_type(TYPE))
    if ALIGNED:
        left, right = tl.multiple_of(left, 16), tl.multiple_of(right, 16)
    left += start
    right += start

    elements = tl.arange(0, BLOCK)
    left_left = tl.zeros((BLOCK,), WIDE)
    left_right = tl.zeros((BLOCK,), WIDE)
    right_right = tl.zeros((BLOCK,), WIDE)
    whole = (count // BLOCK).to(tl.int32)
    for block in range(whole):  # without a mask, to read 16 bytes at a time
        a = tl.where(has_left, tl.load(left + block * BLOCK + elements).to(WIDE), 0.0)
        b = tl.where(has_right, tl.load(right + block * BLOCK + elements).to(WIDE), 0.0)
        left_left += a * a
        left_right += a * b
        right_right += b * b
    rest = whole * BLOCK + elements
    a = tl.where(has_left, tl.load(left + rest, rest < count, 0.0).to(WIDE), 0.0)
    b = tl.where(has_right, tl.load(right + rest, rest < count, 0.0).to(WIDE), 0.0)
    left_left += a * a
    left_right += a * b
    right_right += b * b

    out = sums + pair * 3 * chunks + chunk
    tl.store(out, tl.sum(left_left))
    # Zeros of a missing gradient times infinity would be NaN.
    tl.store(out + chunks, tl.where(has_left & has_right, tl.sum(left_right), 0.0))
    tl.store(out + 2 * chunks, tl.sum(right_right))


@triton.jit(do_not_specialize=["parameters", "chunks"])
def add_up_kernel(
    sums,  # (pairs, 3, chunks), from products_kernel
    first_chunk,  # int32 (P + 1,)
    rows,  # int32 (P,): row of a parameter's products
    pairs,  # int32 (pairs, 2)
    products,  # float32 (rows, VIEWS, VIEWS)
    chunks,
    VIEWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Add up the products of each parameter's chunks."""
    parameter, pair = tl.program_id(0), tl.program_id(1)
    left, right = tl.load(pairs + 2 * pair), tl.load(pairs + 2 * pair + 1)
    first, last = tl.load(first_chunk + parameter), tl.load(first_chunk + parameter + 1)
    within = tl.arange(0, WIDTH)
    left_left = tl.zeros((WIDTH,), tl.float64)
    left_right = tl.zeros((WIDTH,), tl.float64)
    right_right = tl.zeros((WIDTH,), tl.float64)
    start = sums + pair * 3 * chunks
    for chunk in range(first, last, WIDTH):
        some = chunk + within
        left_left += tl.load(start + some, some < last, 0.0).to(tl.float64)
        left_right += tl.load(start + chunks + some, some < last, 0.0).to(tl.float64)
        right_right += tl.load(start + 2 * chunks + some, some < last, 0.0).to(tl.float64)
    matrix = products + tl.load(rows + parameter).to(tl.int64) * VIEWS * VIEWS
    product = tl.sum(left_right).to(tl.float32)
    # The squares of a view are computed with each of its pairs, and are the same to the bit in each.
    tl.store(matrix + left * VIEWS + left, tl.sum(left_left).to(tl.float32))
    tl.store(matrix + right * VIEWS + right, tl.sum(right_right).to(tl.float32))
    tl.store(matrix + left * VIEWS + right, product)
    tl.store(matrix + right * VIEWS + left, product)


@triton.jit(do_not_specialize=["parameters", "chunks"])
def combine_kernel(
    addresses,  # int64 (K + 1, P); the last row is for the sum
    parameter_of_chunk,  # int32 (chunks,)
    first_chunk,  # int32 (P + 1,)
    sizes,  # int64 (P,)
    weights,  # (groups, VIEWS)
    group_of_parameter,  # int32 (P,)
    parameters,
    TYPE: tl.constexpr,
    WIDE: tl.constexpr,
    VIEWS: tl.constexpr,
    ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the weighted sum of the views' gradients over the first view that has one."""
    chunk = tl.program_id(0)
    parameter = tl.load(parameter_of_chunk + chunk)
    target = tl.load(addresses + VIEWS * parameters + parameter)
    start = (chunk - tl.load(first_chunk + parameter)).to(tl.int64) * CHUNK
    count = tl.where(target != 0, tl.minimum(tl.load(sizes + parameter) - start, CHUNK), 0)
    weight = weights + tl.load(group_of_parameter + parameter) * VIEWS
    out = target.to(tl.pointer_type(TYPE))
    if ALIGNED:
        out = tl.multiple_of(out, 16)
    out += start
    elements = tl.arange(0, BLOCK)
    whole = (count // BLOCK).to(tl.int32)
    for block in range(whole):
        total = tl.zeros((BLOCK,), WIDE)
        for view in tl.static_range(VIEWS):
            address = tl.load(addresses + view * parameters + parameter)
            exists = address != 0
            gradient = tl.where(exists, address, target).to(tl.pointer_type(TYPE))
            if ALIGNED:
                gradient = tl.multiple_of(gradient, 16)
            values = tl.load(gradient + start + block * BLOCK + elements).to(WIDE)
            total += tl.where(exists, values * tl.load(weight + view).to(WIDE), 0.0)
        tl.store(out + block * BLOCK + elements, total.to(TYPE))
    rest = whole * BLOCK + elements
    if whole * BLOCK < count:
        total = tl.zeros((BLOCK,), WIDE)
        for view in tl.static_range(VIEWS):
            address = tl.load(addresses + view * parameters + parameter)
            exists = address != 0
            gradient = tl.where(exists, address, target).to(tl.pointer_type(TYPE))
            values = tl.load(gradient + start + rest, rest < count, 0.0).to(WIDE)
            total += tl.where(exists, values * tl.load(weight + view).to(WIDE), 0.0)
        tl.store(out + rest, total.to(TYPE), rest < count)
