"""The trainer is not specific to audio: images, text, and a plain module that returns a dict."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import nn
from torch.utils.data import Dataset
from toy import largest_difference, make_arguments, weights_of
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
    default_data_collator,
)

from hf_gradalign.training import GradientAlignmentTrainer, ViewBatchCollator

N_CLASSES = 4
KEYWORDS = {0: ("red", "crimson"), 1: ("blue", "azure"), 2: ("green", "olive"), 3: ("white", "ivory")}
SAVED_AT_END = {"save_strategy": "steps", "save_steps": 60}
FILLERS = [f"word{i}" for i in range(20)]


class Images(Dataset):
    """One of four quadrants is a little brighter. The augmented view is shifted, recolored, noisy, partly erased."""

    def __init__(self, n_items, seed=0, views=True):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(n_items) % N_CLASSES
        self.images = 0.5 * torch.randn(n_items, 3, 16, 16, generator=generator)
        for image, label in zip(self.images, self.labels.tolist(), strict=True):
            row, column = divmod(label, 2)
            image[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 1.0
        self.views = views
        self.epoch = 0

    def __len__(self):
        return len(self.labels)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        clean = {"pixel_values": self.images[index], "labels": self.labels[index]}
        if not self.views:
            return clean
        return {"clean": clean, "augmented": {**clean, "pixel_values": self.augment(self.images[index], index)}}

    def augment(self, image, index):
        generator = torch.Generator().manual_seed(1000 * self.epoch + index)
        shifts = torch.randint(-2, 3, (2,), generator=generator).tolist()
        image = image.roll(shifts, (1, 2)) * (0.5 + torch.rand(3, 1, 1, generator=generator))
        image = image + 0.3 * torch.randn(image.shape, generator=generator)
        top, left = torch.randint(0, 12, (2,), generator=generator).tolist()
        image[:, top : top + 5, left : left + 5] = 0
        return image


class Texts(Dataset):
    """A sentence contains words of one class among fillers. The augmented view has masked and dropped words."""

    def __init__(self, n_items, tokenizer, seed=0, views=True):
        rng = np.random.default_rng(seed)
        self.tokenizer, self.views, self.epoch = tokenizer, views, 0
        self.labels = [i % N_CLASSES for i in range(n_items)]
        self.sentences = []
        for label in self.labels:
            words = list(rng.choice(FILLERS, rng.integers(3, 9))) + list(rng.choice(KEYWORDS[label], 2))
            self.sentences.append([str(word) for word in rng.permutation(words)])

    def __len__(self):
        return len(self.labels)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        words, label = self.sentences[index], self.labels[index]
        if not self.views:
            return {**self.tokenizer(" ".join(words)), "label": label}
        rng = np.random.default_rng((self.epoch, index))
        kept = [word for word in words if rng.random() > 0.15] or words
        masked = ["[MASK]" if rng.random() < 0.15 else word for word in kept]
        return {
            "clean": {**self.tokenizer(" ".join(words)), "label": label},
            "augmented": {**self.tokenizer(" ".join(masked)), "label": label},
        }


class PlainNetwork(nn.Module):
    """Not a transformers model, without a config, and with a dict as output."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, N_CLASSES))

    def forward(self, pixel_values, labels=None):
        logits = self.layers(pixel_values)
        outputs = {"logits": logits}
        if labels is not None:
            outputs = {"loss": nn.functional.cross_entropy(logits, labels), **outputs}
        return outputs


def make_vit():
    torch.manual_seed(0)
    return ViTForImageClassification(
        ViTConfig(
            image_size=16,
            patch_size=4,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            num_labels=N_CLASSES,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


@pytest.fixture
def tokenizer():
    words = ["[PAD]", "[UNK]", "[MASK]", *FILLERS, *(word for words in KEYWORDS.values() for word in words)]
    model = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    model.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]", model_max_length=32
    )


def make_bert(tokenizer):
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=32,
            num_labels=N_CLASSES,
        )
    )


def accuracy(prediction):
    return {"accuracy": float((np.argmax(prediction.predictions, -1) == prediction.label_ids).mean())}


def make_trainer(tmp_path, model, train_dataset, eval_dataset=None, options=None, **trainer_options):
    defaults = {
        "align_gradients": "pcgrad",
        "optim": "adamw_torch",
        "learning_rate": 3e-3,
        "max_steps": 60,
        "per_device_train_batch_size": 16,
        "logging_steps": 10,
    }
    return GradientAlignmentTrainer(
        model=model,
        args=make_arguments(tmp_path, **{**defaults, **(options or {})}),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        compute_metrics=accuracy,
        **trainer_options,
    )


