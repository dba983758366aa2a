import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hf_gradalign.training import average_checkpoints, average_state_dicts


def save(tmp_path, states):
    paths = []
    for i, state in enumerate(states):
        (tmp_path / str(i)).mkdir()
        save_file(state, tmp_path / str(i) / "model.safetensors")
        paths.append(tmp_path / str(i))
    return paths


def test_average_is_the_exact_mean(tmp_path):
    # A running average of averages would give the last checkpoint the most weight.
    states = [{"w": torch.tensor([float(i)]), "h": torch.tensor([i], dtype=torch.bfloat16)} for i in (1, 2, 6)]
    average = average_checkpoints(save(tmp_path, states))
    assert average["w"].tolist() == [3.0]
    assert average["h"].dtype == torch.bfloat16
    assert average["h"].tolist() == [3.0]


def test_sums_in_float64(tmp_path):
    states = [{"w": torch.tensor([value])} for value in (1e8, 1.0, -1e8)]
    assert average_checkpoints(save(tmp_path, states))["w"].item() == pytest.approx(1 / 3)


class LiveTensors(TorchDispatchMode):
    """Notes the most bytes of results of operations that are alive at a time."""

    def __init__(self):
        super().__init__()
        self.peak, self._results = 0, []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        self._results = [kept for kept in [*self._results, weakref.ref(result)] if kept() is not None]
        self.peak = max(self.peak, sum(kept().nbytes for kept in self._results))
        return result


def test_takes_the_memory_of_one_checkpoint(tmp_path):
    # Every process of a run averages checkpoints of gigabytes.
    states = [{f"layer_{i}": torch.full((100,), float(i + seed)) for i in range(20)} for seed in range(3)]
    saved = [load_file(path / "model.safetensors") for path in save(tmp_path, states)]
    with LiveTensors() as live:
        average_state_dicts(saved, ["a", "b", "c"])
    assert live.peak < 1.4 * sum(value.nbytes for value in states[0].values())


def test_batch_norm_counter_is_the_largest(tmp_path):
    states = []
    for steps in (3, 8, 5):
        norm = nn.BatchNorm1d(2)
        for _ in range(steps):
            norm(torch.randn(4, 2))
        states.append(norm.state_dict())
    average = average_checkpoints(save(tmp_path, states))
    assert average["num_batches_tracked"].item() == 8
    assert average["num_batches_tracked"].dtype == torch.int64
    torch.testing.assert_close(average["running_mean"], sum(state["running_mean"] for state in states) / 3)
    nn.BatchNorm1d(2).load_state_dict(average)


def test_errors(tmp_path):
    paths = save(tmp_path, [{"a": torch.ones(2), "b": torch.ones(1)}, {"a": torch.ones(3), "c": torch.ones(1)}])
    with pytest.raises(ValueError, match="not checkpoints of the same model; they differ in b, c, a"):
        average_checkpoints(paths)
    with pytest.raises(ValueError, match="nothing to average"):
        average_checkpoints([])
    with pytest.raises(FileNotFoundError, match="no weights at"):
        average_checkpoints([tmp_path])
