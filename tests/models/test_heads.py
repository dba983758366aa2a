"""Small heads on random frames."""

import re

import pytest
import tiny_detectors
import torch

from hf_gradalign.models import HEADS
from hf_gradalign.models.head_conformer_tcm import sinusoids
from hf_gradalign.models.head_mamba import reverse
from hf_gradalign.models.heads import head_options

WIDTH, LAYERS = 64, 3
SMALL = tiny_detectors.SMALL | {
    "aasist": {"projection_size": 24, "channels": [4, 4, 8, 8], "attention_size": 8, "graph_sizes": [8, 4]},
    "conformer_tcm": {"size": 16, "num_blocks": 2, "num_heads": 2, "kernel_size": 5},
    "linear": {"dropout": 0.2},
    "mamba": {"size": 16, "num_blocks": 3, "state_size": 4},
}
# Biases with a zero gradient in training, because a batch norm or softmax follows, as in the published code.
WITHOUT_EFFECT = {
    "aasist": (
        r"encoder\.\d\.conv1\.bias|encoder\.3\.conv2\.bias|attention\.(norm|conv2)\.bias"
        r"|(\w+_graph|branches\.\d\.layer\d)\.(attended|itself)\.bias"
    ),
    "conformer_tcm": r"blocks\.\d\.convolution\.depthwise\.bias",
    "mamba": r"(forward|backward)_pool\.bias",
    "mhfa": r"key\.bias",
    "nes2net": r"norms\.2\.bias",  # of the last block, whose output is only normalized again
}
EVERY = pytest.mark.parametrize("name", HEADS)


def make_head(name, **options):
    """A head in evaluation mode with nontrivial batch norm statistics."""
    torch.manual_seed(0)
    head = HEADS[name](WIDTH, LAYERS, 2, **{**SMALL[name], **options}).eval()
    for module in head.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    return head


