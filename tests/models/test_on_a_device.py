"""Models on a device that has no data: a training pass does not wait for it, and questions are asked there."""

import pytest
import torch
from device_transfers import DEVICE, DeviceTransfers
from tiny_detectors import FAMILIES, SMALL, make_clips, make_detector

from hf_gradalign.models.clip_lengths import refuse_discarding
from hf_gradalign.models.label_order import logits_of_noise
from hf_gradalign.models.lora import add_lora

DETECTORS = {
    **{family: {"family": family} for family in FAMILIES},
    **{head: {"head": head} for head in SMALL},
    **{loss: {"loss": loss, "class_weights": [0.1, 0.9]} for loss in ("cross_entropy", "am_softmax", "oc_softmax")},
    "layer_merging": {"layer_merging": "sea"},
    "one_output": {"num_labels": 1},
}


@pytest.mark.parametrize("name", DETECTORS)
def test_pass_does_not_wait_for_the_device(name):
    model = make_detector(**DETECTORS[name]).to(DEVICE).train()
    clips, labels = make_clips().to(DEVICE), torch.tensor([0, 1, 0]).to(DEVICE)
    with DeviceTransfers() as transfers:
        model(clips, labels=labels).loss.backward()
    assert transfers.to_host == transfers.to_device == []


def test_noise_is_sent_to_the_model():
    model = make_detector(head="sls").to(DEVICE)
    extractor = model.make_feature_extractor()
    assert logits_of_noise(model, extractor).device.type == DEVICE
    refuse_discarding(model, extractor, 3200)
    pytest.importorskip("peft")
    add_lora(model, extractor, rank=2)
