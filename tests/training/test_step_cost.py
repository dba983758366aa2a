"""How often a training step makes the host wait for the device."""

import sys
from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from device_transfers import DEVICE, DeviceTransfers
from gramians import OUR_METHODS
from torch import nn
from toy import ToyViews, collate, make_model, make_trainer

from hf_gradalign.alignment import ViewGradients
from hf_gradalign.training import callbacks

READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "__array__")


@contextmanager
def reads_by_package(monkeypatch):
    """Count reads of tensors on the host, by the package whose code causes them."""
    counts = Counter()
    with monkeypatch.context() as patch:
        for name in READS:
            patch.setattr(torch.Tensor, name, _counting(getattr(torch.Tensor, name), counts))
        yield counts


def _counting(method, counts):
    def counted(*args, **kwargs):
        counts[_caller()] += 1
        return method(*args, **kwargs)

    return counted


def _caller():
    frame = sys._getframe(2)
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in ("torch", "contextlib", __name__):
            return package
        frame = frame.f_back
    return "?"


def batch_of_views():
    dataset = ToyViews(12)
    return collate([dataset[index] for index in range(12)])


@pytest.mark.parametrize("method", OUR_METHODS)
def test_step_transfers_nothing_to_the_host(tmp_path, monkeypatch, method):
    trainer = make_trainer(tmp_path, align_gradients=method, model=make_model(class_weights=(0.1, 0.9)))
    batch = batch_of_views()
    trainer.training_step(trainer.model, batch)
    with reads_by_package(monkeypatch) as counts:
        trainer.training_step(trainer.model, batch)
    assert counts == {}


def test_run_transfers_only_for_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "_LAG", {})  # as on a GPU; reading a flag on a CPU is free
    trainer = make_trainer(tmp_path, align_gradients="pcgrad", max_steps=8, logging_steps=4)
    with reads_by_package(monkeypatch) as counts:
        trainer.train()
    assert len(trainer.state.log_history) == 3
    # The means, and the flags of four updates each, which have already been copied.
    assert counts["hf_gradalign"] == 2 + 2 * 4
    assert counts["transformers"] > 2  # it reads every loss, and logs


def test_an_update_does_not_wait_for_a_device(tmp_path):
    trainer = make_trainer(
        tmp_path, align_gradients="gradvac", alignment_scope="module", view_weights={"augmented": 0.5}
    )
    parameters = [nn.Parameter(torch.empty_like(p, device=DEVICE)) for p in trainer.model.parameters()]
    trainer.parameter_groups.gramians(torch.zeros(len(parameters), 2, 2, device=DEVICE))  # copies the groups once
    with DeviceTransfers() as transfers:
        for _ in range(3):
            gradients = ViewGradients(parameters)
            for view in ("clean", "augmented"):
                with gradients.accumulate(view):
                    for parameter in parameters:
                        parameter.grad = torch.zeros_like(parameter)
                trainer._view_losses[view] = torch.zeros((), device=DEVICE)
            trainer._mean_loss(trainer._view_losses)
            trainer._record_update(trainer.aligner.align(gradients))
    assert transfers.to_host == []
    assert transfers.to_device == []
    assert all(parameter.grad is not None for parameter in parameters)
