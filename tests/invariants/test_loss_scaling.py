"""fp16 loss scaling does not change updates, and an update that overflows is skipped, with a real GradScaler.

The Trainer itself has no fp16 on the CPU; what it does with a scaler on a GPU is written out here.
"""

import pytest
import torch
from toy import ToyViews, collate, largest_difference, make_model

from hf_gradalign.alignment import ViewGradients, get_method

METHODS = ("none", "pcgrad", "gradvac", "cagrad")


class Run:
    """A training on the toy views, scaled or not."""

    def __init__(self, method, scale=None, autocast=False):
        self.model = make_model()
        self.method = get_method(method)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.autocast = autocast

    def update(self, batch, overflow=()):
        gradients = ViewGradients(self.model.parameters())
        for view, inputs in batch.items():
            for micro in ({k: v[::2] for k, v in inputs.items()}, {k: v[1::2] for k, v in inputs.items()}):
                with gradients.accumulate(view):
                    with torch.autocast("cpu", torch.float16, enabled=self.autocast):
                        loss = self.model(**micro).loss / 2
                    self.scaler.scale(loss).backward()
                    if view in overflow:
                        self.model.hidden.weight.grad[0, 0] = overflow[view]
        gradients.combine(self.method(gradients.gramian()))
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 0.3)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def weights(self):
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}


@pytest.fixture
def batches():
    items = ToyViews()
    return [collate([items[i] for i in range(start, start + 12)]) for start in (0, 12, 24, 36)] * 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [2.0**4, 2.0**16])
def test_scaling_changes_nothing(batches, method, scale):
    plain, scaled = Run(method), Run(method, scale)
    for batch in batches:
        plain.update(batch)
        scaled.update(batch)
    assert scaled.scaler.get_scale() == scale
    assert largest_difference(plain.weights(), scaled.weights()) < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_stays_near(batches, method):
    plain, half = Run(method), Run(method, 2.0**10, autocast=True)
    start = plain.weights()
    for batch in batches:
        plain.update(batch)
        half.update(batch)
    moved = largest_difference(start, plain.weights())
    assert 0 < largest_difference(plain.weights(), half.weights()) < 0.02 * moved


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("view", ["clean", "augmented"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_an_overflow_is_skipped_and_forgotten(batches, method, view, value):
    untouched, disturbed = Run(method, 2.0**8), Run(method, 2.0**8)
    for number, batch in enumerate(batches):
        if number == 3:
            before, targets = disturbed.weights(), disturbed.method.state_dict().get("targets")
            disturbed.update(batch, overflow={view: value})
            assert largest_difference(before, disturbed.weights()) == 0
            assert disturbed.scaler.get_scale() == 2.0**7
            assert disturbed.method.state_dict().get("targets") == targets
        untouched.update(batch)
        disturbed.update(batch)
    assert largest_difference(untouched.weights(), disturbed.weights()) < 1e-6