def make_frames(batch=4, length=40, seed=1, dtype=torch.float32):
    """Inputs of a head: frames of all layers of the backbone."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, length, WIDTH, generator=generator, dtype=dtype) for _ in range(LAYERS))


def apply(head, layers, mask=None):
    return head(layers if getattr(head, "takes_all_layers", False) else layers[-1], mask)


def test_every_head_is_tested():
    assert set(SMALL) == set(HEADS)


@EVERY
@pytest.mark.parametrize("small", [True, False], ids=["small", "published size"])
def test_a_padded_clip_gets_the_logits_that_it_gets_alone(name, small):
    head = make_head(name) if small else make_head(name, **head_options(name))
    lengths = [40, 6, 25, 13, 3]
    layers = make_frames(len(lengths))
    mask = torch.arange(40) < torch.tensor(lengths)[:, None]
    padded = tuple(torch.where(mask[:, :, None], layer, 100.0) for layer in layers)
    with torch.no_grad():
        together = apply(head, padded, mask)
        alone = [apply(head, tuple(x[i : i + 1, :n] for x in layers)) for i, n in enumerate(lengths)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    assert together.std(0).min() > 1e-4  # the clips differ


def test_aasist_keeps_as_many_nodes_of_a_padded_clip_as_of_it_alone():
    """0.7 of 90 nodes are 62 in double precision, 63 in single."""
    head = make_head("aasist", pool_ratios=[0.5, 0.7, 0.5])
    layers = make_frames(2, 330)
    mask = torch.arange(330) < torch.tensor([330, 270])[:, None]
    with torch.no_grad():
        together = apply(head, layers, mask)
        alone = apply(head, tuple(x[1:, :270] for x in layers))
    assert int(90 * 0.7) == 62
    assert torch.allclose(together[1:], alone, atol=1e-6)


@EVERY
def test_full_mask_changes_nothing(name):
    head, layers = make_head(name), make_frames()
    assert torch.allclose(apply(head, layers, torch.ones(4, 40, dtype=torch.bool)), apply(head, layers), atol=1e-5)


@EVERY
def test_training_with_padding_gives_finite_gradients(name):
    head = make_head(name).train()
    mask = torch.arange(40) < torch.tensor([40, 5, 25, 13])[:, None]
    layers = tuple(layer.requires_grad_() for layer in make_frames())
    apply(head, layers, mask).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    assert layers[-1].grad.isfinite().all()


@EVERY
def test_logits_depend_on_every_parameter(name):
    head = make_head(name).double().train()
    logits = apply(head, make_frames(6, dtype=torch.float64))
    (logits * torch.randn_like(logits)).sum().backward()
    size = {key: parameter.grad.abs().max().item() for key, parameter in head.named_parameters()}
    idle = re.compile(WITHOUT_EFFECT.get(name, "none"))
    assert {key for key, value in size.items() if value < 1e-9} == {key for key in size if idle.fullmatch(key)}


@EVERY
def test_evaluation_depends_on_every_frame(name):
    head, layers = make_head(name, **({"n_frames": 40} if name == "sls" else {})), make_frames(1, 39)
    layers = tuple(layer.requires_grad_() for layer in layers)
    apply(head, layers)[0, 0].backward()
    used = layers if name in ("mhfa", "sls") else layers[-1:]
    if name == "sls":  # not the input of the encoder's first layer
        assert layers[0].grad is None
        used = layers[1:]
    for layer in used:
        share = (layer.grad[0].abs().amax(1) > 0).double().mean()
        assert share == 1 if name != "aasist" else share > 0.8  # its max-pooling may ignore a frame


@EVERY
def test_half_precision(name):
    head, layers = make_head(name).train(), make_frames()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = apply(head, layers, torch.arange(40) < torch.tensor([40, 9, 25, 13])[:, None])
        loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 0, 1]))
    loss.backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in head.parameters())
    head.eval()
    plain = apply(head, layers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = apply(head, layers)
    assert torch.allclose(autocast.float(), plain, atol=0.1)
    halved = apply(head.bfloat16(), tuple(layer.bfloat16() for layer in layers))
    assert halved.dtype == torch.bfloat16
    assert torch.allclose(halved.float(), plain, atol=0.2)


@EVERY
def test_more_labels_than_two(name):
    torch.manual_seed(0)
    head = HEADS[name](WIDTH, LAYERS, 5, **SMALL[name]).eval()
    assert apply(head, make_frames()).shape == (4, 5)


def test_conformer_heads_must_divide_its_width():
    with pytest.raises(ValueError, match=r"num_heads \(3\) must divide size \(16\)"):
        make_head("conformer_tcm", num_heads=3)


def test_conformer_has_ten_thousand_positions():
    head = make_head("conformer_tcm", size=8, num_blocks=1)
    with torch.no_grad():
        assert head(torch.randn(1, 10_000, WIDTH)).isfinite().all()
        with pytest.raises(ValueError, match=r"at most 10000 frames, got 10001"):
            head(torch.randn(1, 10_001, WIDTH))
    assert "positions" in head.state_dict()
    assert "positions" not in dict(head.named_parameters())


@pytest.mark.parametrize("kernel_size", [3, 4, 31, 32])
def test_conformer_convolution_keeps_the_length(kernel_size):
    head = make_head("conformer_tcm", kernel_size=kernel_size)
    convolution, x = head.blocks[0].convolution, torch.randn(2, 17, 16)
    assert convolution(x, None).shape == x.shape


def test_sinusoids():
    table = sinusoids(50, 6)
    for position in (0, 1, 49):
        for channel in range(3):
            angle = torch.tensor(position / 10_000 ** (2 * channel / 6))
            assert torch.allclose(table[0, position, 2 * channel], angle.sin(), atol=1e-5)
            assert torch.allclose(table[0, position, 2 * channel + 1], angle.cos(), atol=1e-5)
    assert sinusoids(3, 5).shape == (1, 3, 5)


def test_sls_repeats_and_crops_to_its_frames():
    head = make_head("sls", n_frames=30)
    layers = make_frames(2, 12)
    repeated = tuple(layer.repeat(1, 3, 1)[:, :30] for layer in layers)
    # The gate uses the mean of the clip, not of its repetition: use whole repetitions.
    head.gate.weight.data.zero_()
    assert torch.allclose(apply(head, layers), apply(head, repeated), atol=1e-6)
    long = make_frames(2, 50)
    assert torch.allclose(apply(head, long), apply(head, tuple(layer[:, :30] for layer in long)), atol=1e-6)


def test_sls_refuses_to_discard_frames_in_training():
    head = make_head("sls", n_frames=30).train()
    apply(head, make_frames(2, 32))  # 32 and 30 frames both fill ten pooling windows
    with pytest.raises(ValueError, match=r"takes 30 frames \(n_frames\) and would discard .* of 33 frames"):
        apply(head, make_frames(2, 33))


def test_sls_gate_sees_the_whole_clip():
    head, layers = make_head("sls", n_frames=30), make_frames(1, 50)
    louder = tuple(torch.cat([layer[:, :30], layer[:, 30:] + 3], 1) for layer in layers)
    assert not torch.allclose(apply(head, layers), apply(head, louder), atol=1e-4)


def test_mamba_last_blocks_are_saved_and_not_trained():
    head = make_head("mamba")
    buffers, parameters = dict(head.named_buffers()), dict(head.named_parameters())
    for column in ("forward_column", "backward_column"):
        first = {key.removeprefix(f"{column}.0.") for key in parameters if key.startswith(f"{column}.0.")}
        assert "mixer.A_log" in first
        last = {f"{column}.2.{key}" for key in first}
        assert last <= buffers.keys() & head.state_dict().keys()
        assert not last & parameters.keys()
    before = apply(head, make_frames())
    for column in (head.forward_column, head.backward_column):
        column[-1].mixer.A_log.fill_(3.0)
    assert torch.equal(apply(head, make_frames()), before)
    other = make_head("mamba")
    other.load_state_dict(head.state_dict())
    assert (other.backward_column[-1].mixer.A_log == 3.0).all()


def test_mamba_turns_each_clip_around_and_leaves_its_padding():
    x = torch.arange(1.0, 11).view(2, 5, 1)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    assert reverse(x, mask)[:, :, 0].tolist() == [[3, 2, 1, 0, 0], [10, 9, 8, 7, 6]]
    assert torch.equal(reverse(x, None), x.flip(1))


def test_mamba_columns_look_forward_and_backward():
    """The output of a block does not depend on later frames."""
    block, x = make_head("mamba").forward_column[0], torch.randn(1, 20, 16)
    changed = x.clone()
    changed[:, 12] += 1
    before, after = block(x), block(changed)
    assert torch.allclose(before[:, :12], after[:, :12], atol=1e-6)
    assert not torch.allclose(before[:, 12:], after[:, 12:], atol=1e-4)


def test_mhfa_is_its_formula():
    """arXiv 2210.01273, equations 1 to 4, head by head."""
    head, layers = make_head("mhfa"), make_frames(1)
    with torch.no_grad():
        head.key_layers.copy_(torch.tensor([0.3, -1.0, 2.0]))
        head.value_layers.copy_(torch.tensor([1.0, 0.0, -0.5]))
        stack = torch.stack(layers)[:, 0]  # (L, T, D)
        weighted = [torch.einsum("l,ltd->td", w.softmax(0), stack) for w in (head.key_layers, head.value_layers)]
        keys, values = head.key(weighted[0]), head.value(weighted[1])
        attention = (keys @ head.query.weight.T).softmax(0)  # (T, H)
        pooled = [sum(attention[t, h] * values[t] for t in range(40)) for h in range(2)]
        expected = head.classifier(head.embedding(torch.cat(pooled)))
        assert torch.allclose(apply(head, layers)[0], expected, atol=1e-5)


def test_sls_is_its_formula():
    head, layers = make_head("sls", n_frames=40), make_frames(1)
    with torch.no_grad():
        picture = torch.zeros(40, WIDTH)
        for layer in layers[1:]:
            picture += torch.sigmoid(layer[0].mean(0) @ head.gate.weight[0] + head.gate.bias) * layer[0]
        norm = head.norm
        picture = (picture - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        picture = torch.nn.functional.selu(picture)
        pooled = picture[:39, :63].reshape(13, 3, 21, 3).amax((1, 3))
        hidden = torch.nn.functional.selu(pooled.flatten() @ head.hidden.weight.T + head.hidden.bias)
        assert torch.allclose(apply(head, layers)[0], head.classifier(hidden), atol=1e-5)
        published = torch.nn.functional.selu(head.classifier(hidden)).log_softmax(0)
        head.log_probabilities = True
        assert torch.allclose(apply(head, layers)[0], published, atol=1e-5)


def test_sls_refuses_a_single_label():
    with pytest.raises(ValueError, match="log_probabilities of sls need at least two labels"):
        HEADS["sls"](WIDTH, LAYERS, 1, log_probabilities=True)


def nes2net_variants(**sizes):
    for variant in ("nes2net", "nes2net_x"):
        for pooling in ("mean", "attentive"):
            yield {"variant": variant, "pooling": pooling, "num_groups": 4, "num_scales": 3, **sizes}


@pytest.mark.parametrize("options", nes2net_variants(activation="selu", attention_size=7), ids=str)
def test_every_nes2net_hides_padding_and_trains(options):
    """A padded clip gets the logits that it gets alone, and each parameter has an effect."""
    head, layers = make_head("nes2net", **options), make_frames(3)
    lengths = [40, 6, 25]
    mask = torch.arange(40) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        together = apply(head, tuple(torch.where(mask[:, :, None], layer, 100.0) for layer in layers), mask)
        alone = [apply(head, tuple(x[i : i + 1, :n] for x in layers)) for i, n in enumerate(lengths)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    apply(head.double().train(), make_frames(6, dtype=torch.float64)).square().sum().backward()
    # A softmax removes the bias before it, and a batch norm the one before it.
    idle = {name for name, p in head.named_parameters() if p.grad.abs().max() < 1e-9}
    assert idle == {"norms.2.bias"} | ({"pooling.score.bias"} if options["pooling"] == "attentive" else set())


@pytest.mark.parametrize("options", nes2net_variants(dilation=2, activation="selu"), ids=str)
def test_nes2net_is_its_formula(options):
    """Group by group and column by column, with the weights of the head."""
    head, frames = make_head("nes2net", **options), make_frames(1)[-1]
    selu = torch.nn.functional.selu
    with torch.no_grad():
        groups = frames.mT.split(16, 1)
        x, outer = 0, []
        for block, norm, group in zip(head.blocks, head.norms, groups[:3], strict=True):
            inside = x + group
            scales = block.norm1(selu(block.conv1(inside))).split(5, 1)
            assert block.conv1.weight.shape == (15, 16, 1)
            if options["variant"] == "nes2net":
                first = block.norms[0](selu(block.convs[0](scales[0])))
                mixed = [first, block.norms[1](selu(block.convs[1](first + scales[1])))]
            else:

                def step(index, column, block=block):
                    norm = block.norms[index]
                    y = selu(block.convs[index](column[..., None]))[..., 0]
                    shape = (1, -1, 1)
                    y = (y - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
                    return y * norm.weight.view(shape) + norm.bias.view(shape)

                columns, mixed = [scales[2]], []
                for index in range(2):
                    columns = [step(index, column) for column in [*columns, scales[index]]]
                    weights = block.sums[index].weight.flatten()
                    assert torch.allclose(weights, torch.full((index + 2,), 1 / (index + 2)))
                    mixed.append(sum(w * column for w, column in zip(weights, columns, strict=True)))
            y = block.norm2(selu(block.conv2(torch.cat([*mixed, scales[2]], 1))))
            gate = block.excite(block.squeeze(y.mean(2, keepdim=True)).relu()).sigmoid()
            x = norm(selu(y * gate + inside))
            outer.append(x)
        z = selu(head.norm(torch.cat([*outer, groups[3]], 1)))
        if options["pooling"] == "attentive":
            attention = head.pooling.score(head.pooling.hidden(z).tanh()).softmax(2)
            mean = (attention * z).sum(2)
            pooled = torch.cat([mean, ((attention * (z - mean[:, :, None]) ** 2).sum(2)).sqrt()], 1)
        else:
            pooled = z.mean(2)
        assert torch.allclose(apply(head, (frames,)), head.classifier(pooled), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "x"}, "variant of nes2net must be nes2net or nes2net_x, got 'x'"),
        ({"activation": "gelu"}, "activation of nes2net must be relu or selu, got 'gelu'"),
        ({"pooling": "max"}, "pooling of nes2net must be mean or attentive, got 'max'"),
        ({"num_groups": 5}, "num_groups of nes2net must be at least 2 and divide the width of 64, got 5"),
        ({"num_groups": 1}, "num_groups of nes2net must be at least 2 and divide the width of 64, got 1"),
        ({"num_scales": 17}, r"at most 16, the width of a group \(64 / 4\), got 17"),
    ],
)
def test_nes2net_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        make_head("nes2net", **options)
