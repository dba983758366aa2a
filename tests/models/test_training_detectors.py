"""Loss, checkpointing, freezing and adapters of detectors."""

import copy
import json

import pytest
import torch
from tiny_detectors import FAMILIES, LABELS, READ_PADDING, ROUNDING, gradients, make_clips, make_detector
from torch.nn.functional import cross_entropy
from transformers import AutoModelForAudioClassification


@pytest.mark.parametrize("weights", [None, [0.1, 0.9]])
def test_loss_is_the_weighted_cross_entropy(weights, tmp_path):
    model, clips = make_detector(class_weights=weights), make_clips()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()).get("class_weights") == weights
    for one in (model, AutoModelForAudioClassification.from_pretrained(tmp_path)):
        output = one(clips, labels=LABELS)
        each = cross_entropy(output.logits, LABELS, reduction="none")
        factor = torch.ones(3) if weights is None else torch.tensor(weights)[LABELS]
        assert torch.allclose(output.loss, (factor * each).sum() / factor.sum())


@pytest.mark.parametrize("head", [pytest.param("linear", marks=pytest.mark.slow), "mhfa", "sls"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients(family, head):
    model = make_detector(family, head, backbone=dict.fromkeys(("hidden_dropout", "attention_dropout"), 0.0)).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    calls = []
    layer = model.backbone.encoder.layers[1]
    hook = next(module for name, module in layer.named_modules() if "feed_forward" in name or "ffn" in name)
    hook.register_forward_pre_hook(lambda *_: calls.append(1))
    expected = gradients(model, make_clips())
    plain = len(calls)
    model.gradient_checkpointing_enable()
    calls.clear()
    found = gradients(model, make_clips())
    assert len(calls) == 2 * plain  # once more in the backward pass
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)
    assert any(name.startswith("backbone.encoder.layers.0") for name in found)


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_freezing_the_feature_encoder_or_the_backbone():
    model = make_detector()
    model.freeze_feature_encoder()
    assert not any(name.startswith("backbone.feature_extractor.") for name in trainable(model))
    assert any(name.startswith("backbone.feature_projection.") for name in trainable(model))
    model.train()
    assert set(gradients(model, make_clips())) == trainable(model)
    model.freeze_backbone()
    assert trainable(model) == {"head.classifier.weight", "head.classifier.bias"}
    assert set(gradients(model, make_clips())) == trainable(model)


@pytest.mark.parametrize(
    ("family", "options"),
    [(family, {}) for family in FAMILIES]
    + [(family, {"do_stable_layer_norm": True}) for family in FAMILIES if family not in READ_PADDING],
)
def test_frozen_layers_take_no_backward_pass(family, options):
    model = make_detector(family, backbone=options)
    model.train().freeze_encoder_layers(1)
    states = model(make_clips(), output_hidden_states=True).hidden_states
    assert [state.requires_grad for state in states] == [False, False, True]
    idle = {"backbone.masked_spec_embed"} if family == "unispeech-sat" else set()  # exists even if nothing is masked
    assert set(gradients(model, make_clips())) == trainable(model) - idle
    assert any(name.startswith("backbone.encoder.layers.1.") for name in trainable(model))


def test_freezing_more_layers_than_there_are():
    model = make_detector()
    for count in (3, -1):
        with pytest.raises(ValueError, match=f"the encoder has 2 layers, cannot freeze {count}"):
            model.freeze_encoder_layers(count)
    assert trainable(model) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("head", ["mhfa", "sls"])
def test_layer_drop_is_refused_where_all_layers_are_needed(head):
    model = make_detector(head=head, backbone={"layerdrop": 0.5})
    assert model(make_clips()).logits.isfinite().all()
    with pytest.raises(ValueError, match=f"the head {head} uses all layers: set the encoder's layerdrop to 0"):
        model.train()(make_clips())
    assert make_detector(backbone={"layerdrop": 0.5}).train()(make_clips()).logits.isfinite().all()


@pytest.mark.parametrize(
    ("head", "checkpointing"),
    [
        ("aasist", False),
        ("mamba", True),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("aasist", True), ("mamba", False))),
    ],
)
def test_low_rank_adapters(head, checkpointing, tmp_path):
    peft = pytest.importorskip("peft")
    base = make_detector(head=head)
    lora = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["head"])
    model = peft.get_peft_model(copy.deepcopy(base), lora).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    clips = make_clips()
    for _ in range(2):  # the first step cannot change one of an adapter's two matrices, because the other is zero
        optimizer.zero_grad()
        model(clips, labels=LABELS).loss.backward()
        optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, start[name])}
    assert all("lora_" in name or "modules_to_save" in name for name in moved)
    assert {name for name in start if "lora_" in name} <= moved
    assert any("modules_to_save" in name for name in moved)

    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
    with torch.no_grad():
        expected = model.eval()(clips).logits
        assert torch.allclose(loaded(clips).logits, expected, atol=ROUNDING)
        assert torch.allclose(loaded.merge_and_unload()(clips).logits, expected, atol=1e-5)
        assert not torch.allclose(base(clips).logits, expected, atol=1e-3)


def test_a_batch_is_not_scaled_by_the_number_of_items():
    """The Trainer divides the loss over accumulated micro-batches itself; see `accepts_loss_kwargs`."""
    assert make_detector().accepts_loss_kwargs is False
