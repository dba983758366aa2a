"""Invariant 4: a resumed run equals the uninterrupted one to the bit, with any number of loader workers."""

import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import IterableDataset
from toy import ToyViews, make_arguments, make_model, make_trainer, timeless, weights_of
from transformers import Wav2Vec2ForSequenceClassification

from hf_gradalign.augmentation import RawBoost
from hf_gradalign.data import ViewCollator, ViewDataset, load_corpus
from hf_gradalign.models import ID2LABEL, LABEL2ID, small_feature_extractor, small_wav2vec2_config
from hf_gradalign.training import GradientAlignmentTrainer

TINY = {"conv_dim": (8, 8), "conv_stride": (10, 8), "conv_kernel": (10, 8), "hidden_size": 16, "num_hidden_layers": 1}
TINY |= {"num_attention_heads": 2, "intermediate_size": 16, "num_conv_pos_embedding_groups": 2}


def assert_same_bits(first, second):
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def assert_same_log(first, second):
    assert timeless(first.state.log_history) == timeless(second.state.log_history)


def resume_at(step, whole, resumed):
    """Resume `resumed` from a checkpoint of `whole`, and compare."""
    name = f"checkpoint-{step}"
    shutil.copytree(Path(whole.args.output_dir, name), Path(resumed.args.output_dir, name))
    resumed.train(resume_from_checkpoint=True)
    assert_same_bits(weights_of(whole), weights_of(resumed))
    assert_same_log(whole, resumed)


# Each method stops within an epoch, and one of them later; all others are slow.
@pytest.mark.parametrize(
    ("method", "stop"),
    [
        pytest.param(method, stop, marks=[] if stop == 2 or (method, stop) == ("gradvac", 5) else pytest.mark.slow)
        for method in ("pcgrad", "gradvac", "crmogm(gradvac)", "pcd")
        for stop in (2, 4, 5)
    ],
)
def test_toy_resumes(tmp_path, method, stop):
    # Four updates per epoch, two micro-batches per update: within an epoch, and between epochs.
    def trainer(folder, **options):
        model = make_model(dropout=0.2)
        return make_trainer(
            tmp_path / folder,
            ToyViews(),
            model,
            align_gradients=method,
            per_device_train_batch_size=6,
            gradient_accumulation_steps=2,
            save_strategy="steps",
            save_steps=1,
            logging_steps=3,
            **options,
        )

    whole = trainer("whole")
    whole.train()
    resumed = trainer("resumed")
    resume_at(stop, whole, resumed)
    assert resumed.alignment_method.state_dict() == whole.alignment_method.state_dict()
    assert resumed.conflict_counts.state_dict() == whole.conflict_counts.state_dict()
    assert resumed.state.total_flos == whole.state.total_flos


@pytest.mark.parametrize("stop", [4, 6, 8, 9])
def test_what_an_epoch_ends_with_is_done_once(tmp_path, stop):
    # Four updates per epoch. The base class would save before it evaluates and logs, and resume after both.
    def trainer(folder):
        return make_trainer(
            tmp_path / folder,
            eval_dataset=[item["clean"] for item in ToyViews(8)],
            max_steps=9,
            save_strategy="steps",
            save_steps=1,
            eval_strategy="epoch",
            logging_strategy="epoch",
            metric_for_best_model="loss",
        )

    whole = trainer("whole")
    whole.train()
    assert [row["step"] for row in whole.state.log_history if "eval_loss" in row] == [4, 8, 9]
    resume_at(stop, whole, trainer("resumed"))


class Stream(IterableDataset):
    """A stream of 48 items that is read in another order each time, and does not know how many they are."""

    def __init__(self):
        self.views, self.epoch = ToyViews(), 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        order = torch.randperm(48, generator=torch.Generator().manual_seed(self.epoch))
        return map(self.views.__getitem__, order.tolist())


@pytest.mark.parametrize("stop", [3, 4, 7, 8])
def test_a_stream_of_ones_own_resumes_in_any_pass(tmp_path, stop):
    options = {"save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 6, "logging_steps": 3}
    options |= {"gradient_accumulation_steps": 2, "align_gradients": "gradvac"}  # four updates a pass
    whole = make_trainer(tmp_path / "whole", Stream(), max_steps=9, **options)
    whole.train()
    for end in (9, 8):  # a run of eight updates can be resumed to make nine
        first = make_trainer(tmp_path / str(end), Stream(), max_steps=end, **options)
        first.train()
        resumed = make_trainer(tmp_path / "resumed", Stream(), max_steps=9, **options)
        resumed.train(resume_from_checkpoint=str(tmp_path / str(end) / f"checkpoint-{stop}"))
        assert_same_bits(weights_of(resumed), weights_of(whole))


@pytest.mark.parametrize(
    "stop", [4, *(pytest.param(step, marks=[pytest.mark.slow, pytest.mark.long]) for step in (1, 3, 6))]
)
def test_workers_that_persist(tmp_path, stop):
    # Before and after the first evaluation, which starts workers too; in the first and at the end of an epoch.
    def trainer(folder):
        return make_trainer(
            tmp_path / folder,
            model=make_model(dropout=0.2),
            eval_dataset=[item["clean"] for item in ToyViews(8)],
            max_steps=9,
            align_gradients="gradvac",
            save_strategy="steps",
            save_steps=1,
            eval_strategy="steps",
            eval_steps=2,
            logging_steps=1,
            dataloader_num_workers=1,
            dataloader_persistent_workers=True,
        )

    whole = trainer("whole")
    whole.train()
    resume_at(stop, whole, trainer("resumed"))


@pytest.mark.slow
def test_speech_resumes_on_other_workers(tmp_path):
    clips = load_corpus(None)["train"].select(range(0, 519, 40))

    def trainer(folder, workers):
        torch.manual_seed(0)
        return GradientAlignmentTrainer(
            model=Wav2Vec2ForSequenceClassification(small_wav2vec2_config(**TINY)),
            args=make_arguments(
                tmp_path / folder,
                max_steps=7,
                per_device_train_batch_size=4,
                align_gradients="gradvac",
                save_strategy="steps",
                save_steps=1,
                dataloader_num_workers=workers,
                dataloader_persistent_workers=workers > 0,
            ),
            train_dataset=ViewDataset(
                clips,
                {"clean": None, "augmented": RawBoost()},
                sampling_rate=16_000,
                window_seconds=0.25,
                crop="random",
                seed=1,
                label2id=LABEL2ID,
            ),
            data_collator=ViewCollator(small_feature_extractor()),
        )

    whole = trainer("whole", workers=0)
    whole.train()
    assert set(ID2LABEL.values()) == set(LABEL2ID)
    for workers, stop in ((0, 3), (1, 5), (4, 6)):
        resume_at(stop, whole, trainer(f"resumed-{workers}", workers))
