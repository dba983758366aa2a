"""The ways to run a training that must give the same update."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

FLOAT32_BOUND = 1e-5
# bfloat16 has 8 bits of mantissa; its trainings are compared with the float32 one too.
BFLOAT16_BOUND = 0.003
# TF32 has 10 bits, and so has float16.
TF32_BOUND = 0.001
FLOAT16_BOUND = 0.002
# Where a layer's views nearly agree, GradVac's weights are ratios of rounding errors.
GRADVAC_BY_LAYER_BOUND = 1e-4


@dataclass(frozen=True)
class Mode:
    """One way to run a training.

    Attributes:
        name: Name in the table.
        processes: Number of processes.
        accumulation: Micro-batches per update.
        task: What affects the result: arguments, and `items`, `model`, `views`.
        execution: What must not affect the result: arguments, and `bucket_view`.
        bound: Largest difference allowed, as a fraction of the largest movement of a weight.
        needs_gpu: Whether it is skipped without a GPU.
    """

    name: str
    processes: int = 1
    accumulation: int = 1
    task: dict[str, Any] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)
    bound: float = FLOAT32_BOUND
    needs_gpu: bool = False

    @property
    def label(self) -> str:
        """A unique name."""
        return f"{self.name}, {self.processes} x {self.accumulation}"


UNEVEN = {"items": 42}  # the epoch's last update has half as many micro-batches
FSDP = {"fsdp": True}
METHODS = ("none", "gradvac", "cagrad")


def all_modes() -> Iterator[Mode]:
    """Every mode; the plain one is PCGrad with class weights, clipping, a cosine schedule and warm-up."""
    for accumulation in (2, 3, 4):
        yield Mode("accumulation", 1, accumulation)
    yield Mode("uneven last update", 1, 2, UNEVEN)
    yield Mode("uneven last update", 1, 4, UNEVEN)
    for processes, accumulation in ((2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (3, 4)):
        yield Mode("DDP", processes, accumulation)
    yield Mode("DDP, uneven last update", 2, 2, UNEVEN)
    yield Mode("DDP, uneven last update", 3, 2, UNEVEN)
    for method in METHODS:
        yield Mode(f"DDP, {method}", 2, 2, {"align_gradients": method})
    yield Mode("DDP, unused parameters", 2, 2, {"model": "unused"}, {"ddp_find_unused_parameters": True})
    yield Mode("DDP, static_graph", 2, 1, {}, {"ddp_static_graph": True})
    yield Mode("DDP, static_graph", 2, 2, {}, {"ddp_static_graph": True})
    yield Mode("DDP, gradient_as_bucket_view", 2, 1, {}, {"bucket_view": True})
    yield Mode("DDP, gradient_as_bucket_view", 2, 2, {}, {"bucket_view": True})
    yield Mode("DDP, gradient_as_bucket_view, unused", 2, 2, {"model": "unused"},
               {"bucket_view": True, "ddp_find_unused_parameters": True})  # fmt: skip
    yield Mode("DDP, gradient_as_bucket_view, gradvac", 3, 2, {"align_gradients": "gradvac"}, {"bucket_view": True})
    for processes, accumulation in ((2, 1), (2, 2), (3, 2)):
        yield Mode("FSDP2", processes, accumulation, {}, FSDP)
    yield Mode("FSDP2, uneven last update", 2, 2, UNEVEN, FSDP)
    yield Mode(
        "FSDP2, gradvac by module",
        2,
        2,
        {"align_gradients": "gradvac", "alignment_scope": "module"},
        FSDP,
        GRADVAC_BY_LAYER_BOUND,
    )
    yield Mode("FSDP2, frozen parameters", 2, 1, {"model": "frozen"}, FSDP)
    yield Mode("FSDP2, gradient checkpointing", 2, 1, {}, {**FSDP, "gradient_checkpointing": True})
    yield Mode("bf16 autocast", 1, 2, {}, {"bf16": True}, BFLOAT16_BOUND)
    yield Mode("bf16 autocast, DDP", 2, 2, {}, {"bf16": True}, BFLOAT16_BOUND)
    yield Mode("bf16, FSDP2", 2, 2, {}, {**FSDP, "bf16": True}, BFLOAT16_BOUND)
    for processes, accumulation in ((1, 2), (2, 2)):
        at = "" if processes == 1 else ", DDP"
        yield Mode(f"gradient checkpointing{at}", processes, accumulation, {}, {"gradient_checkpointing": True})
        yield Mode(f"torch.compile{at}", processes, accumulation, {},
                   {"torch_compile": True, "torch_compile_backend": "aot_eager"})  # fmt: skip
        yield Mode(f"frozen parameters{at}", processes, accumulation, {"model": "frozen"})
        yield Mode(f"PEFT LoRA{at}", processes, accumulation, {"model": "lora"})
    yield Mode("am_softmax, DDP", 2, 2, {"model": "am_softmax", "learning_rate": 0.1})
    yield Mode("oc_softmax, DDP", 2, 2, {"model": "oc_softmax"})
    rates = {"head_learning_rate": 1.0, "layerwise_lr_decay": 0.5}
    yield Mode("rates by layer, DDP", 2, 2, rates)
    yield Mode("rates by layer, FSDP2", 2, 1, rates, FSDP)
    yield Mode("no clipping, DDP", 2, 2, {"max_grad_norm": 0.0, "learning_rate": 0.2})
    yield Mode("linear schedule, DDP", 2, 2, {"lr_scheduler_type": "linear", "warmup_steps": 5})
    yield Mode("AdamW, DDP", 2, 2, {"optim": "adamw_torch", "learning_rate": 0.01, "adam_epsilon": 1e-3})
    yield Mode("equal items, average_tokens_across_devices off", 2, 2, {"model": "unweighted"},
               {"average_tokens_across_devices": False})  # fmt: skip
    yield Mode("three views with weights, DDP", 2, 2, {"views": 3, "view_weights": {"rectified": 0.5}})
    yield Mode("by module, DDP", 2, 2, {"alignment_scope": "module"})
    yield Mode("by parameter, DDP", 2, 2, {"alignment_scope": "parameter"})
    yield Mode("attention only, DDP", 2, 2, {"alignment_parameters": ["attention"]})
    yield Mode("TF32", 1, 2, {}, {"tf32": True}, TF32_BOUND, needs_gpu=True)
    yield Mode("fp16, GradScaler", 1, 2, {}, {"fp16": True}, FLOAT16_BOUND, needs_gpu=True)
    yield Mode("gradient checkpointing, bf16", 1, 2, {}, {"gradient_checkpointing": True, "bf16": True},
               BFLOAT16_BOUND, needs_gpu=True)  # fmt: skip
    yield Mode("fused AdamW", 1, 2, {"optim": "adamw_torch", "learning_rate": 0.01, "adam_epsilon": 1e-3},
               {"optim": "adamw_torch_fused"}, needs_gpu=True)  # fmt: skip
    for compiler in ("default", "reduce-overhead", "max-autotune-no-cudagraphs"):
        yield Mode(f"torch.compile, {compiler}", 1, 2, {}, {"torch_compile": True, "torch_compile_mode": compiler},
                   needs_gpu=True)  # fmt: skip
        yield Mode(f"torch.compile, {compiler}, bf16", 1, 2, {},
                   {"torch_compile": True, "torch_compile_mode": compiler, "bf16": True},
                   BFLOAT16_BOUND, needs_gpu=True)  # fmt: skip
