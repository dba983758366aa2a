"""The detector over tiny random encoders of every family."""

import copy
import json
import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, softplus
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification

from hf_gradalign.models import HEADS, ID2LABEL, LABEL2ID, SpoofDetectorConfig, SpoofDetectorForAudioClassification
from hf_gradalign.models.head_conformer_tcm import sinusoids

FAMILIES = ["wav2vec2", "hubert", "wavlm", "data2vec-audio", "wav2vec2-conformer", "unispeech-sat"]
# In transformers the convolutions of these two's encoders read padding, so that a padded clip is not as it is alone.
READ_PADDING = ["data2vec-audio", "wav2vec2-conformer"]
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [16, 16, 16],
    "conv_stride": [5, 4, 4],
    "conv_kernel": [10, 8, 4],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
}
SMALL = {
    "aasist": {"projection_size": 24, "channels": [4, 8], "attention_size": 8, "graph_sizes": [8, 4]},
    "conformer_tcm": {"size": 16, "num_blocks": 1, "num_heads": 2, "kernel_size": 5, "num_positions": 300},
    "linear": {},
    "mamba": {"size": 16, "num_blocks": 2, "state_size": 4},
    "mhfa": {"num_heads": 2, "compression_size": 8, "embedding_size": 8},
    "sls": {"n_frames": 30, "hidden_size": 8},
}


def make_config(family="wav2vec2", head="linear", backbone=None, **options):
    return SpoofDetectorConfig(AutoConfig.for_model(family, **TINY | (backbone or {})), head, SMALL[head], **options)


def make_detector(*positional, **options):
    """In evaluation mode; its weights are no longer those of a fresh one, the batch norms' statistics included."""
    torch.manual_seed(0)
    model = SpoofDetectorForAudioClassification(make_config(*positional, **options)).eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and "original0" not in name:
            tensor.add_(torch.rand_like(tensor) * 0.05)
    return model


def make_clips(batch=3, length=3200, seed=1):
    return torch.randn(batch, length, generator=torch.Generator().manual_seed(seed))


ROUNDING = 1e-6  # of the same sums over weights that lie elsewhere in memory
LABELS = torch.tensor([0, 1, 0])
LENGTHS = torch.tensor([3200, 1900, 2500])
PADDED = torch.arange(3200) < LENGTHS[:, None]


