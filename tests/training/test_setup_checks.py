from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from toy import make_model, make_trainer
from transformers import TrainingArguments
from transformers.training_args import ParallelMode

from hf_gradalign.training.compilation import shares_gradient_storage
from hf_gradalign.training.distributed import is_sharded
from hf_gradalign.training.setup_checks import check_supported_setup


def make_setup(
    optim="adamw_torch", kind=DistributedType.NO, fsdp_version=None, deepspeed=False, tp=1, cp=False, **arguments
):
    """The attributes of a trainer that `check_supported_setup` reads, for setups that cannot start on this machine."""
    plugin = None if fsdp_version is None else FullyShardedDataParallelPlugin(fsdp_version=fsdp_version)
    defaults = {
        "n_gpu": 0,
        "torch_compile": False,
        "enable_jit_checkpoint": False,
        "save_on_each_node": False,
        "world_size": 2,
    }
    return SimpleNamespace(
        args=SimpleNamespace(optim=optim, **{**defaults, **arguments}),
        model=make_model(),
        is_deepspeed_enabled=deepspeed,
        get_tp_size=lambda: tp,
        accelerator=SimpleNamespace(
            distributed_type=kind,
            state=SimpleNamespace(fsdp_plugin=plugin),
            parallelism_config=SimpleNamespace(cp_enabled=cp, sp_enabled=False),
        ),
    )


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ({"n_gpu": 4}, r"4 GPUs in one process.*DataParallel.*torchrun --nproc_per_node"),
        ({"optim": "adalomo"}, r"--optim adalomo updates parameters during the backward pass.*adamw_torch"),
        ({"optim": "apollo_adamw_layerwise"}, r"--optim apollo_adamw_layerwise updates parameters"),
        ({"deepspeed": True}, r"DeepSpeed does not give access to gradients.*use DDP.*FSDP2"),
        ({"fsdp_version": 1}, r"FSDP1 flattens the gradients.*use FSDP2.*version"),
        ({"tp": 2}, r"tensor, context and sequence parallelism split items.*FSDP2"),
        ({"cp": True}, r"tensor, context and sequence parallelism split items"),
        ({"kind": DistributedType.MEGATRON_LM}, r"MEGATRON_LM is not supported.*use DDP"),
        ({"kind": DistributedType.XLA}, r"XLA is not supported.*use DDP"),
        ({"save_on_each_node": True}, r"--save_on_each_node is not supported.*disk that all machines share"),
    ],
)
def test_refused(setup, message):
    with pytest.raises(ValueError, match=message):
        check_supported_setup(make_setup(**setup))


@pytest.mark.parametrize(
    "setup",
    [
        {},
        {"fsdp_version": 2, "kind": DistributedType.FSDP},
        {"kind": DistributedType.MULTI_CPU},
        {"torch_compile": True},
        {"save_on_each_node": True, "world_size": 1},
    ],
)
def test_accepted(setup):
    check_supported_setup(make_setup(**setup))


def test_trainer_checks_before_its_first_step(tmp_path):
    with pytest.raises(ValueError, match="--optim adalomo updates parameters"):
        make_trainer(tmp_path, optim="adalomo")


@pytest.fixture
def process_group(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_processes_that_would_diverge_are_refused(tmp_path, process_group, monkeypatch):
    # As with torchrun on a machine without an accelerator and without --use_cpu.
    monkeypatch.setattr(distributed, "get_world_size", lambda *args: 2)
    setup = make_setup()
    setup.args.parallel_mode = ParallelMode.NOT_PARALLEL
    with pytest.raises(ValueError, match=r"2 processes would train its own model.*add --use_cpu"):
        check_supported_setup(setup)


@pytest.mark.parametrize("as_view", [False, True])
def test_gradients_in_ddps_buckets(process_group, as_view):
    model = nn.Sequential(nn.Linear(2, 2))
    args = TrainingArguments("unused", use_cpu=True)
    assert not shares_gradient_storage(model, args)
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=as_view)
    assert shares_gradient_storage(wrapped, args) == as_view


@pytest.mark.parametrize(
    ("mode", "replays"),
    [("default", False), ("reduce-overhead", True), ("max-autotune", True), ("max-autotune-no-cudagraphs", False)],
)
def test_a_cuda_graph_writes_over_its_gradients(mode, replays):
    args = TrainingArguments("unused", use_cpu=True, torch_compile=True, torch_compile_mode=mode)
    assert shares_gradient_storage(nn.Linear(2, 2), args) == replays


def test_a_model_with_one_sharded_parameter_is_sharded(process_group):
    setup = make_setup()
    assert not is_sharded(setup.model)
    mesh = init_device_mesh("cpu", (1,))
    setup.model.classifier.weight = nn.Parameter(distribute_tensor(torch.ones(2, 16), mesh, [Shard(0)]))
    assert is_sharded(setup.model)
