"""Invariant 4: a resumed run is the uninterrupted one, to the bit, on any number of loader workers."""

import shutil

import pytest
import torch
from toy import ToyViews, make_arguments, make_model, make_trainer, weights_of
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


@pytest.mark.parametrize("method", ["pcgrad", "gradvac"])
@pytest.mark.parametrize("stop", [2, 4, 5])
def test_toy_resumes(tmp_path, method, stop):
    # Four updates an epoch, two micro-batches an update: in mid-epoch, and between epochs.
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
    shutil.copytree(tmp_path / "whole" / f"checkpoint-{stop}", tmp_path / "resumed" / f"checkpoint-{stop}")
    resumed.train(resume_from_checkpoint=True)
    assert_same_bits(weights_of(whole), weights_of(resumed))
    assert resumed.alignment_method.state_dict() == whole.alignment_method.state_dict()
    assert resumed.conflict_record.state_dict() == whole.conflict_record.state_dict()
    # The base class's own "loss" begins anew with a resume, as does what it says of speed.
    drop = ("loss", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos")
    for row, other in zip(whole.state.log_history, resumed.state.log_history, strict=True):
        assert {k: v for k, v in row.items() if k not in drop} == {k: v for k, v in other.items() if k not in drop}


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
        folder = tmp_path / f"resumed-{workers}"
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{stop}", folder / f"checkpoint-{stop}")
        resumed = trainer(folder.name, workers)
        resumed.train(resume_from_checkpoint=True)
        assert_same_bits(weights_of(whole), weights_of(resumed))