def gradients(model, clips, **inputs):
    model.zero_grad()
    model(clips, labels=LABELS, **inputs).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("head", ["aasist", "mhfa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family, head, tmp_path):
    model, clips = make_detector(family, head), make_clips()
    with torch.no_grad():
        output = model(clips)
        assert output.logits.shape == (3, 2)
        assert output.loss is None
        assert output.hidden_states is None
        states = model(clips, output_hidden_states=True)
        assert torch.equal(states.logits, output.logits)
        assert len(states.hidden_states) == 3
        assert states.hidden_states[0].shape == states.hidden_states[-1].shape == (3, 39, 32)
        masked = model(clips * PADDED, attention_mask=PADDED.long()).logits
        alone = [model(clip[None, :length]).logits for clip, length in zip(clips, LENGTHS, strict=True)]
        assert masked.isfinite().all()
        assert family in READ_PADDING or torch.allclose(masked, torch.cat(alone), atol=1e-5)
        assert torch.equal(model(clips, return_dict=False)[0], output.logits)

    model.save_pretrained(tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert type(loaded) is SpoofDetectorForAudioClassification
    assert not loaded.training
    assert loaded.backbone.config.model_type == family
    with torch.no_grad():
        assert torch.allclose(loaded(clips).logits, output.logits, atol=ROUNDING)


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


@pytest.fixture(scope="module", params=["wav2vec2", "wavlm"])
def encoder_folder(request, tmp_path_factory):
    """An encoder as the Hub has them: with masking and layer drop on, saved from training."""
    path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(7)
    options = {"apply_spec_augment": True, "mask_time_prob": 0.5, "mask_feature_prob": 0.1, "layerdrop": 0.3}
    encoder = AutoModel.from_config(AutoConfig.for_model(request.param, **TINY | options))
    for parameter in encoder.parameters():
        parameter.data.add_(torch.rand_like(parameter) * 0.1)
    encoder.save_pretrained(path)
    return path


def test_from_backbone_keeps_its_weights_and_masks_nothing(encoder_folder, tmp_path):
    model = SpoofDetectorForAudioClassification.from_backbone(
        str(encoder_folder), head="mamba", head_options=SMALL["mamba"], class_weights=[0.1, 0.9]
    )
    assert not model.training
    theirs, ours = AutoModel.from_pretrained(encoder_folder).state_dict(), model.backbone.state_dict()
    assert theirs.keys() - ours.keys() <= {"masked_spec_embed"}
    assert ours.keys() <= theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    options = model.config.backbone_config
    assert (options.apply_spec_augment, options.mask_time_prob, options.mask_feature_prob) == (False, 0.0, 0.0)
    assert options.layerdrop == 0.0
    assert (model.config.id2label, model.config.label2id) == (ID2LABEL, LABEL2ID)

    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    clips = make_clips()
    before = model(clips).logits
    model.save_pretrained(tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert torch.allclose(loaded(clips).logits, before, atol=ROUNDING)
    assert loaded.config.class_weights == [0.1, 0.9]
    assert loaded.config.backbone_config.mask_time_prob == 0.0


def test_from_backbone_takes_options_of_encoder_and_loading(encoder_folder):
    make = SpoofDetectorForAudioClassification.from_backbone
    model = make(
        str(encoder_folder), head="linear", backbone_options={"mask_time_prob": 0.2, "apply_spec_augment": True}
    )
    assert model.backbone.config.mask_time_prob == 0.2
    assert model.backbone.config.mask_feature_prob == 0.0
    assert {p.dtype for p in make(str(encoder_folder), head="linear").parameters()} == {torch.float32}
    with pytest.raises(ValueError, match=r"has no option mask_time$"):
        make(str(encoder_folder), head="linear", backbone_options={"mask_time": 0.2})


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementation_reaches_the_backbone(implementation, tmp_path):
    make_detector().save_pretrained(tmp_path / "detector")
    AutoModel.from_config(make_config().backbone_config).save_pretrained(tmp_path / "encoder")
    options = {"attn_implementation": implementation}
    for model in (
        AutoModelForAudioClassification.from_pretrained(tmp_path / "detector", **options),
        AutoModelForAudioClassification.from_config(make_config(), **options),
        SpoofDetectorForAudioClassification.from_backbone(str(tmp_path / "encoder"), head="linear", **options),
    ):
        assert model.backbone.encoder.layers[0].attention.config._attn_implementation == implementation


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "wavlm"])  # which has eager alone
def test_sdpa_is_eager(family, tmp_path):
    make_detector(family).save_pretrained(tmp_path)
    clips, logits = make_clips(), []
    for implementation in ("eager", "sdpa"):
        model = AutoModelForAudioClassification.from_pretrained(tmp_path, attn_implementation=implementation)
        assert model.backbone.config._attn_implementation == implementation
        logits += [torch.cat([model(clips).logits, model(clips, attention_mask=PADDED.long()).logits])]
    assert torch.allclose(*logits, atol=1e-5)


def test_attentions_on_request():
    model = AutoModelForAudioClassification.from_config(make_config(), attn_implementation="eager").eval()
    maps = model(make_clips(), output_attentions=True).attentions
    assert [tuple(one.shape) for one in maps] == [(3, 2, 39, 39)] * 2
    assert not model(make_clips()).attentions
    model.config.output_attentions = True
    assert len(model(make_clips()).attentions) == 2


def test_configuration_asks_for_hidden_states_and_tuples():
    model = make_detector(output_hidden_states=True)
    assert len(model(make_clips()).hidden_states) == 3
    model.config.return_dict = False
    logits, states = model(make_clips())[:2]
    assert logits.shape == (3, 2)
    assert len(states) == 3


def test_the_default_is_xls_r_300m_and_published_labels():
    config = SpoofDetectorConfig()
    assert config.backbone_config.model_type == "wav2vec2"
    assert (config.hidden_size, config.backbone_config.num_hidden_layers, config.head) == (1024, 24, "aasist")
    assert config.backbone_config.num_attention_heads == 16
    assert (config.backbone_config.layerdrop, config.backbone_config.mask_time_prob) == (0.0, 0.0)
    assert (config.id2label, config.label2id, config.num_labels) == (ID2LABEL, LABEL2ID, 2)


def test_other_labels():
    config = make_config(id2label={0: "fake", 1: "real", 2: "noise"})
    assert config.label2id == {"fake": 0, "real": 1, "noise": 2}
    assert SpoofDetectorForAudioClassification(config)(make_clips()).logits.shape == (3, 3)
    assert make_config(label2id={"fake": 0, "real": 1}).id2label == {0: "fake", 1: "real"}
    assert make_config(num_labels=5).num_labels == 5


def test_configuration_survives_saving(tmp_path):
    config = make_config("wavlm", "sls", class_weights=[1, 3])
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is SpoofDetectorConfig
    assert loaded.backbone_config.to_dict() == config.backbone_config.to_dict()
    assert (loaded.head, loaded.head_options, loaded.class_weights) == ("sls", SMALL["sls"], [1.0, 3.0])
    assert loaded.id2label == ID2LABEL


def test_an_unknown_head_or_option_is_told_before_loading():
    make, nowhere = SpoofDetectorForAudioClassification.from_backbone, "/no/such/folder"
    with pytest.raises(ValueError, match="there is no head 'resnet'; there are aasist"):
        make(nowhere, head="resnet")
    with pytest.raises(ValueError, match="the head linear has no option size; it has dropout"):
        make(nowhere, head="linear", head_options={"size": 3})
    with pytest.raises(ValueError, match="there is no head 'resnet'"):
        SpoofDetectorForAudioClassification(SpoofDetectorConfig(make_config().backbone_config, head="resnet"))


def test_an_encoder_of_spectrograms_is_refused(tmp_path):
    config = AutoConfig.for_model(
        "whisper", d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, vocab_size=60,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, pad_token_id=0, bos_token_id=0,
        eos_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"\(WhisperModel\) is no encoder of raw waveforms"):
        SpoofDetectorForAudioClassification.from_backbone(str(tmp_path), head="linear")


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


@pytest.mark.parametrize("head", ["linear", "mhfa", "sls"])
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
    assert len(calls) == 2 * plain  # again in the backward pass
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
    idle = {"backbone.masked_spec_embed"} if family == "unispeech-sat" else set()  # has it even if nothing is masked
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
    with pytest.raises(ValueError, match=f"the head {head} takes all layers: set the encoder's layerdrop to 0"):
        model.train()(make_clips())
    assert make_detector(backbone={"layerdrop": 0.5}).train()(make_clips()).logits.isfinite().all()


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("head", ["aasist", "mamba"])
def test_low_rank_adapters(head, checkpointing, tmp_path):
    base = make_detector(head=head)
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["head"])
    model = get_peft_model(copy.deepcopy(base), lora).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    clips = make_clips()
    for _ in range(2):  # the first step leaves one of an adapter's two matrices, the other being zero
        optimizer.zero_grad()
        model(clips, labels=LABELS).loss.backward()
        optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, start[name])}
    assert all("lora_" in name or "modules_to_save" in name for name in moved)
    assert {name for name in start if "lora_" in name} <= moved
    assert any("modules_to_save" in name for name in moved)

    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
    with torch.no_grad():
        expected = model.eval()(clips).logits
        assert torch.allclose(loaded(clips).logits, expected, atol=ROUNDING)
        assert torch.allclose(loaded.merge_and_unload()(clips).logits, expected, atol=1e-5)
        assert not torch.allclose(base(clips).logits, expected, atol=1e-3)


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
def test_a_missing_head_is_initialised(head, tmp_path, monkeypatch):
    model = make_detector(head=head)
    model.save_pretrained(tmp_path)
    edit_checkpoint(tmp_path, lambda name: name.startswith("backbone."))
    poison = torch.empty_like

    def poisoned(*positional, **options):
        """Empty memory is often zero by chance."""
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
    # As large as those of a head that was made without a checkpoint.
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


def test_a_batch_is_not_scaled_by_the_number_of_items():
    """The Trainer divides the loss over accumulated micro-batches itself; see `accepts_loss_kwargs`."""
    assert make_detector().accepts_loss_kwargs is False


def test_saving_takes_the_feature_extractor_along(tmp_path):
    config = make_config(n_samples=3_000, do_normalize=True)
    model = SpoofDetectorForAudioClassification(config)
    model.save_pretrained(tmp_path)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert (extractor.sampling_rate, extractor.n_samples, extractor.do_normalize) == (16_000, 3_000, True)
    extractor.n_samples = 5_000
    extractor.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    assert AutoFeatureExtractor.from_pretrained(tmp_path).n_samples == 5_000  # one that is there stays
