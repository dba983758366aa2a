"""Invariant: augmentation on the device gives the same run as augmentation in the loader's workers."""

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, ClassLabel, Dataset
from test_resumption import TINY, assert_same_bits, resume_at
from toy import ToyViews, largest_difference, make_arguments, make_trainer, weights_of
from transformers import Wav2Vec2ForSequenceClassification

from hf_gradalign.augmentation import RawBoost
from hf_gradalign.data import DeferredAugmentation, ViewCollator, ViewDataset
from hf_gradalign.models import LABEL2ID, small_feature_extractor, small_wav2vec2_config
from hf_gradalign.training import GradientAlignmentTrainer


@pytest.fixture
def clips(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(10):
        length = 3000 + 1500 * number
        tone = 0.3 * np.sin(np.arange(length) ** 1.3 * 0.01 * (1 + number % 2)) + rng.normal(0, 0.02, length)
        paths.append(str(tmp_path / f"{number}.wav"))
        soundfile.write(paths[-1], tone, 16_000)
    rows = {"audio": paths, "utterance_id": paths, "label": [number % 2 for number in range(10)]}
    return (
        Dataset.from_dict(rows)
        .cast_column("audio", Audio(decode=False))
        .cast_column("label", ClassLabel(names=["spoof", "bonafide"]))
    )


def speech_trainer(folder, clips, *, on_device, augment="utterance", **options):
    torch.manual_seed(0)
    extractor = small_feature_extractor()
    defaults = {"max_steps": 5, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    return GradientAlignmentTrainer(
        model=Wav2Vec2ForSequenceClassification(small_wav2vec2_config(**TINY)),
        args=make_arguments(folder, **{**defaults, "align_gradients": "pcgrad", "learning_rate": 0.01, **options}),
        train_dataset=ViewDataset(
            clips,
            {"clean": None, "augmented": RawBoost()},
            sampling_rate=16_000,
            window_seconds=0.5,
            rms_level=0.1,
            seed=1,
            label2id=LABEL2ID,
            augment=augment,
            defer=on_device,
        ),
        data_collator=ViewCollator(extractor),
        batch_transform=DeferredAugmentation(extractor) if on_device else None,
    )


@pytest.mark.parametrize("augment", [pytest.param("utterance", marks=pytest.mark.slow), "window"])
def test_the_same_weights(tmp_path, clips, augment):
    trainers = []
    for on_device in (False, True):  # one after the other, for the same dropout
        trainers.append(speech_trainer(tmp_path / str(on_device), clips, on_device=on_device, augment=augment))
        start = weights_of(trainers[-1])
        trainers[-1].train()
    moved = largest_difference(start, weights_of(trainers[0]))
    assert largest_difference(*map(weights_of, trainers)) < 1e-3 * moved
    assert trainers[0].state.total_flos == trainers[1].state.total_flos
    logs = [[row["loss_augmented"] for row in trainer.state.log_history if "loss" in row] for trainer in trainers]
    np.testing.assert_allclose(*logs, rtol=1e-4)


def test_resumes_to_the_bit(tmp_path, clips):
    def trainer(folder, workers):
        return speech_trainer(
            tmp_path / folder,
            clips,
            on_device=True,
            save_strategy="steps",
            save_steps=1,
            dataloader_num_workers=workers,
        )

    whole = trainer("whole", 0)
    whole.train()
    resume_at(3, whole, trainer("resumed", 1))


def test_a_batch_transform_sees_what_is_trained_on_and_nothing_else(tmp_path):
    """`batch_transform` works for any modality: here it makes the second view from the first."""
    seen = []

    def add_view(batch):
        seen.append(next(iter(batch)))
        return {"clean": batch["clean"], "augmented": {**batch["clean"], "x": batch["clean"]["x"].roll(1, 0) * 2}}

    trainer = make_trainer(
        tmp_path / "made",
        ToyViews(views=("clean",)),
        batch_transform=add_view,
        gradient_accumulation_steps=2,
        eval_dataset=[item["clean"] for item in ToyViews(8)],
        align_gradients="pcgrad",
    )
    trainer.train()
    trainer.evaluate()
    assert seen == ["clean"] * 16
    assert trainer.last_update.views == ["clean", "augmented"]

    plain = make_trainer(tmp_path / "plain", align_gradients="pcgrad")
    same = make_trainer(tmp_path / "same", align_gradients="pcgrad", batch_transform=lambda batch: batch)
    plain.train(), same.train()
    assert_same_bits(weights_of(plain), weights_of(same))
