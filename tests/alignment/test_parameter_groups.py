import math

import pytest
import torch

from hf_gradalign.alignment import ParameterGroups, check_scope

NAMES = [
    "encoder.masked_embedding",
    "encoder.features.0.conv.weight",
    "encoder.features.1.conv.weight",
    "encoder.layers.0.attention.weight",
    "encoder.layers.0.experts.3.weight",
    "encoder.layers.1.attention.weight",
    "encoder.norm.weight",
    "encoder.norm.bias",
    "classifier.weight",
    "classifier.bias",
    "scale",
]


def members(groups):
    """Names by group; None for those in no group."""
    sorted_names = {}
    for name, index in zip(groups.names, groups.index, strict=True):
        sorted_names.setdefault(None if index is None else groups.groups[index], []).append(name)
    return sorted_names


def test_model_scope_has_one_group():
    groups = ParameterGroups(NAMES)
    assert groups.groups == ["model"]
    assert groups.index == [0] * len(NAMES)


def test_parameter_scope_has_one_group_per_parameter():
    groups = ParameterGroups(NAMES, "parameter")
    assert groups.groups == NAMES
    assert groups.index == list(range(len(NAMES)))


def test_module_scope_has_one_group_per_layer_or_module():
    assert members(ParameterGroups(NAMES, "module")) == {
        "encoder": ["encoder.masked_embedding"],
        "encoder.features.0": ["encoder.features.0.conv.weight"],
        "encoder.features.1": ["encoder.features.1.conv.weight"],
        "encoder.layers.0": ["encoder.layers.0.attention.weight", "encoder.layers.0.experts.3.weight"],
        "encoder.layers.1": ["encoder.layers.1.attention.weight"],
        "encoder.norm": ["encoder.norm.weight", "encoder.norm.bias"],
        "classifier": ["classifier.weight", "classifier.bias"],
        "scale": ["scale"],
    }


def test_layers_of_a_real_model():
    from transformers import Wav2Vec2ForSequenceClassification

    from hf_gradalign.models import small_wav2vec2_config

    model = Wav2Vec2ForSequenceClassification(small_wav2vec2_config(num_hidden_layers=3))
    groups = ParameterGroups([name for name, _ in model.named_parameters()], "module").groups
    assert [name for name in groups if "encoder.layers" in name] == [f"wav2vec2.encoder.layers.{i}" for i in range(3)]
    assert sum("conv_layers" in name for name in groups) == 5
    assert {"projector", "classifier"} <= set(groups)


def test_prefixes_of_modules():
    modules = ["encoder.layers", "encoder.layers.1", "classifier", "encoder.norm.bias"]
    assert members(ParameterGroups(NAMES, "module", modules=modules)) == {
        "other": [*NAMES[:3], "encoder.norm.weight", "scale"],
        "encoder.layers": NAMES[3:5],
        "encoder.layers.1": [NAMES[5]],  # the longest prefix wins
        "encoder.norm.bias": ["encoder.norm.bias"],
        "classifier": ["classifier.weight", "classifier.bias"],
    }


def test_prefixes_match_whole_names():
    groups = ParameterGroups(["layers.1.weight", "layers.11.weight"], "module", modules=["layers.1"])
    assert groups.groups == ["layers.1", "other"]


@pytest.mark.parametrize("scope", ["model", "module", "parameter"])
def test_patterns(scope):
    groups = ParameterGroups(NAMES, scope, patterns=[r"layers\.\d+", "^classifier"])
    taking = [name for name, index in zip(NAMES, groups.index, strict=True) if index is not None]
    assert taking == [*NAMES[3:6], "classifier.weight", "classifier.bias"]
    assert sorted(set(groups.index) - {None}) == list(range(len(groups.groups)))


def test_prefixes_of_wrappers_are_removed():
    names = [
        "module.layers.0._checkpoint_wrapped_module.weight",
        "_orig_mod.layers.0.bias",
        "layers.1._fsdp_wrapped_module._orig_mod.weight",
    ]
    groups = ParameterGroups(names, "module")
    assert groups.names == ["layers.0.weight", "layers.0.bias", "layers.1.weight"]
    assert groups.groups == ["layers.0", "layers.1"]


def test_gramians_are_the_sums_of_their_members():
    torch.manual_seed(0)
    gradients = torch.randn(len(NAMES), 2, 7)
    products = gradients @ gradients.mT
    torch.testing.assert_close(ParameterGroups(NAMES).gramians(products), products.sum(0, keepdim=True))
    torch.testing.assert_close(ParameterGroups(NAMES, "parameter").gramians(products), products)
    groups = ParameterGroups(NAMES, "module", patterns=["encoder"])
    gramians = groups.gramians(products)
    assert gramians.dtype == torch.float32
    assert gramians.shape == (len(groups.groups), 2, 2)
    for position, name in enumerate(groups.groups):
        inside = [i for i, index in enumerate(groups.index) if index == position]
        assert inside, name
        torch.testing.assert_close(gramians[position], products[inside].sum(0))
    torch.testing.assert_close(gramians, groups.gramians(products))  # the second time from the cache


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_non_finite_values_stay_in_their_group(bad):
    products = torch.ones(4, 2, 2)
    products[1, 0, 1] = bad
    products[3] = bad
    groups = ParameterGroups(["a.weight", "b.weight", "b.bias", "c.weight"], "module", patterns=["a", "b"])
    gramians = groups.gramians(products)
    assert gramians[0].tolist() == [[1, 1], [1, 1]]
    assert not torch.isfinite(gramians[1, 0, 1])
    assert gramians[1, 0, 0] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "layer"}, "scope must be one of model, module, parameter, got 'layer'"),
        ({"scope": "parameter", "modules": ["encoder"]}, r"prefixes of modules \(encoder\) need the .* scope 'module'"),
        ({"patterns": ["("]}, r"'\(' is not a regular expression: "),
    ],
)
def test_errors_without_a_model(options, message):
    with pytest.raises(ValueError, match=message):
        check_scope(**{"scope": "model", "modules": None, "patterns": None, **options})
    with pytest.raises(ValueError, match=message):
        ParameterGroups(NAMES, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"patterns": ["encoder", "head"]},
            "no parameter's name matches 'head'; there are encoder",
        ),
        ({"scope": "module", "modules": ["layers"]}, r"no parameter is in a module 'layers'; .*\.\.\. \(11 in total\)"),
    ],
)
def test_names_without_a_match(options, message):
    with pytest.raises(ValueError, match=message):
        ParameterGroups(NAMES, **options)
