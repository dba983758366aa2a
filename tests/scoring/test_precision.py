"""What suits the machine."""

import os

import pytest
import torch

from hf_gradalign.scoring.model_loading import suitable_workers


@pytest.mark.parametrize(
    ("cores", "processes", "device", "workers"),
    [(2, 1, "cpu", 2), (1, 1, "cpu", 1), (64, 1, "cpu", 2), (16, 1, "cuda", 12), (8, 1, "cuda", 7), (8, 4, "cuda", 1),
     (1, 1, "cuda", 1)],
)  # fmt: skip
def test_loader_workers_suit_the_machine(monkeypatch, cores, processes, device, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert suitable_workers(torch.device(device)) == workers
