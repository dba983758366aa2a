"""A non-finite loss or gradient is reported at its update with its cause, and does not change the weights."""

import math
import re

import pytest
import torch
from device_transfers import DEVICE, DeviceTransfers
from toy import ToyViews, collate, make_model, make_trainer, weights_of

from hf_gradalign.training import CoupledDecayAdam, ViewBatchCollator, ViewsWithIds, callbacks, nonfinite

ALL = "all 6 parameters (hidden.weight, hidden.bias, norm.weight and 3 more)"
SAVING = {"save_strategy": "steps", "save_steps": 1}


class Named(ToyViews):
    """Items with ids, some with a non-finite value in a view."""

    def __init__(self, bad=(), view="augmented", value=math.nan, n_items=48, ids=True):
        super().__init__(n_items)
        self.ids = ids
        for index in bad:
            getattr(self, view)[index, 0] = value

    def __getitem__(self, index):
        views = super().__getitem__(index)
        return ViewsWithIds(views, [f"utt_{index}"]) if self.ids else views


def make(folder, dataset, **options):
    options = {"per_device_train_batch_size": 4, "max_steps": 12, "logging_steps": 12, **options}
    trainer = make_trainer(folder, dataset, **options)
    trainer.data_collator = ViewBatchCollator(collate)
    return trainer


def stopped(trainer):
    with pytest.raises(FloatingPointError) as error:
        trainer.train()
    return str(error.value)


def ids_in(message):
    return set(re.findall(r"utt_\d+", message))


@pytest.mark.parametrize(
    ("view", "value", "loss"),
    [
        ("augmented", math.nan, "nan"),
        ("clean", math.nan, "nan"),
        ("augmented", math.inf, None),
        ("clean", -math.inf, None),
    ],
)
@pytest.mark.parametrize("method", ["pcgrad", pytest.param("none", marks=pytest.mark.slow)])
def test_names_the_update_the_view_the_parameters_and_the_items(tmp_path, view, value, loss, method):
    # tanh bounds an infinite input: the loss is finite, and only the gradient of the first layer is not.
    trainer = make(tmp_path, Named([17], view, value), align_gradients=method, **SAVING)
    message = stopped(trainer)
    step = trainer.state.global_step + 1
    assert f"Update {step} of 12 is not finite: " in message
    if loss is None:
        assert "the loss" not in message
        assert f"the gradient of view {view} is not finite in 1 of 6 parameters (hidden.weight)." in message
    else:
        assert f"the loss of view {view} is {loss}; the gradient of view {view} is not finite in {ALL}." in message
    assert "utt_17" in ids_in(message)
    assert len(ids_in(message)) == 4
    assert "--on_nonfinite skip" in message
    # The weights and the last checkpoint are those of the previous update.
    assert all(torch.isfinite(value).all() for value in weights_of(trainer).values())
    assert sorted(tmp_path.glob("checkpoint-*")) == sorted(tmp_path / f"checkpoint-{i}" for i in range(1, step))


def test_names_the_micro_batch_that_caused_it(tmp_path):
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "max_steps": 8}
    message = stopped(make(tmp_path, Named([17]), **options))
    assert "utt_17" in ids_in(message)
    assert len(ids_in(message)) == 2


def test_items_without_ids(tmp_path):
    message = stopped(make(tmp_path, Named([17], ids=False)))
    assert f"view augmented is not finite in {ALL}. Nothing was saved since then." in message


def test_many_items_are_shortened(tmp_path):
    message = stopped(make(tmp_path, Named([17], n_items=80), per_device_train_batch_size=40))
    assert len(ids_in(message)) == 32
    assert " and 8 more. " in message


def test_an_ordinary_batch(tmp_path):
    items = [item["clean"] for item in Named([17], "clean")]
    trainer = make_trainer(tmp_path, items, per_device_train_batch_size=4, max_steps=12)
    assert f"the loss is nan; the gradient is not finite in {ALL}." in stopped(trainer)


def test_the_loss_alone(tmp_path):
    def loss(outputs, labels, num_items_in_batch=None):
        value = torch.nn.functional.cross_entropy(outputs.logits, labels)
        return value if trainer.state.global_step < 3 else value + math.inf

    trainer = make_trainer(tmp_path, Named(), compute_loss_func=loss)
    message = stopped(trainer)
    assert message.startswith("Update 4 of 8 is not finite: the loss of views clean and augmented is inf")
    assert "gradient" not in message


