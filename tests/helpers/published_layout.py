"""Detectors of odd sizes in the published layout, with random weights."""

import torch

from hf_gradalign.conversion import published_state_dict
from hf_gradalign.conversion.layouts import HEAD_LAYOUTS
from hf_gradalign.models import SpoofDetectorConfig, SpoofDetectorForAudioClassification

HEAD_OPTIONS = {
    "aasist": {"projection_size": 60, "channels": [8, 8, 12], "attention_size": 20, "graph_sizes": [10, 6]},
    "aasist_raw": {"channels": [8, 8, 12], "graph_sizes": [10, 6], "pool_ratios": [0.5, 0.7, 0.5]},
    "conformer_tcm": {"size": 24, "num_blocks": 3, "num_heads": 6, "kernel_size": 7, "num_positions": 500},
    "linear": {"dropout": 0.0},
    "mamba": {"size": 20, "num_blocks": 3, "state_size": 5, "kernel_size": 3, "expansion": 3},
    "nes2net": {"num_groups": 4, "num_scales": 4, "squeeze_size": 5, "pooling": "attentive", "attention_size": 7},
    "sls": {"n_frames": 33, "hidden_size": 10, "log_probabilities": True},
}
BACKBONE = {
    "model_type": "wav2vec2",
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 50,
    "conv_dim": [10, 12, 14, 14, 14, 14, 14],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 3,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
}


def settings_of(layout):
    """What shapes do not tell about the detectors of `make_published`."""
    return {} if layout == "aasist_raw" else {"num_attention_heads": BACKBONE["num_attention_heads"]}


def make_detector(layout, head_options=None, detector_options=None, **backbone):
    """A detector in evaluation mode with nontrivial batch norm statistics."""
    torch.manual_seed(0)
    options = HEAD_OPTIONS[layout] | (head_options or {})
    encoder = {"model_type": "sinc"} if layout == "aasist_raw" else BACKBONE
    head = HEAD_LAYOUTS[layout].head
    config = SpoofDetectorConfig({**encoder, **backbone}, head, options, **(detector_options or {}))
    model = SpoofDetectorForAudioClassification(config)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return model.eval()


def make_published(layout, **options):
    """A detector, and its state dict in the published layout, with two entries of the encoder's pre-training."""
    model = make_detector(layout, **options)
    state = published_state_dict(model)
    if layout == "aasist_raw":
        return model, state
    prefix = next(key for key in state if "feature_extractor" in key).partition("feature_extractor")[0]
    state[f"{prefix}mask_emb"] = torch.zeros(model.config.hidden_size)
    state[f"{prefix}quantizer.vars"] = torch.zeros(1, 4, 4)
    return model, state


def logits_of(model, samples=12_000):
    """The logits of a model for two clips of noise."""
    waveforms = torch.randn(2, samples, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(waveforms).logits
