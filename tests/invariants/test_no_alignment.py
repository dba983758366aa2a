"""Invariant 2: alignment "none" is the ordinary Trainer on both views' mean loss."""

import pytest
from toy import largest_difference, make_trainer, weights_of
from transformers import Trainer


class MeanOfViewsTrainer(Trainer):
    """The ordinary Trainer with an explicit loss."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        losses = [model(**view_inputs).loss for view_inputs in inputs.values()]
        return sum(losses) / len(losses)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw_torch"])
def test_same_as_mean_loss(tmp_path, optimizer):
    ours = make_trainer(tmp_path, align_gradients="none", optim=optimizer, learning_rate=0.01)
    ours.train()
    ordinary = make_trainer(tmp_path, trainer_class=MeanOfViewsTrainer, optim=optimizer, learning_rate=0.01)
    ordinary.train()
    assert largest_difference(weights_of(ours), weights_of(ordinary)) < 1e-6
    assert ours.state.log_history[0]["loss"] == pytest.approx(ordinary.state.log_history[0]["loss"], abs=1e-5)


def test_differs_from_alignment(tmp_path):
    aligned = make_trainer(tmp_path, align_gradients="pcgrad")
    aligned.train()
    unaligned = make_trainer(tmp_path, align_gradients="none")
    unaligned.train()
    assert aligned.conflict_counts.rate() > 0
    assert largest_difference(weights_of(aligned), weights_of(unaligned)) > 1e-4
