import pytest
import torch
from transformers import PretrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_gradalign.training import WeightedCrossEntropy
from hf_gradalign.training.loss import items_weight, read_class_weights

WEIGHTS = torch.tensor([0.1, 0.9])


def test_weighted_mean():
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    single = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    loss = WeightedCrossEntropy(WEIGHTS)(SequenceClassifierOutput(logits=logits), labels)
    torch.testing.assert_close(loss, (WEIGHTS[labels] * single).sum() / WEIGHTS[labels].sum())


def test_half_precision_logits_give_a_loss_in_float32():
    logits, labels = torch.tensor([[0.3, 2.1], [1.7, -0.4]], dtype=torch.bfloat16), torch.tensor([0, 1])
    loss = WeightedCrossEntropy(WEIGHTS)
    torch.testing.assert_close(loss((logits,), labels), loss((logits.float(),), labels))


def test_label_smoothing_spreads_the_target_over_weighted_classes():
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    log_p = logits.log_softmax(1)
    targets = 0.9 * torch.nn.functional.one_hot(labels, 2) + 0.1 / 2
    loss = WeightedCrossEntropy(WEIGHTS, label_smoothing=0.1)((logits,), labels)
    torch.testing.assert_close(loss, -(WEIGHTS * targets * log_p).sum() / WEIGHTS[labels].sum())


def test_losses_of_parts_sum_to_the_whole():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 0])
    loss = WeightedCrossEntropy(WEIGHTS, label_smoothing=0.1)
    parts = [slice(0, 1), slice(1, 4), slice(4, 6)]
    total = items_weight({"labels": labels}, WEIGHTS)
    pieces = [
        loss((logits[part],), labels[part]) * items_weight({"labels": labels[part]}, WEIGHTS) / total for part in parts
    ]
    torch.testing.assert_close(sum(pieces), loss((logits,), labels))


def test_items_weight():
    labels = torch.tensor([0, 1, -100])
    assert items_weight({"labels": labels}, None) == 2
    assert items_weight({"labels": labels}, WEIGHTS) == pytest.approx(1.0)
    assert items_weight({"x": torch.zeros(7, 3), "labels": torch.full((7, 2), -100.0)}, None) == 7  # no class indices
    assert items_weight({"x": torch.zeros(7, 3)}, None) == 7


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, 0.0], [1.0, float("nan")]])
def test_impossible_weights(weights):
    with pytest.raises(ValueError, match="class_weights must be 2 positive numbers, one per label"):
        read_class_weights(PretrainedConfig(num_labels=2, class_weights=weights))


def test_weights_of_a_single_output():
    for weights in ([1.0], [0.1, 0.9]):
        with pytest.raises(ValueError, match=r"the model has a single output: load it with .*load_audio_classifier"):
            read_class_weights(PretrainedConfig(num_labels=1, class_weights=weights))


def test_no_weights():
    assert read_class_weights(PretrainedConfig()) is None
    assert read_class_weights(None) is None
