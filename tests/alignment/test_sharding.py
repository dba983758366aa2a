"""Gradients that are sharded over two real processes, as by FSDP2."""

import forked_group
import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from hf_gradalign.alignment import ViewGradients, compute_gramian, compute_products, is_sharded_tensor

# Shape and placement of five parameters' gradients; None for an ordinary tensor. Five rows over two processes are
# uneven, one row leaves the second process with nothing.
LAYOUT = [
    ((5, 3), Shard(0)),
    ((4, 6), Shard(1)),
    ((1, 7), Shard(0)),
    ((3, 2), Replicate()),
    ((8,), None),
]


def whole_gradients():
    generator = torch.Generator().manual_seed(0)
    views = [[torch.randn(shape, generator=generator) for shape, _ in LAYOUT] for _ in range(3)]
    views[0][1] = None  # no gradient for a parameter in one view
    for view in views:
        view.append(None)  # no gradient in any view
    return views


def distribute(views, mesh, layout):
    placements = [*(placement for _, placement in layout), None]
    return [
        [
            g if g is None or place is None else distribute_tensor(g, mesh, [place])
            for g, place in zip(view, placements, strict=True)
        ]
        for view in views
    ]


def check_products(mesh):
    whole = whole_gradients()
    parts = distribute(whole, mesh, LAYOUT)
    assert is_sharded_tensor(parts[0][0])
    assert not is_sharded_tensor(parts[0][4])
    torch.testing.assert_close(compute_products(parts), compute_products(whole))
    # Every parameter sharded: the whole tensor of products is summed at once.
    all_sharded = distribute([[*view[:3], None] for view in whole], mesh, LAYOUT[:3])
    for view, expected in zip(all_sharded, whole, strict=True):
        assert [g is None for g in view[:3]] == [g is None for g in expected[:3]]
    sharded_only = [view[:3] for view in all_sharded]
    torch.testing.assert_close(compute_gramian(sharded_only), compute_gramian([view[:3] for view in whole]))


def check_two_mesh_dimensions():
    """As in hybrid sharding: products are summed over shards, but not over replicas."""
    for shape in ((1, 2), (2, 1)):
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicas", "shards"))
        placed = distribute_tensor(torch.arange(10.0).reshape(5, 2), mesh, [Replicate(), Shard(0)])
        assert compute_gramian([[placed], [-placed]]).tolist() == [[285, -285], [-285, 285]]


def check_half_precision(mesh):
    # The sum of squares is beyond float16, and in bfloat16 it would stop growing.
    for dtype in (torch.float16, torch.bfloat16):
        gradient = distribute_tensor(torch.full((100_001,), 2.0, dtype=dtype), mesh, [Shard(0)])
        assert compute_gramian([[gradient]]).tolist() == [[400_004.0]]


def check_partial(mesh):
    unfinished = DTensor.from_local(torch.ones(3), mesh, [Partial()])
    with pytest.raises(ValueError, match=r"has not been summed over processes \(placement Partial\)"):
        compute_products([[unfinished], [unfinished]])


def check_combination(mesh):
    """The combination of sharded gradients is the sharded combination, in the first view's memory."""
    whole = [[view[0], view[3]] for view in whole_gradients()]
    layout = [LAYOUT[0], LAYOUT[3]]
    parameters = [
        torch.nn.Parameter(distribute_tensor(torch.zeros(shape), mesh, [placement])) for shape, placement in layout
    ]
    gradients = ViewGradients(parameters)
    for name, view in zip("abc", whole, strict=True):
        with gradients.accumulate(name):
            for parameter, gradient, (_, placement) in zip(parameters, view, layout, strict=True):
                parameter.grad = distribute_tensor(gradient, mesh, [placement])
    torch.testing.assert_close(gradients.gramian(), compute_gramian(whole))
    weights = torch.tensor([[0.5, 0.2, 0.1], [1.0, 2.0, 3.0]])
    expected = [
        sum(weight * view[position] for weight, view in zip(row, whole, strict=True))
        for position, row in enumerate(weights)
    ]
    gradients.combine(weights, [0, 1])
    for parameter, combined in zip(parameters, expected, strict=True):
        assert is_sharded_tensor(parameter.grad)
        torch.testing.assert_close(parameter.grad.full_tensor(), combined)


def in_each_process():
    distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    check_products(mesh)
    check_two_mesh_dimensions()
    check_half_precision(mesh)
    check_partial(mesh)
    check_combination(mesh)
    distributed.destroy_process_group()


def test_two_processes(tmp_path):
    # The name of a check that fails is in the traceback.
    process = forked_group.start(in_each_process, log=tmp_path / "log", processes=2)
    process.join()
    assert process.exitcode == 0, (tmp_path / "log").read_text()


def test_ordinary_tensors_need_no_process_group():
    assert not distributed.is_initialized()
    assert compute_gramian([[torch.ones(3)], [-torch.ones(3)]]).tolist() == [[3, -3], [-3, 3]]
