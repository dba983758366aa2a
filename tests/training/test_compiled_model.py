"""torch.compile does not change the result of training."""

import pytest
import torch
from toy import largest_difference, make_trainer, weights_of


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    yield
    torch.compiler.reset()


def test_a_compiled_model_takes_the_same_updates(tmp_path):
    weights = []
    # This backend needs no C++ compiler, and the graphs are the same.
    for options in ({}, {"torch_compile": True, "torch_compile_backend": "eager"}):
        trainer = make_trainer(tmp_path, align_gradients="cagrad", max_steps=3, **options)
        trainer.train()
        weights.append(weights_of(trainer))
    assert type(trainer.model_wrapped).__name__ == "OptimizedModule"
    assert largest_difference(*weights) < 1e-6
