"""A run that is interrupted saves a checkpoint and can be resumed."""

import signal
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from device_transfers import DEVICE, DeviceTransfers
from toy import ToyViews, make_trainer, weights_of
from transformers import TrainerCallback

from hf_gradalign.training import SaveOnInterrupt, callbacks

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class SignalAt(TrainerCallback):
    def __init__(self, step, number, times=1):
        self.step, self.number, self.times = step, number, times

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            for _ in range(self.times):
                signal.raise_signal(self.number)


@pytest.fixture(params=ENDING)
def number(request):
    """A signal that is not ignored, even if pytest was started with `nohup`."""
    before = signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, before)


def test_saves_a_checkpoint_and_stops(tmp_path, number):
    before = signal.getsignal(number)
    options = {"align_gradients": "gradvac", "gradient_accumulation_steps": 2, "per_device_train_batch_size": 6}
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    interrupt = SaveOnInterrupt()
    stopped = make_trainer(tmp_path / "run", callbacks=[interrupt, SignalAt(2, number)], **options)
    stopped.train()
    assert interrupt.interrupted
    assert stopped.state.global_step == 3
    assert signal.getsignal(number) is before
    resumed = make_trainer(tmp_path / "run", ToyViews(), **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 8
    assert all(torch.equal(value, weights_of(whole)[name]) for name, value in weights_of(resumed).items())


@pytest.mark.parametrize("step", [2, 3])
def test_best_checkpoint_matches_the_uninterrupted_run(tmp_path, step):
    # Four updates per epoch: stopped in the middle of an epoch, and at its end.
    def make(folder, *callbacks):
        return make_trainer(
            tmp_path / folder,
            callbacks=list(callbacks),
            eval_dataset=[item["clean"] for item in ToyViews(8)],
            eval_strategy="epoch",
            save_strategy="epoch",
            metric_for_best_model="loss",
            greater_is_better=True,
            load_best_model_at_end=True,
            max_steps=12,
        )

    whole = make("whole")
    whole.train()
    make("run", SaveOnInterrupt(), SignalAt(step, signal.SIGINT)).train()
    resumed = make("run")
    resumed.train(resume_from_checkpoint=True)
    evaluated = [[row["step"] for row in t.state.log_history if "eval_loss" in row] for t in (whole, resumed)]
    assert evaluated[0] == evaluated[1] == [4, 8, 12]
    assert resumed.state.best_metric == whole.state.best_metric
    assert all(torch.equal(value, weights_of(whole)[name]) for name, value in weights_of(resumed).items())


def test_loader_workers_leave_the_message_to_the_process_that_trains(monkeypatch):
    warnings = []
    monkeypatch.setattr(callbacks.logger, "warning", warnings.append)
    SaveOnInterrupt()._on_signal(signal.SIGINT, None)
    monkeypatch.setattr(callbacks, "get_worker_info", lambda: SimpleNamespace(id=0))
    SaveOnInterrupt()._on_signal(signal.SIGINT, None)
    assert warnings == ["SIGINT: saving a checkpoint after this update, then stopping."]


def test_a_second_ctrl_c_interrupts_at_once(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    trainer = make_trainer(tmp_path, callbacks=[SaveOnInterrupt(), SignalAt(2, signal.SIGINT, times=2)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupted_trainer_can_train_again(tmp_path):
    interrupt, signal_once = SaveOnInterrupt(), SignalAt(2, signal.SIGINT)
    trainer = make_trainer(tmp_path, callbacks=[interrupt, signal_once], save_strategy="no")
    trainer.train()
    assert (trainer.state.global_step, trainer.args.save_strategy) == (3, "no")
    trainer.remove_callback(signal_once)
    trainer.train(resume_from_checkpoint=True)
    assert (trainer.state.global_step, interrupt.interrupted) == (8, False)


def test_after_an_error_the_next_training_restores_the_handler(tmp_path):
    class Fails(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            raise RuntimeError

    before = signal.getsignal(signal.SIGINT)
    trainer = make_trainer(tmp_path, callbacks=[SaveOnInterrupt(), Fails])
    with pytest.raises(RuntimeError):
        trainer.train()
    trainer.remove_callback(Fails)
    trainer.train()
    assert signal.getsignal(signal.SIGINT) is before


def test_training_in_another_thread(tmp_path):
    trainer = make_trainer(tmp_path, callbacks=[SaveOnInterrupt()])
    with ThreadPoolExecutor() as pool:
        pool.submit(trainer.train).result()
    assert trainer.state.global_step == 8


def test_an_undisturbed_run_is_not_interrupted(tmp_path):
    interrupt = SaveOnInterrupt()
    make_trainer(tmp_path, callbacks=[interrupt]).train()
    assert not interrupt.interrupted


def test_several_gpus_share_a_signal_without_waiting(monkeypatch):
    monkeypatch.setattr("torch.distributed.all_reduce", lambda flag, op: None)
    monkeypatch.setattr(callbacks, "_LAG", {})
    interrupt, lag = SaveOnInterrupt(), callbacks._LAG_ELSEWHERE

    def heard(device):
        return interrupt._any_process_signalled(SimpleNamespace(world_size=2, device=torch.device(device)))

    with DeviceTransfers() as transfers:
        assert not any(heard(DEVICE) for _ in range(lag))
    assert transfers.to_host == transfers.to_device == []
    interrupt._flags.clear()
    assert not any(heard("cpu") for _ in range(2 * lag))
    interrupt._signalled = True
    assert [heard("cpu") for _ in range(lag + 1)] == [False] * lag + [True]
