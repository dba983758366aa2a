"""A rehearsal changes nothing, and says what fails."""

import copy
import errno
import random

import numpy as np
import pytest
import tiny_detectors
import torch
from datasets import DatasetDict

from hf_gradalign.experiment import parse_arguments, rehearsal, rehearse
from hf_gradalign.experiment.corpora import RunCorpora
from hf_gradalign.experiment.dry_run import synthetic_clips
from hf_gradalign.experiment.preparation import check_views, make_preparation
from hf_gradalign.models import SpoofDetectorFeatureExtractor
from hf_gradalign.training import GradientAlignmentTrainer
from hf_gradalign.utils.messages import error_line

WORDS = [
    "--align_gradients",
    "--use_cpu",
    "--max_steps",
    "4",
    "--per_device_train_batch_size",
    "2",
    "--window_seconds",
    "0.25",
]


@pytest.fixture
def rehearsed(tmp_path):
    """Make a preparation of a detector with batch norms, and the arguments of its run."""
    model = tiny_detectors.make_detector(head="aasist", n_samples=4000)
    extractor = SpoofDetectorFeatureExtractor(n_samples=4000)

    def prepare(*words):
        run = parse_arguments(["--output_dir", str(tmp_path / "out"), *WORDS, *words])
        run.settle_defaults()
        clips = {split: synthetic_clips(8, 0.25, 16_000, split) for split in ("train", "validation", "test")}
        corpora = RunCorpora(DatasetDict(clips), {})
        preparation = make_preparation(corpora, check_views(run), model, extractor, run)
        return preparation, run

    return prepare


def random_states():
    return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]


@pytest.mark.parametrize(
    "words", [[], ["--bf16"], ["--bf16_full_eval"], ["--save_strategy", "no", "--load_best_model_at_end", "no"]]
)
def test_model_and_random_states_stay_as_they_are(rehearsed, tmp_path, words):
    if "no" in words:
        words = [*words, "--average_best_checkpoints", "1"]
    preparation, run = rehearsed(*words)
    model = preparation.model
    next(model.children()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    attributes, options = dict(vars(model)), copy.copy(vars(run.training))
    states = random_states()
    rehearse(preparation, run)
    assert random_states() == states
    assert vars(model) == attributes
    assert vars(run.training) == options
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name]), name
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "hf_gradalign.experiment.results.CountermeasureMetrics.__call__",
            "evaluation was tried before training and failed: no room",
        ),
        (
            "hf_gradalign.experiment.rehearsal.error_rates_by_system",
            "writing the results was tried before training and",
        ),
        (
            "hf_gradalign.experiment.rehearsal.write_run_card",
            "writing the results was tried before training and failed",
        ),
        (
            "hf_gradalign.experiment.rehearsal.write_score_file",
            "writing the results was tried before training and failed",
        ),
        (
            "hf_gradalign.training.GradientAlignmentTrainer.save_model",
            "saving a checkpoint was tried before training and",
        ),
        ("hf_gradalign.training.resumable_trainer.RunCheckpoints.finish", "saving a checkpoint was tried before"),
        (
            "hf_gradalign.data.ClipDataset.__getitem__",
            "reading the clips was tried before training and failed: no room",
        ),
    ],
)
def test_failures_are_named_and_leave_no_files(rehearsed, tmp_path, monkeypatch, place, message):
    def fail(*args, **options):
        raise OSError("no room")

    monkeypatch.setattr(place, fail)
    with pytest.raises(ValueError, match=message):
        rehearse(*rehearsed())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "place", ["hf_gradalign.training.GradientAlignmentTrainer.save_model", "hf_gradalign.data.ClipDataset.__getitem__"]
)
def test_a_full_disk_stays_one(rehearsed, tmp_path, monkeypatch, place):
    def fail(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place, fail)
    with pytest.raises(OSError, match="No space left") as error:
        rehearse(*rehearsed())
    assert "out: No space left on device (" in error_line(error.value, "out")
    assert not (tmp_path / "out").exists()


def test_all_names_are_written_not_only_two(rehearsed, monkeypatch):
    written = []
    monkeypatch.setattr(rehearsal, "write_score_file", lambda path, names, scores: written.append(list(names)))
    preparation, run = rehearsed()
    rehearse(preparation, run)
    assert written == [preparation.corpus[split]["utterance_id"][:] for split in ("validation", "test")]


@pytest.mark.parametrize("words", [[], ["--average_best_checkpoints", "1"]])
def test_weights_that_could_not_be_restored(rehearsed, monkeypatch, words):
    save = GradientAlignmentTrainer.save_model

    def save_another(self, *args, **options):
        model, self.model = self.model, tiny_detectors.make_detector(head="linear")
        save(self, *args, **options)
        self.model = model

    monkeypatch.setattr(GradientAlignmentTrainer, "save_model", save_another)
    with pytest.raises(ValueError, match=r"of this model cannot be restored .* it lacks .*: use --save_strategy no, "):
        rehearse(*rehearsed(*words))


def test_leftovers_of_a_killed_rehearsal_are_removed(rehearsed, tmp_path):
    (tmp_path / "out" / rehearsal.REHEARSAL_DIR / "checkpoint-0").mkdir(parents=True)
    rehearse(*rehearsed())
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["scores_test.txt", "README.md", "trainer_state.json", "conflicts.jsonl"])
def test_files_that_block_a_result(rehearsed, tmp_path, name):
    (tmp_path / "out" / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=f"{name} is a folder, but the run writes a file there: move it away"):
        rehearse(*rehearsed())
