"""Persistent loader workers have copies of the data set, which only shared memory can change."""

import multiprocessing

import pytest
import torch
from datasets import Dataset as Table
from torch.utils.data import Dataset
from toy import make_arguments, make_trainer
from transformers import Trainer

from hf_gradalign.training.epoch_check import warn_of_lost_epochs

PERSISTENT = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}


class Epochs(Dataset):
    def __init__(self, epoch):
        self.epoch = epoch

    def set_epoch(self, epoch):
        raise NotImplementedError


def shared():
    return torch.zeros((), dtype=torch.int64).share_memory_()


@pytest.mark.parametrize(
    ("dataset", "options", "is_told"),
    [
        (Epochs(0), PERSISTENT, True),
        (Epochs(torch.zeros(())), PERSISTENT, True),
        (Epochs(0), {"dataloader_num_workers": 1}, False),
        (Epochs(shared()), PERSISTENT, False),
        (Epochs(Epochs(shared())), PERSISTENT, False),
        (Epochs(multiprocessing.Value("i", 0)), PERSISTENT, False),
        (Epochs(multiprocessing.RawValue("i", 0)), PERSISTENT, False),
        (Table.from_dict({"x": [1]}).to_iterable_dataset(), PERSISTENT, False),
        ([1, 2], PERSISTENT, False),
    ],
)
def test_epochs_that_get_lost(tmp_path, caplog, dataset, options, is_told):
    warn_of_lost_epochs(dataset, make_arguments(tmp_path, **options))
    assert ("does not reach workers that are running" in caplog.text) == is_told


def test_told_when_training_starts(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(Trainer, "_inner_training_loop", lambda *args, **kwargs: None)
    make_trainer(tmp_path, Epochs(0), **PERSISTENT).train()
    assert "does not reach workers that are running" in caplog.text