def test_three_views_and_scopes(tmp_path):
    class Three(Named):
        @property
        def codec(self):
            return self.clean + torch.where(torch.arange(len(self.clean)) == 17, math.nan, 0.0)[:, None]

    dataset = Three()
    dataset.views = ("clean", "augmented", "codec")
    message = stopped(make(tmp_path, dataset, align_gradients="gradvac", alignment_scope="module"))
    assert f"the loss of view codec is nan; the gradient of view codec is not finite in {ALL}" in message
    assert "view clean" not in message


@pytest.mark.parametrize("logging_steps", [3, 12])
def test_a_device_is_not_waited_for_and_nothing_is_saved(tmp_path, monkeypatch, logging_steps):
    monkeypatch.setattr(callbacks, "_LAG", {})  # as on a GPU
    trainer = make(tmp_path, Named([17]), logging_steps=logging_steps, save_strategy="steps", save_steps=6)
    message = stopped(trainer)
    bad = int(re.search(r"Update (\d+) of", message).group(1))
    assert f"the loss of view augmented is nan; the gradient of view augmented is not finite in {ALL}" in message
    assert len(ids_in(message)) == 4
    assert bad <= trainer.state.global_step <= bad + 4
    saved = [int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*")]
    assert all(step < bad for step in saved)
    assert all(math.isfinite(row["loss"]) for row in trainer.state.log_history)


@pytest.mark.parametrize("step", [2, 4, 5, 8])
@pytest.mark.parametrize("options", [{"save_strategy": "steps", "save_steps": 1}, {"logging_steps": 1}, {}])
def test_non_finite_values_at_any_step(tmp_path, monkeypatch, step, options):
    monkeypatch.setattr(callbacks, "_LAG", {})

    def spoil(batch):
        for view in batch.values() if trainer.state.global_step == step - 1 else ():
            view["x"] = view["x"] * math.nan
        return batch

    options = {"logging_steps": 8, "max_steps": 8, **options}
    trainer = make_trainer(tmp_path, batch_transform=spoil, **options)
    assert stopped(trainer).startswith(
        f"Update {step} of 8 is not finite: the loss of views clean and augmented is nan; "
    )
    assert all(int(path.name.split("-")[1]) < step for path in tmp_path.glob("checkpoint-*"))
    assert all(math.isfinite(row["loss"]) for row in trainer.state.log_history)


def test_an_update_is_watched_without_a_wait(tmp_path):
    trainer = make_trainer(tmp_path)
    loss, norm = (torch.zeros((), device=DEVICE) for _ in range(2))
    with DeviceTransfers() as transfers:
        for step in range(1, 4):
            trainer.micro_batches = [nonfinite.MicroBatch({"clean": loss, "augmented": loss})]
            trainer.grad_norm = norm
            trainer.nonfinite._pending.append(trainer.nonfinite._observe(step))
            trainer.nonfinite._handle_flags(trainer.state, callbacks._LAG_ELSEWHERE)
    assert transfers.to_host == []
    assert transfers.to_device == []


OPTIMIZERS = ["sgd", "adamw_torch", "adamw_torch_fused", "adafactor", "rmsprop", "coupled"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_skipped_update_changes_nothing(tmp_path, optimizer):
    def spoil(batch):
        for view in batch.values() if trainer.state.global_step == 3 else ():
            view["x"] = view["x"] * math.nan
        return batch

    before = []

    def remember(*args):
        if trainer.state.global_step in (3, 4):
            states = trainer.optimizer.state_dict()["state"]
            before.append([*weights_of(trainer).values(), *(v.clone() for s in states.values() for v in _tensors(s))])
        return original(*args)

    options = {"learning_rate": 0.01, "weight_decay": 0.1, "on_nonfinite": "skip"}
    options["optim"] = "sgd" if optimizer == "coupled" else optimizer
    trainer = make_trainer(tmp_path, batch_transform=spoil, **options)
    if optimizer == "coupled":
        trainer.optimizer_cls_and_kwargs = (CoupledDecayAdam, {"lr": 0.01, "weight_decay": 0.1})
    original = trainer.get_batch_samples
    trainer.get_batch_samples = remember
    trainer.train()
    first, second = before
    assert len(first) == len(second)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert trainer.state.global_step == 8
    assert trainer.nonfinite.skipped == 1


def _tensors(state):
    return [value for value in state.values() if isinstance(value, torch.Tensor)]


def test_skipped_updates_are_reported_and_counted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(nonfinite, "_MAX_CONSECUTIVE_SKIPS", 3)  # ordinary updates between them do not count
    options = {"on_nonfinite": "skip", "logging_steps": 3, "conflict_record": "jsonl", **SAVING}
    trainer = make(tmp_path, Named([17, 30]), **options)
    trainer.train()
    counts = [row["skipped_updates"] for row in trainer.state.log_history if "loss" in row]
    assert counts == sorted(counts)
    assert counts[-1] == trainer.nonfinite.skipped == caplog.text.count("The update is skipped (")
    assert {"utt_17", "utt_30"} <= ids_in(caplog.text)
    assert "the loss of view augmented is nan" in caplog.text
    assert all(
        math.isfinite(row["loss"]) and 0.1 < row["loss"] < 5 for row in trainer.state.log_history if "loss" in row
    )
    assert all(torch.isfinite(value).all() for value in weights_of(trainer).values())

    # A resumed run continues to count and ends the same.
    resumed = make(tmp_path, Named([17, 30]), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-11"))
    assert resumed.nonfinite.skipped == trainer.nonfinite.skipped == 2
    assert repr(resumed.state.log_history[-2]) == repr(trainer.state.log_history[-2])  # NaN equals nothing
    assert all(torch.equal(value, weights_of(trainer)[name]) for name, value in weights_of(resumed).items())


def test_stopped_run_resumes_and_skips_such_updates(tmp_path):
    stopped(make(tmp_path, Named([17]), **SAVING))
    resumed = make(tmp_path, Named([17]), on_nonfinite="skip", **SAVING)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 12
    whole = make(tmp_path / "whole", Named([17]), on_nonfinite="skip")
    whole.train()
    assert all(torch.equal(value, weights_of(whole)[name]) for name, value in weights_of(resumed).items())


def test_a_run_without_such_updates_is_the_same_to_the_bit(tmp_path):
    skipping, stopping = (make(tmp_path / policy, Named(), on_nonfinite=policy) for policy in ("skip", "stop"))
    skipping.train()
    stopping.train()
    assert all(torch.equal(value, weights_of(stopping)[name]) for name, value in weights_of(skipping).items())
    [row, other] = (trainer.state.log_history[0] for trainer in (skipping, stopping))
    assert row == {**other, "skipped_updates": 0}


def test_stops_if_every_update_is_skipped(tmp_path, monkeypatch):
    model = make_model()
    model.hidden.weight.data.fill_(math.nan)
    message = stopped(make(tmp_path, Named(), model=model, on_nonfinite="skip"))
    assert "Training stops after 12 skipped updates in a row: check the items, the initial weights" in message
    monkeypatch.setattr(nonfinite, "_MAX_CONSECUTIVE_SKIPS", 5)
    model.hidden.weight.data.fill_(math.nan)
    assert "Update 5 of 12 " in stopped(make(tmp_path, Named(), model=model, on_nonfinite="skip"))


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_updates_skipped_by_fp16_are_not_errors(tmp_path, caplog, policy):
    trainer = make(tmp_path, Named(), on_nonfinite=policy, logging_steps=1)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer.model.hidden.weight.register_hook(lambda g: g * math.inf if trainer.state.global_step in (0, 5) else g)
    trainer.train()
    assert trainer.accelerator.scaler.get_scale() == 256
    assert trainer.nonfinite.skipped == 0
    assert trainer.state.global_step == 12
    assert "is not finite" not in caplog.text


def test_a_loss_that_no_scale_can_fix_is_reported(tmp_path, caplog):
    trainer = make(tmp_path, Named([17]))
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    trainer.train()
    assert caplog.text.count("the loss of view augmented is nan. Items: ") == 1
    assert "fp16 loss scaling skips the update, but it cannot fix a loss." in caplog.text


def test_policy_must_be_stop_or_skip(tmp_path):
    with pytest.raises(ValueError, match="--on_nonfinite must be one of stop, skip, got 'ignore'"):
        make_trainer(tmp_path, on_nonfinite="ignore")


def test_ids_reach_the_trainer_through_workers_and_devices(tmp_path):
    options = {"dataloader_num_workers": 1, "dataloader_persistent_workers": False}
    assert "utt_17" in ids_in(stopped(make(tmp_path, Named([17]), **options)))
    batch = ViewsWithIds({"clean": {"x": torch.zeros(2)}}, ["a", "b"])
    moved = batch.to(DEVICE)
    assert moved["clean"]["x"].device.type == DEVICE
    assert moved.ids == ("a", "b")
