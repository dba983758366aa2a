"""A training on noise that takes seconds, in any mode."""

import tempfile
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

import hf_gradalign  # noqa: F401
from hf_gradalign.models import small_wav2vec2_config
from hf_gradalign.training import GradientAlignmentArguments, GradientAlignmentTrainer
from training_modes.modes import Mode

UPDATES = 20
BATCH = 12


class Noise(Dataset):
    """Clips of noise with a clean view, a view with other labels, so that the two conflict, and a third view."""

    def __init__(self, items: int, views: int) -> None:
        generator = torch.Generator().manual_seed(1)
        labels = torch.randint(0, 2, (items,), generator=generator)
        clean = torch.randn(items, 1600, generator=generator) * (1 + labels[:, None])
        all_views = {
            "clean": (clean, labels),
            "augmented": (clean.tanh(), labels.roll(3)),
            "rectified": (clean.abs(), labels),
        }
        self.views = {name: all_views[name] for name in list(all_views)[:views]}

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.views["clean"][1])

    def __getitem__(self, index: int) -> dict[str, dict[str, torch.Tensor]]:
        """All views of a clip."""
        return {
            view: {"input_values": clips[index], "labels": labels[index]}
            for view, (clips, labels) in self.views.items()
        }


def collate(items: list[dict[str, Any]]) -> dict[str, dict[str, torch.Tensor]]:
    """A batch of views."""
    return {
        view: {key: torch.stack([item[view][key] for item in items]) for key in items[0][view]} for view in items[0]
    }


def make_model(kind: str) -> nn.Module:
    """A tiny wav2vec 2.0, or a detector with it, always with the same weights."""
    from transformers import Wav2Vec2ForSequenceClassification

    from hf_gradalign.models import SpoofDetectorConfig, SpoofDetectorForAudioClassification

    torch.manual_seed(0)
    dropouts = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout")
    config = small_wav2vec2_config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8, 8, 8),
        conv_stride=(5, 4, 2),
        conv_kernel=(10, 8, 4),
        classifier_proj_size=16,
        # This creates the embedding of the mask, which is never used without SpecAugment.
        mask_time_prob=0.05 if kind == "unused" else 0.0,
        apply_spec_augment=False,
        class_weights=None if kind == "unweighted" else [0.3, 0.7],
        **dict.fromkeys(dropouts, 0.0),
    )
    if kind in ("am_softmax", "oc_softmax"):
        detector = SpoofDetectorConfig(config, "linear", {"dropout": 0.0}, class_weights=[0.3, 0.7], loss=kind)
        return SpoofDetectorForAudioClassification(detector)
    model = Wav2Vec2ForSequenceClassification(config)
    if kind == "frozen":
        model.freeze_feature_encoder()
    if kind == "lora":
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(target_modules=["q_proj", "v_proj"], r=4, lora_dropout=0.0, modules_to_save=["classifier"])
        model = get_peft_model(model, lora)
    return model


def train(mode: Mode, accelerator: bool) -> dict[str, torch.Tensor]:
    """Train in a mode and return the whole weights on every process."""
    from accelerate import PartialState
    from accelerate.state import AcceleratorState, GradientState
    from accelerate.utils import DistributedDataParallelKwargs, DistributedType

    AcceleratorState._reset_state()
    GradientState._reset_state()
    torch._dynamo.reset()
    torch.set_float32_matmul_precision("highest")  # the last mode may have left TF32 on
    torch.backends.cudnn.allow_tf32 = False
    task, execution = dict(mode.task), dict(mode.execution)
    items, kind, views = task.pop("items", 48), task.pop("model", "plain"), task.pop("views", 2)
    bucket_view = execution.pop("bucket_view", False)
    options: dict[str, Any] = {
        "align_gradients": "pcgrad",
        "learning_rate": 0.5,
        "optim": "sgd",
        "lr_scheduler_type": "cosine",
        "warmup_steps": 3,
        "max_grad_norm": 0.3,
    }
    with tempfile.TemporaryDirectory() as folder:
        arguments = GradientAlignmentArguments(
            folder,
            max_steps=UPDATES,
            per_device_train_batch_size=BATCH // mode.processes // mode.accumulation,
            gradient_accumulation_steps=mode.accumulation,
            save_strategy="no",
            logging_steps=UPDATES,
            report_to="none",
            disable_tqdm=True,
            use_cpu=not accelerator,
            ddp_backend="gloo" if mode.processes > 1 and not accelerator else None,
            dataloader_pin_memory=False,
            **{**options, **task, **execution},
        )
        if mode.processes > 1 and not accelerator:
            # accelerate shards only on accelerators, so the CPU processes pretend to be such.
            sharded = bool(execution.get("fsdp"))
            PartialState().distributed_type = DistributedType.MULTI_GPU if sharded else DistributedType.MULTI_CPU
        trainer = GradientAlignmentTrainer(
            make_model(kind), arguments, train_dataset=Noise(items, views), data_collator=collate
        )
        if bucket_view:
            handler = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
            if arguments.ddp_find_unused_parameters is not None:
                handler.find_unused_parameters = arguments.ddp_find_unused_parameters
            trainer.accelerator.ddp_handler = handler
        trainer.train()
    if trainer.conflict_counts.rate() == 0.0:
        raise RuntimeError(f"{mode.label} {mode.task}: the views never conflicted, and this says nothing")
    weights = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False).state_dict()
    return {name: (w.full_tensor() if hasattr(w, "full_tensor") else w).detach().cpu() for name, w in weights.items()}
