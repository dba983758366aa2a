import json

import pytest
import torch
from torch.utils.data import IterableDataset
from toy import ToyViews, make_model, make_trainer, weights_of
from transformers import TrainingArguments, Wav2Vec2ForSequenceClassification

from hf_gradalign.models import small_wav2vec2_config
from hf_gradalign.training import GradientAlignmentTrainer

LOGGED = ("conflict_rate", "cosine_clean_augmented", "grad_norm_clean", "grad_norm_augmented", "loss_clean")


def test_logs_means_since_the_last_log(tmp_path):
    every = make_trainer(tmp_path, align_gradients="pcgrad", logging_steps=1)
    every.train()
    fourth = make_trainer(tmp_path, align_gradients="pcgrad", logging_steps=4)
    fourth.train()
    single, means = every.state.log_history[:-1], fourth.state.log_history[:-1]
    assert [row["step"] for row in means] == [4, 8]
    for i, row in enumerate(means):
        for name in (*LOGGED, "loss_augmented", "loss"):
            expected = sum(other[name] for other in single[4 * i : 4 * i + 4]) / 4
            assert row[name] == pytest.approx(expected, rel=1e-4, abs=1e-6), name
    assert {row["conflict_rate"] for row in single} == {0.0, 1.0}
    rate = sum(row["conflict_rate"] for row in single) / 8
    assert fourth.conflict_counts.rate() == pytest.approx(rate)
    assert list(fourth.conflict_counts.rates()) == [0, 1]


def test_evaluation_is_of_an_ordinary_batch(tmp_path):
    items = [item["clean"] for item in ToyViews(12)]
    trainer = make_trainer(tmp_path, eval_dataset=items, per_device_eval_batch_size=5)
    metrics = trainer.evaluate()
    x, labels = torch.stack([item["x"] for item in items]), torch.stack([item["labels"] for item in items])
    assert metrics["eval_loss"] == pytest.approx(float(trainer.model(x, labels=labels).loss), abs=1e-5)
    assert "conflict_rate" not in metrics


def test_a_reloaded_model_has_the_same_loss(tmp_path):
    config = small_wav2vec2_config(num_hidden_layers=1, class_weights=[0.1, 0.9])
    model = Wav2Vec2ForSequenceClassification(config)
    items = [{"input_values": torch.randn(4000), "labels": torch.tensor(i % 2)} for i in range(4)]
    first = make_trainer(tmp_path, model=model, eval_dataset=items, per_device_eval_batch_size=4)
    first.save_model(str(tmp_path / "model"))
    reloaded = Wav2Vec2ForSequenceClassification.from_pretrained(tmp_path / "model")
    second = make_trainer(tmp_path, model=reloaded, eval_dataset=items, per_device_eval_batch_size=4)
    unweighted = Wav2Vec2ForSequenceClassification.from_pretrained(tmp_path / "model", class_weights=None)
    third = make_trainer(tmp_path, model=unweighted, eval_dataset=items, per_device_eval_batch_size=4)
    assert first.evaluate()["eval_loss"] == second.evaluate()["eval_loss"]
    assert abs(third.evaluate()["eval_loss"] - second.evaluate()["eval_loss"]) > 1e-3


def test_every_parameter_moves(tmp_path):
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = make_trainer(tmp_path, model=model, align_gradients="pcgrad")
    trainer.train()
    assert all(not torch.equal(value, before[name]) for name, value in weights_of(trainer).items())


def test_data_set_gets_the_epoch(tmp_path):
    dataset = ToyViews()
    make_trainer(tmp_path, dataset, max_steps=12).train()
    assert dataset.epochs[0] == 0
    assert sorted(set(dataset.epochs)) == [0, 1, 2]


def test_arguments_of_another_trainer_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must be GradientAlignmentArguments, got TrainingArguments"):
        GradientAlignmentTrainer(make_model(), TrainingArguments(tmp_path, use_cpu=True))


def test_data_parallel_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.TrainingArguments.n_gpu", property(lambda self: 2))
    with pytest.raises(ValueError, match=r"2 GPUs in one process.*torchrun --nproc_per_node"):
        make_trainer(tmp_path)


def test_abandoned_update_leaves_no_gradients(tmp_path):
    trainer = make_trainer(tmp_path, gradient_accumulation_steps=2)
    trainer.accelerator.gradient_state._set_sync_gradients(False)
    batch = {"clean": {"x": torch.randn(2, 6), "labels": torch.tensor([0, 1])}}
    trainer.current_gradient_accumulation_steps = 2
    trainer.training_step(trainer.model, batch)
    whole = make_trainer(tmp_path)
    whole.train()
    trainer.args.gradient_accumulation_steps = 1
    trainer.train()
    assert all(torch.equal(value, weights_of(whole)[name]) for name, value in weights_of(trainer).items())


