"""The order of an experiment, with its steps replaced by notes."""

from types import SimpleNamespace

import pytest

from hf_gradalign.experiment import RunNotStarted, dry_run_experiment, parse_arguments, run_experiment, runner

CHECKS = [
    *("check_processes", "resolve_output_folder", "require_publishable", "prepare", "check_resumed"),
    *("require_disk_space", "rehearse"),
]
KEPT = ["announce_hub", "keep_arguments", "keep_fingerprint"]


@pytest.fixture
def steps(monkeypatch):
    """The names of the steps that were taken, and what each of them returns or raises."""
    taken, outcomes = [], {}

    def replace(name):
        def step(*args, **options):
            taken.append(name)
            if isinstance(outcomes.get(name), Exception):
                raise outcomes[name]
            return outcomes.get(name)

        monkeypatch.setattr(runner, name, step)

    for name in (*CHECKS, *KEPT, "set_aside", "describe_resumed", "dry_run", "train_and_evaluate"):
        replace(name)
    outcomes["resolve_output_folder"] = ("out", None)
    outcomes["prepare"] = SimpleNamespace(eval_datasets={"validation": 1, "test": 2})
    outcomes["check_resumed"] = {"seed": 1}
    outcomes["train_and_evaluate"] = "results"
    return SimpleNamespace(taken=taken, outcomes=outcomes)


def test_all_checks_come_before_anything_is_kept_or_trained(steps):
    run = parse_arguments([])
    finished = run_experiment(run)
    assert steps.taken == [*CHECKS, *KEPT, "train_and_evaluate"]
    assert run.training.output_dir == "out"
    assert (finished.results, finished.preparation) == ("results", steps.outcomes["prepare"])
    assert set(finished.preparation.eval_datasets) == {"validation", "test"}


@pytest.mark.parametrize("failing", [*CHECKS, *KEPT])
@pytest.mark.parametrize("error", [ValueError("wrong"), OSError(28, "No space left on device"), MemoryError()])
def test_errors_before_training_keep_their_reason(steps, failing, error):
    steps.outcomes[failing] = error
    with pytest.raises(RunNotStarted) as raised:
        run_experiment(parse_arguments([]))
    assert raised.value.__cause__ is error
    assert str(raised.value) == str(error)
    assert steps.taken[-1] == failing


def test_other_errors_pass_through(steps):
    steps.outcomes["train_and_evaluate"] = ValueError("in training")
    with pytest.raises(ValueError, match="in training") as raised:
        run_experiment(parse_arguments([]))
    assert not isinstance(raised.value, RunNotStarted)
    steps.outcomes["prepare"] = RuntimeError("a mistake in the code")
    with pytest.raises(RuntimeError, match="a mistake in the code"):
        run_experiment(parse_arguments([]))


def test_without_the_test_split(steps):
    assert set(run_experiment(parse_arguments([]), evaluate_test=False).preparation.eval_datasets) == {"validation"}


@pytest.mark.parametrize(("checkpoint", "replaces"), [(None, True), ("out/checkpoint-3", False)])
def test_only_a_new_run_replaces_files(steps, checkpoint, replaces):
    steps.outcomes["resolve_output_folder"] = ("out", checkpoint)
    run_experiment(parse_arguments(["--overwrite"]))
    assert ("set_aside" in steps.taken) == replaces


def test_reports_options_that_a_resumed_run_reads_from_its_folder(steps, monkeypatch):
    notified = []
    monkeypatch.setattr(runner, "describe_resumed", lambda options, folder: f"taken from {folder}")
    run_experiment(parse_arguments([]), notify=notified.append)
    assert notified == []
    run = parse_arguments([])
    for checkpoint, folder in ((None, "out"), ("other/checkpoint-3", "other")):
        steps.outcomes["resolve_output_folder"] = ("out", checkpoint)
        run.training.resume_from_checkpoint = "last"
        run_experiment(run, notify=notified.append)
        assert notified.pop() == f"taken from {folder}"


def test_a_dry_run_only_checks(steps):
    steps.outcomes["dry_run"] = "report"
    assert dry_run_experiment(parse_arguments([])) == "report"
    assert steps.taken == ["check_processes", "resolve_output_folder", "require_publishable", "dry_run"]
    steps.outcomes["dry_run"] = ValueError("wrong")
    with pytest.raises(RunNotStarted, match="wrong"):
        dry_run_experiment(parse_arguments([]))
