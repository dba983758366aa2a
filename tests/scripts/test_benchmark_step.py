import copy
import json

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hf_gradalign.alignment import ViewGradients, get_method

TINY = {"conv_dim": (8,) * 7, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
QUICK = ["--seconds", "0.2", "--steps", "2", "--warm_up", "0", "--threads", "1"]


@pytest.fixture
def script(load_script, monkeypatch):
    script = load_script("benchmark_step")
    monkeypatch.setitem(script.SIZES, "small", TINY)
    return script


def tables(text):
    """Rows of each table, without the line below the header."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in block if not row.startswith("|-")]
        for block in blocks
    ]


def test_compares_all_steps(script, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(script, "peak_memory", lambda make, options, name, threads: (100.0 + len(name), 10.0))
    words = ["--warm_up", "1", "--methods", "pcgrad", "cagrad", "--profile", "--json", str(tmp_path / "figures.json")]
    assert script.main([*QUICK, *words]) == 0
    times, memory, *profiles = tables(capsys.readouterr().out)
    names = ["single path", "two passes", "pcgrad", "cagrad", "published step"]
    assert [row[0] for row in times] == ["step", *names]
    assert [row[0] for row in memory] == ["step", *names]
    assert times[2][2] == "1.000 (1.000 to 1.000)"
    assert times[5][3] == "1.000x (1.000 to 1.000)"
    assert memory[2][3] == "+0 MiB, +0.00 gradients"
    assert [profile[0][0] for profile in profiles] == ["part of a step with pcgrad", "part of a step with cagrad"]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["seconds"]) == set(figures["peak_mib"]) == set(names)
    assert all(len(seconds) == 2 for seconds in figures["seconds"].values())
    parts = figures["profile"]["pcgrad"]
    for part in ("products", "method", "combining", "statistics", "swapping p.grad", "forward and backward passes"):
        assert all(0 < part_seconds < step for part_seconds, step in zip(parts[part], parts["step"], strict=True)), part


def test_bf16_is_what_the_model_computes_in(script, capsys):
    assert script.main([*QUICK, "--no-memory", "--methods", "pcgrad", "--dtype", "bf16"]) == 0
    assert "bf16 autocast" in capsys.readouterr().out
    bench = script.Workbench("small", 1, 0.2, "float32", [])
    bench._dtype = "bf16"
    with pytest.raises(RuntimeError, match=r"the model computes in \{torch.float32\}"):
        bench._check_autocast()


@pytest.mark.slow
def test_peak_memory_is_that_of_the_steps(script):
    peak, of_steps = script.peak_memory(allocate, 64, threads=1)
    assert 64 < of_steps < 80
    assert peak > of_steps


def allocate(mebibytes):
    return lambda: torch.ones(mebibytes * 2**18)


def test_a_profile_needs_something_to_compare_with(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--profile", "--variants", "ours"])
    assert "leave passes and ours among --variants" in capsys.readouterr().err


class TwoHeads(nn.Module):
    """Has a parameter that is never used."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.unused = nn.Linear(5, 7), nn.Linear(7, 2), nn.Linear(3, 3)

    def forward(self, x):
        return _Output(self.head(torch.tanh(self.body(x))))


class _Output:
    def __init__(self, logits):
        self.logits = logits


class _Accelerator:
    device = torch.device("cpu")

    def backward(self, loss, **kwargs):
        loss.backward(**kwargs)


def test_the_plain_way_gives_the_same_update(script):
    from step_cost.published_step import PublishedStep

    conflicts = 0
    for seed in range(6):
        torch.manual_seed(seed)
        model = TwoHeads()
        labels = torch.arange(4) % 2
        batch = {view: {"x": torch.randn(4, 5), "labels": labels} for view in ("clean", "augmented")}
        PublishedStep(model, _Accelerator())(batch)
        plain = copy.deepcopy([parameter.grad for parameter in model.parameters()])
        gradients = ViewGradients(model.parameters())
        for view, inputs in batch.items():
            with gradients.accumulate(view):
                cross_entropy(model(inputs["x"]).logits, inputs["labels"]).backward()
        conflicts += bool(gradients.gramian()[0, 1] < 0)
        gradients.combine(get_method("pcgrad")(gradients.gramian()))
        for parameter, expected in zip(model.parameters(), plain, strict=True):
            torch.testing.assert_close(
                torch.zeros_like(expected) if parameter.grad is None else parameter.grad, expected
            )
    assert 0 < conflicts < 6
