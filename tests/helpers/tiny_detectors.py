"""Detectors with every encoder that are small enough to train in a test."""

import torch
from transformers import (
    AutoConfig,
    AutoModelForAudioClassification,
    SeamlessM4TFeatureExtractor,
    WhisperFeatureExtractor,
)

from hf_gradalign.models import ID2LABEL, LABEL2ID, SpoofDetectorConfig, SpoofDetectorForAudioClassification
from hf_gradalign.training import GradientAlignmentArguments, GradientAlignmentTrainer

FAMILIES = ["wav2vec2", "hubert", "wavlm", "data2vec-audio", "wav2vec2-conformer", "unispeech-sat"]
# In transformers, the convolutions of these two encoders see padding, so a padded clip differs from the clip alone.
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
# Encoders that take features, and their own feature extractors.
FEATURE_ENCODERS = {
    "wav2vec2-bert": {
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
        **{"layerdrop": 0.0, "apply_spec_augment": False, "feature_projection_input_dim": 160},
    },
    "whisper": {
        **{"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 20},
        **{"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "vocab_size": 50},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
    },
}
OWN_EXTRACTORS = {"wav2vec2-bert": SeamlessM4TFeatureExtractor(), "whisper": WhisperFeatureExtractor(feature_size=20)}
SMALL = {
    "aasist": {"projection_size": 24, "channels": [4, 8], "attention_size": 8, "graph_sizes": [8, 4]},
    "conformer_tcm": {"size": 16, "num_blocks": 1, "num_heads": 2, "kernel_size": 5, "num_positions": 300},
    "linear": {},
    "mamba": {"size": 16, "num_blocks": 2, "state_size": 4},
    "mhfa": {"num_heads": 2, "compression_size": 8, "embedding_size": 8},
    "nes2net": {"num_groups": 4, "num_scales": 4, "squeeze_size": 3},
    "sls": {"n_frames": 39, "hidden_size": 8},
}


TINY_SINC = {"model_type": "sinc", "num_filters": 12, "kernel_size": 31}
SMALL_RAW = {"channels": [4, 8], "graph_sizes": [8, 4]}


def make_config(family="wav2vec2", head="linear", backbone=None, **options):
    if family == "sinc":
        return SpoofDetectorConfig(TINY_SINC | (backbone or {}), "aasist", SMALL_RAW, **options)
    return SpoofDetectorConfig(AutoConfig.for_model(family, **TINY | (backbone or {})), head, SMALL[head], **options)


def make_detector(*positional, **options):
    """A detector in evaluation mode with changed weights and batch norm statistics."""
    torch.manual_seed(0)
    model = SpoofDetectorForAudioClassification(make_config(*positional, **options)).eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and "original0" not in name:
            tensor.add_(torch.rand_like(tensor) * 0.05)
    return model


def make_clips(batch=3, length=3200, seed=1):
    return torch.randn(batch, length, generator=torch.Generator().manual_seed(seed))


ROUNDING = 1e-6  # of the same sums with weights at other addresses
LABELS = torch.tensor([0, 1, 0])
LENGTHS = torch.tensor([3200, 1900, 2500])
PADDED = torch.arange(3200) < LENGTHS[:, None]


def gradients(model, clips, **inputs):
    model.zero_grad()
    model(clips, labels=LABELS, **inputs).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def make_classifier(family="wav2vec2", **options):
    """A classifier of transformers itself, in evaluation mode."""
    torch.manual_seed(0)
    labels = {"id2label": ID2LABEL, "label2id": LABEL2ID}
    config = AutoConfig.for_model(family, **TINY | {"classifier_proj_size": 8} | labels | options)
    return AutoModelForAudioClassification.from_config(config).eval()


def noise_trainer(model, folder, processing_class=None, **options):
    """A trainer of eight clips of noise, in two views that conflict, with dropout."""
    clips = make_clips(8)
    rows = [
        {"clean": {"input_values": clip, "labels": i % 2}, "augmented": {"input_values": clip.tanh(), "labels": i // 4}}
        for i, clip in enumerate(clips)
    ]
    defaults = {"max_steps": 4, "per_device_train_batch_size": 4, "save_strategy": "no"}
    defaults |= {"learning_rate": 0.01, "align_gradients": "pcgrad", "use_cpu": True, "report_to": [], "seed": 3}
    defaults |= {"disable_tqdm": True, "dataloader_pin_memory": False, "logging_steps": 1}
    of_trainer = ("model_init", "optimizers", "optimizer_cls_and_kwargs", "eval_dataset", "compute_metrics")
    trainer_options = {name: options.pop(name) for name in of_trainer if name in options}
    args = GradientAlignmentArguments(str(folder), **{**defaults, **options})
    return GradientAlignmentTrainer(
        model=model, args=args, train_dataset=rows, processing_class=processing_class, **trainer_options
    )
