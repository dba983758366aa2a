import multiprocessing
import os
import signal
import sys

import pytest
from transformers import TrainerState

from hf_gradalign.data import CorpusError
from hf_gradalign.study import StudyError, trial_process
from hf_gradalign.study.definition import EvaluationSet
from hf_gradalign.study.trial_folder import TrialFolder


def test_a_missing_evaluation_set_is_an_error_before_training(tmp_path, monkeypatch):
    def train(folder, tokens):
        raise AssertionError("it trained")

    monkeypatch.setattr(trial_process, "_train", train)
    sets = [EvaluationSet("demo", None, "validation"), EvaluationSet("wild", f"in_the_wild:{tmp_path / 'gone'}")]
    with pytest.raises((CorpusError, OSError), match="gone"):
        trial_process.run_trial(TrialFolder(tmp_path / "trial"), tmp_path / "clips", sets)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("all_results.json", "{}", "'settings'"),
        ("all_results.json", "[1]", "all_results.json was changed after the trial wrote it"),
        ("trainer_state.json", "{", "trainer_state.json"),
        ("resources.json", "x", "resources.json was changed after the trial wrote it"),
    ],
)
def test_files_of_a_trained_trial_that_were_changed_are_named(tmp_path, monkeypatch, name, content, reason):
    monkeypatch.setattr(trial_process, "_load", lambda evaluation: None)
    monkeypatch.setattr(trial_process, "require_same_clips", lambda *args: None)
    for each in ("all_results.json", "resources.json"):
        (tmp_path / each).write_text("{}")
    TrainerState().save_to_json(str(tmp_path / "trainer_state.json"))
    (tmp_path / name).write_text(content)
    if name == "trainer_state.json":
        (tmp_path / "all_results.json").write_text('{"settings": {}}')
    with pytest.raises(StudyError, match=rf"{reason}.*Delete"):
        trial_process.run_trial(TrialFolder(tmp_path), tmp_path / "clips", [EvaluationSet("demo")])


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_the_handler_saves_a_checkpoint_when_the_parent_ends(platform, monkeypatch):
    signals = []
    monkeypatch.setattr(sys, "platform", platform)
    if platform == "win32":
        monkeypatch.setattr(os, "kill", lambda *args: pytest.fail("would end the process at once"))
    previous = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    try:
        ours, theirs = multiprocessing.Pipe()
        ours.close()
        trial_process._end_with_parent(theirs)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert signals == [signal.SIGTERM]
