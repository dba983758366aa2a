import shutil

import numpy as np
import pytest
from datasets import Dataset

from hf_gradalign.metrics import METRICS
from hf_gradalign.study import Study, StudyTables
from hf_gradalign.study.table_files import write_clips
from hf_gradalign.study.tables import settings_row
from hf_gradalign.study.trial_folder import TrialFolder
from hf_gradalign.study.trial_process import TABLE_METRICS

N_CLIPS = 60
LABELS = np.arange(N_CLIPS) % 2


@pytest.fixture(scope="session")
def small_study():
    """Twelve trials: three methods over two seeds, two of them on two batch sizes, and clean training for longer."""
    return Study.from_mapping(
        {
            "evaluate": {"test": {"corpus": "demo"}, "dev": {"corpus": "demo", "split": "validation"}},
            "cells": [
                {"method": ["dual_path", "pcgrad"], "batch_size": [5, 16], "epochs": 2, "seed": "0..1"},
                {"method": "clean", "batch_size": 16, "epochs": [2, 4], "seed": "0..1"},
            ],
        }
    )


@pytest.fixture
def write_trial(tmp_path):
    """Write what a finished trial leaves, without any training. The scores depend on its settings."""
    return lambda study, trial, sets=None: _write_trial(tmp_path, study, trial, sets)


@pytest.fixture
def clips_folder(tmp_path, small_study):
    """Tables of the evaluation sets' clips."""
    return _write_clips(tmp_path, small_study)


@pytest.fixture(scope="session")
def _finished_study(tmp_path_factory, small_study):
    folder = tmp_path_factory.mktemp("finished_study")
    _write_clips(folder, small_study)
    for trial in small_study.trials:
        _write_trial(folder, small_study, trial)
    StudyTables(folder).update(small_study)
    return folder


@pytest.fixture
def finished_study(tmp_path, _finished_study):
    """The folder of a study whose trials are all finished."""
    return shutil.copytree(_finished_study, tmp_path, dirs_exist_ok=True)


def _write_clips(root, study):
    systems = ["-" if label else f"A0{1 + index // 2 % 2}" for index, label in enumerate(LABELS)]
    names = [f"clip{index}" for index in range(N_CLIPS)]
    for evaluation in study.evaluation_sets:
        clips = Dataset.from_dict({"utterance_id": names, "label": LABELS.tolist(), "system": systems})
        write_clips(clips, evaluation, root / "evaluation_sets")
    return root / "evaluation_sets"


def _write_trial(root, study, trial, sets=None):
    folder = TrialFolder(root / "cells" / trial.id)
    evaluations = []
    for evaluation in study.evaluation_sets if sets is None else sets:
        seed = [trial.settings["seed"], len(str(trial.settings["method"])), trial.settings["batch_size"]]
        scores = np.random.default_rng(seed).normal(size=N_CLIPS).round(6) + LABELS
        path = folder.score_file(evaluation.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"clip{i} {score:.6f}\n" for i, score in enumerate(scores)))
        evaluations.append(
            {
                "evaluation_set": evaluation.name,
                "corpus": evaluation.corpus,
                "split": evaluation.split,
                "subset": evaluation.subset,
                "n_clips": N_CLIPS,
                "n_bad_clips": 0,
                **{name: METRICS[name](scores, LABELS) for name in TABLE_METRICS},
            }
        )
    epochs = int(trial.settings["epochs"])
    run = {
        "n_updates": 10 * epochs,
        "n_forward_passes": 10 * epochs * trial.settings["batch_size"] * trial.n_views,
        "train_loss": 0.5,
        "validation_loss": 0.6,
        "validation_eer": 0.1,
        "conflict_rate": 0.25 if trial.n_views > 1 else None,
        "n_nonfinite_updates": 0,
        "seconds_per_update": 0.1 * trial.n_views,
        "peak_memory_mib": 500.0,
        "versions": {"torch": "2"},
    }
    history = [
        {"epoch": epoch, "eval_loss": 1.0 / epoch, "eval_eer": 0.2, "n_updates": 10, "loss_first": 0.5}
        | (_conflicts(epoch) if trial.n_views > 1 else {})
        for epoch in range(1, epochs + 1)
    ]
    folder.write_settings(settings_row(trial))
    folder.finish({"run": run, "evaluations": evaluations, "epochs": history})
    return folder


def _conflicts(epoch):
    return {
        "loss_second": 0.6,
        "conflict_rate": 0.1 * epoch,
        "cosine_mean": 0.3,
        "cosine_quantiles": [-0.2, 0.1, 0.3, 0.5, 0.8],
        "norm_ratio": 1.5,
        "second_loss_larger": 1.0,
        "second_norm_larger": 0.75,
        "module": ["encoder", "head"],
        "module_conflict_rate": [0.2, 0.4],
        "module_norm_share": [0.75, 0.25],
    }
