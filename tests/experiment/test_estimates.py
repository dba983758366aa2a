import pytest

from hf_gradalign.experiment import parse_arguments
from hf_gradalign.experiment.estimates import duration, estimate_run

CLIPS = {"train": 101, "validation": 33, "test": 64}


def estimate(tmp_path, *words, clips=CLIPS):
    words = ["--per_device_train_batch_size", "5", "--output_dir", str(tmp_path), *words]
    training = parse_arguments(words).training
    return estimate_run(training, clips, seconds_per_update=2.0, seconds_per_evaluation_batch=0.5)


def test_epochs_with_early_stopping(tmp_path):
    found = estimate(tmp_path, "--num_train_epochs", "100", "--early_stopping_patience", "7")
    assert (found.updates_per_epoch, found.updates, found.evaluations) == (21, 2100, 101)
    assert found.training_seconds == 4200
    # 33 clips are three batches of 16, 64 are four.
    assert found.evaluation_seconds == pytest.approx(101 * 1.5 + 2.0)
    assert found.seconds == found.training_seconds + found.evaluation_seconds
    assert found.least_seconds == pytest.approx(8 * (21 * 2.0 + 1.5) + 1.5 + 2.0)


def test_patience_longer_than_the_run(tmp_path):
    found = estimate(tmp_path, "--num_train_epochs", "3", "--early_stopping_patience", "7")
    assert found.least_seconds == found.seconds


def test_accumulation_and_incomplete_updates(tmp_path):
    assert estimate(tmp_path, "--gradient_accumulation_steps", "4").updates_per_epoch == 6
    assert estimate(tmp_path, "--dataloader_drop_last").updates_per_epoch == 20


def test_steps_of_a_stream(tmp_path):
    words = ["--streaming", "--max_steps", "10", "--eval_strategy", "steps", "--save_strategy", "steps"]
    clips = {"validation": 33}
    found = estimate(tmp_path, *words, "--eval_steps", "4", "--save_steps", "4", clips=clips)
    assert (found.updates_per_epoch, found.updates, found.evaluations) == (None, 10, 3)
    assert found.least_seconds is None
    assert found.seconds == pytest.approx(20 + 3 * 1.5)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (99.0, "99 s"), (600, "10 min"), (7300, "2 h 2 min"), (260_000, "3 d 0 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