def train_and_check(trainer):
    """Train; check that the loss falls, every parameter moves, and conflicts are logged. Return the metrics."""
    before = weights_of(trainer)
    trainer.train()
    for name, value in weights_of(trainer).items():
        assert not torch.equal(value, before[name]), name
    *logs, _ = trainer.state.log_history
    for view in ("clean", "augmented"):
        assert logs[-1][f"loss_{view}"] < 0.7 * logs[0][f"loss_{view}"]
        assert {f"grad_norm_{view}", f"weight_{view}"} <= set(logs[0])
    assert all(0 <= row["conflict_rate"] <= 1 and -1 <= row["cosine_clean_augmented"] <= 1 for row in logs)
    assert trainer.conflict_counts.rate() == pytest.approx(sum(row["conflict_rate"] for row in logs) / len(logs))
    return trainer.evaluate()


def test_images(tmp_path):
    model = make_vit()
    trainer = make_trainer(tmp_path, model, Images(160), Images(64, seed=1, views=False), SAVED_AT_END)
    metrics = train_and_check(trainer)
    assert metrics["eval_accuracy"] > 0.7
    reloaded = ViTForImageClassification.from_pretrained(tmp_path / "checkpoint-60").eval()
    images = Images(8, views=False).images
    torch.testing.assert_close(reloaded(images).logits, model.eval()(images).logits)


@pytest.mark.slow
def test_text(tmp_path, tokenizer):
    model = make_bert(tokenizer)
    held_out = Texts(64, tokenizer, seed=1, views=False)
    trainer = make_trainer(tmp_path, model, Texts(160, tokenizer), held_out, SAVED_AT_END, processing_class=tokenizer)
    lengths = set()
    forward = model.forward

    def watched(input_ids, attention_mask, **inputs):
        if model.training:
            lengths.add((input_ids.shape[1], bool(attention_mask.all())))
        return forward(input_ids=input_ids, attention_mask=attention_mask, **inputs)

    model.forward = watched
    metrics = train_and_check(trainer)
    assert metrics["eval_accuracy"] > 0.7
    assert len({length for length, _ in lengths}) > 1  # each view is padded to its own length
    assert (max(length for length, _ in lengths), False) in lengths
    reloaded = BertForSequenceClassification.from_pretrained(tmp_path / "checkpoint-60")
    assert largest_difference(reloaded.state_dict(), weights_of(trainer)) == 0
    assert PreTrainedTokenizerFast.from_pretrained(tmp_path / "checkpoint-60").mask_token == "[MASK]"


def test_a_padded_batch_has_the_loss_of_its_items(tmp_path, tokenizer):
    items = [Texts(8, tokenizer)[index] for index in range(8)]
    model = make_bert(tokenizer).eval()
    collator = ViewBatchCollator(DataCollatorWithPadding(tokenizer))
    batch = collator(items)
    assert batch["clean"]["input_ids"].shape != batch["augmented"]["input_ids"].shape
    for view, inputs in batch.items():
        single = [model(**collator([{view: item[view]}])[view]).loss for item in items]
        torch.testing.assert_close(model(**inputs).loss, torch.stack(single).mean())


@pytest.mark.parametrize("views", [("clean", "augmented"), ("augmented",)])
def test_channels_last(tmp_path, views):
    """Gradients with another memory order, which may depend on the view, give the same updates."""

    def in_channels_last(items):
        batch = default_data_collator(items)
        batch["pixel_values"] = batch["pixel_values"].contiguous(memory_format=torch.channels_last)
        return batch

    def collate(items):
        return {
            view: (in_channels_last if view in views else default_data_collator)([item[view] for item in items])
            for view in items[0]
        }

    options = {"max_steps": 6, "optim": "sgd", "learning_rate": 0.05}
    runs = []
    for collator in (None, collate):
        model = PlainNetwork()
        model.load_state_dict(_plain_weights())
        if collator is not None:
            model.to(memory_format=torch.channels_last)
        trainer = make_trainer(tmp_path, model, Images(96), options=options, data_collator=collator)
        trainer.train()
        runs.append(weights_of(trainer))
    assert largest_difference(*runs) < 1e-5


def test_a_plain_module(tmp_path):
    trainer = make_trainer(tmp_path, PlainNetwork(), Images(160), Images(64, seed=1, views=False))
    metrics = train_and_check(trainer)
    assert metrics["eval_accuracy"] > 0.7
    assert metrics["eval_loss"] < 1.0


def test_batches_from_several_loader_workers(tmp_path):
    options = {"max_steps": 3, "dataloader_num_workers": 2}
    trainer = make_trainer(tmp_path, make_vit(), Images(48), options=options)
    trainer.train()
    alone = make_trainer(tmp_path, make_vit(), Images(48), options={"max_steps": 3})
    alone.train()
    assert largest_difference(weights_of(trainer), weights_of(alone)) == 0


def _plain_weights():
    torch.manual_seed(0)
    return PlainNetwork().state_dict()
