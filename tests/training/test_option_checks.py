"""Options of the Trainer that would fail late or have no effect raise an error before the first step."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from toy import ToyClassifier, ToyViews, collate, make_arguments, make_model, make_trainer
from transformers import BertConfig, BertForSequenceClassification

from hf_gradalign.training import GradientAlignmentTrainer
from hf_gradalign.training.setup_checks import check_options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neftune_noise_alpha": 5.0}, "--neftune_noise_alpha adds noise.*ToyClassifier has none"),
        ({"use_liger_kernel": True}, "pip install liger-kernel"),
        ({"optim_target_modules": ["hidden"]}, "--optim_target_modules is for GaLore and APOLLO, but --optim sgd"),
        ({"optim_args": "momentum"}, "takes NAME=VALUE pairs separated by commas, got 'momentum'"),
        ({"optim_args": "momentum=0.9, dampning=0"}, "--optim_args dampning=0 has no effect on --optim sgd"),
        ({"optim_args": "momentum=much"}, "--optim sgd with --optim_args momentum=much cannot be created"),
        ({"optim": "adamw_bnb_8bit"}, "--optim adamw_bnb_8bit cannot be created.*bitsandbytes"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "--lr_scheduler_type cosine_with_min_lr cannot be created"),
        ({"lr_scheduler_kwargs": {"x": 1}}, "--lr_scheduler_type constant ignores them"),
        (
            {"lr_scheduler_type": "linear", "lr_scheduler_kwargs": {"x": 1}},
            r"linear with .* \{'x': 1\} cannot be created",
        ),
        (
            {"dataloader_drop_last": True, "per_device_train_batch_size": 49},
            "48 items do not fill a batch of 49",
        ),
        (
            {"adam_beta1": 1.5, "optim": "adamw_torch"},
            "--optim adamw_torch cannot be created: Invalid beta parameter at",
        ),
        ({"deepspeed": "ds.json"}, "DeepSpeed does not give access to gradients"),
        ({"dataloader_persistent_workers": True}, "also pass --dataloader_num_workers"),
        ({"include_for_metrics": ["labels"]}, "--include_for_metrics takes inputs and loss, got labels"),
        ({"fsdp_config": {"version": 2}}, "also pass --fsdp"),
        ({"ddp_backend": "gloo"}, "--ddp_backend is for several processes"),
        ({"per_device_eval_batch_size": 0}, "--per_device_eval_batch_size must be at least 1, got 0"),
        ({"gradient_accumulation_steps": -1}, "--gradient_accumulation_steps must be at least 1, got -1"),
        ({"eval_accumulation_steps": 0}, "--eval_accumulation_steps must be at least 1, got 0"),
        (
            {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 0},
            "--dataloader_prefetch_factor must be at least",
        ),
        ({"learning_rate": float("nan")}, "--learning_rate must be at least 0, got nan"),
        ({"label_smoothing_factor": 2}, "--label_smoothing_factor must be below 1, got 2"),
        ({"seed": 2**32}, "--seed must be below 4294967296"),
        ({"save_strategy": "steps", "save_steps": 0}, "--save_steps must be positive, got 0"),
        ({"eval_strategy": "steps", "eval_steps": float("nan")}, "--eval_steps must be positive, got nan"),
        ({"max_grad_norm": float("nan")}, "--max_grad_norm must be at least 0, got nan"),
        (
            {"load_best_model_at_end": True, "average_best_checkpoints": 3, "eval_strategy": "no"},
            "Also pass --average_best_checkpoints 1 --load_best_model_at_end no, or use --eval_strategy epoch or steps",
        ),
        (
            {"average_best_checkpoints": 3, "early_stopping_patience": 2, "eval_strategy": "epoch"},
            "--save_strategy no: .*Also pass --average_best_checkpoints 1, or use --save_strategy epoch or steps",
        ),
        ({"early_stopping_patience": 2, "eval_strategy": "no"}, "Also pass --early_stopping_patience none, or use"),
        (
            {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "steps"},
            "--eval_strategy epoch and --save_strategy steps: .* or --load_best_model_at_end no",
        ),
        ({"save_strategy": "best", "metric_for_best_model": "loss"}, "--save_strategy best saves when an evaluation"),
        ({"include_num_input_tokens_seen": "some"}, "must be one of no, all, non_padding, got 'some'"),
        ({"gradient_checkpointing": True}, "--gradient_checkpointing is for .* models, which ToyClassifier is not"),
    ],
)
def test_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **options)


def test_compiled_model_is_refused(tmp_path):
    message = r"names that cannot be loaded.*the model itself, with torch_compile=True"
    with pytest.raises(ValueError, match=message):
        GradientAlignmentTrainer(torch.compile(make_model(), backend="eager"), make_arguments(tmp_path))
    in_part = make_model()
    in_part.classifier = torch.compile(in_part.classifier, backend="eager")
    message = r"compile the part in place, as in model.classifier.compile\(\)"
    with pytest.raises(ValueError, match=message):  # not by the trainer, because older accelerate fails before
        check_options(SimpleNamespace(model=in_part, args=None))


@pytest.mark.parametrize(
    "options",
    [
        {"optim_args": "momentum=0.9, nesterov=true"},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-3}},
        {"dataloader_drop_last": True, "per_device_train_batch_size": 48},
        {"include_for_metrics": ["inputs", "loss"]},
        {"dataloader_persistent_workers": True, "dataloader_num_workers": 1},
    ],
)
def test_accepted(tmp_path, options):
    make_trainer(tmp_path, **options)


def test_own_components_are_not_checked(tmp_path):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    arguments = make_arguments(tmp_path, optim="adamw_bnb_8bit", lr_scheduler_kwargs={"x": 1}, max_steps=1)
    GradientAlignmentTrainer(
        model, arguments, train_dataset=ToyViews(), data_collator=collate, optimizers=(optimizer, schedule)
    ).train()


def test_metric_that_is_never_computed(tmp_path):
    items = [ToyViews(4)[i]["clean"] for i in range(4)]
    options = {"eval_strategy": "steps", "eval_steps": 2, "eval_dataset": items}
    trainer = make_trainer(tmp_path, metric_for_best_model="eer", **options)
    with pytest.raises(ValueError, match="--metric_for_best_model eer: without compute_metrics"):
        trainer.train()
    assert trainer.state.global_step == 0
    trainer.compute_metrics = lambda prediction: {"eer": 0.1}
    trainer.train()
    trainer = make_trainer(tmp_path, metric_for_best_model="eval_eer", prediction_loss_only=True, **options)
    trainer.compute_metrics = lambda prediction: {"eer": 0.1}
    with pytest.raises(ValueError, match="with --prediction_loss_only, an evaluation reports only the loss"):
        trainer.train()
    make_trainer(tmp_path, metric_for_best_model="eval_loss", prediction_loss_only=True, **options).train()


def test_labels_that_the_trainer_would_not_find(tmp_path):
    class Anonymous(ToyClassifier):
        def forward(self, **inputs):
            return super().forward(**inputs)

    items = [ToyViews(4)[i]["clean"] for i in range(4)]
    options = {"eval_strategy": "steps", "eval_steps": 8, "eval_dataset": items, "metric_for_best_model": "loss"}
    with pytest.raises(ValueError, match=r"no loss and no labels, because the forward of Anonymous .*label_names="):
        make_trainer(tmp_path, model=Anonymous(), **options).train()
    trainer = make_trainer(tmp_path, model=Anonymous(), label_names=["labels"], **options)
    trainer.train()
    assert trainer.state.best_metric > 0

    class Own(GradientAlignmentTrainer):
        def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
            outputs = model(**inputs)
            return outputs["loss"].detach(), outputs["logits"].detach(), inputs["labels"]

    make_trainer(tmp_path, model=Anonymous(), trainer_class=Own, **options).train()


def test_a_metric_of_one_of_several_evaluation_sets(tmp_path):
    items = [ToyViews(8)[i]["clean"] for i in range(8)]
    options = {"eval_strategy": "steps", "eval_steps": 2, "eval_dataset": {"la": items[:4], "df": items[4:]}}
    options |= {"save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True}
    rates = {2: 0.3, 4: 0.1, 6: 0.2, 8: 0.4}

    def trainer(metric):
        made = make_trainer(tmp_path, metric_for_best_model=metric, **options)
        made.compute_metrics = lambda _: {"eer": rates[made.state.global_step]}
        return made

    best = trainer("la_eer")
    best.train()
    assert best.state.best_global_step == 4
    with pytest.raises(ValueError, match=r"several evaluation sets .* the name of one of them: la_eer or df_eer"):
        trainer("eer").train()


def test_half_precision_that_does_nothing_is_reported(tmp_path, caplog):
    make_trainer(tmp_path, fp16=True)
    assert "--fp16 has no effect on the CPU" in caplog.text


class TokenViews(ToyViews):
    """Sentences of different lengths; the augmented view is one token shorter or longer."""

    def __getitem__(self, index):
        length = 3 + index % 7
        view = {"input_ids": [5] * length, "attention_mask": [1] * length, "labels": int(self.labels[index])}
        other = length + (1 if index % 2 else -1)
        return {"clean": view, "augmented": {**view, "input_ids": [6] * other, "attention_mask": [1] * other}}


def pad(items):
    def stack(rows):
        width = max(len(row["input_ids"]) for row in rows)
        padded = {
            name: torch.tensor([row[name] + [0] * (width - len(row[name])) for row in rows])
            for name in ("input_ids", "attention_mask")
        }
        return {**padded, "labels": torch.tensor([row["labels"] for row in rows])}

    return {view: stack([item[view] for item in items]) for view in items[0]}


def text_trainer(folder, **options):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = BertForSequenceClassification(BertConfig(vocab_size=10, max_position_embeddings=12, **sizes))
    arguments = make_arguments(folder, **{"max_steps": 8, "logging_steps": 1, **options})
    return GradientAlignmentTrainer(model, arguments, train_dataset=TokenViews(), data_collator=pad)


@pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance"])
def test_sorting_by_the_length_of_views(tmp_path, strategy):
    trainer = text_trainer(tmp_path, train_sampling_strategy=strategy, per_device_train_batch_size=6)
    widths = [
        {view: [int(mask.sum()) for mask in inputs["attention_mask"]] for view, inputs in batch.items()}
        for batch in trainer.get_train_dataloader()
    ]
    longest = [[max(pair) for pair in zip(*batch.values(), strict=True)] for batch in widths]
    lengths = [max(len(view["input_ids"]) for view in TokenViews()[i].values()) for i in range(48)]
    assert sorted(itertools.chain(*longest)) == sorted(lengths)
    if strategy == "group_by_length":
        # Lengths vary less within a batch than in the whole set, where they are 4 to 10.
        assert sum(max(batch) - min(batch) for batch in longest) / len(longest) < 5
    trainer.train()


@pytest.mark.parametrize("counted", ["all", "non_padding", True])
def test_tokens_are_counted_in_every_view(tmp_path, counted):
    trainer = text_trainer(tmp_path, include_num_input_tokens_seen=counted, max_steps=4)
    trainer.train()
    views = [view for item in map(TokenViews().__getitem__, range(48)) for view in item.values()]
    tokens = sum(len(view["input_ids"]) for view in views)
    if counted == "non_padding":
        assert trainer.state.num_input_tokens_seen == tokens
    else:
        assert tokens < trainer.state.num_input_tokens_seen <= len(views) * 10


def test_noise_on_embeddings(tmp_path):
    trainer = text_trainer(tmp_path, neftune_noise_alpha=50.0)
    noisy = trainer.train().training_loss
    assert noisy != text_trainer(tmp_path).train().training_loss
    assert not trainer.model.get_input_embeddings()._forward_hooks