def test_resuming_another_method_says_so(tmp_path, caplog):
    make_trainer(tmp_path, align_gradients="gradvac", save_strategy="steps", save_steps=4).train()
    state = json.loads((tmp_path / "checkpoint-4" / "alignment_state.json").read_text())
    assert state["method"] == "gradvac"
    trainer = make_trainer(tmp_path, align_gradients="pcgrad")
    messages = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_gradalign.training.trainer.logger.warning", messages.append)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        for name in ("alignment_state.json", "checkpoint_manifest.json"):
            (tmp_path / "checkpoint-4" / name).unlink()
        make_trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert "trained with --align_gradients gradvac; this run uses pcgrad" in messages[0]
    assert "has no alignment_state.json" in messages[1]


def test_a_second_training_starts_over(tmp_path):
    trainer = make_trainer(tmp_path, align_gradients="gradvac")
    trainer.train()
    first = trainer.alignment_method.state_dict()
    trainer.model.load_state_dict(make_model().state_dict())
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.train()
    assert trainer.alignment_method.state_dict() == first
    assert sum(counts[0] for counts in trainer.conflict_counts.state_dict().values()) == 8


@pytest.mark.parametrize("length", [{"max_steps": 6}, {"max_steps": -1, "num_train_epochs": 1.5}])
def test_finished_run_does_not_train_again(tmp_path, length):
    options = {"save_strategy": "steps", "save_steps": 6, **length}
    first = make_trainer(tmp_path, **options)
    first.train()
    resumed = make_trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6
    assert all(torch.equal(value, weights_of(first)[name]) for name, value in weights_of(resumed).items())


@pytest.mark.parametrize("optimizer", ["lomo", "galore_adamw_layerwise"])
def test_optimizers_that_update_within_backward_are_refused(tmp_path, optimizer):
    with pytest.raises(ValueError, match=f"--optim {optimizer} updates parameters during the backward pass"):
        make_trainer(tmp_path, optim=optimizer)


def test_custom_loss_is_weighted_by_items(tmp_path):
    def loss(outputs, labels, num_items_in_batch=None):
        return torch.nn.functional.cross_entropy(outputs.logits, labels)

    runs = []
    for batch, accumulation in ((12, 1), (4, 3)):
        trainer = make_trainer(
            tmp_path,
            model=make_model(class_weights=(0.1, 0.9)),
            compute_loss_func=loss,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
        )
        trainer.train()
        runs.append(weights_of(trainer))
    unweighted = make_trainer(tmp_path, model=make_model())
    unweighted.train()
    for run in runs:
        for name, value in weights_of(unweighted).items():
            torch.testing.assert_close(run[name], value, atol=1e-6, rtol=0)


def test_loss_function_none_is_not_a_custom_loss(tmp_path):
    trainer = make_trainer(tmp_path, model=make_model(class_weights=(0.1, 0.9)), compute_loss_func=None)
    assert trainer.compute_loss_func is not None


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (("clean",), "There is only one view, clean: --align_gradients pcgrad has no effect."),
        ((), "The training batches have no views: --align_gradients pcgrad has no effect."),
        (("clean", "augmented"), None),
    ],
)
def test_nothing_to_align_is_reported_once(tmp_path, caplog, views, message):
    items = ToyViews(views=views or ("clean",))
    dataset = items if views else [items[index]["clean"] for index in range(48)]
    make_trainer(tmp_path, dataset, align_gradients="pcgrad").train()
    assert caplog.text.count("has no effect") == (message is not None)
    assert message is None or message in caplog.text
    caplog.clear()
    make_trainer(tmp_path, dataset).train()
    assert "has no effect" not in caplog.text


def test_a_stream_without_a_whole_update_does_not_run_forever(tmp_path):
    class Short(IterableDataset):
        def __iter__(self):
            return map(ToyViews(12).__getitem__, range(12))

    options = {"dataset": Short(), "per_device_train_batch_size": 6, "align_gradients": "pcgrad"}
    with pytest.raises(ValueError, match=r"never end: an update needs 3 batches .* of 6 items on each process"):
        make_trainer(tmp_path, gradient_accumulation_steps=3, **options).train()
    trainer = make_trainer(tmp_path, gradient_accumulation_steps=2, **options)
    trainer.train()
    assert trainer.state.global_step == 8
