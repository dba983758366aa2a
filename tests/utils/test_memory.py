import torch
from apple_gpu import apple_gpu

from hf_gradalign.utils.memory import peak_memory


def test_peak_memory_is_that_of_the_device(monkeypatch):
    assert peak_memory(torch.device("cpu")) > 50  # torch alone takes more
    with apple_gpu(monkeypatch):
        assert peak_memory(torch.device("mps")) == 3
