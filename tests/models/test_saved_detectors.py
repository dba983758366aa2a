"""Detectors loaded from complete and incomplete files."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_detectors import LABELS, PADDED, ROUNDING, make_clips, make_config, make_detector
from torch.nn.functional import softplus
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from hf_gradalign.models import HEADS, SpoofDetectorForAudioClassification
from hf_gradalign.models.head_conformer_tcm import sinusoids


@pytest.mark.parametrize("head", HEADS)
def test_every_head_is_saved_and_loaded_whole(head, tmp_path):
    model, clips = make_detector(head=head), make_clips()
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    expected, state = model.state_dict(), loaded.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert loaded.config.head_options == model.config.head_options
    with torch.no_grad():
        assert torch.allclose(loaded(clips).logits, model(clips).logits, atol=ROUNDING)


@pytest.mark.parametrize("head", HEADS)
def test_half_precision_loading(head, tmp_path):
    model, clips = make_detector(head=head), make_clips()
    model.save_pretrained(tmp_path)
    halved = AutoModelForAudioClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in halved.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        output = halved(clips.bfloat16(), labels=LABELS)
        assert torch.allclose(output.logits.float(), model(clips).logits, atol=0.2)
    assert output.loss.dtype == torch.float32
    halved.train()(clips.bfloat16(), attention_mask=PADDED.long(), labels=LABELS).loss.backward()
    assert all(p.grad.isfinite().all() for p in halved.parameters() if p.grad is not None)


def edit_checkpoint(folder, keep):
    path = folder / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if keep(name)}, path, {"format": "pt"})


@pytest.mark.parametrize("head", HEADS)
def test_a_missing_head_is_initialized(head, tmp_path, monkeypatch):
    model = make_detector(head=head)
    model.save_pretrained(tmp_path)
    edit_checkpoint(tmp_path, lambda name: name.startswith("backbone."))
    poison = torch.empty_like

    def poisoned(*positional, **options):
        """Uninitialized memory is often zero by chance."""
        tensor = poison(*positional, **options)
        return tensor.fill_(math.nan) if tensor.is_floating_point() and not tensor.is_meta else tensor

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty_like", poisoned)
        loaded = AutoModelForAudioClassification.from_pretrained(tmp_path)
    state, expected = loaded.state_dict(), model.state_dict()
    for name, tensor in state.items():
        assert tensor.isfinite().all(), name
        if name.startswith("backbone."):
            assert torch.equal(tensor, expected[name]), name
    # As large as in a head created without a checkpoint.
    fresh = SpoofDetectorForAudioClassification(make_config(head=head)).state_dict()
    for name, tensor in state.items():
        if name.startswith("head.") and tensor.numel() >= 8:
            spread, usual = tensor.float().std().item(), fresh[name].float().std().item()
            assert spread == pytest.approx(usual, rel=0.8, abs=1e-6), name
    if head == "mamba":
        for column in (loaded.head.forward_column, loaded.head.backward_column):
            for block in column:
                assert torch.allclose(block.mixer.A_log.exp(), torch.arange(1.0, 5).expand(32, -1))
                steps = softplus(block.mixer.dt_proj.bias)
                assert 0.00099 < steps.min() < steps.max() < 0.101
                assert (block.mixer.D == 1).all()
    if head == "conformer_tcm":
        assert torch.equal(loaded.head.positions, sinusoids(300, 16))
        assert (loaded.head.blocks[0].attention.head_position == 0).all()
    assert loaded(make_clips()).logits.isfinite().all()


@pytest.mark.parametrize(
    ("head", "missing"),
    [
        ("aasist", "head.branches.0.master"),
        ("aasist", "head.spectral_graph.pair_score"),
        ("conformer_tcm", "head.positions"),
        ("mamba", "head.forward_column.0.mixer.A_log"),
        ("mamba", "head.forward_column.1.mixer.dt_proj.bias"),
        ("mhfa", "head.key_layers"),
        ("mhfa", "backbone.feature_projection.projection.weight"),
    ],
)
def test_one_missing_tensor_leaves_the_others_as_they_are_saved(head, missing, tmp_path):
    model = make_detector(head=head)
    model.save_pretrained(tmp_path)
    edit_checkpoint(tmp_path, lambda name: name != missing)
    loaded, report = AutoModelForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == {missing}
    state = loaded.state_dict()
    assert state[missing].isfinite().all()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(state[name], tensor)}
    assert changed == {missing}


def test_saving_takes_the_feature_extractor_along(tmp_path):
    config = make_config(n_samples=3_000, do_normalize=True)
    model = SpoofDetectorForAudioClassification(config)
    model.save_pretrained(tmp_path)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert (extractor.sampling_rate, extractor.n_samples, extractor.do_normalize) == (16_000, 3_000, True)
    extractor.n_samples = 5_000
    extractor.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    assert AutoFeatureExtractor.from_pretrained(tmp_path).n_samples == 5_000  # an existing one is kept
