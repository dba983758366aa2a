"""Invariant 6: non-finite gradients are passed on as such, and counted."""

import math

import pytest
import torch
from toy import ToyViews, make_model, make_trainer, weights_of

from hf_gradalign.alignment import available_methods


class OneBadBatch(ToyViews):
    """The augmented view of the first item is not finite."""

    def __init__(self, bad):
        super().__init__(24)
        self.augmented[0] = bad


@pytest.mark.parametrize("bad", [math.nan, math.inf])
# Krum needs three views.
@pytest.mark.parametrize("method", [*(name for name in available_methods() if name != "krum"), "crmogm(gradvac)"])
def test_reach_the_optimiser(tmp_path, method, bad):
    seen = []

    def remember(parameters):
        seen.append(all(bool(torch.isfinite(p.grad).all()) for p in parameters))

    model = make_model()
    trainer = make_trainer(tmp_path, OneBadBatch(bad), model, align_gradients=method, max_steps=2)
    trainer.create_optimizer()
    step = trainer.optimizer.step

    def skip_nonfinite(*args, **kwargs):
        remember(list(model.parameters()))
        if seen[-1]:
            step(*args, **kwargs)

    trainer.optimizer.step = skip_nonfinite
    trainer.train()
    assert sorted(seen) == [False, True]
    assert trainer.conflict_counts.nonfinite() == 1
    assert all(torch.isfinite(value).all() for value in weights_of(trainer).values())
    # One bad update does not blot out the means of the others.
    assert all(math.isfinite(v) for k, v in trainer.state.log_history[0].items() if k.startswith("cosine"))
