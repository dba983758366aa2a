"""Evaluations see every item once, in the requested precision, and do not change the model."""

import pytest
import torch
from toy import ToyClassifier, ToyViews, make_model, make_trainer, weights_of
from transformers.trainer_utils import seed_worker

from hf_gradalign.utils.loader_workers import start_worker


class PickyClassifier(ToyClassifier):
    """Like a convolution over samples: inputs must have the type of its weights. Records that type."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor(1 / 3))
        self.seen = []

    def forward(self, x, labels=None, **kwargs):
        assert x.dtype == self.hidden.weight.dtype
        self.seen.append((self.training, x.dtype))
        return super().forward(x * self.scale, labels, **kwargs)


@pytest.fixture
def items():
    views = ToyViews(11)
    return [views[i]["clean"] for i in range(11)]


def seen_dtypes(model, training):
    return {dtype for was_training, dtype in model.seen if was_training == training}


@pytest.mark.parametrize(
    ("option", "dtype"), [("bf16_full_eval", torch.bfloat16), ("fp16_full_eval", torch.float16)], ids=str
)
def test_full_half_precision(tmp_path, items, option, dtype):
    torch.manual_seed(0)
    trainer = make_trainer(tmp_path, model=PickyClassifier(), **{option: True})
    before = weights_of(trainer)
    loss = trainer.evaluate(items)["eval_loss"]
    assert seen_dtypes(trainer.model, training=False) == {dtype}
    after = weights_of(trainer)
    assert all(torch.equal(after[name], value) and after[name].dtype == torch.float32 for name, value in before.items())
    trainer.train()  # in full precision, from the original weights
    assert seen_dtypes(trainer.model, training=True) == {torch.float32}
    trained = weights_of(trainer)
    trainer.predict(items)
    trainer.save_model()
    assert all(torch.equal(value, trained[name]) for name, value in weights_of(trainer).items())

    torch.manual_seed(0)
    plain = make_trainer(tmp_path, model=PickyClassifier())
    assert plain.evaluate(items)["eval_loss"] == pytest.approx(loss, abs=2e-2)
    plain.train()
    assert all(torch.equal(value, trained[name]) for name, value in weights_of(plain).items())


def test_evaluation_during_training_uses_the_training_precision(tmp_path, items):
    options = {"bf16_full_eval": True, "eval_strategy": "steps", "eval_steps": 4, "eval_dataset": items}
    trainer = make_trainer(tmp_path, model=PickyClassifier(), **options)
    trainer.train()
    assert seen_dtypes(trainer.model, training=False) == {torch.float32}


def test_weights_are_put_back_when_an_evaluation_fails(tmp_path, items):
    trainer = make_trainer(tmp_path, model=PickyClassifier(), bf16_full_eval=True)
    with pytest.raises(TypeError):
        trainer.evaluate([{"x": "no tensor", "labels": 0}])
    assert trainer.model.hidden.weight.dtype == trainer.model.scale.dtype == torch.float32


@pytest.mark.parametrize("options", [{}, {"dataloader_num_workers": 1}])
def test_dropping_the_last_batch_keeps_the_evaluation_whole(tmp_path, items, options):
    options |= {"dataloader_drop_last": True, "per_device_eval_batch_size": 4, "per_device_train_batch_size": 5}
    trainer = make_trainer(tmp_path, ToyViews(11), max_steps=-1, num_train_epochs=1, **options)
    assert trainer.predict(items).predictions.shape == (11, 2)
    plain = make_trainer(tmp_path, per_device_eval_batch_size=4)
    assert trainer.evaluate(items)["eval_loss"] == plain.evaluate(items)["eval_loss"]
    trainer.train()
    assert trainer.state.global_step == 2  # the last of three batches is not full
    assert trainer.args.dataloader_drop_last


def test_batch_metrics_start_with_each_evaluation(tmp_path, items):
    class Count:
        def __init__(self):
            self.labels = 0

        def reset(self):
            self.labels = 0

        def __call__(self, prediction, compute_result):
            self.labels += len(prediction.label_ids)
            return {"count": self.labels} if compute_result else None

    trainer = make_trainer(tmp_path, model=make_model(), batch_eval_metrics=True, per_device_eval_batch_size=4)
    trainer.compute_metrics = Count()
    with pytest.raises(TypeError):
        trainer.evaluate([*items[:8], {"x": None, "labels": 1}])
    assert trainer.compute_metrics.labels > 0
    assert trainer.evaluate(items)["eval_count"] == 11


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_weighted_loss_is_a_mean_over_all_items(tmp_path, items, smoothing):
    model, weights = make_model([0.1, 0.9]), torch.tensor([0.1, 0.9])
    labels = torch.stack([item["labels"] for item in items])
    logits = model(torch.stack([item["x"] for item in items])).logits
    loss = torch.nn.functional.cross_entropy(logits, labels, weights, label_smoothing=smoothing).item()

    def evaluate(size, metrics=None):
        options = {"per_device_eval_batch_size": size, "label_smoothing_factor": smoothing}
        trainer = make_trainer(tmp_path, model=model, eval_dataset=items, **options)
        trainer.compute_metrics = metrics
        assert trainer.predict(items, metric_key_prefix="test").metrics["test_loss"] == trainer.evaluate()["eval_loss"]
        return trainer.evaluate()

    for size in (1, 4, 11):
        assert evaluate(size)["eval_loss"] == pytest.approx(loss, rel=1e-6)
    assert (
        evaluate(4, lambda _: {"score": 1.0}).items()
        >= {"eval_score": 1.0, "eval_loss": evaluate(4)["eval_loss"]}.items()
    )
    assert evaluate(4, lambda _: {"loss": 7.0})["eval_loss"] == 7.0  # a loss of compute_metrics counts, as in Trainer


def test_loader_workers_end_if_they_cannot_pass_on_a_batch(tmp_path, items):
    trainer = make_trainer(tmp_path, dataloader_num_workers=1)
    training, evaluation = trainer.get_train_dataloader(), trainer.get_eval_dataloader(items)
    starts = [loader.base_dataloader.worker_init_fn for loader in (training, evaluation)]
    assert [start.func for start in starts] == [start_worker] * 2
    assert [getattr(start.keywords["then"], "func", None) for start in starts] == [seed_worker, None]
