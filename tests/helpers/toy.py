"""A small problem with two conflicting views, for comparing training runs."""

import json
import os
import signal
from pathlib import Path

import forked_group
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset
from transformers import PretrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput

import hf_gradalign  # noqa: F401
from hf_gradalign.training import GradientAlignmentArguments, GradientAlignmentTrainer, ViewsWithIds

N_FEATURES = 6


class ToyViews(Dataset):
    """Items with a clean view and one that is so noisy that the gradients often conflict."""

    def __init__(self, n_items=48, views=("clean", "augmented"), has_ids=False):
        self.has_ids = has_ids
        generator = torch.Generator().manual_seed(7)
        self.labels = torch.randint(0, 2, (n_items,), generator=generator)
        self.clean = torch.randn(n_items, N_FEATURES, generator=generator) + 0.5 * self.labels[:, None]
        self.augmented = self.clean.roll(1, 0) * 2.0 - self.clean
        self.views = views
        self.epochs = []

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        views = {view: {"x": getattr(self, view)[index], "labels": self.labels[index]} for view in self.views}
        return ViewsWithIds(views, [f"item-{index}"]) if self.has_ids else views

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


class ToyClassifier(nn.Module):
    """Its forward takes **kwargs, so the Trainer assumes that it scales the loss."""

    def __init__(self, class_weights=None, dropout=0.0):
        super().__init__()
        self.config = PretrainedConfig(num_labels=2)
        if class_weights is not None:
            self.config.class_weights = list(class_weights)
        self.hidden = nn.Linear(N_FEATURES, 16)
        self.drop = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(16)
        self.classifier = nn.Linear(16, 2)

    def forward(self, x, labels=None, **kwargs):
        logits = self.classifier(self.norm(self.drop(torch.tanh(self.hidden(x)))))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def collate(items):
    def stack(rows):
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}

    if "labels" in items[0]:
        return stack(items)
    views = {view: stack([item[view] for item in items]) for view in items[0]}
    return ViewsWithIds(views, [name for item in items for name in getattr(item, "ids", ())])


def make_arguments(output_dir, **options):
    defaults = {
        "max_steps": 8,
        "per_device_train_batch_size": 12,
        "learning_rate": 0.1,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "logging_steps": 4,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "seed": 3,
        "data_seed": 3,
        "dataloader_pin_memory": False,
    }
    return GradientAlignmentArguments(output_dir=str(output_dir), **{**defaults, **options})


def make_model(class_weights=None, dropout=0.0):
    torch.manual_seed(0)
    return ToyClassifier(class_weights, dropout)


def make_trainer(output_dir, dataset=None, model=None, trainer_class=GradientAlignmentTrainer, **options):
    trainer_options = {
        k: options.pop(k) for k in ("batch_transform", "callbacks", "compute_loss_func", "eval_dataset") if k in options
    }
    return trainer_class(
        model=model or make_model(),
        args=make_arguments(output_dir, **options),
        train_dataset=ToyViews() if dataset is None else dataset,
        data_collator=collate,
        **trainer_options,
    )


def weights_of(trainer):
    model = trainer.accelerator.unwrap_model(trainer.model)
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def timeless(rows):
    """A log without values that depend on time."""
    timing = ("_runtime", "_samples_per_second", "_steps_per_second")
    return [{name: value for name, value in row.items() if not name.endswith(timing)} for row in rows]


def largest_difference(first, second):
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def main(specifications):
    """Train one run per specification, by folder; write `weights.safetensors` and `history.json`."""
    for output_dir, options in json.loads(specifications).items():
        model = make_model(options.pop("class_weights", None))
        dataset = ToyViews(options.pop("n_items", 48), has_ids=options.get("conflict_record_ids", False))
        if (bad := options.pop("bad_item", None)) is not None:
            dataset.augmented[bad] = float("nan")
        trainer = make_trainer(output_dir, dataset, model, **options)
        trainer.train()
        if trainer.is_world_process_zero():
            save_file(weights_of(trainer), Path(output_dir, "weights.safetensors"))
            Path(output_dir, "history.json").write_text(json.dumps(trainer.state.log_history))


def read_run(output_dir):
    history = json.loads(Path(output_dir, "history.json").read_text())
    return load_file(Path(output_dir, "weights.safetensors")), history


def run_processes(count, specifications):
    """Train in `count` gloo processes, as `main` does in one."""
    log = Path(next(iter(specifications))).with_suffix(".log")
    words = json.dumps({str(folder): options for folder, options in specifications.items()})
    process = forked_group.start(main, words, log=log, processes=count)
    process.join(240)
    if process.exitcode is None:
        os.killpg(process.pid, signal.SIGKILL)
    assert process.exitcode == 0, log.read_text()[-3000:]
