"""Invariant 6: non-finite gradients stay non-finite and are counted."""

import math

import pytest
import torch
from toy import ToyViews, make_trainer, weights_of
from transformers import TrainerCallback

from hf_gradalign.alignment import available_methods


class OneBadBatch(ToyViews):
    """The augmented view of the first item is not finite."""

    def __init__(self, bad):
        super().__init__(24)
        self.augmented[0] = bad


class Watch(TrainerCallback):
    """Record whether the gradients were finite before the optimizer step."""

    def __init__(self):
        self.seen = []

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.seen.append(all(bool(torch.isfinite(p.grad).all()) for p in model.parameters()))


@pytest.mark.parametrize("bad", [math.nan, pytest.param(math.inf, marks=pytest.mark.slow)])
# Krum needs three views.
@pytest.mark.parametrize("method", [*(name for name in available_methods() if name != "krum"), "crmogm(gradvac)"])
@pytest.mark.parametrize("is_scaled", [False, True])
def test_reach_the_end_of_the_update(tmp_path, method, bad, is_scaled):
    watch = Watch()
    options = {"callbacks": [watch], "max_steps": 2, "on_nonfinite": "stop" if is_scaled else "skip"}
    trainer = make_trainer(tmp_path, OneBadBatch(bad), align_gradients=method, **options)
    if is_scaled:
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer.train()
    assert sorted(watch.seen) == [False, True]
    assert trainer.conflict_counts.nonfinite() == 1
    assert trainer.nonfinite.skipped == (0 if is_scaled else 1)
    if is_scaled:
        assert trainer.accelerator.scaler.get_scale() == 512
    assert all(torch.isfinite(value).all() for value in weights_of(trainer).values())
    # One bad update does not hide the means of the others.
    assert all(math.isfinite(v) for k, v in trainer.state.log_history[0].items() if k.startswith("cosine"))
