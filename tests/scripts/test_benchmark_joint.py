import math
import sys

import pytest
import torch


@pytest.fixture
def script(load_script):
    return load_script("benchmark_joint")


def gramian(cosine, ratio=1.0):
    return torch.tensor([[1.0, cosine * ratio], [cosine * ratio, ratio**2]], dtype=torch.float64)


def test_measures_of_a_few_updates(script):
    pairs = [
        (gramian(0.5), gramian(0.7)),
        (gramian(-0.5), gramian(-0.3, 2.0)),
        (gramian(-0.5), gramian(0.1)),
        (gramian(0.2), gramian(-0.2)),
        (gramian(math.nan), gramian(0.2)),
    ]
    measures = dict(zip(script.MEASURES, script.agreement(pairs), strict=True))
    assert measures["conflicts, model (%)"] == 50
    assert measures["conflicts, head (%)"] == 50
    assert measures["same sign (%)"] == measures["same sign by chance (%)"] == 50
    assert measures["model's conflicts that the head sees (%)"] == 50
    assert measures["mean difference of cosines"] == pytest.approx((0.2 + 0.2 + 0.6 + 0.4) / 4)
    # PCGrad's weights are (1 - c / a) / 2 and (1 - c / b) / 2 where c < 0, else one half.
    second = (abs(0.75 - 0.8) + abs(0.75 - 0.575)) / 2
    assert measures["mean difference of weights"] == pytest.approx((0 + second + 0.25 + 0.1) / 4)
    model, head = torch.tensor([0.5, -0.5, -0.5, 0.2]), torch.tensor([0.7, -0.3, 0.1, -0.2])
    expected = torch.corrcoef(torch.stack([model, head]))[0, 1]
    assert measures["correlation of cosines"] == pytest.approx(float(expected), abs=1e-6)
    assert 0.9 < measures["cosine of the two updates"] < 1


def test_the_same_gramian_agrees(script):
    pairs = [(gramian(cosine, 3.0), 0.1 * gramian(cosine, 3.0)) for cosine in (-0.5, 0.1, 0.9)]
    measures = dict(zip(script.MEASURES, script.agreement(pairs), strict=True))
    assert measures["same sign (%)"] == measures["model's conflicts that the head sees (%)"] == 100
    assert measures["same sign by chance (%)"] == pytest.approx(100 * (1 / 9 + 4 / 9))
    assert measures["correlation of cosines"] == pytest.approx(1)
    assert measures["cosine of the two updates"] == pytest.approx(1)
    assert measures["mean difference of weights"] == pytest.approx(0)


def test_cosine_of_updates_is_that_of_the_vectors(script):
    gradients = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.9, 0.2]).double()
    expected = torch.cosine_similarity(first @ gradients, second @ gradients, dim=0)
    assert script.update_cosine(gradients @ gradients.T, first, second) == pytest.approx(float(expected))
    assert script.update_cosine(torch.zeros(2, 2).double(), first, second) == 1


def test_nothing_to_compare(script):
    assert all(math.isnan(value) for value in script.agreement([]))
    assert script.spread([math.nan], 1) == "-"
    assert script.spread([1.0, 3.0], 1) == "2.0 ± 1.4"


@pytest.mark.slow
def test_prints_both_tables(script, monkeypatch, capsys, quick_options):
    monkeypatch.setattr(script, "peak_memory", lambda make_step, folder, variant, threads: (100.0, 10.0))
    words = ["--max_steps", "3", "--seeds", "0", "1", "--timing_steps", "2", "--", *quick_options(max_steps=3)]
    monkeypatch.setattr(sys, "argv", ["benchmark_joint.py", *words])
    assert script.main() == 0
    printed = capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("| ")]
    assert rows == ["updates", *script.PARTS, "step", script.PASSES, script.ALIGNED, script.JOINT]
    assert "3 updates with PCGrad, seeds 0, 1;" in printed
    assert "2 views of shape (4, 8000), 2 steps" in printed


@pytest.mark.parametrize(
    ("words", "message"), [(["--max_steps", "2"], "3 or more"), (["--timing_steps", "1"], "2 or more")]
)
def test_mistakes_are_told(script, monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["benchmark_joint.py", *words])
    with pytest.raises(SystemExit):
        script.main()
    assert message in capsys.readouterr().err
