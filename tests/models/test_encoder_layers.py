"""Freezing the first layers of any encoder, also of classifiers of transformers itself."""

import pytest
from tiny_detectors import FAMILIES, make_classifier, make_clips, make_detector
from torch import nn
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertForSequenceClassification

from hf_gradalign.models.encoder_layers import encoder_depths, encoder_of, freeze_layers, transformer_layers


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_frozen_layers_of_a_classifier_take_no_backward_pass(family, count):
    model = make_classifier(family).train()
    freeze_layers(encoder_of(model), count)
    states = model(make_clips(), output_hidden_states=True).hidden_states
    assert [state.requires_grad for state in states] == [index > count for index in range(3)]
    assert all(parameter.requires_grad for parameter in model.classifier.parameters())


@pytest.mark.parametrize("stable", [False, True])
def test_depths(stable):
    model = make_classifier(do_stable_layer_norm=stable)
    encoder = encoder_of(model)
    depths = encoder_depths(encoder, transformer_layers(encoder))
    by_name = {name: depths[parameter] for name, parameter in encoder.named_parameters()}
    assert by_name.pop("encoder.layer_norm.weight") == by_name.pop("encoder.layer_norm.bias") == (3 if stable else 0)
    for name, depth in by_name.items():
        assert depth == (int(name.split(".")[2]) + 1 if name.startswith("encoder.layers.") else 0), name


def test_an_encoder_that_takes_features():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = Wav2Vec2BertConfig(**sizes, feature_projection_input_dim=8, classifier_proj_size=8)
    model = Wav2Vec2BertForSequenceClassification(config)
    freeze_layers(encoder_of(model), 1)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    starts = ("wav2vec2_bert.encoder.layers.1.", "classifier.", "projector.")
    assert {name for name, _ in model.named_parameters() if name.startswith(starts)} == trained


def test_models_without_layers():
    assert encoder_of(nn.Linear(2, 2)) is None
    assert encoder_of(make_detector()) is not None
    encoder = nn.Sequential(nn.Linear(2, 2))
    assert transformer_layers(encoder) is None
    with pytest.raises(ValueError, match="Sequential has no list of transformer layers to freeze"):
        freeze_layers(encoder, 1)


def test_more_layers_than_there_are():
    encoder = encoder_of(make_classifier())
    for count in (3, -1):
        with pytest.raises(ValueError, match=f"the encoder has 2 layers, cannot freeze {count}"):
            freeze_layers(encoder, count)
    assert all(parameter.requires_grad for parameter in encoder.parameters())
