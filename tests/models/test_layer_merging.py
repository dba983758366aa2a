"""Merging of all layers of the encoder, and detectors with a single output."""

import copy

import pytest
import torch
import transformers
from packaging.version import Version
from tiny_detectors import FAMILIES, LABELS, LENGTHS, PADDED, READ_PADDING, make_clips, make_config
from tiny_detectors import make_detector as make_tiny
from torch.nn.functional import binary_cross_entropy_with_logits, silu
from transformers import AutoModelForAudioClassification, pipeline

from hf_gradalign.models import SpoofDetectorConfig, SpoofDetectorForAudioClassification, load_audio_classifier
from hf_gradalign.models.layer_merging import LAYER_MERGING

EVERY = pytest.mark.parametrize("name", LAYER_MERGING)


def make_detector(*positional, backbone=None, **options):
    model = make_tiny(*positional, backbone={"do_stable_layer_norm": True} | (backbone or {}), **options)
    if model.config.layer_merging == "weighted_sum":
        model.layer_merging.weight.data.copy_(torch.tensor([0.3, -1.0, 2.0]))
    return model


# Each family with one way, and each way with one family; all others are slow.
@pytest.mark.parametrize(
    ("family", "name"),
    [
        pytest.param(family, name, marks=[] if family == "wav2vec2" or name == "attm" else pytest.mark.slow)
        for family in FAMILIES
        for name in LAYER_MERGING
    ],
)
def test_every_family_and_padding(family, name, tmp_path):
    options = {} if family in READ_PADDING else {"do_stable_layer_norm": True}
    model, clips = make_tiny(family, "linear", layer_merging=name, backbone=options), make_clips()
    with torch.no_grad():
        logits = model(clips).logits
        masked = model(clips * PADDED, attention_mask=PADDED.long()).logits
        alone = [model(clip[None, :length]).logits for clip, length in zip(clips, LENGTHS, strict=True)]
    assert family in READ_PADDING or torch.allclose(masked, torch.cat(alone), atol=1e-5)
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    with torch.no_grad():
        assert torch.allclose(loaded(clips).logits, logits, atol=1e-6)


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm"])
@EVERY
def test_every_merging_is_its_formula(name, family):
    """On the inputs of all layers and the normalized output of the encoder, taken by hooks."""
    model, states = make_detector(family, "linear", layer_merging=name), []
    for layer in model.backbone.encoder.layers:
        layer.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    model.backbone.encoder.layer_norm.register_forward_hook(lambda *call: states.append(call[2]))
    with torch.no_grad():
        logits = model(make_clips()).logits
        x, merging = torch.stack(states), model.layer_merging  # (S, B, T, D)
        assert len(x) == 3
        if name == "sea":
            gates = (x.mean((2, 3)).T @ merging.squeeze.weight.T).relu() @ merging.excite.weight.T
            frames = torch.einsum("bs,sbtd->btd", gates.sigmoid(), x)
        elif name == "weighted_sum":
            frames = torch.einsum("s,sbtd->btd", torch.tensor([0.3, -1.0, 2.0]).softmax(0), x)
        else:
            scores = silu(torch.einsum("sbd,d->bs", x.mean(2), merging.score[:, 0]))
            gates = (silu(scores @ merging.squeeze) @ merging.excite).sigmoid()
            gated = torch.einsum("bs,sbtd->btds", gates, x)
            frames = gated.reshape(3, x.shape[2], -1) @ merging.projection.weight.T + merging.projection.bias
        assert torch.allclose(logits, model.head(frames), atol=1e-5)


@EVERY
def test_every_weight_of_merging_gets_a_gradient(name):
    torch.manual_seed(0)
    merging = LAYER_MERGING[name](8, 9)
    merging(tuple(torch.randn(9, 2, 5, 8))).square().sum().backward()
    assert all(parameter.grad.abs().max() > 1e-9 for parameter in merging.parameters())


def test_new_merging():
    assert LAYER_MERGING["weighted_sum"](8, 3).weight.tolist() == [1, 1, 1]
    assert LAYER_MERGING["attm"](8, 9).squeeze.shape == (9, 4)


@EVERY
def test_a_missing_merging_is_initialized(name, tmp_path):
    """An encoder and head without it load, and the new weights are finite."""
    make_detector().save_pretrained(tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path, config=make_config(layer_merging=name))
    assert all(tensor.isfinite().all() for tensor in loaded.layer_merging.state_dict().values())
    assert loaded(make_clips()).logits.isfinite().all()


def test_unsupported_combinations_are_refused():
    with pytest.raises(ValueError, match="no layer_merging 'mean'; available: sea, weighted_sum, attm"):
        make_detector(layer_merging="mean")
    with pytest.raises(ValueError, match="layer_merging sea is for heads that take one layer"):
        make_detector(head="mhfa", layer_merging="sea")
    model = make_detector(layer_merging="sea", backbone={"layerdrop": 0.5})
    with pytest.raises(ValueError, match="sea uses all layers: set the encoder's layerdrop to 0"):
        model.train()(make_clips())


def test_a_single_output_is_bonafide():
    config = SpoofDetectorConfig(num_labels=1)
    assert (config.id2label, config.label2id, config.num_labels) == ({0: "bonafide"}, {"bonafide": 0}, 1)
    assert make_config(num_labels=1, id2label={0: "spoof"}).id2label == {0: "spoof"}


@pytest.mark.parametrize("weights", [None, [0.1, 0.9]])
def test_the_loss_of_a_single_output(weights):
    model, clips = make_detector(num_labels=1, class_weights=weights), make_clips()
    output = model(clips, labels=LABELS)
    assert output.logits.shape == (3, 1)
    each = binary_cross_entropy_with_logits(output.logits[:, 0], LABELS.float(), reduction="none")
    factor = torch.ones(3) if weights is None else torch.tensor(weights)[LABELS]
    assert torch.allclose(output.loss, (factor * each).sum() / factor.sum())
    model.config.id2label = {0: "spoof"}
    with pytest.raises(ValueError, match="only output is spoof, but must be bonafide for a loss"):
        model(clips, labels=LABELS)


@pytest.mark.parametrize("head", ["linear", "nes2net"])
def test_training_makes_two_outputs_of_one(head, tmp_path):
    model, clips = make_tiny("wavlm", head, num_labels=1, layer_merging="sea", n_samples=3200), make_clips()
    model.save_pretrained(tmp_path)
    two, _ = load_audio_classifier(str(tmp_path))
    assert two.config.id2label == {0: "spoof", 1: "bonafide"}
    with torch.no_grad():
        score, pair = copy.deepcopy(model)(clips).logits[:, 0], two.eval()(clips).logits
    assert torch.allclose(pair[:, 1] - pair[:, 0], score, atol=1e-5)
    two.save_pretrained(tmp_path / "two")
    again = AutoModelForAudioClassification.from_pretrained(tmp_path / "two")
    assert torch.allclose(again(clips).logits, pair, atol=1e-5)
    assert type(again) is SpoofDetectorForAudioClassification


@pytest.mark.skipif(Version(transformers.__version__) < Version("5.21"), reason="the pipeline takes the softmax")
def test_the_pipeline_does_not_take_the_softmax_of_a_single_output(tmp_path):
    model = make_detector(num_labels=1, n_samples=3200)
    model.save_pretrained(tmp_path)
    clip = make_clips(1)[0]
    classify = pipeline("audio-classification", model=str(tmp_path))
    with torch.no_grad():
        expected = model(clip[None]).logits[0].sigmoid().item()
    assert classify(clip.numpy()) == [{"label": "bonafide", "score": pytest.approx(expected, abs=1e-5)}]
